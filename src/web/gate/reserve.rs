//! All the connections to tiny_http that this process will ever have, made before it gives up making sockets for good.
//!
//! tiny_http takes connections from a listening socket and from nowhere else. Each of ours has a Unix socket of its own,
//! without a file and under a random name, that has room for a single connection; ours is in it before tiny_http hears of
//! it, and then the socket is closed to all others. So no local user can speak to tiny_http past the gate.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Names that are tried for a socket: only a stranger who is as quick as we are can take one.
const ATTEMPTS: usize = 10;

/// Our end of a connection, and the socket in which the other end waits to be accepted: nobody else's ever will.
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    pub(crate) listener: UnixListener,
}

/// Connections that are not in use yet. Each replaces one that a fault has ended.
pub struct Reserve(Vec<Connection>);

impl Reserve {
    /// Makes so many.
    ///
    /// # Errors
    /// When one can't be made.
    pub(crate) fn make(count: usize) -> io::Result<Self> {
        (0..count)
            .map(|_| connection())
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// One of them, if there is one left.
    pub(crate) fn take(&mut self) -> Option<Connection> {
        self.0.pop()
    }
}

fn connection() -> io::Result<Connection> {
    let mut last = io::Error::other("no name is free");
    for _ in 0..ATTEMPTS {
        match try_connection() {
            Ok((stream, listener, _)) => return Ok(Connection { stream, listener }),
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
    use std::io::{Read as _, Write as _};

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
