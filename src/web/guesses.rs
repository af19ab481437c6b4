//! How many unknown tokens a client may try. Pure: told the time, and who tried.
//!
//! The mover is asked first, always: a genuine link works from an address that is limited, since many people may share
//! it. So the limit keeps nobody out, and no guess would succeed without it (160 bits of HMAC); it makes guessing visible
//! in the log, and tells a program that has run wild to stop. For the same reason it does no harm that a full table
//! limits those who are not in it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::web::origin::Origin;

/// Unknown tokens that a client may try in one [`WINDOW`].
pub const ALLOWED: u32 = 20;
/// The time over which they are counted, from the first one on.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Clients counted at the same time.
const TABLE: usize = 4096;

/// What is to be done about an unknown token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Say that it is unknown.
    Allowed,
    /// Say that there were too many.
    TooMany {
        /// When the client is counted anew.
        retry_after: Duration,
        /// The first time in this window: to be logged.
        first: bool,
    },
}

#[derive(Debug)]
struct Count {
    since: Instant,
    guesses: u32,
}

/// The clients that tried unknown tokens of late.
#[derive(Debug, Default)]
pub struct Guesses {
    counts: HashMap<Origin, Count>,
    /// When the table was last found full: a search through it for what is past costs too much for each guess.
    full: Option<Instant>,
}

impl Guesses {
    /// Counts an unknown token from `origin`.
    pub fn count(&mut self, origin: Origin, now: Instant) -> Verdict {
        if !self.counts.contains_key(&origin) && !self.has_room(now) {
            return Verdict::TooMany {
                retry_after: WINDOW,
                first: false,
            };
        }
        let count = self.counts.entry(origin).or_insert(Count {
            since: now,
            guesses: 0,
        });
        if now.duration_since(count.since) >= WINDOW {
            *count = Count {
                since: now,
                guesses: 0,
            };
        }
        count.guesses = count.guesses.saturating_add(1);
        if count.guesses <= ALLOWED {
            return Verdict::Allowed;
        }
        Verdict::TooMany {
            retry_after: WINDOW.saturating_sub(now.duration_since(count.since)),
            first: count.guesses == ALLOWED + 1,
        }
    }

    fn has_room(&mut self, now: Instant) -> bool {
        if self.counts.len() < TABLE {
            return true;
        }
        let searched = |at: Instant| now.duration_since(at) < Duration::from_secs(1);
        if self.full.is_some_and(searched) {
            return false;
        }
        self.full = Some(now);
        self.counts
            .retain(|_, count| now.duration_since(count.since) < WINDOW);
        self.counts.len() < TABLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn origin(number: u32) -> Origin {
        IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number)).into()
    }

    #[test]
    fn twenty_a_minute_are_allowed_and_the_first_one_too_many_is_told_apart() {
        let mut guesses = Guesses::default();
        let start = Instant::now();
        for _ in 0..ALLOWED {
            assert_eq!(guesses.count(origin(1), start), Verdict::Allowed);
        }
        let later = start + Duration::from_secs(15);
        let too_many = |first| Verdict::TooMany {
            retry_after: Duration::from_secs(45),
            first,
        };
        assert_eq!(guesses.count(origin(1), later), too_many(true));
        assert_eq!(guesses.count(origin(1), later), too_many(false));
        assert_eq!(guesses.count(origin(2), later), Verdict::Allowed);
        assert_eq!(guesses.count(origin(1), start + WINDOW), Verdict::Allowed);
    }

    #[test]
    fn a_full_table_limits_newcomers_until_others_are_past() {
        let mut guesses = Guesses::default();
        let start = Instant::now();
        for number in 0..TABLE as u32 {
            assert_eq!(guesses.count(origin(number), start), Verdict::Allowed);
        }
        let newcomer = origin(1_000_000);
        assert!(matches!(
            guesses.count(newcomer, start),
            Verdict::TooMany { first: false, .. }
        ));
        assert_eq!(guesses.count(origin(7), start), Verdict::Allowed);
        assert_eq!(guesses.counts.len(), TABLE);
        assert_eq!(guesses.count(newcomer, start + WINDOW), Verdict::Allowed);
        assert_eq!(guesses.counts.len(), 1);
    }
}
