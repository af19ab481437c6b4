//! What is watched: every open case's message, from soon after it was opened, and every copy from the moment before the
//! may instance gets it.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::{error, warn};
use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::file::{Place, Watched};
use super::{Lookout, NEW_CASES, Side, State, travel};
use crate::case::store::ChangeMark;
use crate::case::{Case, CaseId, CaseState, MessageKey};
use crate::mover::engine::{Engine, Pair};
use crate::mover::{MoveError, copy, source};
use crate::postfix::{Instance, Log, Queue, QueueId, RecipientState};

/// Between two looks for copies in the may instance that are not watched.
const COPIES: Duration = Duration::from_secs(60);
/// Messages that were missed, at a time.
const MISSED_AT_A_TIME: usize = 10;
/// Open files that are left to the rest of the mover.
const OTHER_FILES: u64 = 512;

/// Why a message is watched.
pub(super) struct Subject<'a> {
    pub side: Side,
    pub id: &'a QueueId,
    pub case: CaseId,
    pub key: &'a MessageKey,
    /// Is it recorded that an administrator holds the message?
    pub held: bool,
}

/// What is known of the cases from one look at the store to the next.
#[derive(Default)]
struct Adoption {
    mark: Option<ChangeMark>,
    /// Cases whose messages were not found just then, or for which there is no room.
    missed: BTreeSet<CaseId>,
    /// Who was the last of these to have a turn.
    turn: Option<CaseId>,
    /// When the copies in the may instance were looked for.
    copies: Option<Instant>,
}

impl Lookout {
    pub(super) fn adopt_all(&self, engine: &Engine) {
        let mut known = Adoption::default();
        loop {
            let pair = engine.pair().map_err(MoveError::from);
            if let Err(error) = pair.and_then(|pair| self.adopt(&pair, &mut known)) {
                error!("looking for messages to watch: {error}");
            }
            thread::sleep(NEW_CASES);
        }
    }

    /// Watches what is not watched yet, and no longer what nobody waits for.
    fn adopt(&self, pair: &Arc<Pair>, known: &mut Adoption) -> Result<(), MoveError> {
        let changes = self.store.changes(known.mark.as_ref())?;
        if changes.all {
            known.missed.clear();
            self.forget_all_but(&mut self.lock(), &changes.cases);
        }
        // Some of those that were missed have a turn each time: a message changes queues just when it is looked for.
        let rest = (
            known.turn.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        let again: Vec<CaseId> = known
            .missed
            .range(rest)
            .take(MISSED_AT_A_TIME)
            .copied()
            .collect();
        known.turn = again.get(MISSED_AT_A_TIME - 1).copied();
        let mut cases = changes.cases;
        if self.lock().has_room() {
            for id in again {
                cases.extend(self.store.case(id)?);
            }
        }
        for case in cases {
            if case.state == CaseState::Closed {
                known.missed.remove(&case.id);
                self.forget(&mut self.lock(), &case);
                continue;
            }
            let subject = Subject {
                side: Side::Encrypt,
                id: &case.key.queue_id,
                case: case.id,
                key: &case.key,
                held: case.held_at.is_some(),
            };
            let mut state = self.lock();
            self.watch(&mut state, pair, &subject);
            if state.is_watched(&case) {
                known.missed.remove(&case.id);
            } else {
                known.missed.insert(case.id);
            }
        }
        known.mark = changes.mark;
        if known.copies.is_none_or(|when| when.elapsed() >= COPIES) {
            self.adopt_copies(pair)?;
            known.copies = Some(Instant::now());
        }
        Ok(())
    }

    fn adopt_copies(&self, pair: &Arc<Pair>) -> Result<(), MoveError> {
        for copy in self.store.copies_under_way()? {
            let known = |state: &State| state.by_name.contains_key(&(Side::May, copy.name.clone()));
            if known(&self.lock()) {
                continue;
            }
            let Some(case) = self.store.case(copy.case)? else {
                continue;
            };
            let subject = Subject {
                side: Side::May,
                id: &copy.name,
                case: case.id,
                key: &case.key,
                held: false,
            };
            let _turn = self.turn();
            let watched = self.watch(&mut self.lock(), pair, &subject);
            if let Some(watched) = watched {
                self.catch_up_with(&watched)?;
            } else if !known(&self.lock()) && travel::is_gone(pair, &copy.name) {
                self.lose(&copy.name, &case.key)?;
            }
        }
        Ok(())
    }

    /// Watches a copy that is about to be handed to the may instance. What that does with it is seen from the first
    /// moment on.
    pub fn expect(&self, pair: &Arc<Pair>, case: CaseId, key: &MessageKey, copy: &QueueId) {
        let subject = Subject {
            side: Side::May,
            id: copy,
            case,
            key,
            held: false,
        };
        let _turn = self.turn();
        let watched = self.watch(&mut self.lock(), pair, &subject);
        // A mover that died may have handed it over already.
        if let Some(Err(error)) = watched.map(|watched| self.catch_up_with(&watched)) {
            error!("{copy}: what became of its recipients could not be recorded: {error}");
        }
    }

    /// Watches a message, unless it is watched already or not there.
    fn watch(
        &self,
        state: &mut State,
        pair: &Arc<Pair>,
        subject: &Subject<'_>,
    ) -> Option<Arc<Watched>> {
        let inotify = self.inotify.as_ref()?;
        let name = (subject.side, subject.id.clone());
        if state.by_name.contains_key(&name) {
            return None;
        }
        if !state.has_room() {
            state.complain("the limit of open files; see LimitNOFILE in the unit");
            return None;
        }
        let instance = subject.side.of(pair);
        let queues = [Queue::Deferred, Queue::Active, Queue::Hold, Queue::Incoming];
        let found = queues.iter().find_map(|queue| {
            // What can't be read is reported by whoever has to do with it.
            let found = source::open(instance, *queue, subject.id, false).ok()??;
            found.is_message(subject.key).then_some(found)
        })?;
        // By the open file, so that it is this inode whatever has become of the path.
        let itself = format!("/proc/self/fd/{}", found.file.as_raw_fd());
        let wanted = WatchFlags::MODIFY
            | WatchFlags::MOVE_SELF
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF;
        let wd = match inotify::add_watch(inotify, itself, wanted) {
            Ok(wd) => wd,
            Err(Errno::NOSPC) => {
                state.complain("fs.inotify.max_user_watches");
                return None;
            }
            Err(error) => {
                warn!("{}: cannot watch the message: {error}", subject.id);
                return None;
            }
        };
        for log in [Log::Bounce, Log::Defer] {
            self.watch_logs(state, instance, subject, log);
        }
        let judged = found.content.recipients.iter();
        let judged = judged
            .filter(|one| one.state == RecipientState::Done)
            .map(|one| one.offset)
            .collect();
        let watched = Watched::new(subject, Arc::clone(pair), found.file, judged);
        // Of an attempt under way: no event tells of it any more.
        watched.keep_logs();
        let watched = Arc::new(watched);
        state.by_name.insert(name, wd);
        state.watched.insert(wd, Arc::clone(&watched));
        if subject.side == Side::Encrypt && (watched.place() == Place::Hold) != subject.held {
            state.changed.insert(wd);
            self.something.notify_one();
        }
        Some(watched)
    }

    /// Watches the directory in which a log of the message would appear: what is written there just before a message
    /// leaves the queue is gone within milliseconds.
    fn watch_logs(&self, state: &mut State, instance: &Instance, subject: &Subject<'_>, log: Log) {
        let directory = instance.directory(log.as_str(), subject.id);
        if state.known_directories.contains(&directory) {
            return;
        }
        if let Err(error) = copy::make_hash_directory(instance, &directory) {
            return warn!(
                "{}: cannot make {}, so it may not be seen why the message leaves the queue: {error}",
                subject.id,
                directory.display()
            );
        }
        let wanted = WatchFlags::CREATE | WatchFlags::DONT_FOLLOW | WatchFlags::ONLYDIR;
        if let Some(inotify) = &self.inotify
            && let Ok(wd) = inotify::add_watch(inotify, &directory, wanted)
        {
            state.log_directories.insert(wd, (subject.side, log));
            state.known_directories.insert(directory);
        }
    }

    /// Watches no longer what nobody waits for.
    fn forget_all_but(&self, state: &mut State, unfinished: &[Case]) {
        let wanted: HashSet<CaseId> = unfinished.iter().map(|case| case.id).collect();
        let over: Vec<i32> = state
            .watched
            .iter()
            .filter(|(_, one)| one.side == Side::Encrypt && !wanted.contains(&one.case))
            .map(|(wd, _)| *wd)
            .collect();
        for wd in over {
            self.unwatch(state, wd);
        }
    }

    fn forget(&self, state: &mut State, case: &Case) {
        if let Some(wd) = state.watch_of(case) {
            self.unwatch(state, wd);
        }
    }
}

impl State {
    fn watch_of(&self, case: &Case) -> Option<i32> {
        let name = (Side::Encrypt, case.key.queue_id.clone());
        let wd = *self.by_name.get(&name)?;
        let watched = self.watched.get(&wd)?;
        (watched.case == case.id).then_some(wd)
    }

    fn is_watched(&self, case: &Case) -> bool {
        self.watch_of(case).is_some()
    }

    fn has_room(&self) -> bool {
        self.most == 0 || self.watched.len() < self.most
    }

    fn complain(&mut self, what: &str) {
        if !self.full {
            self.full = true;
            warn!(
                "{} messages are watched, and no more can be: {what}; how the others end is seen by the sweep only",
                self.watched.len()
            );
        }
    }
}

/// Raises the limit of open files as far as that goes, and says how many may be queue files.
pub(super) fn room_for_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.or(limit.current).unwrap_or(65_536);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let most = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => most,
        Err(_) => limit.current.unwrap_or(most),
    };
    usize::try_from(most.saturating_sub(OTHER_FILES).max(64)).unwrap_or(usize::MAX)
}
