//! Decisions: what a choice means for a recipient as it stands, recorded with the move that carries it out.

use rusqlite::{Connection, Transaction, params};

use super::cases::address_of;
use super::consents::count_use;
use super::mandatory::nearest_listed;
use super::moves::MoveId;
use super::news::forget;
use super::{Store, StoreError, now_ms, record};
use crate::address::Address;
use crate::case::{Action, Actor, CaseId, ConsentId, Failure, News, Outcome, RecipientState};
use crate::domain::Domain;

/// What became of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The move that carries the final decisions out; `None` when there were none.
    pub planned: Option<MoveId>,
    /// For each recipient named: what can be said already. `Recorded` means that the move will tell.
    pub outcomes: Vec<(i64, Outcome)>,
    /// Recipients of whom something was recorded. What stands already is not recorded again.
    pub changed: Vec<i64>,
}

impl Store {
    /// Records the sender's choices. For each recipient the first send or delete wins; whatever else is chosen after
    /// that changes nothing. The caller has checked that the recipients belong to `case`.
    ///
    /// A form says by `seen` up to which change its page knew ([`crate::case::Recipient::changed`]). It sends to nobody of
    /// whom something else is known since; deleting and keeping is right whatever the failure is. A form that says nothing
    /// is from before the first change: 0. `None` for who decides on what is known now.
    ///
    /// What stands already is not recorded again, and is answered without a transaction. So a recipient goes from open
    /// to kept to decided and never back: however often somebody with a link asks, it makes two records at most.
    ///
    /// # Errors
    /// When the store fails; then nothing was recorded.
    pub fn decide(
        &self,
        case: CaseId,
        choices: &[(i64, Action)],
        actor: Actor,
        client: &str,
        seen: Option<i64>,
    ) -> Result<Decided, StoreError> {
        if let Some(standing) = self.standing(case, choices, seen)? {
            return Ok(standing);
        }
        self.write("cannot record a decision", |tx| {
            let by = By {
                seen,
                ..By::plain(actor, client)
            };
            decide(tx, case, choices, &by)
        })
    }

    /// What is said of choices that would change nothing; `None` if one of them would.
    pub(super) fn standing(
        &self,
        case: CaseId,
        choices: &[(i64, Action)],
        seen: Option<i64>,
    ) -> Result<Option<Decided>, StoreError> {
        let by = By {
            seen,
            ..By::plain(Actor::Link, "")
        };
        self.read("cannot compare a decision", |connection| {
            let mut outcomes = Vec::with_capacity(choices.len());
            for (recipient, action) in choices {
                let (outcome, next) = judge(connection, case, *recipient, *action, &by)?;
                if next.is_some() {
                    return Ok(None);
                }
                outcomes.push((*recipient, outcome));
            }
            Ok(Some(Decided {
                planned: None,
                outcomes,
                changed: Vec::new(),
            }))
        })
    }

    /// As [`Store::decide`] by an admin who sends also what a policy forbids. Nothing else is forbidden less.
    ///
    /// # Errors
    /// When the store fails; then nothing was recorded.
    pub fn overrule(
        &self,
        case: CaseId,
        choices: &[(i64, Action)],
        client: &str,
    ) -> Result<Decided, StoreError> {
        self.write("cannot record a decision", |tx| {
            let by = By {
                overrules: true,
                ..By::plain(Actor::Admin, client)
            };
            decide(tx, case, choices, &by)
        })
    }
}

/// In whose name something is decided.
pub(super) struct By<'a> {
    pub actor: Actor,
    /// The address that the decision came from; empty for one that nobody made just now.
    pub client: &'a str,
    pub consent: Option<ConsentId>,
    /// Do policies that demand TLS not count?
    pub overrules: bool,
    /// Up to which change the page knew that the decision came from; `None` where it came from no page.
    pub seen: Option<i64>,
}

impl<'a> By<'a> {
    /// Nothing but this.
    pub fn plain(actor: Actor, client: &'a str) -> Self {
        Self {
            actor,
            client,
            consent: None,
            overrules: false,
            seen: None,
        }
    }
}

/// [`Store::decide`], within a transaction.
pub(super) fn decide(
    tx: &Transaction<'_>,
    case: CaseId,
    choices: &[(i64, Action)],
    by: &By<'_>,
) -> rusqlite::Result<Decided> {
    let now = now_ms();
    let mut planned = None;
    let mut outcomes = Vec::with_capacity(choices.len());
    let mut changed = Vec::new();
    for (recipient, action) in choices {
        let (outcome, next) = judge(tx, case, *recipient, *action, by)?;
        outcomes.push((*recipient, outcome));
        let Some(next) = next else { continue };
        changed.push(*recipient);
        tx.prepare_cached(
            "INSERT INTO decisions (recipient_id, action, actor, client, decided_at, consent_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            recipient, action, by.actor, by.client, now, by.consent
        ])?;
        if let Some(consent) = by.consent {
            count_use(tx, consent)?;
        }
        tx.prepare_cached("UPDATE recipients SET state = ?2 WHERE id = ?1")?
            .execute(params![recipient, next])?;
        forget(tx, *recipient, News::Stuck)?;
        let from = if by.client.is_empty() {
            String::new()
        } else {
            format!(" from {}", by.client)
        };
        let despite = if by.overrules && *action == Action::Send {
            ", whatever policy demands TLS"
        } else {
            ""
        };
        let detail = format!("{action} by {}{from}{despite}", by.actor);
        record(tx, case, &address_of(tx, *recipient)?, "decided", &detail)?;
        if outcome != Outcome::Recorded {
            continue;
        }
        let id = match planned {
            Some(MoveId(id)) => id,
            None => {
                tx.prepare_cached("INSERT INTO moves (case_id, step, begun_at, changed_at) VALUES (?1, 'planned', ?2, ?2)")?
                    .execute(params![case, now])?;
                tx.last_insert_rowid()
            }
        };
        planned = Some(MoveId(id));
        tx.prepare_cached(
            "INSERT INTO move_recipients (move_id, recipient_id, action, overruled) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![id, recipient, action, by.overrules])?;
    }
    Ok(Decided {
        planned,
        outcomes,
        changed,
    })
}

/// What a choice means for a recipient as it stands: what can be said already, and its next state if it changes one.
fn judge(
    connection: &Connection,
    case: CaseId,
    recipient: i64,
    action: Action,
    by: &By<'_>,
) -> rusqlite::Result<(Outcome, Option<RecipientState>)> {
    use RecipientState::{Deleting, Kept, NotOffered, Open, Releasing};
    type Known = (RecipientState, bool, Failure, Address, i64);
    let (state, mut may_send, failure, address, changed): Known = connection
        .prepare_cached(
            "SELECT state, may_send, failure, address, changed FROM recipients WHERE id = ?1 AND case_id = ?2",
        )?
        .query_row(params![recipient, case], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        })?;
    if by.overrules && failure == Failure::Policy {
        // Nothing but the policy: what is mandatory stays so.
        let domain = Domain::nearest(&address);
        let listed = domain.map(|domain| nearest_listed(connection, &domain));
        may_send = listed.transpose()?.flatten().is_none();
    }
    Ok(match (state, action) {
        (state, _) if state.has_left() => (state.outcome_when_late(), None),
        (NotOffered, _) => (Outcome::NotPossible, None),
        (Open | Kept, Action::Send) if !may_send => (Outcome::NotPossible, None),
        (Open | Kept, Action::Send) if by.seen.is_some_and(|seen| seen < changed) => {
            (Outcome::Changed, None)
        }
        (Kept, Action::Keep) => (Outcome::Kept, None),
        (Open, Action::Keep) => (Outcome::Kept, Some(Kept)),
        (Open | Kept, Action::Send) => (Outcome::Recorded, Some(Releasing)),
        (Open | Kept, Action::Delete) => (Outcome::Recorded, Some(Deleting)),
        _ => (Outcome::AlreadyDecided, None),
    })
}
