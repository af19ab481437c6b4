//! Many clients at once that mean no good: a real click is answered within a second all the same. The web child is a
//! process of its own here, with the limits that it has in service.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::web_stage::{Response, Stage, TOKEN, open_case};

/// What the sender waits for, from the click to the page.
pub const PROMISED: Duration = Duration::from_secs(1);
const MANY: usize = 2000;

fn stage() -> Stage {
    let enough = Rlimit {
        current: Some(20_000),
        maximum: getrlimit(Resource::Nofile)
            .maximum
            .map(|most| most.max(20_000)),
    };
    setrlimit(Resource::Nofile, enough).unwrap();
    Stage::in_a_process(open_case(&["a@plain.test"]))
}

/// A connection that comes from another address of the loopback network.
pub fn connect_from(source: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
    rustix::net::connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

fn ask(stage: &Stage, source: Ipv4Addr, request: &str) -> Response {
    let mut stream = connect_from(source, stage.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut octets = Vec::new();
    let _ = stream.read_to_end(&mut octets);
    Response::parse(&octets)
}

fn get(stage: &Stage, source: Ipv4Addr, target: &str) -> Response {
    ask(
        stage,
        source,
        &format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"),
    )
}

/// Opens the page and decides, five times, as a browser does that knows nothing of the siege. This machine has more to
/// do than this test: the middle one of the five must keep the promise, and all must be answered.
fn clicks_are_answered(stage: &Stage, source: Ipv4Addr) {
    let before = stage.decisions().len();
    let form = format!(
        "POST /c/{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: 11\r\n\r\naction=keep"
    );
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(get(stage, source, &format!("/c/{TOKEN}")).status, 200);
            assert_eq!(ask(stage, source, &form).status, 200);
            start.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[2] < PROMISED, "{times:?}");
    assert_eq!(stage.decisions().len(), before + 5);
}

/// Keeps [`MANY`] connections open that each send a part of `octets` every second, while `body` runs. A connection that
/// is closed is followed by a new one.
pub fn besieged(
    to: SocketAddr,
    source: impl Fn(usize) -> Ipv4Addr + Sync,
    octets: &'static [u8],
    body: impl FnOnce(),
) {
    let (over, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let guard = Over(&over);
        scope.spawn(|| {
            let mut streams: Vec<Option<TcpStream>> = (0..MANY).map(|_| None).collect();
            for turn in 0.. {
                let started = Instant::now();
                for (number, place) in streams.iter_mut().enumerate() {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    let part = octets
                        .get(turn % octets.len().max(1))
                        .map(std::slice::from_ref);
                    let alive = place
                        .as_mut()
                        .is_some_and(|stream| stream.write_all(part.unwrap_or_default()).is_ok());
                    if !alive {
                        *place = connect_from(source(number), to).ok();
                        opened.fetch_add(1, Ordering::SeqCst);
                    }
                }
                thread::sleep(Duration::from_secs(1).saturating_sub(started.elapsed()));
            }
        });
        while opened.load(Ordering::SeqCst) < MANY {
            thread::sleep(Duration::from_millis(10));
        }
        body();
        drop(guard);
    });
}

/// Ends a siege, also when a check has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn of_its_own(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x7f01_0000 + number as u32)
}

const SENDER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const HEAD: &[u8] = b"GET /c/AbCdEf0123456789-_ HTTP/1.1\r\nHost: posttls.example.org\r\nX: ";

#[test]
fn two_thousand_slow_connections_from_as_many_addresses() {
    let stage = stage();
    besieged(stage.address, of_its_own, HEAD, || {
        clicks_are_answered(&stage, SENDER)
    });
}

/// From an address like any other, where the sender sits too; and from the one of the reverse proxy, which all share.
#[test]
fn two_thousand_slow_connections_from_one_address() {
    for address in [SENDER, Ipv4Addr::LOCALHOST] {
        let stage = stage();
        besieged(
            stage.address,
            |_| address,
            HEAD,
            || clicks_are_answered(&stage, address),
        );
    }
}

#[test]
fn two_thousand_connections_that_say_nothing() {
    let stage = stage();
    besieged(stage.address, of_its_own, b"", || {
        clicks_are_answered(&stage, SENDER)
    });
}

#[test]
fn a_flood_of_garbage_and_of_resets() {
    let stage = stage();
    let over = AtomicBool::new(false);
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        let guard = Over(&over);
        for number in 0..4 {
            let (stage, over, sent) = (&stage, &over, &sent);
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let Ok(mut stream) = connect_from(of_its_own(number), stage.address) else {
                        continue;
                    };
                    let octets: Vec<u8> = (0..2000).map(|n| (n * 7 + number) as u8).collect();
                    let _ = match number {
                        0 => stream.write_all(&octets),
                        1 => stream.write_all(
                            b"POST / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n",
                        ),
                        2 => stream.write_all(&[b'A'; 30_000]),
                        // Closed with octets of the answer unread: a reset.
                        _ => stream.write_all(b"GET / HTTP/1.0\r\n\r\n"),
                    };
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        while sent.load(Ordering::SeqCst) < 500 {
            thread::sleep(Duration::from_millis(10));
        }
        clicks_are_answered(&stage, SENDER);
        drop(guard);
    });
    clicks_are_answered(&stage, SENDER);
}

/// Only a process of the same user may set its limits, or one with a capability that root need not have.
fn limit_descriptors(stage: &Stage, current: u64) {
    let set = Command::new("prlimit")
        .arg(format!("--pid={}", stage.pid()))
        .arg(format!("--nofile={current}:"))
        .uid(65534)
        .gid(65534)
        .status();
    assert!(set.unwrap().success());
}

/// Without descriptors the kernel does not say whether anybody waits: nobody may be given up for nobody.
#[test]
fn who_gets_the_last_descriptor_is_answered() {
    let stage = stage();
    let descriptors = || -> Vec<u64> {
        let listed = std::fs::read_dir(format!("/proc/{}/fd", stage.pid())).unwrap();
        let numbers = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        numbers.map(|number| number.parse().unwrap()).collect()
    };
    // The connections that found out whether it is ready are gone.
    thread::sleep(Duration::from_millis(300));
    let in_use = descriptors();
    let free = (3..).find(|number| !in_use.contains(number)).unwrap();
    limit_descriptors(&stage, free + 1);
    for _ in 0..5 {
        let mut client = connect_from(SENDER, stage.address).unwrap();
        thread::sleep(Duration::from_millis(50));
        client
            .write_all(format!("GET /c/{TOKEN} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .unwrap();
        let mut octets = Vec::new();
        client.read_to_end(&mut octets).unwrap();
        assert_eq!(Response::parse(&octets).status, 200);
    }
}

/// The limit is lowered below what is in use, so that not one descriptor is left.
#[test]
fn used_up_descriptors_are_back_within_a_second_and_no_connection_is_lost() {
    let stage = stage();
    let limit = |current| limit_descriptors(&stage, current);
    let in_use = std::fs::read_dir(format!("/proc/{}/fd", stage.pid()))
        .unwrap()
        .count() as u64;
    // Nothing is free, and nobody can be given up: clicks wait in the kernel.
    limit(3);
    let started = thread::scope(|scope| {
        let clicks: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| get(&stage, SENDER, &format!("/c/{TOKEN}")).status))
            .collect();
        thread::sleep(Duration::from_secs(1));
        assert!(!clicks.iter().any(|click| click.is_finished()));
        limit(4096);
        let started = Instant::now();
        for click in clicks {
            assert_eq!(click.join().unwrap(), 200);
        }
        started
    });
    assert!(started.elapsed() < PROMISED, "{:?}", started.elapsed());
    // All are taken, by clients that only hang: these give way.
    let hanging: Vec<_> = (0..40)
        .map(|n| connect_from(of_its_own(n), stage.address).unwrap())
        .collect();
    clicks_are_answered(&stage, SENDER);
    limit(in_use + 10);
    clicks_are_answered(&stage, SENDER);
    drop(hanging);
}

#[test]
fn guesses_are_limited_and_genuine_links_are_not() {
    let stage = stage();
    let (guesser, other) = (Ipv4Addr::new(127, 0, 0, 7), Ipv4Addr::new(127, 0, 0, 8));
    let unknown = |number: usize| format!("/c/{number:020}");
    let statuses: Vec<u16> = (0..25)
        .map(|n| get(&stage, guesser, &unknown(n)).status)
        .collect();
    assert_eq!(statuses[..20], [404; 20]);
    assert_eq!(statuses[20..], [429; 5]);
    let limited = get(&stage, guesser, &unknown(99));
    let wait: u64 = limited.header("Retry-After").unwrap().parse().unwrap();
    assert!(wait <= 60 && limited.body.contains("works all the same"));
    assert_eq!(get(&stage, other, &unknown(1)).status, 404);
    clicks_are_answered(&stage, guesser);
    let asked = stage.asked.lock().unwrap().len();
    assert!(asked >= 37, "the mover was asked each time: {asked}");
    // Behind a trusted proxy the address that it forwards counts; from anybody else it is made up.
    let forwarded = |source, number: usize, client: &str| {
        let target = unknown(number);
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n\r\n");
        ask(&stage, source, &request).status
    };
    assert_eq!(forwarded(guesser, 1, "192.0.2.1"), 429);
    for number in 0..20 {
        let client = format!("2001:db8::{number:x}");
        assert_eq!(forwarded(Ipv4Addr::LOCALHOST, number, &client), 404);
    }
    assert_eq!(forwarded(Ipv4Addr::LOCALHOST, 1, "2001:db8::ffff"), 429);
    assert_eq!(forwarded(Ipv4Addr::LOCALHOST, 1, "2001:db8:1::1"), 404);
    assert_eq!(forwarded(Ipv4Addr::LOCALHOST, 1, "192.0.2.1"), 404);
}

#[test]
fn a_flood_of_guesses_keeps_no_click_waiting() {
    let stage = stage();
    let over = AtomicBool::new(false);
    let guesses = AtomicUsize::new(0);
    thread::scope(|scope| {
        let guard = Over(&over);
        for number in 0..40 {
            let (stage, over, guesses) = (&stage, &over, &guesses);
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let target = format!("/c/{:020}", guesses.fetch_add(1, Ordering::SeqCst));
                    let status = get(stage, of_its_own(number % 2), &target).status;
                    assert!(matches!(status, 404 | 429), "{status}");
                }
            });
        }
        while guesses.load(Ordering::SeqCst) < 200 {
            thread::sleep(Duration::from_millis(10));
        }
        clicks_are_answered(&stage, SENDER);
        clicks_are_answered(&stage, of_its_own(0));
        drop(guard);
    });
}
