//! What comes in: Postfix's delay notices. Reading, judging and checking them is pure; only [`hook`], the program, does
//! I/O.
//!
//! A notice is believed only after [`origin::check`]; what it says is then read by [`parse::parse`] and judged by
//! [`NoticeRecipient::failure`].

/// The domain of the hook's address, which exists nowhere (RFC 2606): a recipient there is the hook, at which a notice
/// waits.
pub const DOMAIN: &str = "posttls.invalid";

mod classify;
mod fields;
#[cfg(feature = "programs")]
pub mod hook;
pub mod origin;
mod parse;
#[cfg(feature = "programs")]
pub mod rehearsal;
mod report;
mod words;

pub use classify::{POSTFIX, classify, classify_deferral, classify_with_reason};
pub use origin::{Delivery, Forged, check};
pub use parse::{Notice, NoticeError, Original, original, parse};
pub use report::{Diagnostic, NoticeRecipient, RecipientError, Skipped, written};
