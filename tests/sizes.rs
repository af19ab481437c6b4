//! Large messages, and messages that are too large for the may instance.

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

/// Sets what the may instance takes; 0 is no limit. The daemon asks for it when it starts.
fn limit(stage: &Stage, octets: &str) {
    let setting = format!("message_size_limit={octets}");
    stage.run("postconf", Instance::May, &["-e", &setting]);
    stage.reload(Instance::May);
    stage.sandbox.stop_httpd();
    stage.sandbox.start_httpd(&[]).expect("a daemon");
}

/// A message to two, released for one, that the may instance can't take.
fn too_large(stage: &Stage) -> String {
    let large = message(20_000);
    let queue_id = stage
        .sandbox
        .submit("alice@sender.test", &TWO, large.as_bytes())
        .expect("a queue ID");
    let link = common::link(&stage.notification(&queue_id));
    limit(stage, "10000");
    let answer = stage.post(&link, "action=send&recipient=bob%40plain.test");
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("Recorded: it will be"), "{answer:?}");
    queue_id
}

#[test]
fn a_message_too_large_for_may_waits_for_the_limit_and_nobody_else_waits_for_it() {
    let stage = Stage::new();
    let queue_id = too_large(&stage);
    let log = stage.log();
    let error = log.lines().find(|line| line.contains("message_size_limit"));
    let error = error.expect("an error that says what to do");
    assert!(
        error.contains(&queue_id) && error.contains("takes only 10000"),
        "{error}"
    );
    // Nothing is lost, and the message goes on being tried for both.
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), TWO);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "releasing");

    limit(&stage, "0");
    stage.arrival("bob@plain.test");
    let arrived = stage.sandbox.delivered("bob@plain.test");
    assert!(
        as_sent(&arrived[0]) == message(20_000).as_bytes(),
        "changed"
    );
    stage.becomes(&queue_id, "bob@plain.test", "released");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), ["eve@plain.test"]);
    assert_eq!(TWO.map(|recipient| stage.attempts(recipient)), [1, 0]);
}

#[test]
fn a_message_that_cannot_cross_does_not_stop_a_command_about_another() {
    let stage = Stage::new();
    let (other, _) = stage.stuck(&["tom@plain.test"], "small");
    too_large(&stage);
    stage.sandbox.stop_httpd();
    let output = stage.posttls(&["release", &other]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    stage.arrival("tom@plain.test");
    assert_eq!(stage.attempts("bob@plain.test"), 0);
}
