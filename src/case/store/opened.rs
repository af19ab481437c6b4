//! A database as it was opened: notices when its files are taken away or replaced under it. SQLite would go on with
//! files that nobody else sees any more, so that decisions were recorded in nothing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use log::{error, info, warn};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::StoreError;

/// What tells one file from another: device and inode.
type Identity = Option<(u64, u64)>;

fn identity(path: &Path) -> Identity {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Has the write-ahead log that is there now nothing in it? Whoever opens the database makes an empty one.
fn is_empty(path: &Path) -> bool {
    fs::symlink_metadata(beside(path, "-wal")).map_or(true, |found| found.len() == 0)
}

/// The database, its write-ahead log, and the index of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Files {
    database: Identity,
    log: Identity,
    index: Identity,
}

impl Files {
    fn of(path: &Path) -> Self {
        Self {
            database: identity(path),
            log: identity(&beside(path, "-wal")),
            index: identity(&beside(path, "-shm")),
        }
    }
}

/// A connection, and the files that it uses.
pub(super) struct Opened {
    connection: Option<Connection>,
    files: Files,
    /// Something was wrong with the files: SQLite looks at them anew only when it opens them.
    suspect: bool,
}

impl Opened {
    pub(super) fn new(connection: Connection, path: &Path) -> Self {
        Self {
            connection: Some(connection),
            files: Files::of(path),
            suspect: false,
        }
    }

    /// The connection, opened anew by `connect` if its files are not those at `path` any more.
    ///
    /// # Errors
    /// When the database is gone, or can't be opened.
    pub(super) fn current(
        &mut self,
        path: &Path,
        connect: impl FnOnce() -> Result<Connection, StoreError>,
    ) -> Result<&mut Connection, StoreError> {
        let now = Files::of(path);
        // It may come back, as it was: then nothing has happened.
        if now.database.is_none() {
            return Err(StoreError::Gone {
                path: path.to_owned(),
            });
        }
        if (now != self.files || self.suspect)
            && let Some(connection) = self.connection.take()
        {
            self.part_with(connection, now, path);
        }
        if self.connection.is_none() {
            let connection = connect()?;
            *self = Self::new(connection, path);
            info!("{}: opened anew", path.display());
        }
        // Set in any case by now.
        self.connection.as_mut().ok_or_else(|| StoreError::Gone {
            path: path.to_owned(),
        })
    }

    /// Are its files still those at `path`, and was nothing wrong with them?
    pub(super) fn is_current(&self, path: &Path) -> bool {
        !self.suspect && self.files == Files::of(path)
    }

    /// The connection as it is.
    pub(super) fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    /// Saves what only this connection still sees, and closes it without a trace: what is at `path` by now must not be
    /// touched by it.
    fn part_with(&self, connection: Connection, now: Files, path: &Path) {
        let name = path.display();
        if now.database != self.files.database {
            warn!("{name}: the database was replaced while PostTLS was using it");
        } else if self.files.log.is_some() && now.log != self.files.log && is_empty(path) {
            let saved = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
                row.get::<_, i64>(0)
            });
            match saved {
                Ok(0) => warn!(
                    "{name}: its write-ahead log was removed while PostTLS was using it; what was in it is saved"
                ),
                result => error!(
                    "{name}: its write-ahead log was removed while PostTLS was using it, and what was in it can't be \
                     saved ({result:?}): decisions of the last minutes may be missing"
                ),
            }
        } else if now.log != self.files.log {
            error!(
                "{name}: its write-ahead log was replaced while PostTLS was using it: decisions of the last minutes may \
                 be missing"
            );
        }
        if connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .is_err()
        {
            warn!("{name}: the last connection may write when it is closed");
        }
        if let Err((_, error)) = connection.close() {
            warn!("{name}: closing it: {error}");
        }
    }

    /// Draws the conclusion from an error.
    pub(super) fn note(&mut self, error: &rusqlite::Error) {
        self.suspect = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::NotADatabase
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::CannotOpen
                    | ErrorCode::ReadOnly
            )
        );
    }
}

/// Tests look at the tables themselves.
#[cfg(test)]
impl std::ops::Deref for Opened {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("an open database")
    }
}
