//! From what the store counts to what is shown: by day of this host's calendar, with medians (pure).

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::case::store::{DomainCount, Moment, Statistics};
use crate::case::{Action, Actor, Passage, RecipientState};

/// More days in a row than this are not filled up with empty ones.
const MOST_DAYS: usize = 10_000;

/// Everything that `posttls stats` shows.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Recipients that were stuck for TLS, faults on our side left out.
    pub recipients: i64,
    /// Messages, counted for each domain by itself.
    pub messages: i64,
    /// Those with the most recipients first.
    pub domains: Vec<DomainCount>,
    /// Every day from the first to the last on which something happened.
    pub days: BTreeMap<Date, Day>,
    pub time_to_decide: Option<TimeToDecide>,
    pub outcomes: Vec<OutcomeCount>,
}

/// What happened on one day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Day {
    /// Cases opened.
    pub cases: i64,
    /// Recipients that somebody with the link decided about, by what was chosen.
    pub sent: i64,
    pub deleted: i64,
    pub kept: i64,
    /// Recipients that an admin decided about.
    pub by_admin: i64,
    /// Recipients that configuration, mandatory domains or remembered choices decided about.
    pub by_rule: i64,
}

/// A title, and what stands below it.
type Column = (&'static str, fn(&Day) -> i64);

impl Day {
    /// The decisions, in the order of table and picture.
    pub const COLUMNS: [Column; 5] = [
        ("sent", |day| day.sent),
        ("deleted", |day| day.deleted),
        ("kept", |day| day.kept),
        ("by admin", |day| day.by_admin),
        ("by rule", |day| day.by_rule),
    ];

    fn add(&mut self, moment: Moment) {
        *match moment {
            Moment::Case => &mut self.cases,
            Moment::Decision(_, Actor::Admin) => &mut self.by_admin,
            Moment::Decision(Action::Send, Actor::Link) => &mut self.sent,
            Moment::Decision(Action::Delete, Actor::Link) => &mut self.deleted,
            Moment::Decision(Action::Keep, Actor::Link) => &mut self.kept,
            Moment::Decision(_, Actor::Policy | Actor::Mandatory | Actor::Consent) => {
                &mut self.by_rule
            }
        } += 1;
    }

    /// All decisions.
    pub fn decisions(&self) -> i64 {
        Self::COLUMNS.iter().map(|(_, count)| count(self)).sum()
    }
}

/// From the notification to the first choice by the link, recipient by recipient.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct TimeToDecide {
    pub recipients: usize,
    pub median_seconds: i64,
    /// Nine of ten took at most that long.
    pub ninety_percent_seconds: i64,
    pub longest_seconds: i64,
}

/// Recipients that ended, or stand, alike.
#[derive(Debug, Serialize)]
pub(super) struct OutcomeCount {
    pub state: RecipientState,
    pub passage: Option<Passage>,
    pub recipients: i64,
}

/// The value that a part of all is not above, by nearest rank. `sorted` is not empty.
fn quantile(sorted: &[i64], percent: usize) -> i64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

impl Summary {
    pub fn of(counts: Statistics, zone: &TimeZone) -> Self {
        let mut days: BTreeMap<Date, Day> = BTreeMap::new();
        for (at, moment) in counts.moments {
            if let Ok(timestamp) = Timestamp::from_millisecond(at) {
                let date = timestamp.to_zoned(zone.clone()).date();
                days.entry(date).or_default().add(moment);
            }
        }
        if let (Some(first), Some(last)) = (
            days.keys().next().copied(),
            days.keys().next_back().copied(),
        ) {
            let each = std::iter::successors(Some(first), |date| date.tomorrow().ok());
            for date in each.take_while(|date| *date < last).take(MOST_DAYS) {
                days.entry(date).or_default();
            }
        }
        let sorted: Vec<i64> = counts
            .decided_after
            .iter()
            .map(|took| took / 1000)
            .collect();
        let time_to_decide = sorted.last().map(|longest| TimeToDecide {
            recipients: sorted.len(),
            median_seconds: quantile(&sorted, 50),
            ninety_percent_seconds: quantile(&sorted, 90),
            longest_seconds: *longest,
        });
        let outcomes = counts.outcomes.into_iter();
        Self {
            recipients: counts.domains.iter().map(|domain| domain.recipients).sum(),
            messages: counts.domains.iter().map(|domain| domain.messages).sum(),
            domains: counts.domains,
            days,
            time_to_decide,
            outcomes: outcomes
                .map(|((state, passage), recipients)| OutcomeCount {
                    state,
                    passage,
                    recipients,
                })
                .collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.days.is_empty() && self.domains.is_empty() && self.outcomes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_time_zone_and_without_gaps() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
        let counts = Statistics {
            moments: vec![
                (at("2026-11-20T23:30:00Z"), Moment::Case),
                (at("2026-11-23T10:00:00Z"), Moment::Case),
                (
                    at("2026-11-23T10:01:00Z"),
                    Moment::Decision(Action::Send, Actor::Link),
                ),
                (
                    at("2026-11-23T10:02:00Z"),
                    Moment::Decision(Action::Delete, Actor::Mandatory),
                ),
                (
                    at("2026-11-23T10:03:00Z"),
                    Moment::Decision(Action::Send, Actor::Admin),
                ),
            ],
            decided_after: vec![1000, 2000, 60_000],
            ..Statistics::default()
        };
        let summary = Summary::of(counts, &TimeZone::get("Europe/Berlin").unwrap());
        let days: Vec<_> = summary
            .days
            .iter()
            .map(|(date, day)| (date.to_string(), day.cases, day.decisions()))
            .collect();
        assert_eq!(
            days,
            [
                ("2026-11-21".to_owned(), 1, 0),
                ("2026-11-22".to_owned(), 0, 0),
                ("2026-11-23".to_owned(), 1, 3),
            ]
        );
        let last = summary.days.values().next_back().unwrap();
        assert_eq!((last.sent, last.by_admin, last.by_rule), (1, 1, 1));
        let time = summary.time_to_decide.unwrap();
        assert_eq!(
            (
                time.median_seconds,
                time.ninety_percent_seconds,
                time.longest_seconds
            ),
            (2, 60, 60)
        );
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let ten: Vec<i64> = (1..=10).collect();
        assert_eq!((quantile(&ten, 50), quantile(&ten, 90)), (5, 9));
        assert_eq!((quantile(&[7], 50), quantile(&[7], 90)), (7, 7));
    }
}
