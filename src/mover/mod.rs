//! The privileged parent: verifies links, records decisions, and carries them out between the two instances' queues.
//!
//! The invariant that everything here serves: **while a step of a move is unfinished, every copy of the message is on
//! hold.** Nothing in a hold queue is delivered, so wherever the mover is killed, the journal and the two hold queues
//! tell what remains to be done, and no recipient can get the message twice or not at all.

mod allowance;
mod census;
pub mod control;
mod copy;
mod courier;
mod daemon;
mod desk;
mod ending;
mod engine;
mod handover;
mod late;
mod lock;
mod lookout;
mod reconcile;
mod recovery;
mod retention;
mod retries;
mod source;
mod standing;
mod steps;
mod supervise;
mod sweep;
mod watch;
mod ways;
mod web_child;

use std::io;
use std::path::{Path, PathBuf};

use crate::case::MessageKey;
use crate::case::store::StoreError;
use crate::postfix::QueueFileError;
use crate::postfix::instance::PostfixError;
use crate::postfix::{Queue, QueueId};

pub use census::{Census, CensusError, Go, Summary};
pub use daemon::{DaemonError, run};
pub use desk::{Desk, DeskError};
pub use engine::{Engine, Progress};
pub use lookout::Lookout;
pub use reconcile::{Stray, reconcile, strays};
pub use supervise::Supervisor;
pub use sweep::Sweep;
pub use ways::{Envelope, OwnHop, Ways, own_hops, route_of_anybody};

/// Why a move did not come to its end. Whatever it is, the decision is recorded and the move is tried again.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The journal could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A Postfix command failed.
    #[error(transparent)]
    Postfix(#[from] PostfixError),
    /// One of the others, with the message that it happened to.
    #[error("{queue_id}: {source}")]
    About {
        /// The message.
        queue_id: QueueId,
        /// What went wrong.
        source: Box<MoveError>,
    },
    /// A file could not be read or written.
    #[error("{queue_id}: cannot {doing} {path}: {source}{}", hint(source))]
    File {
        /// The message.
        queue_id: QueueId,
        /// What was being done.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The queue file is not one that Postfix would deliver.
    #[error(
        "{queue_id}: {path} is not a queue file that can be moved: {why}; look at it with postcat"
    )]
    Unsafe {
        /// The message.
        queue_id: QueueId,
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The queue file is not understood.
    #[error("{queue_id}: {path}: {source}; look at it with postcat")]
    Damaged {
        /// The message.
        queue_id: QueueId,
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: QueueFileError,
    },
    /// A queue can't be listed.
    #[error("cannot list the messages in {path}: {source}")]
    Listing {
        /// The queue.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A watched queue file is not understood.
    #[error("a message that is watched: {0}; look at it with postcat")]
    Unread(QueueFileError),
    /// Whether it may be offered, or sent, can't be found out.
    #[error("{queue_id}: not judged, so not to be sent: {why}")]
    Unjudged {
        /// The message.
        queue_id: QueueId,
        /// What fails.
        why: String,
    },
    /// The queue is not laid out as the settings say.
    #[error(
        "{queue_id}: its file lies where hash_queue_names and hash_queue_depth do not put it: `postfix -c {config_dir} reload` puts it right"
    )]
    Misplaced {
        /// The message.
        queue_id: QueueId,
        /// Configuration directory of the instance.
        config_dir: PathBuf,
    },
    /// The journal has a name that is no queue ID.
    #[error("{queue_id}: the journal names a copy {name:?}, which is no queue ID")]
    BadCopyName {
        /// The message.
        queue_id: QueueId,
        /// The name.
        name: String,
    },
    /// The journal names a move that it does not have.
    #[error("the journal has no move {0}")]
    NoSuchMove(i64),
}

impl MoveError {
    /// What the history of its case says of it, with what an admin can do; `None` when there is no writing it there.
    fn for_history(&self, config_dir: &Path) -> Option<String> {
        match self {
            Self::Store(_) => None,
            Self::About { source, .. } if matches!(**source, Self::Store(_)) => None,
            Self::Damaged { queue_id, .. } | Self::Unsafe { queue_id, .. } => {
                let at = config_dir.display();
                Some(format!(
                    "{self} (postcat -c {at} -q {queue_id}). Once it is mended the rest goes on by itself; if it is \
                     removed (postsuper -c {at} -d {queue_id}), the case ends"
                ))
            }
            _ => Some(format!(
                "{self}; PostTLS goes on by itself when this is mended"
            )),
        }
    }

    /// The same as what went wrong with the message `id`: log lines begin with its queue ID.
    fn about(self, id: &QueueId) -> Self {
        if self.to_string().starts_with(id.as_str()) {
            return self;
        }
        Self::About {
            queue_id: id.clone(),
            source: Box::new(self),
        }
    }
}

/// What an operator can do about it.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space on its file system"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; mount its file system for writing",
        _ => "",
    }
}

/// What the queue of the encrypt instance says of a message.
enum Sighting {
    /// It is there, in this queue.
    Queued(Queue),
    /// No message of this sender and arrival time is in the queue under this queue ID.
    Gone,
}

/// A short name for a message in logs.
fn shown(key: &MessageKey) -> String {
    let sender = key
        .sender
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    format!("{}: from=<{sender}>", key.queue_id)
}
