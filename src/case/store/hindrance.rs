//! What keeps a decision from being carried out, in the history of its case: the log is not where an admin looks who has
//! the queue ID and a sender on the phone.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Store, StoreError, record};
use crate::case::CaseId;

/// The word for it in a history.
const WHAT: &str = "hindered";
/// Reasons that one decision may add. They are few; one that changes with each try must not fill the store.
const MOST: i64 = 20;

/// Events of a case after its last decision: what kept an older one back says nothing about it.
const SINCE: &str = "case_id = ?1 AND what = 'hindered' AND id >
    (SELECT coalesce(max(id), 0) FROM events WHERE case_id = ?1 AND what = 'decided')";

impl Store {
    /// Records why a message can't be moved now, once for each reason and decision, and not for each try.
    ///
    /// # Errors
    /// When the store fails.
    pub fn note_hindrance(&self, case: CaseId, why: &str) -> Result<(), StoreError> {
        // Most often it is known, and reading keeps nobody waiting.
        let known = |connection: &Connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT count(*) >= ?3 OR coalesce(max(detail = ?2), 0) FROM events WHERE {SINCE}"
                ))?
                .query_row(params![case, why, MOST], |row| row.get::<_, bool>(0))
        };
        if self.read("cannot read what is known", known)? {
            return Ok(());
        }
        self.write("cannot record a hindrance", |tx| {
            if !known(tx)? {
                record(tx, case, "", WHAT, why)?;
            }
            Ok(())
        })
    }

    /// What keeps the decisions of a case from being carried out, as far as a try has shown; `None` when all are done, or
    /// none was hindered yet.
    ///
    /// # Errors
    /// When the store fails.
    pub fn hindrance(&self, case: CaseId) -> Result<Option<String>, StoreError> {
        self.read("cannot read what is in the way", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT detail FROM events WHERE {SINCE} AND EXISTS
                         (SELECT 1 FROM moves WHERE case_id = ?1 AND step NOT IN ('done', 'conflict'))
                     ORDER BY id DESC LIMIT 1"
                ))?
                .query_row([case], |row| row.get(0))
                .optional()
        })
    }
}
