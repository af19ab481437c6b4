//! Connects to a Unix socket within a time: connect(2) waits for as long as it takes when whoever listens there has stopped
//! and its queue of connections is full.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// A connection with that limit on its reads and writes, too.
///
/// # Errors
/// Of the kind `TimedOut` when there is no room in the queue for so long; otherwise as `UnixStream::connect`.
pub fn within(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let deadline = Instant::now() + patience;
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match connect(&socket, &address) {
            Ok(()) => break,
            Err(Errno::AGAIN) if Instant::now() < deadline => thread::sleep(PAUSE),
            Err(Errno::AGAIN) => {
                let why = "whoever listens there takes no connection";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    // Zero would mean that there is no limit.
    let limit = Some(patience.max(PAUSE));
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_full_queue_is_waited_for_no_longer_than_that() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let shortly = Duration::from_millis(100);
        let missing = within(&path, shortly).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let listener = UnixListener::bind(&path).unwrap();
        let mut kept = Vec::new();
        let full = loop {
            match within(&path, shortly) {
                Ok(stream) => kept.push(stream),
                Err(error) => break error,
            }
            assert!(kept.len() < 100_000, "some limit there is");
        };
        assert_eq!(full.kind(), io::ErrorKind::TimedOut);
        assert!(!kept.is_empty());
        let mut accepted = Vec::new();
        for _ in 0..2 {
            accepted.push(listener.accept().unwrap());
        }
        assert!(within(&path, shortly).is_ok());
    }
}
