//! Cases and recipients: opened by the hook, read by everyone.

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::consents::end_of_domain;
use super::news::{forget, owe_if_told};
use super::{Store, StoreError, handshakes, now_ms, record};
use crate::address::Address;
use crate::case::{Case, CaseId, CaseState, MessageKey, News, Recipient, RecipientState, Written};
use crate::postfix::QueueId;

pub(super) const CASE_COLUMNS: &str = "id, queue_id, sender, arrival, subject, message_id, retry_until, state, opened_at, notified_at, source, asked, closed_at, closed_why, redacted_at, held_at";

/// How a recipient left the queue without PostTLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Number in the store.
    pub recipient: i64,
    /// One of the states that [`RecipientState::has_left`].
    pub state: RecipientState,
    /// What was seen.
    pub detail: String,
}

pub(super) fn case_of(row: &Row<'_>) -> rusqlite::Result<Case> {
    let sender: String = row.get(2)?;
    Ok(Case {
        id: row.get(0)?,
        key: MessageKey {
            queue_id: row.get(1)?,
            // One that can't be read is not the null sender, about whose mail nobody is asked.
            sender: (!sender.is_empty()).then(|| row.get(2)).transpose()?,
            arrival: row.get(3)?,
        },
        subject: row.get(4)?,
        message_id: row.get(5)?,
        retry_until: row.get(6)?,
        state: row.get(7)?,
        opened_at: row.get(8)?,
        notified_at: row.get(9)?,
        source: row.get(10)?,
        asked: row.get(11)?,
        closed_at: row.get(12)?,
        closed_why: row.get(13)?,
        redacted_at: row.get(14)?,
        held_at: row.get(15)?,
    })
}

/// What the sender wrote, from the columns `written` and `unwritten`.
pub(super) fn written(row: &Row<'_>, first: usize) -> rusqlite::Result<Written> {
    if row.get(first + 1)? {
        return Ok(Written::Never);
    }
    let text: String = row.get(first)?;
    if text.is_empty() {
        return Ok(Written::Same);
    }
    row.get(first).map(Written::Other)
}

pub(super) fn sender_column(key: &MessageKey) -> &str {
    key.sender.as_ref().map_or("", Address::as_str)
}

impl Store {
    /// The case with this number.
    ///
    /// # Errors
    /// When the store fails.
    pub fn case(&self, id: CaseId) -> Result<Option<Case>, StoreError> {
        self.read("cannot read a case", |connection| {
            connection
                .prepare_cached(&format!("SELECT {CASE_COLUMNS} FROM cases WHERE id = ?1"))?
                .query_row([id], case_of)
                .optional()
        })
    }

    /// The case of a message, if it has one.
    ///
    /// # Errors
    /// When the store fails.
    pub fn case_of(&self, key: &MessageKey) -> Result<Option<Case>, StoreError> {
        self.read("cannot look a message up", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {CASE_COLUMNS} FROM cases WHERE queue_id = ?1 AND arrival = ?2 AND sender = ?3"
                ))?
                .query_row(params![key.queue_id, key.arrival, sender_column(key)], case_of)
                .optional()
        })
    }

    /// The cases of this queue ID, the newest first: there are several when Postfix has used it again.
    ///
    /// # Errors
    /// When the store fails.
    pub fn cases_of(&self, queue_id: &QueueId) -> Result<Vec<Case>, StoreError> {
        self.read("cannot look a queue ID up", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {CASE_COLUMNS} FROM cases WHERE queue_id = ?1 ORDER BY opened_at DESC, id"
                ))?
                .query_map([queue_id], case_of)?
                .collect()
        })
    }

    /// All cases in `state`, or all there are, the oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub fn cases(&self, state: Option<CaseState>) -> Result<Vec<Case>, StoreError> {
        self.read("cannot list cases", |connection| {
            // Two statements, as no index serves one for both: most cases are closed, and nobody wants to read those.
            let which = if state.is_some() {
                "state = ?1"
            } else {
                "?1 IS NULL"
            };
            connection
                .prepare(&format!(
                    "SELECT {CASE_COLUMNS} FROM cases WHERE {which} ORDER BY opened_at, id"
                ))?
                .query_map([state], case_of)?
                .collect()
        })
    }

    /// The recipients of a case, in the order of the notice.
    ///
    /// # Errors
    /// When the store fails.
    pub fn recipients(&self, case: CaseId) -> Result<Vec<Recipient>, StoreError> {
        self.read("cannot read recipients", |connection| {
            connection
                .prepare_cached(
                    "SELECT id, number, address, failure, status, detail, may_send, state, stuck_at, passage, passage_at,
                     passage_detail, written, unwritten, changed FROM recipients WHERE case_id = ?1 ORDER BY number",
                )?
                .query_map([case], |row| {
                    Ok(Recipient {
                        id: row.get(0)?,
                        number: row.get(1)?,
                        address: row.get(2)?,
                        written: written(row, 12)?,
                        failure: row.get(3)?,
                        status: row.get(4)?,
                        detail: row.get(5)?,
                        may_send: row.get(6)?,
                        state: row.get(7)?,
                        stuck_at: row.get(8)?,
                        passage: row.get(9)?,
                        passage_at: row.get(10)?,
                        passage_detail: row.get(11)?,
                        changed: row.get(14)?,
                    })
                })?
                .collect()
        })
    }

    /// Records what is seen in the queue afterwards: recipients that wait for no decision any more. Only recipients that
    /// are still open or watched are touched, so that a decision made at the same moment stands, and of two who saw it
    /// the first one counts.
    ///
    /// # Errors
    /// When the store fails.
    pub fn settle(&self, case: CaseId, seen: &[(i64, RecipientState)]) -> Result<(), StoreError> {
        let endings: Vec<Ending> = seen
            .iter()
            .map(|(recipient, state)| Ending {
                recipient: *recipient,
                state: *state,
                detail: "seen in the queue".to_owned(),
            })
            .collect();
        self.end_some(case, &endings, false).map(drop)
    }

    /// Records how Postfix was seen to end recipients, at the moment when it did. Also of recipients that are decided
    /// about, as long as their move has not begun: until then PostTLS has marked nothing, so it was Postfix. Gives the
    /// numbers of the recipients that it changed.
    ///
    /// # Errors
    /// When the store fails.
    pub fn end(&self, case: CaseId, endings: &[Ending]) -> Result<Vec<i64>, StoreError> {
        self.end_some(case, endings, true)
    }

    fn end_some(
        &self,
        case: CaseId,
        endings: &[Ending],
        decided_too: bool,
    ) -> Result<Vec<i64>, StoreError> {
        self.write("cannot record what was seen in the queue", |tx| {
            let mut touched = Vec::new();
            for Ending {
                recipient,
                state,
                detail,
            } in endings
            {
                let before: RecipientState = tx
                    .prepare_cached("SELECT state FROM recipients WHERE id = ?1")?
                    .query_row([recipient], |row| row.get(0))?;
                let undecided = before.is_open() || before == RecipientState::NotOffered;
                let ends = undecided || decided_too && is_planned(tx, *recipient, before)?;
                if !ends {
                    continue;
                }
                tx.prepare_cached("UPDATE recipients SET state = ?2 WHERE id = ?1")?
                    .execute(params![recipient, state])?;
                touched.push(*recipient);
                let address = address_of(tx, *recipient)?;
                record(tx, case, &address, state.as_str(), detail)?;
                let untold = forget(tx, *recipient, News::Stuck)?;
                if *state == RecipientState::Delivered {
                    // What was found only later may have left long ago.
                    if decided_too {
                        handshakes::succeeded(tx)?;
                    }
                    end_of_domain(tx, case, &address)?;
                    // Who has decided hears on the page what came of it.
                    if undecided && !untold {
                        owe_if_told(tx, *recipient, News::Delivered)?;
                    }
                }
            }
            close_if_settled(tx, case)?;
            Ok(touched)
        })
    }
}

/// Is it decided about this recipient, and has its move not begun?
fn is_planned(
    tx: &Transaction<'_>,
    recipient: i64,
    state: RecipientState,
) -> rusqlite::Result<bool> {
    use RecipientState::{Deleting, Releasing};
    if !matches!(state, Releasing | Deleting) {
        return Ok(false);
    }
    tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM move_recipients mr JOIN moves m ON m.id = mr.move_id
         WHERE mr.recipient_id = ?1 AND m.step = 'planned')",
    )?
    .query_row([recipient], |row| row.get(0))
}

pub(super) fn address_of(tx: &Transaction<'_>, recipient: i64) -> rusqlite::Result<String> {
    tx.prepare_cached("SELECT address FROM recipients WHERE id = ?1")?
        .query_row([recipient], |row| row.get(0))
}

/// The page of the case says something else of this recipient from now on: a form of an older page does not send to it.
pub(super) fn mark_changed(tx: &Transaction<'_>, recipient: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE recipients SET changed = 1 + (SELECT max(o.changed) FROM recipients o WHERE o.case_id = recipients.case_id)
         WHERE id = ?1",
    )?
    .execute([recipient])?;
    Ok(())
}

/// What is left of a case.
pub(super) struct Standing {
    /// Does a recipient wait for a decision, or for its execution?
    pub undecided: bool,
    /// Does one wait that is not stuck for TLS?
    waiting: bool,
}

pub(super) fn standing(tx: &Transaction<'_>, case: CaseId) -> rusqlite::Result<Standing> {
    tx.prepare_cached(
        "SELECT ifnull(max(state IN ('open', 'kept', 'releasing', 'deleting')), 0),
                ifnull(max(state = 'not-offered'), 0) FROM recipients WHERE case_id = ?1",
    )?
    .query_row([case], |row| {
        Ok(Standing {
            undecided: row.get(0)?,
            waiting: row.get(1)?,
        })
    })
}

/// Ends a case in which nothing is left to decide or to do, with the reason. While a recipient still waits that is not
/// stuck for TLS it is watched on: it may yet be.
pub(super) fn close_if_settled(tx: &Transaction<'_>, case: CaseId) -> rusqlite::Result<()> {
    let Standing { undecided, waiting } = standing(tx, case)?;
    if undecided {
        return Ok(());
    }
    if waiting {
        tx.prepare_cached("UPDATE cases SET state = 'watched', remind_at = NULL WHERE id = ?1")?
            .execute([case])?;
        return Ok(());
    }
    let closed = tx
        .prepare_cached(
            "UPDATE cases SET state = 'closed', closed_at = ?2, remind_at = NULL, closed_why =
                 (SELECT CASE WHEN count(DISTINCT state) = 1 THEN max(state) ELSE 'mixed' END
                  FROM recipients WHERE case_id = ?1)
             WHERE id = ?1 AND state <> 'closed'",
        )?
        .execute(params![case, now_ms()])?;
    if closed == 1 {
        record(tx, case, "", "closed", "nothing is left to decide")
    } else {
        Ok(())
    }
}
