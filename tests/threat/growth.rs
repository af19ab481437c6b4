//! Somebody with a link who repeats what it can do as often as it goes: store and log do not grow with it.

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use posttls::case::ConsentId;

use crate::common::{Stage, request};

const ALICE: &str = "alice@sender.test";
/// Recipients of the message, and requests of each kind.
const RECIPIENTS: usize = 60;
const ROUNDS: usize = 60;

/// Rows by table, and octets of store and log.
struct Size {
    rows: BTreeMap<String, i64>,
    store: u64,
    log: u64,
}

fn size(stage: &Stage) -> Size {
    let path = stage.config().store.path;
    let store = rusqlite::Connection::open(&path).expect("a store");
    let mut names = store
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        .expect("tables");
    let names: Vec<String> = names
        .query_map([], |row| row.get(0))
        .and_then(Iterator::collect)
        .expect("names");
    let count = |name: &String| -> i64 {
        let sql = format!("SELECT count(*) FROM {name}");
        store
            .query_row(&sql, [], |row| row.get(0))
            .expect("a count")
    };
    let octets = |suffix: &str| {
        let file = format!("{}{suffix}", path.display());
        fs::metadata(file).map_or(0, |found| found.len())
    };
    Size {
        rows: names
            .iter()
            .map(|name| (name.clone(), count(name)))
            .collect(),
        store: octets("") + octets("-wal"),
        log: stage.log().len() as u64,
    }
}

#[test]
fn what_a_link_can_do_again_and_again_grows_nothing() {
    let stage = Stage::new();
    stage.configure("remember", "days", "30");
    stage.restart();
    let to: Vec<String> = (0..RECIPIENTS)
        .map(|n| format!("r{n}@plain.test"))
        .collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let queue_id = stage.stuck_from(ALICE, &to, "many");
    let other = stage.stuck_from(ALICE, &["bob@plain.test", "eve@refuse.test"], "remembered");
    let link = stage.case_link(&queue_id);
    let second = stage.case_link(&other);
    let all = stage.sender_link(ALICE);
    // What stands from now on: one recipient sent to by a choice that was remembered and revoked, the others kept.
    let remembering = "action=send&recipient=bob%40plain.test&remember=recipient&remember-days=30";
    assert_eq!(stage.post(&second, remembering).status, 200);
    let consents = stage.store().consents(true).expect("consents");
    let consent: ConsentId = consents.first().expect("a consent").id;
    let consent = stage.consent_link(consent);
    assert_eq!(stage.post(&consent, "action=revoke").status, 200);
    assert_eq!(stage.post(&link, "action=keep").status, 200);
    assert_eq!(stage.post(&second, "action=keep").status, 200);
    stage.becomes(&other, "bob@plain.test", "released");
    stage.arrival("bob@plain.test");
    stage.wait("the end of its way", || {
        let case = stage.case(&other).to_string();
        case.contains("sent-clear").then_some(())
    });

    let number = stage.number(&other, "bob@plain.test");
    let case = stage.known(&queue_id).id;
    let each = |prefix: &str| -> String {
        let numbers = to.iter().map(|to| stage.number(&queue_id, to).to_string());
        let fields = numbers.map(|n| format!("choice-{prefix}{n}=keep"));
        fields.collect::<Vec<_>>().join("&")
    };
    let seen = i64::MAX;
    let forms = [
        (&link, "action=keep".to_owned()),
        (&link, "action=keep&recipient=r7%40plain.test".to_owned()),
        (&link, each("")),
        (&second, "action=keep".to_owned()),
        (&second, format!("choice-{number}=delete")),
        (&second, remembering.to_owned()),
        (&all, format!("action=keep&seen={seen}")),
        (&all, format!("action=keep&domain=plain.test&seen={seen}")),
        (&all, each(&format!("{case}-"))),
        (&consent, "action=revoke".to_owned()),
        // What is refused, and what is only looked at.
        (
            &second,
            "action=send&recipient=nobody%40plain.test".to_owned(),
        ),
        (
            &second,
            "action=send&remember=domain&remember-days=31".to_owned(),
        ),
        (&link, String::new()),
    ];
    let before = size(&stage);
    thread::scope(|scope| {
        for (url, form) in &forms {
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let status = request("POST", url, form).status;
                    assert!([200, 400].contains(&status), "{status}: {form}");
                    assert_eq!(request("GET", url, "").status, 200);
                }
            });
        }
    });
    let after = size(&stage);
    println!(
        "{} requests: store {} -> {} octets, log {} -> {}",
        forms.len() * ROUNDS * 2,
        before.store,
        after.store,
        before.log,
        after.log
    );
    for table in [
        "events",
        "decisions",
        "moves",
        "move_recipients",
        "consents",
    ] {
        let rows = |size: &Size| *size.rows.get(table).unwrap_or_else(|| panic!("{table}"));
        assert_eq!(rows(&before), rows(&after), "{table}");
    }
    // The mover's own rounds may leave a trace.
    let rows = |size: &Size| size.rows.values().sum::<i64>();
    assert!(rows(&after) - rows(&before) < 5, "{:?}", after.rows);
    assert!(after.store.saturating_sub(before.store) < 100_000);
    let log = stage.log();
    let said = &log[usize::try_from(before.log).expect("a size")..];
    assert!(said.len() < 4_000 && !said.contains("decision"), "{said}");
}
