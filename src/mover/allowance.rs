//! How much of what strangers cause the log tells: their flood must not become one of lines. Pure.

use std::time::{Duration, Instant};

/// So many lines in a window of time, and no more.
#[derive(Debug)]
pub(super) struct Allowance {
    lines: u64,
    window: Duration,
    since: Option<Instant>,
    count: u64,
}

impl Allowance {
    /// `lines` in each `window`, from the first one on.
    pub(super) fn new(lines: u64, window: Duration) -> Self {
        Self {
            lines,
            window,
            since: None,
            count: 0,
        }
    }

    /// Notes one more. Is it to be logged? If so, with how many of the window before that were not.
    pub(super) fn note(&mut self, now: Instant) -> Option<u64> {
        let mut untold = 0;
        if self
            .since
            .is_none_or(|since| now.duration_since(since) >= self.window)
        {
            untold = self.count.saturating_sub(self.lines);
            self.since = Some(now);
            self.count = 0;
        }
        self.count += 1;
        (self.count <= self.lines).then_some(untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_of_twenty_a_minute_and_then_of_the_rest() {
        let minute = Duration::from_secs(60);
        let mut refused = Allowance::new(20, minute);
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(refused.note(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(refused.note(start + minute / 2), None);
        }
        assert_eq!(refused.note(start + minute), Some(7));
        assert_eq!(refused.note(start + minute), Some(0));
    }
}
