//! A decision that meets Postfix at work: mail that was delivered in the meantime, and a delivery still under way.

mod common;

use std::collections::BTreeMap;

use common::{Stage, came_over_tls};
use posttls::sandbox::Instance;

#[test]
fn a_click_after_postfix_delivered_all_changes_nothing() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "late");
    stage.watched(&queue_id);
    stage.route("plain.test", "tls.test");
    stage.flush(&queue_id);
    assert!(came_over_tls(&stage.arrival("bob@plain.test")));
    stage.queues_are_empty();
    let answer = stage.post(&link, "action=send");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("delivered securely"), "{answer:?}");
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "delivered");
    assert_eq!(stage.case(&queue_id)["state"], "closed");
    stage.queues_are_empty();
    assert_eq!(stage.attempts("bob@plain.test"), 1);
}

#[test]
fn a_click_for_one_that_postfix_delivered_says_so_and_the_other_is_released() {
    let stage = Stage::new();
    let to = ["bob@plain.test", "eve@refuse.test"];
    let (queue_id, link) = stage.stuck(&to, "half");
    stage.route("plain.test", "tls.test");
    stage.flush(&queue_id);
    stage.arrival("bob@plain.test");
    stage.wait("the mark of the delivery", || {
        stage.sandbox.queue_of(Instance::Encrypt, &queue_id)?;
        (stage.pending(&queue_id) == ["eve@refuse.test"]).then_some(())
    });
    let answer = stage.post(&link, "action=send&recipient=bob%40plain.test");
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("delivered securely"), "{answer:?}");
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "delivered");
    assert_eq!(stage.states(&queue_id)["eve@refuse.test"], "open");
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("eve@refuse.test");
    stage.queues_are_empty();
    assert_eq!(to.map(|recipient| stage.attempts(recipient)), [1, 1]);
}

/// Posts a form while one of the two recipients is being delivered to. Gives the states in which the case ends.
fn click_during_a_delivery(form: &str) -> BTreeMap<String, String> {
    let stage = Stage::new();
    let to = ["bob@plain.test", "eve@slowplain.test"];
    let (queue_id, link) = stage.stuck(&to, "busy");
    stage.watched(&queue_id);
    stage.in_queue(&queue_id, "deferred");
    // The server of eve learns TLS, and takes six seconds for a message.
    stage.route("slowplain.test", "slow.test");
    stage.flush(&queue_id);
    stage.wait("the slow delivery to begin", || {
        (stage.attempts("eve@slowplain.test") > 0).then_some(())
    });
    let answer = stage.post(&link, form);
    assert_eq!(answer.status, 200);
    assert!(stage.arrivals("eve@slowplain.test").is_empty(), "too late");
    assert!(answer.body.contains("Recorded: it will be"), "{answer:?}");
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "releasing");
    // Eve gets it at the end of the slow delivery; then the mover, in the background, releases it for bob.
    assert!(came_over_tls(&stage.arrival("eve@slowplain.test")));
    assert!(!came_over_tls(&stage.arrival("bob@plain.test")));
    stage.becomes(&queue_id, "bob@plain.test", "released");
    stage.becomes(&queue_id, "eve@slowplain.test", "delivered");
    stage.queues_are_empty();
    assert_eq!(to.map(|recipient| stage.attempts(recipient)), [1, 1]);
    assert_eq!(to.map(|recipient| stage.arrivals(recipient).len()), [1, 1]);
    stage.states(&queue_id)
}

#[test]
fn a_delivery_under_way_is_waited_for() {
    let states = click_during_a_delivery("action=send&recipient=bob%40plain.test");
    // Nobody has asked for her since, but the lookout has seen it.
    assert_eq!(states["eve@slowplain.test"], "delivered");
}

#[test]
fn the_recipient_of_a_delivery_under_way_gets_one_copy() {
    let states = click_during_a_delivery("action=send");
    assert_eq!(states["eve@slowplain.test"], "delivered");
}
