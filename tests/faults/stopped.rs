//! Instances are stopped at the click. (The may instance alone: tests/queues.rs.)

use posttls::sandbox::Instance;

use crate::common::Stage;

fn idle(stage: &Stage, instance: Instance) {
    stage.wait("an idle instance", || {
        let queues = stage.sandbox.queue(instance);
        ["maildrop", "incoming", "active"]
            .iter()
            .all(|queue| queues[queue].is_empty())
            .then_some(())
    });
}

/// Releases one of two recipients while these are stopped, and starts them again.
fn stopped_at_the_click(stopped: &[Instance]) {
    let stage = Stage::new();
    let to = ["bob@plain.test", "eve@plain.test"];
    let (queue_id, link) = stage.stuck(&to, "stopped");
    stage.in_queue(&queue_id, "deferred");
    for instance in stopped {
        idle(&stage, *instance);
        stage.run("postfix", *instance, &["stop"]);
        let said = stage.check_says(&format!("{instance}-running"));
        assert!(said.starts_with("fail"), "{said}");
    }
    let answer = stage.post(&link, "action=send&recipient=bob%40plain.test");
    assert_eq!(answer.status, 200, "{answer:?}");
    // Whether TLS is demanded by now can't be asked while it is stopped: the decision is recorded, and waits.
    stage.logged_about(&queue_id, "is the encrypt instance stopped?");
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "releasing");
    assert_eq!(stage.attempts("bob@plain.test"), 0);
    for instance in stopped {
        stage.run("postfix", *instance, &["start"]);
    }
    stage.arrival("bob@plain.test");
    stage.becomes(&queue_id, "bob@plain.test", "released");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), ["eve@plain.test"]);
    stage.flush(&queue_id);
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.post(&link, "action=delete").status, 200);
    stage.ends_well(&["bob@plain.test"]);
    assert_eq!(stage.attempts("eve@plain.test"), 0);
    assert_eq!(stage.told(&queue_id), 1);
}

#[test]
fn the_encrypt_instance() {
    stopped_at_the_click(&[Instance::Encrypt]);
}

#[test]
fn both() {
    stopped_at_the_click(&[Instance::Encrypt, Instance::May]);
}
