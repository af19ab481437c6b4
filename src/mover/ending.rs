//! How a recipient that waits for a decision, or is watched, has left the queue: what the queue still says of it, and the
//! one judgement on that.
//!
//! Apart because desk and sweep ask the same, the one to show it and the other to record it.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::engine::Engine;
use super::source::{self, Source};
use super::{MoveError, Sighting, late};
use crate::case::store::{Store, StoreError};
use crate::case::{Case, CaseState, Recipient, RecipientState};
use crate::postfix::{Instance, Log, deferrals};

/// What the queue says of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// Its record is still to do.
    Waiting,
    /// Its record is marked done.
    Done {
        /// Postfix is about to return the message for this recipient.
        bounced: bool,
    },
    /// The message is there, and has no such recipient.
    Unlisted,
    /// The message is not in the queue.
    NoMessage,
}

/// The state of a recipient that has left, if the lookout did not see it leave; `None` while it waits. Of what nobody saw
/// only this is sure: it is gone, as "delivered" and "returned" make the same mark; but Postfix returns what it could not
/// deliver within the lifetime of the message, and nothing else ends then.
pub fn judge(trace: Trace, expired: bool) -> Option<RecipientState> {
    match trace {
        Trace::Waiting => None,
        Trace::Done { bounced: true } => Some(RecipientState::Returned),
        Trace::NoMessage if expired => Some(RecipientState::Returned),
        Trace::Done { bounced: false } | Trace::NoMessage | Trace::Unlisted => {
            Some(RecipientState::Gone)
        }
    }
}

/// Does it concern us when this recipient leaves the queue by itself?
pub fn waits(recipient: &Recipient) -> bool {
    recipient.state.is_open() || recipient.state == RecipientState::NotOffered
}

/// Which recipients of a case have left the queue, with their new states, as far as that can be seen now.
///
/// # Errors
/// When the queue or the store can't be read.
pub fn look(
    store: &Store,
    engine: &Engine,
    case: &Case,
) -> Result<Vec<(i64, RecipientState)>, MoveError> {
    if case.state == CaseState::Closed {
        return Ok(Vec::new());
    }
    let recipients = store.recipients(case.id)?;
    if !recipients.iter().any(waits) {
        return Ok(Vec::new());
    }
    let pair = engine.pair()?;
    let (sighting, source) = source::sight(&pair.encrypt, &case.key)?;
    let ended = ended(&pair.encrypt, case, &recipients, &sighting, source.as_ref())?;
    Ok(unseen(store, engine, case, ended)?)
}

/// Of recipients that have left: those of which the lookout did not see how. What it records counts.
///
/// # Errors
/// When the store fails.
pub fn unseen(
    store: &Store,
    engine: &Engine,
    case: &Case,
    mut ended: Vec<(i64, RecipientState)>,
) -> Result<Vec<(i64, RecipientState)>, StoreError> {
    if !ended.is_empty() {
        engine.lookout().pump();
        let now = store.recipients(case.id)?;
        ended.retain(|(id, _)| now.iter().any(|one| one.id == *id && waits(one)));
    }
    Ok(ended)
}

/// As [`look`], of a message that was found, or not.
///
/// # Errors
/// When the queue can't be read.
pub fn ended(
    instance: &Instance,
    case: &Case,
    recipients: &[Recipient],
    sighting: &Sighting,
    source: Option<&Source>,
) -> Result<Vec<(i64, RecipientState)>, MoveError> {
    let now = Timestamp::now().as_second();
    let expired = case.retry_until.is_some_and(|until| until <= now);
    let mut traces: Vec<(&Recipient, Trace)> = match (sighting, source) {
        (Sighting::Queued(_), Some(source)) => {
            let records = Records::of(source);
            let traced = |recipient| (recipient, records.trace(source, recipient));
            recipients
                .iter()
                .filter(|one| waits(one))
                .map(traced)
                .collect()
        }
        (Sighting::Queued(_), None) => Vec::new(),
        (Sighting::Gone, _) => recipients
            .iter()
            .filter(|one| waits(one))
            .map(|recipient| (recipient, Trace::NoMessage))
            .collect(),
    };
    let is_done = |trace: &Trace| matches!(trace, Trace::Done { .. });
    if traces.iter().any(|(_, trace)| is_done(trace)) {
        // Postfix keeps the record of a bounce until it is through with the whole message.
        let log = late::read(instance, Log::Bounce, &case.key.queue_id)?.unwrap_or_default();
        let refused: HashSet<_> = deferrals(&log).map(|one| one.recipient).collect();
        for (recipient, trace) in &mut traces {
            if is_done(trace) {
                let bounced = refused.contains(&recipient.address);
                *trace = Trace::Done { bounced };
            }
        }
    }
    let ended = |(recipient, trace): (&Recipient, Trace)| {
        judge(trace, expired).map(|state| (recipient.id, state))
    };
    Ok(traces.into_iter().filter_map(ended).collect())
}

/// The records of a queue file by address: a message may have a hundred thousand.
struct Records<'a>(HashMap<&'a str, bool>);

impl<'a> Records<'a> {
    fn of(source: &'a Source) -> Self {
        let mut pending = HashMap::new();
        for record in &source.content.recipients {
            if let Some(address) = &record.address {
                let waits = record.state == crate::postfix::RecipientState::Pending;
                let done = record.state == crate::postfix::RecipientState::Done;
                if waits || done {
                    *pending.entry(address.as_str()).or_insert(false) |= waits;
                }
            }
        }
        Self(pending)
    }

    fn trace(&self, source: &Source, recipient: &Recipient) -> Trace {
        match self.0.get(recipient.address.as_str()) {
            Some(true) => Trace::Waiting,
            Some(false) => Trace::Done { bounced: false },
            // Perhaps written otherwise in the notice.
            None => match source.records_of(&recipient.address) {
                (pending, _) if !pending.is_empty() => Trace::Waiting,
                (_, true) => Trace::Done { bounced: false },
                _ => Trace::Unlisted,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_saw_is_gone_and_what_outlived_its_time_was_returned() {
        let done = |bounced| Trace::Done { bounced };
        for (trace, in_time, too_late) in [
            (Trace::Waiting, None, None),
            (
                done(false),
                Some(RecipientState::Gone),
                Some(RecipientState::Gone),
            ),
            (
                done(true),
                Some(RecipientState::Returned),
                Some(RecipientState::Returned),
            ),
            (
                Trace::NoMessage,
                Some(RecipientState::Gone),
                Some(RecipientState::Returned),
            ),
            (
                Trace::Unlisted,
                Some(RecipientState::Gone),
                Some(RecipientState::Gone),
            ),
        ] {
            assert_eq!(judge(trace, false), in_time, "{trace:?}");
            assert_eq!(judge(trace, true), too_late, "{trace:?}");
        }
    }
}
