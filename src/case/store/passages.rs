//! What the may instance did with released recipients: the copies that are still under way, and how each recipient
//! ended there. Apart from the journal of moves, which is done with a recipient once the copy is handed over.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::cases::address_of;
use super::consents::end_of_domain;
use super::news::{forget, owe_or_alert};
use super::{Store, StoreError, now_ms, record};
use crate::address::Address;
use crate::case::{CaseId, News, Passage, alert};
use crate::postfix::QueueId;

/// How long [`Store::hear`] keeps hearings of two kinds apart: until the mover has matched the first one, as a rule.
const APART_MS: i64 = 500;
/// Of a recipient: released, and not ended in the may instance. (One of whom nobody saw the end has a time without a passage.)
pub(super) const UNDER_WAY: &str =
    "(passage = 'deferred' OR passage IS NULL AND passage_at IS NULL)";
/// The recipients that were released with a copy, named `?1`. Its last digits, the inode number, have an index.
const OF_COPY: &str = "moves m
     JOIN move_recipients mr ON mr.move_id = m.id AND mr.outcome = 'released'
     JOIN recipients r ON r.id = mr.recipient_id
     WHERE substr(m.copy_name, 6) = substr(?1, 6) AND m.copy_name = ?1";

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
                .prepare_cached(&format!(
                    "SELECT m.copy_name, m.case_id FROM moves m
                     WHERE m.copy_name IS NOT NULL AND m.step IN ('marked', 'requeued')
                     UNION
                     SELECT m.copy_name, m.case_id FROM recipients r
                     CROSS JOIN move_recipients mr ON mr.recipient_id = r.id AND mr.outcome = 'released'
                     CROSS JOIN moves m ON m.id = mr.move_id
                     WHERE r.state = 'released' AND (r.passage IS NULL OR r.passage = 'deferred')
                     AND {UNDER_WAY} AND m.copy_name IS NOT NULL"
                ))?
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
                .prepare_cached(&format!(
                    "SELECT r.id, r.address, r.passage, r.passage_detail FROM {OF_COPY} AND {UNDER_WAY} ORDER BY r.number"
                ))?
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
            let heard = heard_of(tx, copy)?;
            let alike = are_alike(&heard);
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
                .prepare_cached(&format!(
                    "UPDATE recipients SET passage = NULL, passage_at = ?2, passage_detail = ?3
                     WHERE id = ?1 AND {UNDER_WAY}"
                ))?
                .execute(params![recipient, now_ms(), why])?;
            if changed == 1 {
                let detail = format!("{copy}: {why}");
                record(
                    tx,
                    case_of(tx, recipient)?,
                    &address_of(tx, recipient)?,
                    "may-unseen",
                    &detail,
                )?;
            }
            Ok(())
        })
    }

    /// The copy that has this inode number, if it is one of ours and under way, or has ended unheard: for posttls-ear,
    /// which knows no more.
    ///
    /// # Errors
    /// When the store fails.
    pub fn copy_of_inode(&self, inode: u64) -> Result<Option<QueueId>, StoreError> {
        self.read("cannot look a copy up", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT m.copy_name FROM moves m JOIN move_recipients mr ON mr.move_id = m.id AND mr.outcome = 'released'
                     JOIN recipients r ON r.id = mr.recipient_id
                     WHERE substr(m.copy_name, 6) = ?1 AND m.copy_name IS NOT NULL
                     AND ({UNDER_WAY} OR r.passage = 'sent' AND r.passage_detail = ?2)
                     ORDER BY m.id DESC LIMIT 1"
                ))?
                .query_row(params![format!("{inode:X}"), said(Passage::Sent, "")], |row| row.get(0))
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
            match_late(tx, copy)?;
            Ok(true)
        })
    }
}

/// A delivery that posttls-ear heard of: its number, how it went, and the last reply of the server.
type Hearing = (i64, Passage, String);

fn heard_of(tx: &Transaction<'_>, copy: &QueueId) -> rusqlite::Result<Vec<Hearing>> {
    tx.prepare_cached("SELECT id, passage, reply FROM hearings WHERE copy_name = ?1 ORDER BY id")?
        .query_map([copy], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect()
}

/// Which delivery was whose can be told only when it makes no difference.
fn are_alike(heard: &[Hearing]) -> bool {
    heard.windows(2).all(|pair| pair[0].1 == pair[1].1)
}

/// The mover may have been quicker to see the marks than the ear to say what it heard: both wait for the same store. Then
/// the recipients of whom nobody had heard when they had all ended are told what was heard of them.
fn match_late(tx: &Transaction<'_>, copy: &QueueId) -> rusqlite::Result<()> {
    let unheard: Vec<i64> = tx
        .prepare_cached(&format!(
            "SELECT r.id FROM {OF_COPY} AND r.passage = 'sent' AND r.passage_detail = ?2 ORDER BY r.number"
        ))?
        .query_map(params![copy, said(Passage::Sent, "")], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let heard = heard_of(tx, copy)?;
    let matching = !unheard.is_empty() && heard.len() >= unheard.len() && are_alike(&heard);
    if !matching || are_under_way(tx, copy)? {
        return Ok(());
    }
    for (recipient, (hearing, passage, reply)) in unheard.into_iter().zip(heard) {
        tx.prepare_cached("DELETE FROM hearings WHERE id = ?1")?
            .execute([hearing])?;
        let detail = said(passage, &reply);
        tx.prepare_cached("UPDATE recipients SET passage = ?2, passage_detail = ?3 WHERE id = ?1")?
            .execute(params![recipient, passage, detail])?;
        has_passed(tx, copy, recipient, passage, &detail)?;
    }
    Ok(())
}

/// Have any recipients of `copy` not ended?
fn are_under_way(tx: &Transaction<'_>, copy: &QueueId) -> rusqlite::Result<bool> {
    tx.prepare_cached(&format!(
        "SELECT EXISTS (SELECT 1 FROM {OF_COPY} AND {UNDER_WAY})"
    ))?
    .query_row([copy], |row| row.get(0))
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
    has_passed(tx, copy, recipient, passage, detail)?;
    if passage.is_final() && !are_under_way(tx, copy)? {
        // What was heard twice, after a delivery that Postfix repeated, is of no use to anybody once all have ended.
        tx.prepare_cached("DELETE FROM hearings WHERE copy_name = ?1")?
            .execute([copy])?;
    }
    Ok(true)
}

/// Writes it into the case's history, and draws the conclusion.
fn has_passed(
    tx: &Transaction<'_>,
    copy: &QueueId,
    recipient: i64,
    passage: Passage,
    detail: &str,
) -> rusqlite::Result<()> {
    let address = address_of(tx, recipient)?;
    let case = case_of(tx, recipient)?;
    let detail = format!("{copy}: {detail}");
    record(tx, case, &address, event(passage), &detail)?;
    if passage == Passage::Encrypted {
        end_of_domain(tx, case, &address)?;
    }
    if passage.is_final() {
        forget(tx, recipient, News::Waiting)?;
    }
    if passage == Passage::Returned {
        owe_or_alert(tx, recipient, News::Returned, alert::RETURNED)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{new_case, store};
    use super::*;
    use crate::case::{Action, Actor, Outcome};

    /// A copy that was made for the first `count` recipients of a message, and their numbers.
    fn copy(store: &Store, count: usize) -> (CaseId, QueueId, Vec<i64>) {
        let mut new = new_case("ABCDEF1", 100);
        for recipient in &mut new.recipients {
            recipient.state = crate::case::RecipientState::Open;
            recipient.may_send = true;
        }
        let case = store.admit(&new).unwrap().case;
        let all = store.recipients(case).unwrap().into_iter().take(count);
        let ids: Vec<i64> = all.map(|one| one.id).collect();
        let send: Vec<_> = ids.iter().map(|id| (*id, Action::Send)).collect();
        let decided = store.decide(case, &send, Actor::Link, "::1", None).unwrap();
        let outcomes: Vec<_> = ids.iter().map(|id| (*id, Outcome::Released)).collect();
        let name: QueueId = "12345ABCDEF".parse().unwrap();
        let id = decided.planned.unwrap();
        store
            .begin_move(id, Some(name.as_str()), &outcomes)
            .unwrap();
        let done = store.load_move(id).unwrap().unwrap();
        store.finish_move(&done, "handed over").unwrap();
        (case, name, ids)
    }

    fn passages(store: &Store, case: CaseId, count: usize) -> Vec<Option<Passage>> {
        let all = store.recipients(case).unwrap().into_iter().take(count);
        all.map(|one| one.passage).collect()
    }

    #[test]
    fn what_the_ear_says_late_counts_all_the_same() {
        let (_directory, store) = store();
        let (case, name, ids) = copy(&store, 2);
        let hear = |passage| store.hear(&name, passage, "250 Ok", true).unwrap();
        let inode = 0xAB_CDEF;
        assert_eq!(store.copy_of_inode(inode).unwrap().as_ref(), Some(&name));
        store.record_deliveries(&name, &ids).unwrap();
        assert_eq!(passages(&store, case, 2), [Some(Passage::Sent); 2]);
        assert_eq!(store.copy_of_inode(inode).unwrap().as_ref(), Some(&name));
        // One of the two, and nobody knows which.
        assert!(hear(Passage::Clear));
        assert_eq!(passages(&store, case, 2), [Some(Passage::Sent); 2]);
        assert!(hear(Passage::Clear));
        assert_eq!(passages(&store, case, 2), [Some(Passage::Clear); 2]);
        assert_eq!(store.unmatched_hearings(&name).unwrap(), 0);
        let told = |what: &str| {
            let events = store.events(case).unwrap().into_iter();
            events.filter(|event| event.what == what).count()
        };
        assert_eq!((told("sent"), told("sent-clear")), (2, 2));
        assert_eq!(store.copy_of_inode(inode).unwrap(), None);
    }

    #[test]
    fn what_was_heard_late_of_two_kinds_tells_nobody_apart() {
        let (_directory, store) = store();
        let (case, name, ids) = copy(&store, 2);
        store.record_deliveries(&name, &ids).unwrap();
        store.hear(&name, Passage::Clear, "250 Ok", true).unwrap();
        store
            .hear(&name, Passage::Encrypted, "250 Ok", true)
            .unwrap();
        assert_eq!(passages(&store, case, 2), [Some(Passage::Sent); 2]);
    }

    #[test]
    fn while_one_is_under_way_what_is_heard_may_be_about_that_one() {
        let (_directory, store) = store();
        let (case, name, ids) = copy(&store, 2);
        store.record_deliveries(&name, &ids[..1]).unwrap();
        store.hear(&name, Passage::Clear, "250 Ok", true).unwrap();
        assert_eq!(passages(&store, case, 2), [Some(Passage::Sent), None]);
        store.record_deliveries(&name, &ids[1..]).unwrap();
        let both = [Some(Passage::Sent), Some(Passage::Clear)];
        assert_eq!(passages(&store, case, 2), both);
    }
}
