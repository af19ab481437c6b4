//! The only way to tiny_http: connections of our own, on each of which it sees one whole, well-formed request at a time.
//!
//! Each connection ([`super::reserve`]) has a tiny_http server and a thread of its own: a fault in one costs one request.

use std::io::{self, Read as _, Write as _};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use tiny_http::Server;

use super::answer::Answer;
use super::incoming::Whole;
use super::reserve::Connection;
use crate::web::origin::Origin;
use crate::web::serve::Service;

/// One connection to tiny_http.
pub(crate) struct Slot {
    stream: UnixStream,
    server: Arc<Serving>,
    outgoing: Vec<u8>,
    sent: usize,
    pub(crate) errand: Option<Errand>,
}

/// A request under way.
pub(crate) struct Errand {
    /// Whom the answer is for.
    pub(crate) client: u64,
    pub(crate) origin: Origin,
    pub(crate) answer: Answer,
    pub(crate) deadline: Instant,
}

/// tiny_http's end.
#[derive(Default)]
struct Serving {
    /// Never dropped: to end, a `Server` of tiny_http 0.12 connects to its socket's file, and panics if there is none.
    server: OnceLock<ManuallyDrop<Server>>,
    ended: AtomicBool,
}

impl Slot {
    /// Starts the thread that answers on this connection.
    ///
    /// # Errors
    /// When there is no descriptor or no thread to be had.
    pub(crate) fn open(connection: Connection, service: &Arc<Service>) -> io::Result<Self> {
        let Connection { stream, listener } = connection;
        let server = Arc::new(Serving::default());
        let (serving, service) = (Arc::clone(&server), Arc::clone(service));
        let hangs_up = HangsUp(stream.try_clone()?);
        thread::Builder::new()
            .name("request".to_owned())
            .spawn(move || {
                let _hangs_up = hangs_up;
                serve(&serving, listener, &service);
            })?;
        Ok(Self {
            stream,
            server,
            outgoing: Vec::new(),
            sent: 0,
            errand: None,
        })
    }

    /// Takes a request; [`Slot::push`] sends it.
    pub(crate) fn take(&mut self, request: &Whole, errand: Errand) {
        self.outgoing = request.for_tiny_http();
        self.sent = 0;
        self.errand = Some(errand);
    }

    /// It can take a request.
    pub(crate) fn is_idle(&self) -> bool {
        self.errand.is_none() && !self.has_more()
    }

    /// Part of a request is still to be sent.
    pub(crate) fn has_more(&self) -> bool {
        self.sent < self.outgoing.len()
    }

    /// Sends what can be sent now.
    ///
    /// # Errors
    /// When tiny_http has hung up.
    pub(crate) fn push(&mut self) -> io::Result<()> {
        while self.has_more() {
            match (&self.stream).write(&self.outgoing[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outgoing = Vec::new();
        self.sent = 0;
        Ok(())
    }

    /// Reads what is there; gives the answer when that makes it whole.
    ///
    /// # Errors
    /// When tiny_http has hung up, or what it says makes no sense.
    pub(crate) fn pull(&mut self, scratch: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            let count = match (&self.stream).read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let errand = self.errand.as_mut();
            let errand = errand.ok_or_else(|| io::Error::other("an answer to nothing"))?;
            let whole = errand.answer.take(&scratch[..count]);
            if let Some(whole) = whole.map_err(io::Error::other)? {
                return Ok(Some(whole));
            }
        }
    }
}

impl AsFd for Slot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.server.ended.store(true, Ordering::SeqCst);
        if let Some(server) = self.server.server.get() {
            server.unblock();
        }
    }
}

/// Ends the connection when the thread that answers on it ends, by a panic too: nobody would answer the next request.
struct HangsUp(UnixStream);

impl Drop for HangsUp {
    fn drop(&mut self) {
        // It can only have been hung up already.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

fn serve(serving: &Serving, listener: UnixListener, service: &Service) {
    let server = match Server::from_listener(listener, None) {
        Ok(server) => serving.server.get_or_init(|| ManuallyDrop::new(server)),
        Err(error) => return log::error!("tiny_http does not start: {error}"),
    };
    while !serving.ended.load(Ordering::SeqCst) {
        // An error is the end of the accept loop, which follows upon the only connection; or this slot is dropped.
        if let Ok(request) = server.recv() {
            service.answer(request);
        }
    }
}
