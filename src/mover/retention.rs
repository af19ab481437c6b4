//! Forgets what the configuration says is to be kept no longer: in a thread of its own, once an hour, a batch at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{error, info};

use crate::case::store::{Store, StoreError};
use crate::config::Config;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(3600);
/// Between two batches, for those who wait for the write lock.
const PAUSE: Duration = Duration::from_millis(50);

/// Begins to forget, for as long as this process lives. The configuration is read anew for every look.
pub(super) fn start(config: PathBuf, store: Arc<Store>) {
    thread::spawn(move || {
        loop {
            match Config::load(&config) {
                Ok(config) => look(&config, &store)
                    .unwrap_or_else(|error| error!("retention: {error}; next try in an hour")),
                Err(error) => error!("retention: {error}; next try in an hour"),
            }
            thread::sleep(EVERY);
        }
    });
}

fn look(config: &Config, store: &Store) -> Result<(), StoreError> {
    let days = config.retention.days;
    if days == 0 {
        return Ok(());
    }
    let (mut cases, mut rows) = (0, 0);
    loop {
        let done = store.forget_old(days, config.link.valid_days)?;
        cases += done.cases;
        rows += done.rows;
        if !done.more {
            break;
        }
        thread::sleep(PAUSE);
    }
    if cases + rows > 0 {
        store.empty_log()?;
        info!(
            "retention: older than {days} days: cases={cases} without personal data now, other rows removed={rows}"
        );
    }
    Ok(())
}
