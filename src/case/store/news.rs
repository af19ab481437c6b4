//! What senders are still to be told, recipient by recipient. Owed within the transaction that makes it true, so that
//! no crash can lose it; the courier pays it.

use rusqlite::{Transaction, params};

use super::cases::written;
use super::people::person;
use super::{CLAIM_LIFE_MS, Store, StoreError, alerts, now_ms, record};
use crate::address::Address;
use crate::case::{CaseId, ConsentId, News, Written};

/// A piece of news that somebody is still to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// The recipient's number.
    pub recipient: i64,
    /// The recipient's case.
    pub case: CaseId,
    /// What.
    pub news: News,
    /// Since when, in Unix milliseconds.
    pub since: i64,
    /// The recipient's address.
    pub address: Address,
    /// What the sender wrote.
    pub written: Written,
    /// The remembered choice behind it.
    pub consent: Option<ConsentId>,
    /// What was said about it in the may instance, after it was released.
    pub said: Option<String>,
}

impl Store {
    /// Senders who are owed anything, in the order of the alphabet. Costs as many steps as there are senders, not rows.
    ///
    /// # Errors
    /// When the store fails.
    pub fn senders_owed(&self) -> Result<Vec<Address>, StoreError> {
        self.read("cannot look for news", |connection| {
            connection
                .prepare_cached(
                    "WITH RECURSIVE one (sender) AS (SELECT min(sender) FROM owed UNION ALL
                     SELECT (SELECT min(sender) FROM owed WHERE sender > one.sender) FROM one WHERE one.sender IS NOT NULL)
                     SELECT sender FROM one WHERE sender IS NOT NULL",
                )?
                .query_map([], |row| row.get(0))?
                .collect()
        })
    }

    /// What a sender is owed, the oldest first. News of a case that a notice announced, and that the sender has not
    /// heard of, are left out while they are younger than `hook_ms` milliseconds: the hook is about to tell them. (What is
    /// from the future was recorded before the clock was set back.) So is that recipients of a case wait, while somebody
    /// writes about that case.
    ///
    /// # Errors
    /// When the store fails.
    pub fn owed_to(&self, sender: &Address, hook_ms: i64) -> Result<Vec<Owed>, StoreError> {
        let now = now_ms();
        self.read("cannot read news", |connection| {
            connection
                .prepare_cached(
                    "SELECT o.recipient_id, r.case_id, o.news, o.since, r.address,
                       (SELECT max(d.consent_id) FROM decisions d WHERE d.recipient_id = r.id AND d.action <> 'keep'),
                       r.passage_detail, r.written, r.unwritten
                     FROM owed o JOIN recipients r ON r.id = o.recipient_id JOIN cases c ON c.id = r.case_id
                     WHERE o.sender = ?1 AND (o.news <> 'stuck' OR abs(o.since - ?2) >= ?4 OR c.source <> 'notice'
                                              OR c.notified_at IS NOT NULL)
                       AND (o.news <> 'stuck' OR NOT EXISTS
                         (SELECT 1 FROM letters l WHERE l.case_id = c.id AND l.sent_at IS NULL AND abs(l.claimed_at - ?2) < ?3))
                     ORDER BY o.since, o.recipient_id",
                )?
                .query_map(params![person(sender), now, CLAIM_LIFE_MS, hook_ms], |row| {
                    Ok(Owed {
                        recipient: row.get(0)?,
                        case: row.get(1)?,
                        news: row.get(2)?,
                        since: row.get(3)?,
                        address: row.get(4)?,
                        consent: row.get(5)?,
                        said: row.get(6)?,
                        written: written(row, 7)?,
                    })
                })?
                .collect()
        })
    }

    /// What the sender is owed about one case, that recipients wait.
    ///
    /// # Errors
    /// When the store fails.
    pub fn owed_about(&self, case: CaseId) -> Result<Vec<(i64, News)>, StoreError> {
        self.read("cannot read news", |connection| {
            connection
                .prepare_cached(
                    "SELECT r.id, o.news FROM recipients r JOIN owed o ON o.recipient_id = r.id AND o.news = 'stuck'
                     WHERE r.case_id = ?1",
                )?
                .query_map([case], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
    }

    /// Gives news up that nobody can or need be told. `why` goes into the histories of their cases, unless it is empty.
    ///
    /// # Errors
    /// When the store fails.
    pub fn drop_news(&self, dropped: &[&Owed], why: &str) -> Result<(), StoreError> {
        self.write("cannot give news up", |tx| {
            for owed in dropped {
                if forget(tx, owed.recipient, owed.news)? && !why.is_empty() {
                    let detail = format!("{}: {why}", owed.news);
                    record(
                        tx,
                        owed.case,
                        owed.address.as_str(),
                        "not-notified",
                        &detail,
                    )?;
                }
            }
            Ok(())
        })
    }
}

/// Owes the sender of the recipient's message some news, if the sender knows of the recipient.
pub(super) fn owe(tx: &Transaction<'_>, recipient: i64, news: News) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO owed (recipient_id, news, sender, since)
         SELECT r.id, ?2, c.person, ?3 FROM recipients r JOIN cases c ON c.id = r.case_id
         WHERE r.id = ?1 AND c.sender <> '' AND c.asked = 'sender' AND NOT r.unwritten
         ON CONFLICT DO NOTHING",
    )?
    .execute(params![recipient, news, now_ms()])?;
    Ok(())
}

/// As [`owe`]; the admin hears of it where the sender is not asked, and so can't be told. Nobody does of mail without a
/// sender: our own mail has none, and a mail about a mail to the admin would be followed by another.
pub(super) fn owe_or_alert(
    tx: &Transaction<'_>,
    recipient: i64,
    news: News,
    cause: &str,
) -> rusqlite::Result<()> {
    let (told, sender, queue_id, address) = tx
        .prepare_cached(
            "SELECT c.asked = 'sender' AND NOT r.unwritten, c.sender, c.queue_id, r.address
             FROM recipients r JOIN cases c ON c.id = r.case_id WHERE r.id = ?1",
        )?
        .query_row([recipient], |row| {
            Ok((
                row.get::<_, bool>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, String>(3)?,
            ))
        })?;
    if told {
        owe(tx, recipient, news)
    } else if sender.is_empty() {
        Ok(())
    } else {
        let detail = format!("{queue_id}: from=<{sender}>, to=<{address}>");
        alerts::raise(tx, cause, &detail)
    }
}

/// As [`owe`], if the sender has been told of trouble with the message before.
pub(super) fn owe_if_told(
    tx: &Transaction<'_>,
    recipient: i64,
    news: News,
) -> rusqlite::Result<()> {
    let told = tx
        .prepare_cached(
            "SELECT c.notified_at IS NOT NULL AND r.failure NOT IN ('not-tls', 'local-fault')
             FROM recipients r JOIN cases c ON c.id = r.case_id WHERE r.id = ?1",
        )?
        .query_row([recipient], |row| row.get(0))?;
    if told {
        owe(tx, recipient, news)
    } else {
        Ok(())
    }
}

/// Forgets news that are no news any more. Whether they were still owed.
pub(super) fn forget(tx: &Transaction<'_>, recipient: i64, news: News) -> rusqlite::Result<bool> {
    tx.prepare_cached("DELETE FROM owed WHERE recipient_id = ?1 AND news = ?2")?
        .execute(params![recipient, news])
        .map(|count| count == 1)
}
