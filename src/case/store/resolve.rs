//! The end of moves that were stopped for an admin to look at.

use rusqlite::params;

use super::cases::{address_of, close_if_settled};
use super::{Store, StoreError, now_ms, record};
use crate::case::{CaseId, RecipientState};

impl Store {
    /// Records that an admin has settled by hand what the stopped moves of a case left behind: they are over, and what
    /// became of their recipients is not known to PostTLS. Returns how many moves there were.
    ///
    /// # Errors
    /// When the store fails; then nothing was recorded.
    pub fn resolve_conflicts(&self, case: CaseId, by: &str) -> Result<usize, StoreError> {
        self.write("cannot record that a move is settled", |tx| {
            let recipients: Vec<i64> = tx
                .prepare(
                    "SELECT r.id FROM moves m JOIN move_recipients mr ON mr.move_id = m.id
                     JOIN recipients r ON r.id = mr.recipient_id
                     WHERE m.case_id = ?1 AND m.step = 'conflict' AND r.state IN ('releasing', 'deleting')",
                )?
                .query_map([case], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let moves = tx.execute(
                "UPDATE moves SET step = 'done', changed_at = ?2 WHERE case_id = ?1 AND step = 'conflict'",
                params![case, now_ms()],
            )?;
            for recipient in recipients {
                let gone = RecipientState::Gone;
                tx.execute(
                    "UPDATE recipients SET state = ?2 WHERE id = ?1",
                    params![recipient, gone],
                )?;
                let address = address_of(tx, recipient)?;
                record(tx, case, &address, gone.as_str(), "settled by hand")?;
            }
            if moves > 0 {
                record(tx, case, "", "resolved", &format!("by admin {by}"))?;
                close_if_settled(tx, case)?;
            }
            Ok(moves)
        })
    }
}
