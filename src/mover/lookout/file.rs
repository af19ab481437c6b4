//! One watched queue file, kept open: what it says now, where it is or was last, and its bounce log.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use log::warn;

use super::Side;
use super::adopt::Subject;
use super::judge::{Logged, Mark, judge};
use crate::case::{CaseId, MessageKey};
use crate::mover::engine::Pair;
use crate::postfix::{
    Instance, Log, QueueFile, QueueFileError, QueueId, Recipient, RecipientState, deferrals,
};

/// Octets of a bounce or defer log that are read: some ten thousand recipients.
const MAX_LOG: u64 = 16 << 20;

/// A message whose recipients are looked after.
pub(super) struct Watched {
    pub side: Side,
    /// Queue ID in its instance.
    pub id: QueueId,
    pub case: CaseId,
    pub key: MessageKey,
    /// Is it recorded that an administrator holds it?
    pub held: AtomicBool,
    /// Offsets of recipients that were done before, or that are recorded.
    judged: Mutex<HashSet<u64>>,
    /// Never locked while anybody waits for the store: logs last for milliseconds only.
    logs: Mutex<Logs>,
    pair: Arc<Pair>,
    file: File,
}

/// What the bounce and defer services have logged.
#[derive(Default)]
pub(super) struct Logs {
    pub bounces: Logged,
    /// What was deferred in the attempt under way.
    pub defers: Logged,
    bounce_log: Option<File>,
    defer_log: Option<File>,
}

/// The queue that a file is in, or was in when it was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Deferred,
    /// With the queue manager.
    Active,
    Hold,
    /// In a queue in which nobody delivers.
    Elsewhere,
    /// Taken in anew (`postsuper -r`), under another queue ID.
    Maildrop,
}

impl Watched {
    pub fn new(subject: &Subject<'_>, pair: Arc<Pair>, file: File, judged: HashSet<u64>) -> Self {
        Self {
            side: subject.side,
            id: subject.id.clone(),
            case: subject.case,
            key: subject.key.clone(),
            held: AtomicBool::new(subject.held),
            judged: Mutex::new(judged),
            logs: Mutex::default(),
            pair,
            file,
        }
    }

    pub fn instance(&self) -> &Instance {
        self.side.of(&self.pair)
    }

    /// What the file says now; also after it was removed.
    pub fn content(&self) -> Result<QueueFile, QueueFileError> {
        QueueFile::read(&self.file)
    }

    /// Has its last name been removed?
    pub fn is_gone(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Where it is, or was last: the kernel knows the path of an open file, even after its removal.
    pub fn place(&self) -> Place {
        let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let path = std::fs::read_link(link).unwrap_or_default();
        let inside = path.strip_prefix(&self.instance().queue_directory).ok();
        // Hashed directories are below the queue's.
        let queue = inside.and_then(|inside| inside.components().next());
        match queue.and_then(|queue| queue.as_os_str().to_str()) {
            Some("deferred") => Place::Deferred,
            Some("active" | "incoming") => Place::Active,
            Some("hold") => Place::Hold,
            Some("maildrop") => Place::Maildrop,
            _ => Place::Elsewhere,
        }
    }

    pub fn logs(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn judged(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offsets of the recipients that are marked done and not judged yet.
    pub fn fresh(&self, content: &QueueFile) -> Vec<u64> {
        let judged = self.judged();
        let done = content
            .recipients
            .iter()
            .filter(|one| one.state == RecipientState::Done);
        done.map(|one| one.offset)
            .filter(|offset| !judged.contains(offset))
            .collect()
    }

    /// A log is made. It is kept open, as it may be gone before the marks that it explains are seen.
    pub fn log_appears(&self, log: Log) {
        let found = self.open(log);
        let mut logs = self.logs();
        let (kept, records) = logs.of(log);
        records.unread |= found.is_none();
        *kept = found.or_else(|| kept.take());
    }

    /// Keeps open the logs that are there.
    pub fn keep_logs(&self) {
        for log in [Log::Bounce, Log::Defer] {
            if let Some(there) = self.open(log) {
                *self.logs().of(log).0 = Some(there);
            }
        }
    }

    /// Each attempt has a defer log of its own. A message that an admin has expired is not tried again: what the last
    /// attempt has logged is returned.
    pub fn changes_queues(&self) {
        if !self.is_expired_by_force() {
            let mut logs = self.logs();
            logs.defers = Logged::default();
            logs.defer_log = None;
        }
        self.may_have_expired();
    }

    /// Keeps open what is returned of a message that an admin has expired: it is gone by then. Where it is gone already,
    /// a mark may mean either.
    pub fn may_have_expired(&self) {
        if self.is_expired_by_force() && self.logs().defer_log.is_none() {
            let log = self.open(Log::Defer);
            let mut logs = self.logs();
            logs.defers.unread |= log.is_none();
            logs.defer_log = log;
        }
    }

    /// Reads both logs: what they say of a recipient is written before its mark.
    pub fn read_logs(&self) {
        for log in [Log::Bounce, Log::Defer] {
            let there = self.open(log);
            let mut logs = self.logs();
            let (kept, records) = logs.of(log);
            for file in kept.iter_mut() {
                records.add(deferrals(&read_log(file)));
            }
            if let Some(mut there) = there {
                records.add(deferrals(&read_log(&mut there)));
                *kept = Some(there);
            }
        }
    }

    /// How a recipient stands, by its records.
    pub fn judge(&self, records: &[&Recipient], overdue: bool, fresh: usize) -> Mark {
        let logs = self.logs();
        let overdue = overdue.then_some(&logs.defers);
        judge(records, &self.judged(), &logs.bounces, overdue, fresh)
    }

    /// What these marks mean is recorded.
    pub fn have_judged(&self, fresh: &[u64]) {
        self.judged().extend(fresh);
        if !fresh.is_empty() {
            self.logs().bounces.unread = false;
        }
    }

    /// Is the message too old to be tried again, and was anybody deferred in the attempt under way?
    pub fn is_overdue(&self) -> bool {
        let deferred = !self.logs().defers.is_empty();
        deferred && self.has_expired()
    }

    /// The defer log as it is now; empty when there is none.
    pub fn deferrals(&self) -> Vec<u8> {
        self.open(Log::Defer)
            .as_mut()
            .map(read_log)
            .unwrap_or_default()
    }

    /// `None` when it is not there, or not what Postfix makes.
    fn open(&self, log: Log) -> Option<File> {
        let file = self.instance().open_log(log, &self.id).ok()??;
        file.metadata()
            .is_ok_and(|metadata| metadata.is_file())
            .then_some(file)
    }

    /// Postfix 3.5 and later keep that in the mode of the file (MAIL_QUEUE_STAT_EXPIRE in src/global/mail_queue.h).
    fn is_expired_by_force(&self) -> bool {
        const GROUP_EXECUTE: u32 = 0o010;
        self.file
            .metadata()
            .is_ok_and(|metadata| metadata.mode() & GROUP_EXECUTE != 0)
    }

    /// Is the message older than Postfix keeps any, or has an admin said that its time is over (`postsuper -e`)?
    pub fn has_expired(&self) -> bool {
        if self.is_expired_by_force() {
            return true;
        }
        match self.instance().queue_lifetime(self.key.sender.is_none()) {
            // The queue manager compares seconds.
            Ok(lifetime) => {
                Timestamp::now().as_second() + 1 >= self.key.arrival.saturating_add(lifetime)
            }
            Err(error) => {
                warn!(
                    "{}: cannot tell whether its time had come: {error}",
                    self.id
                );
                false
            }
        }
    }
}

impl Logs {
    fn of(&mut self, log: Log) -> (&mut Option<File>, &mut Logged) {
        match log {
            Log::Bounce => (&mut self.bounce_log, &mut self.bounces),
            Log::Defer => (&mut self.defer_log, &mut self.defers),
        }
    }
}

fn read_log(log: &mut File) -> Vec<u8> {
    let mut text = Vec::new();
    // What can't be read is as if it were not there: then less is known.
    let _ = log
        .rewind()
        .and_then(|()| log.take(MAX_LOG).read_to_end(&mut text));
    text
}
