//! What PostTLS knows: cases, their states, the policy on what may be offered, and the store.

pub mod alert;
pub mod automatic;
#[cfg(feature = "programs")]
pub mod policy;
mod state;
#[cfg(feature = "programs")]
pub mod store;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::postfix::QueueId;

pub use state::{
    Action, Actor, Asked, CaseState, Failure, LetterKind, MoveStep, News, Outcome, Passage,
    RecipientState, Scope, Source, UnknownName,
};

/// The number of a case in the store, and in its links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CaseId(pub i64);

impl fmt::Display for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a remembered choice in the store, and in links to revoke it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConsentId(pub i64);

/// Sixteen hexadecimal digits; `posttls consents` takes as many of the first ones as are needed to tell.
impl fmt::Display for ConsentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The number of a sender in the store, and in links to all of the sender's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SenderId(pub i64);

/// What names one message for good. A queue ID alone does not: Postfix reuses it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MessageKey {
    /// In the encrypt instance.
    pub queue_id: QueueId,
    /// Envelope sender; `None` is the null sender.
    pub sender: Option<Address>,
    /// When Postfix took the message, in Unix seconds.
    pub arrival: i64,
}

/// One message of which recipients are stuck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Case {
    /// Its number.
    pub id: CaseId,
    /// The message.
    #[serde(flatten)]
    pub key: MessageKey,
    /// Decoded subject.
    pub subject: String,
    /// `Message-ID` of the original, with angle brackets.
    pub message_id: Option<String>,
    /// Until when Postfix keeps trying, in Unix seconds.
    pub retry_until: Option<i64>,
    /// Where it stands.
    pub state: CaseState,
    /// When it was opened, in Unix milliseconds.
    pub opened_at: i64,
    /// When the sender's mail server took the notification, in Unix milliseconds.
    pub notified_at: Option<i64>,
    /// How PostTLS came to know of the message.
    pub source: Source,
    /// Who is asked.
    pub asked: Asked,
    /// When it was closed, in Unix milliseconds.
    pub closed_at: Option<i64>,
    /// Why it was closed: the state of its recipients when they all ended alike, else "mixed".
    pub closed_why: Option<String>,
    /// When it lost its personal data, in Unix milliseconds: what stands for addresses then is none.
    pub redacted_at: Option<i64>,
    /// Since when an administrator holds the message, in Unix milliseconds.
    pub held_at: Option<i64>,
}

/// Seconds that a message is expected to stay queued when nobody said: Postfix's default five days.
pub const USUAL_LIFETIME: i64 = 5 * 86_400;

impl Case {
    /// Until when a link to it opens its page, in Unix seconds: `valid_days` longer than Postfix keeps the message.
    pub fn link_expiry(&self, valid_days: u16) -> i64 {
        let until = self
            .retry_until
            .unwrap_or(self.key.arrival + USUAL_LIFETIME);
        until + i64::from(valid_days) * 86_400
    }
}

/// What a sender wrote of a recipient that is in the queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Written {
    /// Its address.
    #[default]
    Same,
    /// Another address, that an alias expanded to it.
    Other(Address),
    /// Nothing: `always_bcc` and its like, or a milter, added it. The sender is not to hear of it.
    Never,
}

impl Written {
    /// What was written of a recipient who stands in the queue twice.
    pub fn or(self, second: Self) -> Self {
        match (self, second) {
            (Self::Same, _) | (_, Self::Same) => Self::Same,
            (Self::Other(address), _) | (_, Self::Other(address)) => Self::Other(address),
            (Self::Never, Self::Never) => Self::Never,
        }
    }

    /// A recipient as its sender knows it: behind the address that was written, the one that it stands for.
    pub fn name(&self, address: &Address) -> String {
        match self {
            Self::Same | Self::Never => address.as_str().to_owned(),
            Self::Other(written) => format!("{} \u{2192} {}", written.as_str(), address.as_str()),
        }
    }
}

/// A recipient of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recipient {
    /// Its number in the store.
    #[serde(skip)]
    pub id: i64,
    /// Its number within the case, from one, in the order of the notice.
    pub number: i64,
    /// Address, as in the queue file.
    pub address: Address,
    /// What the sender wrote.
    pub written: Written,
    /// Why it is stuck.
    pub failure: Failure,
    /// The status code that Postfix gave (RFC 3463).
    pub status: String,
    /// What Postfix or the remote server said.
    pub detail: String,
    /// May it go unencrypted, if the sender wants that?
    pub may_send: bool,
    /// Where it stands.
    pub state: RecipientState,
    /// Since when it is known to be stuck for TLS, in Unix milliseconds.
    pub stuck_at: Option<i64>,
    /// Which change of what the case's page tells was the last one about this recipient; 0: none yet. See
    /// [`store::Store::decide`].
    #[serde(skip)]
    pub changed: i64,
    /// What the may instance did with it, once released.
    pub passage: Option<Passage>,
    /// When it did that, in Unix milliseconds.
    pub passage_at: Option<i64>,
    /// What the may instance or the remote server said about it.
    pub passage_detail: Option<String>,
}

impl Recipient {
    /// May the sender see it, hear of it and decide about it?
    pub fn is_senders(&self) -> bool {
        self.written != Written::Never
    }

    /// As its sender knows it.
    pub fn name(&self) -> String {
        self.written.name(&self.address)
    }
}
