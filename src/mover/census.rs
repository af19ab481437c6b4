//! The census: goes through the whole deferred queue for messages with TLS failures that no case knows: mail without a
//! sender, mail older than PostTLS, notices that were lost, messages that an admin has requeued under a new queue ID.
//!
//! The list of `postqueue -j` is a stream, and of one message at a time no more is in memory than its envelope and its
//! defer log. Whatever is found comes into the store by transactions of their own, so it may be stopped at any moment,
//! and two at once find the same only once.

use std::fmt;

use log::warn;
use serde::Serialize;

use super::reconcile::{reconcile, strays};
use super::{MoveError, Ways, late, source};
use crate::address::Address;
use crate::case::store::{Store, StoreError};
use crate::case::{MessageKey, Source};
use crate::config::Config;
use crate::intake::{self, Deferred, Found};
use crate::notice;
use crate::notify;
use crate::postfix::instance::PostfixError;
use crate::postfix::{Entry, Instance, ListingError, Log, Queue, QueueId, header};

/// A look through the whole queue.
pub struct Census<'a> {
    /// Where the cases are.
    pub store: &'a Store,
    /// The instance with mandatory TLS.
    pub instance: &'a Instance,
    /// Who finds out what words do not tell.
    pub ways: &'a Ways,
    /// The instance with opportunistic TLS.
    pub may: &'a Instance,
    /// Who is asked, and about what.
    pub config: &'a Config,
    /// Only count what would be recorded?
    pub dry_run: bool,
}

/// Whether a census goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    /// Go on.
    On,
    /// Stop here.
    Stop,
}

/// Why a census broke off. What it has found until then is recorded.
#[derive(Debug, thiserror::Error)]
pub enum CensusError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The queue can't be listed.
    #[error(transparent)]
    Postfix(#[from] PostfixError),
    /// The list broke off.
    #[error(transparent)]
    Listing(#[from] ListingError),
    /// A hold queue can't be read.
    #[error(transparent)]
    Hold(#[from] MoveError),
}

/// What a census has seen, in messages but for `recipients`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// In any queue.
    pub messages: u64,
    /// With a deferred recipient, in the deferred queue or on hold.
    pub deferred: u64,
    /// Of these, those with a TLS failure of a recipient that still waits.
    pub stuck: u64,
    /// Of these, those for which a case was opened (or would be).
    pub opened: u64,
    /// Of these, those whose case recipients have joined (or would).
    pub joined: u64,
    /// Of these, those of which everything was known.
    pub known: u64,
    /// Of these, Postfix's own notices and PostTLS's own mails, about which there is never a case.
    pub internal: u64,
    /// Recipients recorded, in new cases and old ones (or that would be).
    pub recipients: u64,
    /// Changed queues while they were looked at: they are being tried, or have left.
    pub moved: u64,
    /// Could not be read or understood; the log says why.
    pub unreadable: u64,
    /// On hold in either instance, and left there by a move that the journal does not know, perhaps.
    pub strays: u64,
    /// Did it come to the end of the queue?
    pub complete: bool,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.complete { "" } else { ", interrupted" };
        write!(
            f,
            "census: {} messages, {} deferred, {} with a TLS failure: {} new cases, {} joined by recipients, {} known, \
             {} internal; {} recipients recorded, {} moved meanwhile, {} unreadable, {} on hold \
             that no journal knows{end}",
            self.messages,
            self.deferred,
            self.stuck,
            self.opened,
            self.joined,
            self.known,
            self.internal,
            self.recipients,
            self.moved,
            self.unreadable,
            self.strays
        )
    }
}

impl Census<'_> {
    /// Goes through the queue. `progress` is shown every message and may stop it.
    ///
    /// # Errors
    /// When the queue can't be listed, or the store fails. A message that can't be read is logged and counted.
    pub fn run(&self, progress: &mut dyn FnMut(&Summary) -> Go) -> Result<Summary, CensusError> {
        let mut summary = Summary {
            strays: self.reconcile()?,
            ..Summary::default()
        };
        let mut listing = self.instance.list()?;
        for entry in &mut listing {
            summary.messages += 1;
            match entry {
                Ok(entry) => self.count(&entry, &mut summary)?,
                Err(error @ ListingError::Io { .. }) => return Err(error.into()),
                Err(error) => {
                    warn!("{error}");
                    summary.unreadable += 1;
                }
            }
            if progress(&summary) == Go::Stop {
                return Ok(summary);
            }
        }
        listing.finish()?;
        summary.complete = true;
        Ok(summary)
    }

    /// Looks at one message, if it is in the deferred queue and has had no notice yet though it will have one.
    ///
    /// # Errors
    /// When the store fails, or the message can't be read.
    pub fn look_at(&self, id: &QueueId) -> Result<Summary, MoveError> {
        let mut summary = Summary::default();
        // The queue manager says so before it defers the message.
        let without = |source: &source::Source| source.content.warn.is_some_and(|due| due >= 0);
        let source = source::open(self.instance, Queue::Deferred, id, false)?;
        if let Some(source) = source.filter(without) {
            self.judge(source, Queue::Deferred, id, &mut summary)?;
        }
        Ok(summary)
    }

    fn count(&self, entry: &Entry, summary: &mut Summary) -> Result<(), StoreError> {
        match entry.queue {
            Some(queue @ (Queue::Deferred | Queue::Hold)) if entry.deferred => {
                summary.deferred += 1;
                match self.examine(queue, &entry.id, summary) {
                    Err(MoveError::Store(error)) => return Err(error),
                    Err(error) => {
                        warn!("{error}");
                        summary.unreadable += 1;
                    }
                    Ok(()) => {}
                }
            }
            // What is being tried, or not tried yet, has its first notice before it.
            _ => {}
        }
        Ok(())
    }

    fn reconcile(&self) -> Result<u64, MoveError> {
        if self.dry_run {
            return Ok(strays(self.store, self.instance, self.may)?.len() as u64);
        }
        reconcile(self.store, self.instance, self.may)
    }

    fn examine(&self, queue: Queue, id: &QueueId, summary: &mut Summary) -> Result<(), MoveError> {
        let Some(source) = source::open(self.instance, queue, id, false)? else {
            summary.moved += 1;
            return Ok(());
        };
        self.judge(source, queue, id, summary)
    }

    fn judge(
        &self,
        source: source::Source,
        queue: Queue,
        id: &QueueId,
        summary: &mut Summary,
    ) -> Result<(), MoveError> {
        let log = late::read(self.instance, Log::Defer, id)?.unwrap_or_default();
        if !source.is_still_there() {
            summary.moved += 1;
            return Ok(());
        }
        let mut deferred = late::pending(&log, &source);
        if !late::any_stuck(&deferred) {
            return Ok(());
        }
        self.ways.judge(self.instance, &source, &mut deferred);
        summary.stuck += 1;
        let sender = source.content.sender.as_slice();
        let sender = if sender.is_empty() {
            None
        } else {
            let Ok(sender) = Address::from_octets(sender) else {
                return Err(MoveError::Unsafe {
                    queue_id: id.clone(),
                    path: source.path,
                    why: format!("its sender is no address: {}", sender.escape_ascii()),
                });
            };
            Some(sender)
        };
        let header = match header(&source.file, &source.content.size) {
            Ok(header) => header,
            Err(error) => {
                warn!("{id}: recorded without its subject, as the header can't be read: {error}");
                Vec::new()
            }
        };
        let from = &self.config.notification.from_address;
        if self.is_internal(sender.as_ref()) || sender.is_none() && notify::is_ours(&header, from) {
            summary.internal += 1;
            return Ok(());
        }
        let key = MessageKey {
            queue_id: id.clone(),
            sender,
            arrival: source.content.arrival.0,
        };
        self.record(key, queue == Queue::Hold, &header, deferred, summary)
    }

    /// Did Postfix write the message to inform its postmaster, or us?
    fn is_internal(&self, sender: Option<&Address>) -> bool {
        let local = sender.and_then(|sender| sender.as_str().rsplit_once('@'));
        local.is_some_and(|(local, _)| local == self.instance.double_bounce)
    }

    fn record(
        &self,
        key: MessageKey,
        held: bool,
        header: &[u8],
        deferred: Vec<Deferred>,
        summary: &mut Summary,
    ) -> Result<(), MoveError> {
        let case = self.store.case_of(&key)?;
        let known = match &case {
            Some(case) => self.store.recipients(case.id)?,
            None => Vec::new(),
        };
        let mut deferred = late::news(deferred, &known, &self.config.offer);
        if held {
            // It is recorded already; nothing more happens to it while it is on hold.
            deferred.retain(|one| known.iter().all(|known| known.address != one.address));
        }
        if deferred.is_empty() {
            summary.known += 1;
            return Ok(());
        }
        let count = deferred.len() as u64;
        if self.dry_run {
            summary.recipients += count;
            summary.opened += u64::from(case.is_none());
            summary.joined += u64::from(case.is_some());
            return Ok(());
        }
        let original = notice::original(header);
        let lifetimes = self.instance.lifetimes;
        let lifetime = match &key.sender {
            Some(_) => lifetimes.message,
            None => lifetimes.bounce,
        };
        let found = Found {
            retry_until: Some(key.arrival.saturating_add(lifetime)),
            key,
            subject: original.subject.unwrap_or_default(),
            message_id: original.message_id,
            automatic: original.automatic,
            source: Source::Census,
            held,
            deferred,
        };
        let admitted = intake::admit(self.store, self.config, &found)?;
        // Somebody else may have been faster.
        let fresh = admitted.fresh.len() as u64;
        summary.recipients += fresh;
        summary.opened += u64::from(admitted.opened);
        summary.joined += u64::from(!admitted.opened && fresh > 0);
        summary.known += u64::from(fresh == 0);
        Ok(())
    }
}
