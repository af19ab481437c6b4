//! What the journal does not know: whether it explains a file in a hold queue, and how one that it does not is recorded.

use rusqlite::params;

use super::cases::{CASE_COLUMNS, case_of};
use super::news::forget;
use super::{Store, StoreError, now_ms, record};
use crate::case::{Action, Case, CaseId, News, RecipientState};
use crate::postfix::QueueId;

impl Store {
    /// Has any move made a copy of this name?
    ///
    /// # Errors
    /// When the store fails.
    pub fn knows_copy(&self, copy: &QueueId) -> Result<bool, StoreError> {
        self.read("cannot look a copy up", |connection| {
            connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM moves
                     WHERE substr(copy_name, 6) = substr(?1, 6) AND copy_name = ?1)",
                )?
                .query_row([copy], |row| row.get(0))
        })
    }

    /// Does a move explain that the message of this case is on hold, and what is marked in it?
    ///
    /// # Errors
    /// When the store fails.
    pub fn explains_hold(&self, case: CaseId) -> Result<bool, StoreError> {
        self.read("cannot look for moves", |connection| {
            connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM moves WHERE case_id = ?1
                     AND (step IN ('conflict', 'begun', 'marked', 'requeued') OR step = 'planned' AND held_before = 0))",
                )?
                .query_row([case], |row| row.get(0))
        })
    }

    /// The cases of messages with this arrival and sender.
    ///
    /// # Errors
    /// When the store fails.
    pub fn cases_from(&self, arrival: i64, sender: &str) -> Result<Vec<Case>, StoreError> {
        self.read("cannot look for a message", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {CASE_COLUMNS} FROM cases WHERE arrival = ?1 AND sender = ?2 ORDER BY id"
                ))?
                .query_map(params![arrival, sender], case_of)?
                .collect()
        })
    }

    /// Records a move that the journal did not know, stopped for an admin; `held` if its message is on hold. Whether that
    /// is new.
    ///
    /// # Errors
    /// When the store fails; then nothing was recorded.
    pub fn stop_unknown(
        &self,
        case: CaseId,
        copy: Option<&QueueId>,
        held: bool,
        recipients: &[(i64, Action)],
        why: &str,
    ) -> Result<bool, StoreError> {
        self.write("cannot record a move that was found", |tx| {
            let known: bool = match copy {
                Some(copy) => tx
                    .prepare_cached("SELECT EXISTS (SELECT 1 FROM moves WHERE copy_name = ?1)")?
                    .query_row([copy], |row| row.get(0))?,
                None => tx
                    .prepare_cached(
                        "SELECT EXISTS (SELECT 1 FROM moves WHERE case_id = ?1 AND step NOT IN ('planned', 'done'))",
                    )?
                    .query_row([case], |row| row.get(0))?,
            };
            if known {
                return Ok(false);
            }
            tx.execute(
                "INSERT INTO moves (case_id, step, held_before, copy_name, begun_at, changed_at)
                 VALUES (?1, 'conflict', CASE WHEN ?4 THEN 0 END, ?2, ?3, ?3)",
                params![case, copy, now_ms(), held],
            )?;
            let id = tx.last_insert_rowid();
            for (recipient, action) in recipients {
                tx.prepare_cached(
                    "INSERT INTO move_recipients (move_id, recipient_id, action) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![id, recipient, action])?;
                let state = match action {
                    Action::Delete => RecipientState::Deleting,
                    _ => RecipientState::Releasing,
                };
                tx.prepare_cached(
                    "UPDATE recipients SET state = ?2 WHERE id = ?1 AND state IN ('open', 'kept', 'not-offered')",
                )?
                .execute(params![recipient, state])?;
                forget(tx, *recipient, News::Stuck)?;
            }
            record(tx, case, "", "conflict", why)?;
            Ok(true)
        })
    }

    /// Records what nobody can explain about a message on hold, once. Whether that is new.
    ///
    /// # Errors
    /// When the store fails.
    pub fn note_unexplained(&self, case: CaseId, what: &str) -> Result<bool, StoreError> {
        self.write("cannot record what was found", |tx| {
            let known: bool = tx
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM events WHERE case_id = ?1 AND what = 'unexplained' AND detail = ?2)",
                )?
                .query_row(params![case, what], |row| row.get(0))?;
            if !known {
                record(tx, case, "", "unexplained", what)?;
            }
            Ok(!known)
        })
    }
}
