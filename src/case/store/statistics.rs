//! Counts for `posttls stats`. They need no addresses and no texts, so they are the same after those were removed.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::{Store, StoreError};
use crate::case::{Action, Actor, Failure, Passage, RecipientState};

/// A domain whose servers failed for TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct DomainCount {
    /// In ASCII form; empty for addresses without a domain of the DNS.
    pub domain: String,
    /// Messages with recipients there that were stuck.
    pub messages: i64,
    /// Those recipients.
    pub recipients: i64,
    /// The same by kind of failure.
    pub failures: BTreeMap<Failure, i64>,
    /// When one was last found stuck, in Unix milliseconds.
    pub last_seen: i64,
}

/// Something that happened at a time, to be counted by day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A case was opened, in which a recipient is or was stuck for TLS.
    Case,
    /// A recipient was decided about.
    Decision(Action, Actor),
}

/// All counts since a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Domains, those with the most recipients first.
    pub domains: Vec<DomainCount>,
    /// What happened when (Unix milliseconds), in no order.
    pub moments: Vec<(i64, Moment)>,
    /// Milliseconds from the notification of a sender to the first choice by the link, recipient by recipient, ascending.
    pub decided_after: Vec<i64>,
    /// Recipients that were stuck for TLS, by where they stand and what the may instance did.
    pub outcomes: BTreeMap<(RecipientState, Option<Passage>), i64>,
}

impl Store {
    /// Counts what was found stuck or decided since `since` (Unix milliseconds).
    ///
    /// # Errors
    /// When the store fails.
    pub fn statistics(&self, since: i64) -> Result<Statistics, StoreError> {
        self.read("cannot count", |connection| {
            Ok(Statistics {
                domains: domains(connection, since)?,
                moments: moments(connection, since)?,
                decided_after: decided_after(connection, since)?,
                outcomes: outcomes(connection, since)?,
            })
        })
    }
}

fn domains(connection: &Connection, since: i64) -> rusqlite::Result<Vec<DomainCount>> {
    let mut found: BTreeMap<String, DomainCount> = BTreeMap::new();
    // A fault on our side says nothing about a domain.
    let mut messages = connection.prepare(
        "SELECT domain, count(DISTINCT case_id), count(*), max(stuck_at) FROM recipients
         WHERE stuck_at >= ?1 AND failure NOT IN ('local-fault', 'unjudged') GROUP BY domain",
    )?;
    let mut rows = messages.query([since])?;
    while let Some(row) = rows.next()? {
        let domain: String = row.get(0)?;
        found.insert(
            domain.clone(),
            DomainCount {
                domain,
                messages: row.get(1)?,
                recipients: row.get(2)?,
                last_seen: row.get(3)?,
                failures: BTreeMap::new(),
            },
        );
    }
    let mut kinds = connection.prepare(
        "SELECT domain, failure, count(*) FROM recipients
         WHERE stuck_at >= ?1 AND failure NOT IN ('local-fault', 'unjudged') GROUP BY domain, failure",
    )?;
    let mut rows = kinds.query([since])?;
    while let Some(row) = rows.next()? {
        let domain: String = row.get(0)?;
        let entry = found.entry(domain).or_default();
        entry.failures.insert(row.get(1)?, row.get(2)?);
    }
    let mut domains: Vec<_> = found.into_values().collect();
    domains.sort_by(|a, b| {
        let most = b.recipients.cmp(&a.recipients);
        most.then_with(|| a.domain.cmp(&b.domain))
    });
    Ok(domains)
}

fn moments(connection: &Connection, since: i64) -> rusqlite::Result<Vec<(i64, Moment)>> {
    let mut cases = connection.prepare(
        "SELECT opened_at FROM cases c WHERE opened_at >= ?1
         AND EXISTS (SELECT 1 FROM recipients r WHERE r.case_id = c.id AND r.stuck_at IS NOT NULL)",
    )?;
    let mut found: Vec<(i64, Moment)> = cases
        .query_map([since], |row| Ok((row.get(0)?, Moment::Case)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut decisions = connection
        .prepare("SELECT decided_at, action, actor FROM decisions WHERE decided_at >= ?1")?;
    let rows = decisions.query_map([since], |row| {
        Ok((row.get(0)?, Moment::Decision(row.get(1)?, row.get(2)?)))
    })?;
    for row in rows {
        found.push(row?);
    }
    Ok(found)
}

fn decided_after(connection: &Connection, since: i64) -> rusqlite::Result<Vec<i64>> {
    // A recipient that got stuck later than its sender was told is waited for from then on.
    connection
        .prepare(
            "SELECT max(0, min(d.decided_at) - max(coalesce(c.notified_at, c.opened_at), coalesce(r.stuck_at, 0))) AS took
             FROM decisions d JOIN recipients r ON r.id = d.recipient_id JOIN cases c ON c.id = r.case_id
             WHERE d.actor = ?2 AND d.decided_at >= ?1 GROUP BY r.id ORDER BY took",
        )?
        .query_map(params![since, Actor::Link], |row| row.get(0))?
        .collect()
}

type Outcomes = BTreeMap<(RecipientState, Option<Passage>), i64>;

fn outcomes(connection: &Connection, since: i64) -> rusqlite::Result<Outcomes> {
    connection
        .prepare(
            "SELECT state, passage, count(*) FROM recipients WHERE stuck_at >= ?1 GROUP BY state, passage",
        )?
        .query_map([since], |row| {
            Ok(((row.get(0)?, row.get(1)?), row.get(2)?))
        })?
        .collect()
}
