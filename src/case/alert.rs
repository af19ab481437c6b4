//! Causes of mails to the admin: raised in one place, explained in another, so named here for both (pure).
//!
//! A cause is what makes two troubles the same one. What differs from message to message is the example, not the cause.

pub use super::state::AlertKind as Kind;

/// Beginning of the cause when TLS does not work on our side; what Postfix said follows.
pub const LOCAL_FAULT: &str = "local fault: ";
/// Mail of senders who are not asked is stuck, and the configuration says "tell".
pub const UNASKED: &str = "stuck mail of senders who are not asked";
/// Mail that programs have sent is stuck, and the configuration says "tell".
pub const AUTOMATIC: &str = "stuck mail of lists and programs";
/// Mail to recipients whom its sender never wrote, such as those of `always_bcc`, is stuck.
pub const UNWRITTEN: &str = "stuck mail to recipients that its sender never wrote";
/// A sender has got as many mails as `limits.per_sender_hour` allows.
pub const SENDER_CEILING: &str = "limits.per_sender_hour is reached";
/// All senders together have got as many mails as `limits.per_hour` allows.
pub const CEILING: &str = "limits.per_hour is reached";
/// The mail server refuses what senders are to be told.
pub const REFUSED: &str = "mail to senders is refused";
/// A sender whom no mail can be written to.
pub const UNWRITABLE: &str = "a mail to a sender can't be written";
/// The may instance returned released mail of a sender who is not asked.
pub const RETURNED: &str = "released mail of senders who are not asked was returned";
/// TLS handshakes with several unrelated domains have failed at once.
pub const HANDSHAKES: &str = "TLS handshakes fail with several domains at once";
/// Released mail of a sender who is not asked has not been delivered for hours.
pub const WAITING: &str = "released mail of senders who are not asked still waits";

impl Kind {
    /// The kind of a cause.
    pub fn of(cause: &str) -> Self {
        match cause {
            UNASKED => Self::Unasked,
            AUTOMATIC => Self::Automatic,
            UNWRITTEN => Self::Unwritten,
            SENDER_CEILING => Self::SenderCeiling,
            CEILING => Self::Ceiling,
            REFUSED => Self::Refused,
            UNWRITABLE => Self::Unwritable,
            RETURNED => Self::Returned,
            WAITING => Self::Waiting,
            HANDSHAKES => Self::Handshakes,
            other if other.starts_with(LOCAL_FAULT) => Self::LocalFault,
            _ => Self::Other,
        }
    }
}
