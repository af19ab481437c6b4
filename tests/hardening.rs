//! What a careful reviewer tried: limits, mounts, hashing and an admin's broad commands that come between the steps.
#![cfg(feature = "failpoints")]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Stage, signal};
use posttls::sandbox::Instance;
use rustix::process::Signal;

/// Restarts the mover so that it dies at `point`, and clicks "send".
fn die_at(stage: &Stage, point: &str, link: &str) {
    stage.sandbox.stop_httpd();
    let environment = ("FAILPOINTS".to_owned(), format!("{point}=panic"));
    stage
        .sandbox
        .start_httpd(&[environment])
        .expect("it starts");
    // Whatever the web child says when its mover dies: the decision is recorded.
    stage.post(link, "action=send");
    stage.wait("the mover's death", || {
        stage.sandbox.httpd_pid().is_none().then_some(())
    });
}

fn arrived_once(stage: &Stage, recipient: &str) {
    stage.arrival(recipient);
    stage.queues_are_empty();
    assert_eq!(stage.sandbox.delivered(recipient).len(), 1);
}

#[test]
fn a_line_that_pickup_would_throw_away_crosses() {
    let stage =
        Stage::with(|options| options.main_cf(Instance::Encrypt, "line_length_limit", "8192"));
    let message = format!(
        "Subject: long\r\nMessage-ID: <long@sender.test>\r\n\r\n{}\r\n",
        "x".repeat(6000)
    );
    let queue_id = stage
        .sandbox
        .submit("alice@sender.test", &["bob@plain.test"], message.as_bytes())
        .expect("taken");
    let link = common::link(&stage.notification(&queue_id));
    assert_eq!(stage.post(&link, "action=send").status, 200);
    arrived_once(&stage, "bob@plain.test");
    // The SMTP client breaks such lines (postconf(5), smtp_line_length_limit), but loses nothing.
    let arrived = stage.arrival("bob@plain.test");
    let body = arrived.split("\n\n").nth(1).expect("a body");
    assert_eq!(body.matches('x').count(), 6000);
}

#[test]
fn a_spool_that_is_not_there_says_nothing_about_the_mail_in_it() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "mounted");
    die_at(&stage, "move::marked", &link);
    let hold = stage.sandbox.queue_dir(Instance::May).join("hold");
    let away = hold.with_file_name("hold-away");
    fs::rename(&hold, &away).expect("moved away");
    stage.sandbox.start_httpd(&[]).expect("it starts again");
    stage.wait("a warning", || {
        stage.log().contains("cannot look for").then_some(())
    });
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "releasing");
    assert_eq!(
        stage.sandbox.queue_of(Instance::Encrypt, &queue_id),
        Some("hold")
    );
    fs::rename(&away, &hold).expect("moved back");
    arrived_once(&stage, "bob@plain.test");
}

#[test]
fn releasing_all_held_mail_of_the_may_instance_sends_nothing_twice() {
    for command in ["-H", "-r"] {
        let stage = Stage::new();
        let (queue_id, link) = stage.stuck(&["bob@plain.test"], "all");
        die_at(&stage, "move::published", &link);
        stage
            .sandbox
            .run("postsuper", Instance::May, &[command, "ALL"])
            .expect("postsuper");
        stage
            .sandbox
            .run("postqueue", Instance::May, &["-f"])
            .expect("postqueue");
        std::thread::sleep(Duration::from_secs(2));
        assert!(
            stage.sandbox.delivered("bob@plain.test").is_empty(),
            "{command}: not before the source is marked"
        );
        stage.sandbox.start_httpd(&[]).expect("it starts again");
        arrived_once(&stage, "bob@plain.test");
        assert_eq!(
            stage.states(&queue_id)["bob@plain.test"],
            "released",
            "{command}"
        );
    }
}

#[test]
fn mail_that_is_hashed_otherwise_is_not_taken_for_gone() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "hashed");
    // The settings say one thing, and the files lie as they did.
    stage
        .sandbox
        .run("postconf", Instance::Encrypt, &["-e", "hash_queue_depth=2"])
        .expect("postconf");
    assert_eq!(stage.get(&link).status, 200);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
    assert_eq!(stage.post(&link, "action=send").status, 200);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "releasing");
    assert!(stage.log().contains("puts it right"), "{}", stage.log());
    stage
        .sandbox
        .run("postfix", Instance::Encrypt, &["reload"])
        .expect("reload");
    arrived_once(&stage, "bob@plain.test");
}

#[test]
fn a_web_child_that_hangs_keeps_nobody() {
    let stage = Stage::new();
    let log = stage.log();
    let child = log
        .rsplit("web child ")
        .next()
        .and_then(|rest| rest.split(' ').next())
        .expect("a process ID");
    let child = child.parse().expect("a process ID");
    signal(child, Signal::STOP);
    let asked = Instant::now();
    stage.signal_mover(Signal::TERM);
    stage.wait("the mover's end", || {
        stage.sandbox.httpd_pid().is_none().then_some(())
    });
    println!("ended after {:?}", asked.elapsed());
    assert!(
        !std::path::Path::new(&format!("/proc/{child}/fd/0")).exists(),
        "the child has ended, too"
    );
}

#[test]
fn commands_run_apart_from_what_the_mover_keeps_open() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "apart");
    stage.watched(&queue_id);
    let pid = stage.sandbox.httpd_pid().expect("posttls-httpd runs");
    let tasks = || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
        tasks.map(|task| task.expect("a thread").path())
    };
    let apart: Vec<_> = tasks()
        .filter(|task| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "commands")
        })
        .collect();
    assert_eq!(apart.len(), 1, "none of them runs a command now: {apart:?}");
    let open = |task: &std::path::Path| -> Vec<String> {
        let files = fs::read_dir(task.join("fd")).expect("descriptors");
        let names = files.map(|file| file.expect("a file").file_name());
        let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        names
    };
    assert_eq!(open(&apart[0]), ["0", "1", "2"]);
    // Whichever thread the kernel would choose for it: a signal is handled where the others' files are.
    let own = format!("/proc/{pid}/task/{pid}");
    assert!(open(std::path::Path::new(&own)).len() > 10);
    let status = fs::read_to_string(apart[0].join("status")).expect("a thread");
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let blocked = u64::from_str_radix(blocked.expect("a mask").trim(), 16).expect("a number");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        assert_ne!(blocked & (1 << (signal.as_raw() - 1)), 0, "{signal:?}");
    }
    assert_eq!(stage.post(&link, "action=send").status, 200);
    arrived_once(&stage, "bob@plain.test");
    assert_eq!(open(&apart[0]), ["0", "1", "2"]);
    stage.signal_mover(Signal::TERM);
    stage.wait("the mover's end", || {
        stage.sandbox.httpd_pid().is_none().then_some(())
    });
}
