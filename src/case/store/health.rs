//! How the database itself is, for `posttls check`: looked at without changing anything, not even its schema.

use std::path::Path;
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{STEPS, Store, StoreError, clock, now_ms, wait_for_others};
use crate::case::News;

/// How long a look at every page may take.
const LOOK: Duration = Duration::from_secs(3);

/// Milliseconds after which a decision that was not carried out is an admin's matter: a delivery under way is over by
/// then.
const LATE_MS: i64 = 60_000;

/// Whose schema a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// This version's.
    Current,
    /// That of an older version: it is brought up to date when it is next opened.
    Older,
    /// That of a newer version.
    Newer,
}

/// What SQLite's `quick_check` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Integrity {
    /// Nothing.
    Good,
    /// It was not done in time.
    TooLong,
    /// What is wrong first.
    Damaged(String),
}

/// What a look at a database has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whose schema it has.
    pub version: Version,
    /// Are its pages and indexes in order?
    pub integrity: Integrity,
    /// Queue IDs of the messages with a move that is stopped for an admin.
    pub conflicts: Vec<String>,
    /// Queue IDs of the messages with a decision that has waited for more than a minute to be carried out.
    pub late: Vec<String>,
    /// Cases of which the sender has not been told yet: how many, and since when the oldest waits, in Unix milliseconds.
    pub untold: Option<(i64, i64)>,
    /// How many notices could not be used.
    pub odd_notices: i64,
    /// When something was last recorded, in Unix milliseconds.
    pub newest_event: Option<i64>,
    /// Until when nothing is forgotten, in Unix milliseconds: the clock may have been set ahead.
    pub clock_doubted_until: Option<i64>,
}

impl Store {
    /// Looks a database over, and leaves it as it is. Takes a few seconds at most.
    ///
    /// # Errors
    /// When it can't be opened or read.
    pub fn health(path: &Path) -> Result<Health, StoreError> {
        let fault = |doing| {
            move |source| StoreError::Sqlite {
                path: path.to_owned(),
                doing,
                source,
            }
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection =
            Connection::open_with_flags(path, flags).map_err(fault("cannot open the database"))?;
        connection
            .busy_handler(Some(wait_for_others))
            .map_err(fault("cannot set the busy handler"))?;
        let found: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(fault("cannot read the database"))?;
        let version = match usize::try_from(found).unwrap_or(0).cmp(&STEPS.len()) {
            std::cmp::Ordering::Less => Version::Older,
            std::cmp::Ordering::Equal => Version::Current,
            std::cmp::Ordering::Greater => Version::Newer,
        };
        let integrity = integrity(&connection).map_err(fault("cannot check the database"))?;
        // What is asked of an older version it has had from the first one on.
        let details = (|| {
            let ids = |condition: &str, bound: i64| {
                connection
                    .prepare(&format!(
                        "SELECT DISTINCT c.queue_id FROM moves m JOIN cases c ON c.id = m.case_id
                         WHERE m.begun_at <= ?1 AND {condition} ORDER BY m.id",
                    ))?
                    .query_map([bound], |row| row.get(0))?
                    .collect::<rusqlite::Result<Vec<String>>>()
            };
            let conflicts = ids("m.step = 'conflict'", i64::MAX)?;
            let waiting = match version {
                // What an administrator holds waits for nobody else.
                Version::Current => "m.step NOT IN ('done', 'conflict') AND c.held_at IS NULL",
                Version::Older | Version::Newer => "m.step NOT IN ('done', 'conflict')",
            };
            let late = ids(waiting, now_ms() - LATE_MS)?;
            let count = |sql| connection.query_row(sql, [], |row| row.get(0));
            let untold = match version {
                Version::Current => connection.query_row(
                    "SELECT count(DISTINCT r.case_id), min(o.since)
                     FROM owed o JOIN recipients r ON r.id = o.recipient_id WHERE o.news = ?1",
                    [News::Stuck],
                    |row| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?)),
                )?,
                Version::Older | Version::Newer => (0, None),
            };
            Ok((
                conflicts,
                late,
                untold.1.map(|since| (untold.0, since)),
                count("SELECT count(*) FROM odd_notices")?,
                connection.query_row("SELECT max(at) FROM events", [], |row| row.get(0))?,
                match version {
                    Version::Current => clock::doubted_until(&connection)?,
                    Version::Older | Version::Newer => None,
                },
            ))
        })();
        let (conflicts, late, untold, odd_notices, newest_event, clock_doubted_until) =
            details.map_err(fault("cannot read the database"))?;
        Ok(Health {
            version,
            integrity,
            conflicts,
            late,
            untold,
            odd_notices,
            newest_event,
            clock_doubted_until,
        })
    }

    /// Can this process write into a database? Tries it, and takes it back: nothing is changed, not even the schema.
    ///
    /// # Errors
    /// When it can't.
    pub fn try_to_write(path: &Path) -> Result<(), StoreError> {
        let fault = |doing| {
            move |source| StoreError::Sqlite {
                path: path.to_owned(),
                doing,
                source,
            }
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let mut connection =
            Connection::open_with_flags(path, flags).map_err(fault("cannot open the database"))?;
        connection
            .busy_handler(Some(wait_for_others))
            .map_err(fault("cannot set the busy handler"))?;
        let tried = (|| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(
                "INSERT INTO odd_notices (at, queue_id, why, raw) VALUES (0, '', '', x'')",
                [],
            )?;
            transaction.rollback()
        })();
        tried.map_err(fault("cannot write into the database"))
    }
}

fn integrity(connection: &Connection) -> rusqlite::Result<Integrity> {
    let interrupt = connection.get_interrupt_handle();
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    let said = thread::scope(|scope| {
        scope.spawn(move || {
            if waiting.recv_timeout(LOOK).is_err() {
                interrupt.interrupt();
            }
        });
        let said: rusqlite::Result<String> =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
        // Nobody waits any more after the time is over.
        let _ = done.send(());
        said
    });
    match said {
        Ok(text) if text == "ok" => Ok(Integrity::Good),
        Ok(text) => Ok(Integrity::Damaged(text)),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Ok(Integrity::TooLong),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Ok(Integrity::Damaged(error.to_string()))
            }
            _ => Err(error),
        },
    }
}
