//! A connection to the database: how it is made, and how it notices that its files were taken away or replaced under it.
//! SQLite would go on with files that nobody else sees any more, so that decisions were recorded in nothing.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use log::{error, info, warn};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{StoreError, people};

/// How long a statement waits for the end of another process's transaction, and the pauses between its questions.
/// SQLite's own pauses grow to 100 ms, and the transactions here last less than one.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
/// The same for the steps from an older version; the hook gives up after 90 seconds.
const STEPS_PATIENCE: Duration = Duration::from_secs(60);
const BUSY_FIRST: (i32, Duration) = (20, Duration::from_micros(200));
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// How long several programs at once try to switch to the write-ahead log, and the pauses between.
const SWITCH_PATIENCE: Duration = Duration::from_secs(10);
const SWITCH_PAUSE: Duration = Duration::from_millis(20);

/// Each brings the schema one version further; what was released is never changed.
pub(super) const STEPS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("life.sql"),
    include_str!("growth.sql"),
    include_str!("clock.sql"),
    include_str!("waiting.sql"),
    include_str!("hold.sql"),
    include_str!("overruled.sql"),
    include_str!("people.sql"),
    include_str!("handshakes.sql"),
    include_str!("changed.sql"),
    include_str!("handshake_senders.sql"),
];

/// The version that people.sql makes.
const PEOPLE: i64 = 8;

/// What tells one file from another: device and inode.
type Identity = Option<(u64, u64)>;

fn identity(path: &Path) -> Identity {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// Where SQLite keeps what is committed and not yet in the database at `path`.
pub(super) fn write_ahead_log(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Has the write-ahead log that is there now nothing in it? Whoever opens the database makes an empty one.
fn is_empty(path: &Path) -> bool {
    fs::symlink_metadata(write_ahead_log(path)).map_or(true, |found| found.len() == 0)
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
            log: identity(&write_ahead_log(path)),
            index: identity(&beside(path, "-shm")),
        }
    }
}

/// A connection, and the files that it uses.
pub(super) struct Opened {
    path: PathBuf,
    connection: Option<Connection>,
    /// `None` before it was opened for the first time.
    files: Option<Files>,
    /// Something was wrong with the files: SQLite looks at them anew only when it opens them.
    suspect: bool,
}

impl Opened {
    /// As [`super::Store::open`].
    pub(super) fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        let mut opened = Self::when_needed(path);
        opened.keep(connect(path, create)?);
        Ok(opened)
    }

    /// One that is opened when something is first asked of it.
    pub(super) fn when_needed(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            connection: None,
            files: None,
            suspect: false,
        }
    }

    /// Runs `body` on the connection.
    ///
    /// # Errors
    /// When the database is gone, can't be opened anew, or `body` fails; `doing` says at what.
    pub(super) fn run<T>(
        &mut self,
        doing: &'static str,
        body: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let result = body(self.current()?);
        result.map_err(|source| {
            self.note(&source);
            StoreError::Sqlite {
                path: self.path.clone(),
                doing,
                source,
            }
        })
    }

    fn keep(&mut self, connection: Connection) -> &mut Connection {
        self.files = Some(Files::of(&self.path));
        self.suspect = false;
        self.connection.insert(connection)
    }

    /// The connection, opened anew if its files are not those at its path any more.
    fn current(&mut self) -> Result<&mut Connection, StoreError> {
        let now = Files::of(&self.path);
        // It may come back, as it was: then nothing has happened.
        if now.database.is_none() {
            return Err(StoreError::Gone {
                path: self.path.clone(),
            });
        }
        if let Some(before) = self.files
            && (now != before || self.suspect)
            && let Some(connection) = self.connection.take()
        {
            part_with(connection, before, now, &self.path);
        }
        match self.connection.take() {
            Some(connection) => Ok(self.connection.insert(connection)),
            None => {
                let connection = connect(&self.path, false)?;
                if self.files.is_some() {
                    info!("{}: opened anew", self.path.display());
                }
                Ok(self.keep(connection))
            }
        }
    }

    /// Draws the conclusion from an error.
    fn note(&mut self, error: &rusqlite::Error) {
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

/// Saves what only this connection still sees, and closes it without a trace: what is at `path` by now must not be
/// touched by it.
fn part_with(connection: Connection, before: Files, now: Files, path: &Path) {
    let name = path.display();
    if now.database != before.database {
        warn!("{name}: the database was replaced while PostTLS was using it");
    } else if before.log.is_some() && now.log != before.log && is_empty(path) {
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
    } else if now.log != before.log {
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

/// As [`Store::open`].
fn connect(path: &Path, create: bool) -> Result<Connection, StoreError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let fault = |doing| {
        move |source| StoreError::Sqlite {
            path: path.to_owned(),
            doing,
            source,
        }
    };
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(fault("cannot open the database"))?;
    connection
        .busy_handler(Some(wait_for_others))
        .map_err(fault("cannot set the busy handler"))?;
    // The database belongs to an unprivileged user, and root opens it: nothing in it may run code or break it.
    for (option, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
    ] {
        connection
            .set_db_config(option, on)
            .map_err(fault("cannot set a safe mode"))?;
    }
    connection
        .pragma_update(None, "foreign_keys", true)
        .map_err(fault("cannot switch foreign keys on"))?;
    // What is removed is overwritten: whoever gets hold of the file or of a backup finds no more than we show.
    connection
        .pragma_update(None, "secure_delete", true)
        .map_err(fault("cannot switch secure_delete on"))?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(fault("cannot set synchronous"))?;
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(fault("cannot read the database"))?;
    if version == 0 && !create {
        return Err(StoreError::Empty {
            path: path.to_owned(),
        });
    }
    // A backup made by VACUUM INTO has lost it. Of several that switch at the same time SQLite has all but one fail at
    // once, whatever the busy handler says.
    let since = Instant::now();
    loop {
        let mode: String = connection
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .map_err(fault("cannot read the database"))?;
        if mode == "wal" {
            break;
        }
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && since.elapsed() < SWITCH_PATIENCE =>
            {
                std::thread::sleep(SWITCH_PAUSE);
            }
            switched => switched.map_err(fault("cannot switch to WAL"))?,
        }
    }
    if usize::try_from(version) != Ok(STEPS.len()) {
        // Of several programs that begin after an upgrade all but one wait for its steps.
        connection
            .busy_handler(Some(wait_for_steps))
            .map_err(fault("cannot set the busy handler"))?;
        bring_up_to_date(&mut connection, path)?;
        connection
            .busy_handler(Some(wait_for_others))
            .map_err(fault("cannot set the busy handler"))?;
    }
    Ok(connection)
}

/// Takes the steps that are missing, all in one transaction. Which these are is asked again within it: of several
/// programs that begin at the same time one takes them, and the others find them taken.
fn bring_up_to_date(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let fault = |source| StoreError::Migration {
        path: path.to_owned(),
        source,
    };
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(fault)?;
    let version: i64 = transaction
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(fault)?;
    let missing = usize::try_from(version).ok().and_then(|at| STEPS.get(at..));
    let Some(missing) = missing else {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            version,
            known: STEPS.len(),
        });
    };
    for step in missing {
        transaction.execute_batch(step).map_err(fault)?;
    }
    if version < PEOPLE {
        people::respell(&transaction).map_err(fault)?;
    }
    transaction
        .pragma_update(None, "user_version", STEPS.len() as i64)
        .map_err(fault)?;
    transaction.commit().map_err(fault)
}

/// SQLite's busy handler.
pub(super) fn wait_for_others(tries: i32) -> bool {
    waits(tries, BUSY_PATIENCE)
}

/// As [`wait_for_others`], while a store of an older version is brought up to date.
fn wait_for_steps(tries: i32) -> bool {
    waits(tries, STEPS_PATIENCE)
}

/// By the clock: on a busy machine pauses take longer, and whoever runs this has a time limit.
fn waits(tries: i32, patience: Duration) -> bool {
    thread_local!(static SINCE: Cell<Option<Instant>> = const { Cell::new(None) });
    if tries == 0 {
        SINCE.set(Some(Instant::now()));
    }
    let (first, pause) = BUSY_FIRST;
    std::thread::sleep(if tries < first { pause } else { BUSY_PAUSE });
    SINCE.get().is_some_and(|since| since.elapsed() < patience)
}

/// Tests look at the tables themselves.
#[cfg(test)]
impl std::ops::Deref for Opened {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("an open database")
    }
}
