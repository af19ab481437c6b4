//! Remembered choices: given by senders, in force for a time, used by the policy, ended by whoever may.

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::people::person;
use super::remember::grant;
use super::{Store, StoreError, now_ms, record};
use crate::address::Address;
use crate::case::{CaseId, ConsentId, Failure, Scope};
use crate::domain::Domain;

/// A choice about to be remembered.
#[derive(Debug, Clone)]
pub struct NewConsent {
    /// Whose choice.
    pub sender: Address,
    /// One recipient, or a domain?
    pub scope: Scope,
    /// The recipient's address, or the domain in ASCII form.
    pub target: String,
    /// The failures that it was given for.
    pub failures: Vec<Failure>,
    /// The address that it was given from.
    pub client: String,
    /// Until when, in Unix milliseconds.
    pub expires_at: i64,
}

/// A remembered choice.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Consent {
    /// Its number.
    pub id: ConsentId,
    /// Whose choice.
    pub sender: Address,
    /// One recipient, or a domain?
    pub scope: Scope,
    /// The recipient's address, or the domain in ASCII form.
    pub target: String,
    /// The failures that it was given for.
    pub failures: Vec<Failure>,
    /// The address that it was given from.
    pub client: String,
    /// Since when, in Unix milliseconds.
    pub granted_at: i64,
    /// Until when, in Unix milliseconds.
    pub expires_at: i64,
    /// When it ended before that, in Unix milliseconds.
    pub ended_at: Option<i64>,
    /// Why it did.
    pub ended_why: Option<String>,
    /// How often it was used.
    pub uses: i64,
    /// When it was last used, in Unix milliseconds.
    pub used_at: Option<i64>,
}

impl Consent {
    /// Does it hold at this moment, in Unix milliseconds?
    pub fn is_in_force(&self, now: i64) -> bool {
        self.ended_at.is_none() && self.expires_at > now
    }
}

const COLUMNS: &str = "id, sender, scope, target, failures, client, granted_at, expires_at, ended_at, ended_why, uses, used_at";

fn consent_of(row: &Row<'_>) -> rusqlite::Result<Consent> {
    let failures: String = row.get(4)?;
    Ok(Consent {
        id: row.get(0)?,
        sender: row.get(1)?,
        scope: row.get(2)?,
        target: row.get(3)?,
        failures: failures
            .split(' ')
            .filter_map(|name| name.parse().ok())
            .collect(),
        client: row.get(5)?,
        granted_at: row.get(6)?,
        expires_at: row.get(7)?,
        ended_at: row.get(8)?,
        ended_why: row.get(9)?,
        uses: row.get(10)?,
        used_at: row.get(11)?,
    })
}

impl Store {
    /// Remembers a choice; the same one given again is extended.
    ///
    /// # Errors
    /// When the store fails.
    pub fn add_consent(&self, new: &NewConsent) -> Result<ConsentId, StoreError> {
        self.write("cannot remember a choice", |tx| {
            grant(tx, new).map(|granted| granted.id)
        })
    }

    /// The choice in force by which `sender` wants mail for `recipient` sent when it fails with `failure`.
    ///
    /// # Errors
    /// When the store fails.
    pub fn consent_for(
        &self,
        sender: &Address,
        recipient: &Address,
        failure: Failure,
    ) -> Result<Option<ConsentId>, StoreError> {
        let domain = Domain::of(recipient);
        self.read("cannot look a remembered choice up", |connection| {
            connection
                .prepare_cached(
                    "SELECT id FROM consents WHERE sender = ?1 AND ended_at IS NULL AND expires_at > ?5
                     AND (scope = 'recipient' AND target = ?2 OR scope = 'domain' AND target = ?3)
                     AND ' ' || failures || ' ' LIKE '% ' || ?4 || ' %' ORDER BY expires_at DESC LIMIT 1",
                )?
                .query_row(
                    params![
                        person(sender),
                        Domain::canonical(recipient),
                        domain.as_ref().map_or("", Domain::as_str),
                        failure,
                        now_ms()
                    ],
                    |row| row.get(0),
                )
                .optional()
        })
    }

    /// A remembered choice, ended or not.
    ///
    /// # Errors
    /// When the store fails.
    pub fn consent(&self, id: ConsentId) -> Result<Option<Consent>, StoreError> {
        self.read("cannot read a remembered choice", |connection| {
            connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM consents WHERE id = ?1"))?
                .query_row([id], consent_of)
                .optional()
        })
    }

    /// The remembered choices in force, or all there ever were; the newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub fn consents(&self, all: bool) -> Result<Vec<Consent>, StoreError> {
        self.read("cannot list remembered choices", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM consents WHERE ?1 OR ended_at IS NULL AND expires_at > ?2
                     ORDER BY granted_at DESC, id"
                ))?
                .query_map(params![all, now_ms()], consent_of)?
                .collect()
        })
    }

    /// Ends a choice. Whether it was in force.
    ///
    /// # Errors
    /// When the store fails.
    pub fn end_consent(&self, id: ConsentId, why: &str) -> Result<bool, StoreError> {
        self.write("cannot end a remembered choice", |tx| {
            tx.execute(
                "UPDATE consents SET ended_at = ?2, ended_why = ?3
                 WHERE id = ?1 AND ended_at IS NULL AND expires_at > ?2",
                params![id, now_ms(), why],
            )
            .map(|count| count == 1)
        })
    }
}

/// Does a choice hold now? Within the transaction that is about to use it.
pub(super) fn is_in_force(tx: &Transaction<'_>, id: ConsentId) -> rusqlite::Result<bool> {
    tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM consents WHERE id = ?1 AND ended_at IS NULL AND expires_at > ?2)",
    )?
    .query_row(params![id, now_ms()], |row| row.get(0))
}

/// Counts a decision that a choice has made, within its transaction.
pub(super) fn count_use(tx: &Transaction<'_>, id: ConsentId) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE consents SET uses = uses + 1, used_at = ?2 WHERE id = ?1")?
        .execute(params![id, now_ms()])?;
    Ok(())
}

/// Ends the choices in force about the domain of `address`, or about an address in it: mail to it was just delivered
/// over TLS, so their ground is gone. Recorded with the case of that mail.
pub(super) fn end_of_domain(
    tx: &Transaction<'_>,
    case: CaseId,
    address: &str,
) -> rusqlite::Result<()> {
    let domain_of = |address: &str| Domain::of(&address.parse().ok()?);
    let Some(domain) = domain_of(address) else {
        return Ok(());
    };
    let in_force: Vec<(ConsentId, Address, Scope, String)> = tx
        .prepare_cached(
            "SELECT id, sender, scope, target FROM consents WHERE ended_at IS NULL AND expires_at > ?1",
        )?
        .query_map([now_ms()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (id, sender, scope, target) in in_force {
        let concerned = match scope {
            Scope::Domain => target == domain.as_str(),
            Scope::Recipient => domain_of(&target).as_ref() == Some(&domain),
        };
        if concerned {
            let why = format!("mail to {domain} was delivered over TLS");
            tx.prepare_cached("UPDATE consents SET ended_at = ?2, ended_why = ?3 WHERE id = ?1")?
                .execute(params![id, now_ms(), why])?;
            let detail = format!("the choice of <{sender}> about {target}: {why}");
            record(tx, case, address, "consent-ended", &detail)?;
        }
    }
    Ok(())
}
