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

/// A click for eve while she is being delivered to, over TLS and slowly; `refused`: the server refuses her in the end.
/// With `others` one more recipient waits on. Was seen how it ended?
fn click_for_one_under_way(refused: bool, others: bool) -> bool {
    let stage = Stage::new();
    if refused {
        let master = stage.sandbox.config_dir(Instance::Mx).join("master.cf");
        let text = std::fs::read_to_string(&master).expect("a master.cf");
        let end = "smtpd_end_of_data_restrictions=sleep 6";
        let text = text.replace(end, &format!("{end}, reject"));
        std::fs::write(&master, text).expect("a master.cf");
        stage.reload(Instance::Mx);
    }
    let to = ["eve@slowplain.test", "bob@plain.test"];
    let (queue_id, link) = stage.stuck(if others { &to } else { &to[..1] }, "ends");
    stage.watched(&queue_id);
    stage.in_queue(&queue_id, "deferred");
    stage.route("slowplain.test", "slow.test");
    stage.flush(&queue_id);
    stage.wait("the slow delivery to begin", || {
        (stage.attempts("eve@slowplain.test") > 0).then_some(())
    });
    let answer = stage.post(&link, "action=send&recipient=eve%40slowplain.test");
    assert!(answer.body.contains("Recorded: it will be"), "{answer:?}");
    let ended = |stage: &Stage| {
        let state = stage.states(&queue_id)["eve@slowplain.test"].clone();
        (state != "releasing").then_some(state)
    };
    let state = stage.wait("the end of the delivery", || ended(&stage));
    let store = stage.store();
    stage.wait("the end of the move", || {
        store.unfinished_moves().ok()?.is_empty().then_some(())
    });
    assert_eq!(ended(&stage).as_ref(), Some(&state), "it stays so");
    let sent = usize::from(!refused);
    assert_eq!(stage.arrivals("eve@slowplain.test").len(), sent);
    assert_eq!(stage.attempts("eve@slowplain.test"), 1);
    let case = stage.said(&["case", &queue_id]);
    let log = stage.said(&["log", "--queue-id", &queue_id]);
    let page = stage.get(&link).body;
    if refused {
        for said in [&case, &log, &page] {
            let said = said
                .replace("undeliverable", "")
                .replace("delivered by", "");
            let said = said.replace("could not be delivered securely", "");
            let said = said.replace("it was delivered securely, came back as", "");
            assert!(!said.contains("delivered"), "{said}");
        }
    }
    if others {
        stage.in_queue(&queue_id, "deferred");
        assert_eq!(stage.pending(&queue_id), ["bob@plain.test"]);
        assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
    } else {
        stage.queues_are_empty();
    }
    if state == "gone" {
        assert!(
            case.contains("how it ended was not seen") || case.contains("delivered or returned")
        );
        return false;
    }
    assert_eq!(state, if refused { "returned" } else { "delivered" });
    assert!(log.contains(&format!("now {state}")), "{log}");
    if refused {
        assert!(page.contains("Returned to you"), "{page}");
        // The server's words, as the bounce log had them, if it was there long enough to be read.
        return case.contains("554 5.7.1");
    }
    true
}

#[test]
fn who_is_refused_while_a_decision_waits_is_not_called_delivered() {
    common::seen_in_time(|_| click_for_one_under_way(true, false));
    common::seen_in_time(|_| click_for_one_under_way(true, true));
}

#[test]
fn who_is_delivered_while_a_decision_waits_is_called_so() {
    common::seen_in_time(|_| click_for_one_under_way(false, false));
    common::seen_in_time(|_| click_for_one_under_way(false, true));
}

#[test]
fn of_whom_nobody_saw_the_end_nothing_is_claimed() {
    let stage = Stage::new();
    let to = ["eve@slowplain.test", "bob@plain.test"];
    let (queue_id, link) = stage.stuck(&to, "unseen");
    stage.in_queue(&queue_id, "deferred");
    stage.route("slowplain.test", "slow.test");
    stage.flush(&queue_id);
    stage.wait("the slow delivery to begin", || {
        (stage.attempts("eve@slowplain.test") > 0).then_some(())
    });
    let answer = stage.post(&link, "action=send&recipient=eve%40slowplain.test");
    assert!(answer.body.contains("Recorded: it will be"), "{answer:?}");
    // The decision stands, and no mover sees the mark.
    stage.sandbox.stop_httpd();
    stage.arrival("eve@slowplain.test");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), ["bob@plain.test"]);
    stage.sandbox.start_httpd(&[]).expect("posttls-httpd");
    stage.becomes(&queue_id, "eve@slowplain.test", "gone");
    let case = stage.said(&["case", &queue_id]);
    assert!(case.contains("how it ended was not seen"), "{case}");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.attempts("eve@slowplain.test"), 1);
}
