//! The admin's commands on real Postfix, with the daemon running and with it stopped.

mod common;

use std::process::Output;

use common::Stage;
use posttls::sandbox::Instance;
use serde_json::Value;

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Runs the command, which must end with this code, and gives its standard output.
fn ends(stage: &Stage, code: i32, arguments: &[&str]) -> String {
    let output = stage.posttls(arguments);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}: {output:?}"
    );
    text(&output.stdout)
}

#[test]
fn cases_are_listed_and_shown() {
    let stage = Stage::new();
    assert_eq!(ends(&stage, 0, &["cases"]), "No open cases.\n");
    assert_eq!(
        json(&stage.posttls(&["cases", "--json"])),
        Value::Array(vec![])
    );
    let (first, link) = stage.stuck(&["a@plain.test", "b@refuse.test"], "first");
    let (second, _) = stage.stuck(&["c@cert.test"], "second");
    let list = json(&stage.posttls(&["cases", "--json"]));
    let ids: Vec<_> = list
        .as_array()
        .into_iter()
        .flatten()
        .map(|case| &case["queue_id"])
        .collect();
    assert_eq!(ids.len(), 2, "{list}");
    assert!(ids.contains(&&Value::from(first.clone())), "{list}");
    let shown = ends(&stage, 0, &["cases"]);
    for part in [
        &first,
        &second,
        "from=<alice@sender.test>",
        "to=<a@plain.test>  not-offered, open",
        "to=<b@refuse.test>  refused, open",
        "to=<c@cert.test>  policy, open, may not go unencrypted",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let case = stage.case(&first);
    assert_eq!(case["sender"], "alice@sender.test", "{case}");
    assert_eq!(case["subject"], "first", "{case}");
    assert_eq!(case["state"], "open", "{case}");

    assert_eq!(stage.post(&link, "action=delete").status, 200);
    let shown = ends(&stage, 0, &["case", &first]);
    assert!(shown.contains("delete by link from 127.0.0.1"), "{shown}");
    assert!(!ends(&stage, 0, &["cases"]).contains(&first));
    assert!(ends(&stage, 0, &["cases", "--state", "closed"]).contains(&first));
    assert!(ends(&stage, 0, &["cases", "--all"]).contains(&second));
}

#[test]
fn what_does_not_exist_ends_with_66() {
    let stage = Stage::new();
    let (queue_id, _) = stage.stuck(&["bob@plain.test"], "known");
    for arguments in [
        &["case", "ABCDEF12345"][..],
        &["case", "ABCDEF12345", "--json"],
        &["release", "ABCDEF12345"],
        &["delete", "ABCDEF12345"],
        &["release", &queue_id, "--recipient", "eve@plain.test"],
    ] {
        let output = stage.posttls(arguments);
        assert_eq!(output.status.code(), Some(66), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let said = text(&output.stderr);
        assert!(
            said.starts_with("posttls: ") && said.contains(arguments[1]),
            "{said}"
        );
    }
    ends(&stage, 64, &["release", "../../etc/passwd"]);
    ends(&stage, 64, &["release"]);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
}

/// Decides about four recipients in all ways.
fn decides(stage: &Stage, queue_id: &str) {
    let one = ["release", queue_id, "--recipient", "a@plain.test"];
    let said = ends(stage, 0, &one);
    assert!(
        said.contains("to=<a@plain.test>: handed to the may instance"),
        "{said}"
    );
    stage.arrival("a@plain.test");
    stage.in_queue(queue_id, "deferred");
    assert_eq!(stage.pending(queue_id).len(), 3);
    let said = ends(stage, 1, &one);
    assert!(said.contains("not done: decided before"), "{said}");

    let arguments = ["delete", queue_id, "--json", "--recipient", "b@plain.test"];
    let done = stage.posttls(&arguments);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let expected = serde_json::json!([{"recipient": "b@plain.test", "outcome": "deleted"}]);
    assert_eq!(json(&done), expected);

    let said = ends(stage, 0, &["release", queue_id]);
    assert_eq!(said.lines().count(), 2, "{said}");
    stage.arrival("c@plain.test");
    stage.arrival("d@plain.test");
    stage.queues_are_empty();
    let said = ends(stage, 1, &["release", queue_id]);
    assert!(said.contains("no recipient waits"), "{said}");
    let attempts = ["a", "b", "c", "d"].map(|name| stage.attempts(&format!("{name}@plain.test")));
    assert_eq!(attempts, [1, 0, 1, 1]);
    let case = stage.case(queue_id);
    assert_eq!(case["state"], "closed", "{case}");
    let mut events = case["events"].as_array().into_iter().flatten();
    assert!(
        events.any(|event| event["detail"]
            .as_str()
            .is_some_and(|text| text.contains("by admin"))),
        "{case}"
    );
}

const FOUR: [&str; 4] = [
    "a@plain.test",
    "b@plain.test",
    "c@plain.test",
    "d@plain.test",
];

#[test]
fn the_running_daemon_carries_out_what_an_admin_decides() {
    let stage = Stage::new();
    let (queue_id, _) = stage.stuck(&FOUR, "asked");
    decides(&stage, &queue_id);
    let log = stage.log();
    assert!(!log.contains("posttls/admin"), "{log}");
}

#[test]
fn without_the_daemon_the_command_moves_mail_itself() {
    let stage = Stage::new();
    let (queue_id, _) = stage.stuck(&FOUR, "alone");
    stage.sandbox.stop_httpd();
    decides(&stage, &queue_id);
    let log = stage.log();
    assert!(log.contains("posttls/admin"), "{log}");
    // The daemon finds nothing left to do, and that nobody holds its lock.
    stage.sandbox.start_httpd(&[]).expect("a daemon");
    assert_eq!(stage.case(&queue_id)["state"], "closed");
}

#[test]
fn what_the_command_could_only_record_the_daemon_does_when_it_starts() {
    let stage = Stage::new();
    let to = ["bob@plain.test", "eve@slowplain.test"];
    let (queue_id, _) = stage.stuck(&to, "recorded");
    stage.in_queue(&queue_id, "deferred");
    stage.sandbox.stop_httpd();
    // A delivery under way keeps the command from moving anything.
    stage.route("slowplain.test", "slow.test");
    stage.flush(&queue_id);
    stage.wait("the slow delivery to begin", || {
        (stage.attempts("eve@slowplain.test") > 0).then_some(())
    });
    let said = ends(
        &stage,
        0,
        &["release", &queue_id, "--recipient", "bob@plain.test"],
    );
    assert!(said.contains("recorded"), "{said}");
    stage.arrival("eve@slowplain.test");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "releasing");
    assert_eq!(stage.attempts("bob@plain.test"), 0);
    stage.sandbox.start_httpd(&[]).expect("a daemon");
    stage.arrival("bob@plain.test");
    stage.queues_are_empty();
    assert_eq!(to.map(|recipient| stage.attempts(recipient)), [1, 1]);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "released");
}

#[test]
fn a_release_by_command_and_a_click_at_once_release_once() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "both");
    let (clicks, commands) = std::thread::scope(|scope| {
        let clicks = scope.spawn(|| stage.post_at_once(&link, "action=send", 10));
        let commands: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| stage.posttls(&["release", &queue_id]).status.code()))
            .collect();
        let commands: Vec<_> = commands
            .into_iter()
            .map(|one| one.join().expect("a code"))
            .collect();
        (clicks.join().expect("answers"), commands)
    });
    assert!(
        clicks.iter().all(|answer| answer.status == 200),
        "{clicks:?}"
    );
    assert!(
        commands.iter().all(|code| matches!(code, Some(0 | 1))),
        "{commands:?}"
    );
    stage.arrival("bob@plain.test");
    stage.queues_are_empty();
    assert_eq!(stage.sandbox.queue(Instance::May)["hold"].len(), 0);
    assert_eq!(stage.attempts("bob@plain.test"), 1);
}
