//! Handshakes that fail with several unrelated domains at once. Postfix has the same words, "Cannot start TLS: handshake
//! failure", for a server that breaks off, and for what is wrong on our side: a protocol list, ciphers, no tlsproxy.
//!
//! While that is suspected, nobody is offered anything after a failed handshake. So no sender alone may bring it about, by
//! writing to dead domains of his own: each counts for [`PER_SENDER`] domains at most.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Transaction, params};

use super::alerts::raise;
use super::people::person;
use super::{Store, StoreError, now_ms};
use crate::address::Address;
use crate::case::alert;
use crate::domain::Domain;

/// This many domains make a suspicion.
pub const DOMAINS: usize = 5;
/// So many of them may be one sender's.
pub const PER_SENDER: usize = 2;
/// Within this time, in minutes.
pub const MINUTES: i64 = 10;
/// How long the suspicion stands after the last such failure.
const STANDS_MS: i64 = 30 * 60_000;
/// A domain that already failed within this time before does not count.
const USUAL_MS: i64 = 60 * 60_000;

/// What several failures at once say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// Nothing.
    None,
    /// Perhaps it is our side.
    Stands,
    /// The same, as of now: the admin is to be told, which is recorded.
    Begins,
}

impl Store {
    /// Notes that handshakes with these domains have just failed for a message of this sender, and tells what that makes of
    /// it; `example` is for the admin.
    ///
    /// # Errors
    /// When the store fails.
    pub fn note_handshakes(
        &self,
        sender: Option<&Address>,
        domains: &[Domain],
        example: &str,
    ) -> Result<Suspicion, StoreError> {
        self.write("cannot record failed handshakes", |tx| {
            note(tx, sender, domains, example, now_ms())
        })
    }

    /// Does the suspicion stand that it is our side?
    ///
    /// # Errors
    /// When the store fails.
    pub fn suspects_our_side(&self) -> Result<bool, StoreError> {
        self.read("cannot read failed handshakes", |connection| {
            connection
                .prepare_cached(STANDS)?
                .query_row([now_ms() - STANDS_MS], |row| row.get(0))
        })
    }
}

const STANDS: &str = "SELECT EXISTS (SELECT 1 FROM handshakes WHERE burst_at >= ?1)";

/// A message was delivered over TLS: our side works, and what has failed so far is no sign of anything.
pub(super) fn succeeded(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let since = now_ms() - MINUTES * 60_000;
    tx.prepare_cached(
        "UPDATE handshakes SET burst_at = NULL, first_at = 0
         WHERE first_at >= ?1 OR burst_at IS NOT NULL",
    )?
    .execute([since])
    .map(drop)
}

/// How many domains count, of these that failed and whose mail it was.
fn independent(failed: Vec<(String, String)>) -> usize {
    let mut senders_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (domain, sender) in failed {
        senders_of.entry(domain).or_default().push(sender);
    }
    // Those that only one has written to come first, as they count for nobody else.
    let mut domains: Vec<Vec<String>> = senders_of.into_values().collect();
    domains.sort_by_key(Vec::len);
    let mut counted: HashMap<String, usize> = HashMap::new();
    for senders in domains {
        let least = senders
            .into_iter()
            .min_by_key(|sender| counted.get(sender).copied().unwrap_or_default());
        if let Some(sender) = least {
            *counted.entry(sender).or_default() += 1;
        }
    }
    counted.values().map(|count| (*count).min(PER_SENDER)).sum()
}

fn note(
    tx: &Transaction<'_>,
    sender: Option<&Address>,
    domains: &[Domain],
    example: &str,
    now: i64,
) -> rusqlite::Result<Suspicion> {
    // What is later than now is of a clock that was wrong.
    tx.prepare_cached("DELETE FROM handshakes WHERE last_at NOT BETWEEN ?1 AND ?2")?
        .execute([now - USUAL_MS, now])?;
    let stood: bool = tx
        .prepare_cached(STANDS)?
        .query_row([now - STANDS_MS], |row| row.get(0))?;
    let sender = sender.map_or_else(String::new, |sender| person(sender).into());
    for domain in domains {
        tx.prepare_cached(
            "INSERT INTO handshakes (domain, sender, first_at, last_at)
             VALUES (?1, ?2, coalesce((SELECT min(first_at) FROM handshakes WHERE domain = ?1), ?3), ?3)
             ON CONFLICT (domain, sender) DO UPDATE SET last_at = excluded.last_at",
        )?
        .execute(params![domain.as_str(), sender, now])?;
    }
    let since = now - MINUTES * 60_000;
    let failed = tx
        .prepare_cached("SELECT domain, sender FROM handshakes WHERE first_at >= ?1")?
        .query_map([since], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let begun = independent(failed);
    if begun >= DOMAINS {
        tx.prepare_cached("UPDATE handshakes SET burst_at = ?2 WHERE first_at >= ?1")?
            .execute([since, now])?;
    }
    Ok(match (stood, begun >= DOMAINS) {
        (true, _) => Suspicion::Stands,
        (false, true) => {
            raise(tx, alert::HANDSHAKES, example)?;
            Suspicion::Begins
        }
        (false, false) => Suspicion::None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    struct Told {
        store: Store,
        _directory: tempfile::TempDir,
    }

    impl Told {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(&directory.path().join("posttls.db"), true).unwrap();
            Self {
                store,
                _directory: directory,
            }
        }

        /// With a sender of its own for each domain.
        fn fails(&self, number: usize, now: i64) -> Suspicion {
            self.fails_for(&format!("s{number}@sender.test"), number, now)
        }

        fn fails_for(&self, sender: &str, number: usize, now: i64) -> Suspicion {
            let domain = format!("d{number}.test").parse().unwrap();
            let sender = sender.parse().unwrap();
            self.store
                .write("test", |tx| {
                    note(tx, Some(&sender), &[domain], "example", now)
                })
                .unwrap()
        }

        fn alerts(&self) -> Vec<(String, i64)> {
            let due = self.store.alerts_due().unwrap();
            due.into_iter().map(|one| (one.cause, one.count)).collect()
        }
    }

    #[test]
    fn several_domains_within_minutes_raise_one_alert() {
        let told = Told::new();
        let start = 1_000 * MINUTE;
        for number in 1..=4 {
            // One domain again and again is its own matter.
            for _ in 0..3 {
                assert_eq!(told.fails(number, start), Suspicion::None);
            }
        }
        assert!(told.alerts().is_empty());
        assert_eq!(told.fails(5, start + 9 * MINUTE), Suspicion::Begins);
        assert_eq!(told.fails(6, start + 9 * MINUTE), Suspicion::Stands);
        assert_eq!(told.alerts(), [(alert::HANDSHAKES.to_owned(), 1)]);
        assert_eq!(told.fails(7, start + 38 * MINUTE), Suspicion::Stands);
        // It is over, and what has failed lately is no news.
        for number in 1..=7 {
            assert_eq!(told.fails(number, start + 40 * MINUTE), Suspicion::None);
        }
        // With the seventh these are five that have begun to fail.
        for number in 11..=13 {
            assert_eq!(told.fails(number, start + 41 * MINUTE), Suspicion::None);
        }
        assert_eq!(told.fails(14, start + 41 * MINUTE), Suspicion::Begins);
    }

    #[test]
    fn no_sender_alone_makes_a_suspicion_or_keeps_it_alive() {
        let told = Told::new();
        let start = 1_000 * MINUTE;
        for number in 0..50 {
            let sender = if number % 2 == 0 {
                "eve@sender.test"
            } else {
                "eve@SENDER.test"
            };
            assert_eq!(told.fails_for(sender, number, start), Suspicion::None);
        }
        // Nor do two of them; what a third one writes to counts.
        for number in 50..100 {
            let result = told.fails_for("mallory@sender.test", number, start);
            assert_eq!(result, Suspicion::None);
        }
        assert_eq!(
            told.fails_for("bob@sender.test", 200, start),
            Suspicion::Begins
        );
        let later = start + 20 * MINUTE;
        for number in 300..350 {
            told.fails_for("eve@sender.test", number, later);
        }
        let end = start + 31 * MINUTE;
        assert_eq!(told.fails_for("eve@sender.test", 400, end), Suspicion::None);
    }

    #[test]
    fn several_senders_to_the_same_domains_count() {
        let told = Told::new();
        let start = 1_000 * MINUTE;
        for sender in ["a@sender.test", "b@sender.test"] {
            for number in 1..=5 {
                assert_eq!(told.fails_for(sender, number, start), Suspicion::None);
            }
        }
        let third = told.fails_for("c@sender.test", 5, start);
        assert_eq!(third, Suspicion::Begins);
    }

    #[test]
    fn a_success_ends_it() {
        let told = Told::new();
        let now = now_ms();
        for number in 1..=5 {
            told.fails(number, now);
        }
        assert!(told.store.suspects_our_side().unwrap());
        told.store.write("test", succeeded).unwrap();
        assert!(!told.store.suspects_our_side().unwrap());
        // What failed before it says nothing from then on.
        assert_eq!(told.fails(6, now), Suspicion::None);
        assert!(!told.store.suspects_our_side().unwrap());
    }

    #[test]
    fn failures_now_and_then_raise_none() {
        let told = Told::new();
        for number in 0..100 {
            let now = 1_000 * MINUTE + number as i64 * 3 * MINUTE;
            assert_eq!(told.fails(number, now), Suspicion::None, "{number}");
        }
        assert!(told.alerts().is_empty());
        let rows: i64 = told
            .store
            .lock()
            .query_row("SELECT count(*) FROM handshakes", [], |row| row.get(0))
            .unwrap();
        assert!(rows <= 21, "{rows}");
    }
}
