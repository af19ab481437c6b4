//! What the unprivileged web child and the privileged mover say to each other.
//!
//! One message is a four-byte big-endian length and that many octets of JSON. Each question has a number, and its
//! answer carries the same one, so that many are under way at once. A message that is too long or not understood ends
//! the connection: the mover then takes the child for broken (or taken over) and replaces it. The child never learns
//! the key or a case whose token it was not shown.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use crate::case::{Action, Outcome, Passage, RecipientState, Scope};
pub use crate::web::facts::{
    CaseView, ConsentView, DetailView, DomainView, InboxDecision, InboxResult, InboxView,
    MessageView, Moment, RecipientView, RememberedView,
};

/// The longest question, in octets: a decision on a thousand recipients fits.
pub const MAX_QUESTION: usize = 512 * 1024;
/// The longest answer, in octets: a case with thousands of recipients fits.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// One message with the number that joins question and answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbered<T> {
    /// Chosen by the child, repeated by the mover.
    pub number: u64,
    /// The message itself.
    pub body: T,
}

/// From the web child to the mover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// The first message of a child: it serves, and has proved that it holds no privilege.
    Ready,
    /// Is the mover alive, and its store readable?
    Health,
    /// The case that this token opens. Changes nothing.
    Show {
        /// As it stood in the path of the URL.
        token: String,
    },
    /// The sender's decision.
    Decide {
        /// As it stood in the path of the URL.
        token: String,
        /// What to do with whom.
        decision: Decision,
        /// The address that the request came from, for the record.
        client: IpAddr,
    },
    /// One page of all that waits for the decision of the sender whom this token names. Changes nothing.
    ShowSender {
        /// As it stood in the path of the URL.
        token: String,
        /// Which page, from one; the last one when there are fewer.
        page: u32,
    },
    /// The sender's decision on that page.
    DecideSender {
        /// As it stood in the path of the URL.
        token: String,
        /// What to do with whom.
        decision: InboxDecision,
        /// The address that the request came from, for the record.
        client: IpAddr,
    },
    /// The remembered choice that this token opens. Changes nothing.
    ShowConsent {
        /// As it stood in the path of the URL.
        token: String,
    },
    /// Ends the remembered choice.
    EndConsent {
        /// As it stood in the path of the URL.
        token: String,
        /// The address that the request came from, for the record.
        client: IpAddr,
    },
}

/// What the sender wants to be remembered: to send unencrypted to the same recipients in time to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remember {
    /// For each recipient, or for everybody in its domain?
    pub scope: Scope,
    /// For how many days.
    pub days: u16,
}

/// A submitted form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Decision {
    /// `action=` with any number of `recipient=`: one action for those named, or for all that are open if none is.
    Same {
        /// The action.
        action: Action,
        /// Addresses as on the page; empty means all that are open.
        recipients: Vec<String>,
        /// Only with "send".
        remember: Option<Remember>,
        /// [`CaseView::seen`] of the page; 0 if the form does not say.
        seen: i64,
    },
    /// `choice-N=` for recipient number N of the page, each with an action of its own.
    Each {
        /// Pairs of recipient number ([`RecipientView::number`]) and action.
        choices: Vec<(i64, Action)>,
        /// Only where one of them is "send".
        remember: Option<Remember>,
        /// As above.
        seen: i64,
    },
}

/// From the mover to the web child.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// The first message to a child, before it serves.
    Welcome(Box<Settings>),
    /// All is well.
    Healthy,
    /// The case, to be shown.
    Case(Box<CaseView>),
    /// The case after a decision, with [`RecipientView::outcome`] filled for those it named.
    Decided(Box<CaseView>),
    /// A page of a sender's messages, to be shown.
    Inbox(Box<InboxView>),
    /// What a decision about a sender's messages did.
    InboxDecided(Box<InboxResult>),
    /// A remembered choice, to be shown; also after it was ended.
    Consent(Box<ConsentView>),
    /// No such link: unknown, forged and damaged tokens answer alike (404).
    Unknown,
    /// The link is genuine but too old (410).
    Expired,
    /// The form made no sense here (400).
    Refused {
        /// Why.
        why: Refusal,
    },
    /// The mover can't answer now (503): try again.
    Busy,
}

/// What the child needs to know; it reads no file itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whom to ask: shown on every page.
    pub admin_contact: String,
    /// The path of `link.base_url`, without a slash at its end; empty for none. Every link of a page begins with it.
    pub base_path: String,
    /// Addresses of reverse proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Templates that the admin overrides, by file name (see [`crate::web::pages`]).
    pub templates: std::collections::BTreeMap<String, String>,
}

/// Why a form was refused that is well-formed in itself. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Refusal {
    /// The message has no such recipient.
    NoSuchRecipient {
        /// The address or number that the form named.
        who: String,
    },
    /// The sender has no such message.
    NoSuchMessage,
    /// The configuration does not let choices be remembered, or not for so long.
    NotRemembered,
}

impl Refusal {
    /// The key of its sentence.
    pub fn key(&self) -> &'static str {
        match self {
            Self::NoSuchRecipient { .. } => "no-such-recipient",
            Self::NoSuchMessage => "no-such-message",
            Self::NotRemembered => "not-remembered",
        }
    }
}

/// Writes one message.
///
/// # Errors
/// When the message is longer than `max`, or the other side is gone.
pub fn send<T: Serialize>(mut to: impl Write, message: &T, max: usize) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    if body.len() > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("message of {} octets, {max} are allowed", body.len()),
        ));
    }
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(&body);
    to.write_all(&frame)?;
    to.flush()
}

/// Reads one message; `None` when the other side ended between two messages.
///
/// # Errors
/// When the message is longer than `max`, is cut off, or is not understood.
pub fn receive<T: DeserializeOwned>(mut from: impl Read, max: usize) -> io::Result<Option<T>> {
    let mut length = [0u8; 4];
    match from.read(&mut length[..1])? {
        0 => return Ok(None),
        _ => from.read_exact(&mut length[1..])?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("message of {length} octets, {max} are allowed"),
        ));
    }
    let mut body = vec![0u8; length];
    from.read_exact(&mut body)?;
    serde_json::from_slice(&body)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    #[test]
    fn an_unknown_question_is_an_error() {
        for body in [
            r#"{"number":1,"body":{"ask":"shutdown"}}"#,
            r#"{"number":1,"body":{"ask":"show","token":"x","extra":1}}"#,
            // It goes into store and log once for each recipient.
            r#"{"number":1,"body":{"ask":"end-consent","token":"x","client":"no address"}}"#,
            "[]",
        ] {
            let mut frame = (body.len() as u32).to_be_bytes().to_vec();
            frame.extend_from_slice(body.as_bytes());
            assert!(
                receive::<Numbered<Question>>(&frame[..], MAX_QUESTION).is_err(),
                "{body}"
            );
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
        let frame = u32::MAX.to_be_bytes();
        assert_eq!(
            receive::<Question>(&frame[..], 10).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    proptest! {
        #[test]
        fn what_is_sent_is_received(token in ".*", recipients in prop::collection::vec(".*", 0..5)) {
            let question = Question::Decide {
                token,
                decision: Decision::Same { action: Action::Send, recipients, remember: None, seen: 3 },
                client: Ipv4Addr::LOCALHOST.into(),
            };
            let mut frame = Vec::new();
            send(&mut frame, &question, MAX_QUESTION).unwrap();
            prop_assert_eq!(receive::<Question>(&frame[..], MAX_QUESTION).unwrap(), Some(question));
            prop_assert!(receive::<Question>(&frame[..frame.len() - 1], MAX_QUESTION).is_err());
        }

        #[test]
        fn any_octets_are_an_error_or_a_message(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = receive::<Numbered<Question>>(&octets[..], MAX_QUESTION);
        }
    }
}
