//! When a sender is written to, and how (pure): what is told at once and what is gathered, the ceilings, and reminders.
//! Times are Unix milliseconds unless they say otherwise.

use std::fmt;

use crate::case::LetterKind;
use crate::case::store::History;
use crate::config::{Limits, Reminders};

pub(super) const MINUTE_MS: i64 = 60_000;
pub(super) const HOUR_MS: i64 = 60 * MINUTE_MS;

/// Why a mail has to wait, and when to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotNow {
    /// The sender has got enough single mails: what comes now is gathered.
    Gathering(i64),
    /// `limits.per_sender_hour`.
    SenderCeiling(i64),
    /// `limits.per_hour`.
    Ceiling(i64),
}

impl NotNow {
    /// When to ask again.
    pub fn until(self) -> i64 {
        match self {
            Self::Gathering(until) | Self::SenderCeiling(until) | Self::Ceiling(until) => until,
        }
    }
}

impl fmt::Display for NotNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gathering(_) => {
                "it is told together with others at the end of the window (limits.window_minutes)"
            }
            Self::SenderCeiling(_) => {
                "the sender has got as many mails as limits.per_sender_hour allows"
            }
            Self::Ceiling(_) => "senders have got as many mails as limits.per_hour allows",
        })
    }
}

/// The window, in milliseconds.
pub fn window_ms(limits: &Limits) -> i64 {
    i64::from(limits.window_minutes) * MINUTE_MS
}

/// May a mail of this kind be written at `now`?
///
/// Notifications and digests share one window: in it there are `limits.first` notifications, or one digest. Reminders
/// and informations have one each. The ceilings count all of them.
///
/// # Errors
/// Why not.
pub fn may_write(
    kind: LetterKind,
    history: &History,
    limits: &Limits,
    now: i64,
) -> Result<(), NotNow> {
    let window = window_ms(limits);
    let times = |wanted: &dyn Fn(LetterKind) -> bool| -> Vec<i64> {
        let within = history.to_sender.iter().filter(|one| one.at > now - window);
        within
            .filter(|one| wanted(one.kind))
            .map(|one| one.at)
            .collect()
    };
    let gathering = match kind {
        LetterKind::Notification | LetterKind::Digest => {
            let singles = times(&|kind| kind == LetterKind::Notification);
            let digest = times(&|kind| kind == LetterKind::Digest).last().copied();
            let free = free_singles(&singles, limits);
            // A single mail must not take the place of those that wait already, or they might wait for ever.
            let enough = kind == LetterKind::Digest && free > 0 || free > history.waiting as usize;
            digest.or_else(|| {
                if enough {
                    None
                } else {
                    // With room left it is the courier's turn, which tells all of them.
                    Some(
                        singles
                            .len()
                            .checked_sub(limits.first as usize)
                            .map_or(now - window, |over| singles[over]),
                    )
                }
            })
        }
        LetterKind::Reminder | LetterKind::Information => times(&|one| one == kind).last().copied(),
    };
    if let Some(since) = gathering {
        return Err(NotNow::Gathering(since + window));
    }
    let in_hour: Vec<i64> = history
        .to_sender
        .iter()
        .filter(|one| one.at > now - HOUR_MS)
        .map(|one| one.at)
        .collect();
    if let Some(over) = in_hour.len().checked_sub(limits.per_sender_hour as usize) {
        return Err(NotNow::SenderCeiling(in_hour[over] + HOUR_MS));
    }
    if history.to_all >= limits.per_hour {
        return Err(NotNow::Ceiling(now + MINUTE_MS));
    }
    Ok(())
}

fn free_singles(singles: &[i64], limits: &Limits) -> usize {
    (limits.first as usize).saturating_sub(singles.len())
}

/// Are so many messages told of one by one, or in one mail?
pub fn one_by_one(messages: usize, history: &History, limits: &Limits, now: i64) -> bool {
    let since = now - window_ms(limits);
    let recent = history.to_sender.iter().filter(|one| one.at > since);
    let singles: Vec<i64> = recent
        .filter(|one| one.kind == LetterKind::Notification)
        .map(|one| one.at)
        .collect();
    messages <= free_singles(&singles, limits)
}

/// When the next reminder of a message is due after the moment `after`, if there is one: `told` is when its sender was
/// last told that recipients wait. Those that were missed are not made up for, and none comes when Postfix has given up.
pub fn next_reminder(
    reminders: &Reminders,
    told: i64,
    after: i64,
    retry_until: Option<i64>,
) -> Option<i64> {
    let hours = reminders.after_hours.iter();
    hours
        .map(|hours| told + i64::from(*hours) * HOUR_MS)
        .find(|at| *at > after)
        .filter(|at| retry_until.is_none_or(|end| *at < end * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::store::PastLetter;
    use proptest::prelude::*;

    const NOW: i64 = 1_000 * HOUR_MS;

    fn limits(first: u32) -> Limits {
        Limits {
            first,
            window_minutes: 10,
            per_sender_hour: 20,
            per_hour: 1000,
        }
    }

    /// Letters so many minutes ago.
    fn history(letters: &[(LetterKind, i64)]) -> History {
        let to_sender = letters.iter().map(|(kind, minutes)| PastLetter {
            kind: *kind,
            at: NOW - minutes * MINUTE_MS,
        });
        History {
            to_sender: to_sender.collect(),
            ..History::default()
        }
    }

    fn asked(kind: LetterKind, history: &History, first: u32) -> Result<(), i64> {
        may_write(kind, history, &limits(first), NOW)
            .map_err(|not_now| (not_now.until() - NOW) / MINUTE_MS)
    }

    use LetterKind::{Digest, Information, Notification, Reminder};

    #[test]
    fn the_first_ones_are_told_at_once_and_the_others_at_the_end_of_the_window() {
        let none = history(&[]);
        assert_eq!(asked(Notification, &none, 1), Ok(()));
        assert_eq!(
            asked(Notification, &history(&[(Notification, 3)]), 1),
            Err(7)
        );
        assert_eq!(asked(Digest, &history(&[(Notification, 3)]), 1), Err(7));
        assert_eq!(asked(Digest, &history(&[(Notification, 10)]), 1), Ok(()));
        let two = history(&[(Notification, 9), (Notification, 3)]);
        assert_eq!(asked(Notification, &two, 3), Ok(()));
        assert_eq!(asked(Notification, &two, 2), Err(1));
        assert_eq!(asked(Notification, &history(&[(Digest, 4)]), 3), Err(6));
        assert_eq!(
            asked(
                Notification,
                &history(&[(Reminder, 1), (Information, 1)]),
                1
            ),
            Ok(())
        );
    }

    #[test]
    fn a_single_mail_does_not_take_the_place_of_those_that_wait() {
        let mut waiting = history(&[(Notification, 11)]);
        waiting.waiting = 1;
        assert_eq!(
            asked(Notification, &waiting, 1),
            Err(0),
            "the courier's turn now"
        );
        assert_eq!(asked(Digest, &waiting, 1), Ok(()));
        assert_eq!(asked(Notification, &waiting, 2), Ok(()));
        assert!(one_by_one(2, &waiting, &limits(2), NOW));
        assert!(!one_by_one(3, &waiting, &limits(2), NOW));
        assert!(!one_by_one(
            2,
            &history(&[(Notification, 1)]),
            &limits(2),
            NOW
        ));
    }

    #[test]
    fn reminders_and_informations_come_once_a_window() {
        for kind in [Reminder, Information] {
            assert_eq!(
                asked(kind, &history(&[(Notification, 1), (Digest, 1)]), 1),
                Ok(())
            );
            assert_eq!(asked(kind, &history(&[(kind, 2)]), 1), Err(8));
            assert_eq!(asked(kind, &history(&[(kind, 10)]), 1), Ok(()));
        }
    }

    #[test]
    fn beyond_the_ceilings_mail_waits() {
        let mut limits = limits(100);
        limits.per_sender_hour = 2;
        limits.per_hour = 5;
        let full = history(&[(Information, 50), (Reminder, 40), (Notification, 30)]);
        assert_eq!(
            may_write(Notification, &full, &limits, NOW),
            Err(NotNow::SenderCeiling(NOW + 20 * MINUTE_MS))
        );
        let mut busy = history(&[]);
        busy.to_all = 5;
        assert!(matches!(
            may_write(Information, &busy, &limits, NOW),
            Err(NotNow::Ceiling(_))
        ));
        busy.to_all = 4;
        assert_eq!(may_write(Information, &busy, &limits, NOW), Ok(()));
    }

    #[test]
    fn reminders_come_when_they_are_due_and_are_not_made_up_for() {
        let reminders = Reminders {
            after_hours: vec![4, 24, 48],
        };
        let next = |after: i64, end: Option<i64>| {
            let end = end.map(|hours| (NOW + hours * HOUR_MS) / 1000);
            next_reminder(&reminders, NOW, NOW + after * HOUR_MS, end)
                .map(|at| (at - NOW) / HOUR_MS)
        };
        assert_eq!(next(0, None), Some(4));
        assert_eq!(next(4, None), Some(24));
        assert_eq!(next(30, None), Some(48), "what was missed is over");
        assert_eq!(next(48, None), None);
        assert_eq!(next(4, Some(24)), None, "Postfix has given up by then");
        assert_eq!(next(4, Some(25)), Some(24));
        assert_eq!(
            next_reminder(
                &Reminders {
                    after_hours: Vec::new()
                },
                NOW,
                NOW,
                None
            ),
            None
        );
    }

    proptest! {
        /// However many messages are stuck at whatever times: at most `first` single mails, or one digest, a window,
        /// and whoever waits is told in the end.
        #[test]
        fn a_storm_makes_a_bounded_number_of_mails(first in 1u32..5, gaps in proptest::collection::vec(0i64..300_000, 1..200)) {
            let mut limits = limits(first);
            limits.per_sender_hour = 10_000;
            let mut now = NOW;
            let mut past = History::default();
            let mut mails: Vec<i64> = Vec::new();
            let mut arrivals = Vec::new();
            for gap in &gaps {
                now += gap;
                arrivals.push(now);
            }
            let end = now + 3 * window_ms(&limits);
            let mut clock = NOW;
            let mut waiting: u32 = 0;
            let mut next = arrivals.into_iter().peekable();
            while clock < end {
                while next.peek().is_some_and(|at| *at <= clock) {
                    next.next();
                    past.waiting = waiting;
                    if may_write(Notification, &past, &limits, clock).is_ok() {
                        past.to_sender.push(PastLetter { kind: Notification, at: clock });
                        mails.push(clock);
                    } else {
                        waiting += 1;
                    }
                }
                past.waiting = waiting;
                if waiting > 0 && may_write(Digest, &past, &limits, clock).is_ok() {
                    let single = one_by_one(waiting as usize, &past, &limits, clock);
                    for _ in 0..if single { waiting } else { 1 } {
                        let kind = if single { Notification } else { Digest };
                        past.to_sender.push(PastLetter { kind, at: clock });
                        mails.push(clock);
                    }
                    waiting = 0;
                }
                clock += 1_000;
            }
            prop_assert_eq!(waiting, 0);
            let window = window_ms(&limits);
            for (index, at) in mails.iter().enumerate() {
                let within = mails[index..].iter().filter(|other| **other < at + window).count();
                prop_assert!(within <= first as usize, "{within} mails in a window");
            }
        }
    }
}
