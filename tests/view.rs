//! What the admin sees: `posttls log`, `stats`, `resolve`, on a sandbox with real decisions.

mod common;

use std::fs;

use common::Stage;
use serde_json::Value;

/// The log as objects, one a line.
fn log(stage: &Stage, arguments: &[&str]) -> Vec<Value> {
    stage
        .said(&[&["log", "--json"], arguments].concat())
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn recipients(lines: &[Value]) -> Vec<&str> {
    let each = lines
        .iter()
        .map(|line| line["recipient"].as_str().expect("text"));
    each.collect()
}

#[test]
fn log_and_stats_tell_what_was_decided_and_what_came_of_it() {
    let stage = Stage::new();
    assert_eq!(stage.said(&["log"]), "");
    assert_eq!(
        stage.said(&["stats"]),
        "Nothing has failed for TLS in that time.\n"
    );

    let (first, link) = stage.stuck(&["bob@plain.test", "eve@plain.test"], "first");
    stage.post(&link, "action=send&recipient=bob@plain.test");
    stage.arrival("bob@plain.test");
    stage.post(&link, "action=keep&recipient=eve@plain.test");
    let (second, _) = stage.stuck(&["ann@refuse.test"], "second");
    let deleted = stage.posttls(&["delete", &second]);
    assert!(deleted.status.success(), "{deleted:?}");

    let all = log(&stage, &[]);
    assert_eq!(
        recipients(&all),
        ["bob@plain.test", "eve@plain.test", "ann@refuse.test"]
    );
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let story: Vec<_> = all
        .iter()
        .map(|line| ["queue_id", "action", "actor", "client", "failure"].map(|key| text(line, key)))
        .collect();
    assert_eq!(
        story[0],
        [first.as_str(), "send", "link", "127.0.0.1", "not-offered"]
    );
    assert_eq!(
        story[1],
        [first.as_str(), "keep", "link", "127.0.0.1", "not-offered"]
    );
    assert_eq!(story[2][..3], [second.as_str(), "delete", "admin"]);
    assert!(
        !story[2][3].is_empty() && story[2][4] == "refused",
        "{story:?}"
    );
    stage.wait("the delete to be carried out", || {
        (log(&stage, &["--queue-id", &second])[0]["state"] == "deleted").then_some(())
    });
    assert_eq!(all[0]["state"], "released");

    // Filters, alone and together.
    for (filter, expected) in [
        (&["--queue-id", &second][..], &["ann@refuse.test"][..]),
        (
            &["--sender", "<ALICE@sender.test>"],
            &["bob@plain.test", "eve@plain.test", "ann@refuse.test"],
        ),
        (&["--sender", "<>"], &[]),
        (&["--recipient", "eve@plain.test"], &["eve@plain.test"]),
        (
            &["--domain", "plain.test"],
            &["bob@plain.test", "eve@plain.test"],
        ),
        (&["--domain", "test", "--limit", "1"], &["ann@refuse.test"]),
        (&["--domain", "lain.test"], &[]),
        (
            &["--since", "1h", "--limit", "2"],
            &["eve@plain.test", "ann@refuse.test"],
        ),
        (&["--until", "1h"], &[]),
        (&["--since", "2999-01-01"], &[]),
    ] {
        assert_eq!(recipients(&log(&stage, filter)), expected, "{filter:?}");
    }
    let shown = stage.said(&["log", "--recipient", "bob@plain.test"]);
    assert!(
        shown.contains(&format!("{first}  from=<alice@sender.test>  to=<bob@plain.test>  not-offered  send by link 127.0.0.1  now released")),
        "{shown}"
    );
    let wrong = stage.posttls(&["log", "--since", "yesterday"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("how long ago (90m, 2h, 3d, 1w)"));

    let stats = stage.json(&["stats", "--json"]);
    let domains: Vec<_> = stats["domains"]
        .as_array()
        .expect("domains")
        .iter()
        .map(|domain| {
            (
                domain["domain"].as_str(),
                domain["messages"].as_i64(),
                domain["recipients"].as_i64(),
            )
        })
        .collect();
    assert_eq!(
        domains,
        [
            (Some("plain.test"), Some(1), Some(2)),
            (Some("refuse.test"), Some(1), Some(1))
        ]
    );
    assert_eq!(
        stats["domains"][1]["failures"],
        serde_json::json!({"refused": 1})
    );
    let sum = |key: &str| {
        let days = stats["days"].as_object().expect("days").values();
        days.map(|day| day[key].as_i64().expect("a number"))
            .sum::<i64>()
    };
    assert_eq!(
        ["cases", "sent", "kept", "deleted", "by_admin"].map(sum),
        [2, 1, 1, 0, 1]
    );
    assert_eq!(stats["time_to_decide"]["recipients"], 2);
    let picture = stage.dir().join("picture.svg");
    let shown = stage.said(&["stats", "--plot", picture.to_str().expect("a path")]);
    for part in [
        "plain.test",
        "not-offered 2",
        "By day",
        "median",
        "released",
        "deleted",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let picture = fs::read_to_string(picture).expect("a picture");
    assert!(picture.starts_with("<svg") && picture.contains("refuse.test"));
    assert!(
        stage
            .said(&["stats", "--since", "2999-01-01"])
            .starts_with("Nothing")
    );
}

#[test]
fn counts_are_the_same_after_addresses_were_removed() {
    let stage = Stage::new();
    let (id, link) = stage.stuck(&["bob@plain.test"], "short");
    stage.post(&link, "action=send");
    stage.wait("the end of the case", || {
        (stage.case(&id)["state"] == "closed").then_some(())
    });
    let before = stage.json(&["stats", "--json"]);
    assert_eq!(before["recipients"], 1);
    let store = rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a store");
    store
        .execute_batch(
            "UPDATE cases SET sender = '', subject = '', redacted_at = 1;
             UPDATE recipients SET address = 'removed-' || id, detail = ''; UPDATE decisions SET client = '';",
        )
        .expect("no addresses");
    let mut after = stage.json(&["stats", "--json"]);
    // What the may instance did may have become known meanwhile.
    after["outcomes"] = before["outcomes"].clone();
    assert_eq!(after, before);
    let line = stage.said(&["log"]);
    assert!(
        line.contains("from=<removed>  to=<removed@plain.test>"),
        "{line}"
    );
    assert_eq!(log(&stage, &["--domain", "plain.test"]).len(), 1);
    assert!(log(&stage, &["--sender", "<>"]).is_empty());
}

#[test]
fn a_stopped_move_is_shown_and_settled() {
    let stage = Stage::new();
    let (id, _) = stage.stuck(&["bob@plain.test"], "stopped");
    assert_eq!(
        stage.said(&["resolve", &id]),
        format!("{id}: no move is stopped.\n")
    );
    // As the mover leaves it when somebody has changed one of the two messages by hand.
    let store = rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a store");
    store
        .execute_batch(
            "UPDATE recipients SET state = 'releasing';
             INSERT INTO moves (id, case_id, step, begun_at, changed_at) SELECT 5, id, 'conflict', 0, 0 FROM cases;
             INSERT INTO move_recipients (move_id, recipient_id, action) SELECT 5, id, 'send' FROM recipients;",
        )
        .expect("a stopped move");
    let shown = stage.said(&["resolve", &id]);
    for part in [
        "move 5 is stopped",
        "to=<bob@plain.test>: send",
        ": in deferred, for <bob@plain.test>",
        "no copy was made",
        "--settled",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(stage.case(&id)["state"], "open");
    assert!(
        stage
            .said(&["case", &id])
            .contains(&format!("posttls resolve {id}"))
    );
    stage.said(&["resolve", &id, "--settled"]);
    let case = stage.case(&id);
    assert_eq!(
        (&case["state"], &case["recipients"][0]["state"]),
        (&"closed".into(), &"gone".into())
    );
    let events = case["events"].as_array().expect("events");
    assert!(
        events.iter().any(|event| event["what"] == "resolved"),
        "{events:?}"
    );
    assert_eq!(
        stage.said(&["resolve", &id]),
        format!("{id}: no move is stopped.\n")
    );
    assert!(
        stage
            .said(&["cases", "--all"])
            .contains("closed (gone), notified")
    );
    assert_eq!(
        stage.posttls(&["resolve", "4ABCDEF"]).status.code(),
        Some(66)
    );
}
