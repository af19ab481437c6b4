//! Whose hold it is. PostTLS puts a message on hold while it moves it; any other hold is an administrator's, and no
//! decision is carried out before that is let go.

use rusqlite::params;

use super::{Store, StoreError, now_ms, record};
use crate::case::CaseId;

impl Store {
    /// Has a move of this case put the message on hold, as far as the journal knows, and not let it go? The journal says so
    /// before the hold, and until after its end. A move that was stopped may have left one.
    ///
    /// # Errors
    /// When the store fails.
    pub fn holds(&self, case: CaseId) -> Result<bool, StoreError> {
        self.read("cannot look for a hold", |connection| {
            connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM moves WHERE case_id = ?1 AND held_before = 0 AND step <> 'done')",
                )?
                .query_row([case], |row| row.get(0))
        })
    }

    /// Records that an administrator holds the message, or has let it go. Whether that is new.
    ///
    /// # Errors
    /// When the store fails.
    pub fn note_hold(&self, case: CaseId, held: bool) -> Result<bool, StoreError> {
        self.write("cannot record a hold", |tx| {
            let changed = tx
                .prepare_cached(
                    "UPDATE cases SET held_at = CASE WHEN ?2 THEN ?3 END WHERE id = ?1 AND (held_at IS NOT NULL) <> ?2",
                )?
                .execute(params![case, held, now_ms()])?;
            if changed == 1 && held {
                let detail = "on hold by an administrator: decisions wait until it is let go";
                record(tx, case, "", "held", detail)?;
            } else if changed == 1 {
                record(tx, case, "", "let-go", "no longer on hold")?;
            }
            Ok(changed == 1)
        })
    }
}
