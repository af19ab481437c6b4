//! What is tried with sockets from inside a process that has shut itself in as the web child does: to reach local sockets
//! that everybody may write to (as /dev/log and D-Bus are), with and without a file, by each call that could.

use std::io::{IoSlice, Read as _, Result, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};

use rustix::net::{AddressFamily, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketType};

use crate::inside::denied;

/// Where to: a path, or a name without a file after `@`.
struct Target {
    name: String,
    std: SocketAddr,
    raw: SocketAddrUnix,
}

impl Target {
    fn new(name: &str) -> Self {
        let (std, raw) = match name.strip_prefix('@') {
            Some(bare) => (
                SocketAddr::from_abstract_name(bare),
                SocketAddrUnix::new_abstract_name(bare.as_bytes()),
            ),
            None => (SocketAddr::from_pathname(name), SocketAddrUnix::new(name)),
        };
        Self {
            name: name.to_owned(),
            std: std.expect("an address"),
            raw: raw.expect("an address"),
        }
    }
}

/// Sockets that were made before the fence came: the web child has fewer.
pub struct Sockets {
    targets: Vec<Target>,
    datagrams: UnixDatagram,
    idle: OwnedFd,
    pair: (UnixStream, UnixStream),
    listener: TcpListener,
    client: TcpStream,
}

impl Sockets {
    /// Before the fence each target can be reached: it is the fence, and nothing else, that keeps us from them.
    pub fn make(names: &[String]) -> Self {
        assert!(names.len() > 3, "{names:?}");
        let targets: Vec<Target> = names.iter().map(|name| Target::new(name)).collect();
        let datagrams = UnixDatagram::unbound().expect("a socket");
        for target in &targets {
            let sent = datagrams.send_to_addr(b"before", &target.std).is_ok();
            let connected = UnixStream::connect_addr(&target.std).is_ok();
            assert!(sent || connected, "{}", target.name);
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        Self {
            targets,
            datagrams,
            idle: rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)
                .expect("a socket"),
            pair: UnixStream::pair().expect("sockets"),
            client: TcpStream::connect(address).expect("a connection"),
            listener,
        }
    }

    /// Everything that could name somebody else.
    pub fn reach_nobody_else(&self) {
        for Target { name, std, raw } in &self.targets {
            denied(name, UnixStream::connect_addr(std));
            denied(name, self.datagrams.connect_addr(std));
            denied(name, self.datagrams.send_to_addr(b"after", std));
            let (words, mut none) = ([IoSlice::new(b"after")], SendAncillaryBuffer::default());
            let flags = SendFlags::empty();
            let sent = rustix::net::sendmsg_addr(&self.datagrams, raw, &words, &mut none, flags);
            denied(name, sent.map_err(Into::into));
        }
        for (family, kind) in [
            (AddressFamily::UNIX, SocketType::STREAM),
            (AddressFamily::UNIX, SocketType::DGRAM),
            (AddressFamily::UNIX, SocketType::SEQPACKET),
            (AddressFamily::INET, SocketType::STREAM),
            (AddressFamily::INET6, SocketType::DGRAM),
            (AddressFamily::NETLINK, SocketType::RAW),
        ] {
            let made = rustix::net::socket(family, kind, None);
            denied("a socket", made.map_err(Into::into));
        }
        // From either end of a pair of these one could send to any address.
        denied("a pair", UnixDatagram::pair());
        denied("a pair", UnixStream::pair());
        let port = self.listener.local_addr().expect("an address");
        denied("TCP", errors(rustix::net::connect(&self.idle, &port)));
        // Connecting by sending: TCP Fast Open.
        let fast = SendFlags::from_bits_retain(0x2000_0000);
        denied(
            "TCP",
            errors(rustix::net::sendto(&self.idle, b"after", fast, &port)),
        );
        denied("TCP", errors(rustix::net::send(&self.idle, b"after", fast)));
        let name = SocketAddrUnix::new_abstract_name(b"posttls-test-inside").expect("a name");
        denied("a name", errors(rustix::net::bind(&self.datagrams, &name)));
    }

    /// What comes in is taken, and what is connected is read and written.
    pub fn work(&self) {
        let (mut accepted, _) = self.listener.accept().expect("a connection");
        let mut said = [0; 5];
        (&self.client).write_all(b"hello").expect("words");
        accepted.read_exact(&mut said).expect("words");
        (&self.pair.0).write_all(&said).expect("words");
        (&self.pair.1).read_exact(&mut said).expect("words");
        assert_eq!(&said, b"hello");
    }
}

fn errors<T>(result: rustix::io::Result<T>) -> Result<T> {
    result.map_err(Into::into)
}
