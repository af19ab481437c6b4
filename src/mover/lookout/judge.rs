//! What the marks in a queue file and the bounce log together say of a recipient (pure).

use std::collections::{HashMap, HashSet};

use crate::address::Address;
use crate::postfix::{Deferral, Recipient, RecipientState};

/// What a bounce or defer log has said until now.
#[derive(Debug, Default)]
pub(super) struct Logged {
    by_offset: HashMap<u64, String>,
    /// Records without an offset.
    by_address: HashMap<Address, String>,
    /// There was one, and it was gone before it could be read.
    pub unread: bool,
}

/// How a recipient stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    /// At least one of its records is still to do.
    Waits,
    /// Nothing has happened since it was last judged, or the file does not have it.
    Nothing,
    /// Marked done, and not in the bounce log.
    Delivered,
    /// Marked done, and in the bounce log, with this reason.
    Returned(String),
    /// Marked done; whether delivered or returned can't be told.
    Unclear,
}

impl Logged {
    /// Has it said anything at all?
    pub fn is_empty(&self) -> bool {
        self.by_offset.is_empty() && self.by_address.is_empty() && !self.unread
    }

    pub fn add(&mut self, records: impl Iterator<Item = Deferral>) {
        for record in records {
            match record.offset {
                Some(offset) => drop(self.by_offset.insert(offset, record.reason)),
                None => drop(self.by_address.insert(record.recipient, record.reason)),
            }
        }
    }

    fn reason(&self, record: &Recipient) -> Option<&String> {
        self.by_offset.get(&record.offset).or_else(|| {
            let address = record.address.as_ref()?;
            self.by_address.get(address)
        })
    }
}

/// Judges a recipient by its records. `fresh` is how many records of the whole file were marked since the last look.
/// `overdue` is the defer log of a message whose time has come: the defer service returns what it has in there, and
/// marks it done, too.
pub(super) fn judge(
    records: &[&Recipient],
    judged: &HashSet<u64>,
    bounces: &Logged,
    overdue: Option<&Logged>,
    fresh: usize,
) -> Mark {
    if records
        .iter()
        .any(|one| one.state == RecipientState::Pending)
    {
        return Mark::Waits;
    }
    let done: Vec<_> = records
        .iter()
        .filter(|one| one.state == RecipientState::Done && !judged.contains(&one.offset))
        .collect();
    if done.is_empty() {
        return Mark::Nothing;
    }
    if let Some(reason) = done.iter().find_map(|one| bounces.reason(one)) {
        return Mark::Returned(reason.clone());
    }
    if let Some(reason) = done.iter().find_map(|one| overdue?.reason(one)) {
        return Mark::Returned(format!("not delivered in time: {reason}"));
    }
    let unread_overdue = overdue.is_some_and(|log| log.unread);
    match (bounces.unread, unread_overdue, fresh) {
        (false, false, _) => Mark::Delivered,
        (true, false, 1) => Mark::Returned("returned to the sender".to_owned()),
        _ => Mark::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64, state: RecipientState) -> Recipient {
        Recipient {
            offset,
            state,
            bytes: b"bob@x.test".to_vec(),
            address: "bob@x.test".parse().ok(),
            original: None,
            dsn_original: None,
            notify: None,
        }
    }

    fn bounces(log: &str) -> Logged {
        let mut bounces = Logged::default();
        bounces.add(crate::postfix::deferrals(log.as_bytes()));
        bounces
    }

    #[test]
    fn a_mark_means_delivered_unless_the_bounce_log_has_the_recipient() {
        let (waits, done) = (
            record(7, RecipientState::Pending),
            record(9, RecipientState::Done),
        );
        let none = Logged::default();
        let judge = |records: &[&Recipient], judged: &[u64], bounces: &Logged, fresh| {
            judge(
                records,
                &judged.iter().copied().collect(),
                bounces,
                None,
                fresh,
            )
        };
        assert_eq!(judge(&[&waits, &done], &[], &none, 1), Mark::Waits);
        assert_eq!(judge(&[&done], &[], &none, 1), Mark::Delivered);
        assert_eq!(judge(&[&done], &[9], &none, 0), Mark::Nothing);
        assert_eq!(judge(&[], &[], &none, 0), Mark::Nothing);
        let log = bounces("recipient=bob@x.test\noffset=9\nstatus=5.1.1\nreason=no such user\n\n");
        assert_eq!(
            judge(&[&done], &[], &log, 1),
            Mark::Returned("no such user".to_owned())
        );
        let other =
            bounces("recipient=bob@x.test\noffset=11\nstatus=5.1.1\nreason=no such user\n\n");
        assert_eq!(judge(&[&done], &[], &other, 1), Mark::Delivered);
        let no_offset = bounces("recipient=bob@x.test\nstatus=5.1.1\nreason=no\n\n");
        assert_eq!(
            judge(&[&done], &[], &no_offset, 1),
            Mark::Returned("no".to_owned())
        );
    }

    #[test]
    fn a_bounce_log_that_nobody_could_read_leaves_no_doubt_about_a_single_recipient_only() {
        let done = record(9, RecipientState::Done);
        let missed = Logged {
            unread: true,
            ..Logged::default()
        };
        assert!(matches!(
            judge(&[&done], &HashSet::new(), &missed, None, 1),
            Mark::Returned(_)
        ));
        assert_eq!(
            judge(&[&done], &HashSet::new(), &missed, None, 2),
            Mark::Unclear
        );
    }

    #[test]
    fn a_mark_of_the_defer_service_means_that_the_time_has_come() {
        let done = record(9, RecipientState::Done);
        let log = bounces("recipient=bob@x.test\noffset=9\nstatus=4.7.801\nreason=no TLS\n\n");
        let none = Logged::default();
        let judge = |overdue| judge(&[&done], &HashSet::new(), &none, overdue, 1);
        let returned = Mark::Returned("not delivered in time: no TLS".to_owned());
        assert_eq!(judge(Some(&log)), returned);
        assert_eq!(judge(Some(&none)), Mark::Delivered);
        assert_eq!(judge(None), Mark::Delivered);
    }
}
