//! All that waits for the decision of one sender: counted, shown page by page, and decided in bulk.
//!
//! A sender may have thousands of stuck messages. So nothing here reads them all into memory, and deciding about all
//! takes the write lock for a few hundred recipients at a time, so that no hook has to wait long.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::cases::{CASE_COLUMNS, case_of};
use super::decisions::{By, Decided, decide};
use super::moves::MoveId;
use super::people::person;
use super::{Store, StoreError};
use crate::address::Address;
use crate::case::{Action, Actor, Case, CaseId, Outcome};
use crate::domain::Domain;
use crate::postfix::QueueId;

/// Recipients decided in one transaction; the last message of it may exceed that.
const BATCH_RECIPIENTS: usize = 300;

/// Which cases are a sender's: open, and asked about. Parameter 1 is the sender.
const OWN: &str = "c.person = ?1 AND c.state = 'open' AND c.asked = 'sender'";

/// Which recipients of these wait for the sender, who is to see only what the sender wrote.
const WAITS: &str = "r.state IN ('open', 'kept') AND NOT r.unwritten";

/// What waits for a sender, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxSummary {
    /// Messages of which a recipient waits.
    pub messages: u64,
    /// Recipients that wait.
    pub recipients: u64,
    /// Those of them that may be sent to unencrypted.
    pub sendable: u64,
    /// Different domains of them.
    pub domains: u64,
    /// Since when the last of them is known to be stuck, in Unix milliseconds.
    pub latest: i64,
}

/// A decision about all that waits for a sender, or about a domain of it.
#[derive(Debug, Clone)]
pub struct Bulk<'a> {
    /// Whose messages.
    pub sender: &'a Address,
    /// What to do.
    pub action: Action,
    /// Only with recipients of this domain.
    pub domain: Option<&'a Domain>,
    /// Only with recipients that were stuck by then, in Unix milliseconds.
    pub seen: i64,
    /// The address that the decision came from.
    pub client: &'a str,
}

/// Where a decision in bulk has come to: arrival time and number of the last case of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkMark(i64, i64);

impl BulkMark {
    /// Before the first case.
    pub const START: Self = Self(i64::MIN, i64::MIN);
}

/// A decision for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkDecided {
    /// The case.
    pub case: CaseId,
    /// Queue ID of its message.
    pub queue_id: QueueId,
    /// The recipient's number in the store.
    pub recipient: i64,
    /// Its address.
    pub address: Address,
    /// What can be said already.
    pub outcome: Outcome,
    /// The move that will tell.
    pub planned: Option<MoveId>,
    /// Was anything recorded? What stands already is not recorded again.
    pub changed: bool,
}

/// Choices for recipients of one case.
#[derive(Debug, Clone)]
pub struct CaseChoices {
    /// The case.
    pub case: Case,
    /// Recipients (their numbers in the store, and addresses), each with what to do.
    pub choices: Vec<(i64, Address, Action)>,
    /// Up to which change of the case the page knew: see [`Store::decide`].
    pub seen: i64,
}

impl Store {
    /// Counts what waits for a sender.
    ///
    /// # Errors
    /// When the store fails.
    pub fn inbox_summary(&self, sender: &Address) -> Result<InboxSummary, StoreError> {
        self.read("cannot count a sender's messages", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT count(DISTINCT c.id), count(*), ifnull(sum(r.may_send), 0), count(DISTINCT r.domain),
                            ifnull(max(coalesce(r.stuck_at, c.opened_at)), 0)
                     FROM cases c CROSS JOIN recipients r ON r.case_id = c.id
                     WHERE {OWN} AND {WAITS}"
                ))?
                .query_row([person(sender)], |row| {
                    Ok(InboxSummary {
                        messages: count(row, 0)?,
                        recipients: count(row, 1)?,
                        sendable: count(row, 2)?,
                        domains: count(row, 3)?,
                        latest: row.get(4)?,
                    })
                })
        })
    }

    /// The domains of the recipients that wait (empty for those without one), each with their number, the largest first.
    ///
    /// # Errors
    /// When the store fails.
    pub fn inbox_domains(
        &self,
        sender: &Address,
        limit: usize,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        self.read("cannot count a sender's recipients", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT r.domain, count(*) FROM cases c CROSS JOIN recipients r ON r.case_id = c.id
                     WHERE {OWN} AND {WAITS}
                     GROUP BY r.domain ORDER BY count(*) DESC, r.domain LIMIT ?2"
                ))?
                .query_map(params![person(sender), row_count(limit)], |row| {
                    Ok((row.get(0)?, count(row, 1)?))
                })?
                .collect()
        })
    }

    /// A part of the cases of which a recipient waits, the oldest message first.
    ///
    /// # Errors
    /// When the store fails.
    pub fn inbox_cases(
        &self,
        sender: &Address,
        limit: usize,
        offset: usize,
    ) -> Result<Vec<Case>, StoreError> {
        self.read("cannot list a sender's messages", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {CASE_COLUMNS} FROM cases c WHERE {OWN} AND EXISTS
                         (SELECT 1 FROM recipients r WHERE r.case_id = c.id AND {WAITS})
                     ORDER BY c.arrival, c.opened_at, c.id LIMIT ?2 OFFSET ?3"
                ))?
                .query_map(
                    params![person(sender), row_count(limit), row_count(offset)],
                    case_of,
                )?
                .collect()
        })
    }

    /// Decides about the next few hundred recipients that a decision in bulk is about, in one transaction. Sending is
    /// never about those that may not go unencrypted. `None` for the mark: there are no more.
    ///
    /// # Errors
    /// When the store fails; then nothing of this part was recorded.
    pub fn decide_bulk(
        &self,
        bulk: &Bulk<'_>,
        after: BulkMark,
    ) -> Result<(Vec<BulkDecided>, Option<BulkMark>), StoreError> {
        let any = self.read("cannot look for what waits", |connection| {
            next_meant(connection, bulk, after)
        })?;
        // Asked again and again it keeps nobody from writing.
        if any.is_none() {
            return Ok((Vec::new(), None));
        }
        self.write("cannot record decisions", |tx| {
            // Chosen here by what the page has seen.
            let by = By::plain(Actor::Link, bulk.client);
            let mut decided = Vec::new();
            let mut mark = after;
            while decided.len() < BATCH_RECIPIENTS {
                let Some((case, queue_id, arrival)) = next_meant(tx, bulk, mark)? else {
                    return Ok((decided, None));
                };
                mark = BulkMark(arrival, case.0);
                let recipients = meant(tx, bulk, case)?;
                let choices: Vec<(i64, Action)> = recipients
                    .iter()
                    .map(|(id, _)| (*id, bulk.action))
                    .collect();
                let made = decide(tx, case, &choices, &by)?;
                let addresses = recipients.into_iter().map(|(_, address)| address);
                decided.extend(told(case, &queue_id, addresses, made));
            }
            Ok((decided, Some(mark)))
        })
    }

    /// How many recipients a decision in bulk would still be about.
    ///
    /// # Errors
    /// When the store fails.
    pub fn count_bulk(&self, bulk: &Bulk<'_>, after: BulkMark) -> Result<u64, StoreError> {
        self.read("cannot count what was not decided", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT count(*) FROM cases c CROSS JOIN recipients r ON r.case_id = c.id
                     WHERE {OWN} AND {MEANT} AND {WITHIN} AND (c.arrival, c.id) > (?5, ?6)"
                ))?
                .query_row(
                    params![
                        person(bulk.sender),
                        bulk.action,
                        bulk.domain,
                        bulk.seen,
                        after.0,
                        after.1
                    ],
                    |row| count(row, 0),
                )
        })
    }

    /// How many recipients "send", said in bulk, leaves out as they may not go unencrypted.
    ///
    /// # Errors
    /// When the store fails.
    pub fn count_unsendable(&self, bulk: &Bulk<'_>) -> Result<u64, StoreError> {
        self.read("cannot count what may not be sent", |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT count(*) FROM cases c CROSS JOIN recipients r ON r.case_id = c.id
                     WHERE {OWN} AND {WAITS} AND NOT r.may_send AND {WITHIN}"
                ))?
                .query_row(
                    params![person(bulk.sender), bulk.action, bulk.domain, bulk.seen],
                    |row| count(row, 0),
                )
        })
    }

    /// Records choices for recipients of several cases in one transaction: all of a form, or nothing. The caller has
    /// checked that the recipients belong to their cases.
    ///
    /// # Errors
    /// When the store fails; then nothing was recorded.
    pub fn decide_several(
        &self,
        forms: &[CaseChoices],
        client: &str,
    ) -> Result<Vec<BulkDecided>, StoreError> {
        if let Some(standing) = self.all_standing(forms)? {
            return Ok(standing);
        }
        self.write("cannot record decisions", |tx| {
            let mut decided = Vec::new();
            for form in forms {
                let by = By {
                    seen: Some(form.seen),
                    ..By::plain(Actor::Link, client)
                };
                let made = decide(tx, form.case.id, &form.plain(), &by)?;
                decided.extend(form.told(made));
            }
            Ok(decided)
        })
    }

    /// What is said of forms that would change nothing; `None` if one of them would.
    fn all_standing(&self, forms: &[CaseChoices]) -> Result<Option<Vec<BulkDecided>>, StoreError> {
        let mut all = Vec::new();
        for form in forms {
            match self.standing(form.case.id, &form.plain(), Some(form.seen))? {
                Some(standing) => all.extend(form.told(standing)),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }
}

impl CaseChoices {
    fn plain(&self) -> Vec<(i64, Action)> {
        let choices = self.choices.iter();
        choices.map(|(id, _, action)| (*id, *action)).collect()
    }

    fn told(&self, made: Decided) -> impl Iterator<Item = BulkDecided> {
        let addresses = self.choices.iter().map(|(_, address, _)| address.clone());
        told(self.case.id, &self.case.key.queue_id, addresses, made)
    }
}

/// What was decided in one case, with the address of each recipient, in the order of the choices.
fn told(
    case: CaseId,
    queue_id: &QueueId,
    addresses: impl Iterator<Item = Address>,
    made: Decided,
) -> impl Iterator<Item = BulkDecided> {
    let changed: HashSet<i64> = made.changed.into_iter().collect();
    addresses
        .zip(made.outcomes)
        .map(move |(address, (recipient, outcome))| BulkDecided {
            case,
            queue_id: queue_id.clone(),
            recipient,
            address,
            outcome,
            planned: made.planned,
            changed: changed.contains(&recipient),
        })
}

/// Which recipients a decision in bulk changes, of those that it is about: what is kept already need not be kept once more.
/// Parameter 2 is the action.
const MEANT: &str = "(r.state = 'open' OR r.state = 'kept' AND ?2 <> 'keep') AND NOT r.unwritten AND (?2 <> 'send' OR r.may_send)";

/// Which recipients a decision in bulk is about: those of a domain, as far as the page has seen them. Parameters: 3 domain,
/// 4 seen.
const WITHIN: &str = "(?3 IS NULL OR r.domain = ?3) AND coalesce(r.stuck_at, c.opened_at) <= ?4";

/// The next case, after `mark`, that a decision in bulk is about.
fn next_meant(
    connection: &Connection,
    bulk: &Bulk<'_>,
    mark: BulkMark,
) -> rusqlite::Result<Option<(CaseId, QueueId, i64)>> {
    connection
        .prepare_cached(&format!(
            "SELECT c.id, c.queue_id, c.arrival FROM cases c
             WHERE {OWN} AND (c.arrival, c.id) > (?5, ?6)
               AND EXISTS (SELECT 1 FROM recipients r WHERE r.case_id = c.id AND {MEANT} AND {WITHIN})
             ORDER BY c.arrival, c.id LIMIT 1"
        ))?
        .query_row(
            params![
                person(bulk.sender),
                bulk.action,
                bulk.domain,
                bulk.seen,
                mark.0,
                mark.1
            ],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()
}

fn meant(
    connection: &Connection,
    bulk: &Bulk<'_>,
    case: CaseId,
) -> rusqlite::Result<Vec<(i64, Address)>> {
    connection
        .prepare_cached(&format!(
            "SELECT r.id, r.address FROM cases c JOIN recipients r ON r.case_id = c.id
             WHERE {OWN} AND c.id = ?5 AND {MEANT} AND {WITHIN} ORDER BY r.number"
        ))?
        .query_map(
            params![
                person(bulk.sender),
                bulk.action,
                bulk.domain,
                bulk.seen,
                case
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?
        .collect()
}

/// SQLite counts in signed numbers.
fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column)
        .map(|count: i64| u64::try_from(count).unwrap_or(0))
}

/// No page is so long that this would be cut.
fn row_count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
