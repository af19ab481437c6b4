//! What was heard goes into the store, in a thread of its own: smtp(8) waits for the ear a fraction of a second at most,
//! however long the store is busy.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
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
    /// Of the last note that took too long. A message may have hundreds of recipients, each with a note of its own, and all
    /// of them are unmarked until smtp(8) goes on: a store that is stuck delays it once, and not hundreds of times.
    late: Cell<Option<Receiver<()>>>,
    writer: JoinHandle<()>,
}

impl Notes {
    /// Starts the thread. The database is opened for the first note.
    pub fn new(path: PathBuf) -> Self {
        let (to, from) = sync_channel(BACKLOG);
        let writer = thread::spawn(move || write_all(&path, &from));
        Self {
            to,
            late: Cell::default(),
            writer,
        }
    }

    /// Notes what was heard of the message that has one of these inode numbers, if it is one of ours.
    pub fn note(&self, messages: &[u64], heard: Heard) {
        let (done, finished) = sync_channel(1);
        let note = Note {
            messages: messages.to_vec(),
            heard,
            done,
        };
        let before = self.late.take();
        let stuck = before.is_some_and(|done| done.try_recv() == Err(TryRecvError::Empty));
        match self.to.try_send(note) {
            // When it takes longer the mover may be quicker, and the recipient is known to be "sent" until it is noted.
            Ok(()) if stuck || finished.recv_timeout(PATIENCE).is_err() => {
                self.late.set(Some(finished));
            }
            Ok(()) => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Passage;

    #[test]
    fn a_store_that_is_stuck_delays_a_message_once_and_not_once_a_recipient() {
        let (to, from) = sync_channel(BACKLOG);
        let notes = Notes {
            to,
            late: Cell::default(),
            // Takes all notes and is done with none.
            writer: thread::spawn(move || drop(from.iter().collect::<Vec<Note>>())),
        };
        let begun = Instant::now();
        let recipients = 60;
        for _ in 0..recipients {
            let heard = Heard {
                passage: Passage::Clear,
                reply: String::new(),
            };
            notes.note(&[1], heard);
        }
        assert!(begun.elapsed() < PATIENCE * recipients / 2);
        notes.finish();
    }
}
