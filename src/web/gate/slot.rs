//! The only way to tiny_http: connections of our own, on each of which it sees one whole, well-formed request at a time.
//!
//! tiny_http takes connections from a listening socket and from nowhere else. Each of ours has a Unix socket of its own,
//! without a file and under a random name, that has room for a single connection; ours is in it before tiny_http hears of
//! it, and then the socket is closed to all others. So no local user can speak to tiny_http past the gate. Each
//! connection also has a tiny_http server and a thread of its own: a fault in one costs one request.

use std::io::{self, Read as _, Write as _};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tiny_http::Server;

use super::answer::Answer;
use super::incoming::Whole;
use crate::web::origin::Origin;
use crate::web::serve::Service;

/// Names that are tried for a socket: only a stranger who is as quick as we are can take one.
const ATTEMPTS: usize = 10;

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
    /// Connects, and starts the thread that answers.
    ///
    /// # Errors
    /// When there is no socket or no thread to be had.
    pub(crate) fn open(service: &Arc<Service>) -> io::Result<Self> {
        let (stream, listener) = connection()?;
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

/// Our end of a connection, and the socket in which the other end waits to be accepted: nobody else's ever will.
fn connection() -> io::Result<(UnixStream, UnixListener)> {
    let mut last = io::Error::other("no name is free");
    for _ in 0..ATTEMPTS {
        match try_connection() {
            Ok((stream, listener, _)) => return Ok((stream, listener)),
            // Somebody was there before us.
            Err(error) if is_taken(&error) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::AddrInUse
    )
}

fn try_connection() -> io::Result<(UnixStream, UnixListener, SocketAddrUnix)> {
    let mut name = [0u8; 16];
    getrandom::fill(&mut name).map_err(io::Error::other)?;
    let address = SocketAddrUnix::new_abstract_name(&name)?;
    let socket = |flags| {
        let flags = flags | SocketFlags::CLOEXEC;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
    };
    let listener = socket(SocketFlags::empty())?;
    rustix::net::bind(&listener, &address)?;
    // A backlog of nought is room for one (unix(7): a connection waits while there are not more than the backlog).
    rustix::net::listen(&listener, 0)?;
    let stream = socket(SocketFlags::NONBLOCK)?;
    rustix::net::connect(&stream, &address)?;
    rustix::net::shutdown(&listener, rustix::net::Shutdown::Both)?;
    Ok((stream.into(), listener.into(), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_can_connect() {
        let (mut ours, listener, address) = try_connection().unwrap();
        let stranger = || {
            let flags = SocketFlags::NONBLOCK;
            let socket =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
            rustix::net::connect(socket.unwrap(), &address)
        };
        assert_eq!(stranger(), Err(rustix::io::Errno::CONNREFUSED));
        let (mut theirs, _) = listener.accept().unwrap();
        assert_eq!(stranger(), Err(rustix::io::Errno::CONNREFUSED));
        assert!(listener.accept().is_err(), "there is one connection");
        ours.write_all(b"hello").unwrap();
        let mut said = [0; 5];
        theirs.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"hello");
    }

    #[test]
    fn there_is_room_for_one_only() {
        let address = SocketAddrUnix::new_abstract_name(&std::process::id().to_be_bytes()).unwrap();
        let socket = || {
            let flags = SocketFlags::NONBLOCK;
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
        };
        let listener = socket();
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let (first, second) = (socket(), socket());
        rustix::net::connect(&first, &address).unwrap();
        let refused = rustix::net::connect(&second, &address).map_err(io::Error::from);
        assert!(is_taken(&refused.unwrap_err()), "and we would hear of it");
    }
}
