//! What the last attempt deferred, by Postfix's own record of it, and which of that is news to a case.
//!
//! Apart because sweep and census ask the same of a message, the one because it knows it and the other because it does not.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;

use log::warn;

use super::MoveError;
use super::source::{self, Source};
use crate::address::Address;
use crate::case::{Failure, Recipient, RecipientState, Written, policy};
use crate::config::Offer;
use crate::domain::Domain;
use crate::intake::Deferred;
use crate::notice::{self, classify_deferral};
use crate::octets;
use crate::postfix::{Deferral, Instance, Log, QueueId, Recipient as Record, deferrals};
use crate::standing::{Host, Standing};

/// Octets read of a log: that of 200,000 recipients.
const MAX_LOG: u64 = 64 << 20;

/// Reads a log. `None` when there is none (now).
///
/// # Errors
/// When it is there and can't be read.
pub fn read(instance: &Instance, log: Log, id: &QueueId) -> Result<Option<Vec<u8>>, MoveError> {
    let mut content = Vec::new();
    let result = match instance.open_log(log, id) {
        Ok(None) => return Ok(None),
        Ok(Some(file)) => file.take(MAX_LOG).read_to_end(&mut content),
        Err(error) => Err(error),
    };
    let path = instance.log_path(log, id);
    match result {
        Ok(read) => {
            if read as u64 == MAX_LOG {
                let path = path.display();
                warn!(
                    "{id}: {path} has more than {MAX_LOG} octets: recipients behind that are not seen"
                );
            }
            Ok(Some(content))
        }
        Err(source) => Err(MoveError::File {
            queue_id: id.clone(),
            doing: "read",
            path,
            source,
        }),
    }
}

/// The recipients that a defer log names and that still wait in the queue file, with the kinds of their failures.
pub fn pending(log: &[u8], source: &Source) -> Vec<Deferred> {
    let waiting: HashSet<u64> = source.content.pending().map(|one| one.offset).collect();
    let waits = |deferral: &Deferral| match deferral.offset {
        Some(offset) => waiting.contains(&offset),
        None => !source.records_of(&deferral.recipient).0.is_empty(),
    };
    let is_hook = |deferral: &Deferral| {
        Domain::of(&deferral.recipient).is_some_and(|domain| domain.as_str() == notice::DOMAIN)
    };
    let records: HashMap<u64, &Record> = source
        .content
        .recipients
        .iter()
        .map(|record| (record.offset, record))
        .collect();
    let written_of = |deferral: &Deferral| match deferral.offset {
        Some(offset) => records
            .get(&offset)
            .map(|record| written(record, &deferral.recipient)),
        None => source::records(&source.content, &deferral.recipient)
            .into_iter()
            .map(|record| written(record, &deferral.recipient))
            .reduce(Written::or),
    };
    deferrals(log)
        .filter(|deferral| waits(deferral) && !is_hook(deferral))
        .map(|deferral| Deferred {
            words: classify_deferral(&deferral),
            host: Host::named_in(&deferral.reason),
            standing: Standing::unasked(),
            written: written_of(&deferral).unwrap_or_default(),
            address: deferral.recipient,
            status: deferral.status,
            detail: deferral
                .diagnostic
                .map_or(deferral.reason, |(_, text)| text),
        })
        .collect()
}

/// What the sender wrote of the recipient of a record.
fn written(record: &Record, recipient: &Address) -> Written {
    match record.dsn_original.as_deref() {
        None | Some([]) => Written::Never,
        Some(orcpt) => notice::written(&octets::text(orcpt), recipient),
    }
}

/// Is there a failure among them that has to do with TLS?
pub fn any_stuck(deferred: &[Deferred]) -> bool {
    deferred.iter().any(|one| one.words != Failure::NotTls)
}

/// Those that a case with these recipients does not know, or knows otherwise: with another failure, other words, or another
/// answer to what may be offered. What is decided, or done with, stays so.
pub fn news(deferred: Vec<Deferred>, known: &[Recipient], offer: &Offer) -> Vec<Deferred> {
    let known: HashMap<&str, &Recipient> = known
        .iter()
        .map(|recipient| (recipient.address.as_str(), recipient))
        .collect();
    // A notice may have shown it with `?` for what is not ASCII, and nobody could say then what stands there.
    let any_noticed = known.keys().any(|address| address.contains('?'));
    let as_known = |one: Deferred| {
        if !any_noticed || known.contains_key(one.address.as_str()) {
            return one;
        }
        let forms = source::as_noticed(&one.address);
        match forms.iter().find_map(|form| known.get(form.as_str())) {
            Some(before) => Deferred {
                address: before.address.clone(),
                ..one
            },
            None => one,
        }
    };
    let is_news = |one: &Deferred| match known.get(one.address.as_str()) {
        None => true,
        // What was found on hold, and is not on hold any more, is known with its failure, but nobody was asked.
        Some(before) => {
            let kind = one.kind();
            let judged = before.failure == Failure::Unjudged && kind != Failure::Unjudged;
            let changed = || {
                before.failure != kind
                    || before.may_send != (kind.can_be_offered() && offer.failures.contains(&kind))
                    || before.status != one.status
                    || before.detail != one.shown()
            };
            let counts = policy::supersedes(kind, before.failure) && changed();
            before.state == RecipientState::NotOffered
                && (before.failure != kind || kind.is_senders_matter())
                || before.state.is_open() && (judged || counts || kind == Failure::LocalFault)
        }
    };
    deferred.into_iter().map(as_known).filter(is_news).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deferred(address: &str, failure: Failure) -> Deferred {
        Deferred {
            address: address.parse().unwrap(),
            written: Written::Same,
            words: failure,
            host: None,
            standing: Standing::Free,
            status: "4.7.801".to_owned(),
            detail: String::new(),
        }
    }

    fn known(address: &str, failure: Failure, state: RecipientState) -> Recipient {
        Recipient {
            id: 1,
            number: 1,
            address: address.parse().unwrap(),
            written: Written::Same,
            failure,
            status: "4.7.801".to_owned(),
            detail: String::new(),
            may_send: failure == Failure::NotOffered,
            state,
            stuck_at: None,
            changed: 0,
            passage: None,
            passage_at: None,
            passage_detail: None,
        }
    }

    fn offer() -> Offer {
        Offer {
            failures: vec![Failure::NotOffered],
        }
    }

    #[test]
    fn only_what_nobody_has_decided_about_is_news() {
        let is_news = |failure, before: Option<(Failure, RecipientState)>| {
            let before: Vec<_> = before
                .map(|(failure, state)| known("a@b.test", failure, state))
                .into_iter()
                .collect();
            !news(vec![deferred("a@b.test", failure)], &before, &offer()).is_empty()
        };
        let (tls, other) = (Failure::NotOffered, Failure::NotTls);
        assert!(is_news(tls, None) && is_news(other, None));
        for state in RecipientState::ALL.iter().copied() {
            let watched = state == RecipientState::NotOffered;
            let asks = watched || state.is_open();
            assert_eq!(is_news(tls, Some((other, state))), asks, "{state}");
            assert_eq!(is_news(other, Some((tls, state))), watched, "{state}");
            assert_eq!(is_news(tls, Some((tls, state))), watched, "{state}");
            assert!(!is_news(other, Some((other, state))), "{state}");
        }
        for state in RecipientState::ALL.iter().copied() {
            let asks = state.is_open() || state == RecipientState::NotOffered;
            let judged = is_news(tls, Some((Failure::Unjudged, state)));
            assert_eq!(judged, asks, "{state}");
        }
        let fault = Failure::LocalFault;
        let watched = RecipientState::NotOffered;
        assert!(is_news(fault, Some((other, watched))));
        assert!(!is_news(fault, Some((fault, watched))));
    }

    #[test]
    fn what_a_notice_showed_with_question_marks_is_no_second_recipient() {
        let shown = known("j??rgen@b.test", Failure::Unjudged, RecipientState::Open);
        let now = |address: &str| deferred(address, Failure::NotOffered);
        for (address, recorded) in [
            ("jürgen@b.test", "j??rgen@b.test"),
            ("jrgen@b.test", "jrgen@b.test"),
        ] {
            let found = news(vec![now(address)], std::slice::from_ref(&shown), &offer());
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].address.as_str(), recorded);
        }
    }

    #[test]
    fn a_failure_that_changes_is_news_while_it_is_open() {
        let before = |failure| known("a@b.test", failure, RecipientState::Open);
        let is_news =
            |one: Deferred, before: Recipient| !news(vec![one], &[before], &offer()).is_empty();
        let (plain, certificate) = (Failure::NotOffered, Failure::Certificate);
        let now = |failure| deferred("a@b.test", failure);
        assert!(!is_news(now(plain), before(plain)));
        assert!(is_news(now(certificate), before(plain)));
        assert!(is_news(now(plain), before(certificate)));
        for transient in [Failure::NotTls, Failure::Unjudged] {
            assert!(!is_news(now(transient), before(certificate)), "{transient}");
        }
        // The admin is to hear of it.
        assert!(is_news(now(Failure::LocalFault), before(plain)));
        assert!(!is_news(now(plain), before(Failure::RequireTls)));
        let other_words = Deferred {
            detail: "another server".to_owned(),
            ..now(plain)
        };
        assert!(is_news(other_words, before(plain)));
        let offered_no_more = Recipient {
            may_send: false,
            ..before(plain)
        };
        assert!(is_news(now(plain), offered_no_more));
    }
}
