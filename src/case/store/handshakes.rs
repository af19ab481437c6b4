//! Handshakes that fail with several unrelated domains at once. Postfix has the same words, "Cannot start TLS: handshake
//! failure", for a server that breaks off, and for what is wrong on our side: a protocol list, ciphers, no tlsproxy.

use rusqlite::{Transaction, params};

use super::alerts::raise;
use super::{Store, StoreError, now_ms};
use crate::case::alert;
use crate::domain::Domain;

/// This many domains make a suspicion.
pub const DOMAINS: i64 = 5;
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
    /// Notes that handshakes with these domains have just failed, and tells what that makes of it; `example` is for the
    /// admin.
    ///
    /// # Errors
    /// When the store fails.
    pub fn note_handshakes(
        &self,
        domains: &[Domain],
        example: &str,
    ) -> Result<Suspicion, StoreError> {
        self.write("cannot record failed handshakes", |tx| {
            note(tx, domains, example, now_ms())
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

fn note(
    tx: &Transaction<'_>,
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
    for domain in domains {
        tx.prepare_cached(
            "INSERT INTO handshakes (domain, first_at, last_at) VALUES (?1, ?2, ?2)
             ON CONFLICT (domain) DO UPDATE SET last_at = excluded.last_at",
        )?
        .execute(params![domain.as_str(), now])?;
    }
    let since = now - MINUTES * 60_000;
    let begun: i64 = tx
        .prepare_cached("SELECT count(*) FROM handshakes WHERE first_at >= ?1")?
        .query_row([since], |row| row.get(0))?;
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

        fn fails(&self, number: usize, now: i64) -> Suspicion {
            let domain = format!("d{number}.test").parse().unwrap();
            self.store
                .write("test", |tx| note(tx, &[domain], "example", now))
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
