//! How much of refused links the log tells: a flood of guesses must not become a flood of lines. Pure.

use std::time::{Duration, Instant};

/// Lines in one [`WINDOW`].
const LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// Counts refused links.
#[derive(Debug, Default)]
pub(super) struct Refused {
    since: Option<Instant>,
    count: u64,
}

impl Refused {
    /// Notes one more. Is it to be logged? If so, with how many of the window before that were not.
    pub(super) fn note(&mut self, now: Instant) -> Option<u64> {
        let lines = u64::from(LINES);
        let mut untold = 0;
        if self
            .since
            .is_none_or(|since| now.duration_since(since) >= WINDOW)
        {
            untold = self.count.saturating_sub(lines);
            self.since = Some(now);
            self.count = 0;
        }
        self.count += 1;
        (self.count <= lines).then_some(untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_of_twenty_a_minute_and_then_of_the_rest() {
        let mut refused = Refused::default();
        let start = Instant::now();
        for _ in 0..LINES {
            assert_eq!(refused.note(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(refused.note(start + WINDOW / 2), None);
        }
        assert_eq!(refused.note(start + WINDOW), Some(7));
        assert_eq!(refused.note(start + WINDOW), Some(0));
    }
}
