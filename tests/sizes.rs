//! Large messages, and messages that can't be copied into the may instance.

mod common;

use common::Stage;
use common::remote::as_sent;
use posttls::sandbox::Instance;

/// A line of the message of 50 MB.
const LINE: usize = 76;

/// No two lines alike: a lost or doubled block shows.
fn body(octets: usize) -> String {
    let mut body = String::with_capacity(octets + LINE);
    let mut number = 0;
    while body.len() < octets {
        body.push_str(&format!("{number:-<width$}\n", width = LINE - 1));
        number += 1;
    }
    body
}

fn message(octets: usize) -> String {
    let head = "From: alice@sender.test\nTo: bob@plain.test\nSubject: large\n\
                Date: Sun, 22 Nov 2026 12:00:00 +0000\nMessage-ID: <large@sender.test>\n\n";
    format!("{head}{}", body(octets))
}

/// The most memory that `pid` has ever used, in kB.
fn peak_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let word = line.and_then(|line| line.split_whitespace().nth(1));
    word.and_then(|word| word.parse().ok()).expect("a number")
}

#[test]
fn fifty_megabytes_cross_unchanged_and_not_through_memory() {
    let stage = Stage::with(|options| options.mx_dialogue(false));
    let sent = message(50 << 20);
    let queue_id = stage
        .sandbox
        .submit("alice@sender.test", &["bob@plain.test"], sent.as_bytes())
        .expect("a queue ID");
    let link = common::link(&stage.notification(&queue_id));
    let pid = stage.sandbox.httpd_pid().expect("a daemon");
    let before = peak_kb(pid);
    assert_eq!(stage.post(&link, "action=send").status, 200);
    let growth = peak_kb(pid) - before;
    println!("50 MB released: peak memory of the mover {before} kB, then {growth} kB more");
    assert!(growth < 20 << 10, "{growth} kB");
    stage.arrival("bob@plain.test");
    let arrived = stage.sandbox.delivered("bob@plain.test");
    assert_eq!(arrived.len(), 1);
    // Not assert_eq: nobody wants to read the two.
    assert!(as_sent(&arrived[0]) == sent.as_bytes(), "content changed");
    stage.queues_are_empty();
    stage.spools_are_clean();
}

const TWO: [&str; 2] = ["bob@plain.test", "eve@plain.test"];

/// The may instance's hold queue, away while this lives: no copy can be made.
struct Away<'a>(&'a Stage);

impl<'a> Away<'a> {
    fn new(stage: &'a Stage) -> Self {
        let away = Self(stage);
        let (hold, elsewhere) = away.paths();
        std::fs::rename(hold, elsewhere).expect("moved away");
        away
    }

    fn paths(&self) -> (std::path::PathBuf, std::path::PathBuf) {
        let hold = self.0.sandbox.queue_dir(Instance::May).join("hold");
        let elsewhere = hold.with_file_name("hold-away");
        (hold, elsewhere)
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        let (hold, elsewhere) = self.paths();
        std::fs::rename(elsewhere, hold).expect("moved back");
    }
}

/// A message to two that is released for one; gives its queue ID and the answer's page.
fn release_one(stage: &Stage, octets: usize) -> (String, String) {
    let large = message(octets);
    let queue_id = stage
        .sandbox
        .submit("alice@sender.test", &TWO, large.as_bytes())
        .expect("a queue ID");
    let link = common::link(&stage.notification(&queue_id));
    let answer = stage.post(&link, "action=send&recipient=bob%40plain.test");
    assert_eq!(answer.status, 200);
    (queue_id, answer.body)
}

#[test]
fn a_limit_of_the_may_instance_stops_nothing_that_was_accepted() {
    let stage = Stage::with(|options| {
        // Notifications of this sandbox come in through may, and are smaller.
        options.main_cf(Instance::May, "message_size_limit", "20000")
    });
    release_one(&stage, 30_000);
    stage.arrival("bob@plain.test");
    let arrived = stage.sandbox.delivered("bob@plain.test");
    assert!(
        as_sent(&arrived[0]) == message(30_000).as_bytes(),
        "changed"
    );
}

#[test]
fn a_message_that_cannot_be_copied_waits_and_nobody_else_waits_for_it() {
    let stage = Stage::new();
    let away = Away::new(&stage);
    let (queue_id, page) = release_one(&stage, 20_000);
    assert!(
        page.contains("recorded, but could not be carried out yet"),
        "{page}"
    );
    let log = stage.log();
    let error = log
        .lines()
        .find(|line| line.contains("cannot copy the message"));
    let error = error.expect("an error that says what failed");
    assert!(
        error.contains(&queue_id) && error.contains("No such file"),
        "{error}"
    );
    // Nothing is lost, and the message goes on being tried for both.
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), TWO);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "releasing");

    drop(away);
    stage.arrival("bob@plain.test");
    stage.becomes(&queue_id, "bob@plain.test", "released");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), ["eve@plain.test"]);
    assert_eq!(TWO.map(|recipient| stage.attempts(recipient)), [1, 0]);
}

#[test]
fn a_message_that_cannot_cross_does_not_stop_a_command_about_another() {
    let stage = Stage::new();
    let (other, _) = stage.stuck(&["tom@plain.test"], "small");
    let away = Away::new(&stage);
    release_one(&stage, 1_000);
    stage.sandbox.stop_httpd();
    let output = stage.posttls(&["delete", &other]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    drop(away);
    assert_eq!(stage.attempts("bob@plain.test"), 0);
    assert_eq!(stage.attempts("tom@plain.test"), 0);
}
