//! What the admin is to be told by mail: gathered here by cause, so that one cause makes one mail an hour.

use rusqlite::{Transaction, params};

use super::{Store, StoreError, now_ms};

/// Trouble that the admin has not been told of yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What makes it one trouble.
    pub cause: String,
    /// An example.
    pub detail: String,
    /// Since when, in Unix milliseconds.
    pub since: i64,
    /// How often.
    pub count: i64,
}

const HOUR_MS: i64 = 3_600_000;

impl Store {
    /// The alerts to be told now: those of a cause that was not told within the last hour.
    ///
    /// # Errors
    /// When the store fails.
    pub fn alerts_due(&self) -> Result<Vec<Alert>, StoreError> {
        self.read("cannot read alerts", |connection| {
            connection
                .prepare_cached(
                    "SELECT cause, detail, since, pending FROM alerts
                     WHERE pending > 0 AND (told_at IS NULL OR abs(?1 - told_at) >= ?2) ORDER BY since, cause",
                )?
                .query_map([now_ms(), HOUR_MS], |row| {
                    Ok(Alert {
                        cause: row.get(0)?,
                        detail: row.get(1)?,
                        since: row.get(2)?,
                        count: row.get(3)?,
                    })
                })?
                .collect()
        })
    }

    /// Records that the admin was told. What was raised since then is told next time.
    ///
    /// # Errors
    /// When the store fails.
    pub fn alerts_told(&self, told: &[Alert]) -> Result<(), StoreError> {
        self.write("cannot record a mail to the admin", |tx| {
            for alert in told {
                tx.prepare_cached(
                    "UPDATE alerts SET pending = max(pending - ?2, 0), told_at = ?3, since = ?3 WHERE cause = ?1",
                )?
                .execute(params![alert.cause, alert.count, now_ms()])?;
            }
            // Causes carry what Postfix said: they must not gather for ever.
            tx.prepare_cached("DELETE FROM alerts WHERE pending = 0 AND told_at < ?1")?
                .execute([now_ms() - 24 * HOUR_MS])
                .map(drop)
        })
    }

    /// Asks for a mail to the admin. `cause` is what makes it the same trouble as before; `detail` is an example, of
    /// which the first one since the last mail is told.
    ///
    /// # Errors
    /// When the store fails.
    pub fn raise_alert(&self, cause: &str, detail: &str) -> Result<(), StoreError> {
        self.write("cannot raise an alert", |tx| raise(tx, cause, detail))
    }
}

/// As [`Store::raise_alert`], within a transaction that makes it true.
pub(super) fn raise(tx: &Transaction<'_>, cause: &str, detail: &str) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO alerts (cause, detail, since, pending) VALUES (?1, ?2, ?3, 1)
         ON CONFLICT (cause) DO UPDATE SET pending = pending + 1,
             detail = CASE WHEN pending = 0 THEN excluded.detail ELSE detail END,
             since = CASE WHEN pending = 0 THEN excluded.since ELSE since END",
    )?
    .execute(params![cause, detail, now_ms()])?;
    Ok(())
}
