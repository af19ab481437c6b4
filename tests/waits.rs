//! Whoever does not answer, and whoever gets in the way: a queue manager that hangs, and another user of the host who locks
//! whatever he can open.

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, Stage, signal, try_request};
use posttls::connect;
use posttls::sandbox::Instance;
use rustix::process::Signal;

/// The queue manager of an instance.
fn qmgr(stage: &Stage, instance: Instance) -> u32 {
    let pid_file = stage.sandbox.queue_dir(instance).join("pid/master.pid");
    let master = std::fs::read_to_string(pid_file).expect("a running instance");
    let master = master.trim().to_owned();
    let processes = std::fs::read_dir("/proc").expect("processes");
    let mut ids = processes.filter_map(|one| one.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is_it = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let (name, rest) = stat.rsplit_once(')').unwrap_or_default();
        name.ends_with("(qmgr") && rest.split_whitespace().nth(1) == Some(master.as_str())
    };
    ids.find(is_it).expect("a queue manager")
}

/// Goes on when it is dropped, so that the sandbox can end.
struct Stopped(u32);

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, Signal::CONT);
    }
}

#[test]
fn a_queue_manager_that_hangs_keeps_nobody_waiting() {
    const MESSAGES: usize = 12;
    let stage = Stage::new();
    let messages: Vec<(String, String, String)> = (0..MESSAGES)
        .map(|n| {
            let to = format!("hung{n}@plain.test");
            let (id, link) = stage.stuck(&[&to], &format!("hung{n}"));
            (id, link, to)
        })
        .collect();
    let stopped = Stopped(qmgr(&stage, Instance::May));
    signal(stopped.0, Signal::STOP);
    let socket = stage.sandbox.queue_dir(Instance::May).join("public/qmgr");
    let mut full = Vec::new();
    while let Ok(stream) = connect::within(&socket, Duration::from_millis(100)) {
        full.push(stream);
    }
    // More at once than there are workers: each has its answer, and is carried out.
    thread::scope(|scope| {
        for (id, link, _) in &messages[1..] {
            let stage = &stage;
            scope.spawn(move || {
                let asked = Instant::now();
                let answer = try_request("POST", link, "action=send").expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.body);
                assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
                stage.wait("its release", || {
                    (stage.states(id).values().all(|state| state == "released")).then_some(())
                });
            });
        }
    });
    let log = stage.log();
    assert!(log.contains("takes no connection"), "{log}");
    assert!(
        log.contains(&format!("{}: {}", messages[1].0, socket.display())),
        "{log}"
    );
    // A decision that a restart finds unfinished does not keep it from coming up.
    stage.sandbox.stop_httpd();
    let store = stage.store();
    let case = stage.known(&messages[0].0).id;
    let recipient = store.recipients(case).expect("recipients").remove(0).id;
    let choice = [(recipient, posttls::case::Action::Send)];
    store
        .decide(case, &choice, posttls::case::Actor::Link, "::1", None)
        .expect("a decision");
    stage.sandbox.start_httpd(&[]).expect("it starts");
    stage.wait("the release", || {
        let states = stage.states(&messages[0].0);
        states
            .values()
            .all(|state| state == "released")
            .then_some(())
    });
    // And nothing is lost by it.
    drop((stopped, full));
    for (_, _, to) in &messages {
        stage.arrival(to);
        assert_eq!(stage.sandbox.delivered(to).len(), 1, "{to}");
    }
}

/// A process of another user that keeps locks, until it is dropped.
struct Locker(Child);

impl Drop for Locker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Opens and locks all that `nobody` can below these directories. Also how many that are.
fn lock_all(directories: &[&std::path::Path]) -> (Locker, usize) {
    let script = "ulimit -n $(ulimit -Hn); n=0
        while IFS= read -r -d '' path; do
            exec {fd}<\"$path\" && flock -x -n $fd && n=$((n + 1))
        done < <(find \"$@\" -readable \\( -type f -o -type d \\) -print0 2>/dev/null)
        echo $n; exec sleep 600";
    let mut child = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["bash", "-c", script, "bash"])
        .args(directories)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("setpriv");
    let mut line = String::new();
    let output = child.stdout.take().expect("a pipe");
    BufReader::new(output).read_line(&mut line).expect("a line");
    let count = line.trim().parse().expect("a number");
    (Locker(child), count)
}

#[test]
fn another_user_who_locks_what_he_can_keeps_no_mover_from_starting() {
    let stage = Stage::new();
    stage.sandbox.stop_httpd();
    let spool = stage.sandbox.queue_dir(Instance::May);
    let (locker, count) = lock_all(&[stage.dir(), &spool]);
    assert!(count > 5, "{count}: the queue directory is one of them");
    stage.sandbox.start_httpd(&[]).expect("it starts");
    assert!(
        stage.log().contains("that is no mover keeps a lock"),
        "{}",
        stage.log()
    );
    let (id, link) = stage.stuck(&["bob@plain.test"], "locked");
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("bob@plain.test");
    // A second mover is kept out all the same, and so is a command that would be one.
    let second = stage.dir().join("second.toml");
    let text = std::fs::read_to_string(stage.sandbox.config_file()).expect("a configuration");
    let own = text.lines().find(|line| line.starts_with("run_dir"));
    let text = text.replace(
        own.expect("run_dir"),
        &format!("run_dir = \"{}\"", stage.dir().join("second").display()),
    );
    std::fs::write(&second, text).expect("a configuration");
    let output = Command::new(stage.sandbox.program("posttls"))
        .arg("--config")
        .arg(&second)
        .args(["delete", &id])
        .output()
        .expect("posttls runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("another mover works on these queues"),
        "{said}"
    );
    drop(locker);
}

/// What locks the directory itself may be a mover of an older version.
#[test]
fn a_mover_of_an_older_version_is_not_overlooked() {
    let stage = Stage::new();
    stage.sandbox.stop_httpd();
    let spool = stage.sandbox.queue_dir(Instance::May);
    // A program of root with such a name that keeps that lock.
    let program = stage.dir().join("posttls-httpd");
    std::fs::copy("/usr/bin/flock", &program).expect("a program");
    let mut older = Command::new(&program)
        .arg("-x")
        .arg("-o")
        .arg(&spool)
        .args(["sleep", "600"])
        .spawn()
        .expect("it runs");
    stage.wait("its lock", || {
        let locks = std::fs::read_to_string("/proc/locks").expect("locks");
        locks.contains(&format!(" {} ", older.id())).then_some(())
    });
    let started = stage.sandbox.start_httpd(&[]);
    let sleeping = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", older.id()));
    older.kill().expect("it ends");
    older.wait().expect("it ends");
    for child in sleeping.unwrap_or_default().split_whitespace() {
        signal(child.parse().expect("a process"), Signal::KILL);
    }
    assert!(started.is_err(), "{}", stage.log());
    stage.sandbox.start_httpd(&[]).expect("it starts");
}
