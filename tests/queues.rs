//! The ways in which queues differ: queue IDs, hashing, holds of an admin, a stopped instance, other file systems.

mod common;

use std::path::Path;

use common::mount::Small;
use common::{Stage, came_over_tls};
use posttls::sandbox::{Instance, UpOptions};

/// Releases one of two recipients, then deletes the other.
fn moves_cross(stage: &Stage) -> String {
    let to = ["bob@plain.test", "eve@plain.test"];
    let (queue_id, link) = stage.stuck(&to, "crossing");
    let answer = stage.post(&link, "action=send&recipient=bob%40plain.test");
    assert_eq!(answer.status, 200);
    let mail = stage.arrival("bob@plain.test");
    assert!(mail.contains("body of crossing") && !came_over_tls(&mail));
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), ["eve@plain.test"]);
    assert_eq!(stage.post(&link, "action=delete").status, 200);
    stage.queues_are_empty();
    stage.spools_are_clean();
    assert_eq!(to.map(|recipient| stage.attempts(recipient)), [1, 0]);
    queue_id
}

/// What the may instance calls a released message.
fn name_in_may(stage: &Stage) -> String {
    let log = stage.log();
    let rest = log.split("handed to the may instance as ").nth(1);
    let name = rest.and_then(|rest| rest.split_whitespace().next());
    name.expect("a queue ID").to_owned()
}

/// Only long queue IDs have a "z": microseconds, z, inode number.
fn is_long(queue_id: &str) -> bool {
    queue_id.contains('z')
}

#[test]
fn long_queue_ids_in_encrypt() {
    let stage = Stage::with(|options| options.long_queue_ids(Instance::Encrypt));
    assert!(is_long(&moves_cross(&stage)));
    assert!(!is_long(&name_in_may(&stage)));
}

#[test]
fn long_queue_ids_in_may() {
    let stage = Stage::with(|options| options.long_queue_ids(Instance::May));
    assert!(!is_long(&moves_cross(&stage)));
    // Its name is the one that the copy was given: Postfix takes either kind, whatever it gives itself.
    assert!(!is_long(&name_in_may(&stage)));
}

#[test]
fn long_queue_ids_in_both_and_all_queues_hashed_twice() {
    let names = "active, bounce, defer, deferred, flush, hold, incoming";
    let stage = Stage::with(|options| {
        options
            .long_queue_ids(Instance::Encrypt)
            .long_queue_ids(Instance::May)
            .hash_queues(names, 2)
    });
    assert!(is_long(&moves_cross(&stage)));
    // Its name is the one that the copy was given: Postfix takes either kind, whatever it gives itself.
    assert!(!is_long(&name_in_may(&stage)));
}

#[test]
fn short_queue_ids_and_the_hold_queue_hashed_twice() {
    let stage = Stage::with(|options| options.hash_queues("deferred hold", 2));
    let hold = stage.sandbox.queue_dir(Instance::Encrypt).join("hold");
    let id = moves_cross(&stage);
    assert!(!is_long(&id));
    // It was there: Postfix makes these directories only when it needs them.
    assert!(hold.join(&id[..1]).join(&id[1..2]).is_dir());
}

#[test]
fn none_of_these_queues_hashed() {
    moves_cross(&Stage::with(|options| options.hash_queues("corrupt", 1)));
}

/// Puts a message on hold as an administrator, and waits until PostTLS knows.
fn hold(stage: &Stage, queue_id: &str) {
    stage.in_queue(queue_id, "deferred");
    stage.watched(queue_id);
    stage.run("postsuper", Instance::Encrypt, &["-h", queue_id]);
    stage.in_queue(queue_id, "hold");
    stage.wait("PostTLS to see the hold", || {
        stage.case(queue_id)["held_at"].is_i64().then_some(())
    });
}

/// The message lies where it lay, and nobody got it.
fn is_held(stage: &Stage, queue_id: &str, to: &[&str]) {
    let place = stage.sandbox.queue_of(Instance::Encrypt, queue_id);
    assert_eq!(place, Some("hold"));
    for recipient in to {
        assert_eq!(stage.attempts(recipient), 0, "{recipient}");
    }
    assert_eq!(stage.pending(queue_id).len(), to.len());
}

fn let_go(stage: &Stage, queue_id: &str) {
    stage.run("postsuper", Instance::Encrypt, &["-H", queue_id]);
}

#[test]
fn what_an_admin_holds_stays_until_the_admin_lets_it_go() {
    let stage = Stage::new();
    let to = ["bob@plain.test", "eve@plain.test"];
    let (queue_id, link) = stage.stuck(&to, "held");
    hold(&stage, &queue_id);
    let holds = "Your administrator is holding this message";
    assert!(stage.get(&link).body.contains(holds));
    let said = stage.said(&["case", &queue_id]);
    assert!(said.contains("ON HOLD by an administrator since"), "{said}");
    let answer = stage.post(&link, "action=send&recipient=bob%40plain.test");
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .body
            .contains("Your administrator is holding the message"),
        "{answer:?}"
    );
    assert!(!answer.body.contains("repair"), "{answer:?}");
    // A click of the sender, one of the admin, a restart, and some tries in the background do not move it.
    stage.posttls(&["delete", &queue_id, "--recipient", "eve@plain.test"]);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    is_held(&stage, &queue_id, &to);
    stage.sandbox.stop_httpd();
    stage.sandbox.start_httpd(&[]).expect("posttls-httpd");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    is_held(&stage, &queue_id, &to);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "releasing");
    assert_eq!(stage.states(&queue_id)["eve@plain.test"], "deleting");

    stage.watched(&queue_id);
    let_go(&stage, &queue_id);
    stage.arrival("bob@plain.test");
    stage.becomes(&queue_id, "bob@plain.test", "released");
    stage.becomes(&queue_id, "eve@plain.test", "deleted");
    stage.queues_are_empty();
    assert_eq!(to.map(|recipient| stage.attempts(recipient)), [1, 0]);
    let case = stage.case(&queue_id);
    let events = case["events"].as_array().expect("events");
    for what in ["held", "let-go"] {
        let count = events.iter().filter(|event| event["what"] == what).count();
        assert_eq!(count, 1, "{what}: {case}");
    }
}

#[test]
fn what_is_let_go_before_anybody_decides_is_as_it_was() {
    let stage = Stage::new();
    let to = ["bob@plain.test", "eve@plain.test"];
    let (queue_id, link) = stage.stuck(&to, "let-go");
    let words = "Your administrator is holding this message";
    hold(&stage, &queue_id);
    stage.wait("PostTLS to see that it is held", || {
        (!stage.case(&queue_id)["held_at"].is_null()).then_some(())
    });
    assert!(stage.get(&link).body.contains(words));
    let_go(&stage, &queue_id);
    stage.wait("PostTLS to see that it is free", || {
        stage.case(&queue_id)["held_at"].is_null().then_some(())
    });
    assert!(!stage.get(&link).body.contains(words));
    stage.in_queue(&queue_id, "deferred");
    let answer = stage.post(&link, "action=send&recipient=bob%40plain.test");
    assert_eq!(answer.status, 200);
    stage.arrival("bob@plain.test");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), ["eve@plain.test"]);
    // A hold of ours is nobody else's.
    assert!(stage.case(&queue_id)["held_at"].is_null());
    let case = stage.case(&queue_id);
    let events = case["events"].as_array().expect("events");
    assert_eq!(events.iter().filter(|one| one["what"] == "held").count(), 1);
}

#[test]
fn a_stopped_may_instance_delivers_when_it_starts() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "patient");
    stage.in_queue(&queue_id, "deferred");
    stage.wait("the may instance to be idle", || {
        stage.has_nothing(Instance::May).then_some(())
    });
    stage.run("postfix", Instance::May, &["stop"]);
    let answer = stage.post(&link, "action=send");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "released");
    assert_eq!(stage.sandbox.queue_of(Instance::Encrypt, &queue_id), None);
    assert_eq!(stage.sandbox.queue(Instance::May)["incoming"].len(), 1);
    assert_eq!(stage.attempts("bob@plain.test"), 0);
    stage.run("postfix", Instance::May, &["start"]);
    stage.arrival("bob@plain.test");
    stage.queues_are_empty();
    assert_eq!(stage.attempts("bob@plain.test"), 1);
}

#[test]
fn spools_on_different_file_systems() {
    let directory = tempfile::Builder::new()
        .prefix("posttls-spool-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .expect("a directory");
    let Some(_mounted) = Small::mount(directory.path(), 64 << 10) else {
        return;
    };
    let spool = directory.path().join("spool");
    let with_spool = |options: UpOptions| options.spool(Instance::May, &spool);
    let stage = Stage::with(with_spool);
    let device = |path: &Path| {
        let metadata = std::fs::metadata(path).expect("a directory");
        std::os::unix::fs::MetadataExt::dev(&metadata)
    };
    assert_ne!(
        device(&stage.sandbox.queue_dir(Instance::Encrypt)),
        device(&stage.sandbox.queue_dir(Instance::May))
    );
    moves_cross(&stage);
    drop(stage);
}
