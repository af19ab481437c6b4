//! The fences around our processes, as the system sees them from outside, and as they feel from inside.

use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use posttls::sandbox::Instance;
use rustix::process::Signal;

use crate::common::{Stage, signal};
use crate::inside::TASK;
use crate::{pid_after, runs, this_program};

fn status(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).expect("a process")
}

fn has(pid: u32, fields: &[(&str, &str)]) {
    let status = status(pid);
    for (name, value) in fields {
        let line = status
            .lines()
            .find(|line| line.starts_with(&format!("{name}:")));
        let words: Vec<&str> = line.expect(name).split_whitespace().skip(1).collect();
        assert!(words.iter().all(|word| word == value), "{name}: {words:?}");
    }
}

const NOTHING: &str = "0000000000000000";

#[test]
fn the_children_are_shut_in_and_the_web_child_dies_with_its_mover() {
    let stage = Stage::new();
    from_inside_nothing_is_within_reach(&stage);
    let log = stage.log();
    let web = pid_after(&log, "web child ");
    stage.logged("posttls/courier");
    let courier = pid_after(&stage.log(), "courier ");
    stage.wait("the courier's fence", || {
        stage.log().matches("shut in: ").nth(1).map(|_| ())
    });
    for pid in [web, courier] {
        has(
            pid,
            &[
                ("CapPrm", NOTHING),
                ("CapEff", NOTHING),
                ("CapInh", NOTHING),
                ("CapAmb", NOTHING),
                ("NoNewPrivs", "1"),
                ("Seccomp", "2"),
            ],
        );
        assert!(!status(pid).contains("Uid:\t0"), "{}", status(pid));
    }
    let limits = fs::read_to_string(format!("/proc/{web}/limits")).expect("limits");
    let limit = |name: &str| {
        let line = limits
            .lines()
            .find(|line| line.starts_with(name))
            .expect(name);
        let mut values = line[name.len()..].split_whitespace();
        let pair = (values.next().expect("soft"), values.next().expect("hard"));
        assert_eq!(pair.0, pair.1, "{line}");
        pair.1.to_owned()
    };
    assert_eq!(limit("Max core file size"), "0");
    assert_eq!(limit("Max file size"), "0");
    assert_eq!(limit("Max open files"), "4096");
    assert_eq!(limit("Max data size"), (2_u64 << 30).to_string());
    let score = fs::read_to_string(format!("/proc/{web}/oom_score_adj")).expect("a score");
    assert!(
        score.trim().parse::<i32>().expect("a number") >= 500,
        "{score}"
    );
    for entry in fs::read_dir(format!("/proc/{web}/fd")).expect("descriptors") {
        let entry = entry.expect("a descriptor");
        let number: u32 = entry
            .file_name()
            .to_str()
            .expect("text")
            .parse()
            .expect("a number");
        // It may be closed by now.
        let Ok(what) = fs::read_link(entry.path()) else {
            continue;
        };
        let what = what.to_string_lossy().into_owned();
        let expected = match number {
            2 => what.starts_with("pipe:"),
            _ => what.starts_with("socket:") || what.starts_with("anon_inode:"),
        };
        assert!(expected, "{number} -> {what}");
    }

    // Stopped, it can't end by itself.
    signal(web, Signal::STOP);
    let mover = stage.sandbox.httpd_pid().expect("a mover");
    signal(mover, Signal::KILL);
    stage.wait("the end of both", || {
        (!runs(mover) && !runs(web)).then_some(())
    });
    stage.wait("the courier's end", || (!runs(courier)).then_some(()));
}

fn from_inside_nothing_is_within_reach(stage: &Stage) {
    let (queue_id, _) = stage.stuck(&["bob@plain.test"], "within reach");
    stage.in_queue(&queue_id, "deferred");
    let mover = stage.sandbox.httpd_pid().expect("a mover");
    let web = pid_after(&stage.log(), "web child ");
    let config = stage.config();
    let smtp = stage.sandbox.description()["encrypt"]["smtp"].clone();
    let file = crate::deferred(stage, &queue_id);
    let everybodys = everybodys_sockets(stage);
    let task = format!(
        "{}secret {}\nsecret {}\nsecret {}\nsecret {}\nopen /etc/passwd\nopen {}\nconnect {}\nprocess {mover}\nprocess {web}\nprocess 1\n",
        everybodys.0,
        config.store.path.display(),
        config.link.key_file.display(),
        stage.sandbox.config_file().display(),
        file.display(),
        stage
            .sandbox
            .config_dir(Instance::Encrypt)
            .join("main.cf")
            .display(),
        smtp.as_str().expect("an address"),
    );
    let daemon = posttls::postfix::user::lookup("daemon").expect("a user");
    let program = this_program(stage.dir());
    let output = Command::new("/bin/sh")
        .args([
            "-c",
            "exec 9</etc/hostname; exec \"$0\" --exact inside::everything_is_tried --nocapture",
        ])
        .arg(&program)
        .env_clear()
        .env(TASK, task)
        .env(
            "RUST_MIN_STACK",
            posttls::web::privilege::THREAD_STACK.to_string(),
        )
        .current_dir("/")
        .uid(daemon.uid)
        .gid(daemon.gid)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("everything was tried"), "{said}");
    println!("{said}");
}

/// Local sockets that everybody may write to: connected and not, with a file and without. Also kept: the other ends.
fn everybodys_sockets(stage: &Stage) -> (String, Vec<OwnedFd>) {
    let (stream, datagram) = (stage.dir().join("everybodys"), stage.dir().join("log"));
    let mut ends: Vec<OwnedFd> = vec![
        UnixListener::bind(&stream).expect("a socket").into(),
        UnixDatagram::bind(&datagram).expect("a socket").into(),
    ];
    for path in [&stream, &datagram] {
        fs::set_permissions(path, Permissions::from_mode(0o777)).expect("a mode");
    }
    let mut names = vec![stream.display().to_string(), datagram.display().to_string()];
    for (number, connected) in [true, false].into_iter().enumerate() {
        let name = format!("posttls-test-{}-{number}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        ends.push(match connected {
            true => UnixListener::bind_addr(&address).expect("a socket").into(),
            false => UnixDatagram::bind_addr(&address).expect("a socket").into(),
        });
        names.push(format!("@{name}"));
    }
    let lines = names.iter().map(|name| format!("local {name}\n"));
    (lines.collect(), ends)
}
