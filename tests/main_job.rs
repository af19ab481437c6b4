//! The main job on real Postfix: what fails for TLS is offered to its sender, and what the sender decides happens, once.

mod common;

use common::{Stage, came_over_tls};
use posttls::sandbox::Instance;

#[test]
fn one_recipient_without_tls_is_released_once() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "contract");
    assert!(stage.sandbox.delivered("bob@plain.test").is_empty());
    let answer = stage.post(&link, "action=send");
    assert_eq!(answer.status, 200, "{answer:?}");
    let mail = stage.arrival("bob@plain.test");
    assert!(mail.contains("body of contract"), "{mail}");
    assert!(!came_over_tls(&mail), "{mail}");
    stage.queues_are_empty();
    assert_eq!(stage.sandbox.delivered("bob@plain.test").len(), 1);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "released");
    // The case knows what the may instance calls the message.
    let handed = stage.log();
    let handed = handed.split("handed to the may instance as ").nth(1);
    let name = handed.and_then(|rest| rest.split_whitespace().next());
    let active = format!("{}: from=<alice@sender.test>", name.expect("a queue ID"));
    assert!(stage.sandbox.log(Instance::May).contains(&active));
}

#[test]
fn of_three_recipients_only_the_one_without_tls_is_offered() {
    let stage = Stage::new();
    let to = ["a@tls.test", "b@plain.test", "c@down.test"];
    let (queue_id, link) = stage.stuck(&to, "three");
    assert!(came_over_tls(&stage.arrival("a@tls.test")));
    let states = stage.states(&queue_id);
    assert_eq!(states["b@plain.test"], "open");
    assert_eq!(states["c@down.test"], "not-offered");
    assert!(!states.contains_key("a@tls.test"), "{states:?}");
    let page = stage.get(&link).body;
    assert!(
        page.contains("value=\"b@plain.test\"") && !page.contains("value=\"c@down.test\""),
        "{page}"
    );

    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("b@plain.test");
    // The third one goes on trying, with its own recipient only.
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), ["c@down.test"]);
    assert_eq!(stage.sandbox.delivered("a@tls.test").len(), 1);
    assert_eq!(stage.sandbox.delivered("b@plain.test").len(), 1);
}
