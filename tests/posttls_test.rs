//! `posttls test`: what it says of senders, recipients and failures, and that it changes nothing.

mod common;

use common::Stage;

#[test]
fn test_says_what_would_be_done_and_why_and_changes_nothing() {
    let stage = Stage::with(|options| options.httpd(false));
    stage.configure(
        "senders",
        "internal",
        "[\".corp.test\", \"alice@sender.test\"]",
    );
    stage.configure("senders", "null", "\"delete\"");
    let ask = |sender: &str, recipient: &str, failure: &str| {
        let found = stage.json(&[
            "test",
            recipient,
            "--sender",
            sender,
            "--failure",
            failure,
            "--json",
        ]);
        let text = |key: &str| found[0][key].as_str().unwrap_or_default().to_owned();
        let choices = found[0]["choices"].as_array().expect("choices").len();
        (text("asked"), text("action"), choices, text("why"))
    };
    let entry = |sender: &str, entry: &str| {
        format!("<{sender}> is in senders.internal ({entry:?}); not-offered is in offer.failures")
    };
    let to = "bob@sub.bank.test";
    // What is said depends on where Postfix would take it.
    stage.add_domain("sub.bank.test", "plain.test");
    for (sender, failure, asked, action, choices, why) in [
        (
            "alice@sender.test",
            "not-offered",
            "sender",
            "",
            3,
            entry("alice@sender.test", "alice@sender.test"),
        ),
        (
            "x@it.corp.test",
            "not-offered",
            "sender",
            "",
            3,
            entry("x@it.corp.test", ".corp.test"),
        ),
        (
            "alice@sender.test",
            "certificate",
            "sender",
            "",
            2,
            "certificate is not in offer.failures".to_owned(),
        ),
        (
            "alice@sender.test",
            "require-tls",
            "sender",
            "",
            2,
            "require-tls is never answered with plain text".to_owned(),
        ),
        (
            "alice@sender.test",
            "local-fault",
            "nobody",
            "",
            0,
            "the fault is on our side, and no sender can answer that".to_owned(),
        ),
        (
            "x@corp.test",
            "not-offered",
            "nobody",
            "keep",
            3,
            "<x@corp.test> is not in senders.internal: senders.external = \"keep\"".to_owned(),
        ),
        (
            "<>",
            "not-offered",
            "nobody",
            "delete",
            0,
            "mail of the null sender: senders.null = \"delete\"".to_owned(),
        ),
    ] {
        let expected = (asked.to_owned(), action.to_owned(), choices, why);
        assert_eq!(ask(sender, to, failure), expected, "{sender} {failure}");
    }
    let domain = "bank.test".parse().expect("a domain");
    stage
        .store()
        .add_mandatory(&domain, "root")
        .expect("a store");
    let (_, action, _, why) = ask("alice@sender.test", to, "not-offered");
    assert_eq!(
        (action.as_str(), why.as_str()),
        (
            "delete",
            "bank.test is a mandatory domain (`posttls mandatory list`)"
        )
    );

    // Every kind, for a sender who is asked.
    let shown = stage.said(&["test", "bob@plain.test"]);
    assert!(
        shown.starts_with("from=<somebody@sub.corp.test>, to=<bob@plain.test>\n"),
        "{shown}"
    );
    assert_eq!(shown.lines().count(), 1 + 2 * 9, "{shown}");
    assert!(
        shown.contains(
            "not-offered       the sender is asked, and may choose: send, delete, keep\n"
        ),
        "{shown}"
    );
    assert_eq!(stage.said(&["cases", "--all", "--json"]).trim(), "[]");
    let wrong = stage.posttls(&["test", "bob@plain.test", "--failure", "rain"]);
    assert_eq!(wrong.status.code(), Some(64));
}
