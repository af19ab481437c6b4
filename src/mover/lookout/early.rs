//! Messages of the encrypt instance that are deferred perhaps without a notice.
//!
//! The queue manager writes a delay notice when the second after the arrival, minus one, has begun *by its own clock*, and
//! that lags a little. So a message that comes in and fails within the first moment of a second has its notice after the
//! second attempt, minutes later. The queue ID says when in a second the message came.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::Lookout;
use crate::postfix::{Instance, Queue, QueueId};

/// Microseconds of a second in which that may happen: a tick of the kernel's clock is 10 ms at most, and the queue manager
/// reads it once for all that it does in a turn.
const EARLY: u32 = 50_000;
/// Among IDs so far apart is one for each directory that has such messages, if `hash_queue_depth` is at most 3.
const STEP: usize = 0x100;

/// Such a message.
#[derive(Debug)]
pub struct Early {
    /// Which.
    pub id: QueueId,
    /// Since when it is deferred.
    pub since: Instant,
}

/// Who is told of them, and what is not watched yet.
#[derive(Default)]
pub(super) struct EarlyOnes {
    tell: Option<Sender<Early>>,
    /// One ID in each directory that was not there yet: Postfix makes them when it needs them.
    unwatched: Vec<QueueId>,
}

impl EarlyOnes {
    /// Takes a message that has come into the deferred queue and that nobody knows.
    pub fn tell(&self, id: QueueId) {
        if let Some(tell) = &self.tell
            && id.microseconds().is_some_and(|within| within < EARLY)
        {
            let since = Instant::now();
            // Nobody looks any more when the process ends.
            let _ = tell.send(Early { id, since });
        }
    }
}

impl Lookout {
    /// From now on tells of them. What came before is a matter of the census.
    pub fn early(&self, instance: &Instance) -> Receiver<Early> {
        let (tell, early) = channel();
        let mut directories = Vec::new();
        let mut unwatched = Vec::new();
        for within in (0..EARLY).step_by(STEP) {
            // Six characters at least make a queue ID.
            let Ok(id) = format!("{within:05X}0").parse::<QueueId>() else {
                continue;
            };
            let directory = instance.directory(Queue::Deferred.as_str(), &id);
            if !directories.contains(&directory) {
                directories.push(directory);
                unwatched.push(id);
            }
        }
        self.lock().rest.early = EarlyOnes {
            tell: Some(tell),
            unwatched,
        };
        self.watch_early(instance);
        early
    }

    /// Watches the directories that are there by now.
    pub(super) fn watch_early(&self, instance: &Instance) {
        let mut state = self.lock();
        let mut unwatched = std::mem::take(&mut state.rest.early.unwatched);
        unwatched
            .retain(|id| !self.watch_directory(&mut state.rest, instance, Queue::Deferred, id));
        state.rest.early.unwatched = unwatched;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::super::RESTING_PLACES;
    use super::*;
    use crate::case::CaseId;
    use crate::case::store::Store;

    #[test]
    fn of_messages_that_nobody_knows_the_early_ones_are_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("posttls.db"), true).unwrap();
        let lookout = Lookout::new(Arc::new(store));
        let instance = Instance::bare(directory.path());
        let ids = ["0C34F9A0111", "0C3509A0112", "A367B99A955", "003D29A0111"];
        let ids = ids.map(|id| id.parse::<QueueId>().unwrap());
        for queue in RESTING_PLACES.iter().chain([&Queue::Active]) {
            for id in &ids {
                fs::create_dir_all(instance.directory(queue.as_str(), id)).unwrap();
            }
        }
        let early = lookout.early(&instance);
        assert!(lookout.let_rest(&instance, &ids[3], CaseId(7)));
        for id in &ids {
            let deferred = instance.path(Queue::Deferred, id);
            fs::write(instance.path(Queue::Active, id), "message").unwrap();
            fs::rename(instance.path(Queue::Active, id), &deferred).unwrap();
            // Out of it, and into hold: that tells nothing.
            fs::rename(deferred, instance.path(Queue::Hold, id)).unwrap();
        }
        lookout.gather();
        let told: Vec<QueueId> = early.try_iter().map(|early| early.id).collect();
        assert_eq!(
            told,
            ids[..1],
            "the second came late, the third later, the last is known"
        );
    }
}
