//! What is tried from inside a process that has shut itself in as the web child does.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use nix::unistd::Pid;
use posttls::confine;
use posttls::web::privilege::{prove_unprivileged, shut_in};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::sockets::Sockets;

/// What to try, one word and value a line.
pub const TASK: &str = "POSTTLS_TEST_INSIDE";

/// Everything that somebody who runs code in the web child would like to do next.
#[test]
fn everything_is_tried() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let values = |word: &str| -> Vec<String> {
        let lines = task.lines().filter_map(|line| line.split_once(' '));
        let found = lines.filter(|(name, _)| *name == word);
        found.map(|(_, value)| value.to_owned()).collect()
    };
    confine::close_inherited().expect("closed");
    assert!(!fs::exists("/proc/self/fd/9").expect("a look"), "inherited");
    let secrets = values("secret").into_iter().map(Into::into);
    prove_unprivileged(&secrets.collect::<Vec<_>>()).expect("no privilege");
    // Before: it is the fence, and nothing else, that keeps us from these.
    for path in values("open") {
        File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let local = Sockets::make(&values("local"));
    println!("{}", shut_in().expect("shut in"));
    local.reach_nobody_else();

    for path in values("secret").into_iter().chain(values("open")) {
        denied(&path, File::open(&path));
        denied(&path, OpenOptions::new().append(true).open(&path));
    }
    denied(
        "a new file",
        File::create_new("/tmp/posttls-test-taken-over"),
    );
    denied("a removal", fs::remove_file("/tmp/posttls-test-taken-over"));
    denied(
        "a directory",
        fs::create_dir("/tmp/posttls-test-taken-over"),
    );
    denied("a program", Command::new("/bin/true").status());
    for address in values("connect") {
        denied(&address, TcpStream::connect(&address));
    }
    denied("a listening socket", TcpListener::bind("127.0.0.1:0"));
    for pid in values("process") {
        let pid = Pid::from_raw(pid.parse().expect("a number"));
        assert!(
            nix::sys::signal::kill(pid, None).is_err(),
            "signal to {pid}"
        );
        assert!(nix::sys::ptrace::attach(pid).is_err(), "ptrace of {pid}");
        denied("its memory", File::open(format!("/proc/{pid}/mem")));
    }
    assert!(nix::sys::signal::kill(Pid::from_raw(0), None).is_err());
    for resource in [
        Resource::Nofile,
        Resource::Core,
        Resource::Fsize,
        Resource::Data,
    ] {
        let maximum = getrlimit(resource).maximum.expect("a limit");
        let more = Rlimit {
            current: Some(maximum + 1),
            maximum: Some(maximum + 1),
        };
        assert!(setrlimit(resource, more).is_err(), "{resource:?}");
    }
    assert!(Vec::<u8>::new().try_reserve(3 << 30).is_err(), "memory");
    assert!(rustix::process::set_parent_process_death_signal(None).is_err());
    assert!(rustix::thread::set_thread_uid(rustix::process::Uid::ROOT).is_err());

    // What a web server needs works on: threads by the hundred, and the sockets that it has.
    let sleepers: Vec<_> = (0..500)
        .map(|_| thread::spawn(|| thread::sleep(std::time::Duration::from_millis(200))))
        .collect();
    sleepers
        .into_iter()
        .for_each(|one| one.join().expect("a thread"));
    local.work();
    println!("everything was tried");
}

pub fn denied<T>(what: &str, result: std::io::Result<T>) {
    match result {
        Ok(_) => panic!("{what} is within reach"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}"),
    }
}
