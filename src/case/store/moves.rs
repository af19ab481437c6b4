//! Decisions and the journal of moves.
//!
//! A decision and the move that carries it out are recorded in one transaction; from then on the mover owes the move,
//! however often it is killed. The journal says what is known to be on disk, never what is hoped for.

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::cases::{address_of, close_if_settled, mark_changed};
use super::consents::count_use;
use super::mandatory::nearest_listed;
use super::news::{forget, owe};
use super::{Store, StoreError, now_ms, record};
use crate::address::Address;
use crate::case::{
    Action, Actor, Asked, CaseId, ConsentId, Failure, MoveStep, News, Outcome, RecipientState,
};
use crate::domain::Domain;

/// The number of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MoveId(pub i64);

/// A row of the journal.
#[derive(Debug, Clone)]
pub struct Move {
    /// Its number.
    pub id: MoveId,
    /// The case that it belongs to.
    pub case: CaseId,
    /// What is known to be on disk.
    pub step: MoveStep,
    /// Was the message on hold before PostTLS came? `None`: not looked at yet.
    pub held_before: Option<bool>,
    /// Name of the copy in the may instance's hold queue, once chosen.
    pub copy_name: Option<String>,
    /// Whom it concerns.
    pub recipients: Vec<MoveRecipient>,
}

/// A recipient of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveRecipient {
    /// Number in the store.
    pub id: i64,
    /// Address, as in the queue file.
    pub address: Address,
    /// Send or delete.
    pub action: Action,
    /// What came of it, once known.
    pub outcome: Option<Outcome>,
    /// Has an admin said to send although a policy demands TLS?
    pub overruled: bool,
}

impl Move {
    /// Those that it sends to.
    pub fn sent(&self) -> impl Iterator<Item = &MoveRecipient> {
        let all = self.recipients.iter();
        all.filter(|one| one.action == Action::Send)
    }

    /// Does it concern this recipient?
    pub fn names(&self, recipient: i64) -> bool {
        self.recipients.iter().any(|one| one.id == recipient)
    }
}

/// A decision to send that must not be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The recipient's number in the store.
    pub recipient: i64,
    /// Why it is stuck, as is known by now.
    pub failure: Failure,
    /// May it go unencrypted all the same, if somebody decides so who knows that?
    pub may_send: bool,
    /// What the history says.
    pub why: String,
}

/// In whose name a recipient is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decider {
    /// Who.
    pub actor: Actor,
    /// The failures that the remembered choice behind it is for, if there is one.
    pub consent: Option<Vec<Failure>>,
}

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

    /// Undoes decisions to send that must not be carried out, before anything of them was: for each recipient of the
    /// move the kind of failure that it is, and why. A move without recipients ends.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub fn refuse(&self, planned: &Move, refused: &[Refused]) -> Result<(), StoreError> {
        self.write("cannot undo a decision", |tx| {
            for Refused {
                recipient,
                failure,
                may_send,
                why,
            } in refused
            {
                let address = address_of(tx, *recipient)?;
                tx.prepare_cached(
                    "DELETE FROM move_recipients WHERE move_id = ?1 AND recipient_id = ?2",
                )?
                .execute(params![planned.id.0, recipient])?;
                let by: Option<Actor> = tx
                    .prepare_cached(
                        "SELECT actor FROM decisions WHERE recipient_id = ?1 AND action = 'send'",
                    )?
                    .query_row([recipient], |row| row.get(0))
                    .optional()?;
                // It is in the history; as a decision it would stand in the way of the next one.
                tx.prepare_cached(
                    "DELETE FROM decisions WHERE recipient_id = ?1 AND action = 'send'",
                )?
                .execute([recipient])?;
                let (asked, now): (Asked, RecipientState) = tx
                    .prepare_cached(
                        "SELECT iif(r.unwritten, 'nobody', c.asked), r.state FROM cases c
                         JOIN recipients r ON r.case_id = c.id WHERE r.id = ?1",
                    )?
                    .query_row([recipient], |row| Ok((row.get(0)?, row.get(1)?)))?;
                // The look-ups take their time, and Postfix does not wait for them.
                if now != RecipientState::Releasing {
                    continue;
                }
                // The domain may have been listed after the decision.
                let domain = address
                    .parse::<Address>()
                    .ok()
                    .and_then(|address| Domain::nearest(&address));
                let listed = domain.map(|domain| nearest_listed(tx, &domain));
                let may_send = *may_send && listed.transpose()?.flatten().is_none();
                let state = match asked {
                    _ if !failure.is_senders_matter() => RecipientState::NotOffered,
                    Asked::Sender => RecipientState::Open,
                    Asked::Nobody => RecipientState::Kept,
                };
                tx.prepare_cached(
                    "UPDATE recipients SET state = ?2, failure = ?3, may_send = ?5, stuck_at = ?6,
                     detail = substr(?4 || ' (' || detail || ')', 1, 500) WHERE id = ?1",
                )?
                // A decision about all that a page has shown before must not include it.
                .execute(params![
                    recipient,
                    state,
                    failure,
                    why,
                    may_send,
                    now_ms()
                ])?;
                mark_changed(tx, *recipient)?;
                record(
                    tx,
                    planned.case,
                    &address,
                    "refused",
                    &format!("not sent: {why}"),
                )?;
                match state {
                    RecipientState::Open => owe(tx, *recipient, News::Stuck)?,
                    // Who has said "send" may have read "soon"; of rules and choices of old the sender knows nothing.
                    RecipientState::NotOffered if by == Some(Actor::Link) => {
                        owe(tx, *recipient, News::Withheld)?;
                    }
                    _ => {}
                }
            }
            let left: bool = tx
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM move_recipients WHERE move_id = ?1)")?
                .query_row([planned.id.0], |row| row.get(0))?;
            if !left {
                tx.execute(
                    "UPDATE moves SET step = 'done', changed_at = ?2 WHERE id = ?1",
                    params![planned.id.0, now_ms()],
                )?;
            }
            close_if_settled(tx, planned.case)
        })
    }

    /// Lets some recipients of a move that has not begun wait in one of their own. The decision stands.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub fn set_apart(&self, planned: &Move, recipients: &[i64]) -> Result<(), StoreError> {
        self.write("cannot set recipients apart", |tx| {
            tx.prepare_cached(
                "INSERT INTO moves (case_id, step, begun_at, changed_at)
                 SELECT case_id, 'planned', begun_at, ?2 FROM moves WHERE id = ?1",
            )?
            .execute(params![planned.id.0, now_ms()])?;
            let own = tx.last_insert_rowid();
            for recipient in recipients {
                tx.prepare_cached(
                    "UPDATE move_recipients SET move_id = ?3 WHERE move_id = ?1 AND recipient_id = ?2",
                )?
                .execute(params![planned.id.0, recipient, own])?;
            }
            Ok(())
        })
    }

    /// In whose name a recipient is to be sent; `None` when that was not decided.
    ///
    /// # Errors
    /// When the store fails.
    pub fn decider(&self, recipient: i64) -> Result<Option<Decider>, StoreError> {
        self.read("cannot look a decision up", |connection| {
            connection
                .prepare_cached(
                    "SELECT d.actor, c.failures FROM decisions d LEFT JOIN consents c ON c.id = d.consent_id
                     WHERE d.recipient_id = ?1 AND d.action = 'send'",
                )?
                .query_row([recipient], |row| {
                    let failures: Option<String> = row.get(1)?;
                    let names = |text: String| {
                        let names = text.split(' ');
                        names.filter_map(|name| name.parse().ok()).collect()
                    };
                    Ok(Decider {
                        actor: row.get(0)?,
                        consent: failures.map(names),
                    })
                })
                .optional()
        })
    }

    /// A move with its recipients.
    ///
    /// # Errors
    /// When the store fails.
    pub fn load_move(&self, id: MoveId) -> Result<Option<Move>, StoreError> {
        self.read("cannot read a move", |connection| {
            let row = connection
                .prepare_cached("SELECT id, case_id, step, held_before, copy_name FROM moves WHERE id = ?1")?
                .query_row([id.0], |row| {
                    Ok(Move {
                        id: MoveId(row.get(0)?),
                        case: row.get(1)?,
                        step: row.get(2)?,
                        held_before: row.get(3)?,
                        copy_name: row.get(4)?,
                        recipients: Vec::new(),
                    })
                })
                .optional()?;
            let Some(mut found) = row else { return Ok(None) };
            let recipient_of = |row: &Row<'_>| {
                Ok(MoveRecipient { id: row.get(0)?, address: row.get(1)?, action: row.get(2)?, outcome: row.get(3)?, overruled: row.get(4)? })
            };
            found.recipients = connection
                .prepare_cached(
                    "SELECT r.id, r.address, m.action, m.outcome, m.overruled FROM move_recipients m
                     JOIN recipients r ON r.id = m.recipient_id WHERE m.move_id = ?1 ORDER BY r.number",
                )?
                .query_map([id.0], recipient_of)?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Some(found))
        })
    }

    /// The moves that the mover still owes, each with its case: those that have begun, then the others, in the order of
    /// their decisions.
    ///
    /// # Errors
    /// When the store fails.
    pub fn unfinished_moves(&self) -> Result<Vec<(MoveId, CaseId)>, StoreError> {
        self.read("cannot list unfinished moves", |connection| {
            connection
                .prepare_cached(
                    "SELECT id, case_id FROM moves WHERE step NOT IN ('done', 'conflict')
                     ORDER BY step = 'planned', id",
                )?
                .query_map([], |row| Ok((MoveId(row.get(0)?), row.get(1)?)))?
                .collect()
        })
    }

    /// A move of the case that comes before this one: it is stopped for an admin, or half-way, or the hold is its. Of two
    /// that are half-way, which an older version may have left, the first.
    ///
    /// # Errors
    /// When the store fails.
    pub fn in_the_way(
        &self,
        case: CaseId,
        of: MoveId,
    ) -> Result<Option<(MoveId, MoveStep)>, StoreError> {
        self.read("cannot look for other moves", |connection| {
            connection
                .prepare_cached(
                    "SELECT id, step FROM moves WHERE case_id = ?1 AND id <> ?2
                     AND (step = 'conflict'
                          OR (step IN ('begun', 'marked', 'requeued') OR step = 'planned' AND held_before = 0)
                          AND (id < ?2 OR (SELECT step FROM moves WHERE id = ?2) = 'planned'))
                     ORDER BY step <> 'conflict', id LIMIT 1",
                )?
                .query_row(params![case, of.0], |row| {
                    Ok((MoveId(row.get(0)?), row.get(1)?))
                })
                .optional()
        })
    }

    /// The moves of a case that were stopped for an admin to look at, with the name of the copy that each may have
    /// left in the may instance's hold queue.
    ///
    /// # Errors
    /// When the store fails.
    pub fn conflicts(&self, case: CaseId) -> Result<Vec<(MoveId, Option<String>)>, StoreError> {
        self.read("cannot list conflicts", |connection| {
            connection
                .prepare_cached("SELECT id, copy_name FROM moves WHERE case_id = ?1 AND step = 'conflict' ORDER BY id")?
                .query_map([case], |row| Ok((MoveId(row.get(0)?), row.get(1)?)))?
                .collect()
        })
    }

    /// Remembers whether the message was on hold before PostTLS put it there; `None` when PostTLS did not after all.
    /// Recorded before PostTLS does, so that a hold that nobody else made is always known as ours.
    ///
    /// # Errors
    /// When the store fails.
    pub fn remember_hold(&self, id: MoveId, held_before: Option<bool>) -> Result<(), StoreError> {
        self.write("cannot record a hold", |tx| {
            tx.execute(
                "UPDATE moves SET held_before = ?2, changed_at = ?3 WHERE id = ?1",
                params![id.0, held_before, now_ms()],
            )?;
            Ok(())
        })
    }

    /// Is another move of the same message half-way? Then it needs the hold for longer than this one, and it is recorded
    /// that it ends it, if this one was to do so.
    ///
    /// # Errors
    /// When the store fails.
    pub fn pass_hold_on(&self, done: &Move) -> Result<bool, StoreError> {
        self.write("cannot pass a hold on", |tx| {
            let others = "case_id = ?1 AND id <> ?2 AND step IN ('begun', 'marked', 'requeued')";
            let half_way = tx
                .prepare_cached(&format!(
                    "SELECT EXISTS (SELECT 1 FROM moves WHERE {others})"
                ))?
                .query_row(params![done.case, done.id.0], |row| row.get(0))?;
            if half_way && done.held_before != Some(true) {
                tx.execute(
                    &format!("UPDATE moves SET held_before = 0 WHERE {others}"),
                    params![done.case, done.id.0],
                )?;
            }
            Ok(half_way)
        })
    }

    /// Forgets a copy that never appeared, so that the move starts over.
    ///
    /// # Errors
    /// When the store fails.
    pub fn start_over(&self, id: MoveId) -> Result<(), StoreError> {
        self.write("cannot start a move over", |tx| {
            tx.execute(
                "UPDATE moves SET step = 'planned', copy_name = NULL, changed_at = ?2 WHERE id = ?1",
                params![id.0, now_ms()],
            )?;
            tx.execute("UPDATE move_recipients SET outcome = NULL WHERE move_id = ?1", [id.0])?;
            Ok(())
        })
    }

    /// Records that a move has begun: the name that the copy is about to get (`None` when nothing is sent), and what
    /// will come of each recipient. Committed before the copy appears and before the source changes.
    ///
    /// # Errors
    /// When the store fails.
    pub fn begin_move(
        &self,
        id: MoveId,
        copy_name: Option<&str>,
        outcomes: &[(i64, Outcome)],
    ) -> Result<(), StoreError> {
        self.write("cannot begin a move", |tx| {
            tx.execute(
                "UPDATE moves SET step = 'begun', copy_name = ?2, changed_at = ?3 WHERE id = ?1",
                params![id.0, copy_name, now_ms()],
            )?;
            let mut update = tx.prepare_cached(
                "UPDATE move_recipients SET outcome = ?3 WHERE move_id = ?1 AND recipient_id = ?2",
            )?;
            for (recipient, outcome) in outcomes {
                update.execute(params![id.0, recipient, outcome])?;
            }
            Ok(())
        })
    }

    /// Records that a step is on disk.
    ///
    /// # Errors
    /// When the store fails.
    pub fn advance(&self, id: MoveId, step: MoveStep) -> Result<(), StoreError> {
        self.write("cannot journal a step", |tx| {
            tx.execute(
                "UPDATE moves SET step = ?2, changed_at = ?3 WHERE id = ?1",
                params![id.0, step, now_ms()],
            )?;
            Ok(())
        })
    }

    /// Ends a move: its recipients get their last state, and the case closes if nothing else is left.
    ///
    /// # Errors
    /// When the store fails.
    pub fn finish_move(&self, done: &Move, detail: &str) -> Result<(), StoreError> {
        self.write("cannot finish a move", |tx| {
            tx.execute("UPDATE moves SET step = 'done', changed_at = ?2 WHERE id = ?1", params![done.id.0, now_ms()])?;
            for recipient in &done.recipients {
                let outcome = recipient.outcome.unwrap_or(Outcome::AlreadyGone);
                tx.execute(
                    "UPDATE move_recipients SET outcome = ?3 WHERE move_id = ?1 AND recipient_id = ?2",
                    params![done.id.0, recipient.id, outcome],
                )?;
                let (state, detail) = match outcome {
                    Outcome::Released => (RecipientState::Released, detail),
                    Outcome::Deleted => (RecipientState::Deleted, detail),
                    // A mark in the queue file says that it is done with, and not how: only who saw it knows.
                    _ => (RecipientState::Gone, "left the queue; how it ended was not seen"),
                };
                let seen: RecipientState = tx
                    .prepare_cached("SELECT state FROM recipients WHERE id = ?1")?
                    .query_row([recipient.id], |row| row.get(0))?;
                if state == RecipientState::Gone && seen.has_left() {
                    continue;
                }
                tx.execute("UPDATE recipients SET state = ?2 WHERE id = ?1", params![recipient.id, state])?;
                record(tx, done.case, recipient.address.as_str(), state.as_str(), detail)?;
                let actor: Actor = tx
                    .prepare_cached("SELECT actor FROM decisions WHERE recipient_id = ?1 AND action <> 'keep'")?
                    .query_row([recipient.id], |row| row.get(0))?;
                match (actor, outcome) {
                    (Actor::Mandatory, Outcome::Deleted) => owe(tx, recipient.id, News::Mandatory)?,
                    (Actor::Consent, Outcome::Released) => owe(tx, recipient.id, News::Consent)?,
                    _ => {}
                }
            }
            close_if_settled(tx, done.case)
        })
    }

    /// Stops a move for an admin to look at: going on might lose or double a delivery.
    ///
    /// # Errors
    /// When the store fails.
    pub fn stop_move(&self, stopped: &Move, why: &str) -> Result<(), StoreError> {
        self.write("cannot stop a move", |tx| {
            tx.execute(
                "UPDATE moves SET step = 'conflict', changed_at = ?2 WHERE id = ?1",
                params![stopped.id.0, now_ms()],
            )?;
            record(tx, stopped.case, "", "conflict", why)
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
