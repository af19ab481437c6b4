//! Limits how many log lines strangers can cause: their flood must not become one of lines.

use std::sync::{Mutex, PoisonError};
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

/// An [`Allowance`] for lines of one kind, shared by threads.
#[derive(Debug)]
pub(super) struct Lines(Mutex<Allowance>);

impl Lines {
    /// `lines` in each `window`.
    pub(super) fn new(lines: u64, window: Duration) -> Self {
        Self(Mutex::new(Allowance::new(lines, window)))
    }

    /// Notes one more. If it is to be logged: what to say at its end of those that were not.
    pub(super) fn note(&self) -> Option<String> {
        let mut allowance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(match allowance.note(Instant::now())? {
            0 => String::new(),
            untold => format!("; {untold} more before that are not logged"),
        })
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
