//! All connections to tiny_http: as many requests are carried out at the same time.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::answer::Answer;
use super::incoming::Whole;
use super::reserve::Reserve;
use super::slot::{Errand, Slot};
use crate::web::origin::Origin;
use crate::web::serve::Service;

/// A request is answered, or never will be.
pub(crate) struct Done {
    pub(crate) client: u64,
    pub(crate) origin: Origin,
    /// As the client gets it.
    pub(crate) answer: Option<Vec<u8>>,
}

/// The slots, by the number under which epoll knows them.
pub(crate) struct Slots {
    poll: Arc<OwnedFd>,
    service: Arc<Service>,
    reserve: Reserve,
    all: HashMap<u64, Slot>,
    idle: Vec<u64>,
    most: usize,
    patience: Duration,
    hung: usize,
}

impl Slots {
    /// None yet; `most` at the same time, each of which may take `patience` for a request.
    pub(crate) fn new(
        poll: Arc<OwnedFd>,
        service: Arc<Service>,
        reserve: Reserve,
        most: usize,
        patience: Duration,
    ) -> Self {
        Self {
            poll,
            service,
            reserve,
            all: HashMap::new(),
            idle: Vec::new(),
            most,
            patience,
            hung: 0,
        }
    }

    /// Opens those that are missing, as far as the reserve goes, under numbers from `next` on. They stay open: a request
    /// must not wait for a descriptor or a thread.
    ///
    /// # Errors
    /// When one can't be opened; the others serve.
    pub(crate) fn fill(&mut self, next: &mut u64) -> io::Result<()> {
        while self.all.len() < self.most {
            let Some(connection) = self.reserve.take() else {
                return Ok(());
            };
            let slot = Slot::open(connection, &self.service)?;
            *next += 1;
            epoll::add(&self.poll, &slot, EventData::new_u64(*next), EventFlags::IN)?;
            self.all.insert(*next, slot);
            self.idle.push(*next);
        }
        Ok(())
    }

    /// Can a request be carried out now?
    pub(crate) fn is_free(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Are fewer than half of them left, as faults have used up the reserve?
    pub(crate) fn are_worn(&self) -> bool {
        self.all.len() * 2 < self.most
    }

    /// Is this a slot's number?
    pub(crate) fn has(&self, id: u64) -> bool {
        self.all.contains_key(&id)
    }

    /// Requests that have hung for good; each has a thread.
    pub(crate) fn hung(&self) -> usize {
        self.hung
    }

    /// Has a request carried out. There must be a free slot; a request that meets none is lost, and so is one whose slot
    /// fails at once.
    pub(crate) fn start(
        &mut self,
        client: u64,
        origin: Origin,
        request: &Whole,
        now: Instant,
    ) -> Option<Done> {
        let lost = Done {
            client,
            origin,
            answer: None,
        };
        let Some(id) = self.idle.pop() else {
            return Some(lost);
        };
        let Some(slot) = self.all.get_mut(&id) else {
            return Some(lost);
        };
        let errand = Errand {
            client,
            origin,
            answer: Answer::to(&request.head.method),
            deadline: now + self.patience,
        };
        slot.take(request, errand);
        self.ready(id, &mut [])
    }

    /// Something can be sent or read.
    pub(crate) fn ready(&mut self, id: u64, scratch: &mut [u8]) -> Option<Done> {
        let slot = self.all.get_mut(&id)?;
        let had_more = slot.has_more();
        let moved = slot.push().and_then(|()| {
            if scratch.is_empty() {
                Ok(None)
            } else {
                slot.pull(scratch)
            }
        });
        let answer = match moved {
            Ok(answer) => answer,
            Err(error) => {
                log::warn!("a connection to tiny_http is lost and replaced: {error}");
                return self.lose(id);
            }
        };
        if had_more {
            let mut flags = EventFlags::IN;
            flags.set(EventFlags::OUT, slot.has_more());
            if epoll::modify(&self.poll, &*slot, EventData::new_u64(id), flags).is_err() {
                return self.lose(id);
            }
        }
        let was_idle = self.idle.contains(&id);
        let done = answer.and_then(|answer| {
            let errand = slot.errand.take()?;
            Some(Done {
                client: errand.client,
                origin: errand.origin,
                answer: Some(answer),
            })
        });
        if slot.is_idle() && !was_idle {
            self.idle.push(id);
        }
        done
    }

    /// Gives up slots whose requests take too long.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Done> {
        let late = |slot: &Slot| slot.errand.as_ref().is_some_and(|e| e.deadline <= now);
        let late: Vec<u64> = self
            .all
            .iter()
            .filter(|(_, slot)| late(slot))
            .map(|(id, _)| *id)
            .collect();
        self.hung += late.len();
        if !late.is_empty() {
            log::error!("{} requests hang and are given up", late.len());
        }
        late.into_iter().filter_map(|id| self.lose(id)).collect()
    }

    fn lose(&mut self, id: u64) -> Option<Done> {
        self.idle.retain(|idle| *idle != id);
        // Closing takes it off epoll's list.
        let errand = self.all.remove(&id)?.errand.take()?;
        Some(Done {
            client: errand.client,
            origin: errand.origin,
            answer: None,
        })
    }
}
