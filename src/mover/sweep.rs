//! The sweep: looks after every message that has a case which is open or watched, and after no other.
//!
//! It ends cases whose recipients have left the queue, and lets recipients join that failed for TLS only later: Postfix
//! writes one delay notice a message, ever. A message that lies still costs nothing: the store says which cases have
//! changed, and the lookout which messages. Once an hour it looks at all of them, as events may be lost.

use std::collections::{HashMap, HashSet};
use std::fs::symlink_metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use log::{info, warn};

use super::engine::Engine;
use super::lookout::{RESTING_PLACES, Stirred};
use super::{MoveError, Sighting, ending, late, source};
use crate::case::store::{ChangeMark, Store, StoreError};
use crate::case::{
    Asked, Case, CaseId, CaseState, Failure, Recipient, RecipientState, Source, alert,
};
use crate::config::Config;
use crate::intake;
use crate::notice;
use crate::postfix::{Instance, Log, Queue, QueueId, header};
use crate::standing::Standing;

/// Between two looks at everything.
const EVERYTHING: Duration = Duration::from_secs(3600);
/// A file that was changed so many seconds ago may be changed again without another change time: clocks of file systems
/// tick slowly.
const SETTLED: i64 = 2;

/// What tells one state of a file from the next: inode, size, change time.
type Stamp = (u64, u64, i64, i64);

/// What a look at a message costs when nothing has happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Glimpse {
    queue: Queue,
    file: Stamp,
    defer_log: Option<Stamp>,
}

impl Glimpse {
    /// `None` when the message was in no queue just now.
    fn of(instance: &Instance, id: &QueueId) -> io::Result<Option<Self>> {
        for queue in Queue::ALL {
            if let Some(file) = stamp(&instance.path(queue, id))? {
                let defer_log = stamp(&instance.log_path(Log::Defer, id))?;
                return Ok(Some(Self {
                    queue,
                    file,
                    defer_log,
                }));
            }
        }
        Ok(None)
    }

    /// Would every later change be seen?
    fn is_settled(&self) -> bool {
        let now = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(0));
        let changed = self
            .defer_log
            .map_or(self.file.2, |log| log.2.max(self.file.2));
        changed + SETTLED <= now
    }
}

fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    match symlink_metadata(path) {
        Ok(found) => Ok(Some((
            found.ino(),
            found.size(),
            found.ctime(),
            found.ctime_nsec(),
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What one look at a case has come to.
enum Found {
    /// Nothing can happen to its message without the lookout's knowledge.
    AtRest,
    /// It is to be looked at again next time, and this is how it was, if every later change would show.
    Restless(Option<Glimpse>),
    /// The message is in no queue at first sight. The recipients that are missed with it.
    Absent(Vec<Recipient>),
}

/// A case whose message does not rest: somebody is at work on it, or its directory can't be watched.
struct Restless {
    case: Case,
    glimpse: Option<Glimpse>,
}

fn looking(instance: &Instance, id: &QueueId, source: io::Error) -> MoveError {
    MoveError::File {
        queue_id: id.clone(),
        doing: "look for",
        path: instance.queue_directory.clone(),
        source,
    }
}

/// The sweep, with what it remembers from one time to the next.
pub struct Sweep {
    store: Arc<Store>,
    engine: Arc<Engine>,
    /// What was recorded before it is known. `None`: look at everything.
    mark: Option<ChangeMark>,
    everything: Option<Instant>,
    restless: HashMap<CaseId, Restless>,
    /// What was complained about, so that it is not said again each time.
    troubles: HashMap<CaseId, String>,
    /// Could something not be judged the last time?
    unjudged: bool,
    /// Was it suspected then that handshakes fail on our side?
    suspicion: bool,
}

impl Sweep {
    /// A sweep that has seen nothing yet.
    pub fn new(store: Arc<Store>, engine: Arc<Engine>) -> Self {
        Self {
            store,
            engine,
            mark: None,
            everything: None,
            restless: HashMap::new(),
            troubles: HashMap::new(),
            unjudged: false,
            suspicion: false,
        }
    }

    /// Could something not be judged the last time?
    pub fn owes_judgement(&self) -> bool {
        self.unjudged
    }

    /// Looks after the cases that are open or watched, and have changed or may have. Trouble with one of them is logged,
    /// and keeps no other waiting.
    ///
    /// # Errors
    /// When the store fails, or the encrypt instance's settings can't be read.
    pub fn run(&mut self, config: &Config) -> Result<(), MoveError> {
        let result = self.look_around(config);
        if result.is_err() {
            // What was stirred is said once only.
            self.mark = None;
        }
        result
    }

    fn look_around(&mut self, config: &Config) -> Result<(), MoveError> {
        self.unjudged = false;
        let pair = self.engine.pair()?;
        let suspicion = self.store.suspects_our_side()?;
        if self.suspicion && !suspicion {
            // What was kept back for it is judged now, though nothing has happened to it.
            self.mark = None;
            for restless in self.restless.values_mut() {
                restless.glimpse = None;
            }
        }
        self.suspicion = suspicion;
        let due = self.due()?;
        let mut absent = Vec::new();
        for case in due {
            let id = case.id;
            match self.look_after(&pair.encrypt, config, &case) {
                Ok(Found::AtRest) => {
                    self.troubles.remove(&id);
                    self.restless.remove(&id);
                    continue;
                }
                Ok(Found::Restless(glimpse)) => {
                    self.troubles.remove(&id);
                    self.is_restless(case, glimpse);
                }
                Ok(Found::Absent(recipients)) => {
                    absent.push((case.clone(), recipients));
                    self.is_restless(case, None);
                }
                Err(error) => {
                    self.complain(&case, error)?;
                    self.is_restless(case, None);
                }
            }
        }
        self.end(&pair.encrypt, &absent)
    }

    /// The cases to look at: of which something was recorded, whose messages were stirred, or do not rest.
    fn due(&mut self) -> Result<Vec<Case>, StoreError> {
        let lookout = self.engine.lookout();
        // Before anything is looked at: what happens from now on is for the next time.
        let stirred = lookout.stirred();
        let overdue = self
            .everything
            .is_none_or(|when| when.elapsed() >= EVERYTHING);
        if overdue || stirred == Stirred::Perhaps {
            self.mark = None;
        }
        let changes = self.store.changes(self.mark.as_ref())?;
        if changes.all {
            self.everything = Some(Instant::now());
            let known: HashSet<CaseId> = changes.cases.iter().map(|case| case.id).collect();
            self.restless.retain(|id, _| known.contains(id));
            self.troubles.retain(|id, _| known.contains(id));
        }
        let mut due = HashMap::new();
        for case in changes.cases {
            if case.state == CaseState::Closed {
                lookout.no_rest(&case.key.queue_id);
                self.restless.remove(&case.id);
                self.troubles.remove(&case.id);
            } else {
                due.insert(case.id, case);
            }
        }
        if let Stirred::These(ids) = stirred {
            for id in ids {
                if !due.contains_key(&id)
                    && let Some(case) = self.store.case(id)?
                    && case.state != CaseState::Closed
                {
                    due.insert(id, case);
                }
            }
        }
        for (id, restless) in &self.restless {
            due.entry(*id).or_insert_with(|| restless.case.clone());
        }
        self.mark = changes.mark;
        let mut due: Vec<Case> = due.into_values().collect();
        // What there was trouble with comes last, the newest of it first: it must not keep the others waiting for long.
        due.sort_unstable_by_key(|case| {
            let troubled = self.troubles.contains_key(&case.id);
            let age = if troubled {
                -case.opened_at
            } else {
                case.opened_at
            };
            (troubled, age, case.id.0)
        });
        Ok(due)
    }

    fn is_restless(&mut self, case: Case, glimpse: Option<Glimpse>) {
        self.engine.lookout().no_rest(&case.key.queue_id);
        self.restless.insert(case.id, Restless { case, glimpse });
    }

    fn look_after(
        &mut self,
        instance: &Instance,
        config: &Config,
        case: &Case,
    ) -> Result<Found, MoveError> {
        let id = &case.key.queue_id;
        // Both before anything is read, so that whatever changes meanwhile is seen as a change next time.
        let watched = self.engine.lookout().let_rest(instance, id, case.id);
        let glimpse = Glimpse::of(instance, id).map_err(|source| looking(instance, id, source))?;
        let found = |glimpse: Glimpse| {
            if watched && RESTING_PLACES.contains(&glimpse.queue) {
                Found::AtRest
            } else {
                Found::Restless(Some(glimpse).filter(Glimpse::is_settled))
            }
        };
        let before = self.restless.get(&case.id).and_then(|known| known.glimpse);
        if let (Some(now), Some(before)) = (glimpse, before)
            && now == before
        {
            return Ok(found(now));
        }
        let recipients = self.store.recipients(case.id)?;
        let Some(glimpse) = glimpse else {
            // Otherwise it is only waited for the move that has taken it away.
            let waited_for = recipients.iter().any(ending::waits);
            return Ok(if waited_for {
                Found::Absent(recipients)
            } else {
                Found::Restless(None)
            });
        };
        let (sighting, source) = source::sight(instance, &case.key)?;
        let ended = ending::ended(instance, case, &recipients, &sighting, source.as_ref())?;
        self.settle(case, &recipients, ended)?;
        let (Sighting::Queued(queue), Some(source)) = (sighting, source) else {
            return Ok(Found::Restless(None));
        };
        // The lookout has seen it as a rule.
        let held = queue == Queue::Hold && !self.store.holds(case.id)?;
        if held != case.held_at.is_some() {
            self.store.note_hold(case.id, held)?;
        }
        // What is on hold is an admin's matter, or ours in the middle of a move.
        if queue != Queue::Hold {
            self.join(instance, config, case, &source, &recipients)?;
        }
        Ok(found(glimpse))
    }

    /// Ends the cases of messages that are in no queue. What has only changed queues is looked after next time.
    fn end(
        &mut self,
        instance: &Instance,
        absent: &[(Case, Vec<Recipient>)],
    ) -> Result<(), MoveError> {
        let Some((first, _)) = absent.first() else {
            return Ok(());
        };
        let first = first.key.queue_id.clone();
        let mut missing: HashSet<QueueId> = absent
            .iter()
            .map(|(case, _)| case.key.queue_id.clone())
            .collect();
        instance
            .keep_missing(&mut missing)
            .map_err(|source| looking(instance, &first, source))?;
        for (case, recipients) in absent {
            let id = &case.key.queue_id;
            if !missing.contains(id) {
                continue;
            }
            let ended = source::gone(instance, id)
                .and_then(|gone| ending::ended(instance, case, recipients, &gone, None))
                .and_then(|ended| Ok(self.settle(case, recipients, ended)?));
            match ended {
                Ok(()) => drop(self.troubles.remove(&case.id)),
                Err(error) => self.complain(case, error)?,
            }
        }
        Ok(())
    }

    /// Says what is wrong with one message, once. Trouble with the store is trouble with all.
    fn complain(&mut self, case: &Case, error: MoveError) -> Result<(), MoveError> {
        if matches!(error, MoveError::Store(_)) {
            return Err(error);
        }
        self.unjudged |= matches!(error, MoveError::Unjudged { .. });
        let said = error.to_string();
        if self.troubles.insert(case.id, said.clone()) != Some(said) {
            warn!("{error}");
            self.engine.hindered(case.id, &error);
            if let MoveError::Unjudged { why, .. } = &error {
                let cause = format!("{}cannot judge: {why}", alert::LOCAL_FAULT);
                self.store.raise_alert(&cause, case.key.queue_id.as_str())?;
            }
        }
        Ok(())
    }

    fn settle(
        &self,
        case: &Case,
        recipients: &[Recipient],
        ended: Vec<(i64, RecipientState)>,
    ) -> Result<(), StoreError> {
        let ended = ending::unseen(&self.store, &self.engine, case, ended)?;
        if ended.is_empty() {
            return Ok(());
        }
        self.store.settle(case.id, &ended)?;
        for (id, state) in ended {
            if let Some(recipient) = recipients.iter().find(|known| known.id == id) {
                let (queue_id, to) = (&case.key.queue_id, &recipient.address);
                info!("{queue_id}: to=<{to}>, has left the queue, status={state}");
            }
        }
        Ok(())
    }

    /// Lets recipients join the case of which the last attempt has shown something new.
    fn join(
        &self,
        instance: &Instance,
        config: &Config,
        case: &Case,
        source: &source::Source,
        known: &[Recipient],
    ) -> Result<(), MoveError> {
        let Some(log) = late::read(instance, Log::Defer, &case.key.queue_id)? else {
            return Ok(());
        };
        let mut deferred = late::pending(&log, source);
        self.engine.ways().judge(instance, source, &mut deferred);
        let unjudged = deferred.iter().find_map(|one| match &one.standing {
            Standing::Unknown(why) if one.kind() == Failure::Unjudged => Some(why.clone()),
            _ => None,
        });
        let deferred = late::news(deferred, known, &config.offer);
        // A log that belongs to the next message of this queue ID must not count.
        if !source.is_still_there() {
            return Ok(());
        }
        let unjudged = unjudged.map(|why| MoveError::Unjudged {
            queue_id: case.key.queue_id.clone(),
            why,
        });
        if deferred.is_empty() {
            return unjudged.map_or(Ok(()), Err);
        }
        // What can't be read says nothing: then the name decides.
        let header = header(&source.file, &source.content.size).unwrap_or_default();
        let by_header = notice::original(&header).automatic;
        let found = intake::Found {
            key: case.key.clone(),
            subject: case.subject.clone(),
            message_id: case.message_id.clone(),
            retry_until: case.retry_until,
            source: Source::Sweep,
            // Who was asked about a part of it is asked about all, and nobody else.
            automatic: case.asked == Asked::Nobody && by_header,
            held: false,
            deferred,
        };
        intake::admit(&self.store, config, &found)?;
        unjudged.map_or(Ok(()), Err)
    }
}
