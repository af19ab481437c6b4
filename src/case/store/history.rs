//! The history of decisions, for `posttls log`: who decided what, when, from where, and what came of it.

use rusqlite::{Row, params};

use super::{Store, StoreError};
use crate::case::{Action, Actor, ConsentId, Failure, Passage, RecipientState};
use crate::domain::Domain;
use crate::postfix::QueueId;

/// One decision for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HistoryLine {
    /// When it was made, in Unix milliseconds.
    pub decided_at: i64,
    /// The message, in the encrypt instance.
    pub queue_id: QueueId,
    /// Envelope sender; empty for the null sender.
    pub sender: String,
    /// The recipient.
    pub recipient: String,
    /// The recipient's domain, in ASCII form; stays when addresses are removed.
    pub domain: String,
    /// Why the recipient was stuck.
    pub failure: Failure,
    /// What was decided.
    pub action: Action,
    /// By whom.
    pub actor: Actor,
    /// From which address, or by which admin; empty for what nobody did just then.
    pub client: String,
    /// The remembered choice behind it.
    pub consent: Option<ConsentId>,
    /// Where the recipient stands now.
    pub state: RecipientState,
    /// What the may instance did with it.
    pub passage: Option<Passage>,
    /// Have addresses been removed, as the case was closed long ago?
    pub redacted: bool,
}

/// Which decisions are wanted. Everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct HistoryFilter {
    /// Of this message.
    pub queue_id: Option<QueueId>,
    /// Of this envelope sender; empty text is the null sender. ASCII case does not matter.
    pub sender: Option<String>,
    /// For this recipient. ASCII case does not matter.
    pub recipient: Option<String>,
    /// For recipients in this domain, or below it.
    pub domain: Option<Domain>,
    /// Not before, in Unix milliseconds.
    pub since: Option<i64>,
    /// Before, in Unix milliseconds.
    pub until: Option<i64>,
    /// The newest ones, so many.
    pub limit: Option<u32>,
}

fn line_of(row: &Row<'_>) -> rusqlite::Result<HistoryLine> {
    Ok(HistoryLine {
        decided_at: row.get(0)?,
        queue_id: row.get(1)?,
        sender: row.get(2)?,
        recipient: row.get(3)?,
        domain: row.get(4)?,
        failure: row.get(5)?,
        action: row.get(6)?,
        actor: row.get(7)?,
        client: row.get(8)?,
        consent: row.get(9)?,
        state: row.get(10)?,
        passage: row.get(11)?,
        redacted: row.get(12)?,
    })
}

impl Store {
    /// Goes through the decisions that `filter` wants, the newest last. `each` says whether to go on.
    ///
    /// # Errors
    /// When the store fails.
    pub fn history(
        &self,
        filter: &HistoryFilter,
        mut each: impl FnMut(HistoryLine) -> bool,
    ) -> Result<(), StoreError> {
        // Never more than SQLite counts.
        let limit = filter.limit.map_or(-1, i64::from);
        let domain = filter.domain.as_ref().map(Domain::as_str);
        self.read("cannot read decisions", |connection| {
            let mut statement = connection.prepare(
                "SELECT * FROM (
                     SELECT d.decided_at, c.queue_id, c.sender, r.address, r.domain, r.failure, d.action, d.actor, d.client,
                            d.consent_id, r.state, r.passage, c.redacted_at IS NOT NULL, d.id AS id
                     FROM decisions d JOIN recipients r ON r.id = d.recipient_id JOIN cases c ON c.id = r.case_id
                     WHERE (?1 IS NULL OR c.queue_id = ?1)
                       AND (?2 IS NULL OR c.sender = ?2 COLLATE NOCASE AND c.redacted_at IS NULL)
                       AND (?3 IS NULL OR r.address = ?3 COLLATE NOCASE)
                       AND (?4 IS NULL OR r.domain = ?4 OR substr(r.domain, -length(?4) - 1) = '.' || ?4)
                       AND (?5 IS NULL OR d.decided_at >= ?5)
                       AND (?6 IS NULL OR d.decided_at < ?6)
                     ORDER BY d.decided_at DESC, d.id DESC LIMIT ?7)
                 ORDER BY decided_at, id",
            )?;
            let mut rows = statement.query(params![
                filter.queue_id,
                filter.sender,
                filter.recipient,
                domain,
                filter.since,
                filter.until,
                limit
            ])?;
            while let Some(row) = rows.next()? {
                if !each(line_of(row)?) {
                    break;
                }
            }
            Ok(())
        })
    }
}
