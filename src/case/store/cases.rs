//! Cases and recipients: opened by the hook, read by everyone.

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::{Store, StoreError, now_ms, record};
use crate::address::Address;
use crate::case::{Case, CaseId, CaseState, Failure, MessageKey, Recipient, RecipientState};
use crate::postfix::QueueId;

/// A case about to be opened.
#[derive(Debug, Clone)]
pub struct NewCase {
    /// The message.
    pub key: MessageKey,
    /// Decoded subject.
    pub subject: String,
    /// `Message-ID` of the original.
    pub message_id: Option<String>,
    /// Until when Postfix keeps trying, in Unix seconds.
    pub retry_until: Option<i64>,
    /// The deferred recipients, in the order of the notice.
    pub recipients: Vec<NewRecipient>,
}

/// A recipient of a case about to be opened.
#[derive(Debug, Clone)]
pub struct NewRecipient {
    /// Address, as in the queue file.
    pub address: Address,
    /// Why it is stuck.
    pub failure: Failure,
    /// Status code.
    pub status: String,
    /// What Postfix or the remote server said.
    pub detail: String,
    /// May it go unencrypted?
    pub may_send: bool,
    /// The state to start in.
    pub state: RecipientState,
}

/// Who may send the notification of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The caller: nobody has, and nobody else will until the claim is too old.
    Yours,
    /// Nobody: it was sent.
    Sent,
    /// Another process is at it.
    Elsewhere,
}

const CASE_COLUMNS: &str = "id, queue_id, sender, arrival, subject, message_id, retry_until, state, opened_at, notified_at";

fn case_of(row: &Row<'_>) -> rusqlite::Result<Case> {
    let sender: String = row.get(2)?;
    Ok(Case {
        id: row.get(0)?,
        key: MessageKey {
            queue_id: row.get(1)?,
            sender: sender.parse().ok(),
            arrival: row.get(3)?,
        },
        subject: row.get(4)?,
        message_id: row.get(5)?,
        retry_until: row.get(6)?,
        state: row.get(7)?,
        opened_at: row.get(8)?,
        notified_at: row.get(9)?,
    })
}

fn sender_column(key: &MessageKey) -> &str {
    key.sender.as_ref().map_or("", Address::as_str)
}

impl Store {
    /// Opens a case, or finds the one that a first copy of the same notice has opened. One case a message, ever.
    ///
    /// # Errors
    /// When the store fails.
    pub fn open_case(&self, new: &NewCase) -> Result<CaseId, StoreError> {
        self.write("cannot record a case", |tx| {
            let key = &new.key;
            let known = tx
                .prepare_cached("SELECT id FROM cases WHERE queue_id = ?1 AND arrival = ?2 AND sender = ?3")?
                .query_row(params![key.queue_id, key.arrival, sender_column(key)], |row| row.get(0))
                .optional()?;
            if let Some(id) = known {
                return Ok(id);
            }
            let open = new.recipients.iter().any(|recipient| recipient.state.is_open());
            let state = if open { CaseState::Open } else { CaseState::Watched };
            tx.prepare_cached(
                "INSERT INTO cases (id, queue_id, sender, arrival, subject, message_id, retry_until, state, opened_at)
                 VALUES (abs(random() / 2), ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                key.queue_id,
                sender_column(key),
                key.arrival,
                new.subject,
                new.message_id,
                new.retry_until,
                state,
                now_ms()
            ])?;
            let id = CaseId(tx.last_insert_rowid());
            let mut insert = tx.prepare_cached(
                "INSERT INTO recipients (case_id, number, address, failure, status, detail, may_send, state)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (case_id, address) DO NOTHING",
            )?;
            for (number, recipient) in (1i64..).zip(&new.recipients) {
                insert.execute(params![
                    id,
                    number,
                    recipient.address,
                    recipient.failure,
                    recipient.status,
                    recipient.detail,
                    recipient.may_send,
                    recipient.state
                ])?;
            }
            record(tx, id, "", "opened", &format!("{} recipients deferred, state {state}", new.recipients.len()))?;
            Ok(id)
        })
    }

    /// Claims the right to send the notification of `case`. A claim older than `stale_ms` milliseconds is taken for
    /// that of a process that died.
    ///
    /// # Errors
    /// When the store fails.
    pub fn claim_notification(&self, case: CaseId, stale_ms: i64) -> Result<Claim, StoreError> {
        self.write("cannot claim a notification", |tx| {
            let now = now_ms();
            let claimed = tx.prepare_cached(
                "UPDATE cases SET claimed_at = ?2 WHERE id = ?1 AND notified_at IS NULL AND (claimed_at IS NULL OR claimed_at < ?3)",
            )?.execute(params![case, now, now - stale_ms])?;
            if claimed == 1 {
                return Ok(Claim::Yours);
            }
            let sent = tx.query_row("SELECT notified_at IS NOT NULL FROM cases WHERE id = ?1", [case], |row| row.get(0))?;
            Ok(if sent { Claim::Sent } else { Claim::Elsewhere })
        })
    }

    /// Gives a claim back after the notification could not be sent, so that the next try need not wait.
    ///
    /// # Errors
    /// When the store fails.
    pub fn release_claim(&self, case: CaseId, why: &str) -> Result<(), StoreError> {
        self.write("cannot give a claim back", |tx| {
            tx.execute("UPDATE cases SET claimed_at = NULL WHERE id = ?1", [case])?;
            record(tx, case, "", "not-notified", why)
        })
    }

    /// Records that the sender's mail server took the notification. Without waiting for the disk: a power failure
    /// in the next moment costs at most a second notification.
    ///
    /// # Errors
    /// When the store fails.
    pub fn mark_notified(&self, case: CaseId, to: &Address) -> Result<(), StoreError> {
        self.read("cannot relax synchronous", |connection| {
            connection.pragma_update(None, "synchronous", "NORMAL")
        })?;
        let result = self.write("cannot record a notification", |tx| {
            tx.execute(
                "UPDATE cases SET notified_at = ?2, claimed_at = NULL WHERE id = ?1",
                params![case, now_ms()],
            )?;
            record(tx, case, "", "notified", &format!("<{to}>"))
        });
        self.read("cannot restore synchronous", |connection| {
            connection.pragma_update(None, "synchronous", "FULL")
        })?;
        result
    }

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
            connection
                .prepare(&format!(
                    "SELECT {CASE_COLUMNS} FROM cases WHERE ?1 IS NULL OR state = ?1 ORDER BY opened_at, id"
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
                    "SELECT id, number, address, failure, status, detail, may_send, state
                     FROM recipients WHERE case_id = ?1 ORDER BY number",
                )?
                .query_map([case], |row| {
                    Ok(Recipient {
                        id: row.get(0)?,
                        number: row.get(1)?,
                        address: row.get(2)?,
                        failure: row.get(3)?,
                        status: row.get(4)?,
                        detail: row.get(5)?,
                        may_send: row.get(6)?,
                        state: row.get(7)?,
                    })
                })?
                .collect()
        })
    }

    /// Records what was seen in the queue: recipients that wait for no decision any more. Only recipients that are
    /// still open are touched, so that a decision made at the same moment stands.
    ///
    /// # Errors
    /// When the store fails.
    pub fn settle(&self, case: CaseId, seen: &[(i64, RecipientState)]) -> Result<(), StoreError> {
        self.write("cannot record what was seen in the queue", |tx| {
            for (recipient, state) in seen {
                let changed = tx.execute(
                    "UPDATE recipients SET state = ?2 WHERE id = ?1 AND state IN ('open', 'kept')",
                    params![recipient, state],
                )?;
                if changed == 1 {
                    record(
                        tx,
                        case,
                        &address_of(tx, *recipient)?,
                        state.as_str(),
                        "seen in the queue",
                    )?;
                }
            }
            close_if_settled(tx, case)
        })
    }
}

pub(super) fn address_of(tx: &Transaction<'_>, recipient: i64) -> rusqlite::Result<String> {
    tx.prepare_cached("SELECT address FROM recipients WHERE id = ?1")?
        .query_row([recipient], |row| row.get(0))
}

/// Closes a case in which nothing is left to decide or to do.
pub(super) fn close_if_settled(tx: &Transaction<'_>, case: CaseId) -> rusqlite::Result<()> {
    let closed = tx.execute(
        "UPDATE cases SET state = 'closed' WHERE id = ?1 AND state = 'open' AND NOT EXISTS
         (SELECT 1 FROM recipients WHERE case_id = ?1 AND state IN ('open', 'kept', 'releasing', 'deleting'))",
        [case],
    )?;
    if closed == 1 {
        record(tx, case, "", "closed", "nothing is left to decide")
    } else {
        Ok(())
    }
}
