//! What the templates of a sender's page and of a remembered choice see. Pure.

use minijinja::Value;
use minijinja::value::Serde;
use serde::Serialize;

use crate::text::{readable, shown};
use crate::web::facts::{PAGE_MESSAGES, RecipientView};
use crate::web::language::Language;
use crate::web::protocol::{ConsentView, InboxResult, InboxView, MessageView, Outcome, Scope};
use crate::web::view::{MAX_SUBJECT, Recipient, mark};

/// Domains that are shown at once; the others unfold.
const FIRST_DOMAINS: usize = 10;

#[derive(Debug, Serialize)]
struct Inbox {
    sender: String,
    messages: u64,
    recipients: u64,
    unsendable: u64,
    sendable: u64,
    seen: i64,
    page: u32,
    pages: u32,
    /// The numbers of the pages to choose from; 0 stands for those left out.
    turn: Vec<u32>,
    first: u64,
    last: u64,
    domains: Vec<Domain>,
    more: Vec<Domain>,
    more_domains: u64,
    shown: Vec<Message>,
}

#[derive(Debug, Clone, Serialize)]
struct Domain {
    name: String,
    recipients: u64,
}

#[derive(Debug, Serialize)]
struct Message {
    token: String,
    case: i64,
    subject: String,
    arrived: String,
    retry_until: String,
    recipients: Vec<Recipient>,
    more: u64,
    held: bool,
    seen: i64,
}

#[derive(Debug, Serialize)]
struct InboxDone {
    counts: Vec<Count>,
    excluded: u64,
    unrecorded: u64,
    left: u64,
    details: Vec<Detail>,
    /// Is there more than the details tell?
    cut: bool,
}

#[derive(Debug, Serialize)]
struct Count {
    outcome: Outcome,
    mark: &'static str,
    recipients: u64,
}

#[derive(Debug, Serialize)]
struct Detail {
    token: String,
    subject: String,
    shown: String,
    outcome: Outcome,
    mark: &'static str,
}

#[derive(Debug, Serialize)]
struct Consent {
    sender: String,
    scope: Scope,
    target: String,
    failures: Vec<crate::case::Failure>,
    granted: String,
    expires: String,
    ended: Option<String>,
    in_force: bool,
    uses: i64,
}

/// The page of a sender.
pub(crate) fn inbox(view: &InboxView, language: Language) -> Value {
    let domains: Vec<Domain> = view
        .domains
        .iter()
        .map(|domain| Domain {
            name: shown(&domain.domain),
            recipients: domain.recipients,
        })
        .collect();
    let (first, more) = domains.split_at(domains.len().min(FIRST_DOMAINS));
    let before = u64::from(view.page.saturating_sub(1)) * PAGE_MESSAGES as u64;
    Value::from(Serde(Inbox {
        sender: shown(&view.sender),
        messages: view.messages,
        recipients: view.recipients,
        unsendable: view.unsendable,
        sendable: view.recipients.saturating_sub(view.unsendable),
        seen: view.seen,
        page: view.page,
        pages: view.pages,
        turn: turn(view.page, view.pages),
        first: before + 1,
        last: before + view.shown.len() as u64,
        domains: first.to_vec(),
        more: more.to_vec(),
        more_domains: view.more_domains,
        shown: view.shown.iter().map(|m| message(m, language)).collect(),
    }))
}

fn message(view: &MessageView, language: Language) -> Message {
    let until = view.retry_until.as_ref();
    Message {
        token: view.token.clone(),
        case: view.case,
        subject: readable(&view.subject, MAX_SUBJECT),
        arrived: language.moment(&view.arrived),
        retry_until: until
            .map(|until| language.moment(until))
            .unwrap_or_default(),
        recipients: view.recipients.iter().map(recipient).collect(),
        more: view.more,
        held: view.held,
        seen: view.seen,
    }
}

fn recipient(view: &RecipientView) -> Recipient {
    Recipient::from(view)
}

/// The first page, the last, and those around this one.
fn turn(page: u32, pages: u32) -> Vec<u32> {
    let near = |number: &u32| *number == 1 || *number == pages || number.abs_diff(page) <= 2;
    let mut shown = Vec::new();
    let mut last = 0;
    let around = page.saturating_sub(2)..=page.saturating_add(2).min(pages);
    for number in std::iter::once(1).chain(around).chain([pages]) {
        if number <= last || !near(&number) {
            continue;
        }
        if number > last + 1 {
            shown.push(0);
        }
        shown.push(number);
        last = number;
    }
    shown
}

/// What a decision on a sender's page did.
pub(crate) fn inbox_result(result: &InboxResult) -> Value {
    let counts = result.counts.iter().map(|(outcome, recipients)| Count {
        outcome: *outcome,
        mark: mark(*outcome),
        recipients: *recipients,
    });
    let details = result.details.iter().map(|detail| Detail {
        token: detail.token.clone(),
        subject: readable(&detail.subject, MAX_SUBJECT),
        shown: shown(&detail.name),
        outcome: detail.outcome,
        mark: mark(detail.outcome),
    });
    let all: u64 = result.counts.iter().map(|(_, count)| count).sum();
    Value::from(Serde(InboxDone {
        counts: counts.collect(),
        excluded: result.excluded,
        unrecorded: result.unrecorded,
        left: result.left,
        details: details.collect(),
        cut: all > result.details.len() as u64,
    }))
}

/// The key of the heading of that.
pub(crate) fn inbox_headline(result: &InboxResult) -> &'static str {
    let marked = |wanted: &str| {
        let counts = result.counts.iter();
        counts
            .filter(|(outcome, _)| mark(*outcome) == wanted)
            .count()
    };
    let (later, not_done) = (marked("later"), marked("not-done"));
    match result.counts.as_slice() {
        [] => "nothing",
        counts if not_done == counts.len() => "nothing",
        _ if not_done > 0 || result.unrecorded + result.excluded > 0 => "partly",
        _ if later > 0 => "recorded",
        [(Outcome::Kept, _)] => "kept",
        _ => "done",
    }
}

/// A remembered choice.
pub(crate) fn consent(view: &ConsentView, language: Language) -> Value {
    Value::from(Serde(Consent {
        sender: shown(&view.sender),
        scope: view.scope,
        target: shown(&view.target),
        failures: view.failures.clone(),
        granted: language.moment(&view.granted),
        expires: language.moment(&view.expires),
        ended: view.ended.as_ref().map(|ended| language.moment(ended)),
        in_force: view.in_force,
        uses: view.uses,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_pages_there_are_few_are_offered() {
        for (page, pages, expected) in [
            (1, 1, &[1][..]),
            (1, 3, &[1, 2, 3]),
            (1, 100, &[1, 2, 3, 0, 100]),
            (5, 100, &[1, 0, 3, 4, 5, 6, 7, 0, 100]),
            (100, 100, &[1, 0, 98, 99, 100]),
            (4, 6, &[1, 2, 3, 4, 5, 6]),
        ] {
            assert_eq!(turn(page, pages), expected, "{page} of {pages}");
        }
        assert_eq!(turn(u32::MAX, u32::MAX).last(), Some(&u32::MAX));
    }

    #[test]
    fn the_heading_promises_no_more_than_was_done() {
        use Outcome::*;
        for (counts, unrecorded, key) in [
            (&[][..], 0, "nothing"),
            (&[(AlreadyGone, 3)], 0, "nothing"),
            (&[(Released, 3)], 0, "done"),
            (&[(Released, 3)], 1, "partly"),
            (&[(Kept, 3)], 0, "kept"),
            (&[(Released, 3), (Recorded, 900)], 0, "recorded"),
            (&[(Recorded, 900), (NotPossible, 1)], 0, "partly"),
        ] {
            let result = InboxResult {
                counts: counts.to_vec(),
                excluded: 0,
                unrecorded,
                details: Vec::new(),
                left: 0,
            };
            assert_eq!(inbox_headline(&result), key, "{counts:?}");
        }
    }
}
