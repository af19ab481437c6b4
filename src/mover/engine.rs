//! The move, step by step, and its recovery: both are the same loop over the journal.
//!
//! | journal  | what is on disk                                                                      |
//! | -------- | ------------------------------------------------------------------------------------ |
//! | planned  | nothing has changed; the message may be on hold                                        |
//! | begun    | the source is on hold and unmarked or partly marked; the copy may be in may's hold      |
//! | marked   | the source is on hold and marked; the copy is in may's hold or beyond                  |
//! | requeued | the copy is in the hands of the may instance; the source is on hold                    |
//! | done     | the source is removed, or back in the deferred queue, or on hold as it was before      |
//!
//! Each step first makes its change durable and then says so in the journal. A killed mover finds the step that the
//! journal knows, and from the two hold queues whether the next change was already made.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fail::fail_point;
use log::{error, info, warn};

use super::source::{self, Source};
use super::{MoveError, Sighting, copy, shown};
use crate::case::store::{Move, MoveId, Store};
use crate::case::{Action, CaseId, MessageKey, MoveStep, Outcome};
use crate::postfix::mark_done;
use crate::postfix::{Instance, Queue, QueueId};

/// How far one try of a move has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The move is finished, or stopped for an admin to look at.
    Ended,
    /// It has to wait, for the reason given.
    Later(&'static str),
}

/// Carries out moves. One a case at a time; different cases in parallel.
pub struct Engine {
    store: Arc<Store>,
    encrypt: Instance,
    may: Instance,
    busy: Mutex<HashSet<CaseId>>,
    freed: Condvar,
}

/// Says that a case is being worked on, until it is dropped.
struct Turn<'a> {
    engine: &'a Engine,
    case: CaseId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.engine
            .busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.case);
        self.engine.freed.notify_all();
    }
}

impl Engine {
    /// An engine between these two instances.
    pub fn new(store: Arc<Store>, encrypt: Instance, may: Instance) -> Self {
        Self {
            store,
            encrypt,
            may,
            busy: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    /// The instance with mandatory TLS.
    pub fn encrypt(&self) -> &Instance {
        &self.encrypt
    }

    fn turn(&self, case: CaseId, deadline: Instant) -> Option<Turn<'_>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while !busy.insert(case) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return None;
            }
            busy = self
                .freed
                .wait_timeout(busy, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Some(Turn { engine: self, case })
    }

    /// Brings a move as far as it goes before `deadline`. Safe to call again after any error and any crash.
    ///
    /// # Errors
    /// When a step fails; the journal then says how far the move has come.
    pub fn carry_out(
        &self,
        id: MoveId,
        case: CaseId,
        deadline: Instant,
    ) -> Result<Progress, MoveError> {
        let Some(_turn) = self.turn(case, deadline) else {
            return Ok(Progress::Later(
                "another decision on the same message is being carried out",
            ));
        };
        let key = self
            .store
            .case(case)?
            .ok_or(MoveError::NoSuchMove(id.0))?
            .key;
        loop {
            let journal = self
                .store
                .load_move(id)?
                .ok_or(MoveError::NoSuchMove(id.0))?;
            let waits = match journal.step {
                MoveStep::Planned => self.begin(&journal, &key, deadline)?,
                MoveStep::Begun => self.resume(&journal, &key, deadline)?,
                MoveStep::Marked => self.hand_over(&journal, &key)?,
                MoveStep::Requeued => self.finish(&journal, &key)?,
                MoveStep::Done | MoveStep::Conflict => return Ok(Progress::Ended),
            };
            if let Some(reason) = waits {
                return Ok(Progress::Later(reason));
            }
        }
    }

    /// Planned: puts the message on hold and makes the copy, or finds that nothing is left to do.
    fn begin(
        &self,
        journal: &Move,
        key: &MessageKey,
        deadline: Instant,
    ) -> Result<Option<&'static str>, MoveError> {
        if let Some(reason) = self.hold(journal, key, deadline)? {
            return Ok(Some(reason));
        }
        let Some(mut source) = source::lock_held(&self.encrypt, key, deadline)? else {
            return match source::sight(&self.encrypt, key)?.0 {
                Sighting::Gone => self.leave_undone(journal),
                Sighting::Queued(_) => Ok(Some("a delivery of the message is under way")),
            };
        };
        if !source.is_message(key) {
            return self.leave_undone(journal);
        }
        let outcomes: Vec<(i64, Outcome)> = journal
            .recipients
            .iter()
            .map(|recipient| (recipient.id, outcome_of(&source, recipient)))
            .collect();
        let sent = offsets_of(&source, journal, &outcomes, Outcome::Released);
        let copy = if sent.is_empty() {
            None
        } else {
            match self.copy(key, &mut source, &sent) {
                Ok(copy) => Some(copy),
                Err(error) => {
                    if let Err(second) = self.let_go(journal.id, key) {
                        warn!("{second}; the message stays on hold until the next try");
                    }
                    return Err(error);
                }
            }
        };
        fail_point!("move::copied");
        self.store.begin_move(
            journal.id,
            copy.as_ref().map(|copy| copy.name.as_str()),
            &outcomes,
        )?;
        fail_point!("move::begun");
        if let Some(copy) = &copy {
            copy::publish(&self.may, copy).map_err(|source| MoveError::File {
                queue_id: key.queue_id.clone(),
                doing: "publish the copy as",
                path: self.may.path(Queue::Hold, &copy.name),
                source,
            })?;
        }
        fail_point!("move::published");
        self.mark(
            journal.id,
            key,
            &source,
            &offsets_of_marked(&source, journal, &outcomes),
        )?;
        Ok(None)
    }

    /// Puts the message on hold, remembering whether it was before. `Some` when it has to wait.
    fn hold(
        &self,
        journal: &Move,
        key: &MessageKey,
        deadline: Instant,
    ) -> Result<Option<&'static str>, MoveError> {
        let id = &key.queue_id;
        loop {
            match source::sight(&self.encrypt, key)?.0 {
                // `begin` finds that it is gone, too.
                Sighting::Gone => return Ok(None),
                Sighting::Queued(Queue::Hold) => {
                    // A hold that the journal does not know of is not ours, and stays afterwards.
                    if self
                        .store
                        .load_move(journal.id)?
                        .is_some_and(|now| now.held_before.is_none())
                    {
                        self.store.remember_hold(journal.id, Some(true))?;
                    }
                    return Ok(None);
                }
                Sighting::Queued(Queue::Deferred) => {
                    self.store.remember_hold(journal.id, Some(false))?;
                    fail_point!("move::about-to-hold");
                    if self.encrypt.hold_deferred(id)? {
                        fail_point!("move::held");
                        return Ok(None);
                    }
                    self.store.remember_hold(journal.id, None)?;
                }
                // The queue manager has the message in memory, and would go on delivering it whatever its file says.
                Sighting::Queued(Queue::Active | Queue::Incoming) => {}
            }
            if !source::pause(deadline) {
                return Ok(Some("a delivery of the message is under way"));
            }
        }
    }

    /// Undoes our hold while nothing else has changed: what keeps the copy from being made (a limit, a full disk) may
    /// last, and the other recipients need not wait for it.
    fn let_go(&self, id: MoveId, key: &MessageKey) -> Result<(), MoveError> {
        let now = self.store.load_move(id)?;
        if now.is_some_and(|now| now.held_before == Some(false)) {
            self.encrypt.release_hold(&key.queue_id)?;
            // In this order: forgotten first, our own hold would be taken for an admin's after a crash.
            self.store.remember_hold(id, None)?;
        }
        Ok(())
    }

    fn copy(
        &self,
        key: &MessageKey,
        source: &mut Source,
        sent: &[u64],
    ) -> Result<copy::Copy, MoveError> {
        let limit = self.may.message_size_limit;
        let size = source.content.size.data_size;
        if limit > 0 && size > limit {
            let may = self.may.config_dir.clone();
            return Err(MoveError::TooLarge {
                queue_id: key.queue_id.clone(),
                size,
                limit,
                may,
            });
        }
        copy::make(&self.may, source, sent).map_err(|error| MoveError::File {
            queue_id: key.queue_id.clone(),
            doing: "copy the message into the queue of the may instance at",
            path: self.may.queue_directory.clone(),
            source: error,
        })
    }

    fn mark(
        &self,
        id: MoveId,
        key: &MessageKey,
        source: &Source,
        offsets: &[u64],
    ) -> Result<(), MoveError> {
        let fault = |error: std::io::Error| MoveError::File {
            queue_id: key.queue_id.clone(),
            doing: "mark recipients done in",
            path: source.path.clone(),
            source: error,
        };
        mark_done(&source.file, offsets).map_err(|error| fault(std::io::Error::other(error)))?;
        fail_point!("move::written");
        source.file.sync_all().map_err(fault)?;
        fail_point!("move::synced");
        self.store.advance(id, MoveStep::Marked)?;
        fail_point!("move::marked");
        Ok(())
    }

    /// Begun, found after a crash or an error: goes on if that is safe, starts over if nothing was changed.
    fn resume(
        &self,
        journal: &Move,
        key: &MessageKey,
        deadline: Instant,
    ) -> Result<Option<&'static str>, MoveError> {
        let outcomes: Vec<(i64, Outcome)> = journal
            .recipients
            .iter()
            .filter_map(|recipient| Some((recipient.id, recipient.outcome?)))
            .collect();
        if !outcomes
            .iter()
            .any(|(_, outcome)| matches!(outcome, Outcome::Released | Outcome::Deleted))
        {
            self.store.advance(journal.id, MoveStep::Requeued)?;
            return Ok(None);
        }
        let copy = self.copy_of(journal)?;
        let copy_exists = copy
            .as_ref()
            .map(|copy| self.may_holds(copy))
            .transpose()?
            .unwrap_or(false);
        if copy.is_some() && !copy_exists {
            // It never got its name, so the source was never marked.
            self.store.start_over(journal.id)?;
            return Ok(None);
        }
        match source::sight(&self.encrypt, key)? {
            (Sighting::Queued(Queue::Hold), _) => {
                let Some(source) = source::lock_held(&self.encrypt, key, deadline)? else {
                    return Ok(Some("a delivery of the message is under way"));
                };
                self.mark(
                    journal.id,
                    key,
                    &source,
                    &offsets_of_marked(&source, journal, &outcomes),
                )?;
                Ok(None)
            }
            // Without a copy nothing can be doubled: what is gone by now is gone, and the rest is deleted anew.
            _ if copy.is_none() => {
                self.store.start_over(journal.id)?;
                Ok(None)
            }
            (Sighting::Queued(_), Some(source)) if untouched(&source, journal, &outcomes) => {
                // Somebody released the source while we were down, before any mark: the copy was never seen by anyone.
                if let Some(copy) = &copy {
                    self.may.delete_held(copy)?;
                }
                self.store.start_over(journal.id)?;
                Ok(None)
            }
            (sighting, _) => {
                let found = if matches!(sighting, Sighting::Gone) {
                    "was removed"
                } else {
                    "was released from hold"
                };
                let copy = copy.as_ref().map_or("nothing", QueueId::as_str);
                let why = format!(
                    "the message {found} in the encrypt instance while it was being moved; on hold in the may instance: \
                     {copy} (send it with postsuper -r, or remove it with postsuper -d)"
                );
                error!("{}, conflict: {why}", shown(key));
                self.store.stop_move(journal, &why)?;
                Ok(None)
            }
        }
    }

    /// Marked: the may instance gets the copy.
    fn hand_over(
        &self,
        journal: &Move,
        key: &MessageKey,
    ) -> Result<Option<&'static str>, MoveError> {
        if let Some(copy) = self.copy_of(journal)? {
            if self.may_holds(&copy)? {
                self.may.requeue_held(&copy)?;
                fail_point!("move::requeued-unsaid");
                info!(
                    "{}, handed to the may instance as orig_id={copy}",
                    shown(key)
                );
            }
            // Also when a mover that died had requeued it: it may not have come to this.
            if let Err(error) = self.may.wake_pickup() {
                warn!(
                    "{}: {error}; is the may instance stopped? It takes the message when it starts",
                    key.queue_id
                );
            }
        }
        self.store.advance(journal.id, MoveStep::Requeued)?;
        fail_point!("move::requeued");
        Ok(None)
    }

    /// Requeued: the source is removed if nobody waits for it any more, and goes on otherwise.
    fn finish(&self, journal: &Move, key: &MessageKey) -> Result<Option<&'static str>, MoveError> {
        if let Some(source) = source::open(&self.encrypt, Queue::Hold, &key.queue_id, false)?
            && source.is_message(key)
        {
            if source.pending().is_empty() {
                self.encrypt.delete_held(&key.queue_id)?;
            } else if journal.held_before != Some(true) {
                self.encrypt.release_hold(&key.queue_id)?;
            }
        }
        fail_point!("move::finished-unsaid");
        let copy = journal.copy_name.as_deref().unwrap_or("none");
        self.store
            .finish_move(journal, &format!("copy for the may instance: {copy}"))?;
        for recipient in &journal.recipients {
            let status = recipient.outcome.unwrap_or(Outcome::AlreadyGone);
            info!(
                "{}: to=<{}>, status={status}, orig_id={copy}",
                key.queue_id, recipient.address
            );
        }
        Ok(None)
    }

    /// The message is no longer there: nothing is done, and everyone is told so.
    fn leave_undone(&self, journal: &Move) -> Result<Option<&'static str>, MoveError> {
        let outcomes: Vec<_> = journal
            .recipients
            .iter()
            .map(|recipient| (recipient.id, Outcome::AlreadyGone))
            .collect();
        self.store.begin_move(journal.id, None, &outcomes)?;
        self.store.advance(journal.id, MoveStep::Requeued)?;
        Ok(None)
    }

    fn copy_of(&self, journal: &Move) -> Result<Option<QueueId>, MoveError> {
        let name = journal.copy_name.as_deref();
        name.map(|name| {
            name.parse()
                .map_err(|_| MoveError::NoSuchMove(journal.id.0))
        })
        .transpose()
    }

    fn may_holds(&self, copy: &QueueId) -> Result<bool, MoveError> {
        self.may
            .holds(Queue::Hold, copy)
            .map_err(|source| MoveError::File {
                queue_id: copy.clone(),
                doing: "look for",
                path: self.may.path(Queue::Hold, copy),
                source,
            })
    }
}

/// What can be done for a recipient, as the locked source says.
fn outcome_of(source: &Source, recipient: &crate::case::store::MoveRecipient) -> Outcome {
    match (source.records_of(&recipient.address), recipient.action) {
        ((pending, _), Action::Send) if !pending.is_empty() => Outcome::Released,
        ((pending, _), Action::Delete) if !pending.is_empty() => Outcome::Deleted,
        ((_, true), _) => Outcome::AlreadyDelivered,
        _ => Outcome::AlreadyGone,
    }
}

fn offsets_of(
    source: &Source,
    journal: &Move,
    outcomes: &[(i64, Outcome)],
    wanted: Outcome,
) -> Vec<u64> {
    let chosen = journal
        .recipients
        .iter()
        .filter(|recipient| outcomes.contains(&(recipient.id, wanted)));
    chosen
        .flat_map(|recipient| source.records_of(&recipient.address).0)
        .collect()
}

fn offsets_of_marked(source: &Source, journal: &Move, outcomes: &[(i64, Outcome)]) -> Vec<u64> {
    let mut offsets = offsets_of(source, journal, outcomes, Outcome::Released);
    offsets.extend(offsets_of(source, journal, outcomes, Outcome::Deleted));
    offsets
}

/// Does every recipient that the move is about still wait, without a mark of ours or of a delivery?
fn untouched(source: &Source, journal: &Move, outcomes: &[(i64, Outcome)]) -> bool {
    let concerned = journal.recipients.iter().filter(|recipient| {
        outcomes.iter().any(|(id, outcome)| {
            *id == recipient.id && matches!(outcome, Outcome::Released | Outcome::Deleted)
        })
    });
    concerned.into_iter().all(|recipient| {
        let (pending, done) = source.records_of(&recipient.address);
        !pending.is_empty() && !done
    })
}
