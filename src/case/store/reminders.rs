//! Which cases are to be brought back to mind, and which need not be any more.

use rusqlite::params;

use super::cases::{CASE_COLUMNS, case_of};
use super::people::person;
use super::{Store, StoreError, now_ms};
use crate::address::Address;
use crate::case::{Case, CaseId};

impl Store {
    /// Senders with a case of which a reminder is due at `now` (Unix milliseconds).
    ///
    /// # Errors
    /// When the store fails.
    pub fn senders_to_remind(&self, now: i64) -> Result<Vec<Address>, StoreError> {
        self.read("cannot look for reminders", |connection| {
            connection
                .prepare_cached(
                    "SELECT DISTINCT person FROM cases INDEXED BY cases_to_remind
                     WHERE remind_at <= ?1 AND person <> ''",
                )?
                .query_map([now], |row| row.get(0))?
                .collect()
        })
    }

    /// The sender's open cases of which a reminder is due until `until` (Unix milliseconds), the oldest first, each with
    /// when it is due, and when the sender was last told that recipients wait. Cases in which every recipient is
    /// decided, or kept by the sender's wish, lose their reminder instead.
    ///
    /// # Errors
    /// When the store fails.
    pub fn cases_to_remind(
        &self,
        sender: &Address,
        until: i64,
    ) -> Result<Vec<(Case, i64, i64)>, StoreError> {
        self.write("cannot look for reminders", |tx| {
            tx.prepare_cached(
                "UPDATE cases SET remind_at = NULL WHERE person = ?1 AND remind_at <= ?2 AND
                 (retry_until <= ?3 OR NOT EXISTS
                     (SELECT 1 FROM recipients r WHERE r.case_id = cases.id AND r.state = 'open'))",
            )?
            .execute(params![person(sender), until, now_ms() / 1000])?;
            tx.prepare_cached(&format!(
                "SELECT {CASE_COLUMNS}, remind_at, coalesce(told_at, notified_at, remind_at) AS told FROM cases
                 WHERE person = ?1 AND remind_at <= ?2 ORDER BY arrival, id"
            ))?
            .query_map(params![person(sender), until], |row| {
                Ok((case_of(row)?, row.get("remind_at")?, row.get("told")?))
            })?
            .collect()
        })
    }

    /// When the next reminder of a case is due, in Unix milliseconds, and how many were sent.
    ///
    /// # Errors
    /// When the store fails.
    pub fn reminders_of(&self, case: CaseId) -> Result<(Option<i64>, i64), StoreError> {
        self.read("cannot read reminders", |connection| {
            connection
                .prepare_cached("SELECT remind_at, reminders FROM cases WHERE id = ?1")?
                .query_row([case], |row| Ok((row.get(0)?, row.get(1)?)))
        })
    }
}
