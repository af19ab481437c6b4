//! Domains that must be reached over TLS: who listed them, when, and what that does to mail that waits already.
//!
//! Listing a domain ends the choice of everybody who has one for it, in the same transaction: whoever clicks at that
//! moment was either first, and then that stands, or finds it decided.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::decisions::{By, decide};
use super::{Store, StoreError, now_ms, record};
use crate::address::Address;
use crate::case::{Action, Actor, Asked, CaseId, Failure, RecipientState};
use crate::domain::Domain;
use crate::postfix::QueueId;

/// A listed domain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MandatoryDomain {
    /// The domain; those below it are included.
    pub domain: Domain,
    /// Since when, in Unix milliseconds.
    pub added_at: i64,
    /// By whom.
    pub added_by: String,
    /// Until when, in Unix milliseconds; `None`: it is listed now.
    pub removed_at: Option<i64>,
    /// Who took it off the list.
    pub removed_by: Option<String>,
}

/// What listing a domain did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Whether the domain was not listed before.
    pub is_new: bool,
    /// The recipients within it that waited or were about to be sent.
    pub affected: Vec<Affected>,
}

/// A recipient within a domain that was listed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Affected {
    /// The message.
    pub queue_id: QueueId,
    /// The recipient's address.
    pub recipient: Address,
    /// What came of it.
    pub effect: Effect,
}

/// What listing its domain does to a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It is deleted, and its sender will be told.
    Deleted,
    /// It waits on, and may not go unencrypted any more: its sender is not asked.
    Barred,
    /// It was decided before to be sent, and that stands.
    DecidedBefore,
}

const COLUMNS: &str = "domain, added_at, added_by, removed_at, removed_by";

fn row(row: &Row<'_>) -> rusqlite::Result<MandatoryDomain> {
    Ok(MandatoryDomain {
        domain: row.get(0)?,
        added_at: row.get(1)?,
        added_by: row.get(2)?,
        removed_at: row.get(3)?,
        removed_by: row.get(4)?,
    })
}

impl Store {
    /// Lists a domain, and ends the choices that are open for recipients within it: those whose senders are asked are
    /// deleted, the others may not go unencrypted any more.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub fn add_mandatory(&self, domain: &Domain, by: &str) -> Result<Listing, StoreError> {
        self.write("cannot list a mandatory domain", |tx| {
            let added = tx.execute(
                "INSERT INTO mandatory_domains (domain, added_at, added_by) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO NOTHING",
                params![domain, now_ms(), by],
            )?;
            Ok(Listing {
                is_new: added == 1,
                affected: enforce(tx, domain, by)?,
            })
        })
    }

    /// Takes a domain off the list. Whether it was on it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn remove_mandatory(&self, domain: &Domain, by: &str) -> Result<bool, StoreError> {
        self.write("cannot take a mandatory domain off the list", |tx| {
            tx.execute(
                "UPDATE mandatory_domains SET removed_at = ?2, removed_by = ?3
                 WHERE domain = ?1 AND removed_at IS NULL",
                params![domain, now_ms(), by],
            )
            .map(|count| count == 1)
        })
    }

    /// The list, in alphabetical order.
    ///
    /// # Errors
    /// When the store fails.
    pub fn mandatory_domains(&self) -> Result<Vec<MandatoryDomain>, StoreError> {
        self.mandatory_list(false)
    }

    /// The list with what was taken off it, in alphabetical order, the oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub fn mandatory_history(&self) -> Result<Vec<MandatoryDomain>, StoreError> {
        self.mandatory_list(true)
    }

    fn mandatory_list(&self, all: bool) -> Result<Vec<MandatoryDomain>, StoreError> {
        self.read("cannot read the mandatory domains", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM mandatory_domains WHERE ?1 OR removed_at IS NULL ORDER BY domain, id"
                ))?
                .query_map([all], row)?
                .collect()
        })
    }

    /// The listed domain that `domain` is within: itself, or the nearest one above it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn mandatory_for(&self, domain: &Domain) -> Result<Option<Domain>, StoreError> {
        self.read("cannot look a mandatory domain up", |connection| {
            nearest_listed(connection, domain)
        })
    }
}

/// [`Store::mandatory_for`], on a connection or within a transaction.
pub(super) fn nearest_listed(
    connection: &Connection,
    domain: &Domain,
) -> rusqlite::Result<Option<Domain>> {
    let mut statement = connection.prepare_cached(
        "SELECT domain FROM mandatory_domains WHERE domain = ?1 AND removed_at IS NULL",
    )?;
    for name in domain.and_parents() {
        let found = statement.query_row([name], |row| row.get(0)).optional()?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// A recipient that waits, or is about to be sent.
struct Waiting {
    case: CaseId,
    asked: Asked,
    queue_id: QueueId,
    recipient: i64,
    address: Address,
    state: RecipientState,
    failure: Failure,
}

fn enforce(tx: &Transaction<'_>, domain: &Domain, by: &str) -> rusqlite::Result<Vec<Affected>> {
    let waiting: Vec<Waiting> = tx
        .prepare(
            "SELECT c.id, iif(r.unwritten, 'nobody', c.asked), c.queue_id, r.id, r.address, r.state, r.failure FROM cases c JOIN recipients r ON r.case_id = c.id
             WHERE c.state = 'open' AND r.state IN ('open', 'kept', 'releasing') ORDER BY c.opened_at, c.id, r.number",
        )?
        .query_map([], |row| {
            Ok(Waiting {
                case: row.get(0)?,
                asked: row.get(1)?,
                queue_id: row.get(2)?,
                recipient: row.get(3)?,
                address: row.get(4)?,
                state: row.get(5)?,
                failure: row.get(6)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut deletions: BTreeMap<CaseId, Vec<(i64, Action)>> = BTreeMap::new();
    let mut affected = Vec::new();
    for one in waiting {
        if !Domain::nearest(&one.address).is_some_and(|of| of.is_within(domain)) {
            continue;
        }
        let effect = match (one.state, one.asked) {
            (RecipientState::Releasing, _) => Effect::DecidedBefore,
            // It may be ours to mend; as soon as it is judged, it is judged by the list, too.
            (_, Asked::Sender) if one.failure == Failure::Unjudged => Effect::Barred,
            (_, Asked::Sender) => Effect::Deleted,
            (_, Asked::Nobody) => Effect::Barred,
        };
        if effect != Effect::DecidedBefore {
            let barred = tx
                .prepare_cached(
                    "UPDATE recipients SET may_send = 0 WHERE id = ?1 AND may_send <> 0",
                )?
                .execute([one.recipient])?;
            if barred == 1 {
                let detail = format!("{domain} must be reached over TLS, listed by {by}");
                record(tx, one.case, one.address.as_str(), "barred", &detail)?;
            }
        }
        if effect == Effect::Deleted {
            let deletion = (one.recipient, Action::Delete);
            deletions.entry(one.case).or_default().push(deletion);
        }
        affected.push(Affected {
            queue_id: one.queue_id,
            recipient: one.address,
            effect,
        });
    }
    for (case, deletions) in deletions {
        let by = By::plain(Actor::Mandatory, by);
        decide(tx, case, &deletions, &by)?;
    }
    Ok(affected)
}
