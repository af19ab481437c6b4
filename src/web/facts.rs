//! What pages show, as the mover tells it: facts without words. All texts are raw: the child escapes them, and puts
//! everything into the language of the reader.
//!
//! Apart from `protocol`, which is about questions and answers. Everything here is bounded: a page, not a mailbox.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::case::{Action, Failure, Outcome, Passage, RecipientState, Scope};
use crate::text::local_zone;

/// Messages on one page of a sender.
pub const PAGE_MESSAGES: usize = 50;
/// Recipients of one message on a sender's page; its own page has them all.
pub const PAGE_RECIPIENTS: usize = 20;
/// Recipient domains on a sender's page, those with the most recipients first.
pub const PAGE_DOMAINS: usize = 200;

/// A moment, with the clock of the mail host: the child reads no time zone data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// Unix seconds.
    pub seconds: i64,
    /// Seconds that this host's clock was ahead of UTC then.
    pub offset: i32,
    /// What its time zone is called then, such as `CET`.
    pub zone: String,
}

impl Moment {
    /// In the time zone of this system. A moment beyond all calendars is shown as the beginning of Unix time.
    pub fn local(seconds: i64) -> Self {
        let timestamp = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
        let zone = local_zone();
        let info = zone.to_offset_info(timestamp);
        Self {
            seconds: timestamp.as_second(),
            offset: info.offset().seconds(),
            zone: info.abbreviation().to_owned(),
        }
    }

    /// As [`Moment::local`], from Unix milliseconds.
    pub fn local_ms(milliseconds: i64) -> Self {
        Self::local(milliseconds.div_euclid(1000))
    }
}

/// A case as its page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseView {
    /// Queue ID in the encrypt instance.
    pub queue_id: String,
    /// Envelope sender.
    pub sender: String,
    /// Decoded subject; may be empty.
    pub subject: String,
    /// When the message came.
    pub arrived: Moment,
    /// Until when Postfix keeps trying, where known.
    pub retry_until: Option<Moment>,
    /// Why it was closed: a state of recipients or `mixed`; `None` while it is not.
    pub closed: Option<String>,
    /// Does an administrator hold the message?
    #[serde(default)]
    pub held: bool,
    /// The last change of what this page tells of its recipients; forms carry it back.
    pub seen: i64,
    /// All recipients that are known to be stuck, in the order of the case.
    pub recipients: Vec<RecipientView>,
    /// The days for which a choice may be remembered, ascending; empty when it may not.
    pub remember: Vec<u16>,
    /// What was remembered by the decision just submitted.
    pub remembered: Vec<RememberedView>,
}

/// A recipient on the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipientView {
    /// Number within the case, stable: the name of its form field.
    pub number: i64,
    /// Recipient address: what forms name.
    pub address: String,
    /// The recipient as its sender knows it: perhaps with the address that the sender wrote.
    pub name: String,
    /// Its domain in ASCII form; empty when it has none.
    pub domain: String,
    /// Why it is stuck.
    pub failure: Failure,
    /// What Postfix or the remote server said.
    pub detail: String,
    /// Where it stands.
    pub state: RecipientState,
    /// What the may instance did with it, once released and known.
    pub passage: Option<Passage>,
    /// What the may instance or the remote server said about that; may be empty.
    pub passage_detail: String,
    /// May the sender choose now?
    pub open: bool,
    /// Is sending unencrypted one of the choices? Deleting and keeping are whenever [`RecipientView::open`] is set.
    pub may_send: bool,
    /// May that choice be remembered?
    pub may_remember: bool,
    /// Is a decision recorded for it that could not be carried out, and will not be before something is mended?
    #[serde(default)]
    pub hindered: bool,
    /// Is a decision recorded for it that waits until an administrator lets the message go?
    #[serde(default)]
    pub held: bool,
    /// What the decision just submitted did for it; `None` when that decision did not name it.
    pub outcome: Option<Outcome>,
}

/// A choice that has just been remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RememberedView {
    /// One recipient, or a domain?
    pub scope: Scope,
    /// Which.
    pub target: String,
    /// Until when.
    pub until: Moment,
}

/// One page of all that waits for the decision of a sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InboxView {
    /// Envelope sender.
    pub sender: String,
    /// Messages of which a recipient waits.
    pub messages: u64,
    /// Recipients that wait.
    pub recipients: u64,
    /// Those of them that may not be sent to unencrypted.
    pub unsendable: u64,
    /// What this page knows of: a decision for all is about what was stuck by then (Unix milliseconds), and not about
    /// what came while the sender was reading.
    pub seen: i64,
    /// The number of this page, from one.
    pub page: u32,
    /// How many pages there are, at least one.
    pub pages: u32,
    /// The recipient domains with the most recipients.
    pub domains: Vec<DomainView>,
    /// How many domains are not named here.
    pub more_domains: u64,
    /// The messages of this page.
    pub shown: Vec<MessageView>,
}

/// Recipients of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainView {
    /// The domain in ASCII form; empty for recipients without one.
    pub domain: String,
    /// How many wait.
    pub recipients: u64,
}

/// A message on the page of its sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageView {
    /// Opens its own page.
    pub token: String,
    /// The number of its case, for the names of form fields.
    pub case: i64,
    /// Decoded subject; may be empty.
    pub subject: String,
    /// When it came.
    pub arrived: Moment,
    /// Until when Postfix keeps trying, where known.
    pub retry_until: Option<Moment>,
    /// Does an administrator hold it?
    #[serde(default)]
    pub held: bool,
    /// As [`CaseView::seen`].
    pub seen: i64,
    /// The first of its recipients that wait.
    pub recipients: Vec<RecipientView>,
    /// How many more do.
    pub more: u64,
}

/// What a decision on a sender's page did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InboxResult {
    /// How many recipients had which outcome; those with none are left out.
    pub counts: Vec<(Outcome, u64)>,
    /// Recipients that the decision did not touch, as they may not be sent to unencrypted.
    pub excluded: u64,
    /// Recipients that it was about and for which there was no time: nothing was recorded for them.
    pub unrecorded: u64,
    /// Some recipients with what came of them, what could not be done first.
    pub details: Vec<DetailView>,
    /// Messages of which a recipient still waits for a decision.
    pub left: u64,
}

/// What came of one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetailView {
    /// Opens the page of the message.
    pub token: String,
    /// Subject of the message; may be empty.
    pub subject: String,
    /// The recipient.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// A remembered choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentView {
    /// Whose choice.
    pub sender: String,
    /// One recipient, or a domain?
    pub scope: Scope,
    /// Which.
    pub target: String,
    /// The failures that it was given for.
    pub failures: Vec<Failure>,
    /// Since when.
    pub granted: Moment,
    /// Until when.
    pub expires: Moment,
    /// When it was ended before that.
    pub ended: Option<Moment>,
    /// Is it still in force?
    pub in_force: bool,
    /// How often it was used.
    pub uses: i64,
}

/// A decision on a sender's page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case", deny_unknown_fields)]
pub enum InboxDecision {
    /// `action=` with `seen=`, and `domain=` where it is about one domain: the same for all that wait.
    All {
        /// The action.
        action: Action,
        /// [`InboxView::seen`] of the page.
        seen: i64,
        /// Only recipients of this domain (ASCII form).
        domain: Option<String>,
    },
    /// `choice-CASE-NUMBER=`, each with an action of its own.
    Each {
        /// Number of the case, number of the recipient in it, action.
        choices: Vec<(i64, i64, Action)>,
        /// `seen-CASE=`: number of the case, [`MessageView::seen`] of the page.
        seen: Vec<(i64, i64)>,
    },
}
