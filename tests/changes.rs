//! A failure that changes: the newest one counts, at every sight and once more before anything is sent.

mod common;

use common::{Stage, came_over_tls};
use posttls::sandbox::Instance;
use serde_json::Value;

/// A sandbox in which certificates are wanted, and whose sweep looks so often.
fn stage(sweep: u32) -> Stage {
    Stage::wanting_certificates(|options| {
        options.posttls_toml(&format!("[sweep]\nseconds = {sweep}\ncensus_minutes = 0\n"))
    })
}

fn recipient(stage: &Stage, queue_id: &str, address: &str) -> Value {
    let case = stage.case(queue_id);
    let mut all = case["recipients"].as_array().into_iter().flatten();
    all.find(|one| one["address"] == address)
        .unwrap_or_else(|| panic!("no {address} in {case}"))
        .clone()
}

fn events(stage: &Stage, queue_id: &str, what: &str) -> Vec<String> {
    let case = stage.case(queue_id);
    let all = case["events"].as_array().into_iter().flatten();
    let found = all.filter(|event| event["what"] == what);
    found
        .map(|event| event["detail"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// The message is tried again, and fails at a server like that of `like`.
fn fails_again(stage: &Stage, queue_id: &str, domain: &str, like: &str, said: &str) {
    stage.in_queue(queue_id, "deferred");
    stage.watched(queue_id);
    stage.route(domain, like);
    stage.flush(queue_id);
    stage.wait(&format!("{said:?} for {queue_id}"), || {
        let log = stage.sandbox.log(Instance::Encrypt);
        let mut lines = log.lines();
        lines
            .any(|line| line.contains(&format!("{queue_id}: to=<")) && line.contains(said))
            .then_some(())
    });
    stage.in_queue(queue_id, "deferred");
}

/// What a page's form for all recipients, or that for each, says it knows.
fn seen(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"seen\" value=\"").expect("a mark");
    rest.split('"').next().unwrap_or_default().to_owned()
}

const UNVERIFIED: &str = "dsn=4.7.804";

fn becomes(stage: &Stage, queue_id: &str, address: &str, failure: &str) {
    stage.wait(&format!("{address} to fail with {failure}"), || {
        (recipient(stage, queue_id, address)["failure"] == failure).then_some(())
    });
}

#[test]
fn a_certificate_that_turns_out_wrong_takes_the_offer_back() {
    let stage = stage(1);
    let bob = "bob@plain.test";
    let (queue_id, link) = stage.stuck(&[bob], "taken-back");
    assert!(stage.get(&link).body.contains("value=\"send\""));
    fails_again(&stage, &queue_id, "plain.test", "cert.test", UNVERIFIED);
    becomes(&stage, &queue_id, bob, "certificate");
    let now = recipient(&stage, &queue_id, bob);
    assert_eq!(now["may_send"], false, "{now}");
    assert_eq!(now["status"], "4.7.804", "{now}");
    let changes = events(&stage, &queue_id, "failure-changed");
    let said = "not-offered before, now certificate, may not go unencrypted any more";
    assert_eq!(changes, [said]);
    let page = stage.get(&link).body;
    assert!(!page.contains("value=\"send\""), "{page}");
    assert!(page.contains("identity of the recipient"), "{page}");
    let answer = stage.post(&link, "action=send&recipient=bob%40plain.test");
    assert!(answer.body.contains("cannot be chosen"), "{answer:?}");
    assert!(
        answer.body.contains("identity of the recipient"),
        "{answer:?}"
    );
    // An attempt that fails for another reason undoes nothing of that.
    let table = stage
        .sandbox
        .config_dir(Instance::Encrypt)
        .join("transport");
    let text = std::fs::read_to_string(&table).expect("a table");
    let domains = &stage.sandbox.description()["domains"];
    let server = |domain: &str| {
        let address = domains[domain]["smtp"].as_str().expect("an address");
        address.replace("127.0.0.1:", "[127.0.0.1]:")
    };
    let text = text.replace(&server("cert.test"), &server("down.test"));
    std::fs::write(&table, text).expect("a table");
    stage.reload(Instance::Encrypt);
    stage.flush(&queue_id);
    stage.wait("a refused connection", || {
        let log = stage.sandbox.log(Instance::Encrypt);
        log.contains("Connection refused").then_some(())
    });
    stage.in_queue(&queue_id, "deferred");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let now = recipient(&stage, &queue_id, bob);
    assert_eq!(now["failure"], "certificate", "{now}");
    assert_eq!(stage.attempts(bob), 0);
    assert_eq!(stage.states(&queue_id)[bob], "open");
}

#[test]
fn a_certificate_that_was_wrong_is_forgotten_and_the_sender_is_told_once() {
    let stage = stage(1);
    let bob = "bob@cert.test";
    let (queue_id, link) = stage.stuck(&[bob], "forgotten");
    assert!(!stage.get(&link).body.contains("value=\"send\""));
    assert_eq!(stage.sandbox.inbox().len(), 1);
    fails_again(&stage, &queue_id, "cert.test", "plain.test", "dsn=4.7.801");
    becomes(&stage, &queue_id, bob, "not-offered");
    let now = recipient(&stage, &queue_id, bob);
    assert_eq!(now["may_send"], true, "{now}");
    assert!(stage.get(&link).body.contains("value=\"send\""));
    stage.wait("word of the new choice", || {
        (stage.sandbox.inbox().len() == 2).then_some(())
    });
    // To and fro once more: no third mail.
    stage.configure("offer", "failures", "[]");
    stage.signal_mover(rustix::process::Signal::HUP);
    stage.flush(&queue_id);
    stage.wait("the offer to be taken back", || {
        (recipient(&stage, &queue_id, bob)["may_send"] == false).then_some(())
    });
    assert_eq!(events(&stage, &queue_id, "offer-changed").len(), 1);
    stage.configure("offer", "failures", "[\"not-offered\"]");
    stage.signal_mover(rustix::process::Signal::HUP);
    stage.in_queue(&queue_id, "deferred");
    stage.flush(&queue_id);
    stage.wait("the offer to be made again", || {
        (recipient(&stage, &queue_id, bob)["may_send"] == true).then_some(())
    });
    assert_eq!(events(&stage, &queue_id, "offered").len(), 1);
    stage.in_queue(&queue_id, "deferred");
    let form = format!("action=send&seen={}", seen(&stage.get(&link).body));
    assert_eq!(stage.post(&link, &form).status, 200);
    stage.becomes(&queue_id, bob, "released");
    assert_eq!(stage.sandbox.inbox().len(), 2);
}

/// Nothing was sent to bob, whatever was decided, and the store says why.
fn was_refused(stage: &Stage, queue_id: &str, bob: &str) {
    stage.becomes(queue_id, bob, "open");
    let now = recipient(stage, queue_id, bob);
    assert_eq!(now["failure"], "certificate", "{now}");
    assert_eq!(now["may_send"], false, "{now}");
    let refused = events(stage, queue_id, "refused");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(
        refused[0].contains("failed otherwise: certificate"),
        "{refused:?}"
    );
    stage.in_queue(queue_id, "deferred");
    assert!(stage.pending(queue_id).contains(&bob.to_owned()));
    // The mail that tells its sender goes that way, too.
    let may = stage.sandbox.log(Instance::May);
    assert!(!may.contains(&format!("to=<{bob}>")), "{may}");
    assert_eq!(stage.attempts(bob), 0);
}

#[test]
fn a_click_that_comes_before_the_next_look_is_refused_with_the_truth() {
    let stage = stage(3600);
    let (bob, eve) = ("bob@plain.test", "eve@refuse.test");
    let (queue_id, link) = stage.stuck(&[bob, eve], "before-the-look");
    fails_again(&stage, &queue_id, "plain.test", "cert.test", UNVERIFIED);
    assert_eq!(recipient(&stage, &queue_id, bob)["failure"], "not-offered");
    let answer = stage.post(&link, "action=send");
    assert!(answer.body.contains("cannot be chosen"), "{answer:?}");
    assert!(
        answer.body.contains("identity of the recipient"),
        "{answer:?}"
    );
    // Nothing else is lost.
    stage.arrival(eve);
    stage.becomes(&queue_id, eve, "released");
    stage.wait("may to be done", || {
        stage.has_nothing(Instance::May).then_some(())
    });
    was_refused(&stage, &queue_id, bob);
    // It can be deleted.
    assert_eq!(stage.post(&link, "action=delete").status, 200);
    stage.becomes(&queue_id, bob, "deleted");
    stage.queues_are_empty();
}

#[test]
fn an_admin_and_a_decision_about_all_are_refused_as_well() {
    let stage = stage(3600);
    let bob = "bob@plain.test";
    let (first, _) = stage.stuck(&[bob], "by-admin");
    fails_again(&stage, &first, "plain.test", "cert.test", UNVERIFIED);
    let output = stage.posttls(&["release", &first]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    was_refused(&stage, &first, bob);

    let ann = "ann@slowplain.test";
    let (second, _) = stage.stuck(&[ann], "by-bulk");
    fails_again(&stage, &second, "slowplain.test", "cert.test", UNVERIFIED);
    let answer = stage.post(
        &stage.sender_link("alice@sender.test"),
        "action=send&seen=99999999999999",
    );
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("cannot be chosen"), "{answer:?}");
    was_refused(&stage, &second, ann);
}

#[test]
fn a_decision_that_waits_for_an_attempt_is_judged_by_how_that_ends() {
    let stage = stage(3600);
    let (bob, eve) = ("bob@plain.test", "eve@slowplain.test");
    let (queue_id, link) = stage.stuck(&[bob, eve], "meanwhile");
    stage.in_queue(&queue_id, "deferred");
    stage.watched(&queue_id);
    stage.route("slowplain.test", "slow.test");
    stage.route("plain.test", "cert.test");
    stage.flush(&queue_id);
    stage.wait("the slow delivery to begin", || {
        (stage.attempts(eve) > 0).then_some(())
    });
    let answer = stage.post(&link, "action=send&recipient=bob%40plain.test");
    assert!(answer.body.contains("Recorded: it will be"), "{answer:?}");
    assert!(came_over_tls(&stage.arrival(eve)));
    was_refused(&stage, &queue_id, bob);
    // Its sender was told that it would be sent, and is told otherwise.
    stage.wait("word of it", || {
        (stage.sandbox.inbox().len() >= 2).then_some(())
    });
}

/// Whoever decided on a page that showed another failure is shown this one, and nothing is sent.
fn asks_again(stage: &Stage, link: &str, form: &str) {
    let answer = stage.post(link, form);
    assert_eq!(answer.status, 200, "{form}: {answer:?}");
    let body = answer.body;
    assert!(
        body.contains("has changed since your page was made"),
        "{form}: {body}"
    );
}

#[test]
fn a_form_of_an_older_page_does_not_send_what_fails_otherwise_by_now() {
    let stage = stage(1);
    let offered = "[\"not-offered\", \"refused\", \"certificate\"]";
    stage.configure("offer", "failures", offered);
    stage.configure("remember", "days", "30");
    stage.signal_mover(rustix::process::Signal::HUP);
    let (bob, ann) = ("bob@plain.test", "ann@refuse.test");
    let (queue_id, link) = stage.stuck(&[bob, ann], "older-page");
    let inbox = stage.sender_link("alice@sender.test");
    let (old, old_inbox) = (stage.get(&link).body, stage.get(&inbox).body);
    let (mark, latest) = (seen(&old), seen(&old_inbox));
    let (case, number) = (stage.known(&queue_id).id, stage.number(&queue_id, bob));
    fails_again(&stage, &queue_id, "plain.test", "cert.test", UNVERIFIED);
    becomes(&stage, &queue_id, bob, "certificate");
    assert_eq!(recipient(&stage, &queue_id, bob)["may_send"], true);
    let named = "action=send&recipient=bob%40plain.test";
    let remember = "remember=domain&remember-days=30";
    for form in [
        format!("{named}&seen={mark}"),
        format!("choice-{number}=send&seen={mark}"),
        format!("{named}&seen={mark}&{remember}"),
        // A page of an admin's own template, or a program.
        named.to_owned(),
        format!("choice-{number}=send&{remember}"),
    ] {
        asks_again(&stage, &link, &form);
        assert_eq!(stage.states(&queue_id)[bob], "open", "{form}");
    }
    let answer = stage.post(&link, named).body;
    assert!(answer.contains("identity of the recipient"), "{answer}");
    for form in [
        format!("choice-{case}-{number}=send&seen-{case}={mark}"),
        format!("choice-{case}-{number}=send"),
    ] {
        asks_again(&stage, &inbox, &form);
        assert_eq!(stage.states(&queue_id)[bob], "open", "{form}");
    }
    // The others of the form are not kept waiting.
    stage.post(&inbox, &format!("action=send&seen={latest}"));
    stage.arrival(ann);
    assert_eq!(stage.states(&queue_id)[bob], "open");
    assert_eq!(stage.attempts(bob), 0);
    assert!(stage.store().consents(true).expect("choices").is_empty());
    // Keeping is right whatever the failure is; and who has seen it may send.
    let keep = format!("choice-{number}=keep&seen={mark}");
    assert!(!stage.post(&link, &keep).body.contains("has changed since"));
    stage.becomes(&queue_id, bob, "kept");
    let now = seen(&stage.get(&link).body);
    assert_ne!(now, mark);
    stage.in_queue(&queue_id, "deferred");
    stage.post(&link, &format!("{named}&seen={now}"));
    stage.becomes(&queue_id, bob, "released");
}

#[test]
fn a_form_that_was_refused_is_refused_again_when_it_is_sent_once_more() {
    let stage = stage(3600);
    stage.configure("offer", "failures", "[\"not-offered\", \"certificate\"]");
    stage.signal_mover(rustix::process::Signal::HUP);
    let bob = "bob@plain.test";
    let (queue_id, link) = stage.stuck(&[bob], "once-more");
    fails_again(&stage, &queue_id, "plain.test", "cert.test", UNVERIFIED);
    for form in ["action=send&seen=0", "action=send&seen=0", "action=send"] {
        asks_again(&stage, &link, form);
        assert_eq!(recipient(&stage, &queue_id, bob)["may_send"], true);
        assert_eq!(stage.states(&queue_id)[bob], "open", "{form}");
    }
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.attempts(bob), 0);
    let now = seen(&stage.get(&link).body);
    stage.post(&link, &format!("action=send&seen={now}"));
    stage.becomes(&queue_id, bob, "released");
}
