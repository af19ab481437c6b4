//! What the sweep sees: failures for TLS that come late, recipients that join a case, and cases that come to their end.

mod common;

use common::{Stage, came_over_tls};
use posttls::sandbox::Instance;
use rustix::process::Signal;
use serde_json::Value;

/// A sandbox whose sweep looks every second.
fn stage() -> Stage {
    Stage::with(|options| options.posttls_toml("[sweep]\nseconds = 1\ncensus_minutes = 0\n"))
}

/// A message of which no recipient has failed for TLS yet.
fn watched(stage: &Stage, to: &[&str], subject: &str) -> String {
    let queue_id = stage.send(to, subject);
    stage.wait(&format!("a watched case of {queue_id}"), || {
        let output = stage.posttls(&["cases", "--state", "watched", "--json"]);
        let cases: Value = serde_json::from_slice(&output.stdout).ok()?;
        let known = |case: &Value| case["queue_id"] == queue_id.as_str();
        cases.as_array()?.iter().any(known).then_some(())
    });
    stage.in_queue(&queue_id, "deferred");
    queue_id
}

/// The server of `domain` becomes one like that of `like`, and the message is tried again. Only when it is watched, which
/// takes a quarter of a second: how it leaves before that is not known.
fn tried_again(stage: &Stage, queue_id: &str, domain: &str, like: &str) {
    stage.watched(queue_id);
    stage.route(domain, like);
    stage.flush(queue_id);
}

fn recipient(case: &Value, address: &str) -> Value {
    let all = case["recipients"].as_array().expect("recipients");
    let found = all.iter().find(|one| one["address"] == address);
    found
        .unwrap_or_else(|| panic!("no {address} in {case}"))
        .clone()
}

fn events(case: &Value, what: &str) -> usize {
    let all = case["events"].as_array().expect("events");
    all.iter().filter(|event| event["what"] == what).count()
}

#[test]
fn a_refused_connection_that_turns_into_a_server_without_tls_is_the_sender_s_matter() {
    let stage = stage();
    let queue_id = watched(&stage, &["bob@down.test"], "late");
    let before = recipient(&stage.case(&queue_id), "bob@down.test");
    assert_eq!(
        (&before["failure"], &before["state"]),
        (&"not-tls".into(), &"not-offered".into())
    );
    assert!(stage.sandbox.inbox().is_empty());

    tried_again(&stage, &queue_id, "down.test", "plain.test");
    stage.becomes(&queue_id, "bob@down.test", "open");
    let case = stage.case(&queue_id);
    let bob = recipient(&case, "bob@down.test");
    assert_eq!(case["state"], "open", "{case}");
    assert_eq!(bob["failure"], "not-offered", "{case}");
    assert_eq!(bob["status"], "4.7.801", "{case}");
    assert_eq!(bob["may_send"], true, "{case}");
    assert_eq!(events(&case, "stuck"), 1, "{case}");
    assert!(stage.log().contains("source=sweep"), "{}", stage.log());

    stage.hears_of("bob@down.test");

    // Another attempt fails alike, and another sweep has passed when a second message's case has ended.
    let (other, _) = stage.stuck(&["eve@refuse.test"], "other");
    stage.in_queue(&other, "deferred");
    stage.flush(&queue_id);
    stage.in_queue(&queue_id, "deferred");
    stage.run("postsuper", Instance::Encrypt, &["-d", &other]);
    stage.wait("a sweep", || {
        (stage.case(&other)["state"] == "closed").then_some(())
    });
    assert_eq!(events(&stage.case(&queue_id), "stuck"), 1);
    assert_eq!(stage.log().matches("source=sweep").count(), 1);
    // The may instance goes where the server now is.
    let transport = stage
        .sandbox
        .config_dir(Instance::Encrypt)
        .join("transport");
    let there = stage.sandbox.config_dir(Instance::May).join("transport");
    std::fs::copy(transport, there).expect("a transport table");
    stage.reload(Instance::May);
    let output = stage.posttls(&["release", &queue_id]);
    assert!(output.status.success(), "{output:?}");
    assert!(!came_over_tls(&stage.arrival("bob@down.test")));
    stage.closed(&queue_id, "released");
}

#[test]
fn a_recipient_that_is_stuck_later_joins_the_case_of_its_message() {
    let stage = stage();
    let to = ["bob@plain.test", "eve@down.test"];
    let (queue_id, _) = stage.stuck(&to, "joins");
    assert_eq!(stage.states(&queue_id)["eve@down.test"], "not-offered");
    stage.in_queue(&queue_id, "deferred");
    tried_again(&stage, &queue_id, "down.test", "refuse.test");
    stage.becomes(&queue_id, "eve@down.test", "open");
    let case = stage.case(&queue_id);
    assert_eq!(recipient(&case, "eve@down.test")["failure"], "refused");
    // Bob was told of; nothing about him is new.
    assert_eq!(recipient(&case, "bob@plain.test")["failure"], "not-offered");
    assert_eq!(events(&case, "stuck"), 1, "{case}");
    let store = stage.store();
    assert_eq!(store.cases(None).expect("cases").len(), 1);
}

#[test]
fn a_case_is_watched_while_a_recipient_waits_that_is_not_stuck_for_tls() {
    let stage = stage();
    let to = ["bob@plain.test", "eve@down.test"];
    let (queue_id, link) = stage.stuck(&to, "decided");
    let form = "action=send&recipient=bob%40plain.test";
    assert_eq!(stage.post(&link, form).status, 200);
    stage.arrival("bob@plain.test");
    stage.becomes(&queue_id, "bob@plain.test", "released");
    assert_eq!(stage.case(&queue_id)["state"], "watched");
    stage.in_queue(&queue_id, "deferred");
    // Its last recipient is delivered over TLS, and the message leaves the queue.
    tried_again(&stage, &queue_id, "down.test", "tls.test");
    assert!(came_over_tls(&stage.arrival("eve@down.test")));
    stage.closed(&queue_id, "mixed");
    assert_eq!(events(&stage.case(&queue_id), "closed"), 1);
    assert_eq!(to.map(|recipient| stage.attempts(recipient)), [1, 1]);
}

#[test]
fn a_watched_recipient_that_is_stuck_after_the_others_are_decided_opens_the_case_again() {
    let stage = stage();
    let (queue_id, link) = stage.stuck(&["bob@plain.test", "eve@down.test"], "reopened");
    assert_eq!(stage.post(&link, "action=delete").status, 200);
    stage.becomes(&queue_id, "bob@plain.test", "deleted");
    assert_eq!(stage.case(&queue_id)["state"], "watched");
    stage.in_queue(&queue_id, "deferred");
    tried_again(&stage, &queue_id, "down.test", "plain.test");
    stage.becomes(&queue_id, "eve@down.test", "open");
    assert_eq!(stage.case(&queue_id)["state"], "open");
    assert_eq!(stage.post(&link, "action=delete").status, 200);
    stage.closed(&queue_id, "deleted");
    stage.queues_are_empty();
}

#[test]
fn who_was_delivered_while_others_wait_is_known() {
    let stage = stage();
    let to = ["bob@plain.test", "eve@down.test"];
    let (queue_id, _) = stage.stuck(&to, "others");
    stage.in_queue(&queue_id, "deferred");
    tried_again(&stage, &queue_id, "down.test", "tls.test");
    stage.becomes(&queue_id, "eve@down.test", "delivered");
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
    assert_eq!(stage.case(&queue_id)["state"], "open");
    assert_eq!(stage.pending(&queue_id), ["bob@plain.test"]);
    assert_eq!(stage.arrivals("eve@down.test").len(), 1);
}

#[test]
fn who_was_refused_for_good_is_not_taken_for_delivered_while_the_attempt_lasts() {
    let stage = stage();
    let to = ["bob@slowplain.test", "busy@tls.test"];
    let (queue_id, _) = stage.stuck(&to, "refused");
    stage.in_queue(&queue_id, "deferred");
    let table = stage.sandbox.config_dir(Instance::Mx).join("recipients");
    let recipients = std::fs::read_to_string(&table).expect("a table");
    let refusing = recipients.replace(
        "busy@tls.test 450 4.2.0 mailbox busy",
        "busy@tls.test 550 5.2.1 mailbox disabled",
    );
    assert_ne!(recipients, refusing);
    std::fs::write(&table, refusing).expect("a table");
    stage.reload(Instance::Mx);
    // The server of bob learns TLS, and takes six seconds for a message.
    tried_again(&stage, &queue_id, "slowplain.test", "slow.test");
    stage.becomes(&queue_id, "busy@tls.test", "returned");
    assert!(came_over_tls(&stage.arrival("bob@slowplain.test")));
    stage.closed(&queue_id, "mixed");
}

#[test]
fn a_message_that_has_left_ends_its_case_without_a_click() {
    let stage = stage();
    let (delivered, _) = stage.stuck(&["bob@plain.test"], "delivered");
    let (removed, _) = stage.stuck(&["eve@refuse.test"], "removed");
    let other = watched(&stage, &["ann@down.test"], "never-stuck");
    for queue_id in [&delivered, &removed, &other] {
        stage.in_queue(queue_id, "deferred");
        stage.watched(queue_id);
    }
    tried_again(&stage, &delivered, "plain.test", "tls.test");
    stage.run("postsuper", Instance::Encrypt, &["-d", &removed]);
    stage.closed(&delivered, "delivered");
    stage.closed(&removed, "removed");
    assert_eq!(stage.case(&other)["state"], "watched");
    stage.run("postsuper", Instance::Encrypt, &["-d", &other]);
    stage.closed(&other, "removed");
    // Nobody is told of the end of what nobody was told of.
    assert!(!stage.is_told("ann@down.test"));
}

#[test]
fn a_message_that_outlived_its_time_was_returned() {
    let stage = Stage::with(|options| {
        options.posttls_toml("[sweep]\nseconds = 1\n").main_cf(
            Instance::Encrypt,
            "maximal_queue_lifetime",
            "6s",
        )
    });
    common::seen_in_time(|number| {
        let (queue_id, _) = stage.stuck(&["bob@plain.test"], &format!("too-late-{number}"));
        stage.in_queue(&queue_id, "deferred");
        let until = stage.case(&queue_id)["retry_until"]
            .as_i64()
            .expect("a time");
        stage.wait("the end of the message's time", || {
            (posttls::case::store::now_ms() > until * 1000).then_some(())
        });
        assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
        stage.flush(&queue_id);
        stage.wait("the end of the case", || {
            (stage.case(&queue_id)["state"] == "closed").then_some(())
        });
        let outcome = stage.states(&queue_id)["bob@plain.test"].clone();
        assert!(["returned", "gone"].contains(&&*outcome), "{outcome}");
        outcome == "returned"
    });
}

#[test]
fn a_fault_on_our_side_that_comes_late_is_told_to_the_admin_and_to_no_sender() {
    let stage = stage();
    let queue_id = watched(&stage, &["bob@down.test"], "fault");
    let broken = "smtp_tls_CAfile=/nowhere/at/all.pem";
    stage.run("postconf", Instance::Encrypt, &["-e", broken]);
    tried_again(&stage, &queue_id, "down.test", "tls.test");
    stage.logged("TLS does not work on our side");
    let bob = recipient(&stage.case(&queue_id), "bob@down.test");
    assert_eq!(
        (&bob["failure"], &bob["state"]),
        (&"local-fault".into(), &"not-offered".into())
    );
    let store = rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a store");
    // Told already, or about to be.
    let sql = "SELECT count(*) FROM alerts WHERE cause LIKE 'local fault: %'";
    let alerts: i64 = store.query_row(sql, [], |row| row.get(0)).expect("alerts");
    assert_eq!(alerts, 1);
    assert!(!stage.is_told("bob@down.test"));
    assert!(stage.sandbox.inbox().is_empty());

    // It is mended, and the server turns out to have no TLS: now it is for the sender.
    stage.run("postconf", Instance::Encrypt, &["-X", "smtp_tls_CAfile"]);
    stage.route("tls.test", "plain.test");
    let path = stage
        .sandbox
        .config_dir(Instance::Encrypt)
        .join("transport");
    let table = std::fs::read_to_string(&path).expect("a table");
    let server = |domain: &str| {
        let line = table.lines().find(|line| line.starts_with(domain));
        line.and_then(|line| line.split(' ').nth(1))
            .expect("a server")
            .to_owned()
    };
    let moved = table.replace(
        &format!("down.test {}", server("down.test ")),
        &format!("down.test {}", server("plain.test ")),
    );
    std::fs::write(&path, moved).expect("a table");
    stage.reload(Instance::Encrypt);
    stage.flush(&queue_id);
    stage.becomes(&queue_id, "bob@down.test", "open");
}

#[test]
fn a_reload_changes_how_often_the_sweep_looks() {
    let stage = Stage::with(|options| options.posttls_toml("[sweep]\nseconds = 3600\n"));
    let queue_id = watched(&stage, &["bob@down.test"], "reload");
    // Only the sweep reads that another failure has turned into one of TLS.
    tried_again(&stage, &queue_id, "down.test", "plain.test");
    stage.configure("sweep", "seconds", "1");
    stage.signal_mover(Signal::HUP);
    stage.becomes(&queue_id, "bob@down.test", "open");
}

#[test]
fn a_table_of_ours_that_cannot_be_asked_is_a_fault_on_our_side() {
    let stage = stage();
    let queue_id = watched(&stage, &["bob@down.test"], "table");
    stage.run(
        "postconf",
        Instance::Encrypt,
        &["-X", "smtp_tls_policy_maps"],
    );
    let nowhere = "smtp_tls_per_site=socketmap:unix:/nowhere/at/all:x";
    stage.run("postconf", Instance::Encrypt, &["-e", nowhere]);
    tried_again(&stage, &queue_id, "down.test", "tls.test");
    stage.logged("TLS does not work on our side: Temporary lookup error");
    let bob = recipient(&stage.case(&queue_id), "bob@down.test");
    assert_eq!(
        (&bob["failure"], &bob["status"]),
        (&"local-fault".into(), &"4.7.805".into())
    );
    assert!(!stage.is_told("bob@down.test"));
}
