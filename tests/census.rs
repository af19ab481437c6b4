//! What the census finds: mail of which no notice told, once each, and asked about only where somebody is to be asked.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::Stage;
use posttls::sandbox::{Instance, UpOptions};
use serde_json::Value;

const BY_HAND: &str = "[sweep]\nseconds = 1\ncensus_minutes = 0\n";

/// Every notice is lost, and nobody looks through the queue but by hand.
fn lost_notices(options: UpOptions) -> UpOptions {
    options.hook("/bin/true").posttls_toml(BY_HAND)
}

/// Runs the census, which must go well, and gives its counts.
fn census(stage: &Stage, options: &[&str]) -> Value {
    let arguments = [&["census", "--json"], options].concat();
    let output = stage.posttls(&arguments);
    assert!(output.status.success(), "{output:?}\n{}", stage.log());
    assert!(output.stderr.is_empty(), "{output:?}");
    let counts: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(counts["complete"], true);
    assert_eq!(counts["unreadable"], 0, "{counts}\n{}", stage.log());
    counts
}

fn counted(counts: &Value, names: [&str; 4]) -> [u64; 4] {
    names.map(|name| counts[name].as_u64().expect("a count"))
}

fn milliseconds() -> u128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("a date").as_millis() % 1000
}

fn microseconds(id: &str) -> u32 {
    let id: posttls::postfix::QueueId = id.parse().expect("a queue ID");
    id.microseconds().expect("microseconds")
}

fn at_the_turn_of_a_second() {
    while milliseconds() < 999 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    std::thread::sleep(std::time::Duration::from_millis(1));
}

/// Sends a message whose notice is lost and waits until it is deferred.
fn lost(stage: &Stage, from: &str, to: &[&str], subject: &str) -> String {
    let message = format!(
        "From: <alice@sender.test>\r\nSubject: {subject}\r\nMessage-ID: <{subject}@sender.test>\r\n\r\nbody of {subject}\r\n"
    );
    let queue_id = stage
        .sandbox
        .submit(from, to, message.as_bytes())
        .unwrap_or_else(|error| panic!("{error}"));
    stage.in_queue(&queue_id, "deferred");
    queue_id
}

const FOUND: [&str; 4] = ["stuck", "opened", "recipients", "known"];

#[test]
fn a_lost_notice_is_made_good_for_and_found_once() {
    let stage = Stage::with(lost_notices);
    let subject = "=?UTF-8?Q?Gr=C3=BC=C3=9Fe?=";
    let queue_id = lost(
        &stage,
        "alice@sender.test",
        &["bob@plain.test", "eve@refuse.test"],
        subject,
    );
    lost(&stage, "alice@sender.test", &["ann@down.test"], "not-tls");
    assert_eq!(stage.store().cases(None).expect("cases").len(), 0);

    let dry = census(&stage, &["--dry-run"]);
    assert_eq!(counted(&dry, FOUND), [1, 1, 2, 0], "{dry}");
    assert_eq!(stage.store().cases(None).expect("cases").len(), 0);

    let first = census(&stage, &[]);
    assert_eq!(counted(&first, FOUND), [1, 1, 2, 0], "{first}");
    let two = ["messages", "deferred", "joined", "internal"];
    assert_eq!(counted(&first, two), [2, 2, 0, 0], "{first}");
    let case = stage.case(&queue_id);
    assert_eq!(case["subject"], "Grüße");
    assert_eq!(case["message_id"], format!("<{subject}@sender.test>"));
    assert_eq!(case["source"], "census");
    assert_eq!(case["asked"], "sender");
    let lifetime = case["retry_until"].as_i64().zip(case["arrival"].as_i64());
    assert_eq!(
        lifetime.map(|(until, arrival)| until - arrival),
        Some(5 * 86_400)
    );
    let states = stage.states(&queue_id);
    assert_eq!(states["bob@plain.test"], "open");
    assert_eq!(states["eve@refuse.test"], "open");

    let second = census(&stage, &[]);
    assert_eq!(counted(&second, FOUND), [1, 0, 0, 1], "{second}");
    assert_eq!(stage.store().cases(None).expect("cases").len(), 1);

    let output = stage.posttls(&["release", &queue_id]);
    assert!(output.status.success(), "{output:?}");
    stage.arrival("bob@plain.test");
    stage.arrival("eve@refuse.test");
}

#[test]
fn the_mover_takes_a_census_by_itself_soon_after_its_start() {
    let stage = Stage::with(|options| {
        options
            .hook("/bin/true")
            .posttls_toml("[sweep]\nseconds = 1\n")
    });
    stage.sandbox.stop_httpd();
    let queue_id = lost(
        &stage,
        "alice@sender.test",
        &["bob@plain.test"],
        "while-down",
    );
    stage.sandbox.start_httpd(&[]).expect("a daemon");
    stage.logged("source=census");
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
    stage.logged("census: 1 messages, 1 deferred, 1 with a TLS failure: 1 new cases");
}

#[test]
fn a_message_of_the_first_moment_of_a_second_needs_no_notice() {
    // Postfix would write one after an hour.
    let stage = Stage::with(|options| {
        options
            .posttls_toml(BY_HAND)
            .main_cf(Instance::Encrypt, "delay_warning_time", "1h")
    });
    let later = (0..10).find_map(|number| {
        let id = lost(
            &stage,
            "alice@sender.test",
            &["bob@plain.test"],
            &format!("later{number}"),
        );
        (microseconds(&id) >= 50_000).then_some(id)
    });
    let later = later.expect("one that did not come early");
    // Which of many it is, chance decides: the queue ID says when exactly Postfix made the file.
    let early = (0..60).find_map(|number| {
        at_the_turn_of_a_second();
        let message = format!("Subject: early{number}\r\n\r\nHello.\r\n");
        let id = stage
            .sandbox
            .submit_at_once("alice@sender.test", &["bob@plain.test"], message.as_bytes())
            .expect("taken");
        (microseconds(&id) < 50_000).then_some(id)
    });
    let early = early.expect("one that came early enough");
    let mail = stage.notification(&early);
    assert!(mail.contains("bob@plain.test"), "{mail}");
    assert_eq!(stage.case(&early)["source"], "census");
    stage.logged(&format!("{early}: deferred at the turn of a second"));
    let cases = stage.store().cases(None).expect("cases");
    assert!(cases.iter().all(|case| case.key.queue_id.as_str() != later));
}

#[test]
fn mail_without_a_sender_is_recorded_and_nobody_is_asked() {
    let stage = Stage::with(|options| options.posttls_toml(BY_HAND));
    let queue_id = lost(&stage, "", &["bob@plain.test"], "a-bounce");
    assert_eq!(counted(&census(&stage, &[]), FOUND), [1, 1, 1, 0]);
    let case = stage.case(&queue_id);
    assert_eq!(case["sender"], Value::Null, "{case}");
    assert_eq!(
        (&case["asked"], &case["state"]),
        (&"nobody".into(), &"open".into())
    );
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "kept");
    assert!(!stage.is_told("bob@plain.test"));
    // An admin may decide.
    let output = stage.posttls(&["release", &queue_id]);
    assert!(output.status.success(), "{output:?}");
    stage.arrival("bob@plain.test");
    assert!(stage.sandbox.inbox().is_empty());
}

#[test]
fn mail_without_a_sender_is_deleted_or_released_where_the_configuration_says_so() {
    let stage = Stage::with(|options| options.posttls_toml(BY_HAND));
    let deleted = lost(&stage, "", &["bob@plain.test"], "to-delete");
    stage.configure("senders", "null", "\"delete\"");
    census(&stage, &[]);
    stage.becomes(&deleted, "bob@plain.test", "deleted");
    let released = lost(&stage, "", &["eve@plain.test"], "to-release");
    stage.configure("senders", "null", "\"release\"");
    census(&stage, &[]);
    stage.becomes(&released, "eve@plain.test", "released");
    stage.arrival("eve@plain.test");
    stage.queues_are_empty();
    assert_eq!(stage.attempts("bob@plain.test"), 0);
}

#[test]
fn mail_queued_before_posttls_was_installed_is_found() {
    // A Postfix that was told nothing of PostTLS but the TLS level: no notice, no filter for statuses.
    let stage = Stage::with(|options| {
        options
            .posttls_toml(BY_HAND)
            .main_cf(Instance::Encrypt, "delay_warning_time", "0")
            .main_cf(
                Instance::Encrypt,
                "smtp_delivery_status_filter",
                "${tls_required_enable?{}}",
            )
    });
    let queue_id = lost(&stage, "alice@sender.test", &["bob@plain.test"], "old");
    let broken = lost(&stage, "alice@sender.test", &["bob@broken.test"], "old-too");
    assert_eq!(counted(&census(&stage, &[]), FOUND), [2, 2, 2, 0]);
    let failure = |id: &str| stage.case(id)["recipients"][0]["failure"].clone();
    assert_eq!(failure(&queue_id), "not-offered");
    assert_eq!(failure(&broken), "handshake-failed");
    assert_eq!(stage.case(&queue_id)["recipients"][0]["status"], "4.7.4");
    stage.hears_of("bob@plain.test");
    stage.hears_of("bob@broken.test");
}

#[test]
fn a_message_that_an_admin_requeued_is_found_under_its_new_queue_id() {
    let stage = Stage::with(|options| options.posttls_toml(BY_HAND));
    let (old, _) = stage.stuck(&["bob@plain.test"], "requeued");
    stage.in_queue(&old, "deferred");
    stage.run("postsuper", Instance::Encrypt, &["-r", &old]);
    stage.wake_pickup(Instance::Encrypt);
    let fresh = stage.wait("the message under a new queue ID", || {
        let queues = stage.sandbox.queue(Instance::Encrypt);
        queues["deferred"].iter().find(|id| **id != old).cloned()
    });
    stage.wait("the old case to end", || {
        (stage.case(&old)["state"] == "closed").then_some(())
    });
    census(&stage, &[]);
    stage.becomes(&fresh, "bob@plain.test", "open");
    assert_eq!(stage.case(&fresh)["subject"], "requeued");
    assert_eq!(stage.states(&old)["bob@plain.test"], "gone");
    assert_eq!(counted(&census(&stage, &[]), FOUND), [1, 0, 0, 1]);
}

#[test]
fn only_senders_of_ours_are_asked() {
    let stage = Stage::with(lost_notices);
    stage.configure("senders", "internal", "[\"sender.test\"]");
    let ours = lost(&stage, "alice@sender.test", &["bob@plain.test"], "ours");
    let theirs = lost(
        &stage,
        "mallory@elsewhere.test",
        &["eve@plain.test"],
        "forwarded",
    );
    assert_eq!(counted(&census(&stage, &[]), FOUND), [2, 2, 2, 0]);
    assert_eq!(stage.case(&ours)["asked"], "sender");
    assert_eq!(stage.case(&theirs)["asked"], "nobody");
    assert_eq!(stage.states(&ours)["bob@plain.test"], "open");
    assert_eq!(stage.states(&theirs)["eve@plain.test"], "kept");
    stage.hears_of("bob@plain.test");
    assert!(!stage.is_told("eve@plain.test"));
}

#[test]
fn what_postfix_writes_to_its_postmaster_is_never_a_case() {
    let stage = Stage::with(lost_notices);
    let from = "double-bounce@encrypt.host.test";
    lost(&stage, from, &["bob@plain.test"], "internal");
    let counts = census(&stage, &[]);
    let names = ["stuck", "internal", "opened", "recipients"];
    assert_eq!(counted(&counts, names), [1, 1, 0, 0], "{counts}");
    assert!(stage.store().cases(None).expect("cases").is_empty());
}

#[test]
fn what_posttls_writes_to_senders_is_never_a_case() {
    let stage = Stage::with(|options| options.posttls_toml(BY_HAND));
    // A real one, as if the server that took it had to send it on and could not.
    let (_, link) = stage.stuck(&["bob@plain.test"], "asked");
    let mail = stage.sandbox.inbox().remove(0);
    let mail = String::from_utf8_lossy(&mail).replace("\n", "\r\n");
    let sent = stage
        .sandbox
        .submit("", &["alice@plain.test"], mail.as_bytes());
    let queue_id = sent.unwrap_or_else(|error| panic!("{error}"));
    stage.in_queue(&queue_id, "deferred");
    // It would tell its link to everybody on the way, or nobody would ever be asked.
    for unasked in ["\"release\"", "\"delete\""] {
        stage.configure("senders", "null", unasked);
        let counts = census(&stage, &[]);
        let names = ["stuck", "internal", "known", "recipients"];
        assert_eq!(counted(&counts, names), [2, 1, 1, 0], "{counts}");
    }
    assert_eq!(stage.store().cases(None).expect("cases").len(), 1);
    assert_eq!(stage.pending(&queue_id), ["alice@plain.test"]);
    assert_eq!(stage.attempts("alice@plain.test"), 0);
    assert!(link.contains("/c/"));
}

#[test]
fn a_message_on_hold_is_recorded_and_its_sender_asked_once_the_admin_lets_it_go() {
    let stage = Stage::with(lost_notices);
    let queue_id = lost(&stage, "alice@sender.test", &["bob@plain.test"], "held");
    stage.run("postsuper", Instance::Encrypt, &["-h", &queue_id]);
    assert_eq!(counted(&census(&stage, &[]), FOUND), [1, 1, 1, 0]);
    let case = stage.case(&queue_id);
    assert_eq!(case["state"], "watched", "{case}");
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "not-offered");
    assert_eq!(counted(&census(&stage, &[]), FOUND), [1, 0, 0, 1]);
    assert!(!stage.is_told("bob@plain.test"));
    stage.run("postsuper", Instance::Encrypt, &["-H", &queue_id]);
    stage.becomes(&queue_id, "bob@plain.test", "open");
    assert_eq!(stage.case(&queue_id)["state"], "open");
    stage.hears_of("bob@plain.test");
}

#[test]
fn two_censuses_at_once_find_everything_once() {
    let stage = Stage::with(|options| {
        lost_notices(options)
            .main_cf(Instance::Encrypt, "in_flow_delay", "0")
            .mx_dialogue(false)
    });
    let count = 120;
    for n in 0..count {
        let to = format!("user{n}@plain.test");
        let subject = format!("m{n}");
        let message = format!("Subject: {subject}\r\n\r\nx\r\n");
        let sent = stage
            .sandbox
            .submit("alice@sender.test", &[&to], message.as_bytes());
        sent.unwrap_or_else(|error| panic!("{error}"));
    }
    stage.wait("all to be deferred", || {
        let queues = stage.sandbox.queue(Instance::Encrypt);
        let busy = queues["incoming"].len() + queues["active"].len();
        (queues["deferred"].len() == count && busy == 0).then_some(())
    });
    let both = std::thread::scope(|scope| {
        let one = || scope.spawn(|| census(&stage, &[]));
        [one(), one()].map(|running| running.join().expect("a census"))
    });
    for name in ["opened", "recipients"] {
        let sum: u64 = both
            .iter()
            .map(|counts| counts[name].as_u64().expect("a count"))
            .sum();
        assert_eq!(sum, count as u64, "{name}: {both:?}");
    }
    assert_eq!(stage.store().cases(None).expect("cases").len(), count);
    let third = census(&stage, &[]);
    assert_eq!(counted(&third, FOUND), [count as u64, 0, 0, count as u64]);
}

#[test]
fn a_message_with_very_many_recipients_is_read_in_bounded_memory() {
    let stage = Stage::with(|options| lost_notices(options).mx_dialogue(false));
    let to: Vec<String> = (0..20_000).map(|n| format!("user{n}@plain.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let queue_id = lost(&stage, "alice@sender.test", &to, "many");
    let command = |program: &Path| {
        let mut limited = Command::new("prlimit");
        // More for its data, and it would be killed.
        limited.arg("--data=100663296").arg(program);
        limited.arg("--config").arg(stage.sandbox.config_file());
        limited.args(["census", "--json"]).stdin(Stdio::null());
        limited.output().expect("prlimit")
    };
    let output = command(&stage.sandbox.program("posttls"));
    assert!(output.status.success(), "{output:?}");
    let counts: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(counted(&counts, FOUND), [1, 1, 20_000, 0], "{counts}");
    assert_eq!(stage.case(&queue_id)["state"], "open");
}

#[test]
fn a_terminal_shows_how_far_it_is_and_nothing_else_does() {
    let stage = Stage::with(lost_notices);
    lost(&stage, "alice@sender.test", &["bob@plain.test"], "shown");
    let words = [
        stage.sandbox.program("posttls").display().to_string(),
        "--config".to_owned(),
        stage.sandbox.config_file().display().to_string(),
        "census".to_owned(),
    ];
    // script(1) gives its command a terminal.
    let output = Command::new("script")
        .args([
            "--quiet",
            "--return",
            "--command",
            &words.join(" "),
            "/dev/null",
        ])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .expect("script");
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains(" messages ("), "{shown}");
    assert!(
        shown.contains("1      new cases") || shown.contains("new cases"),
        "{shown}"
    );
    let plain = stage.posttls(&["census"]);
    assert!(plain.stderr.is_empty(), "{plain:?}");
    let table = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert!(table.contains("        1      known already\n"), "{table}");
}
