//! The start of a web child, a look from outside at whether it has shut itself in, and what it says on standard error.
//!
//! Apart from `supervise`, which answers its questions: here is what the system is told and asked about the process.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::allowance::Allowance;
use crate::postfix::user::User;
use crate::web::privilege::THREAD_STACK;

/// Octets of a line of its standard error that are logged.
const LINE: u64 = 500;
/// Lines that are logged in a [`SPELL`]; the others are counted.
const LINES: u64 = 20;
const SPELL: Duration = Duration::from_secs(10);

/// Starts `program` as web child: with its stream to the mover as standard input, the listening socket as standard
/// output, and nothing else of ours.
pub(super) fn start(
    program: &Path,
    user: &User,
    forbidden: &[PathBuf],
    listener: &TcpListener,
    theirs: UnixStream,
) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.arg0("posttls-httpd (web)").arg("--web-child");
    for path in forbidden {
        command.arg("--forbidden").arg(path);
    }
    // As root, `uid` leaves it no other group.
    command
        .env_clear()
        .env("RUST_MIN_STACK", THREAD_STACK.to_string())
        .current_dir("/")
        .uid(user.uid)
        .gid(user.gid);
    let listener: OwnedFd = listener.try_clone()?.into();
    let mut child = command
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(listener))
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(words) = child.stderr.take() {
        let id = child.id();
        thread::spawn(move || listen_to(id, words));
    }
    Ok(child)
}

/// Its words become lines of our log, marked as its own: it could write anything.
fn listen_to(id: u32, words: ChildStderr) {
    let mut words = BufReader::new(words);
    let mut allowance = Allowance::new(LINES, SPELL);
    loop {
        let mut line = Vec::new();
        // What is longer than a line goes on in the next one, and counts. An error means that nothing more can come.
        match words.by_ref().take(LINE).read_until(b'\n', &mut line) {
            Ok(count) if count > 0 => {}
            _ => break,
        }
        let Some(dropped) = allowance.note(Instant::now()) else {
            continue;
        };
        if dropped > 0 {
            warn!("web child {id} said {dropped} lines more than are logged");
        }
        info!(
            "web child {id} says: {}",
            String::from_utf8_lossy(&line).trim_end()
        );
    }
}

/// Is this process really an ordinary user without any privilege, and can't it gain one?
pub(super) fn is_shut_in(child: u32, user: &User) -> io::Result<()> {
    let status = fs::read_to_string(format!("/proc/{child}/status"))?;
    match lacks(&status, user) {
        None => Ok(()),
        Some(what) => Err(io::Error::other(format!(
            "it says that it is ready, but {what}"
        ))),
    }
}

/// What a process with this `/proc/PID/status` has not given up. A kernel without a field has nothing to be given up.
fn lacks(status: &str, user: &User) -> Option<String> {
    let field = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| {
            Some(
                line.strip_prefix(name)?
                    .strip_prefix(':')?
                    .trim()
                    .to_owned(),
            )
        })
    };
    let all = |value: &str, wanted: &str| value.split_whitespace().all(|part| part == wanted);
    let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
    let filtered = ["x86_64", "aarch64", "riscv64"].contains(&std::env::consts::ARCH);
    let wanted = [
        ("Uid", uid.as_str(), true),
        ("Gid", gid.as_str(), true),
        ("Groups", gid.as_str(), true),
        ("CapInh", "0000000000000000", true),
        ("CapPrm", "0000000000000000", true),
        ("CapEff", "0000000000000000", true),
        ("CapAmb", "0000000000000000", true),
        ("NoNewPrivs", "1", true),
        ("Seccomp", "2", filtered),
    ];
    wanted.into_iter().find_map(|(name, wanted, asked)| {
        let value = field(name)?;
        (asked && !all(&value, wanted)).then(|| format!("{name} is {value}, not {wanted}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tposttls-httpd\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t \n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
        CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n";

    #[test]
    fn each_privilege_that_is_left_is_seen() {
        let user = User {
            name: "web".to_owned(),
            uid: 7,
            gid: 8,
        };
        assert_eq!(lacks(STATUS, &user), None);
        for (have, left) in [
            ("Uid:\t7\t7\t7\t7", "Uid:\t7\t7\t0\t7"),
            ("Gid:\t8\t8\t8\t8", "Gid:\t8\t8\t8\t0"),
            ("Groups:\t ", "Groups:\t8 27 "),
            ("CapPrm:\t0000000000000000", "CapPrm:\t0000000000000400"),
            ("CapEff:\t0000000000000000", "CapEff:\t000001ffffffffff"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("Seccomp:\t2", "Seccomp:\t0"),
        ] {
            let status = STATUS.replace(have, left);
            assert_ne!(status, STATUS);
            let name = have.split(':').next().unwrap();
            assert!(lacks(&status, &user).unwrap().starts_with(name), "{left}");
        }
    }
}
