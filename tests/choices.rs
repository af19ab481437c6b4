//! What a sender can choose, one recipient at a time and all at once, and that the first final choice stands.

mod common;

use common::{Stage, request};

#[test]
fn each_recipient_gets_its_own_choice_and_a_kept_one_can_be_sent_later() {
    let stage = Stage::new();
    let to = ["a@plain.test", "b@plain.test", "c@plain.test"];
    let (queue_id, link) = stage.stuck(&to, "choices");
    let [a, b, c] = to.map(|recipient| stage.number(&queue_id, recipient));
    let form = format!("choice-{a}=send&choice-{b}=delete&choice-{c}=keep");
    assert_eq!(stage.post(&link, &form).status, 200);
    stage.arrival("a@plain.test");
    let states = stage.states(&queue_id);
    assert_eq!(
        to.map(|recipient| states[recipient].as_str()),
        ["released", "deleted", "kept"]
    );
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), ["c@plain.test"]);

    // Second final decisions change nothing, one for all recipients included.
    let form = format!("choice-{a}=delete&choice-{b}=send");
    let answer = stage.post(&link, &form);
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("Decided before"), "{}", answer.body);
    assert_eq!(stage.states(&queue_id), states);

    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("c@plain.test");
    stage.queues_are_empty();
    assert_eq!(
        to.map(|recipient| stage.attempts(recipient)),
        [1, 0, 1],
        "what the mx was asked to take"
    );
}

#[test]
fn delete_leaves_nothing_behind() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["a@plain.test", "b@plain.test"], "deleted");
    assert!(!stage.spool_files().is_empty());
    let answer = stage.post(&link, "action=delete&recipient=a%40plain.test");
    assert_eq!(answer.status, 200);
    assert_eq!(stage.pending(&queue_id), ["b@plain.test"]);
    assert_eq!(stage.post(&link, "action=delete").status, 200);
    // The answer comes after the deed.
    assert_eq!(stage.states(&queue_id)["b@plain.test"], "deleted");
    assert_eq!(stage.sandbox.queue_of(encrypt(), &queue_id), None);
    stage.spools_are_clean();
    assert!(stage.arrivals("a@plain.test").is_empty());
    assert_eq!(
        stage.attempts("a@plain.test") + stage.attempts("b@plain.test"),
        0
    );
    // Only the notification came: neither a bounce nor a report about the delay.
    assert_eq!(stage.sandbox.inbox().len(), 1);
}

#[test]
fn get_and_head_never_act() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "looked-at");
    for round in 0..10 {
        for query in ["", "?choice=send", "?action=send", "?choice-1=delete"] {
            for method in ["GET", "HEAD"] {
                let answer = request(method, &format!("{link}{query}"), "action=send");
                assert_eq!(answer.status, 200, "{round} {method} {query}: {answer:?}");
            }
        }
    }
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
    let case = stage.case(&queue_id);
    let mut events = case["events"].as_array().into_iter().flatten();
    assert!(events.all(|event| event["what"] != "decided"), "{case}");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), ["bob@plain.test"]);
    assert_eq!(stage.attempts("bob@plain.test"), 0);
    // The form that was sent with them does act when it is posted.
    stage.post(&link, "action=send");
    stage.arrival("bob@plain.test");
}

#[test]
fn two_hundred_clicks_at_once_release_once() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "clicked");
    let answers = stage.post_at_once(&link, "action=send", 200);
    let good = answers.iter().filter(|answer| answer.status == 200).count();
    let busy = answers.iter().filter(|answer| answer.status == 503).count();
    println!("200 clicks: {good} answered, {busy} told to come back");
    assert_eq!(good + busy, 200, "{answers:?}");
    assert!(good > 0);
    stage.arrival("bob@plain.test");
    stage.queues_are_empty();
    assert_eq!(stage.attempts("bob@plain.test"), 1);
    assert_eq!(stage.arrivals("bob@plain.test").len(), 1);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "released");
    // One case was decided once, and whoever came later was told so.
    let case = stage.case(&queue_id);
    let events = case["events"].as_array().into_iter().flatten();
    let decisions = events.filter(|event| event["what"] == "decided").count();
    assert_eq!(decisions, 1, "{case}");
}

fn encrypt() -> posttls::sandbox::Instance {
    posttls::sandbox::Instance::Encrypt
}
