//! What senders are still to be told, recipient by recipient. Owed within the transaction that makes it true, so that
//! no crash can lose it; the courier pays it.

use rusqlite::{Transaction, params};

use super::now_ms;
use crate::case::News;

/// Owes the sender of the recipient's message some news.
pub(super) fn owe(tx: &Transaction<'_>, recipient: i64, news: News) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO owed (recipient_id, news, sender, since)
         SELECT r.id, ?2, c.sender, ?3 FROM recipients r JOIN cases c ON c.id = r.case_id
         WHERE r.id = ?1 AND c.sender <> '' AND c.asked = 'sender'
         ON CONFLICT DO NOTHING",
    )?
    .execute(params![recipient, news, now_ms()])?;
    Ok(())
}

/// As [`owe`], if the sender has been told of trouble with the message before.
pub(super) fn owe_if_told(
    tx: &Transaction<'_>,
    recipient: i64,
    news: News,
) -> rusqlite::Result<()> {
    let told = tx
        .prepare_cached(
            "SELECT c.notified_at IS NOT NULL FROM recipients r JOIN cases c ON c.id = r.case_id WHERE r.id = ?1",
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
