//! The journal of moves.
//!
//! A decision and the move that carries it out are recorded in one transaction (`decisions`); from then on the mover owes
//! the move, however often it is killed. The journal says what is known to be on disk, never what is hoped for.

use rusqlite::{OptionalExtension as _, Row, params};

use super::cases::close_if_settled;
use super::news::owe;
use super::{Store, StoreError, now_ms, record};
use crate::address::Address;
use crate::case::{Action, Actor, CaseId, MoveStep, News, Outcome, RecipientState};

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

impl Store {
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
