//! The web child's process: it serves until the mover ends the stream, and dies rather than limp.
//!
//! tiny_http 0.12 has no timeouts, and its accept loop ends at the first error. Both are met here. Timeouts are set on
//! the listening socket, from which Linux hands them down to every accepted one. As `accept` then times out too, a
//! loop that ended so is followed by a new one on the same socket, while the old one goes on answering its connections.
//! (tiny_http logs each such end as an error: a logger should leave out the target `tiny_http`.)
//! At any other accept error, or when all threads hang, the process ends and the mover replaces it; the mover keeps the
//! listening socket, so no connection is refused meanwhile.
//!
//! Not met, as it happens inside tiny_http (the first two seen): a `Content-Length` beyond what can be allocated, and a
//! connection that is reset between its request and `accept`, abort the process; a header line has no limit. So
//! this belongs behind a reverse proxy, which it needs for HTTPS anyway, and the mover must not wait long with a
//! replacement.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use tiny_http::Server;

use crate::web::mover_link::MoverLink;
pub use crate::web::privilege::prove_unprivileged;
use crate::web::serve::Service;

/// A connection on which nothing moves for so long is closed.
pub const IDLE: Duration = Duration::from_secs(30);
/// An accept loop that ended keeps answering its connections for so long after the last request; they die before.
const RETIRED: Duration = Duration::from_secs(300);
/// Requests answered at once, each in a thread of its own: a client that hangs costs one of them and no more.
const MAX_REQUESTS: usize = 256;
/// All of them busy for so long means that they hang.
const STUCK: Duration = Duration::from_secs(60);
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
    /// Every thread hangs.
    #[error("all {MAX_REQUESTS} requests have been under way for {} seconds", STUCK.as_secs())]
    Stuck,
}

enum Event {
    MoverEnded(io::Result<()>),
    AcceptEnded(io::Error),
    Stuck,
}

/// Serves on `listener` until the mover ends the stream. Call [`prove_unprivileged`] first: this reports ready.
///
/// # Errors
/// When the process can't serve any more; it must then end, and be replaced.
pub fn run(mover: UnixStream, listener: TcpListener) -> Result<(), WebError> {
    run_with(mover, listener, IDLE)
}

fn run_with(mover: UnixStream, listener: TcpListener, idle: Duration) -> Result<(), WebError> {
    let (link, settings) = MoverLink::greet(mover).map_err(WebError::Mover)?;
    let link = Arc::new(link);
    let service = Arc::new(Service::new(&settings, Arc::clone(&link)));
    for timeout in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&listener, timeout, Some(idle))
            .map_err(|e| WebError::Listener(e.into()))?;
    }
    let (tell, events) = channel();
    let tell_end = tell.clone();
    thread::spawn(move || tell_end.send(Event::MoverEnded(link.hand_out_answers())));
    let under_way = Arc::new(AtomicUsize::new(0));
    accept(&listener, &service, &under_way, &tell)?;
    for event in &events {
        match event {
            Event::AcceptEnded(error) if is_timeout(&error) => {
                accept(&listener, &service, &under_way, &tell)?;
            }
            Event::AcceptEnded(error) => return Err(WebError::Accept(error)),
            Event::Stuck => return Err(WebError::Stuck),
            Event::MoverEnded(Err(error)) => return Err(WebError::Mover(error)),
            Event::MoverEnded(Ok(())) => break,
        }
    }
    wait_until(FAREWELL, || under_way.load(Ordering::SeqCst) == 0);
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn wait_until(patience: Duration, done: impl Fn() -> bool) -> bool {
    let end = Instant::now() + patience;
    while !done() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Starts an accept loop of tiny_http, and a thread that takes its requests.
fn accept(
    listener: &TcpListener,
    service: &Arc<Service>,
    under_way: &Arc<AtomicUsize>,
    tell: &Sender<Event>,
) -> Result<(), WebError> {
    let listener = listener.try_clone().map_err(WebError::Listener)?;
    let server = Server::from_listener(listener, None)
        .map_err(|error| WebError::Listener(io::Error::other(error)))?;
    // Weak: the service ends with `run`, and this thread soon after.
    let (service, under_way, tell) = (Arc::downgrade(service), Arc::clone(under_way), tell.clone());
    thread::spawn(move || take_requests(&server, &service, &under_way, &tell));
    Ok(())
}

fn take_requests(
    server: &Server,
    service: &Weak<Service>,
    under_way: &Arc<AtomicUsize>,
    tell: &Sender<Event>,
) {
    let mut retires: Option<Instant> = None;
    while retires.is_none_or(|at| Instant::now() < at) {
        let next = server.recv_timeout(Duration::from_secs(1));
        let Some(service) = service.upgrade() else {
            return;
        };
        let request = match next {
            Ok(Some(request)) => request,
            Ok(None) => continue,
            Err(error) => {
                retires = Some(Instant::now() + RETIRED);
                let _ = tell.send(Event::AcceptEnded(error));
                continue;
            }
        };
        retires = retires.map(|_| Instant::now() + RETIRED);
        if !wait_until(STUCK, || under_way.load(Ordering::SeqCst) < MAX_REQUESTS) {
            let _ = tell.send(Event::Stuck);
            return;
        }
        let place = Place::taken(under_way);
        // If there is no thread to be had, tiny_http answers 500 as it drops the request.
        let _ = thread::Builder::new()
            .name("request".to_owned())
            .spawn(move || {
                let _place = place;
                service.answer(request);
            });
    }
}

/// One of [`MAX_REQUESTS`], given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn taken(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::protocol::{Answer, MAX_ANSWER, Numbered, Settings, send};
    use std::io::{Read, Write};
    use std::net::TcpStream;

    /// The accept loop ends several times here, and nobody notices; who says nothing is hung up on.
    #[test]
    fn idle_connections_are_closed_and_new_ones_taken() {
        let (mover, child) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let child = thread::spawn(move || run_with(child, listener, Duration::from_millis(200)));
        let welcome = Answer::Welcome(Box::new(Settings {
            admin_contact: String::new(),
            trusted_proxies: Vec::new(),
            templates: Default::default(),
        }));
        send(
            &mover,
            &Numbered {
                number: 0,
                body: welcome,
            },
            MAX_ANSWER,
        )
        .unwrap();
        // What came before the timeout was set does not have it.
        thread::sleep(Duration::from_millis(300));
        let mut silent = TcpStream::connect(address).unwrap();
        write!(silent, "GET / HT").unwrap();
        for _ in 0..4 {
            thread::sleep(Duration::from_millis(350));
            let mut client = TcpStream::connect(address).unwrap();
            write!(client, "GET /style.css HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.contains(" 200 OK"), "{answer}");
        }
        silent.set_nonblocking(true).unwrap();
        assert_eq!(silent.read(&mut [0]).unwrap(), 0, "hung up");
        drop(mover);
        assert!(child.join().unwrap().is_ok());
    }
}
