//! What senders and the admin are told, and when: the rules, the writing, and the courier, a process that is always there.
//!
//! The hook tells a sender of the first failure at once, and is gone. Everything else that is owed waits in the store
//! until the courier pays it: what the limits held back, reminders, informations, mails to the admin, and what could not
//! be sent when it was tried.

mod due;
mod process;
pub mod rules;
mod writer;

pub use process::{CourierError, run};
pub use writer::{Told, Trouble, Writer};
