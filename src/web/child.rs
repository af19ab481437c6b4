//! The web child's process: it serves until the mover ends the stream, and dies rather than limp.
//!
//! Strangers reach the gate ([`crate::web`]) and never tiny_http. The gate survives what they send, and a lack of
//! descriptors; when it can't go on all the same, or when all requests hang, the process ends and the mover replaces
//! it. The mover keeps the listening socket, so no connection is refused meanwhile.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::web::gate::{self, Limits, Reserve};
use crate::web::mover_link::MoverLink;
pub use crate::web::privilege::prove_unprivileged;
use crate::web::serve::Service;

/// Requests under way may still be answered for so long after the mover has ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the web child can't go on.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// It could do what it must not be able to do.
    #[error("an unprivileged child would hold privilege: {0}")]
    Privileged(String),
    /// A limit could not be set.
    #[error("cannot limit the web child: {0}")]
    Limit(io::Error),
    /// The mover said nothing, or nothing understood.
    #[error("stream to the mover: {0}")]
    Mover(io::Error),
    /// The listening socket can't be used.
    #[error("listening socket: {0}")]
    Listener(io::Error),
    /// No more connections come in.
    #[error("accepting connections: {0}")]
    Accept(io::Error),
    /// No request is answered any more.
    #[error("as many requests as can be answered at once have hung for good")]
    Stuck,
    /// Faults have used up the connections to tiny_http.
    #[error("so many requests have ended by a fault that few can be answered at once")]
    Worn,
    /// A fault of ours.
    #[error("the thread that listens to the mover has ended by a fault")]
    Fault,
}

/// All the sockets that this process makes itself: they come before it gives up making any.
pub struct Sockets {
    reserve: Reserve,
    stop: (UnixStream, UnixStream),
}

impl Sockets {
    /// Makes them.
    ///
    /// # Errors
    /// When one can't be made.
    pub fn make() -> Result<Self, WebError> {
        Self::within(&Limits::default())
    }

    fn within(limits: &Limits) -> Result<Self, WebError> {
        let reserve = Reserve::make(limits.under_way + limits.spare);
        Ok(Self {
            reserve: reserve.map_err(WebError::Listener)?,
            stop: UnixStream::pair().map_err(WebError::Listener)?,
        })
    }
}

/// Serves on `listener` until the mover ends the stream. Call [`prove_unprivileged`] first: this reports ready.
///
/// # Errors
/// When the process can't serve any more; it must then end, and be replaced.
pub fn run(mover: UnixStream, listener: TcpListener, sockets: Sockets) -> Result<(), WebError> {
    run_with(mover, listener, sockets, Limits::default())
}

fn run_with(
    mover: UnixStream,
    listener: TcpListener,
    sockets: Sockets,
    limits: Limits,
) -> Result<(), WebError> {
    let (link, settings) = MoverLink::greet(mover).map_err(WebError::Mover)?;
    let link = Arc::new(link);
    let service = Arc::new(Service::new(&settings, Arc::clone(&link)));
    let (stop, stopped) = sockets.stop;
    let answers = thread::spawn(move || {
        let result = link.hand_out_answers();
        drop(stop);
        result
    });
    gate::run(
        listener,
        &service,
        stopped,
        sockets.reserve,
        limits,
        FAREWELL,
    )?;
    match answers.join() {
        Ok(result) => result.map_err(WebError::Mover),
        Err(_) => Err(WebError::Fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::protocol::{Answer, MAX_ANSWER, Numbered, Settings, send};
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::thread::JoinHandle;
    use std::time::Duration;

    fn start(limits: Limits) -> (UnixStream, SocketAddr, JoinHandle<Result<(), WebError>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (mover, child) = start_on(listener, limits);
        (mover, address, child)
    }

    fn start_on(
        listener: TcpListener,
        limits: Limits,
    ) -> (UnixStream, JoinHandle<Result<(), WebError>>) {
        let (mover, child) = UnixStream::pair().unwrap();
        let sockets = Sockets::within(&limits).unwrap();
        let child = thread::spawn(move || run_with(child, listener, sockets, limits));
        let welcome = Answer::Welcome(Box::new(Settings {
            admin_contact: String::new(),
            base_path: String::new(),
            trusted_proxies: Vec::new(),
            templates: Default::default(),
        }));
        let welcome = Numbered {
            number: 0,
            body: welcome,
        };
        send(&mover, &welcome, MAX_ANSWER).unwrap();
        (mover, child)
    }

    fn answer(address: SocketAddr, request: &str) -> String {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        read(client)
    }

    fn read(mut client: TcpStream) -> String {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn who_takes_too_long_is_told_and_hung_up_on() {
        let limits = Limits {
            head_time: Duration::from_millis(300),
            body_time: Duration::from_millis(300),
            ..Limits::default()
        };
        let (mover, address, child) = start(limits);
        let mut silent = TcpStream::connect(address).unwrap();
        assert_eq!(silent.read(&mut [0]).unwrap(), 0, "hung up");
        assert!(answer(address, "GET / HT").starts_with("HTTP/1.1 408 "));
        let form =
            "POST /c/AbCdEf0123456789-_ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\naction";
        assert!(answer(address, form).starts_with("HTTP/1.1 408 "));
        assert!(answer(address, "GET /style.css HTTP/1.0\r\n\r\n").contains(" 200 OK"));
        drop(mover);
        assert!(child.join().unwrap().is_ok());
    }

    #[test]
    fn when_there_is_no_place_the_oldest_unfinished_connection_goes() {
        for (connections, unfinished_of_one) in [(4, 99), (99, 4)] {
            let limits = Limits {
                connections,
                unfinished_of_one,
                ..Limits::default()
            };
            let (mover, address, child) = start(limits);
            let hanging: Vec<_> = (0..8)
                .map(|_| TcpStream::connect(address).unwrap())
                .collect();
            assert!(answer(address, "GET /style.css HTTP/1.0\r\n\r\n").contains(" 200 OK"));
            for (number, mut stream) in hanging.into_iter().enumerate() {
                stream.set_nonblocking(true).unwrap();
                let ended = matches!(stream.read(&mut [0]), Ok(0));
                assert!(ended || number >= 4, "{number} of {connections}");
            }
            drop(mover);
            assert!(child.join().unwrap().is_ok());
        }
    }

    /// All have sent their requests before the first of them is accepted.
    #[test]
    fn nobody_is_given_up_whose_request_has_arrived() {
        for (connections, unfinished_of_one) in [(2, 99), (99, 2)] {
            let limits = Limits {
                connections,
                unfinished_of_one,
                ..Limits::default()
            };
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let clients: Vec<_> = (0..20)
                .map(|_| {
                    let mut client = TcpStream::connect(address).unwrap();
                    client
                        .write_all(b"GET /style.css HTTP/1.0\r\n\r\n")
                        .unwrap();
                    client
                })
                .collect();
            let (mover, child) = start_on(listener, limits);
            for (number, client) in clients.into_iter().enumerate() {
                let answer = read(client);
                assert!(answer.contains(" 200 OK"), "{number} of {connections}");
            }
            drop(mover);
            assert!(child.join().unwrap().is_ok());
        }
    }

    /// On a busy machine a moment passes between a client's connection and its request.
    #[test]
    fn who_has_just_connected_is_not_given_up_for_the_next_one() {
        let limits = Limits {
            connections: 1,
            fresh_time: Duration::from_secs(10),
            ..Limits::default()
        };
        let (mover, address, child) = start(limits);
        let mut first = TcpStream::connect(address).unwrap();
        let second = thread::spawn(move || answer(address, "GET /style.css HTTP/1.0\r\n\r\n"));
        thread::sleep(Duration::from_millis(100));
        first.write_all(b"GET /style.css HTTP/1.0\r\n\r\n").unwrap();
        assert!(read(first).contains(" 200 OK"));
        assert!(second.join().unwrap().contains(" 200 OK"));
        drop(mover);
        assert!(child.join().unwrap().is_ok());
    }

    /// An answer that nobody reads does not keep the others.
    #[test]
    fn what_is_held_is_bounded() {
        let limits = Limits {
            memory: 300_000,
            ..Limits::default()
        };
        let (mover, address, child) = start(limits);
        let head =
            "POST /c/AbCdEf0123456789-_ HTTP/1.1\r\nHost: x\r\nContent-Length: 262144\r\n\r\n";
        let mut hanging: Vec<_> = (0..4)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let part = format!("{head}{}", "x".repeat(200_000));
        for stream in &mut hanging {
            // Those that are given up are reset in the midst of it.
            let _ = stream.write_all(part.as_bytes());
        }
        assert!(answer(address, "GET /style.css HTTP/1.0\r\n\r\n").contains(" 200 OK"));
        let ended = hanging.iter().filter(|stream| {
            stream.set_nonblocking(true).unwrap();
            !matches!((&**stream).read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        });
        assert!(ended.count() >= 3);
        drop(mover);
        assert!(child.join().unwrap().is_ok());
    }

    /// What faults end is replaced from the reserve, as no new connection can be made; without one, by a new process.
    #[test]
    fn faults_are_made_good_for_as_long_as_the_reserve_lasts() {
        for spare in [8, 0] {
            let limits = Limits {
                under_way: 4,
                spare,
                work_time: Duration::from_millis(200),
                ..Limits::default()
            };
            let (mover, address, child) = start(limits);
            // The mover never answers.
            let hanging: Vec<_> = (0..3)
                .map(|_| {
                    let mut client = TcpStream::connect(address).unwrap();
                    let request = "GET /c/AbCdEf0123456789-_ HTTP/1.0\r\n\r\n";
                    client.write_all(request.as_bytes()).unwrap();
                    client
                })
                .collect();
            if spare == 0 {
                assert!(matches!(child.join().unwrap(), Err(WebError::Worn)));
                continue;
            }
            for mut client in hanging {
                let mut said = String::new();
                client.read_to_string(&mut said).unwrap();
                assert!(said.starts_with("HTTP/1.1 500 "), "{said}");
            }
            assert!(answer(address, "GET /style.css HTTP/1.0\r\n\r\n").contains(" 200 OK"));
            drop(mover);
            assert!(child.join().unwrap().is_ok());
        }
    }
}
