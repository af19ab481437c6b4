//! What the admin is to be told by mail: gathered here by cause, so that one cause makes one mail an hour.

use rusqlite::params;

use super::{Store, StoreError, now_ms};

impl Store {
    /// Asks for a mail to the admin. `cause` is what makes it the same trouble as before; `detail` is an example, of
    /// which the first one since the last mail is told.
    ///
    /// # Errors
    /// When the store fails.
    pub fn raise_alert(&self, cause: &str, detail: &str) -> Result<(), StoreError> {
        self.write("cannot raise an alert", |tx| {
            tx.prepare_cached(
                "INSERT INTO alerts (cause, detail, since, pending) VALUES (?1, ?2, ?3, 1)
                 ON CONFLICT (cause) DO UPDATE SET pending = pending + 1,
                     detail = CASE WHEN pending = 0 THEN excluded.detail ELSE detail END,
                     since = CASE WHEN pending = 0 THEN excluded.since ELSE since END",
            )?
            .execute(params![cause, detail, now_ms()])?;
            Ok(())
        })
    }
}
