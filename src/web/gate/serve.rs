//! The loop of the gate: waits for whatever is ready, and moves requests and answers between connections from outside and
//! those to tiny_http.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::answer;
use super::clients::{Clients, Event, Refused};
use super::head::Refusal;
use super::incoming::Whole;
use super::limits::Limits;
use super::line::Line;
use super::reserve::Reserve;
use super::slots::{Done, Slots};
use crate::web::child::WebError;
use crate::web::serve::Service;

const LISTENER: u64 = 0;
const STOP: u64 = 1;
/// Connections and slots have higher numbers.
const FIRST: u64 = 2;

/// How often deadlines are looked at, and what has failed is tried again.
const TICK: Duration = Duration::from_millis(200);
/// Connections accepted before others are heard again.
const ACCEPTED_AT_ONCE: usize = 64;
/// Descriptors of the rest of the process.
const OTHER_DESCRIPTORS: usize = 64;
/// Descriptors of a slot, tiny_http's included.
const SLOT_DESCRIPTORS: usize = 6;
/// Descriptors of a connection to tiny_http that is not in use.
const SPARE_DESCRIPTORS: usize = 2;
/// Connections that the kernel holds for us while we are busy, or are replaced.
const BACKLOG: i32 = 1024;
/// At most so often the log tells of connections given up.
const REPORTED: Duration = Duration::from_secs(60);

/// Serves until the other end of `stop` is closed, then finishes what is under way, for `farewell` at most.
///
/// # Errors
/// When no more connections can be taken, or every slot hangs: the process must be replaced.
pub(crate) fn run(
    listener: TcpListener,
    service: &Arc<Service>,
    stop: UnixStream,
    reserve: Reserve,
    limits: Limits,
    farewell: Duration,
) -> Result<(), WebError> {
    Gate::new(listener, service, stop, reserve, limits)
        .map_err(WebError::Listener)?
        .run(farewell)
}

struct Gate {
    poll: Arc<OwnedFd>,
    listener: TcpListener,
    stop: UnixStream,
    service: Arc<Service>,
    clients: Clients,
    line: Line<(u64, Whole)>,
    slots: Slots,
    limits: Limits,
    /// The number given last.
    last: u64,
    /// epoll does not watch the listening socket: there is no place, or no descriptor.
    paused: bool,
    stopping: bool,
    reported: Option<Instant>,
}

impl Gate {
    fn new(
        listener: TcpListener,
        service: &Arc<Service>,
        stop: UnixStream,
        reserve: Reserve,
        mut limits: Limits,
    ) -> io::Result<Self> {
        let reserved = OTHER_DESCRIPTORS
            + SLOT_DESCRIPTORS * limits.under_way
            + SPARE_DESCRIPTORS * limits.spare;
        if let Some(most) = getrlimit(Resource::Nofile).current {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            limits.connections = limits.connections.min(most.saturating_sub(reserved)).max(1);
        }
        let poll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        listener.set_nonblocking(true)?;
        rustix::net::listen(&listener, BACKLOG)?;
        for (id, source) in [(LISTENER, listener.as_fd()), (STOP, stop.as_fd())] {
            epoll::add(&poll, source, EventData::new_u64(id), EventFlags::IN)?;
        }
        let front = service.front().clone();
        let mut slots = Slots::new(
            Arc::clone(&poll),
            Arc::clone(service),
            reserve,
            limits.under_way,
            limits.work_time,
        );
        let mut last = FIRST;
        slots.fill(&mut last)?;
        Ok(Self {
            listener,
            stop,
            service: Arc::clone(service),
            clients: Clients::new(Arc::clone(&poll), limits.clone(), front),
            line: Line::new(limits.under_way_of_one),
            poll,
            slots,
            limits,
            last,
            paused: false,
            stopping: false,
            reported: None,
        })
    }

    fn run(mut self, farewell: Duration) -> Result<(), WebError> {
        let mut events = Vec::with_capacity(512);
        let mut scratch = vec![0; 64 * 1024];
        let mut tick = Instant::now() + TICK;
        let mut end: Option<Instant> = None;
        loop {
            let wait = tick.saturating_duration_since(Instant::now());
            let wait = Timespec::try_from(wait).unwrap_or_default();
            events.clear();
            match epoll::wait(
                &self.poll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&wait),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(WebError::Accept(error.into())),
            }
            let now = Instant::now();
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept(now)?,
                    STOP => {
                        end.get_or_insert(now + farewell);
                        self.wind_up()?;
                    }
                    id => self.ready(id, &mut scratch, now),
                }
            }
            self.hand_over(now);
            if std::mem::take(&mut self.clients.freed) {
                self.resume()?;
            }
            if now >= tick {
                tick = now + TICK;
                self.tick(now)?;
            }
            if end.is_some_and(|end| now >= end || !self.clients.is_owed()) {
                return Ok(());
            }
        }
    }

    fn wind_up(&mut self) -> Result<(), WebError> {
        if !self.stopping {
            self.stopping = true;
            epoll::delete(&self.poll, &self.stop).map_err(|e| WebError::Listener(e.into()))?;
            self.pause()?;
            self.clients.close_unfinished();
        }
        Ok(())
    }

    /// Takes new connections. Those that there is no place for wait in the kernel: none is lost.
    fn accept(&mut self, now: Instant) -> Result<(), WebError> {
        for _ in 0..ACCEPTED_AT_ONCE {
            // Otherwise somebody would be given up for nobody: without descriptors accept(2) does not even look.
            if !self.is_awaited()? {
                return Ok(());
            }
            let full = self.clients.count() >= self.limits.connections;
            if self.stopping || (full && !self.clients.make_place(now)) {
                return self.pause();
            }
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    self.last += 1;
                    if let Err(error) = self.clients.admit(self.last, stream, peer.ip(), now) {
                        log::warn!("a connection could not be taken: {error}");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                    // An unfinished connection gives its descriptor. If none can, this is tried again when one is closed,
                    // and at the next tick.
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
                        if self.clients.make_place(now) => {}
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        return self.pause();
                    }
                    Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP) => {
                        return Err(WebError::Accept(error));
                    }
                    // What has gone wrong with the connection that was to be accepted (accept(2)).
                    _ => {}
                },
            }
        }
        Ok(())
    }

    /// Does a connection wait in the kernel?
    fn is_awaited(&self) -> Result<bool, WebError> {
        let mut listener = [PollFd::new(&self.listener, PollFlags::IN)];
        match poll(&mut listener, Some(&Timespec::default())) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(WebError::Accept(error.into())),
        }
    }

    fn pause(&mut self) -> Result<(), WebError> {
        if !self.paused {
            self.paused = true;
            epoll::delete(&self.poll, &self.listener).map_err(|e| WebError::Listener(e.into()))?;
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), WebError> {
        if self.paused && !self.stopping {
            let listener = EventData::new_u64(LISTENER);
            epoll::add(&self.poll, &self.listener, listener, EventFlags::IN)
                .map_err(|e| WebError::Listener(e.into()))?;
            self.paused = false;
        }
        Ok(())
    }

    fn ready(&mut self, id: u64, scratch: &mut [u8], now: Instant) {
        if self.slots.has(id) {
            if let Some(done) = self.slots.ready(id, scratch) {
                self.done(done, now);
            }
        } else if let Some(event) = self.clients.ready(id, scratch, now) {
            self.follow(id, event, now);
        }
    }

    fn follow(&mut self, id: u64, event: Event, now: Instant) {
        match event {
            Event::Complete(whole) if self.clients.has_memory() => {
                self.line.push(whole.head.client.into(), (id, whole));
            }
            Event::Complete(whole) => self.refuse(
                id,
                &Refused {
                    refusal: Refusal::Busy,
                    language: whole.head.language,
                    page: None,
                },
                now,
            ),
            Event::Refused(refused) => self.refuse(id, &refused, now),
        }
    }

    fn refuse(&mut self, id: u64, refused: &Refused, now: Instant) {
        let Refused {
            refusal,
            language,
            page,
        } = refused;
        let octets = self.service.refusal(*refusal, language, page.as_deref());
        match answer::last_on_its_connection(octets) {
            Ok(octets) => self.clients.answer(id, octets, now),
            Err(_) => self.clients.close(id),
        }
    }

    /// Requests go on to tiny_http as far as it has places.
    fn hand_over(&mut self, now: Instant) {
        // To refuse one may take memory, and that another connection.
        loop {
            let found = self.clients.found();
            if found.is_empty() {
                break;
            }
            for (id, whole) in found {
                self.follow(id, Event::Complete(whole), now);
            }
        }
        while self.slots.is_free()
            && let Some((origin, (client, whole))) = self.line.pop()
        {
            if !self.clients.begin(client) {
                self.line.done(origin);
            } else if let Some(done) = self.slots.start(client, origin, &whole, now) {
                self.done(done, now);
            }
        }
    }

    fn done(&mut self, done: Done, now: Instant) {
        self.line.done(done.origin);
        match done.answer {
            Some(octets) => self.clients.answer(done.client, octets, now),
            None => {
                let refused = Refused {
                    refusal: Refusal::Lost,
                    language: String::new(),
                    page: None,
                };
                self.refuse(done.client, &refused, now);
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Result<(), WebError> {
        for (id, event) in self.clients.expire(now) {
            self.follow(id, event, now);
        }
        for done in self.slots.expire(now) {
            self.done(done, now);
        }
        if self.slots.hung() >= self.limits.under_way {
            return Err(WebError::Stuck);
        }
        if let Err(error) = self.slots.fill(&mut self.last) {
            log::warn!("a connection to tiny_http can't be opened, trying again: {error}");
        } else if self.slots.are_worn() {
            return Err(WebError::Worn);
        }
        self.resume()?;
        self.report(now);
        Ok(())
    }

    fn report(&mut self, now: Instant) {
        let just = |at: Instant| now.duration_since(at) < REPORTED;
        if self.clients.given_up > 0 && !self.reported.is_some_and(just) {
            self.reported = Some(now);
            let count = std::mem::take(&mut self.clients.given_up);
            log::warn!(
                "gave up {count} connections for newer ones: too many at once, or too many of one address without a \
                 request"
            );
        }
    }
}
