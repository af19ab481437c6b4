//! The move, step by step. Recovery is the same walk over the journal; what only recovery does is in [`super::recovery`].
//!
//! | journal  | what is on disk                                                                                  |
//! | -------- | ------------------------------------------------------------------------------------------------ |
//! | planned  | nothing has changed; the message may be on hold                                                  |
//! | begun    | the source is on hold: as it was, or sealed and perhaps marked; the copy may be in may's hold      |
//! | marked   | the source is on hold and marked, perhaps still sealed; the copy is ready, in may's hold or beyond |
//! | requeued | the copy is in the hands of the may instance; the source is on hold                              |
//! | done     | the source is removed, or back in the deferred queue, or on hold as it was before                |
//!
//! Each step first makes its change durable and then says so in the journal. The copy is *ready* (mode 0700) only after
//! the source is marked: until then no part of Postfix touches it, not even when somebody releases all held mail. The
//! source is *sealed* (mode 0600) from before the first mark until the journal says `marked`: so a mark in a sealed source
//! is ours, and while the journal says `begun` one in a source that is not sealed is somebody else's.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use fail::fail_point;
use log::{info, warn};

use super::engine::Later;
use super::source::{self, Source};
use super::{MoveError, Sighting, copy, handover, shown};
use crate::case::store::{Move, MoveRecipient, Refused, Store};
use crate::case::{Action, MessageKey, MoveStep, Outcome, Recipient};
use crate::postfix::{Instance, Queue, QueueId, mark_done};

/// Why a move has to wait; `None` when its journal has advanced.
pub type Waits = Option<Later>;

/// One move of one message between two instances.
pub struct Steps<'a> {
    pub store: &'a Store,
    pub encrypt: &'a Instance,
    pub may: &'a Instance,
    pub key: &'a MessageKey,
    /// Did the queue manager of the may instance not take the last request?
    pub unheard: &'a AtomicBool,
    /// Told of a copy before the may instance gets it.
    pub expect: &'a dyn Fn(&QueueId),
    /// After this the store says how recipients have ended, as far as that was seen.
    pub catch_up: &'a dyn Fn(),
    /// The recipients of a move that must not be sent to, as the last attempt has failed.
    pub refused: &'a Judge<'a>,
}

/// Says whom a move must not send to.
pub type Judge<'a> = dyn Fn(&Source, &Move) -> Result<Vec<Refused>, MoveError> + 'a;

/// What becomes of each recipient of the move, by number in the store.
pub type Outcomes = Vec<(i64, Outcome)>;

/// The held source and the nameless copy, recorded in the journal.
struct Begun {
    source: Source,
    outcomes: Outcomes,
    copy: Option<copy::Copy>,
}

enum Prepared {
    Begun(Box<Begun>),
    Waits(Later),
    Refused(Vec<Refused>),
    Gone,
}

impl Steps<'_> {
    /// Planned: puts the message on hold, makes the copy and marks the source, or finds that nothing is left to do.
    pub fn begin(&self, journal: &Move, deadline: Instant) -> Result<Waits, MoveError> {
        if let Some(reason) = self.hold(journal, deadline)? {
            return Ok(Some(reason));
        }
        let begun = match self.prepare(journal, deadline) {
            Ok(Prepared::Begun(begun)) => *begun,
            Ok(Prepared::Waits(reason)) => return Ok(Some(reason)),
            Ok(Prepared::Gone) => return self.leave_undone(journal),
            Ok(Prepared::Refused(refused)) => {
                // In this order: once its decisions are undone, a move may have no recipients, and nobody else would end
                // its hold.
                self.end_hold(journal)?;
                self.store.refuse(journal, &refused)?;
                return Ok(None);
            }
            Err(error) => {
                self.let_go(journal);
                return Err(error);
            }
        };
        fail_point!("move::begun");
        if let Some(copy) = &begun.copy {
            copy::publish(self.may, copy).map_err(|error| {
                // Without a name it is as if it had never been; with one, the next try goes on from here.
                if matches!(self.may_holds(&copy.name), Ok(false))
                    && self.store.start_over(journal.id).is_ok()
                {
                    self.let_go(journal);
                }
                self.fault(
                    "publish the copy as",
                    &self.may.path(Queue::Hold, &copy.name),
                    error,
                )
            })?;
        }
        fail_point!("move::published");
        self.mark(journal, &begun.source, &begun.outcomes)
    }

    fn note_hold(&self, journal: &Move) -> Result<(), MoveError> {
        if self.store.note_hold(journal.case, true)? {
            info!("{}, on hold by an administrator", shown(self.key));
        }
        Ok(())
    }

    /// Puts the message on hold, remembering whether another move had done so before. What an administrator holds stays
    /// until it is let go.
    fn hold(&self, journal: &Move, deadline: Instant) -> Result<Waits, MoveError> {
        loop {
            match source::sight(self.encrypt, self.key)?.0 {
                // `prepare` finds that it is gone, too.
                Sighting::Gone => return Ok(None),
                Sighting::Queued(Queue::Hold) => {
                    // A hold that the journal does not know of is an administrator's.
                    if !self.store.holds(journal.case)? {
                        self.note_hold(journal)?;
                        return Ok(Some(Later::Hold));
                    }
                    // Of another move of the message, perhaps: who ends that ends it.
                    let now = self.store.load_move(journal.id)?;
                    if now.is_some_and(|now| now.held_before.is_none()) {
                        self.store.remember_hold(journal.id, Some(true))?;
                    }
                    return Ok(None);
                }
                Sighting::Queued(Queue::Deferred) => {
                    self.store.remember_hold(journal.id, Some(false))?;
                    fail_point!("move::about-to-hold");
                    let held = self.encrypt.hold_deferred(&self.key.queue_id);
                    if matches!(held, Ok(true)) {
                        fail_point!("move::held");
                        return Ok(None);
                    }
                    // A command that failed may have held it all the same. One that did not must not make a hold that
                    // comes later ours.
                    let now = source::sight(self.encrypt, self.key)?.0;
                    if held.is_ok() || !matches!(now, Sighting::Queued(Queue::Hold)) {
                        self.store.remember_hold(journal.id, None)?;
                    }
                    held?;
                }
                // The queue manager has the message in memory, and would go on delivering it whatever its file says.
                Sighting::Queued(Queue::Active | Queue::Incoming) => {}
            }
            if !source::pause(deadline) {
                return Ok(Some(Later::Delivery));
            }
        }
    }

    /// Makes the copy and says in the journal what is about to happen. Until it has returned nothing has changed but
    /// the hold.
    fn prepare(&self, journal: &Move, deadline: Instant) -> Result<Prepared, MoveError> {
        let Some(mut source) = source::lock_held(self.encrypt, self.key, deadline)? else {
            return Ok(match source::sight(self.encrypt, self.key)?.0 {
                Sighting::Gone => Prepared::Gone,
                Sighting::Queued(_) => Prepared::Waits(Later::Delivery),
            });
        };
        if !source.is_message(self.key) {
            return Ok(Prepared::Gone);
        }
        if source.is_sealed().unwrap_or(true) {
            return Err(MoveError::Unsafe {
                queue_id: self.key.queue_id.clone(),
                path: source.path,
                why: "it is sealed by a move that the journal does not know".to_owned(),
            });
        }
        let refused = (self.refused)(&source, journal)?;
        if !refused.is_empty() {
            return Ok(Prepared::Refused(refused));
        }
        (self.catch_up)();
        let known = self.store.recipients(journal.case)?;
        source.refuse_unsafe(self.key, known.iter().map(|one| &one.address))?;
        let recipients = journal.recipients.iter();
        let outcomes: Outcomes = recipients
            .map(|one| (one.id, outcome_of(&source, one, &known)))
            .collect();
        let sent = offsets_of(&source, journal, &outcomes, Outcome::Released);
        let copy = if sent.is_empty() {
            None
        } else {
            Some(self.copy(&mut source, &sent)?)
        };
        fail_point!("move::copied");
        let name = copy.as_ref().map(|copy| copy.name.as_str());
        self.store.begin_move(journal.id, name, &outcomes)?;
        Ok(Prepared::Begun(Box::new(Begun {
            source,
            outcomes,
            copy,
        })))
    }

    /// Undoes our hold while nothing else has changed: what keeps a move from beginning (a limit, a full disk) may
    /// last, and the other recipients need not wait for it.
    pub(super) fn let_go(&self, journal: &Move) {
        if let Err(error) = self.end_hold(journal) {
            warn!(
                "{}: {error}; the message may stay on hold until the next try",
                self.key.queue_id
            );
        }
    }

    /// As [`Steps::let_go`], for one that must not go on when it fails.
    pub(super) fn end_hold(&self, journal: &Move) -> Result<(), MoveError> {
        let now = self.store.load_move(journal.id)?;
        if let Some(now) = now.filter(|now| now.held_before == Some(false)) {
            if !self.store.pass_hold_on(&now)? {
                self.encrypt.release_hold(&self.key.queue_id)?;
            }
            // In this order: forgotten first, our own hold would be taken for an admin's after a crash.
            self.store.remember_hold(journal.id, None)?;
        }
        Ok(())
    }

    fn copy(&self, source: &mut Source, sent: &[u64]) -> Result<copy::Copy, MoveError> {
        copy::make(self.may, source, sent).map_err(|error| {
            let doing = "copy the message into the queue of the may instance at";
            self.fault(doing, &self.may.queue_directory, error)
        })
    }

    /// Marks the recipients of the move done in the source, then makes the copy ready, then says so.
    pub(super) fn mark(
        &self,
        journal: &Move,
        source: &Source,
        outcomes: &Outcomes,
    ) -> Result<Waits, MoveError> {
        let mut offsets = offsets_of(source, journal, outcomes, Outcome::Released);
        offsets.extend(offsets_of(source, journal, outcomes, Outcome::Deleted));
        let fault = |error| self.fault("mark recipients done in", &source.path, error);
        if !source.is_sealed().map_err(fault)? {
            source.seal().map_err(fault)?;
            fail_point!("move::sealed");
            // Released a moment before, it may be with the queue manager, who delivers from memory. Nothing is marked.
            if !source.is_still_there() {
                source.unseal().map_err(fault)?;
                return Ok(Some(Later::Moved));
            }
        }
        mark_done(&source.file, &offsets).map_err(|error| fault(std::io::Error::other(error)))?;
        fail_point!("move::written");
        source.file.sync_all().map_err(fault)?;
        fail_point!("move::synced");
        if !source.is_still_there() {
            return Ok(Some(Later::Moved));
        }
        // The journal that was handed in may be older than the name.
        let name = self
            .store
            .load_move(journal.id)?
            .and_then(|now| now.copy_name);
        if let Some(copy) = self.parse(name.as_deref())? {
            copy::make_ready(self.may, &copy).map_err(|error| {
                self.fault("make ready", &self.may.path(Queue::Hold, &copy), error)
            })?;
        }
        fail_point!("move::ready");
        self.store.advance(journal.id, MoveStep::Marked)?;
        fail_point!("move::marked-sealed");
        Ok(None)
    }

    /// Marked: the may instance's queue manager gets the copy as it is. `postsuper -r` would have pickup and cleanup take
    /// it in anew, and they drop, cut or bounce what exceeds limits that the encrypt instance did not have, and forget
    /// SMTPUTF8.
    pub fn hand_over(&self, journal: &Move) -> Result<Waits, MoveError> {
        self.unseal()?;
        fail_point!("move::marked");
        if let Some(copy) = self.parse(journal.copy_name.as_deref())? {
            (self.expect)(&copy);
            let doing = "give the copy to the queue manager from";
            let held = self.may_holds(&copy)?
                && handover::to_incoming(self.may, &copy).map_err(|error| {
                    self.fault(doing, &self.may.path(Queue::Hold, &copy), error)
                })?;
            if held {
                fail_point!("move::requeued-unsaid");
                info!("{}, handed to the may instance as {copy}", shown(self.key));
            }
            // Also when a mover that died had handed it over: it may not have come to this.
            if let Err(error) = handover::wake(self.may, self.unheard) {
                warn!(
                    "{}: {}: {error}; is the may instance stopped, or does its queue manager hang? It sends {copy} when it runs again",
                    self.key.queue_id,
                    handover::socket(self.may).display()
                );
            }
        }
        self.store.advance(journal.id, MoveStep::Requeued)?;
        fail_point!("move::requeued");
        Ok(None)
    }

    /// Requeued: the source is removed if nobody waits for it any more, and goes on otherwise.
    pub fn finish(&self, journal: &Move) -> Result<Waits, MoveError> {
        let id = &self.key.queue_id;
        if let Some(source) = source::open(self.encrypt, Queue::Hold, id, false)?
            && source.is_message(self.key)
            // One that an error keeps half-way: its recipients must not be delivered to meanwhile.
            && !self.store.pass_hold_on(journal)?
        {
            // `postsuper -d` would also remove what Postfix has yet to report about other recipients; the queue manager
            // reports first, and then removes a message without recipients.
            let reports = ["bounce", "trace"];
            let owed = reports
                .iter()
                .any(|log| self.encrypt.directory(log, id).join(id.as_str()).exists());
            if source.pending().is_empty() && !owed {
                self.encrypt.delete_held(id)?;
            } else if source.pending().is_empty() || journal.held_before != Some(true) {
                self.encrypt.release_hold(id)?;
            }
        }
        fail_point!("move::finished-unsaid");
        let copy = journal.copy_name.as_deref().unwrap_or("none");
        let detail = match &journal.copy_name {
            Some(copy) => format!("queue ID in the may instance: {copy}"),
            None => "nothing went to the may instance".to_owned(),
        };
        self.store.finish_move(journal, &detail)?;
        for recipient in &journal.recipients {
            let status = recipient.outcome.unwrap_or(Outcome::AlreadyGone);
            info!(
                "{id}: to=<{}>, status={status}, may instance: {copy}",
                recipient.address
            );
        }
        Ok(None)
    }

    /// The message is no longer there: nothing is done, and everyone is told so.
    pub(super) fn leave_undone(&self, journal: &Move) -> Result<Waits, MoveError> {
        (self.catch_up)();
        let known = self.store.recipients(journal.case)?;
        let recipients = journal.recipients.iter();
        let outcomes: Outcomes = recipients
            .map(|one| (one.id, outcome_when_late(one, &known)))
            .collect();
        self.store.begin_move(journal.id, None, &outcomes)?;
        self.store.advance(journal.id, MoveStep::Requeued)?;
        Ok(None)
    }

    pub(super) fn parse(&self, name: Option<&str>) -> Result<Option<QueueId>, MoveError> {
        let bad = |_| MoveError::BadCopyName {
            queue_id: self.key.queue_id.clone(),
            name: name.unwrap_or_default().to_owned(),
        };
        name.map(str::parse).transpose().map_err(bad)
    }

    pub(super) fn may_holds(&self, copy: &QueueId) -> Result<bool, MoveError> {
        let held = self.may.holds(Queue::Hold, copy);
        held.map_err(|error| self.fault("look for", &self.may.path(Queue::Hold, copy), error))
    }

    pub(super) fn fault(
        &self,
        doing: &'static str,
        path: &std::path::Path,
        source: std::io::Error,
    ) -> MoveError {
        MoveError::File {
            queue_id: self.key.queue_id.clone(),
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// What can be done for a recipient, as the locked source says.
fn outcome_of(source: &Source, recipient: &MoveRecipient, known: &[Recipient]) -> Outcome {
    match (source.records_of(&recipient.address), recipient.action) {
        ((pending, _), Action::Send) if !pending.is_empty() => Outcome::Released,
        ((pending, _), Action::Delete) if !pending.is_empty() => Outcome::Deleted,
        _ => outcome_when_late(recipient, known),
    }
}

/// What became of a recipient that Postfix is done with. Its mark does not say: delivered and returned look the same, so
/// only what was seen at the moment counts.
fn outcome_when_late(recipient: &MoveRecipient, known: &[Recipient]) -> Outcome {
    let seen = known.iter().find(|one| one.id == recipient.id);
    seen.map_or(Outcome::AlreadyGone, |one| one.state.outcome_when_late())
}

fn offsets_of(source: &Source, journal: &Move, outcomes: &Outcomes, wanted: Outcome) -> Vec<u64> {
    let chosen = journal
        .recipients
        .iter()
        .filter(|one| outcomes.contains(&(one.id, wanted)));
    chosen
        .flat_map(|one| source.records_of(&one.address).0)
        .collect()
}

#[cfg(test)]
#[path = "damage_tests.rs"]
mod damage_tests;
