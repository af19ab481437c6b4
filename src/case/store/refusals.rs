//! What keeps a decision from being carried out before anything of it was: it is undone, or waits in a move of its own.

use rusqlite::{OptionalExtension as _, params};

use super::cases::{address_of, close_if_settled, mark_changed};
use super::mandatory::nearest_listed;
use super::moves::Move;
use super::news::owe;
use super::{Store, StoreError, now_ms, record};
use crate::address::Address;
use crate::case::{Actor, Asked, Failure, News, RecipientState};
use crate::domain::Domain;

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

impl Store {
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
}
