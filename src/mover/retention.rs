//! Forgets what the configuration says is to be kept no longer, a batch at a time. [`super::watch`] says when.

use std::thread;
use std::time::Duration;

use log::{info, warn};

use crate::case::store::{Store, StoreError};
use crate::config::Config;
use crate::text;

/// Between two batches, for those who wait for the write lock.
const PAUSE: Duration = Duration::from_millis(50);

/// Forgets all that is old enough now, if the clock can be believed: what is removed can't be brought back.
///
/// # Errors
/// When the store fails; what was not forgotten is so next time.
pub(super) fn forget(config: &Config, store: &Store) -> Result<(), StoreError> {
    let days = config.retention.days;
    if days == 0 {
        return Ok(());
    }
    if let Some(until) = store.doubts_clock()? {
        warn!(
            "retention: either no mover ran for more than a day, or the clock was set ahead; nothing is removed before \
             {}: if the time is wrong, set the clock until then",
            text::moment(until / 1000)
        );
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
