//! Recipients that the sender never wrote, and those that an alias made of what the sender wrote, on real Postfix.

mod common;

use common::Stage;
use posttls::sandbox::{Instance, UpOptions};
use serde_json::{Value, json};

const ALIASES: &str = "inline:{ {team@alias.test = bob@plain.test, ann@plain.test}, \
                       {copies@alias.test = store@plain.test} }";
/// Nobody looks by itself.
const BY_HAND: &str = "[sweep]\nseconds = 1\ncensus_minutes = 0\n";

fn aliases(options: UpOptions) -> UpOptions {
    options
        .posttls_toml(BY_HAND)
        .main_cf(Instance::Encrypt, "virtual_alias_maps", ALIASES)
}

fn recipient(stage: &Stage, queue_id: &str, address: &str) -> Value {
    let case = stage.case(queue_id);
    let all = case["recipients"].as_array().expect("recipients");
    let found = all.iter().find(|one| one["address"] == address);
    found
        .unwrap_or_else(|| panic!("no {address} in {case}"))
        .clone()
}

fn written(stage: &Stage, queue_id: &str, address: &str) -> Value {
    recipient(stage, queue_id, address)["written"].clone()
}

fn alerts(stage: &Stage) -> Vec<String> {
    let store = rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a store");
    let mut causes = store
        .prepare("SELECT cause FROM alerts ORDER BY cause")
        .expect("a query");
    causes
        .query_map([], |row| row.get(0))
        .expect("alerts")
        .collect::<Result<_, _>>()
        .expect("alerts")
}

const ALERT: &str = "stuck mail to recipients that its sender never wrote";

#[test]
fn what_the_sender_never_wrote_is_the_admins_matter_and_an_alias_is_shown_as_written() {
    let stage = Stage::with(|options| {
        aliases(options).main_cf(Instance::Encrypt, "always_bcc", "archive@plain.test")
    });
    let to = ["team@alias.test", "carol@plain.test"];
    let (queue_id, link) = stage.stuck(&to, "copied");
    let states = stage.states(&queue_id);
    let expected = [
        ("ann@plain.test", "open"),
        ("archive@plain.test", "kept"),
        ("bob@plain.test", "open"),
        ("carol@plain.test", "open"),
    ];
    assert!(
        states
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .eq(expected)
    );
    assert_eq!(
        written(&stage, &queue_id, "bob@plain.test"),
        json!({"other": "team@alias.test"})
    );
    assert_eq!(written(&stage, &queue_id, "carol@plain.test"), "same");
    assert_eq!(written(&stage, &queue_id, "archive@plain.test"), "never");
    assert_eq!(alerts(&stage), [ALERT]);
    let said = stage.said(&["case", &queue_id]);
    assert!(
        said.contains("to=<archive@plain.test> (not written by the sender"),
        "{said}"
    );
    assert!(
        said.contains("to=<bob@plain.test> (written: <team@alias.test>)"),
        "{said}"
    );

    let page = stage.get(&link).body;
    let inbox = stage.sender_link("alice@sender.test");
    let overview = stage.get(&inbox).body;
    let mails: Vec<String> = stage.mails().into_iter().map(|mail| mail.text).collect();
    for shown in mails.iter().chain([&page, &overview]) {
        assert!(!shown.contains("archive"), "{shown}");
        for name in [
            "team@alias.test \u{2192} ann@plain.test",
            "team@alias.test \u{2192} bob@plain.test",
            "carol@plain.test",
        ] {
            assert!(shown.contains(name), "{name} in {shown}");
        }
    }
    assert!(overview.contains("<dd>3</dd>"), "{overview}");

    // Nothing that the sender says is about it, by whatever name.
    let number = recipient(&stage, &queue_id, "archive@plain.test")["number"].clone();
    for form in [
        "action=send&recipient=archive%40plain.test".to_owned(),
        format!("choice-{number}=send"),
    ] {
        let answer = stage.post(&link, &form);
        assert!((400..500).contains(&answer.status), "{}", answer.status);
    }
    let bulk = "action=delete&domain=plain.test&seen=9999999999999";
    assert_eq!(stage.post(&inbox, bulk).status, 200);
    stage.wait("the deletion", || {
        (stage.states(&queue_id)["bob@plain.test"] == "deleted").then_some(())
    });
    assert_eq!(stage.post(&link, "action=send").status, 200);
    assert_eq!(stage.states(&queue_id)["archive@plain.test"], "kept");
    assert_eq!(stage.pending(&queue_id), ["archive@plain.test"]);
    assert!(!stage.get(&link).body.contains("archive"));
    assert!(!stage.get(&inbox).body.contains("copied"));

    // The admin decides, and the sender hears nothing of what comes of it.
    stage.said(&["release", &queue_id, "--recipient", "archive@plain.test"]);
    stage.arrival("archive@plain.test");
    stage.queues_are_empty();
    assert_eq!(stage.attempts("bob@plain.test"), 0);
    assert!(!stage.is_told("archive@plain.test"));
    stage.has_mails(1);
}

#[test]
fn nobody_is_told_where_only_copies_are_stuck() {
    let stage = Stage::with(|options| {
        aliases(options)
            .main_cf(
                Instance::Encrypt,
                "recipient_bcc_maps",
                "inline:{bob@tls.test=copies@alias.test}",
            )
            .main_cf(Instance::Encrypt, "enable_original_recipient", "no")
    });
    let queue_id = stage.stuck_from("alice@sender.test", &["bob@tls.test"], "only copies");
    stage.arrival("bob@tls.test");
    stage.logged(&format!(
        "{queue_id}: from=<alice@sender.test>, nothing to ask yet, watched"
    ));
    assert_eq!(written(&stage, &queue_id, "store@plain.test"), "never");
    assert_eq!(stage.case(&queue_id)["asked"], "nobody");
    assert_eq!(alerts(&stage), [ALERT]);
    // What a sender may lose by the list is deleted; of this the sender would not even hear.
    stage.said(&["mandatory", "add", "plain.test"]);
    assert_eq!(stage.states(&queue_id)["store@plain.test"], "kept");
    assert_eq!(stage.pending(&queue_id), ["store@plain.test"]);
    assert!(!stage.is_told("store@plain.test"));
    assert!(stage.sandbox.inbox().is_empty());
    stage.said(&["delete", &queue_id]);
    stage.queues_are_empty();
    assert!(!stage.is_told("store@plain.test"));
}

#[test]
fn sweep_and_census_see_the_same_as_the_hook() {
    // The written recipient fails for TLS only later, and of the second message there is no notice.
    let stage = Stage::with(|options| {
        aliases(options).main_cf(Instance::Encrypt, "always_bcc", "copies@alias.test")
    });
    let expected = |queue_id: &str| {
        assert_eq!(written(&stage, queue_id, "store@plain.test"), "never");
        assert_eq!(stage.states(queue_id)["store@plain.test"], "kept");
    };
    let swept = stage.stuck_from("alice@sender.test", &["bob@down.test"], "swept");
    expected(&swept);
    assert_eq!(written(&stage, &swept, "bob@down.test"), "same");
    assert!(stage.sandbox.inbox().is_empty());
    stage.watched(&swept);
    stage.route("down.test", "plain.test");
    stage.flush(&swept);
    let mail = stage.notification(&swept);
    assert!(mail.contains("bob@down.test") && !mail.contains("store"));
    expected(&swept);
    assert_eq!(stage.states(&swept)["bob@down.test"], "open");
    let first = recipient(&stage, &swept, "store@plain.test");

    // As if there had been no notice: what the census finds is the same.
    stage.sandbox.stop_httpd();
    for table in ["owed", "recipients", "cases"] {
        let store =
            rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a store");
        store
            .execute_batch(&format!(
                "PRAGMA foreign_keys = OFF; DELETE FROM {table}; DELETE FROM decisions;"
            ))
            .expect("no case");
    }
    stage.said(&["census"]);
    expected(&swept);
    let second = recipient(&stage, &swept, "store@plain.test");
    assert_eq!(
        (&first["failure"], &first["state"]),
        (&second["failure"], &second["state"])
    );
    assert_eq!(stage.case(&swept)["source"], "census");
    assert_eq!(written(&stage, &swept, "bob@down.test"), "same");
    assert_eq!(stage.states(&swept)["bob@down.test"], "open");

    let team = Stage::with(|options| aliases(options).hook("/bin/true"));
    let message = b"From: alice@sender.test\r\nSubject: lost\r\n\r\nbody\r\n";
    let sent = team
        .sandbox
        .submit("alice@sender.test", &["team@alias.test"], message);
    let lost = sent.unwrap_or_else(|error| panic!("{error}"));
    team.in_queue(&lost, "deferred");
    team.said(&["census"]);
    for address in ["ann@plain.test", "bob@plain.test"] {
        assert_eq!(
            written(&team, &lost, address),
            json!({"other": "team@alias.test"})
        );
    }
}
