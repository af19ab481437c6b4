//! What can be decided for a recipient, where a recipient stands, and what a decision did for it (pure).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Gives an enum without fields its kebab-case names: one table for `Display`, `FromStr`, the store and JSON.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// Every variant.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in store, JSON and forms.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                Self::ALL.iter().copied().find(|known| known.as_str() == text).ok_or_else(|| UnknownName {
                    kind: stringify!($name),
                    known: Self::ALL.iter().map(|known| known.as_str()).collect::<Vec<_>>().join(", "),
                    text: text.chars().take(80).collect(),
                })
            }
        }
    };
}

/// A name that no variant has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is none of {known}")]
pub struct UnknownName {
    /// The type that was asked for.
    pub kind: &'static str,
    /// The names that it has.
    pub known: String,
    /// The name.
    pub text: String,
}

named! {
    /// Why a recipient was deferred. [`crate::notice::classify`] decides it; policy and texts build on it.
    Failure {
        /// The server did not offer STARTTLS.
        NotOffered = "not-offered",
        /// The server offered STARTTLS and answered the command with an error.
        Refused = "refused",
        /// The TLS handshake failed.
        HandshakeFailed = "handshake-failed",
        /// TLS worked, but the certificate was not trusted or did not match: someone may be listening.
        Certificate = "certificate",
        /// Our own TLS engine, configuration or DNS failed: no sender can answer that.
        LocalFault = "local-fault",
        /// The sender's system demanded TLS for this message (REQUIRETLS, RFC 8689): never to go in plain text.
        RequireTls = "require-tls",
        /// TLS is demanded for the recipient's domain, by a policy of the encrypt instance: written by the admin, or
        /// published by the domain (DANE, MTA-STS).
        Policy = "policy",
        /// TLS failed, and whether plain text may be offered is not known yet: [`crate::standing`] could not be had.
        Unjudged = "unjudged",
        /// Nothing to do with TLS: greylisting, refused connection, full mailbox.
        NotTls = "not-tls",
    }
}

impl Failure {
    /// May the sender decide about such a recipient at all, if only to delete it?
    pub fn is_senders_matter(self) -> bool {
        !matches!(self, Self::LocalFault | Self::NotTls)
    }

    /// Does only a recipient's standing tell what words of this kind mean ([`crate::standing`])?
    pub fn needs_standing(self) -> bool {
        self.can_be_offered() || self == Self::Policy
    }

    /// May configuration allow such a recipient to be sent to unencrypted?
    pub fn can_be_offered(self) -> bool {
        self.is_senders_matter()
            && !matches!(self, Self::RequireTls | Self::Policy | Self::Unjudged)
    }
}

named! {
    /// What can be chosen for a recipient.
    Action {
        /// Hand it to the may instance, which may send it unencrypted.
        Send = "send",
        /// Remove the recipient (and the message, if it was the last one) from the queue.
        Delete = "delete",
        /// Leave it with the encrypt instance, which keeps trying over TLS.
        Keep = "keep",
    }
}

named! {
    /// Where a recipient stands.
    RecipientState {
        /// Waiting for the sender's decision; Postfix keeps trying over TLS meanwhile.
        Open = "open",
        /// The sender chose to keep trying; may still choose otherwise.
        Kept = "kept",
        /// Decided for sending; PostTLS is at it.
        Releasing = "releasing",
        /// Handed to the may instance.
        Released = "released",
        /// Decided for deleting; PostTLS is at it.
        Deleting = "deleting",
        /// Deleted.
        Deleted = "deleted",
        /// Postfix finished with it by itself while the message was still queued: delivered over TLS after all.
        Delivered = "delivered",
        /// Postfix returned it to the sender: refused for good, or not delivered in time.
        Returned = "returned",
        /// Somebody else removed it from the queue.
        Removed = "removed",
        /// No longer in the queue, and nobody saw how it left.
        Gone = "gone",
        /// Not for the sender to decide.
        NotOffered = "not-offered",
    }
}

impl RecipientState {
    /// May the sender choose now?
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Kept)
    }

    /// What somebody is told who decides about it when it has left already.
    pub fn outcome_when_late(self) -> Outcome {
        match self {
            Self::Delivered => Outcome::AlreadyDelivered,
            Self::Returned => Outcome::AlreadyReturned,
            _ => Outcome::AlreadyGone,
        }
    }

    /// Has it left the queue without PostTLS?
    pub fn has_left(self) -> bool {
        matches!(
            self,
            Self::Delivered | Self::Returned | Self::Removed | Self::Gone
        )
    }
}

named! {
    /// What the may instance did with a released recipient.
    Passage {
        /// Delivered over TLS after all.
        Encrypted = "encrypted",
        /// Delivered in plain text.
        Clear = "clear",
        /// Delivered; nobody saw whether over TLS.
        Sent = "sent",
        /// Not delivered yet: the may instance keeps trying.
        Deferred = "deferred",
        /// Returned to the sender.
        Returned = "returned",
        /// Removed from the may instance's queue by somebody.
        Removed = "removed",
    }
}

impl Passage {
    /// Is this how it ended?
    pub fn is_final(self) -> bool {
        self != Self::Deferred
    }
}

named! {
    /// How PostTLS came to know of a message.
    Source {
        /// By Postfix's delay notice.
        Notice = "notice",
        /// A later attempt failed for TLS; seen in the queue.
        Sweep = "sweep",
        /// By a look through the whole queue.
        Census = "census",
    }
}

named! {
    /// Who is asked about a message.
    Asked {
        /// Its sender.
        Sender = "sender",
        /// Nobody: the sender is not one of ours, or there is none. An admin may decide.
        Nobody = "nobody",
    }
}

named! {
    /// What somebody is still to be told about a recipient.
    News {
        /// That it waits for a decision.
        Stuck = "stuck",
        /// That it was deleted, as its domain must be reached over TLS.
        Mandatory = "mandatory",
        /// That it was sent unencrypted by a remembered choice.
        Consent = "consent",
        /// That it was delivered securely after all.
        Delivered = "delivered",
        /// That the may instance returned it, after it was released.
        Returned = "returned",
        /// That it was decided to be sent, and has not been delivered for hours.
        Waiting = "waiting",
        /// That the sender's decision to send was undone, as the fault is ours.
        Withheld = "withheld",
    }
}

named! {
    /// What a mail to a sender is.
    LetterKind {
        /// That one message waits for a decision.
        Notification = "notification",
        /// That several messages wait for decisions.
        Digest = "digest",
        /// That one or several messages still wait.
        Reminder = "reminder",
        /// What happened; there is nothing to decide.
        Information = "information",
    }
}

named! {
    /// What kind of cause a mail to the admin has: the catalogues of texts have an advice for each.
    AlertKind {
        /// [`super::alert::LOCAL_FAULT`].
        LocalFault = "local-fault",
        /// [`super::alert::UNASKED`].
        Unasked = "unasked",
        /// [`super::alert::AUTOMATIC`].
        Automatic = "automatic",
        /// [`super::alert::UNWRITTEN`].
        Unwritten = "unwritten",
        /// [`super::alert::SENDER_CEILING`].
        SenderCeiling = "sender-ceiling",
        /// [`super::alert::CEILING`].
        Ceiling = "ceiling",
        /// [`super::alert::REFUSED`].
        Refused = "refused",
        /// [`super::alert::UNWRITABLE`].
        Unwritable = "unwritable",
        /// [`super::alert::RETURNED`].
        Returned = "returned",
        /// [`super::alert::WAITING`].
        Waiting = "waiting",
        /// [`super::alert::HANDSHAKES`].
        Handshakes = "handshakes",
        /// Something else.
        Other = "other",
    }
}

named! {
    /// What a remembered choice is about.
    Scope {
        /// One recipient address.
        Recipient = "recipient",
        /// Every recipient of one domain.
        Domain = "domain",
    }
}

named! {
    /// What a decision did for a recipient.
    Outcome {
        /// Handed to the may instance.
        Released = "released",
        /// Deleted.
        Deleted = "deleted",
        /// Left with the encrypt instance.
        Kept = "kept",
        /// Recorded; it will be done as soon as a delivery under way ends or the may instance can take it.
        Recorded = "recorded",
        /// Too late: delivered securely in the meantime.
        AlreadyDelivered = "already-delivered",
        /// Too late: returned to the sender in the meantime.
        AlreadyReturned = "already-returned",
        /// Too late: no longer in the queue; removed, or nobody saw how it left.
        AlreadyGone = "already-gone",
        /// Decided before; the first decision stands.
        AlreadyDecided = "already-decided",
        /// Not one that can be chosen.
        NotPossible = "not-possible",
        /// What is known of it has changed since the page was made that the decision came from.
        Changed = "changed",
    }
}

named! {
    /// Where a case stands.
    CaseState {
        /// At least one recipient waits for a decision or for its execution.
        Open = "open",
        /// No recipient failed for TLS yet.
        Watched = "watched",
        /// Nothing is left to decide or to do.
        Closed = "closed",
    }
}

named! {
    /// How far a move has come. The order is the order of the steps.
    MoveStep {
        /// Decided; nothing has been touched.
        Planned = "planned",
        /// A copy for the may instance is complete and is about to appear, or has appeared, in its hold queue.
        Begun = "begun",
        /// The moved and deleted recipients are marked done in the source.
        Marked = "marked",
        /// The copy has left the may instance's hold queue, or there was none to make.
        Requeued = "requeued",
        /// The source is removed, or back in the deferred queue.
        Done = "done",
        /// Stopped because going on might lose or double a delivery: an admin has to look.
        Conflict = "conflict",
    }
}

named! {
    /// Who decided.
    Actor {
        /// Somebody with the link.
        Link = "link",
        /// An admin, by command.
        Admin = "admin",
        /// The configuration: what is to be done with mail of senders who are not asked.
        Policy = "policy",
        /// The list of domains that must be reached over TLS.
        Mandatory = "mandatory",
        /// A choice that the sender made before, and wanted to be remembered.
        Consent = "consent",
    }
}
