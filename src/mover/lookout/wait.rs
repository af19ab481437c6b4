//! The encrypt instance's side: how recipients that wait, for a decision or for its execution, leave the queue before it.

use std::sync::atomic::Ordering;

use log::info;

use super::file::{Place, Watched};
use super::judge::Mark;
use super::{LookError, Lookout};
use crate::case::RecipientState as State;
use crate::case::store::Ending;
use crate::mover::source;

impl Lookout {
    /// Records that an administrator has put the message on hold, or let it go.
    pub(super) fn see_hold(&self, watched: &Watched) -> Result<(), LookError> {
        let on_hold = || !watched.is_gone() && watched.place() == Place::Hold;
        let held = on_hold();
        if held == watched.held.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Asked between two looks: a hold of ours that ends meanwhile is none any more at the second.
        if held && (self.store.holds(watched.case)? || !on_hold()) {
            return Ok(());
        }
        watched.held.store(held, Ordering::Relaxed);
        if self.store.note_hold(watched.case, held)? {
            let what = if held {
                "on hold by an administrator"
            } else {
                "no longer on hold"
            };
            info!("{}: {what}", watched.id);
        }
        Ok(())
    }

    /// Records what a watched message of the encrypt instance says that is new.
    pub(super) fn see_waiting(&self, watched: &Watched, gone: bool) -> Result<(), LookError> {
        let content = watched.content()?;
        let fresh = watched.fresh(&content);
        if fresh.is_empty() && !gone {
            return Ok(());
        }
        self.hear_of_logs(watched);
        let mut recipients = self.store.recipients(watched.case)?;
        // Once its move has begun a mark may be ours: the store takes no ending then.
        let waits = |state: State| {
            state.is_open()
                || matches!(
                    state,
                    State::NotOffered | State::Releasing | State::Deleting
                )
        };
        recipients.retain(|one| waits(one.state));
        let mut endings = Vec::new();
        let overdue = watched.is_overdue();
        for recipient in &recipients {
            let records = source::records(&content, &recipient.address);
            let mark = watched.judge(&records, overdue, fresh.len());
            let (state, detail) = match mark {
                Mark::Waits if gone => left_waiting(watched),
                Mark::Waits | Mark::Nothing => continue,
                Mark::Delivered => (
                    State::Delivered,
                    "delivered by the encrypt instance".to_owned(),
                ),
                Mark::Returned(why) => (State::Returned, why),
                Mark::Unclear => (
                    State::Gone,
                    "delivered or returned: the log that tells was gone before it could be read"
                        .to_owned(),
                ),
            };
            endings.push(Ending {
                recipient: recipient.id,
                state,
                detail,
            });
        }
        let touched = self.store.end(watched.case, &endings)?;
        watched.have_judged(&fresh);
        for ending in endings
            .iter()
            .filter(|one| touched.contains(&one.recipient))
        {
            if let Some(recipient) = recipients.iter().find(|one| one.id == ending.recipient) {
                let (id, to) = (&watched.id, &recipient.address);
                info!(
                    "{id}: to=<{to}>, status={}: {}",
                    ending.state, ending.detail
                );
            }
        }
        Ok(())
    }
}

/// The file was removed with the recipient still to do: Postfix does that at the end of its lifetime only, at the end of
/// an attempt.
fn left_waiting(watched: &Watched) -> (State, String) {
    match watched.place() {
        Place::Active if watched.has_expired() => {
            (State::Returned, "not delivered in time".to_owned())
        }
        Place::Maildrop => (
            State::Gone,
            "taken in anew under another queue ID (postsuper -r)".to_owned(),
        ),
        _ => (
            State::Removed,
            "removed from the queue by somebody".to_owned(),
        ),
    }
}
