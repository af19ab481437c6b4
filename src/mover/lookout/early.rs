//! Messages of the encrypt instance that are deferred perhaps without a notice.
//!
//! The queue manager writes a delay notice when the second after the arrival, minus one, has begun *by its own clock*, and
//! that lags a little. So a message that comes in and fails within the first moment of a second has its notice after the
//! second attempt, minutes later. The queue ID says when in a second the message came; whether it had its notice, the
//! queue file says.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::fs::inotify::{self, ReadFlags, WatchFlags};

use super::{Lookout, State};
use crate::postfix::{Instance, Queue, QueueId};

/// Microseconds of a second in which that may happen: a tick of the kernel's clock is 10 ms at most, and the queue manager
/// reads it once for all that it does in a turn.
const EARLY: u32 = 50_000;
/// Among IDs so far apart is one for each directory that has such messages, if `hash_queue_depth` is at most 3.
const STEP: usize = 0x100;

/// Who is told of them, and where they come to.
#[derive(Default)]
pub(super) struct EarlyOnes {
    tell: Option<Sender<QueueId>>,
    directories: BTreeSet<PathBuf>,
    /// Those of them that are not there yet: Postfix makes them when it needs them.
    missing: Vec<PathBuf>,
    /// Watched directories in which the missing ones, or theirs, will be made.
    above: HashSet<i32>,
    /// Something was made there.
    made: bool,
}

/// Whether what is in a directory is told of, or only what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Inside,
    Ahead,
}

impl EarlyOnes {
    /// Takes a message that has come into the deferred queue and that nobody knows.
    pub fn tell(&self, id: QueueId) {
        if let Some(tell) = &self.tell
            && id.microseconds().is_some_and(|within| within < EARLY)
        {
            // Nobody looks any more when the process ends.
            let _ = tell.send(id);
        }
    }

    /// Takes an event, if it is of a directory in which others are made.
    pub fn take(&mut self, wd: i32, what: ReadFlags) -> bool {
        let ours = if what.contains(ReadFlags::IGNORED) {
            self.above.remove(&wd)
        } else {
            self.above.contains(&wd)
        };
        self.made |= ours;
        ours
    }

    /// A directory is no longer watched.
    pub fn lose(&mut self, directory: PathBuf) {
        if self.directories.contains(&directory) {
            self.missing.push(directory);
            self.made = true;
        }
    }

    /// Is there any that was missing, perhaps? Says it once.
    pub fn has_more_directories(&mut self) -> bool {
        std::mem::take(&mut self.made)
    }
}

impl Lookout {
    /// From now on tells of them, in the layout that the queue has now. What came before is a matter of the census.
    pub fn early(&self, instance: &Instance) -> Receiver<QueueId> {
        let (tell, early) = channel();
        let directories: BTreeSet<PathBuf> = (0..EARLY)
            .step_by(STEP)
            // Six characters at least make a queue ID.
            .filter_map(|within| format!("{within:05X}0").parse().ok())
            .map(|id| instance.directory(Queue::Deferred.as_str(), &id))
            .collect();
        let mut state = self.lock();
        state.rest.early = EarlyOnes {
            tell: Some(tell),
            missing: directories.iter().cloned().collect(),
            directories,
            ..EarlyOnes::default()
        };
        self.watch_early(&mut state, Look::Ahead);
        early
    }

    /// Watches the directories that are there by now, and above the others.
    pub(super) fn watch_early(&self, state: &mut State, look: Look) {
        let missing = std::mem::take(&mut state.rest.early.missing);
        for directory in missing {
            // Until it is watched, or what is above it: it may be made between two looks.
            let watched = loop {
                if self.watch_directory(&mut state.rest, Queue::Deferred, directory.clone()) {
                    break true;
                }
                if !self.watch_above(&mut state.rest.early, &directory) {
                    break false;
                }
            };
            if !watched {
                state.rest.early.missing.push(directory);
            } else if look == Look::Inside {
                let files = std::fs::read_dir(&directory).into_iter().flatten();
                let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
                names
                    .filter_map(|name| name.parse().ok())
                    .for_each(|id| state.rest.early.tell(id));
            }
        }
    }

    /// Watches the next directory above that is there. Whether that is new.
    fn watch_above(&self, early: &mut EarlyOnes, directory: &Path) -> bool {
        let mut above = directory.ancestors().skip(1);
        let Some(inotify) = &self.inotify else {
            return false;
        };
        let wanted =
            WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MASK_ADD | WatchFlags::ONLYDIR;
        above
            .find_map(|path| inotify::add_watch(inotify, path, wanted).ok())
            .is_some_and(|wd| early.above.insert(wd))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::case::store::Store;

    #[test]
    fn of_messages_that_nobody_knows_the_early_ones_are_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("posttls.db"), true).unwrap();
        let lookout = Lookout::new(Arc::new(store));
        let instance = Instance::hashing(directory.path(), "deferred", 2);
        let ids = ["0C34F9A0111", "0C3509A0112", "A367B99A955", "003D29A0111"];
        let ids = ids.map(|id| id.parse::<QueueId>().unwrap());
        let early = lookout.early(&instance);
        let told = || -> Vec<QueueId> {
            lookout.gather();
            early.try_iter().collect()
        };
        // The directories are made with the first messages in them.
        for id in &ids {
            let deferred = instance.path(Queue::Deferred, id);
            fs::create_dir_all(deferred.parent().unwrap()).unwrap();
            fs::write(deferred, "message").unwrap();
        }
        let sorted = |mut told: Vec<QueueId>| {
            told.sort();
            told
        };
        let first = sorted(told());
        assert_eq!(
            first,
            [ids[3].clone(), ids[0].clone()],
            "the others came later"
        );
        for id in &ids {
            let deferred = instance.path(Queue::Deferred, id);
            let held = instance.path(Queue::Hold, id);
            // Out of it, and into hold: that tells nothing.
            fs::rename(&deferred, &held).unwrap();
            if id != &ids[3] {
                fs::rename(held, deferred).unwrap();
            }
        }
        assert_eq!(told(), ids[..1]);
        // A directory may go, and come again.
        let gone = instance.directory("deferred", &ids[0]);
        fs::remove_dir_all(&gone).unwrap();
        assert!(told().is_empty());
        fs::create_dir(&gone).unwrap();
        assert!(told().is_empty());
        fs::write(directory.path().join("message"), "message").unwrap();
        fs::rename(directory.path().join("message"), gone.join(ids[0].as_str())).unwrap();
        assert_eq!(told(), ids[..1]);
    }
}
