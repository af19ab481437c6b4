//! The store: one SQLite database, shared by many short-lived `posttls-pipe` and the mover. All SQL is in this module.
//!
//! Write-ahead log, so that readers never wait; full synchronous, so that a decision that was confirmed survives a
//! power failure. The hook alone commits without waiting for the disk and then waits once, outside of any transaction
//! ([`Store::open_lazy`]): eight hooks at work would otherwise queue up for the disk, one behind the other. Every change
//! of several rows is one transaction that takes the write lock at once (`IMMEDIATE`), so that no transaction has to be
//! given up half-way.

mod admission;
mod alerts;
mod cases;
mod changes;
mod clock;
mod consents;
mod decisions;
pub mod handshakes;
mod health;
mod hindrance;
mod history;
mod holds;
mod inbox;
mod letters;
mod mandatory;
mod moves;
mod news;
mod opened;
mod passages;
mod people;
mod refusals;
mod remember;
mod reminders;
mod resolve;
mod retention;
mod senders;
mod statistics;
mod strays;
mod waiting;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, TryLockError};

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql, Transaction, TransactionBehavior, params};

use super::{
    Action, Actor, Asked, CaseId, CaseState, ConsentId, Failure, LetterKind, MoveStep, News,
    Outcome, Passage, RecipientState, Scope, SenderId, Source,
};

pub use admission::{Admitted, NewCase, NewRecipient};
pub use alerts::Alert;
pub use cases::Ending;
pub use changes::{ChangeMark, Changes};
pub use consents::{Consent, NewConsent};
pub use decisions::Decided;
pub use health::{Health, Integrity, Version};
pub use history::{HistoryFilter, HistoryLine};
pub use inbox::{Bulk, BulkDecided, BulkMark, CaseChoices, InboxSummary};
pub use letters::{CLAIM_LIFE_MS, History, LetterClaim, LetterId, PastLetter, Receipt, Wanted};
pub use mandatory::{Affected, Effect, Listing, MandatoryDomain};
pub use moves::{Move, MoveId, MoveRecipient};
pub use news::Owed;
pub use passages::{Arrival, CopyUnderWay, Traveller};
pub use refusals::{Decider, Refused};
pub use remember::{Remember, Remembered};
pub use retention::Forgotten;
pub use statistics::{DomainCount, Moment, Statistics};
pub use waiting::StillWaiting;

use opened::{Opened, STEPS, wait_for_others, write_ahead_log};

/// Of each odd notice, and odd notices altogether.
const ODD_NOTICE_OCTETS: usize = 64 * 1024;
const ODD_NOTICES: i64 = 100;

/// An open database.
pub struct Store {
    path: PathBuf,
    opened: Mutex<Opened>,
    /// For reading while a writer waits with the other one for another process; opened when first needed.
    aside: Mutex<Opened>,
    /// Do commits not wait for the disk?
    lazy: bool,
}

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error("{path}: {doing}: {source}{}", hint(source))]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// SQLite's word.
        source: rusqlite::Error,
    },
    /// It was there, and is not any more.
    #[error(
        "{path}: the database has been removed; put it back, or stop PostTLS and restore it (`posttls init` makes a new \
         one, and `posttls census` then finds what waits)"
    )]
    Gone {
        /// The database.
        path: PathBuf,
    },
    /// It has nothing in it, not even a schema.
    #[error(
        "{path}: the database is empty: somebody has truncated or replaced it; stop PostTLS and restore it (`posttls \
         init` makes it a new one, and `posttls census` then finds what waits)"
    )]
    Empty {
        /// The database.
        path: PathBuf,
    },
    /// What was committed could not be written to disk.
    #[error("{path}: what was recorded cannot be written to disk: {source}")]
    Disk {
        /// The database.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The schema could not be brought up to date.
    #[error(
        "{path}: cannot bring the database up to date: {source}{}",
        hint(source)
    )]
    Migration {
        /// The database.
        path: PathBuf,
        /// SQLite's word.
        source: rusqlite::Error,
    },
    /// A newer PostTLS has used it.
    #[error(
        "{path}: the database is of version {version}, and this PostTLS knows versions up to {known}: a newer one has \
         used it; install that one again, or restore a backup from before it"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        version: i64,
        /// The newest version that is known here.
        known: usize,
    },
}

fn hint(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "; another process has held it for too long"
        }
        Some(ErrorCode::DiskFull) => "; free some space on its file system",
        Some(ErrorCode::SystemIoFailure) => {
            "; look at its file system: is it full, read-only or failing?"
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            "; check the owner and the permissions of the file and its directory (`posttls init` sets them)"
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "; the file is damaged: stop PostTLS and restore it"
        }
        _ => "",
    }
}

/// Now, in Unix milliseconds.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl Store {
    /// Opens the database and brings its schema up to date. `create` makes it when there is none.
    ///
    /// The file itself must not be a symbolic link: the mover opens it as root in a directory of another user.
    ///
    /// # Errors
    /// When it can't be opened or brought up to date.
    pub fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            opened: Mutex::new(Opened::open(path, create)?),
            aside: Mutex::new(Opened::when_needed(path)),
            lazy: false,
        })
    }

    /// As [`Store::open`], for one who calls [`Store::sync`] before anybody relies on what was recorded.
    ///
    /// # Errors
    /// When it can't be opened or brought up to date.
    pub fn open_lazy(path: &Path) -> Result<Self, StoreError> {
        let mut store = Self::open(path, false)?;
        store.lazy = true;
        store.synchronous("NORMAL")?;
        Ok(store)
    }

    /// Returns when everything that was committed until now, by whomever, survives a power failure.
    ///
    /// What is committed is in the write-ahead log; SQLite syncs that itself before it takes anything out of it, and the
    /// database after. So this need not know which of it is still there. It is no transaction, and nobody waits for it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self) -> Result<(), StoreError> {
        std::fs::File::open(write_ahead_log(&self.path))
            .and_then(|log| log.sync_data())
            .map_err(|source| StoreError::Disk {
                path: self.path.clone(),
                source,
            })
    }

    fn synchronous(&self, how: &'static str) -> Result<(), StoreError> {
        self.with("cannot set synchronous", |connection| {
            connection.pragma_update(None, "synchronous", how)
        })
    }

    /// Runs `body` in a transaction that holds the write lock from its start.
    fn write<T>(
        &self,
        doing: &'static str,
        body: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.with(doing, |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    fn read<T>(
        &self,
        doing: &'static str,
        body: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut opened = match self.opened.try_lock() {
            Ok(opened) => opened,
            Err(TryLockError::Poisoned(opened)) => opened.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.aside.lock().unwrap_or_else(PoisonError::into_inner)
            }
        };
        opened.run(doing, |connection| body(connection))
    }

    /// A thread that panicked while it held the connection left no transaction open: dropping one rolls it back.
    fn with<T>(
        &self,
        doing: &'static str,
        body: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.run(doing, body)
    }

    #[cfg(test)]
    fn lock(&self) -> std::sync::MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the beginning of a notice that could not be used, for the admin. Anybody on this host can cause one, so
    /// only the newest ones are kept.
    ///
    /// # Errors
    /// When the store fails.
    pub fn keep_odd_notice(&self, queue_id: &str, why: &str, raw: &[u8]) -> Result<(), StoreError> {
        self.write("cannot keep an odd notice", |tx| {
            let sql = "INSERT INTO odd_notices (at, queue_id, why, raw) VALUES (?1, ?2, ?3, ?4)";
            let beginning = &raw[..raw.len().min(ODD_NOTICE_OCTETS)];
            tx.execute(sql, params![now_ms(), queue_id, why, beginning])?;
            tx.execute(
                "DELETE FROM odd_notices WHERE id <= (SELECT max(id) FROM odd_notices) - ?1",
                [ODD_NOTICES],
            )?;
            Ok(())
        })
    }

    /// The odd notices: queue ID of the notice and why it was not used.
    ///
    /// # Errors
    /// When the store fails.
    pub fn odd_notices(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.read("cannot list odd notices", |connection| {
            let mut statement =
                connection.prepare("SELECT queue_id, why FROM odd_notices ORDER BY id")?;
            statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
    }

    /// What happened to a case: time in Unix milliseconds, recipient (may be empty), what, and detail.
    ///
    /// # Errors
    /// When the store fails.
    pub fn events(&self, case: CaseId) -> Result<Vec<Event>, StoreError> {
        self.read("cannot list events", |connection| {
            let sql =
                "SELECT at, recipient, what, detail FROM events WHERE case_id = ?1 ORDER BY id";
            connection
                .prepare(sql)?
                .query_map([case], |row| {
                    Ok(Event {
                        at: row.get(0)?,
                        recipient: row.get(1)?,
                        what: row.get(2)?,
                        detail: row.get(3)?,
                    })
                })?
                .collect()
        })
    }
}

/// One line of a case's history.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Event {
    /// Unix milliseconds.
    pub at: i64,
    /// The recipient; empty for the message as a whole.
    pub recipient: String,
    /// What happened, one word.
    pub what: String,
    /// More about it.
    pub detail: String,
}

/// Adds a line to a case's history, within the transaction that makes it true.
fn record(
    tx: &Transaction<'_>,
    case: CaseId,
    recipient: &str,
    what: &str,
    detail: &str,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO events (at, case_id, queue_id, recipient, what, detail)
         SELECT ?1, id, queue_id, ?3, ?4, ?5 FROM cases WHERE id = ?2",
    )?
    .execute(params![now_ms(), case, recipient, what, detail])?;
    Ok(())
}

/// Stores a named type as its text.
macro_rules! text_column {
    ($($name:ty),+) => { $(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }
        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                value.as_str()?.parse().map_err(FromSqlError::other)
            }
        }
    )+ };
}
text_column!(
    Action,
    Actor,
    Asked,
    CaseState,
    Failure,
    LetterKind,
    MoveStep,
    News,
    Outcome,
    Passage,
    RecipientState,
    Scope,
    Source
);
text_column!(
    crate::postfix::QueueId,
    crate::address::Address,
    crate::domain::Domain
);

/// Stores a numbered type as its number.
macro_rules! number_column {
    ($($name:ident),+) => { $(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.0.into())
            }
        }
        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                value.as_i64().map(Self)
            }
        }
    )+ };
}
number_column!(CaseId, ConsentId, SenderId);

#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod retention_tests;
#[cfg(test)]
mod tests;
