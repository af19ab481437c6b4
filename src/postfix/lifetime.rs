//! How long Postfix keeps trying (pure): its time settings, which are a number and a unit.

use super::settings::seconds;

/// Seconds that a message stays in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// `maximal_queue_lifetime`: a message with a sender.
    pub message: i64,
    /// `bounce_queue_lifetime`: a message of the null sender.
    pub bounce: i64,
}

/// The seconds of a setting like `5d`; without a unit it is days, as for both lifetimes (postconf(5)).
pub(super) fn days_or_unit(value: &str) -> Option<i64> {
    let seconds = seconds(&value.trim().to_ascii_lowercase(), 'd')?;
    i64::try_from(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::days_or_unit;

    #[test]
    fn units_are_those_of_postfix() {
        for (value, seconds) in [
            ("5d", Some(432_000)),
            ("5", Some(432_000)),
            ("90m", Some(5400)),
            ("0", Some(0)),
            ("1w", Some(604_800)),
            ("10S", Some(10)),
            ("-1d", None),
            ("5y", None),
            ("d", None),
            ("99999999999999999w", None),
        ] {
            assert_eq!(days_or_unit(value), seconds, "{value}");
        }
    }
}
