//! What the last attempt deferred, by Postfix's own record of it, and which of that is news to a case.
//!
//! Apart because sweep and census ask the same of a message, the one because it knows it and the other because it does not.

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

use log::warn;
use rustix::fs::OFlags;

use super::MoveError;
use super::source::Source;
use crate::case::{Failure, Recipient, RecipientState};
use crate::domain::Domain;
use crate::intake::Deferred;
use crate::notice::classify_deferral;
use crate::postfix::{Deferral, Instance, QueueId, deferrals};

/// Octets read of a log: that of 200,000 recipients.
const MAX_LOG: u64 = 64 << 20;

/// The domain of PostTLS's own notices, which exists nowhere. A recipient there is the hook, at which a notice waits.
const OWN_DOMAIN: &str = "posttls.invalid";

/// Postfix's records about a message, beside its queue file.
#[derive(Debug, Clone, Copy)]
pub enum Log {
    /// What the last attempt deferred.
    Defer,
    /// What is to be returned to the sender.
    Bounce,
}

impl Log {
    /// The directory below the queue directory.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Defer => "defer",
            Self::Bounce => "bounce",
        }
    }
}

/// Reads a log. `None` when there is none (now).
///
/// # Errors
/// When it is there and can't be read.
pub fn read(instance: &Instance, log: Log, id: &QueueId) -> Result<Option<Vec<u8>>, MoveError> {
    let path = instance.directory(log.as_str(), id).join(id.as_str());
    // Should it be anything but a file, opening must not wait for it, nor follow it elsewhere.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(&path);
    let mut content = Vec::new();
    let result = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
        Ok(file) => file.take(MAX_LOG).read_to_end(&mut content),
    };
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
        Domain::of(&deferral.recipient).is_some_and(|domain| domain.as_str() == OWN_DOMAIN)
    };
    deferrals(log)
        .filter(|deferral| waits(deferral) && !is_hook(deferral))
        .map(|deferral| Deferred {
            failure: classify_deferral(&deferral),
            address: deferral.recipient,
            status: deferral.status,
            detail: deferral
                .diagnostic
                .map_or(deferral.reason, |(_, text)| text),
        })
        .collect()
}

/// Is there a failure among them that has to do with TLS?
pub fn any_stuck(deferred: &[Deferred]) -> bool {
    deferred.iter().any(|one| one.failure != Failure::NotTls)
}

/// Those that a case with these recipients does not know, or knows otherwise. What is decided, or done with, stays so.
pub fn news(deferred: Vec<Deferred>, known: &[Recipient]) -> Vec<Deferred> {
    let known: HashMap<&str, &Recipient> = known
        .iter()
        .map(|recipient| (recipient.address.as_str(), recipient))
        .collect();
    let is_news = |one: &Deferred| match known.get(one.address.as_str()) {
        None => true,
        // What was found on hold, and is not on hold any more, is known with its failure, but nobody was asked.
        Some(before) => {
            before.state == RecipientState::NotOffered
                && (before.failure != one.failure || one.failure.is_senders_matter())
        }
    };
    deferred.into_iter().filter(is_news).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deferred(address: &str, failure: Failure) -> Deferred {
        Deferred {
            address: address.parse().unwrap(),
            failure,
            status: "4.7.801".to_owned(),
            detail: String::new(),
        }
    }

    fn known(address: &str, failure: Failure, state: RecipientState) -> Recipient {
        Recipient {
            id: 1,
            number: 1,
            address: address.parse().unwrap(),
            failure,
            status: String::new(),
            detail: String::new(),
            may_send: true,
            state,
            stuck_at: None,
            passage: None,
            passage_at: None,
            passage_detail: None,
        }
    }

    #[test]
    fn only_what_nobody_has_decided_about_is_news() {
        let is_news = |failure, before: Option<(Failure, RecipientState)>| {
            let before: Vec<_> = before
                .map(|(failure, state)| known("a@b.test", failure, state))
                .into_iter()
                .collect();
            !news(vec![deferred("a@b.test", failure)], &before).is_empty()
        };
        let (tls, other) = (Failure::NotOffered, Failure::NotTls);
        assert!(is_news(tls, None) && is_news(other, None));
        for state in RecipientState::ALL.iter().copied() {
            let watched = state == RecipientState::NotOffered;
            assert_eq!(is_news(tls, Some((other, state))), watched, "{state}");
            assert_eq!(is_news(other, Some((tls, state))), watched, "{state}");
            assert_eq!(is_news(tls, Some((tls, state))), watched, "{state}");
            assert!(!is_news(other, Some((other, state))), "{state}");
        }
        let fault = Failure::LocalFault;
        let watched = RecipientState::NotOffered;
        assert!(is_news(fault, Some((other, watched))));
        assert!(!is_news(fault, Some((fault, watched))));
    }
}
