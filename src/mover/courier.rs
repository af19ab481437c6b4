//! Starts the courier as the user that the store belongs to, and replaces it when it ends.
//!
//! It has what the hook has: the store, the link key, the configuration, and the way to the mail server; and neither the
//! mover's privilege nor a listening socket. It ends when its standard input does, so it never outlives its mover by
//! more than the mail that it is at.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{error, info, warn};

/// Pauses before a courier that ended by itself is started again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// One that has run for so long was in order.
const LONG_LIFE: Duration = Duration::from_secs(60);
/// How long a courier may take to finish the mail that it is at.
const FAREWELL: Duration = Duration::from_secs(3);
/// Between two looks at whether it still runs: usually, and while its end is awaited.
const POLLS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(20));

/// Keeps a courier running.
pub struct CourierKeeper {
    program: PathBuf,
    config: PathBuf,
    store: PathBuf,
    current: Mutex<Current>,
    changed: Condvar,
}

/// The courier that runs now is told to end by dropping the writing end of its standard input.
#[derive(Default)]
struct Current {
    input: Option<ChildStdin>,
    replacing: bool,
    ending: bool,
}

impl CourierKeeper {
    /// Prepares to start `program` as courier with this configuration file; `store` says as which user.
    pub fn new(program: &Path, config: &Path, store: &Path) -> Self {
        Self {
            program: program.to_owned(),
            config: config.to_owned(),
            store: store.to_owned(),
            current: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Keeps one courier running until [`CourierKeeper::end`] is called.
    pub fn run(&self) {
        let mut pause = PAUSES.0;
        loop {
            let started = Instant::now();
            match self.serve_one() {
                Ok(status) => info!("courier ended: {status}"),
                Err(why) => error!(
                    "courier: {why}; senders get no mail but the hook's until this is mended"
                ),
            }
            if started.elapsed() > LONG_LIFE {
                pause = PAUSES.0;
            }
            let mut current = self.current();
            if !current.replacing && !current.ending {
                let waited = self.changed.wait_timeout_while(current, pause, |current| {
                    !current.replacing && !current.ending
                });
                current = waited.unwrap_or_else(PoisonError::into_inner).0;
                pause = (pause * 2).min(PAUSES.1);
            }
            if current.ending {
                return;
            }
            if std::mem::take(&mut current.replacing) {
                pause = PAUSES.0;
            }
        }
    }

    /// Ends the present courier; the next one reads the configuration anew.
    pub fn replace(&self) {
        self.close(|current| current.replacing = true);
    }

    /// Ends the present courier, and starts no other.
    pub fn end(&self) {
        self.close(|current| current.ending = true);
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, note: impl FnOnce(&mut Current)) {
        let mut current = self.current();
        note(&mut current);
        current.input = None;
        self.changed.notify_all();
    }

    fn serve_one(&self) -> io::Result<std::process::ExitStatus> {
        let mut child = {
            let mut current = self.current();
            if current.ending || current.replacing {
                // What was asked for between two couriers is done by the next one.
                current.replacing = false;
                if current.ending {
                    return Ok(std::process::ExitStatus::default());
                }
            }
            let mut child = self.start()?;
            current.input = child.stdin.take();
            child
        };
        let status = self.wait(&mut child);
        self.current().input = None;
        status
    }

    fn start(&self) -> io::Result<Child> {
        let owner = std::fs::metadata(&self.store)
            .map_err(|error| io::Error::other(format!("{}: {error}", self.store.display())))?;
        if owner.uid() == 0 || owner.gid() == 0 {
            return Err(io::Error::other(format!(
                "{} belongs to root, and the courier does not run as root: give it and its directory to the user of \
                 posttls-pipe (`posttls init` does)",
                self.store.display()
            )));
        }
        let settings = std::env::vars_os().filter(|(name, _)| is_for_courier(name));
        let child = Command::new(&self.program)
            .arg0("posttls-httpd (courier)")
            .arg("--courier")
            .arg("--config")
            .arg(&self.config)
            .env_clear()
            .envs(settings)
            .current_dir("/")
            .uid(owner.uid())
            .gid(owner.gid())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        info!(
            "courier {} started as user number {}",
            child.id(),
            owner.uid()
        );
        Ok(child)
    }

    /// Waits for the courier's end; one that was told to end and does not is killed.
    fn wait(&self, child: &mut Child) -> io::Result<std::process::ExitStatus> {
        let mut told: Option<Instant> = None;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if told.is_none() && self.current().input.is_none() {
                told = Some(Instant::now());
            }
            if told.is_some_and(|since| since.elapsed() > FAREWELL) {
                warn!(
                    "courier {} did not end by itself and is killed; what it has not recorded is told again",
                    child.id()
                );
                child.kill()?;
                return child.wait();
            }
            let current = self.current();
            let poll = if told.is_some() { POLLS.1 } else { POLLS.0 };
            let waited = self.changed.wait_timeout(current, poll);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Does the courier go by this variable? The keys of the configuration; in a build for tests, the clock of the tests.
fn is_for_courier(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let clock: [&[u8]; 3] = [b"LD_PRELOAD", b"FAKETIME_", b"NO_FAKE_STAT"];
    name.starts_with(b"POSTTLS_")
        || cfg!(feature = "failpoints") && clock.iter().any(|one| name.starts_with(one))
}
