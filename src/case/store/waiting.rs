//! Recipients that were decided to be sent to, and have not been delivered for hours: their senders are told, once each.

use rusqlite::params;

use super::news::owe_or_alert;
use super::passages::UNDER_WAY;
use super::{Store, StoreError, now_ms};
use crate::address::Address;
use crate::case::{News, alert};
use crate::postfix::QueueId;

const HOUR_MS: i64 = 3_600_000;
/// So many in one transaction: the hook waits for it.
const BATCH: i64 = 200;

/// A recipient whose sender is to be told that it still waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StillWaiting {
    /// The message.
    pub queue_id: QueueId,
    /// The recipient.
    pub address: Address,
    /// What the may instance last said about it.
    pub said: Option<String>,
}

impl Store {
    /// Owes the senders that recipients still wait who were decided to be sent to at least so many hours ago, whether the
    /// may instance has them or not. Each once; some at a time, so ask again while there are any.
    ///
    /// # Errors
    /// When the store fails.
    pub fn owe_waiting(&self, hours: u32) -> Result<Vec<StillWaiting>, StoreError> {
        let now = now_ms();
        let before = now - i64::from(hours) * HOUR_MS;
        let sql = format!(
            "SELECT r.id, c.queue_id, r.address, r.passage_detail
             FROM (SELECT id FROM recipients WHERE state = 'released' AND (passage IS NULL OR passage = 'deferred')
                       AND {UNDER_WAY}
                   UNION
                   SELECT mr.recipient_id FROM moves m JOIN move_recipients mr ON mr.move_id = m.id
                   WHERE m.step NOT IN ('done', 'conflict')) AS some
             JOIN recipients r ON r.id = some.id JOIN cases c ON c.id = r.case_id
             JOIN decisions d ON d.recipient_id = r.id AND d.action <> 'keep'
             WHERE r.waiting_owed_at IS NULL AND r.state IN ('releasing', 'released')
               AND d.action = 'send' AND d.decided_at <= ?1
             ORDER BY r.id LIMIT {BATCH}"
        );
        let read = |row: &rusqlite::Row<'_>| {
            let one = StillWaiting {
                queue_id: row.get(1)?,
                address: row.get(2)?,
                said: row.get(3)?,
            };
            Ok((row.get::<_, i64>(0)?, one))
        };
        // Nobody waits for the write lock as long as there are none.
        let any = self.read("cannot look for mail that still waits", |connection| {
            connection.prepare_cached(&sql)?.exists([before])
        })?;
        if !any {
            return Ok(Vec::new());
        }
        self.write("cannot owe that mail still waits", |tx| {
            let due = tx
                .prepare_cached(&sql)?
                .query_map([before], read)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            for (id, _) in &due {
                tx.prepare_cached("UPDATE recipients SET waiting_owed_at = ?2 WHERE id = ?1")?
                    .execute(params![id, now])?;
                owe_or_alert(tx, *id, News::Waiting, alert::WAITING)?;
            }
            Ok(due.into_iter().map(|(_, one)| one).collect())
        })
    }
}
