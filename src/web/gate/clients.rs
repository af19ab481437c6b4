//! The connections from outside: each reads its request, waits, is sent its answer, and leaves.
//!
//! An answer is followed by a moment in which what the client still sends is thrown away: closing over unread octets
//! resets the connection, and the client would lose the answer with it (RFC 9112 section 9.6).

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::Limits;
use super::head::Refusal;
use super::incoming::{Incoming, Progress, Whole};
use super::places::{Places, Stage};
use crate::web::origin::Origin;
use crate::web::routes::Front;

/// What a client has come to.
pub(crate) enum Event {
    /// Its request is there.
    Complete(Whole),
    /// It gets an answer without one.
    Refused(Refused),
}

/// A refusal, and what is known of the client.
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    /// Value of `Accept-Language`.
    pub(crate) language: String,
    /// The page that the form stands on.
    pub(crate) page: Option<String>,
}

struct Client {
    stream: TcpStream,
    peer: IpAddr,
    /// None for a trusted proxy.
    origin: Option<Origin>,
    /// When it was accepted.
    since: Instant,
    phase: Phase,
    deadline: Option<Instant>,
    held: usize,
}

/// What a look at a connection has brought.
enum Taken {
    Nothing,
    Part,
    Whole(Whole),
    Refused(Refusal),
    End,
    Failed,
}

enum Phase {
    Reading(Incoming),
    /// For an answer; the request takes so many octets. Not watched: what the client does now does not matter. It has a
    /// deadline until it is carried out.
    Waiting(usize),
    /// The rest of the answer, and when it must be gone at the latest.
    Answering(Vec<u8>, usize, Instant),
    Leaving,
}

/// All connections from outside, by the number under which epoll knows them.
pub(crate) struct Clients {
    poll: Arc<OwnedFd>,
    limits: Limits,
    front: Front,
    all: HashMap<u64, Client>,
    places: Places,
    held: usize,
    /// Connections given up since this was last read.
    pub(crate) given_up: usize,
    /// Requests that were found when their connections were to be given up.
    found: Vec<(u64, Whole)>,
    /// A connection has been closed since this was last read.
    pub(crate) freed: bool,
}

impl Clients {
    /// None yet.
    pub(crate) fn new(poll: Arc<OwnedFd>, limits: Limits, front: Front) -> Self {
        Self {
            poll,
            limits,
            front,
            all: HashMap::new(),
            places: Places::default(),
            held: 0,
            given_up: 0,
            found: Vec::new(),
            freed: false,
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// Less is held than may be.
    pub(crate) fn has_memory(&self) -> bool {
        self.held <= self.limits.memory
    }

    /// Somebody has sent a request and has not got all of the answer.
    pub(crate) fn is_owed(&self) -> bool {
        let owed =
            |client: &Client| matches!(client.phase, Phase::Waiting(_) | Phase::Answering(..));
        self.all.values().any(owed)
    }

    /// The request of this client is carried out now; or not, as it has been told that it had to wait too long.
    pub(crate) fn begin(&mut self, id: u64) -> bool {
        match self.all.get_mut(&id) {
            Some(client) if matches!(client.phase, Phase::Waiting(_)) => {
                client.deadline = None;
                true
            }
            _ => false,
        }
    }

    /// Closes the connection that goes first, if one can go. One that was accepted a moment ago can't, unless it has its
    /// answer: on a busy machine its client has had no chance to send its request.
    pub(crate) fn make_place(&mut self, now: Instant) -> bool {
        while let Some(id) = self.places.first_to_go() {
            let fresh = |client: &Client| {
                matches!(client.phase, Phase::Reading(_))
                    && now < client.since + self.limits.fresh_time
            };
            if self.all.get(&id).is_some_and(fresh) {
                return false;
            }
            if self.give_up(id) {
                return true;
            }
        }
        false
    }

    /// Closes connections until no more is held than may be, fresh ones, too: those hold something.
    fn make_memory(&mut self) {
        while !self.has_memory()
            && let Some(id) = self.places.first_to_go()
        {
            self.give_up(id);
        }
    }

    /// Closes a connection, unless its whole request has arrived and only was not read yet: nobody may be given up who has
    /// asked. Says whether it is closed.
    fn give_up(&mut self, id: u64) -> bool {
        if self.has_asked(id) {
            return false;
        }
        let leaves = |client: &Client| matches!(client.phase, Phase::Leaving);
        self.given_up += usize::from(!self.all.get(&id).is_some_and(leaves));
        self.close(id);
        true
    }

    /// Reads what has arrived on a connection whose request was not there in full so far. If it is now, it is in `found`.
    fn has_asked(&mut self, id: u64) -> bool {
        let mut scratch = [0; 16 * 1024];
        let now = Instant::now();
        loop {
            match self.take(id, &mut scratch, now) {
                Taken::Part => {}
                Taken::Whole(whole) => {
                    self.settle(id);
                    self.found.push((id, whole));
                    return true;
                }
                Taken::Nothing | Taken::Refused(_) | Taken::End | Taken::Failed => return false,
            }
        }
    }

    /// What [`Clients::ready`] would have given of connections that were to be given up.
    pub(crate) fn found(&mut self) -> Vec<(u64, Whole)> {
        std::mem::take(&mut self.found)
    }

    /// Closes all that have not sent a request.
    pub(crate) fn close_unfinished(&mut self) {
        let reading = |client: &Client| matches!(client.phase, Phase::Reading(_));
        let ids = self.all.iter().filter(|(_, client)| reading(client));
        for id in ids.map(|(id, _)| *id).collect::<Vec<_>>() {
            if !self.has_asked(id) {
                self.close(id);
            }
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// When it can't be watched; it is closed then.
    pub(crate) fn admit(
        &mut self,
        id: u64,
        stream: TcpStream,
        peer: IpAddr,
        now: Instant,
    ) -> io::Result<()> {
        let peer = peer.to_canonical();
        stream.set_nonblocking(true)?;
        epoll::add(&self.poll, &stream, EventData::new_u64(id), EventFlags::IN)?;
        let trusted = self
            .front
            .trusted_proxies
            .iter()
            .any(|proxy| proxy.to_canonical() == peer);
        let client = Client {
            stream,
            peer,
            origin: (!trusted).then(|| peer.into()),
            since: now,
            phase: Phase::Reading(Incoming::default()),
            deadline: Some(now + self.limits.head_time),
            held: 0,
        };
        self.all.insert(id, client);
        self.settle(id);
        Ok(())
    }

    /// Something can be read or sent.
    pub(crate) fn ready(&mut self, id: u64, scratch: &mut [u8], now: Instant) -> Option<Event> {
        match self.all.get(&id)?.phase {
            Phase::Reading(_) => self.read(id, scratch, now),
            Phase::Answering(..) => {
                self.write(id, now);
                None
            }
            Phase::Leaving => {
                let client = self.all.get_mut(&id)?;
                match client.stream.read(scratch) {
                    Ok(count) if count > 0 => {}
                    Err(error) if is_passing(&error) => {}
                    _ => self.close(id),
                }
                None
            }
            Phase::Waiting(_) => None,
        }
    }

    fn read(&mut self, id: u64, scratch: &mut [u8], now: Instant) -> Option<Event> {
        match self.take(id, scratch, now) {
            Taken::Nothing => None,
            Taken::Part => {
                self.settle(id);
                self.make_memory();
                None
            }
            Taken::Whole(whole) => {
                self.settle(id);
                Some(Event::Complete(whole))
            }
            Taken::Refused(refusal) => self.refused(id, refusal),
            Taken::End => self.too_late(id),
            Taken::Failed => {
                self.close(id);
                None
            }
        }
    }

    /// Reads once from a connection whose request is not there in full; with its last octet it waits for its answer.
    fn take(&mut self, id: u64, scratch: &mut [u8], now: Instant) -> Taken {
        let Some(client) = self.all.get_mut(&id) else {
            return Taken::Nothing;
        };
        let Phase::Reading(incoming) = &mut client.phase else {
            return Taken::Nothing;
        };
        let count = match client.stream.read(scratch) {
            Ok(0) => return Taken::End,
            Ok(count) => count,
            Err(error) if is_passing(&error) => return Taken::Nothing,
            Err(_) => return Taken::Failed,
        };
        let had_head = incoming.head().is_some();
        match incoming.take(&scratch[..count], client.peer, &self.front) {
            Progress::Head => Taken::Part,
            Progress::Body { tell } => {
                if !had_head {
                    client.deadline = Some(now + self.limits.body_time);
                }
                if tell {
                    // It has room for this; if not, the client sends its form unasked after a while.
                    let _ = client.stream.write(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                Taken::Part
            }
            Progress::Complete(whole) => {
                client.phase = Phase::Waiting(whole.held());
                client.deadline = Some(now + self.limits.work_time);
                if epoll::delete(&self.poll, &client.stream).is_err() {
                    return Taken::Failed;
                }
                Taken::Whole(whole)
            }
            Progress::Refused(refusal) => Taken::Refused(refusal),
        }
    }

    /// The end of a client that has not sent its request in time, or in full: it is told so if it has sent anything. One
    /// whose request has waited too long for its turn is told that.
    fn too_late(&mut self, id: u64) -> Option<Event> {
        match &self.all.get(&id)?.phase {
            Phase::Reading(incoming) if !incoming.is_empty() => self.refused(id, Refusal::Slow),
            Phase::Waiting(_) => self.refused(id, Refusal::Busy),
            _ => {
                self.close(id);
                None
            }
        }
    }

    fn refused(&mut self, id: u64, refusal: Refusal) -> Option<Event> {
        let head = match &self.all.get(&id)?.phase {
            Phase::Reading(incoming) => incoming.head(),
            _ => None,
        };
        Some(Event::Refused(Refused {
            refusal,
            language: head.map(|head| head.language.clone()).unwrap_or_default(),
            page: head.and_then(|head| head.page().map(str::to_owned)),
        }))
    }

    /// Sends an answer, the last thing on this connection.
    pub(crate) fn answer(&mut self, id: u64, octets: Vec<u8>, now: Instant) {
        let Some(client) = self.all.get_mut(&id) else {
            return;
        };
        let waited = matches!(client.phase, Phase::Waiting(_));
        client.phase = Phase::Answering(octets, 0, now + 4 * self.limits.answer_time);
        let (data, flags) = (EventData::new_u64(id), EventFlags::OUT);
        let watched = if waited {
            epoll::add(&self.poll, &client.stream, data, flags)
        } else {
            epoll::modify(&self.poll, &client.stream, data, flags)
        };
        if watched.is_err() {
            return self.close(id);
        }
        client.deadline = Some(now + self.limits.answer_time);
        self.settle(id);
        self.write(id, now);
        self.make_memory();
    }

    fn write(&mut self, id: u64, now: Instant) {
        let Some(client) = self.all.get_mut(&id) else {
            return;
        };
        let Phase::Answering(octets, sent, end) = &mut client.phase else {
            return;
        };
        while *sent < octets.len() {
            match client.stream.write(&octets[*sent..]) {
                Ok(count) => {
                    *sent += count;
                    client.deadline = Some((now + self.limits.answer_time).min(*end));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(id),
            }
        }
        client.phase = Phase::Leaving;
        client.deadline = Some(now + self.limits.leave_time);
        let gone = client.stream.shutdown(Shutdown::Write).is_err()
            || epoll::modify(
                &self.poll,
                &client.stream,
                EventData::new_u64(id),
                EventFlags::IN,
            )
            .is_err();
        if gone {
            return self.close(id);
        }
        self.settle(id);
    }

    /// Ends what has taken too long.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(u64, Event)> {
        let late = |client: &Client| client.deadline.is_some_and(|deadline| deadline <= now);
        let late = self.all.iter().filter(|(_, client)| late(client));
        let late: Vec<u64> = late.map(|(id, _)| *id).collect();
        let ended = |id| Some((id, self.too_late(id)?));
        late.into_iter().filter_map(ended).collect()
    }

    /// Closes a connection.
    pub(crate) fn close(&mut self, id: u64) {
        self.places.forget(id);
        if let Some(client) = self.all.remove(&id) {
            self.held -= client.held;
            self.freed = true;
        }
    }

    /// Notes what a connection is at, and what it holds; one more than its origin may have costs the origin its oldest.
    fn settle(&mut self, id: u64) {
        let Some(client) = self.all.get_mut(&id) else {
            return;
        };
        let (stage, held) = match &client.phase {
            Phase::Reading(incoming) => (Some(Stage::Unfinished), incoming.held()),
            Phase::Waiting(held) => (None, *held),
            Phase::Answering(octets, ..) => (Some(Stage::Answered), octets.capacity()),
            Phase::Leaving => (Some(Stage::Leaving), 0),
        };
        self.held = self.held - client.held + held;
        client.held = held;
        let origin = client.origin;
        let most = self.limits.unfinished_of_one;
        if let Some(oldest) = self.places.note(id, stage, origin, most) {
            self.give_up(oldest);
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
