//! Choices that are remembered together with the decision that they are about, in one transaction: either both are
//! recorded or neither.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::decisions::{By, Decided, decide};
use super::people::person;
use super::{NewConsent, Store, StoreError, now_ms, record};
use crate::address::Address;
use crate::case::policy;
use crate::case::{Action, Actor, CaseId, ConsentId, Failure, Outcome, Scope};
use crate::domain::Domain;

/// What a sender wants to be remembered of a decision.
#[derive(Debug, Clone)]
pub struct Remember<'a> {
    /// Whose choice.
    pub sender: &'a Address,
    /// For each recipient, or for everybody in its domain?
    pub scope: Scope,
    /// Until when, in Unix milliseconds.
    pub expires_at: i64,
    /// The recipients (numbers in the store) for whom it may be remembered.
    pub allowed: &'a [i64],
}

/// A choice that is in force now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Its number.
    pub id: ConsentId,
    /// One recipient, or a domain?
    pub scope: Scope,
    /// Which.
    pub target: String,
    /// The failures that it is for.
    pub failures: Vec<Failure>,
    /// Until when, in Unix milliseconds.
    pub expires_at: i64,
}

impl Store {
    /// As [`Store::decide`] by link, and remembers the choice for those recipients that it sends to and that `remember`
    /// allows, each for the failure that it has at this moment.
    ///
    /// # Errors
    /// When the store fails; then nothing was recorded.
    pub fn decide_and_remember(
        &self,
        case: CaseId,
        choices: &[(i64, Action)],
        client: &str,
        seen: i64,
        remember: &Remember<'_>,
    ) -> Result<(Decided, Vec<Remembered>), StoreError> {
        if let Some(standing) = self.standing(case, choices, Some(seen))? {
            return Ok((standing, Vec::new()));
        }
        self.write("cannot record a decision", |tx| {
            let by = By {
                seen: Some(seen),
                ..By::plain(Actor::Link, client)
            };
            let decided = decide(tx, case, choices, &by)?;
            let sent =
                choices
                    .iter()
                    .zip(&decided.outcomes)
                    .filter(|((id, action), (_, outcome))| {
                        *action == Action::Send
                            && *outcome == Outcome::Recorded
                            && remember.allowed.contains(id)
                    });
            let mut wanted: Vec<NewConsent> = Vec::new();
            for ((id, _), _) in sent {
                let (address, failure): (Address, Failure) = tx
                    .prepare_cached("SELECT address, failure FROM recipients WHERE id = ?1")?
                    .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
                let target = match remember.scope {
                    Scope::Recipient => Some(Domain::canonical(&address).into()),
                    Scope::Domain => Domain::of(&address).map(String::from),
                };
                let Some(target) = target.filter(|_| policy::may_go_unseen(failure)) else {
                    continue;
                };
                match wanted.iter_mut().find(|one| one.target == target) {
                    Some(one) if one.failures.contains(&failure) => {}
                    Some(one) => one.failures.push(failure),
                    None => wanted.push(NewConsent {
                        sender: remember.sender.clone(),
                        scope: remember.scope,
                        target,
                        failures: vec![failure],
                        client: client.to_owned(),
                        expires_at: remember.expires_at,
                    }),
                }
            }
            let mut remembered = Vec::with_capacity(wanted.len());
            for mut new in wanted {
                new.failures.sort();
                let granted = grant(tx, &new)?;
                let detail = format!(
                    "{} {}: send when it fails with {}, from {client}",
                    new.scope,
                    new.target,
                    names(&new.failures).join(" or ")
                );
                let recipient = match new.scope {
                    Scope::Recipient => new.target.as_str(),
                    Scope::Domain => "",
                };
                record(tx, case, recipient, "remembered", &detail)?;
                remembered.push(granted);
            }
            Ok((decided, remembered))
        })
    }
}

fn names(failures: &[Failure]) -> Vec<&'static str> {
    failures.iter().map(|failure| failure.as_str()).collect()
}

/// Remembers a choice. The same one given again (same target, same failures) lasts as long as the longer of the two
/// says; one for other failures stands beside it, so that no failure is ever covered for longer than it was asked for.
pub(super) fn grant(tx: &Transaction<'_>, new: &NewConsent) -> rusqlite::Result<Remembered> {
    let mut failures = new.failures.clone();
    failures.sort();
    failures.dedup();
    let joined = names(&failures).join(" ");
    let known: Option<(ConsentId, i64)> = tx
        .prepare_cached(
            "SELECT id, expires_at FROM consents WHERE sender = ?1 AND scope = ?2 AND target = ?3 AND failures = ?4
             AND ended_at IS NULL AND expires_at > ?5 ORDER BY expires_at DESC LIMIT 1",
        )?
        .query_row(
            params![person(&new.sender), new.scope, new.target, joined, now_ms()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let granted = |id, expires_at| Remembered {
        id,
        scope: new.scope,
        target: new.target.clone(),
        failures: failures.clone(),
        expires_at,
    };
    if let Some((id, until)) = known {
        if until < new.expires_at {
            tx.prepare_cached("UPDATE consents SET expires_at = ?2, client = ?3 WHERE id = ?1")?
                .execute(params![id, new.expires_at, new.client])?;
        }
        return Ok(granted(id, until.max(new.expires_at)));
    }
    tx.prepare_cached(
        "INSERT INTO consents (id, sender, scope, target, failures, client, granted_at, expires_at)
         VALUES (abs(random() / 2), ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        person(&new.sender),
        new.scope,
        new.target,
        joined,
        new.client,
        now_ms(),
        new.expires_at
    ])?;
    Ok(granted(ConsentId(tx.last_insert_rowid()), new.expires_at))
}
