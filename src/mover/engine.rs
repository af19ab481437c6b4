//! Who may move when: one move a case at a time, different cases in parallel, with the settings that the instances have
//! now. The steps themselves are in [`super::steps`].

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use fail::fail_point;
use log::{debug, info, warn};

use super::source::Source;
use super::steps::Steps;
use super::{Envelope, Lookout, MoveError, Ways, handover, late, source};
use crate::address::Address;
use crate::case::store::{Decider, Move, MoveId, MoveRecipient, Refused, Store};
use crate::case::{Actor, CaseId, Failure, MessageKey, MoveStep, alert, policy};
use crate::config::Offer;
use crate::intake::Deferred;
use crate::postfix::instance::PostfixError;
use crate::postfix::{Instance, Log};
use crate::standing::Standing;

/// How far one try of a move has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The move is finished, or stopped for an admin to look at.
    Ended,
    /// It has to wait, for the reason given.
    Later(Later),
}

/// Why a move has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Later {
    /// A delivery agent has the message.
    Delivery,
    /// An administrator holds it.
    Hold,
    /// Somebody has moved it out of the hold queue in the middle of a step.
    Moved,
    /// Somebody is at the same case.
    Turn,
    /// An earlier move of the message is stopped.
    Stopped,
}

impl fmt::Display for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delivery => "a delivery of the message is under way",
            Self::Hold => "an administrator holds the message (postsuper -h)",
            Self::Moved => "somebody has moved the message out of the hold queue just now",
            Self::Stopped => "an earlier decision about this message was stopped for an admin to look at (`posttls resolve`)",
            Self::Turn => "another decision on the same message is being carried out",
        })
    }
}

/// The two instances, as they are set up now.
pub struct Pair {
    /// The one with mandatory TLS.
    pub encrypt: Instance,
    /// The one with opportunistic TLS.
    pub may: Instance,
}

/// Carries out moves. One a case at a time; different cases in parallel.
pub struct Engine {
    store: Arc<Store>,
    lookout: Arc<Lookout>,
    ways: Ways,
    /// What may be offered, as configured now.
    offer: RwLock<Offer>,
    pair: RwLock<Arc<Pair>>,
    busy: Mutex<HashSet<CaseId>>,
    freed: Condvar,
    /// When the hook last had to record something that was not judged.
    unjudged: Mutex<Option<Instant>>,
    /// Did the queue manager of the may instance not take the last request? See [`Engine::wake_again`].
    unheard: AtomicBool,
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
    /// An engine between these two instances; `remote_hosts` as in the configuration.
    pub fn new(
        store: Arc<Store>,
        encrypt: Instance,
        may: Instance,
        remote_hosts: &[String],
    ) -> Self {
        Self {
            ways: Ways::new(remote_hosts),
            offer: RwLock::new(Offer {
                failures: Vec::new(),
            }),
            lookout: Arc::new(Lookout::new(Arc::clone(&store))),
            store,
            pair: RwLock::new(Arc::new(Pair { encrypt, may })),
            busy: Mutex::default(),
            freed: Condvar::new(),
            unjudged: Mutex::default(),
            unheard: AtomicBool::new(false),
        }
    }

    /// The hook got no judgement, or too late: what it records now is to be judged soon.
    pub(super) fn owes_judgement(&self) {
        let mut unjudged = self.unjudged.lock().unwrap_or_else(PoisonError::into_inner);
        *unjudged = Some(Instant::now());
    }

    /// How long ago that was.
    pub(super) fn owed_judgement(&self) -> Option<Duration> {
        let unjudged = self.unjudged.lock().unwrap_or_else(PoisonError::into_inner);
        unjudged.map(|when| when.elapsed())
    }

    /// Who sees what becomes of messages.
    pub fn lookout(&self) -> &Arc<Lookout> {
        &self.lookout
    }

    /// Follows another configuration of what may be offered, from now on. Before the first one nothing may.
    pub fn follow(&self, offer: &Offer) {
        *self.offer.write().unwrap_or_else(PoisonError::into_inner) = offer.clone();
    }

    /// Who finds out what may be sent at all.
    pub fn ways(&self) -> &Ways {
        &self.ways
    }

    /// The two instances with the settings that they have now: when a main.cf has changed it is read again. Limits and
    /// the layout of the queues decide about mail; what they were when we started does not count.
    ///
    /// # Errors
    /// When an instance can't be asked.
    pub fn pair(&self) -> Result<Arc<Pair>, PostfixError> {
        let known = Arc::clone(&self.pair.read().unwrap_or_else(PoisonError::into_inner));
        if known.encrypt.is_current() && known.may.is_current() {
            return Ok(known);
        }
        let fresh = Arc::new(Pair {
            encrypt: Instance::load(&known.encrypt.config_dir)?,
            may: Instance::load(&known.may.config_dir)?,
        });
        info!("read the settings of both instances again: a main.cf has changed");
        *self.pair.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&fresh);
        Ok(fresh)
    }

    /// Asks the queue manager of the may instance once more to look for what it was given, if it took no request before.
    pub fn wake_again(&self) {
        if !self.unheard.load(Ordering::Relaxed) {
            return;
        }
        let may = &Arc::clone(&self.pair.read().unwrap_or_else(PoisonError::into_inner)).may;
        if handover::wake(may, &self.unheard).is_ok() {
            info!(
                "{}: takes requests again, and sends what it was given meanwhile",
                handover::socket(may).display()
            );
        }
    }

    /// Waits until no move is under way, at most for `patience`.
    pub fn wait_until_idle(&self, patience: Duration) {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        // When it takes longer, the journal has what is left.
        drop(
            self.freed
                .wait_timeout_while(busy, patience, |busy| !busy.is_empty()),
        );
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

    /// Brings a move as far as it goes before `deadline`, after whoever is at this case already, for whom it waits until
    /// `turn`. Safe to call again after any error and any crash.
    ///
    /// # Errors
    /// When a step fails; the journal then says how far the move has come.
    pub fn carry_out(
        &self,
        id: MoveId,
        case: CaseId,
        turn: Instant,
        deadline: Instant,
    ) -> Result<Progress, MoveError> {
        let Some(_turn) = self.turn(case, turn) else {
            return Ok(Progress::Later(Later::Turn));
        };
        let key = self
            .store
            .case(case)?
            .ok_or(MoveError::NoSuchMove(id.0))?
            .key;
        self.in_order(id, case, &key, deadline).map_err(|error| {
            self.hindered(case, &error);
            error.about(&key.queue_id)
        })
    }

    /// Has the case tell what keeps its message from being moved.
    pub(super) fn hindered(&self, case: CaseId, error: &MoveError) {
        let pair = Arc::clone(&self.pair.read().unwrap_or_else(PoisonError::into_inner));
        if let Some(why) = error.for_history(&pair.encrypt.config_dir)
            && let Err(error) = self.store.note_hindrance(case, &why)
        {
            // The log has said what is wrong; that the store is, too, others say.
            debug!("{error}");
        }
    }

    /// A message has one move at a time: one that has begun comes first, and one that is stopped keeps the others
    /// waiting, as its marks and its hold must not be taken for theirs.
    fn in_order(
        &self,
        id: MoveId,
        case: CaseId,
        key: &MessageKey,
        deadline: Instant,
    ) -> Result<Progress, MoveError> {
        while let Some((other, step)) = self.store.in_the_way(case, id)? {
            if step == MoveStep::Conflict {
                let why = format!("{}: {}", key.queue_id, Later::Stopped);
                self.store.note_hindrance(case, &why)?;
                return Ok(Progress::Later(Later::Stopped));
            }
            match self.walk(other, case, key, deadline)? {
                Progress::Ended => {}
                later @ Progress::Later(_) => return Ok(later),
            }
        }
        self.walk(id, case, key, deadline)
    }

    /// From the step that the journal has to the next, as far as it goes.
    fn walk(
        &self,
        id: MoveId,
        case: CaseId,
        key: &MessageKey,
        deadline: Instant,
    ) -> Result<Progress, MoveError> {
        let pair = self.pair()?;
        let steps = Steps {
            store: &self.store,
            encrypt: &pair.encrypt,
            may: &pair.may,
            key,
            unheard: &self.unheard,
            expect: &|copy| self.lookout.expect(&pair, case, key, copy),
            catch_up: &|| self.lookout.pump(),
            refused: &|source, journal| self.changed(&pair.encrypt, key, source, journal),
        };
        loop {
            let journal = self
                .store
                .load_move(id)?
                .ok_or(MoveError::NoSuchMove(id.0))?;
            let waits = match journal.step {
                MoveStep::Planned => {
                    let judged = self.forbid(&pair, &steps, journal.clone())?;
                    fail_point!("engine::judged");
                    match judged {
                        // One that comes back now must not be sent: nobody was judged.
                        None => steps.leave_undone(&journal)?,
                        Some(left) if left.recipients.is_empty() => return Ok(Progress::Ended),
                        Some(left) => steps.begin(&left, deadline)?,
                    }
                }
                MoveStep::Begun => steps.resume(&journal, deadline)?,
                MoveStep::Marked => steps.hand_over(&journal)?,
                MoveStep::Requeued => steps.finish(&journal)?,
                MoveStep::Done | MoveStep::Conflict => return Ok(Progress::Ended),
            };
            if let Some(reason) = waits {
                return Ok(Progress::Later(reason));
            }
        }
    }

    /// Takes those out of a move that must not be sent, whoever decided it: what was free when it was offered may be under
    /// a demand by now. Nothing was touched yet, so they are as before their decision. Those who can't be judged wait in a
    /// move of their own; the others need not. `None`: the message is gone, and so nobody was judged.
    ///
    /// A crash may have left our hold on it: that ends before the move does, and while nobody can be judged.
    fn forbid(
        &self,
        pair: &Pair,
        steps: &Steps<'_>,
        journal: Move,
    ) -> Result<Option<Move>, MoveError> {
        let key = steps.key;
        if journal.sent().next().is_none() {
            return Ok(Some(journal));
        }
        let (_, source) = source::sight(&pair.encrypt, key)?;
        let Some(source) = source else {
            return Ok(None);
        };
        let last = last_attempts(&pair.encrypt, key, &source)?;
        let envelope = Envelope::from(&source.content);
        let sender = key.sender.as_ref().map_or("", Address::as_str);
        let (mut refused, mut unjudged) = (Vec::new(), Vec::new());
        for one in journal.sent() {
            let host = last
                .iter()
                .find(|last| last.address == one.address)
                .and_then(|last| last.host.as_ref());
            let standing = self
                .ways
                .standing(&pair.encrypt, &envelope, sender, &one.address, host);
            match standing {
                Standing::Free => {}
                Standing::Demanded(_) if one.overruled => {}
                Standing::Unknown(why) => unjudged.push((one.id, why)),
                standing => refused.push(self.refusal(key, one, &standing)?),
            }
        }
        if refused.is_empty() && unjudged.is_empty() {
            return Ok(Some(journal));
        }
        if let Some((_, why)) = unjudged.first() {
            let error = MoveError::Unjudged {
                queue_id: key.queue_id.clone(),
                why: why.clone(),
            };
            if unjudged.len() == journal.recipients.len() {
                steps.let_go(&journal);
                return Err(error);
            }
            let ids: Vec<i64> = unjudged.iter().map(|(id, _)| *id).collect();
            let count = ids.len();
            self.store.set_apart(&journal, &ids)?;
            warn!(
                "{error}; recipients that wait for it: {count}, the others of this decision do not"
            );
            self.hindered(journal.case, &error);
        }
        if !refused.is_empty() {
            steps.end_hold(&journal)?;
            self.store.refuse(&journal, &refused)?;
        }
        let left = self.store.load_move(journal.id)?;
        left.map(Some).ok_or(MoveError::NoSuchMove(journal.id.0))
    }

    /// That a recipient must not be sent to, as it stands; the admin is told of what is ours to mend.
    fn refusal(
        &self,
        key: &MessageKey,
        one: &MoveRecipient,
        standing: &Standing,
    ) -> Result<Refused, MoveError> {
        let why = standing.remark().unwrap_or_default();
        warn!("{}: to=<{}>, not sent: {why}", key.queue_id, one.address);
        if matches!(standing, Standing::Ours(_)) {
            // No sender can help it, and the next look finds nothing new in it.
            let cause = format!("{}{why}", alert::LOCAL_FAULT);
            let detail = format!("{}: to=<{}>", key.queue_id, one.address);
            self.store.raise_alert(&cause, &detail)?;
        }
        Ok(Refused {
            recipient: one.id,
            failure: standing.kind(Failure::NotOffered),
            may_send: false,
            why,
        })
    }

    /// Of the recipients that a move sends to: those whose last attempt has failed so that they must not be, whatever it
    /// was when that was decided. Nobody is at the message, so its defer log is whole.
    fn changed(
        &self,
        instance: &Instance,
        key: &MessageKey,
        source: &Source,
        journal: &Move,
    ) -> Result<Vec<Refused>, MoveError> {
        if journal.sent().next().is_none() {
            return Ok(Vec::new());
        }
        let id = &key.queue_id;
        let last = last_attempts(instance, key, source)?;
        let known = self.store.recipients(journal.case)?;
        let mut refused = Vec::new();
        for one in journal.sent() {
            let newest = last.iter().find(|last| last.address == one.address);
            let before = known.iter().find(|known| known.id == one.id);
            let (Some(newest), Some(before)) = (newest, before) else {
                continue;
            };
            let failure = newest.words;
            // What has another reason says nothing about what was offered; policies were asked for themselves. And whoever
            // sends against one sends whatever it made of the attempt: a wrong certificate, say.
            let overruled = one.overruled && before.failure == Failure::Policy;
            if !failure.is_senders_matter() || failure == Failure::Policy || overruled {
                continue;
            }
            let offer = self.offer.read().unwrap_or_else(PoisonError::into_inner);
            let may_send = failure.can_be_offered() && offer.failures.contains(&failure);
            drop(offer);
            let decider = self.store.decider(one.id)?;
            let fits = match decider {
                Some(Decider {
                    consent: Some(failures),
                    ..
                }) => failures.contains(&failure) && policy::may_go_unseen(failure),
                Some(Decider {
                    actor: Actor::Policy,
                    ..
                }) => policy::may_go_unseen(failure),
                // Somebody may be listening: that must have been looked at.
                _ => failure != Failure::Certificate || before.failure == failure,
            };
            if may_send && fits {
                continue;
            }
            let why = format!(
                "the last attempt failed otherwise: {failure}: {}",
                newest.shown()
            );
            warn!("{id}: to=<{}>, not sent: {why}", one.address);
            refused.push(Refused {
                recipient: one.id,
                failure,
                may_send,
                why,
            });
        }
        Ok(refused)
    }
}

/// What the last attempt has said of each recipient that is still pending.
fn last_attempts(
    instance: &Instance,
    key: &MessageKey,
    source: &Source,
) -> Result<Vec<Deferred>, MoveError> {
    let log = late::read(instance, Log::Defer, &key.queue_id)?.unwrap_or_default();
    Ok(late::pending(&log, source))
}
