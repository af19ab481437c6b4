//! The lookout: sees how recipients end in both queues, at the moment when Postfix says so in its own files.
//!
//! Events, never log files. inotify watches the queue *file* of every open case, and of every copy in the may instance
//! that has not ended: the watch follows the inode through all queues. A delivery agent marks a recipient done in it
//! (`R` becomes `D`), the bounce service logs what it returns in `bounce/QUEUE_ID` before that, and the queue manager
//! removes the file at the end. The file is kept open, so that its last marks can be read after that; reading takes no
//! lock and disturbs nobody. What is seen here is recorded at once; what happened while no mover ran is left to the sweep.

mod adopt;
mod early;
mod file;
mod judge;
mod rest;
mod travel;
mod wait;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use fail::fail_point;
use log::{error, info, warn};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags};
use rustix::io::Errno;
use rustix::process::setpriority_process;

use super::MoveError;
use super::engine::{Engine, Pair};
use crate::case::CaseId;
use crate::case::store::{Store, StoreError};
use crate::postfix::{Instance, Log, QueueId};
use early::Look;
use file::{Place, Watched};
use rest::Rest;
pub use rest::{RESTING_PLACES, Stirred};

/// Between two looks at the store for new cases.
const NEW_CASES: Duration = Duration::from_millis(250);
/// Nice value of the thread that must not be late.
const PRIORITY: i32 = -10;
/// Before what could not be recorded is tried again.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// Octets of events read at a time.
const BUFFER: usize = 64 * 1024;

/// Which instance's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Encrypt,
    May,
}

impl Side {
    fn of(self, pair: &Pair) -> &Instance {
        match self {
            Self::Encrypt => &pair.encrypt,
            Self::May => &pair.may,
        }
    }
}

/// Watches queue files. Shared by everybody who wants to know what was seen until now.
pub struct Lookout {
    store: Arc<Store>,
    /// `None` when the kernel gives none: then nothing is seen, and the sweep closes cases.
    inotify: Option<OwnedFd>,
    /// Never locked while anybody waits for the store.
    state: Mutex<State>,
    something: Condvar,
    /// Whoever records what was seen, in its order.
    recording: Mutex<()>,
}

#[derive(Default)]
struct State {
    watched: HashMap<i32, Arc<Watched>>,
    /// Those of which something was seen that is not recorded yet.
    changed: BTreeSet<i32>,
    by_name: HashMap<(Side, QueueId), i32>,
    log_directories: HashMap<i32, (Side, Log)>,
    known_directories: HashSet<PathBuf>,
    rest: Rest,
    /// Cases whose messages have changed queues in the encrypt instance since somebody asked.
    moved: HashSet<CaseId>,
    /// Files that may be kept open.
    most: usize,
    /// Said once that there is no room for more.
    full: bool,
}

impl Lookout {
    /// A lookout that watches nothing yet.
    pub fn new(store: Arc<Store>) -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .inspect_err(|error| {
                warn!("cannot watch the queues, so how messages end is seen by the sweep only: inotify: {error}; see fs.inotify.max_user_instances");
            })
            .ok();
        Self {
            store,
            inotify,
            state: Mutex::default(),
            something: Condvar::new(),
            recording: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches until the process ends, in three threads: events must not wait for the store, as what they tell of may
    /// be gone a moment later.
    pub fn start(engine: &Arc<Engine>) {
        let itself = Arc::clone(engine.lookout());
        if itself.inotify.is_none() {
            return;
        }
        itself.lock().most = adopt::room_for_files();
        let (gatherer, recorder) = (Arc::clone(&itself), Arc::clone(&itself));
        thread::spawn(move || gatherer.gather_all());
        thread::spawn(move || recorder.record_all());
        let engine = Arc::clone(engine);
        thread::spawn(move || itself.adopt_all(&engine));
    }

    fn gather_all(&self) {
        let Some(inotify) = &self.inotify else { return };
        // This thread alone (nice is a thread's on Linux), which does next to nothing but must do it at once: a bounce
        // log lasts some ten milliseconds. Without the privilege it is a little later on a busy machine.
        let _ = setpriority_process(None, PRIORITY);
        loop {
            match poll(&mut [PollFd::new(inotify, PollFlags::IN)], None) {
                Ok(_) => {
                    self.gather();
                    fail_point!("lookout::gathered");
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    error!("waiting for events of the queues: {error}");
                    thread::sleep(NEW_CASES);
                }
            }
        }
    }

    fn record_all(&self) {
        loop {
            let state = self.lock();
            let idle = |state: &mut State| state.changed.is_empty();
            let waited = self.something.wait_while(state, idle);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            fail_point!("lookout::record");
            if !self.record() {
                thread::sleep(AFTER_ERROR);
            }
        }
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn unwatch(&self, state: &mut State, wd: i32) {
        if let Some(watched) = state.watched.remove(&wd) {
            state.by_name.remove(&(watched.side, watched.id.clone()));
            if let Some(inotify) = &self.inotify {
                // An error means that the kernel has dropped it already, with the file.
                let _ = inotify::remove_watch(inotify, wd);
            }
        }
    }

    /// Takes note of everything that has happened until now. After it has returned the store says what was seen, so
    /// whoever finds a queue file changed or gone asks here first.
    pub fn pump(&self) {
        self.gather();
        self.record();
    }

    /// The cases whose messages have changed queues since this was asked last.
    pub fn moved(&self) -> HashSet<CaseId> {
        std::mem::take(&mut self.lock().moved)
    }

    /// Reads the events that have come, and keeps what may be gone soon. Waits for nobody.
    fn gather(&self) {
        let Some(inotify) = &self.inotify else { return };
        let mut state = self.lock();
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    info!("too much happened in the queues at once; looking at every message");
                    state.changed = state.watched.keys().copied().collect();
                    state.moved = state.watched.values().map(|one| one.case).collect();
                    state.rest.lose_track();
                }
                Ok(event) => {
                    let name = event.file_name().and_then(|name| name.to_str().ok());
                    state.take(event.wd(), event.events(), name);
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => {
                    error!("reading events of the queues: {error}");
                    break;
                }
            }
        }
        if !state.changed.is_empty() {
            self.something.notify_one();
        }
        if state.rest.early.has_more_directories() {
            self.watch_early(&mut state, Look::Inside);
        }
    }

    /// Reads the logs that explain the marks just seen. They were made before the marks, but the events that tell so may
    /// not be gathered yet: without those a mark whose log is gone already would pass for a delivery.
    fn hear_of_logs(&self, watched: &Watched) {
        self.gather();
        watched.read_logs();
    }

    /// Records what was gathered. Whether all went well; what did not is kept for another try.
    fn record(&self) -> bool {
        let _turn = self.turn();
        let mut well = true;
        let changed = std::mem::take(&mut self.lock().changed);
        for wd in changed {
            let watched = self.lock().watched.get(&wd).cloned();
            let Some(watched) = watched else { continue };
            match self.examine(wd, &watched) {
                Ok(()) => {}
                Err(LookError::Store(error)) => {
                    error!(
                        "{}: what became of its recipients could not be recorded: {error}",
                        watched.id
                    );
                    self.lock().changed.insert(wd);
                    well = false;
                }
                Err(LookError::File(error)) => {
                    error!("{}: no longer watched: {error}", watched.id);
                    self.unwatch(&mut self.lock(), wd);
                }
            }
        }
        well
    }

    fn examine(&self, wd: i32, watched: &Watched) -> Result<(), LookError> {
        // `postsuper -r` has pickup take it in anew, under another queue ID.
        let gone = watched.is_gone() || watched.place() == Place::Maildrop;
        match watched.side {
            Side::Encrypt => {
                self.see_hold(watched)?;
                self.see_waiting(watched, gone)?;
            }
            Side::May => self.see_travelling(watched, gone)?,
        }
        if gone {
            self.unwatch(&mut self.lock(), wd);
        }
        Ok(())
    }
}

impl State {
    /// Takes an event: of a watched message, or of a directory of messages or logs.
    fn take(&mut self, wd: i32, what: ReadFlags, name: Option<&str>) {
        if self.rest.take(wd, what, name) {
            return;
        }
        if let Some((side, log)) = self.log_directories.get(&wd).copied() {
            let id = name.and_then(|name| name.parse().ok());
            let wd = id.and_then(|id| self.by_name.get(&(side, id)));
            if let Some(watched) = wd.and_then(|wd| self.watched.get(wd)) {
                watched.log_appears(log);
            }
        } else if let Some(watched) = self.watched.get(&wd) {
            if what.contains(ReadFlags::MOVE_SELF) {
                watched.changes_queues();
                if watched.side == Side::Encrypt {
                    self.moved.insert(watched.case);
                }
            } else if what.contains(ReadFlags::ATTRIB) {
                watched.may_have_expired();
            }
            self.changed.insert(wd);
        }
    }
}

/// The errors that a look at one message can have.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] crate::postfix::QueueFileError),
}

impl From<LookError> for MoveError {
    fn from(error: LookError) -> Self {
        match error {
            LookError::Store(error) => Self::Store(error),
            LookError::File(error) => Self::Unread(error),
        }
    }
}
