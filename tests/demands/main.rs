//! Demanded TLS on real Postfix: policies that tables of the encrypt instance give, REQUIRETLS, and hops of our own. Their
//! words are those of any other failure, and nothing of it is ever offered.

#[path = "../common/mod.rs"]
mod common;
mod own_hops;
mod policies;
mod requiretls;
mod tables;

use std::collections::BTreeMap;
use std::thread;

use common::{Stage, came_over_tls, link};
use policies::{Policies, with};
use posttls::case::store::{NewConsent, now_ms};
use posttls::case::{Failure, Scope};
use posttls::sandbox::Instance;
use serde_json::Value;

fn next_hop(stage: &Stage, domain: &str) -> String {
    let table = stage
        .sandbox
        .config_dir(Instance::Encrypt)
        .join("transport");
    let table = std::fs::read_to_string(table).expect("a table");
    let entry = table
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{domain} smtp:")))
        .expect("a next hop");
    entry.to_owned()
}

fn recipient(stage: &Stage, queue_id: &str) -> Value {
    let output = stage.posttls(&["case", queue_id, "--json"]);
    let case: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    case["recipients"][0].clone()
}

fn is(stage: &Stage, queue_id: &str, failure: &str, state: &str) {
    stage.wait(&format!("{queue_id} to be {failure}, {state}"), || {
        let one = recipient(stage, queue_id);
        (one["failure"] == failure && one["state"] == state).then_some(())
    });
    assert_eq!(recipient(stage, queue_id)["may_send"], false);
}

fn history(stage: &Stage, queue_id: &str) -> String {
    stage.case(queue_id)["events"].to_string()
}

/// Whoever tries, and however: nothing leaves.
fn can_not_be_sent(stage: &Stage, queue_id: &str, page: &str, to: &str) {
    let body = stage.get(page).body;
    assert!(!body.contains("value=\"send\""), "{body}");
    let number = stage.number(queue_id, to);
    let named = format!("action=send&recipient={}", to.replace('@', "%40"));
    for form in ["action=send", &named, &format!("choice-{number}=send")] {
        stage.post(page, form);
        assert_eq!(stage.states(queue_id)[to], "open", "{form}");
    }
    let output = stage.posttls(&["release", queue_id]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    stage.in_queue(queue_id, "deferred");
    assert_eq!(stage.attempts(to), 0);
}

/// A text in one line, wherever it was broken.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn demanded_tls_is_never_offered_and_an_admin_overrides_it_by_name_only() {
    let policies = Policies::start();
    let stage = with(&policies);
    policies.set(
        &stage,
        "plain.test",
        "OK secure match=mx.plain.test servername=hostname",
    );
    policies.set(&stage, "refuse.test", "OK verify");
    policies.set(&stage, "broken.test", "OK encrypt");
    let mut ids = BTreeMap::new();
    for to in ["bob@plain.test", "bob@refuse.test", "bob@broken.test"] {
        let queue_id = stage.send(&[to], &to.replace('@', "-"));
        let mail = stage.notification(&queue_id);
        assert!(flat(&mail).contains("must be encrypted"), "{mail}");
        assert!(
            !mail.contains("choice=3Dsend") && !mail.contains("choice=send"),
            "{mail}"
        );
        is(&stage, &queue_id, "policy", "open");
        can_not_be_sent(&stage, &queue_id, &link(&mail), to);
        let said = stage.posttls(&["release", &queue_id]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("--override-policy"), "{said}");
        ids.insert(to, queue_id);
    }
    let detail = recipient(&stage, &ids["bob@plain.test"])["detail"].to_string();
    assert!(detail.contains("secure for [127.0.0.1]:"), "{detail}");
    assert!(detail.contains("by smtp_tls_policy_maps"), "{detail}");
    let tested = stage.said(&["test", "bob@plain.test", "--failure", "not-offered"]);
    assert!(
        tested.contains("policy: TLS is demanded: secure"),
        "{tested}"
    );
    let free = stage.said(&["test", "bob@tls.test", "--failure", "not-offered"]);
    assert!(!free.contains("policy"), "{free}");

    let queue_id = &ids["bob@plain.test"];
    stage.said(&["release", queue_id, "--override-policy"]);
    assert!(!came_over_tls(&stage.arrival("bob@plain.test")));
    stage.becomes(queue_id, "bob@plain.test", "released");
    assert!(history(&stage, queue_id).contains("whatever policy demands TLS"));
    stage.logged("policies that demand TLS are overridden by an admin");
    // Whatever the policy made of the attempt.
    policies.set(&stage, "cert.test", "OK secure");
    let queue_id = stage.send(&["bob@cert.test"], "certificate");
    is(&stage, &queue_id, "policy", "open");
    stage.in_queue(&queue_id, "deferred");
    stage.said(&["release", &queue_id, "--override-policy"]);
    stage.arrival("bob@cert.test");
    // Only sending is forbidden.
    stage.said(&["delete", &ids["bob@refuse.test"]]);
}

#[test]
fn neither_rules_nor_choices_nor_decisions_in_bulk_send_against_a_policy() {
    let policies = Policies::start();
    let stage = with(&policies);
    policies.set(&stage, "plain.test", "OK secure");
    stage.configure("remember", "days", "30");
    let new = NewConsent {
        sender: "alice@sender.test".parse().expect("an address"),
        scope: Scope::Domain,
        target: "plain.test".to_owned(),
        failures: vec![Failure::NotOffered],
        client: "192.0.2.7".to_owned(),
        expires_at: now_ms() + 86_400_000,
    };
    stage
        .store()
        .add_consent(&new)
        .expect("a remembered choice");
    let queue_id = stage.send(&["bob@plain.test"], "agreed");
    is(&stage, &queue_id, "policy", "open");
    let page = stage.sender_link("alice@sender.test");
    let answer = stage.post(&page, "action=send&seen=9999999999999");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
    stage.configure("senders", "internal", "[\"elsewhere.test\"]");
    stage.configure("senders", "external", "\"release\"");
    let queue_id = stage.stuck_from("alice@sender.test", &["eve@plain.test"], "external");
    is(&stage, &queue_id, "policy", "kept");
    assert_eq!(
        stage.attempts("eve@plain.test") + stage.attempts("bob@plain.test"),
        0
    );
}

#[test]
fn a_policy_that_comes_after_the_offer_stops_what_was_decided() {
    let policies = Policies::start();
    let stage = with(&policies);
    let (queue_id, page) = stage.stuck(&["bob@plain.test"], "offered");
    assert_eq!(recipient(&stage, &queue_id)["may_send"], true);
    policies.set(&stage, "plain.test", "OK dane-only");
    // An answer counts for some seconds.
    thread::sleep(std::time::Duration::from_secs(6));
    let answer = stage.post(&page, "action=send");
    assert!(
        answer.body.contains("Encryption is demanded"),
        "{}",
        answer.body
    );
    is(&stage, &queue_id, "policy", "open");
    let history = history(&stage, &queue_id);
    assert!(
        history.contains("not sent: TLS is demanded: dane-only"),
        "{history}"
    );
    can_not_be_sent(&stage, &queue_id, &page, "bob@plain.test");
    // What was refused can be decided again.
    stage.post(&page, "action=delete");
    stage.becomes(&queue_id, "bob@plain.test", "deleted");
}

#[test]
fn parent_domains_and_services_of_their_own_are_asked_as_postfix_asks_them() {
    let stage = Stage::with(|options| {
        options.httpd(false).main_cf(
            Instance::Encrypt,
            "smtp_tls_policy_maps",
            "inline:{{.parent.test = dane-only}, {free.parent.test = may}}",
        )
    });
    let config = stage.sandbox.config_dir(Instance::Encrypt);
    let add = |name: &str, text: &str| {
        let path = config.join(name);
        let before = std::fs::read_to_string(&path).expect("a file");
        std::fs::write(&path, text.to_owned() + &before).expect("written");
    };
    // An empty next hop is the recipient's domain.
    add(
        "transport",
        "a.parent.test smtp:\nparent.test smtp:\nfree.parent.test smtp:\nstrict.test strict:\nown.test own:\n",
    );
    add(
        "master.cf",
        "strict unix - - n - - smtp -o smtp_tls_security_level=verify\n\
         own unix - - n - - smtp -o { smtp_tls_policy_maps = inline:{own.test=secure} }\n",
    );
    stage.reload(Instance::Encrypt);
    for (to, expected) in [
        (
            "x@a.parent.test",
            "dane-only for .parent.test, by smtp_tls_policy_maps",
        ),
        (
            "x@strict.test",
            "verify, by smtp_tls_security_level of the service strict/unix",
        ),
        ("x@own.test", "secure for own.test, by smtp_tls_policy_maps"),
    ] {
        let said = stage.said(&["test", to, "--failure", "not-offered"]);
        assert!(
            said.contains(&format!("policy: TLS is demanded: {expected}")),
            "{said}"
        );
        let choices =
            &stage.json(&["test", to, "--failure", "not-offered", "--json"])[0]["choices"];
        assert_eq!(choices, &serde_json::json!(["delete", "keep"]), "{to}");
    }
    // The parent's own name is not below it, and the nearer entry counts.
    for to in ["x@parent.test", "x@free.parent.test"] {
        let said = stage.json(&["test", to, "--failure", "not-offered", "--json"]);
        assert_eq!(said[0]["may_send"], true, "{to}: {said}");
    }
}

/// Judged is what is there. A message that comes back after it was looked for in vain was not, and is not sent.
#[cfg(feature = "failpoints")]
#[test]
fn a_message_that_comes_back_when_it_was_to_be_judged_is_not_sent() {
    let policies = Policies::start();
    let stage = with(&policies);
    let bob = "bob@plain.test";
    let (queue_id, _) = stage.stuck(&[bob], "comes-back");
    stage.in_queue(&queue_id, "deferred");
    stage.sandbox.stop_httpd();
    policies.set(&stage, "plain.test", "OK secure");
    let store = stage.store();
    let case = stage.known(&queue_id).id;
    let recipient = store.recipients(case).expect("recipients").remove(0).id;
    let choice = [(recipient, posttls::case::Action::Send)];
    store
        .decide(case, &choice, posttls::case::Actor::Link, "::1", None)
        .expect("a decision");
    let config = stage.sandbox.config_dir(Instance::Encrypt);
    let instance = posttls::postfix::Instance::load(&config).expect("an instance");
    let id = queue_id.parse().expect("a queue ID");
    let path = instance.path(posttls::postfix::Queue::Deferred, &id);
    let aside = stage.sandbox.queue_dir(Instance::Encrypt).join("aside");
    std::fs::rename(&path, &aside).expect("put aside");
    let pause = (
        "FAILPOINTS".to_owned(),
        "engine::judged=sleep(6000)".to_owned(),
    );
    // What is owed is tried before it listens.
    let back = thread::spawn(move || {
        thread::sleep(std::time::Duration::from_secs(3));
        std::fs::rename(&aside, &path).expect("put back");
    });
    stage.sandbox.start_httpd(&[pause]).expect("a daemon");
    back.join().expect("it is back");
    stage.wait("the end of the move", || {
        let owed = store.unfinished_moves().expect("moves");
        owed.is_empty().then_some(())
    });
    assert_ne!(stage.states(&queue_id)[bob], "released");
    assert!(stage.pending(&queue_id).contains(&bob.to_owned()));
    assert_eq!(stage.attempts(bob), 0);
}
