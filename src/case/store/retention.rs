//! What is forgotten, and when: closed cases lose what names a person, and what serves no case any more goes whole.
//!
//! What remains of a case answers how many, to which domains, why, how they ended and when; nobody's name is needed for
//! that. Work is done in batches, so that no click waits for it.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::{Store, StoreError, now_ms};
use crate::address::Address;
use crate::case::{CaseId, USUAL_LIFETIME};
use crate::domain::Domain;

/// Rows of one kind that one transaction takes.
const BATCH: i64 = 50;

const DAY_MS: i64 = 86_400_000;

/// What one batch has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Cases that have lost their personal data.
    pub cases: usize,
    /// Rows that are gone: odd notices, ended remembered choices, mails sent, alerts told.
    pub rows: usize,
    /// Is there more to do?
    pub more: bool,
}

impl Store {
    /// Removes some of what is older than `days` days: of cases that were closed before that, and whose links, which
    /// outlive the message by `valid_days` days, have expired.
    ///
    /// # Errors
    /// When the store fails; then nothing of this batch was removed.
    pub fn forget_old(&self, days: u16, valid_days: u16) -> Result<Forgotten, StoreError> {
        let now = now_ms();
        let before = now - i64::from(days) * DAY_MS;
        let links = now / 1000 - i64::from(valid_days) * 86_400;
        self.write("cannot remove old personal data", |tx| {
            let old: Vec<(CaseId, String)> = tx
                .prepare_cached(
                    "SELECT id, person FROM cases WHERE closed_at < ?1 AND redacted_at IS NULL AND state = 'closed'
                     AND coalesce(retry_until, arrival + ?2) < ?3 ORDER BY closed_at LIMIT ?4",
                )?
                .query_map(params![before, USUAL_LIFETIME, links, BATCH], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?
                .collect::<rusqlite::Result<_>>()?;
            for (case, person) in &old {
                redact(tx, *case, person, now)?;
            }
            let mut done = Forgotten {
                cases: old.len(),
                rows: 0,
                more: old.len() as i64 == BATCH,
            };
            for sql in [
                "DELETE FROM odd_notices WHERE id IN (SELECT id FROM odd_notices WHERE at < ?1 LIMIT ?2)",
                "UPDATE decisions SET consent_id = NULL WHERE consent_id IN
                     (SELECT id FROM consents WHERE min(coalesce(ended_at, expires_at), expires_at) < ?1
                      ORDER BY id LIMIT ?2)",
                "DELETE FROM consents WHERE id IN
                     (SELECT id FROM consents WHERE min(coalesce(ended_at, expires_at), expires_at) < ?1
                      ORDER BY id LIMIT ?2)",
                "DELETE FROM letters WHERE id IN (SELECT id FROM letters WHERE claimed_at < ?1 LIMIT ?2)",
                "DELETE FROM alerts WHERE cause IN
                     (SELECT cause FROM alerts WHERE since < ?1 AND coalesce(told_at, 0) < ?1 LIMIT ?2)",
                "DELETE FROM handshakes WHERE (domain, sender) IN
                     (SELECT domain, sender FROM handshakes WHERE last_at < ?1 LIMIT ?2)",
                "UPDATE events SET recipient = '', detail = '' WHERE id IN
                     (SELECT id FROM events WHERE case_id IS NULL AND at < ?1 AND (recipient <> '' OR detail <> '')
                      LIMIT ?2)",
            ] {
                let count = tx.prepare_cached(sql)?.execute(params![before, BATCH])?;
                done.more |= count as i64 == BATCH;
                if sql.starts_with("DELETE") {
                    done.rows += count;
                }
            }
            Ok(done)
        })
    }

    /// Empties the write-ahead log into the database, as far as readers let it: what was removed is still in there.
    ///
    /// # Errors
    /// When the store fails.
    pub fn empty_log(&self) -> Result<(), StoreError> {
        self.read("cannot empty the write-ahead log", |connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })
    }
}

/// Takes from a case what names a person.
fn redact(tx: &Transaction<'_>, case: CaseId, person: &str, now: i64) -> rusqlite::Result<()> {
    fill_domains(tx, case)?;
    // Two steps, and no name that somebody could have chosen in between: addresses are unique within a case.
    for sql in [
        "UPDATE recipients SET address = hex(randomblob(16)) || '-' || id, detail = '', passage_detail = NULL, written = ''
         WHERE case_id = ?1",
        "UPDATE recipients SET address = 'redacted-' || number WHERE case_id = ?1",
        "UPDATE decisions SET client = '' WHERE recipient_id IN (SELECT id FROM recipients WHERE case_id = ?1)",
        "DELETE FROM owed WHERE recipient_id IN (SELECT id FROM recipients WHERE case_id = ?1)",
        "UPDATE events SET recipient = '', detail = '' WHERE case_id = ?1",
        "UPDATE letters SET sender = 'redacted' WHERE case_id = ?1",
    ] {
        tx.prepare_cached(sql)?.execute([case])?;
    }
    // That there was none says nothing about anybody.
    tx.prepare_cached(
        "UPDATE cases SET sender = CASE WHEN sender = '' THEN '' ELSE 'redacted-' || id END, person = CASE WHEN sender = '' THEN '' ELSE 'redacted-' || id END,
         subject = '', message_id = NULL, remind_at = NULL, redacted_at = ?2 WHERE id = ?1",
    )?
    .execute(params![case, now])?;
    let other = tx
        .prepare_cached("SELECT 1 FROM cases WHERE person = ?1 LIMIT 1")?
        .query_row([person], |_| Ok(()))
        .optional()?;
    if other.is_none() {
        tx.prepare_cached("DELETE FROM senders WHERE address = ?1")?
            .execute([person])?;
    }
    Ok(())
}

/// Domains stay, for the counts; rows from before there was a column for them have none yet.
fn fill_domains(tx: &Transaction<'_>, case: CaseId) -> rusqlite::Result<()> {
    let without: Vec<(i64, Address)> = tx
        .prepare_cached("SELECT id, address FROM recipients WHERE case_id = ?1 AND domain = ''")?
        .query_map([case], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (id, address) in without {
        if let Some(domain) = Domain::of(&address) {
            tx.prepare_cached("UPDATE recipients SET domain = ?2 WHERE id = ?1")?
                .execute(params![id, domain])?;
        }
    }
    Ok(())
}
