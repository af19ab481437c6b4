//! What the may instance did with released recipients: the copies that are still under way, and how each recipient
//! ended there. Apart from the journal of moves, which is done with a recipient once the copy is handed over.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::cases::address_of;
use super::consents::end_of_domain;
use super::{Store, StoreError, now_ms, record};
use crate::address::Address;
use crate::case::{CaseId, Passage};
use crate::postfix::QueueId;

/// How long [`Store::hear`] keeps hearings of two kinds apart: until the mover has matched the first one, as a rule.
const APART_MS: i64 = 500;

/// A message in the may instance's queue of which recipients have not ended there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyUnderWay {
    /// Its queue ID in the may instance.
    pub name: QueueId,
    /// The case that it was released from.
    pub case: CaseId,
}

/// A recipient of such a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traveller {
    /// Number in the store.
    pub id: i64,
    /// Address, as in the queue file.
    pub address: Address,
    /// How far it has come.
    pub passage: Option<Passage>,
    /// What was said about that.
    pub detail: Option<String>,
}

/// How a recipient that is marked done in the copy came to be so, as far as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Number in the store.
    pub id: i64,
    /// What became of it.
    pub passage: Passage,
    /// The last reply of the server, when posttls-ear heard one.
    pub reply: String,
}

impl Store {
    /// The copies of which recipients have not ended, the oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub fn copies_under_way(&self) -> Result<Vec<CopyUnderWay>, StoreError> {
        self.read("cannot list what is under way in the may instance", |connection| {
            connection
                .prepare_cached(
                    "SELECT m.copy_name, m.case_id FROM moves m
                     WHERE m.copy_name IS NOT NULL AND m.step IN ('marked', 'requeued')
                     UNION
                     SELECT m.copy_name, m.case_id FROM recipients r
                     CROSS JOIN move_recipients mr ON mr.recipient_id = r.id AND mr.outcome = 'released'
                     CROSS JOIN moves m ON m.id = mr.move_id
                     WHERE r.state = 'released' AND (r.passage IS NULL OR r.passage = 'deferred')
                     AND (r.passage = 'deferred' OR r.passage_at IS NULL) AND m.copy_name IS NOT NULL",
                )?
                .query_map([], |row| Ok(CopyUnderWay { name: row.get(0)?, case: row.get(1)? }))?
                .collect()
        })
    }

    /// The recipients of a copy that have not ended.
    ///
    /// # Errors
    /// When the store fails.
    pub fn travellers(&self, copy: &QueueId) -> Result<Vec<Traveller>, StoreError> {
        self.read("cannot list who is under way in the may instance", |connection| {
            connection
                .prepare_cached(
                    "SELECT r.id, r.address, r.passage, r.passage_detail FROM moves m
                     JOIN move_recipients mr ON mr.move_id = m.id AND mr.outcome = 'released'
                     JOIN recipients r ON r.id = mr.recipient_id
                     WHERE substr(m.copy_name, 6) = substr(?1, 6) AND m.copy_name = ?1
                     AND (r.passage = 'deferred' OR r.passage IS NULL AND r.passage_at IS NULL) ORDER BY r.number",
                )?
                .query_map([copy], |row| {
                    Ok(Traveller { id: row.get(0)?, address: row.get(1)?, passage: row.get(2)?, detail: row.get(3)? })
                })?
                .collect()
        })
    }

    /// Records what became of a recipient of `copy`. What has ended stays as it is. Whether anything changed.
    ///
    /// # Errors
    /// When the store fails.
    pub fn record_passage(
        &self,
        copy: &QueueId,
        recipient: i64,
        passage: Passage,
        detail: &str,
    ) -> Result<bool, StoreError> {
        self.write("cannot record what the may instance did", |tx| {
            set(tx, copy, recipient, passage, detail)
        })
    }

    /// Records that these recipients of `copy` were delivered, with what was heard about it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn record_deliveries(
        &self,
        copy: &QueueId,
        recipients: &[i64],
    ) -> Result<Vec<Arrival>, StoreError> {
        self.write("cannot record what the may instance did", |tx| {
            let heard: Vec<(i64, Passage, String)> = tx
                .prepare_cached(
                    "SELECT id, passage, reply FROM hearings WHERE copy_name = ?1 ORDER BY id",
                )?
                .query_map([copy], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<rusqlite::Result<_>>()?;
            // Which delivery was whose can be told only when it makes no difference.
            let alike = heard.windows(2).all(|pair| pair[0].1 == pair[1].1);
            let mut heard = heard.into_iter();
            let mut arrivals = Vec::new();
            for id in recipients {
                let (passage, reply) = match heard.next() {
                    Some((hearing, passage, reply)) => {
                        tx.prepare_cached("DELETE FROM hearings WHERE id = ?1")?
                            .execute([hearing])?;
                        if alike {
                            (passage, reply)
                        } else {
                            (Passage::Sent, reply)
                        }
                    }
                    None => (Passage::Sent, String::new()),
                };
                if set(tx, copy, *id, passage, &said(passage, &reply))? {
                    arrivals.push(Arrival {
                        id: *id,
                        passage,
                        reply,
                    });
                }
            }
            Ok(arrivals)
        })
    }

    /// How many deliveries of `copy` were heard and not matched with a recipient yet.
    ///
    /// # Errors
    /// When the store fails.
    pub fn unmatched_hearings(&self, copy: &QueueId) -> Result<u64, StoreError> {
        self.read("cannot count what was heard", |connection| {
            connection
                .prepare_cached("SELECT count(*) FROM hearings WHERE copy_name = ?1")?
                .query_row([copy], |row| row.get::<_, i64>(0))
                .map(i64::unsigned_abs)
        })
    }

    /// Records, once, that nobody saw how a recipient of `copy` ended: it is not looked for again.
    ///
    /// # Errors
    /// When the store fails.
    pub fn lose_passage(
        &self,
        copy: &QueueId,
        recipient: i64,
        why: &str,
    ) -> Result<(), StoreError> {
        self.write("cannot record what the may instance did", |tx| {
            let changed = tx
                .prepare_cached(
                    "UPDATE recipients SET passage = NULL, passage_at = ?2, passage_detail = ?3
                     WHERE id = ?1 AND (passage = 'deferred' OR passage IS NULL AND passage_at IS NULL)",
                )?
                .execute(params![recipient, now_ms(), why])?;
            if changed == 1 {
                let detail = format!("{copy}: {why}");
                record(tx, case_of(tx, recipient)?, &address_of(tx, recipient)?, "may-unseen", &detail)?;
            }
            Ok(())
        })
    }

    /// The copy that has this inode number, if it is one of ours and under way: for posttls-ear, which knows no more.
    ///
    /// # Errors
    /// When the store fails.
    pub fn copy_of_inode(&self, inode: u64) -> Result<Option<QueueId>, StoreError> {
        self.read("cannot look a copy up", |connection| {
            connection
                .prepare_cached(
                    "SELECT m.copy_name FROM moves m JOIN move_recipients mr ON mr.move_id = m.id AND mr.outcome = 'released'
                     JOIN recipients r ON r.id = mr.recipient_id
                     WHERE substr(m.copy_name, 6) = ?1 AND m.copy_name IS NOT NULL
                     AND (r.passage = 'deferred' OR r.passage IS NULL AND r.passage_at IS NULL)
                     ORDER BY m.id DESC LIMIT 1",
                )?
                .query_row([format!("{inode:X}")], |row| row.get(0))
                .optional()
        })
    }

    /// Keeps what was heard of a delivery until the mover matches it with a recipient. `false`, and nothing is kept,
    /// while one of another kind waits for that, unless `anyway`: hearings of one kind need no telling apart.
    ///
    /// # Errors
    /// When the store fails.
    pub fn hear(
        &self,
        copy: &QueueId,
        passage: Passage,
        reply: &str,
        anyway: bool,
    ) -> Result<bool, StoreError> {
        self.write("cannot keep what was heard", |tx| {
            let other: bool = tx
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM hearings WHERE copy_name = ?1 AND passage <> ?2 AND heard_at > ?3)")?
                .query_row(params![copy, passage, now_ms() - APART_MS], |row| row.get(0))?;
            if other && !anyway {
                return Ok(false);
            }
            tx.prepare_cached("INSERT INTO hearings (copy_name, passage, reply, heard_at) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![copy, passage, reply, now_ms()])?;
            Ok(true)
        })
    }
}

/// What is recorded of a delivery.
fn said(passage: Passage, reply: &str) -> String {
    match (passage, reply) {
        (Passage::Sent, "") => "delivered; nobody heard whether over TLS".to_owned(),
        (Passage::Sent, reply) => {
            format!("delivered; it can't be told whether over TLS; the server said: {reply}")
        }
        (_, reply) => format!("the server said: {reply}"),
    }
}

fn case_of(tx: &Transaction<'_>, recipient: i64) -> rusqlite::Result<CaseId> {
    tx.prepare_cached("SELECT case_id FROM recipients WHERE id = ?1")?
        .query_row([recipient], |row| row.get(0))
}

/// The name of a passage in a case's history.
fn event(passage: Passage) -> &'static str {
    match passage {
        Passage::Encrypted => "sent-encrypted",
        Passage::Clear => "sent-clear",
        Passage::Sent => "sent",
        Passage::Deferred => "may-deferred",
        Passage::Returned => "may-returned",
        Passage::Removed => "may-removed",
    }
}

fn set(
    tx: &Transaction<'_>,
    copy: &QueueId,
    recipient: i64,
    passage: Passage,
    detail: &str,
) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE recipients SET passage = ?2, passage_at = ?3, passage_detail = ?4
             WHERE id = ?1 AND (passage = 'deferred' AND (?2 <> 'deferred' OR passage_detail IS NOT ?4)
                                OR passage IS NULL AND passage_at IS NULL)",
        )?
        .execute(params![recipient, passage, now_ms(), detail])?;
    if changed == 0 {
        return Ok(false);
    }
    let address = address_of(tx, recipient)?;
    let case = case_of(tx, recipient)?;
    record(
        tx,
        case,
        &address,
        event(passage),
        &format!("{copy}: {detail}"),
    )?;
    if passage == Passage::Encrypted {
        end_of_domain(tx, case, &address)?;
    }
    if passage.is_final() {
        // What was heard twice, after a delivery that Postfix repeated, is of no use to anybody once all have ended.
        tx.prepare_cached(
            "DELETE FROM hearings WHERE copy_name = ?1 AND NOT EXISTS (
                 SELECT 1 FROM moves m JOIN move_recipients mr ON mr.move_id = m.id AND mr.outcome = 'released'
                 JOIN recipients r ON r.id = mr.recipient_id
                 WHERE substr(m.copy_name, 6) = substr(?1, 6) AND m.copy_name = ?1
                 AND (r.passage = 'deferred' OR r.passage IS NULL AND r.passage_at IS NULL))",
        )?
        .execute([copy])?;
    }
    Ok(true)
}
