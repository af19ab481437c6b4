//! The files that are compared, and whether two of them are the same message.

use std::fs::symlink_metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::mover::source::{self, Source};
use crate::mover::{MoveError, copy};
use crate::postfix::{Instance, Queue, QueueId};

/// An unfinished file that is younger may be one that cleanup(8) is writing.
const BEING_WRITTEN: Duration = Duration::from_secs(60);

/// A queue file, before it is read.
pub(super) struct File {
    pub id: QueueId,
    pub path: PathBuf,
    pub queue: Queue,
    pub length: u64,
    pub unfinished: bool,
    changed: SystemTime,
}

/// A file of the may instance that is in no journal.
pub(super) struct Unknown {
    pub file: File,
    pub source: Source,
}

impl File {
    /// `None` when it is not there any more, or none of Postfix's.
    pub fn of(instance: &Instance, queue: Queue, (id, path): (QueueId, PathBuf)) -> Option<Self> {
        let found = symlink_metadata(&path).ok()?;
        (found.is_file() && found.uid() == instance.mail_owner.uid).then(|| Self {
            id,
            path,
            queue,
            length: found.size(),
            unfinished: found.mode() & 0o700 == copy::NOT_READY,
            changed: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }

    pub fn is_being_written(&self) -> bool {
        self.unfinished && self.changed.elapsed().unwrap_or_default() < BEING_WRITTEN
    }

    /// What can't be read is reported by whoever has to do with it.
    pub fn read(&self, instance: &Instance) -> Option<Source> {
        source::open_at(instance, self.path.clone(), &self.id, false).ok()?
    }
}

pub(super) fn files(instance: &Instance, queue: Queue) -> Result<Vec<File>, MoveError> {
    let messages = instance
        .messages(queue)
        .map_err(|source| MoveError::Listing {
            path: instance.queue_directory.join(queue.as_str()),
            source,
        })?;
    Ok(messages
        .into_iter()
        .filter_map(|message| File::of(instance, queue, message))
        .collect())
}

/// Are these two the same message? The content is not compared: arrival to the microsecond, sender and length are enough.
pub(super) fn are_twins(a: &Source, b: &Source) -> bool {
    let length = |one: &Source| one.file.metadata().map(|found| found.len()).ok();
    let (left, right) = (&a.content, &b.content);
    left.arrival == right.arrival
        && left.sender == right.sender
        && left.size == right.size
        && length(a).is_some()
        && length(a) == length(b)
}
