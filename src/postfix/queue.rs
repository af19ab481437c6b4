//! Where in the queues of an instance a message is.
//!
//! Apart from [`super::instance`], which runs commands: here is only looked, and a look that finds nothing is repeated,
//! because a message may change queues meanwhile.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::{Instance, QueueId};

/// A file that changes queues while it is looked for is missed at most this often in a row.
const LOOKS: usize = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Directories below each other that anybody would hash a queue into.
const MOST_HASHING: usize = 4;

/// A queue of Postfix in which PostTLS looks for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Queue {
    /// Waiting for the next try.
    Deferred,
    /// In the hands of the queue manager.
    Active,
    /// About to be taken by the queue manager.
    Incoming,
    /// Held until somebody releases it.
    Hold,
}

impl Queue {
    pub(crate) const ALL: [Self; 4] = [Self::Deferred, Self::Active, Self::Incoming, Self::Hold];

    /// The queue of this name, if PostTLS looks at it.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|queue| queue.as_str() == name)
    }

    /// The name of its directory.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deferred => "deferred",
            Self::Active => "active",
            Self::Incoming => "incoming",
            Self::Hold => "hold",
        }
    }
}

impl Instance {
    /// Is a file of this queue ID where another `hash_queue_depth`, or none, would put it? Postfix moves such files
    /// when it starts and when it is reloaded.
    pub fn is_misplaced(&self, id: &QueueId) -> bool {
        Queue::ALL.into_iter().any(|queue| {
            let mut directory = self.queue_directory.join(queue.as_str());
            let characters = id.hash_characters();
            let mut deeper = characters.chars();
            (0..=MOST_HASHING).any(|_| {
                let there = directory.join(id.as_str()).exists();
                directory.extend(deeper.next().map(String::from));
                there
            })
        })
    }

    /// The directory of `queue` that holds the message, after hashing (postconf(5), `hash_queue_names`).
    pub fn directory(&self, queue: &str, id: &QueueId) -> PathBuf {
        let mut path = self.queue_directory.join(queue);
        if self.hashed.iter().any(|name| name == queue) {
            path.extend(
                id.hash_characters()
                    .chars()
                    .take(self.hash_depth)
                    .map(String::from),
            );
        }
        path
    }

    /// The path of the message's file in `queue`.
    pub fn path(&self, queue: Queue, id: &QueueId) -> PathBuf {
        self.directory(queue.as_str(), id).join(id.as_str())
    }

    /// Is the message in `queue`?
    ///
    /// # Errors
    /// When the queue can't be read.
    pub fn holds(&self, queue: Queue, id: &QueueId) -> io::Result<bool> {
        match std::fs::symlink_metadata(self.path(queue, id)) {
            Ok(metadata) => Ok(metadata.is_file() && metadata.uid() == self.mail_owner.uid),
            // Only a queue that is there can say that the message is not in it: a spool may not be mounted yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::metadata(self.queue_directory.join(queue.as_str())).map(|_| false)
            }
            Err(error) => Err(error),
        }
    }

    /// The queue in which the message is. `None` only after several looks: between two of them it may change queues.
    ///
    /// # Errors
    /// When a queue can't be read.
    pub fn find(&self, id: &QueueId) -> io::Result<Option<Queue>> {
        for look in 0..LOOKS {
            if look > 0 {
                thread::sleep(LOOK_PAUSE);
            }
            if let Some(queue) = self.glance(id)? {
                return Ok(Some(queue));
            }
        }
        Ok(None)
    }

    /// Keeps of `ids` those that are in no queue, after as many looks as [`Instance::find`] takes, but at all of them
    /// between two pauses.
    ///
    /// # Errors
    /// When a queue can't be read.
    pub fn keep_missing(&self, ids: &mut HashSet<QueueId>) -> io::Result<()> {
        for _ in 0..LOOKS {
            let mut there = Vec::new();
            for id in ids.iter() {
                if self.glance(id)?.is_some() {
                    there.push(id.clone());
                }
            }
            for id in &there {
                ids.remove(id);
            }
            if ids.is_empty() {
                break;
            }
            thread::sleep(LOOK_PAUSE);
        }
        Ok(())
    }

    /// The messages in `queue`, finished or not, wherever it is hashed to. What changes meanwhile may be missed.
    ///
    /// # Errors
    /// When the queue can't be read.
    pub fn messages(&self, queue: Queue) -> io::Result<Vec<(QueueId, PathBuf)>> {
        let mut found = Vec::new();
        let mut directories = vec![(self.queue_directory.join(queue.as_str()), 0)];
        while let Some((directory, depth)) = directories.pop() {
            let entries = match std::fs::read_dir(&directory) {
                Err(error) if depth > 0 && error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let id = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok());
                match (entry.file_type(), id) {
                    // Hashing makes directories of one character.
                    (Ok(kind), _)
                        if kind.is_dir()
                            && depth < MOST_HASHING
                            && entry.file_name().len() == 1 =>
                    {
                        directories.push((entry.path(), depth + 1));
                    }
                    (Ok(kind), Some(id)) if kind.is_file() => found.push((id, entry.path())),
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    fn glance(&self, id: &QueueId) -> io::Result<Option<Queue>> {
        for queue in Queue::ALL {
            if self.holds(queue, id)? {
                return Ok(Some(queue));
            }
        }
        Ok(None)
    }
}
