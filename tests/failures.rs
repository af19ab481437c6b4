//! Every way in which TLS can fail: the message stays queued, its sender is asked, and what was released arrives.

mod common;

use common::{Stage, came_over_tls};
use posttls::sandbox::Instance;

/// Sends to `recipient`, whose server fails in the way named, and releases the message.
fn is_offered_and_released(recipient: &str, failure: &str) {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&[recipient], "stuck");
    let offered = stage.case(&queue_id)["recipients"][0].clone();
    assert_eq!(offered["failure"], failure, "{offered}");
    assert_eq!(offered["state"], "open", "{offered}");
    assert_eq!(offered["may_send"], true, "{offered}");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.attempts(recipient), 0);
    // Only the notification, above all no bounce.
    assert_eq!(stage.sandbox.inbox().len(), 1);

    assert_eq!(stage.post(&link, "action=send").status, 200);
    let mail = stage.arrival(recipient);
    assert!(!came_over_tls(&mail), "{mail}");
    stage.queues_are_empty();
    assert_eq!(stage.arrivals(recipient).len(), 1);
    assert_eq!(stage.sandbox.inbox().len(), 1);
}

#[test]
fn starttls_refused_for_now() {
    is_offered_and_released("bob@refuse.test", "refused");
}

#[test]
fn starttls_refused_for_good_does_not_bounce() {
    is_offered_and_released("bob@refuse5.test", "refused");
}

#[test]
fn a_handshake_that_fails() {
    is_offered_and_released("bob@broken.test", "handshake-failed");
}

#[test]
fn refused_for_good_survives_further_tries() {
    let stage = Stage::new();
    let (queue_id, _) = stage.stuck(&["bob@refuse5.test"], "again");
    for _ in 0..2 {
        let tries = || {
            let log = stage.sandbox.log(Instance::Encrypt);
            log.matches(&format!("{queue_id}: to=<bob@refuse5.test>"))
                .count()
        };
        let before = tries();
        stage.flush(&queue_id);
        stage.wait("another try", || (tries() > before).then_some(()));
        stage.in_queue(&queue_id, "deferred");
    }
    // The sender is asked once, and hears of no bounce.
    assert_eq!(stage.sandbox.inbox().len(), 1);
    assert_eq!(stage.states(&queue_id)["bob@refuse5.test"], "open");
}

#[test]
fn an_untrusted_certificate_can_be_deleted_but_not_sent() {
    let stage = Stage::wanting_certificates(|options| options);
    let (queue_id, link) = stage.stuck(&["bob@cert.test", "ann@cert.test"], "secret");
    let bob = stage.number(&queue_id, "bob@cert.test");
    for offered in stage.case(&queue_id)["recipients"].as_array().unwrap() {
        assert_eq!(offered["failure"], "certificate", "{offered}");
        assert_eq!(offered["may_send"], false, "{offered}");
    }
    let page = stage.get(&link).body;
    assert!(!page.contains("value=\"send\""), "{page}");
    assert!(page.contains("value=\"delete\"") && page.contains("value=\"keep\""));
    for form in [
        "action=send&recipient=bob%40cert.test".to_owned(),
        "action=send".to_owned(),
        format!("choice-{bob}=send"),
    ] {
        let answer = stage.post(&link, &form);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(stage.states(&queue_id)["bob@cert.test"], "open", "{form}");
    }
    let answer = stage.post(&link, "action=send&recipient=bob%40cert.test");
    assert!(answer.body.contains("cannot be chosen"), "{}", answer.body);
    // Nor by an admin.
    let output = stage.posttls(&["release", &queue_id]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let queues = stage.sandbox.queue(Instance::May);
    assert!(
        ["hold", "deferred"]
            .iter()
            .all(|queue| queues[queue].is_empty())
    );
    stage.in_queue(&queue_id, "deferred");

    let answer = stage.post(&link, "action=delete&recipient=bob%40cert.test");
    assert_eq!(answer.status, 200);
    assert_eq!(stage.states(&queue_id)["bob@cert.test"], "deleted");
    assert_eq!(stage.pending(&queue_id), ["ann@cert.test"]);
    assert_eq!(
        stage.attempts("bob@cert.test") + stage.attempts("ann@cert.test"),
        0
    );
}
