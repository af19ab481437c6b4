//! Choices that are remembered: given on a page, used for later messages by the hook, never beyond what they were given
//! for, and ended by a link.

mod common;

use common::{Stage, came_over_tls};
use posttls::case::store::{Consent, NewConsent, now_ms};
use posttls::case::{Failure, Scope};

const ALICE: &str = "alice@sender.test";

fn stage(days: u16) -> Stage {
    stage_of(Stage::new(), days)
}

fn stage_of(stage: Stage, days: u16) -> Stage {
    stage.configure("remember", "days", &days.to_string());
    stage.restart();
    stage
}

fn in_force(stage: &Stage) -> Vec<Consent> {
    stage.store().consents(false).expect("consents")
}

/// A message that nobody is asked about, as it goes out at once. Gives its queue ID.
fn goes_unasked(stage: &Stage, to: &str, subject: &str) -> String {
    let before = stage.arrivals(to).len();
    let queue_id = stage.send(&[to], subject);
    stage.wait("the message", || {
        (stage.arrivals(to).len() > before).then_some(())
    });
    assert!(!came_over_tls(stage.arrivals(to).last().expect("mail")));
    stage.becomes(&queue_id, to, "released");
    let case = stage.case(&queue_id);
    let mut events = case["events"].as_array().into_iter().flatten();
    assert!(
        events.any(|event| event["detail"] == "send by consent"),
        "{case}"
    );
    queue_id
}

fn is_asked(stage: &Stage, to: &str, subject: &str) -> String {
    let queue_id = stage.stuck_from(ALICE, &[to], subject);
    assert_eq!(stage.states(&queue_id)[to], "open", "{subject}");
    queue_id
}

#[test]
fn what_a_sender_ticked_holds_for_that_recipient_and_failure_until_revoked() {
    let stage = stage(30);
    let first = is_asked(&stage, "bob@plain.test", "first");
    let link = stage.case_link(&first);
    let page = stage.get(&link).body;
    assert!(
        page.contains("Yes, for messages to bob@plain.test"),
        "{page}"
    );
    assert!(page.contains("Yes, for messages to everybody at plain.test"));
    assert!(page.contains(">30 days<") && !page.contains(">90 days<"));
    // What the page does not offer is refused as a whole.
    for (form, status) in [
        ("action=send&remember=recipient&remember-days=31", 400),
        ("action=send&remember=recipient&remember-days=2", 400),
        ("action=send&remember=recipient&remember-days=0", 400),
        ("action=send&remember=everything&remember-days=7", 400),
        ("action=keep&remember=recipient&remember-days=7", 400),
        ("action=delete&remember=domain&remember-days=7", 400),
    ] {
        assert_eq!(stage.post(&link, form).status, status, "{form}");
        assert_eq!(stage.states(&first)["bob@plain.test"], "open", "{form}");
    }
    assert!(in_force(&stage).is_empty());

    let form = "action=send&recipient=bob%40plain.test&remember=recipient&remember-days=7";
    let answer = stage.post(&link, form);
    assert!(answer.body.contains("Remembered"), "{answer:?}");
    stage.arrival("bob@plain.test");
    let [consent] = &in_force(&stage)[..] else {
        panic!("{:?}", in_force(&stage));
    };
    assert_eq!(consent.failures, [Failure::NotOffered]);
    assert_eq!(
        (
            consent.scope,
            consent.target.as_str(),
            consent.client.as_str()
        ),
        (Scope::Recipient, "bob@plain.test", "127.0.0.1")
    );
    let days = (consent.expires_at - consent.granted_at) as f64 / 86_400_000.0;
    assert!((6.99..7.01).contains(&days), "{days}");
    assert!(
        stage
            .log()
            .contains("choice remembered: send to recipient bob@plain.test")
    );
    // Once more changes nothing: it was decided before.
    assert_eq!(stage.post(&link, form).status, 200);
    assert_eq!(in_force(&stage).len(), 1);

    goes_unasked(&stage, "bob@plain.test", "second");
    is_asked(&stage, "carol@plain.test", "another recipient");
    let other = stage.stuck_from("eve@sender.test", &["bob@plain.test"], "another sender");
    assert_eq!(stage.states(&other)["bob@plain.test"], "open");
    // Another failure than the one that it was given for: as if that server had offered nothing before.
    let given = NewConsent {
        sender: ALICE.parse().expect("an address"),
        scope: Scope::Recipient,
        target: "bob@refuse.test".to_owned(),
        failures: vec![Failure::NotOffered, Failure::HandshakeFailed],
        client: "127.0.0.1".to_owned(),
        expires_at: now_ms() + 3_600_000,
    };
    let for_another = stage.store().add_consent(&given).expect("remembered");
    is_asked(&stage, "bob@refuse.test", "another failure");
    assert!(
        stage
            .store()
            .end_consent(for_another, "test")
            .expect("ended")
    );

    // Its page shows it, and ends it.
    let link = stage.consent_link(consent.id);
    let page = stage.get(&link).body;
    assert!(
        page.contains("bob@plain.test") && page.contains("Only in these cases"),
        "{page}"
    );
    for form in ["action=send", "", "action=revoke&x=1", "revoke"] {
        assert_eq!(stage.post(&link, form).status, 400, "{form}");
    }
    stage.get(&format!("{link}?action=revoke"));
    assert_eq!(in_force(&stage).len(), 1);
    let answer = stage.post(&link, "action=revoke");
    assert!(answer.body.contains("We ask you again"), "{answer:?}");
    assert!(in_force(&stage).is_empty());
    let ended = stage.store().consent(consent.id).expect("it").expect("it");
    assert_eq!(
        ended.ended_why.as_deref(),
        Some("revoked by link from 127.0.0.1")
    );
    // A second time says the same, and changes nothing.
    assert!(
        stage
            .post(&link, "action=revoke")
            .body
            .contains("It ended on")
    );
    assert!(!stage.get(&link).body.contains("<form"));
    assert_eq!(
        stage.store().consent(consent.id).expect("it").expect("it"),
        ended
    );
    is_asked(&stage, "bob@plain.test", "after the end");
}

#[test]
fn a_domain_is_remembered_with_the_failures_of_those_chosen_and_no_others() {
    let stage = stage_of(Stage::wanting_certificates(|options| options), 365);
    stage.configure(
        "offer",
        "failures",
        "[\"not-offered\", \"refused\", \"certificate\"]",
    );
    stage
        .store()
        .add_mandatory(&"bank.test".parse().expect("a domain"), "test")
        .expect("listed");
    let to = [
        "a@plain.test",
        "b@refuse.test",
        "c@cert.test",
        "d@plain.test",
    ];
    let queue_id = stage.stuck_from(ALICE, &to, "several");
    let [a, b, c, d] = to.map(|recipient| stage.number(&queue_id, recipient));
    let link = stage.case_link(&queue_id);
    assert!(
        !stage.get(&link).body.contains("cert.test, "),
        "no choice for certificates"
    );
    let form = format!(
        "choice-{a}=send&choice-{b}=keep&choice-{c}=send&choice-{d}=delete&remember=domain&remember-days=365"
    );
    assert_eq!(stage.post(&link, &form).status, 200);
    let consents = in_force(&stage);
    let targets: Vec<&str> = consents.iter().map(|one| one.target.as_str()).collect();
    assert_eq!(
        targets,
        ["plain.test"],
        "neither the kept one nor the certificate"
    );
    assert_eq!(consents[0].failures, [Failure::NotOffered]);
    assert_eq!(consents[0].scope, Scope::Domain);
    goes_unasked(&stage, "anybody@plain.test", "to the domain");
    is_asked(&stage, "b@refuse.test", "a domain that was not sent to");
    is_asked(&stage, "c@cert.test", "a certificate");

    // A mandatory domain comes before any choice, also before one that was given earlier.
    let plain = "plain.test".parse().expect("a domain");
    stage.store().add_mandatory(&plain, "test").expect("listed");
    let queue_id = stage.send(&["anybody@plain.test"], "mandatory");
    stage.known(&queue_id);
    stage.becomes(&queue_id, "anybody@plain.test", "deleted");
    assert_eq!(stage.arrivals("anybody@plain.test").len(), 1);
}

#[test]
fn a_mandatory_domain_is_not_remembered() {
    let stage = stage(7);
    let queue_id = is_asked(&stage, "bob@plain.test", "before");
    let plain = "plain.test".parse().expect("a domain");
    stage.store().add_mandatory(&plain, "test").expect("listed");
    let link = stage.case_link(&queue_id);
    assert!(!stage.get(&link).body.contains("remember"));
    stage.post(&link, "action=send&remember=domain&remember-days=7");
    assert!(in_force(&stage).is_empty());
}

#[test]
fn the_same_choice_given_again_is_extended() {
    let stage = stage(30);
    let one = is_asked(&stage, "bob@plain.test", "one");
    let two = is_asked(&stage, "bob@plain.test", "two");
    let three = is_asked(&stage, "bob@plain.test", "three");
    for (queue_id, days) in [(&one, 7), (&two, 30), (&three, 1)] {
        let form = format!("action=send&remember=recipient&remember-days={days}");
        assert_eq!(stage.post(&stage.case_link(queue_id), &form).status, 200);
    }
    let [consent] = &in_force(&stage)[..] else {
        panic!("{:?}", in_force(&stage));
    };
    let days = (consent.expires_at - now_ms()) as f64 / 86_400_000.0;
    assert!((29.9..30.0).contains(&days), "{days}");
}

#[test]
fn nothing_is_remembered_unless_configured_nor_beyond_its_time() {
    let stage = Stage::new();
    let queue_id = is_asked(&stage, "bob@plain.test", "off");
    let link = stage.case_link(&queue_id);
    assert!(!stage.get(&link).body.contains("remember"));
    let form = "action=send&remember=recipient&remember-days=7";
    let answer = stage.post(&link, form);
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("cannot be remembered"), "{answer:?}");
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
    assert!(in_force(&stage).is_empty());
    // Switched off, what is in the store does not count, either.
    let consent = |target: &str, expires_at| NewConsent {
        sender: ALICE.parse().expect("an address"),
        scope: Scope::Recipient,
        target: target.to_owned(),
        failures: vec![Failure::NotOffered],
        client: "127.0.0.1".to_owned(),
        expires_at,
    };
    let store = stage.store();
    store
        .add_consent(&consent("bob@plain.test", now_ms() + 3_600_000))
        .expect("remembered");
    is_asked(&stage, "bob@plain.test", "still off");
    stage.configure("remember", "days", "7");
    goes_unasked(&stage, "bob@plain.test", "on");
    let expired = store
        .add_consent(&consent("carol@plain.test", now_ms() - 1))
        .expect("remembered");
    is_asked(&stage, "carol@plain.test", "expired");
    let page = stage.get(&stage.consent_link(expired));
    assert!(page.body.contains("Its time was over on"), "{page:?}");
    assert!(!page.body.contains("<form"));
}
