//! Which messages lie still, for the sweep: it need not look at those again until something happens to them.
//!
//! Whatever Postfix, an admin or the mover does with a message in the deferred or the hold queue of the encrypt instance,
//! it renames, removes or changes a file there, and the directory says so. So a few directories are watched for however
//! many messages. (How a message ends is seen from its own file, see [`super::adopt`].)

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use rustix::fs::inotify::{self, ReadFlags, WatchFlags};

use super::Lookout;
use super::early::EarlyOnes;
use crate::case::CaseId;
use crate::postfix::{Instance, Queue, QueueId};

/// The queues in which a message lies still: in the others somebody is at work on it.
pub const RESTING_PLACES: [Queue; 2] = [Queue::Deferred, Queue::Hold];

/// What lies still, and what has not been asked for since it was stirred.
#[derive(Default)]
pub(super) struct Rest {
    directories: HashMap<i32, (Queue, PathBuf)>,
    known: HashSet<PathBuf>,
    resting: HashMap<QueueId, CaseId>,
    stirred: HashSet<CaseId>,
    /// Events were lost: it may be any of them.
    any: bool,
    pub early: EarlyOnes,
}

/// What was stirred since it was asked for last.
#[derive(Debug, PartialEq, Eq)]
pub enum Stirred {
    /// These cases' messages.
    These(HashSet<CaseId>),
    /// Nobody knows which: nothing counts as resting any more.
    Perhaps,
}

impl Rest {
    /// Takes an event, if it is of one of these directories.
    pub fn take(&mut self, wd: i32, what: ReadFlags, name: Option<&str>) -> bool {
        let Some((queue, _)) = self.directories.get(&wd) else {
            return self.early.take(wd, what);
        };
        if what.contains(ReadFlags::IGNORED) {
            // The directory was removed, or its file system unmounted.
            if let Some((_, path)) = self.directories.remove(&wd) {
                self.known.remove(&path);
                self.early.lose(path);
            }
            self.lose_track();
        } else if let Some(id) = name.and_then(|name| name.parse::<QueueId>().ok()) {
            if let Some(case) = self.resting.remove(&id) {
                self.stirred.insert(case);
            } else if what.contains(ReadFlags::MOVED_TO) && *queue == Queue::Deferred {
                self.early.tell(id);
            }
        }
        true
    }

    /// Nothing is known to lie still any more.
    pub fn lose_track(&mut self) {
        self.resting.clear();
        self.stirred.clear();
        self.any = true;
    }
}

impl Lookout {
    /// From now on a message counts as resting, until something happens to it. Called *before* it is looked at, so that
    /// nothing can happen unseen after the look. `false` when its directories can't be watched.
    pub fn let_rest(&self, instance: &Instance, id: &QueueId, case: CaseId) -> bool {
        let mut state = self.lock();
        for queue in RESTING_PLACES {
            let directory = instance.directory(queue.as_str(), id);
            if !self.watch_directory(&mut state.rest, queue, directory) {
                return false;
            }
        }
        state.rest.resting.insert(id.clone(), case);
        true
    }

    /// Watches a directory of `queue`.
    pub(super) fn watch_directory(
        &self,
        rest: &mut Rest,
        queue: Queue,
        directory: PathBuf,
    ) -> bool {
        let Some(inotify) = &self.inotify else {
            return false;
        };
        if rest.known.contains(&directory) {
            return true;
        }
        let wanted = WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::DONT_FOLLOW
            | WatchFlags::ONLYDIR;
        // An error: perhaps it is not there yet, as Postfix makes these directories when it needs them.
        let Ok(wd) = inotify::add_watch(inotify, &directory, wanted) else {
            return false;
        };
        rest.directories.insert(wd, (queue, directory.clone()));
        rest.known.insert(directory);
        true
    }

    /// It does not rest after all.
    pub fn no_rest(&self, id: &QueueId) {
        self.lock().rest.resting.remove(id);
    }

    /// What was stirred until now. Says it once.
    pub fn stirred(&self) -> Stirred {
        self.gather();
        let mut state = self.lock();
        let rest = &mut state.rest;
        let these = std::mem::take(&mut rest.stirred);
        if std::mem::take(&mut rest.any) {
            Stirred::Perhaps
        } else {
            Stirred::These(these)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::case::store::Store;

    #[test]
    fn whatever_happens_to_a_message_at_rest_is_said_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("posttls.db"), true).unwrap();
        let lookout = Lookout::new(Arc::new(store));
        let instance = Instance::bare(directory.path());
        let (id, case) = ("A367B99A955".parse::<QueueId>().unwrap(), CaseId(7));
        // There is no directory yet.
        assert!(!lookout.let_rest(&instance, &id, case));
        for queue in RESTING_PLACES.iter().chain([&Queue::Active]) {
            fs::create_dir_all(instance.directory(queue.as_str(), &id)).unwrap();
        }
        let path = |queue| instance.path(queue, &id);
        let (deferred, held) = (path(Queue::Deferred), path(Queue::Hold));
        fs::write(&deferred, "message").unwrap();
        let stirred = |what: &dyn Fn()| {
            assert!(lookout.let_rest(&instance, &id, case));
            what();
            let first = lookout.stirred();
            assert_eq!(lookout.stirred(), Stirred::These(HashSet::new()));
            first == Stirred::These(HashSet::from([case]))
        };
        let active = path(Queue::Active);
        assert!(stirred(&|| fs::rename(&deferred, &active).unwrap()));
        assert!(stirred(&|| fs::rename(&active, &deferred).unwrap()));
        assert!(stirred(&|| fs::rename(&deferred, &held).unwrap()));
        assert!(stirred(&|| fs::write(&held, "marked").unwrap()));
        assert!(stirred(&|| fs::remove_file(&held).unwrap()));
        assert!(!stirred(&|| ()));
        let other = deferred.with_file_name("A367B99A956");
        assert!(!stirred(&|| fs::write(&other, "another").unwrap()));
        assert!(!stirred(&|| {
            lookout.no_rest(&id);
            fs::write(&deferred, "message").unwrap();
        }));
        // A directory that goes takes all certainty with it.
        assert!(lookout.let_rest(&instance, &id, case));
        fs::remove_dir_all(directory.path().join("deferred")).unwrap();
        assert_eq!(lookout.stirred(), Stirred::Perhaps);
    }
}
