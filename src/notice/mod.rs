//! What comes in: Postfix's delay notices. Reading, judging and checking them is pure; only [`hook`], the program, does
//! I/O.
//!
//! A notice is believed only after [`origin::check`]; what it says is then read by [`parse::parse`] and judged by
//! [`NoticeRecipient::failure`].

mod classify;
mod fields;
pub mod hook;
pub mod origin;
mod parse;
mod report;

pub use classify::{POSTFIX, classify, classify_deferral, classify_with_reason};
pub use origin::{Delivery, Forged, check};
pub use parse::{Notice, NoticeError, Original, original, parse};
pub use report::{Diagnostic, NoticeRecipient, RecipientError, Skipped};
