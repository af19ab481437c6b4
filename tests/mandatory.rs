//! Domains that must be reached over TLS, on real Postfix: just their recipients are deleted, and nobody gets around it.

mod common;

use std::process::Output;

use common::{Stage, link};
use posttls::sandbox::Instance;

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// Runs the command, which must end with this code, and gives what it said.
fn ends(stage: &Stage, code: i32, arguments: &[&str]) -> String {
    let output: Output = stage.posttls(arguments);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}: {output:?}"
    );
    text(&output.stdout) + &text(&output.stderr)
}

/// The forms on the page that send something for `recipient`, by its number.
fn offers_to_send(stage: &Stage, page: &str, queue_id: &str, recipient: &str) -> bool {
    let number = stage.number(queue_id, recipient);
    let name = format!("name=\"choice-{number}\"");
    page.split("<input")
        .any(|input| input.contains(&name) && input.contains("value=\"send\""))
}

#[test]
fn just_the_recipients_in_the_domain_are_deleted() {
    let stage = Stage::new();
    let domains = [
        "bank.test",
        "eu.bank.test",
        "badbank.test",
        "bank.test.evil.test",
        "xn--mller-kva.test",
    ];
    for domain in domains {
        stage.add_domain(domain, "plain.test");
    }
    let said = ends(&stage, 0, &["mandatory", "add", "Bank.test", "MÜLLER.test"]);
    assert!(
        said.contains("xn--mller-kva.test (müller.test): listed"),
        "{said}"
    );
    let to = [
        "a@bank.test",
        "b@eu.bank.test",
        "c@badbank.test",
        "d@bank.test.evil.test",
        "e@xn--mller-kva.test",
        "f@plain.test",
        "g@tls.test",
    ];
    let queue_id = stage.send(&to, "mixed");
    let page = link(&stage.notification(&queue_id));
    for gone in [to[0], to[1], to[4]] {
        stage.becomes(&queue_id, gone, "deleted");
    }
    stage.arrival("g@tls.test");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), [to[2], to[3], to[5]]);
    for open in [to[2], to[3], to[5]] {
        assert_eq!(stage.states(&queue_id)[open], "open");
    }
    stage.logged(&format!(
        "{queue_id}: to=<a@bank.test>, decision recorded: delete, by mandatory"
    ));

    let shown = stage.get(&page).body;
    for (recipient, offered) in [
        (to[0], false),
        (to[1], false),
        (to[4], false),
        (to[5], true),
    ] {
        assert_eq!(
            offers_to_send(&stage, &shown, &queue_id, recipient),
            offered,
            "{recipient}: {shown}"
        );
    }
    // A forged form.
    for recipient in ["a%40bank.test", "b%40eu.bank.test"] {
        let form = format!("action=send&recipient={recipient}");
        assert_eq!(stage.post(&page, &form).status, 200);
    }
    let said = ends(&stage, 1, &["release", &queue_id, "--recipient", to[0]]);
    assert!(said.contains("decided before"), "{said}");
    assert_eq!(stage.post(&page, "action=send").status, 200);
    for recipient in [to[2], to[3], to[5]] {
        stage.arrival(recipient);
    }
    stage.queues_are_empty();
    assert_eq!(to.map(|one| stage.attempts(one)), [0, 0, 1, 1, 0, 1, 1]);
}

#[test]
fn listing_a_domain_ends_the_choices_that_are_open() {
    let stage = Stage::new();
    stage.add_domain("bank.test", "plain.test");
    let to = ["a@bank.test", "b@bank.test", "c@plain.test"];
    let (queue_id, page) = stage.stuck(&to, "open");
    let number = stage.number(&queue_id, to[1]);
    let kept = format!("action=keep&recipient={}", "b%40bank.test");
    assert_eq!(stage.post(&page, &kept).status, 200, "{number}");
    assert_eq!(stage.states(&queue_id)[to[1]], "kept");
    let said = ends(&stage, 0, &["mandatory", "add", "bank.test"]);
    for recipient in &to[..2] {
        let line = format!("{queue_id}: to=<{recipient}>: deleted; its sender is told");
        assert!(said.contains(&line), "{said}");
        stage.becomes(&queue_id, recipient, "deleted");
    }
    assert!(!said.contains(to[2]), "{said}");
    assert_eq!(stage.states(&queue_id)[to[2]], "open");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), [to[2]]);
    let case = ends(&stage, 0, &["case", &queue_id]);
    assert!(
        case.contains("decided <a@bank.test>: delete by mandatory from"),
        "{case}"
    );
    // Off the list again, what is decided stays; a new message is handled as any other.
    ends(&stage, 0, &["mandatory", "remove", "bank.test"]);
    assert_eq!(stage.states(&queue_id)[to[0]], "deleted");
    let (later, _) = stage.stuck(&["a@bank.test"], "later");
    assert_eq!(stage.states(&later)["a@bank.test"], "open");
    assert_eq!(stage.attempts(to[0]) + stage.attempts(to[1]), 0);
}

#[test]
fn what_was_decided_while_the_daemon_is_down_is_done_when_it_is_back() {
    let stage = Stage::new();
    stage.add_domain("bank.test", "plain.test");
    let (queue_id, _) = stage.stuck(&["a@bank.test", "c@plain.test"], "down");
    stage.sandbox.stop_httpd();
    let said = ends(&stage, 0, &["mandatory", "add", "bank.test"]);
    assert!(said.contains("when it is started"), "{said}");
    assert_eq!(stage.states(&queue_id)["a@bank.test"], "deleting");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id).len(), 2);
    stage.sandbox.start_httpd(&[]).expect("a daemon");
    stage.becomes(&queue_id, "a@bank.test", "deleted");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), ["c@plain.test"]);
}

#[test]
fn mail_of_senders_who_are_not_asked_waits_and_no_admin_can_release_it() {
    let stage = Stage::new();
    stage.add_domain("bank.test", "plain.test");
    stage.configure("senders", "internal", "[\"elsewhere.test\"]");
    let queue_id = stage.send(&["a@bank.test"], "forwarded");
    stage.wait("the case", || {
        stage
            .log()
            .contains(&format!("{queue_id}: to=<a@bank.test>"))
            .then_some(())
    });
    assert_eq!(stage.states(&queue_id)["a@bank.test"], "kept");
    let said = ends(&stage, 0, &["mandatory", "add", "test"]);
    assert!(said.contains("may not go unencrypted any more"), "{said}");
    let said = ends(&stage, 1, &["release", &queue_id]);
    assert!(
        said.contains("not done: test must be reached over TLS (`posttls mandatory list`)"),
        "{said}"
    );
    assert_eq!(stage.states(&queue_id)["a@bank.test"], "kept");
    // The next one is barred from the start, even if such mail were to be released.
    stage.configure("senders", "external", "\"release\"");
    let next = stage.send(&["a@bank.test"], "next");
    stage.wait("the next case", || {
        stage
            .log()
            .contains(&format!("{next}: to=<a@bank.test>"))
            .then_some(())
    });
    assert_eq!(stage.states(&next)["a@bank.test"], "kept");
    ends(&stage, 0, &["delete", &queue_id]);
    ends(&stage, 0, &["delete", &next]);
    stage.queues_are_empty();
    assert_eq!(stage.attempts("a@bank.test"), 0);
}

#[test]
fn a_click_at_the_same_moment_wins_or_loses_and_nothing_between() {
    let stage = Stage::new();
    stage.add_domain("bank.test", "plain.test");
    for round in 0..4 {
        let to = format!("r{round}@bank.test");
        let (queue_id, page) = stage.stuck(&[&to], &format!("race{round}"));
        stage.in_queue(&queue_id, "deferred");
        let said = std::thread::scope(|scope| {
            let click = scope.spawn(|| stage.post(&page, "action=send"));
            let said = ends(&stage, 0, &["mandatory", "add", "bank.test"]);
            assert_eq!(click.join().expect("an answer").status, 200);
            said
        });
        let state = stage.wait("an end", || {
            let state = stage.states(&queue_id)[&to].clone();
            ["released", "deleted"]
                .contains(&state.as_str())
                .then_some(state)
        });
        stage.queues_are_empty();
        let deleted = said.contains(&format!("to=<{to}>: deleted"));
        assert_eq!(state == "deleted", deleted, "{said}");
        assert_eq!(stage.attempts(&to), usize::from(!deleted));
        ends(&stage, 0, &["mandatory", "remove", "bank.test"]);
    }
    assert_eq!(stage.sandbox.queue(Instance::May)["hold"].len(), 0);
}

#[test]
fn the_list_says_who_and_when_and_forgets_nothing() {
    let stage = Stage::with(|options| options.httpd(false));
    assert_eq!(
        ends(&stage, 0, &["mandatory", "list"]),
        "No mandatory domains.\n"
    );
    let said = ends(&stage, 0, &["mandatory", "add", "bücher.test", "bank.test"]);
    assert!(
        said.contains("xn--bcher-kva.test (bücher.test): listed"),
        "{said}"
    );
    let said = ends(&stage, 0, &["mandatory", "add", "bank.test."]);
    assert!(said.contains("bank.test: was listed before"), "{said}");
    let said = ends(&stage, 66, &["mandatory", "remove", "eu.bank.test"]);
    assert!(
        said.contains("eu.bank.test is not listed; it stays mandatory, as bank.test is listed"),
        "{said}"
    );
    let said = ends(&stage, 0, &["mandatory", "remove", "xn--bcher-kva.test"]);
    assert!(said.contains("no longer listed"), "{said}");
    for wrong in [
        "*.bank.test",
        ".bank.test",
        "a@bank.test",
        "192.0.2.1 x",
        "",
    ] {
        ends(&stage, 64, &["mandatory", "add", wrong]);
    }
    let list = ends(&stage, 0, &["mandatory", "list"]);
    assert!(
        list.starts_with("bank.test  added 20") && list.lines().count() == 1,
        "{list}"
    );
    let all = ends(&stage, 0, &["mandatory", "list", "--all"]);
    assert!(
        all.contains("xn--bcher-kva.test (bücher.test)  added 20") && all.contains(", removed 20"),
        "{all}"
    );
    let json = ends(&stage, 0, &["mandatory", "list", "--all", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[1]["unicode"], "bücher.test", "{json}");
    assert_eq!(json[0]["removed_at"], serde_json::Value::Null, "{json}");
    let by = json[0]["added_by"].as_str().unwrap_or_default();
    assert!(!by.is_empty() && json[1]["removed_by"] == by, "{json}");
}
