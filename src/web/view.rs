//! What the templates see: facts with hostile text made harmless and dates in words, sorted into what is open and what
//! is not. Pure. The sender's page and that of a remembered choice are in `view_inbox`.

use minijinja::Value;
use minijinja::value::Serde;
use serde::Serialize;

use crate::case::Failure;
use crate::text::{readable, shown};
use crate::web::language::Language;
use crate::web::protocol::{
    CaseView, Outcome, Passage, RecipientState, RecipientView, RememberedView, Scope,
};

/// Longest subject and longest server's answer that a page shows, in characters.
pub(super) const MAX_SUBJECT: usize = 300;
const MAX_DETAIL: usize = 1000;

/// The facts about the message.
#[derive(Debug, Serialize)]
struct Message {
    queue_id: String,
    sender: String,
    subject: String,
    arrived: String,
    retry_until: String,
    closed: Option<String>,
    held: bool,
    seen: i64,
}

/// One recipient.
#[derive(Debug, Serialize)]
pub(super) struct Recipient {
    number: i64,
    /// Raw, for the hidden form field only: the mover compares it with the queue file.
    address: String,
    /// For people.
    shown: String,
    failure: Failure,
    detail: String,
    state: RecipientState,
    passage: Option<Passage>,
    passage_detail: String,
    kept: bool,
    open: bool,
    may_send: bool,
    /// Neither done with nor to be decided: its reason is worth showing.
    waiting: bool,
    hindered: bool,
    held: bool,
    outcome: Option<Outcome>,
    mark: Option<&'static str>,
}

/// What can be remembered of the choice that a form makes.
#[derive(Debug, Serialize)]
struct Rememberable {
    days: Vec<u16>,
    recipients: Vec<String>,
    domains: Vec<String>,
}

/// What has been remembered.
#[derive(Debug, Serialize)]
struct Remembered {
    scope: Scope,
    target: String,
    until: String,
}

impl From<&RecipientView> for Recipient {
    fn from(recipient: &RecipientView) -> Self {
        use RecipientState::{Kept, NotOffered, Open};
        Self {
            number: recipient.number,
            address: recipient.address.clone(),
            shown: shown(&recipient.name),
            failure: recipient.failure,
            detail: readable(&recipient.detail, MAX_DETAIL),
            state: recipient.state,
            passage: recipient.passage,
            passage_detail: readable(&recipient.passage_detail, MAX_DETAIL),
            kept: recipient.state == Kept,
            open: recipient.open,
            may_send: recipient.may_send,
            waiting: matches!(recipient.state, Open | Kept | NotOffered),
            hindered: recipient.hindered,
            held: recipient.held,
            outcome: recipient.outcome,
            mark: recipient.outcome.map(mark),
        }
    }
}

/// The facts about the message.
pub(crate) fn message(case: &CaseView, language: Language) -> Value {
    let until = case.retry_until.as_ref();
    Value::from(Serde(Message {
        queue_id: shown(&case.queue_id),
        sender: shown(&case.sender),
        subject: readable(&case.subject, MAX_SUBJECT),
        arrived: language.moment(&case.arrived),
        retry_until: until
            .map(|until| language.moment(until))
            .unwrap_or_default(),
        closed: case.closed.clone(),
        held: case.held,
        seen: case.seen,
    }))
}

/// The recipients that `wanted` picks, in the order of the case.
pub(crate) fn recipients(case: &CaseView, wanted: impl Fn(&RecipientView) -> bool) -> Value {
    let picked = case.recipients.iter().filter(|r| wanted(r));
    Value::from(Serde(picked.map(Recipient::from).collect::<Vec<_>>()))
}

/// What a choice for the open recipients can be remembered for; none when it can't.
pub(crate) fn rememberable(case: &CaseView) -> Value {
    let open = case.recipients.iter().filter(|r| r.open && r.may_remember);
    let mut offer = Rememberable {
        days: case.remember.clone(),
        recipients: Vec::new(),
        domains: Vec::new(),
    };
    for recipient in open {
        offer.recipients.push(shown(&recipient.name));
        let domain = shown(&recipient.domain);
        if !domain.is_empty() && !offer.domains.contains(&domain) {
            offer.domains.push(domain);
        }
    }
    if offer.days.is_empty() || offer.recipients.is_empty() {
        return Value::from(());
    }
    Value::from(Serde(offer))
}

/// What has been remembered.
pub(crate) fn remembered(choices: &[RememberedView], language: Language) -> Value {
    let told = choices.iter().map(|choice| Remembered {
        scope: choice.scope,
        target: shown(&choice.target),
        until: language.moment(&choice.until),
    });
    Value::from(Serde(told.collect::<Vec<_>>()))
}

/// Was it done? The key of the word that the result page puts before each outcome.
pub(super) fn mark(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Released | Outcome::Deleted | Outcome::Kept => "done",
        Outcome::Recorded => "later",
        Outcome::AlreadyDelivered
        | Outcome::AlreadyReturned
        | Outcome::AlreadyGone
        | Outcome::AlreadyDecided
        | Outcome::NotPossible
        | Outcome::Changed => "not-done",
    }
}

/// The key of the heading that sums up all outcomes of a decision.
pub(crate) fn headline(case: &CaseView) -> &'static str {
    let outcomes: Vec<Outcome> = case.recipients.iter().filter_map(|r| r.outcome).collect();
    let all = |wanted: Outcome| outcomes.iter().all(|outcome| *outcome == wanted);
    let undone = outcomes
        .iter()
        .filter(|outcome| mark(**outcome) == "not-done")
        .count();
    match outcomes.len() {
        0 => "nothing",
        _ if all(Outcome::Released) => "released",
        1 if all(Outcome::Deleted) => "deleted-one",
        _ if all(Outcome::Deleted) => "deleted",
        _ if all(Outcome::Kept) => "kept",
        _ if all(Outcome::AlreadyDelivered) => "delivered",
        _ if all(Outcome::AlreadyReturned) => "returned",
        count if undone == count => "nothing",
        _ if undone > 0 => "partly",
        _ if case
            .recipients
            .iter()
            .any(|r| r.held && r.outcome == Some(Outcome::Recorded)) =>
        {
            "held"
        }
        _ if case
            .recipients
            .iter()
            .any(|r| r.hindered && r.outcome == Some(Outcome::Recorded)) =>
        {
            "hindered"
        }
        _ if outcomes.contains(&Outcome::Recorded) => "recorded",
        _ => "done",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::pages::tests::case;

    #[test]
    fn what_has_to_be_repaired_first_is_not_promised_soon() {
        let mut view = case(2);
        for (recipient, outcome) in view
            .recipients
            .iter_mut()
            .zip([Outcome::Recorded, Outcome::Kept])
        {
            recipient.outcome = Some(outcome);
        }
        assert_eq!(headline(&view), "recorded");
        view.recipients[0].hindered = true;
        assert_eq!(headline(&view), "hindered");
        view.recipients[0].held = true;
        assert_eq!(headline(&view), "held");
        view.recipients[0].outcome = Some(Outcome::AlreadyDecided);
        assert_eq!(headline(&view), "partly");
    }

    #[test]
    fn the_heading_promises_no_more_than_was_done() {
        use Outcome::*;
        for (outcomes, key) in [
            (&[][..], "nothing"),
            (&[Released, Released], "released"),
            (&[Deleted], "deleted-one"),
            (&[Deleted, Deleted], "deleted"),
            (&[Kept], "kept"),
            (&[Released, Kept, Deleted], "done"),
            (&[Released, Recorded], "recorded"),
            (&[Recorded], "recorded"),
            (&[Released, AlreadyGone], "partly"),
            (&[Recorded, NotPossible], "partly"),
            (&[Released, Changed], "partly"),
            (&[Changed], "nothing"),
            (&[AlreadyDelivered], "delivered"),
            (&[AlreadyReturned], "returned"),
            (&[AlreadyDelivered, AlreadyReturned], "nothing"),
            (&[AlreadyDelivered, AlreadyDecided], "nothing"),
        ] {
            let mut view = case(outcomes.len());
            for (recipient, outcome) in view.recipients.iter_mut().zip(outcomes) {
                recipient.outcome = Some(*outcome);
            }
            assert_eq!(headline(&view), key, "{outcomes:?}");
        }
    }
}
