//! What was heard goes into the store, in a thread of its own: smtp(8) waits for the ear a fraction of a second at most,
//! however long the store is busy.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{error, info, warn};

use super::dialogue::Heard;
use crate::case::store::{Store, StoreError};

/// How long smtp(8) waits at most. Between the server's last word and Postfix's mark in the queue file nothing should
/// take long.
const PATIENCE: Duration = Duration::from_millis(400);
/// How long hearings that must not be confounded are kept apart: within the patience.
const KEPT_APART: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(10);
/// Notes that may wait for a busy store.
const BACKLOG: usize = 64;

struct Note {
    messages: Vec<u64>,
    heard: Heard,
    done: SyncSender<()>,
}

/// The way into the store.
pub struct Notes {
    to: SyncSender<Note>,
    writer: JoinHandle<()>,
}

impl Notes {
    /// Starts the thread. The database is opened for the first note.
    pub fn new(path: PathBuf) -> Self {
        let (to, from) = sync_channel(BACKLOG);
        let writer = thread::spawn(move || write_all(&path, &from));
        Self { to, writer }
    }

    /// Notes what was heard of the message that has one of these inode numbers, if it is one of ours.
    pub fn note(&self, messages: &[u64], heard: Heard) {
        let (done, finished) = sync_channel(1);
        let note = Note {
            messages: messages.to_vec(),
            heard,
            done,
        };
        match self.to.try_send(note) {
            // When it takes longer the note comes too late to be of use, and the recipient is known to be "sent".
            Ok(()) => drop(finished.recv_timeout(PATIENCE)),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                error!(
                    "the store is busy for too long: a delivery was heard and could not be noted"
                );
            }
        }
    }

    /// Waits until everything is written.
    pub fn finish(self) {
        drop(self.to);
        if self.writer.join().is_err() {
            error!("the thread that writes notes has ended by a panic");
        }
    }
}

fn write_all(path: &Path, from: &Receiver<Note>) {
    let mut store = None;
    for note in from {
        let result = match &store {
            Some(store) => write(store, &note),
            None => Store::open(path, false).and_then(|opened| {
                let result = write(&opened, &note);
                store = Some(opened);
                result
            }),
        };
        if let Err(trouble) = result {
            warn!("a delivery was heard and could not be noted: {trouble}");
        }
        // Nobody waits any more when it took too long.
        let _ = note.done.try_send(());
    }
}

fn write(store: &Store, note: &Note) -> Result<(), StoreError> {
    for inode in &note.messages {
        let Some(copy) = store.copy_of_inode(*inode)? else {
            continue;
        };
        let Heard { passage, reply } = &note.heard;
        let deadline = Instant::now() + KEPT_APART;
        while !store.hear(&copy, *passage, reply, Instant::now() >= deadline)? {
            thread::sleep(PAUSE);
        }
        info!("{copy}: heard a delivery, {passage}: {reply}");
        return Ok(());
    }
    Ok(())
}
