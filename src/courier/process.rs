//! The courier's process: it ticks until its mover closes standard input, and ends rather than hang.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use log::{error, info, warn};

use super::due::{Rounds, ticks};
use super::writer::{Trouble, Writer};
use crate::case::store::{CLAIM_LIFE_MS, Store, StoreError};
use crate::config::{Config, ConfigError};
use crate::confine;
use crate::logging;

/// Between two looks at what is due.
const TICK: Duration = Duration::from_secs(1);
/// A round that takes longer hangs in one mail: end, before the claim of that mail is taken for that of a dead process.
const HANGS_MS: i64 = CLAIM_LIFE_MS - 30_000;

/// Why the courier can't work.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The link key or a template can't be read.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

/// Runs until standard input ends: then a mail under way is finished, and no other begun.
///
/// # Errors
/// When it can't begin, or the store fails: the mover then starts another one, which opens the store anew.
pub fn run(config_path: &Path) -> Result<(), CourierError> {
    let config = Config::load(config_path)?;
    logging::start("posttls/courier", &config.log.target);
    shut_in(&config);
    let store = Store::open(&config.store.path, false)?;
    let writer = Writer::new(&store, &config)?;
    let ended = Arc::new(AtomicBool::new(false));
    let (tell, events) = channel::<()>();
    let flag = Arc::clone(&ended);
    thread::spawn(move || {
        until_closed(io::stdin());
        flag.store(true, Ordering::SeqCst);
        drop(tell);
    });
    let busy_since = Arc::new(AtomicI64::new(0));
    let watched = Arc::clone(&busy_since);
    thread::spawn(move || {
        loop {
            thread::sleep(TICK);
            let since = watched.load(Ordering::SeqCst);
            if since != 0 && ticks() - since > HANGS_MS {
                error!(
                    "gave up after {} s; what is owed is sent by the next courier",
                    HANGS_MS / 1000
                );
                std::process::exit(75);
            }
        }
    });
    let mut rounds = Rounds::new(writer, &ended, &busy_since);
    info!("started");
    loop {
        rounds.tick()?;
        match events.recv_timeout(TICK) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    info!("ended");
    Ok(())
}

/// From here on it writes nowhere but beside the store (and where SQLite puts what it sorts), and runs no program. Mail
/// that is owed is worth more than this fence. It does not die with its mover at once: the mail that it is at would be
/// sent again.
fn shut_in(config: &Config) {
    let beside = config.store.path.parent().unwrap_or(Path::new("/"));
    match confine::write_only_below(&[beside, Path::new("/var/tmp"), Path::new("/tmp")]) {
        Ok(achieved) => info!("shut in: {achieved}"),
        Err(why) => warn!("cannot shut myself in, and go on without: {why}"),
    }
}

/// Reads to the end, whatever comes.
fn until_closed(mut input: impl io::Read) {
    let mut buffer = [0; 64];
    // An error means that nobody is there any more, too.
    while input.read(&mut buffer).is_ok_and(|count| count > 0) {}
}
