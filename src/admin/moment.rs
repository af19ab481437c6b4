//! Points in time as an admin types them: dates, dates with a time, and how long ago.

use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp, Zoned};

/// A point in time, given on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(Timestamp);

/// Text that is no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no time: expected a date (2026-11-22), a date and time (2026-11-22T18:30 or 2026-11-22T18:30:00Z), or \
     how long ago (90m, 2h, 3d, 1w)"
)]
pub(super) struct BadMoment(String);

impl Moment {
    pub fn as_millisecond(self) -> i64 {
        self.0.as_millisecond()
    }

    fn parse(text: &str, now: &Zoned) -> Option<Self> {
        let text = text.trim();
        if let Ok(timestamp) = text.parse::<Timestamp>() {
            return Some(Self(timestamp));
        }
        let zone = now.time_zone().clone();
        // A date is read before a date with a time, which would take it, too.
        let civil = text
            .parse::<DateTime>()
            .ok()
            .filter(|_| text.contains('-') && text.len() >= "2026-11-22".len())
            .or_else(|| text.parse::<Date>().ok().map(DateTime::from))
            .filter(|_| !text.starts_with('P'));
        if let Some(civil) = civil {
            return civil
                .to_zoned(zone)
                .ok()
                .map(|zoned| Self(zoned.timestamp()));
        }
        let span: Span = text.trim_end_matches(" ago").parse().ok()?;
        let back = span.abs();
        // Months and years are the calendar's.
        back.total((jiff::Unit::Second, SpanRelativeTo::from(now)))
            .ok()?;
        now.checked_sub(back)
            .ok()
            .map(|then| Self(then.timestamp()))
    }
}

impl FromStr for Moment {
    type Err = BadMoment;

    fn from_str(text: &str) -> Result<Self, BadMoment> {
        let now = Timestamp::now().to_zoned(TimeZone::system());
        Self::parse(text, &now).ok_or_else(|| BadMoment(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_times_and_spans_are_understood() {
        let now: Zoned = "2026-11-22T18:00:00+01:00[Europe/Berlin]".parse().unwrap();
        for (text, expected) in [
            ("2026-11-22T18:30:00Z", "2026-11-22T18:30:00Z"),
            ("2026-11-22T18:30:00+02:00", "2026-11-22T16:30:00Z"),
            ("2026-11-21", "2026-11-20T23:00:00Z"),
            ("2026-11-21T12:00", "2026-11-21T11:00:00Z"),
            ("2026-11-21 12:00:30", "2026-11-21T11:00:30Z"),
            ("2h", "2026-11-22T15:00:00Z"),
            ("90m", "2026-11-22T15:30:00Z"),
            ("3d", "2026-11-19T17:00:00Z"),
            ("1w ago", "2026-11-15T17:00:00Z"),
            ("P1D", "2026-11-21T17:00:00Z"),
            // The clocks went back on 25 October: a day is a day of the calendar.
            ("30d", "2026-10-23T16:00:00Z"),
        ] {
            let found = Moment::parse(text, &now).map(|moment| moment.0.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{text}");
        }
        for text in ["", "yesterday", "2026", "3", "2026-13-01", "x2h"] {
            assert_eq!(Moment::parse(text, &now), None, "{text}");
        }
    }
}
