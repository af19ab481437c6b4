//! Domains that must be reached over TLS: who listed them, and when.

use rusqlite::{OptionalExtension as _, params};

use super::{Store, StoreError, now_ms};
use crate::domain::Domain;

/// A listed domain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MandatoryDomain {
    /// The domain; those below it are included.
    pub domain: Domain,
    /// Since when, in Unix milliseconds.
    pub added_at: i64,
    /// By whom.
    pub added_by: String,
}

impl Store {
    /// Lists a domain. Whether it was not listed before.
    ///
    /// # Errors
    /// When the store fails.
    pub fn add_mandatory(&self, domain: &Domain, by: &str) -> Result<bool, StoreError> {
        self.write("cannot list a mandatory domain", |tx| {
            tx.execute(
                "INSERT INTO mandatory_domains (domain, added_at, added_by) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO NOTHING",
                params![domain, now_ms(), by],
            )
            .map(|count| count == 1)
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
        self.read("cannot read the mandatory domains", |connection| {
            connection
                .prepare_cached(
                    "SELECT domain, added_at, added_by FROM mandatory_domains WHERE removed_at IS NULL ORDER BY domain",
                )?
                .query_map([], |row| {
                    Ok(MandatoryDomain {
                        domain: row.get(0)?,
                        added_at: row.get(1)?,
                        added_by: row.get(2)?,
                    })
                })?
                .collect()
        })
    }

    /// The listed domain that `domain` is within: itself, or the nearest one above it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn mandatory_for(&self, domain: &Domain) -> Result<Option<Domain>, StoreError> {
        self.read("cannot look a mandatory domain up", |connection| {
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
        })
    }
}
