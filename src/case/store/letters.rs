//! Mails to senders: who may write one now, and that it was taken. A row is a claim first, so that two processes never
//! tell a sender the same, and is counted by the ceilings afterwards.

use rusqlite::{Connection, Transaction, params};

use super::people::person;
use super::{Store, StoreError, now_ms, record};
use crate::address::Address;
use crate::case::{CaseId, LetterKind, News};

/// A claim older than this, in milliseconds, is that of a process that died: pipe(8) lets no hook live that long, and no
/// session of the courier takes so long. One that is from as far in the future was made before the clock was set back,
/// and must not keep the sender waiting until the clock is there again.
pub const CLAIM_LIFE_MS: i64 = 150_000;

/// The number of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LetterId(i64);

/// A mail that somebody wants to write.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// To whom.
    pub sender: &'a Address,
    /// The case that it is about; `None` for several.
    pub case: Option<CaseId>,
    /// What it is.
    pub kind: LetterKind,
    /// How far back the caller must know what was written, in milliseconds.
    pub period_ms: i64,
    /// How many mails to anybody in the last hour are too many: nobody counts further.
    pub ceiling: u32,
    /// How long news of a case that a notice announced are left to the hook, in milliseconds.
    pub hook_ms: i64,
}

/// A mail that was sent, or is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastLetter {
    /// What it is.
    pub kind: LetterKind,
    /// Since when, in Unix milliseconds.
    pub at: i64,
}

/// What the rules must know of the past.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Mails to this sender, the oldest first.
    pub to_sender: Vec<PastLetter>,
    /// Mails to anybody in the last hour, as far as they must be counted: below [`Wanted::ceiling`], any number below it.
    pub to_all: u32,
    /// Other messages of this sender that have waited to be told of for longer than the hook needs.
    pub waiting: u32,
}

/// What came of a wish to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterClaim<R> {
    /// Go on: nobody else will write about this until the claim is too old.
    Yours(LetterId),
    /// There is nothing to tell any more.
    NothingOwed,
    /// Another process is writing about this.
    Elsewhere,
    /// The rules say: not now.
    NotNow(R),
}

/// What a mail that was taken has told.
#[derive(Debug, Clone, Default)]
pub struct Receipt {
    /// News that are told now.
    pub paid: Vec<(i64, News)>,
    /// Cases of which the sender knows now that recipients wait, and when the next reminder is due.
    pub told: Vec<(CaseId, Option<i64>)>,
    /// Cases that the sender was reminded of, and when the next reminder is due.
    pub reminded: Vec<(CaseId, Option<i64>)>,
}

const HOUR_MS: i64 = 3_600_000;
/// Rows older than this are counted by nobody: the longest window is a day.
const KEPT_MS: i64 = 25 * HOUR_MS;

impl Store {
    /// Claims the right to write a mail. `rule` is asked with what was written before, in the same transaction.
    ///
    /// # Errors
    /// When the store fails.
    pub fn claim_letter<R>(
        &self,
        wanted: &Wanted<'_>,
        rule: impl FnOnce(&History, i64) -> Result<(), R>,
    ) -> Result<LetterClaim<R>, StoreError> {
        self.write("cannot claim a mail", |tx| {
            let now = now_ms();
            if let Some(case) = wanted.case {
                if wanted.kind == LetterKind::Notification && !owes_stuck(tx, case)? {
                    return Ok(LetterClaim::NothingOwed);
                }
                let busy: bool = tx
                    .prepare_cached(
                        "SELECT EXISTS (SELECT 1 FROM letters WHERE sender = ?1 AND claimed_at > ?2
                         AND claimed_at < ?4 AND sent_at IS NULL AND case_id = ?3)",
                    )?
                    .query_row(
                        params![
                            person(wanted.sender),
                            now - CLAIM_LIFE_MS,
                            case,
                            now + CLAIM_LIFE_MS
                        ],
                        |row| row.get(0),
                    )?;
                if busy {
                    return Ok(LetterClaim::Elsewhere);
                }
            }
            let history = history(tx, wanted, now)?;
            if let Err(not_now) = rule(&history, now) {
                return Ok(LetterClaim::NotNow(not_now));
            }
            tx.prepare_cached(
                "INSERT INTO letters (sender, case_id, kind, claimed_at) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                person(wanted.sender),
                wanted.case,
                wanted.kind,
                now
            ])?;
            Ok(LetterClaim::Yours(LetterId(tx.last_insert_rowid())))
        })
    }

    /// What was written before a mail that somebody wants to write now.
    ///
    /// # Errors
    /// When the store fails.
    pub fn letter_history(&self, wanted: &Wanted<'_>) -> Result<History, StoreError> {
        self.read("cannot read what was mailed", |connection| {
            history(connection, wanted, now_ms())
        })
    }

    /// Gives a claim back, so that the next try need not wait. `why` goes into the history of the case.
    ///
    /// # Errors
    /// When the store fails.
    pub fn withdraw_letter(
        &self,
        letter: LetterId,
        why: Option<(CaseId, &str)>,
    ) -> Result<(), StoreError> {
        self.write("cannot give a claim back", |tx| {
            tx.prepare_cached("DELETE FROM letters WHERE id = ?1")?
                .execute([letter.0])?;
            match why {
                Some((case, why)) => record(tx, case, "", "not-notified", why),
                None => Ok(()),
            }
        })
    }

    /// Records that the sender's mail server took a mail, and what it told. Without waiting for the disk: a power
    /// failure in the next moment costs at most a second mail.
    ///
    /// # Errors
    /// When the store fails.
    pub fn letter_sent(
        &self,
        letter: LetterId,
        to: &Address,
        receipt: &Receipt,
    ) -> Result<(), StoreError> {
        if !self.lazy {
            self.synchronous("NORMAL")?;
        }
        let result = self.write("cannot record a mail", |tx| {
            let now = now_ms();
            tx.prepare_cached("UPDATE letters SET sent_at = ?2 WHERE id = ?1")?
                .execute(params![letter.0, now])?;
            let mut pay = tx.prepare_cached("DELETE FROM owed WHERE recipient_id = ?1 AND news = ?2")?;
            for (recipient, news) in &receipt.paid {
                pay.execute(params![recipient, news])?;
            }
            let mut tell = tx.prepare_cached(
                "UPDATE cases SET notified_at = coalesce(notified_at, ?2), told_at = ?2,
                 remind_at = CASE WHEN state = 'open' THEN ?3 END WHERE id = ?1",
            )?;
            for (case, remind_at) in &receipt.told {
                tell.execute(params![case, now, remind_at])?;
                record(tx, *case, "", "notified", &format!("<{to}>"))?;
            }
            let mut remind = tx.prepare_cached(
                "UPDATE cases SET reminders = reminders + 1, remind_at = CASE WHEN state = 'open' THEN ?2 END WHERE id = ?1",
            )?;
            for (case, remind_at) in &receipt.reminded {
                remind.execute(params![case, remind_at])?;
                record(tx, *case, "", "reminded", &format!("<{to}>"))?;
            }
            Ok(())
        });
        if !self.lazy {
            self.synchronous("FULL")?;
        }
        result
    }

    /// Forgets mails that are counted by nobody any more.
    ///
    /// # Errors
    /// When the store fails.
    pub fn forget_letters(&self) -> Result<(), StoreError> {
        self.write("cannot forget old mails", |tx| {
            tx.prepare_cached("DELETE FROM letters WHERE claimed_at < ?1")?
                .execute([now_ms() - KEPT_MS])
                .map(drop)
        })
    }
}

fn owes_stuck(tx: &Transaction<'_>, case: CaseId) -> rusqlite::Result<bool> {
    tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM recipients r JOIN owed o ON o.recipient_id = r.id AND o.news = 'stuck'
         WHERE r.case_id = ?1)",
    )?
    .query_row([case], |row| row.get(0))
}

fn history(connection: &Connection, wanted: &Wanted<'_>, now: i64) -> rusqlite::Result<History> {
    let (alive, to_come) = (now - CLAIM_LIFE_MS, now + CLAIM_LIFE_MS);
    let to_sender = connection
        .prepare_cached(
            "SELECT kind, claimed_at FROM letters WHERE sender = ?1 AND claimed_at > ?2 AND claimed_at < ?4
             AND (sent_at IS NOT NULL OR claimed_at > ?3) ORDER BY claimed_at",
        )?
        .query_map(
            params![person(wanted.sender), now - wanted.period_ms.max(HOUR_MS), alive, to_come],
            |row| {
                Ok(PastLetter {
                    kind: row.get(0)?,
                    at: row.get(1)?,
                })
            },
        )?
        .collect::<rusqlite::Result<_>>()?;
    let to_all = to_all(connection, wanted.ceiling, now)?;
    // A hundred is as good as any larger number: `limits.first` is at most that.
    let waiting = connection
        .prepare_cached(
            "SELECT count(DISTINCT case_id) FROM (SELECT r.case_id FROM owed o JOIN recipients r ON r.id = o.recipient_id
             WHERE o.sender = ?1 AND o.since <= ?2 AND o.news = 'stuck' AND r.case_id IS NOT ?3 LIMIT 100)",
        )?
        .query_row(params![person(wanted.sender), now - wanted.hook_ms, wanted.case], |row| {
            row.get(0)
        })?;
    Ok(History {
        to_sender,
        to_all,
        waiting,
    })
}

/// [`History::to_all`]. While there are fewer rows than the ceiling allows they are not looked at, one by one: every hook
/// comes here under the write lock, and the others wait for it.
fn to_all(connection: &Connection, ceiling: u32, now: i64) -> rusqlite::Result<u32> {
    // No two rows have the same number. Each subquery is one step in the table; of both in one SQLite would read it all.
    let rows: i64 = connection
        .prepare_cached(
            "SELECT coalesce((SELECT max(id) FROM letters) - (SELECT min(id) FROM letters) + 1, 0)",
        )?
        .query_row([], |row| row.get(0))?;
    let most = u32::try_from(rows).unwrap_or(u32::MAX);
    if most < ceiling {
        return Ok(most);
    }
    connection
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM letters WHERE claimed_at > ?1 AND claimed_at < ?3
             AND (sent_at IS NOT NULL OR claimed_at > ?2) LIMIT ?4)",
        )?
        .query_row(
            params![
                now - HOUR_MS,
                now - CLAIM_LIFE_MS,
                now + CLAIM_LIFE_MS,
                ceiling
            ],
            |row| row.get(0),
        )
}
