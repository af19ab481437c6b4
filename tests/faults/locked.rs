//! Another process keeps the store locked: at the notice, at the click, and in the middle of a move.

use std::thread;
use std::time::Duration;

use crate::common::{Stage, request};
use crate::kit::lock;

/// Both wait for ten seconds, so they do it at the same time.
#[test]
fn by_another_process() {
    thread::scope(|scope| {
        scope.spawn(at_the_notice_and_at_the_click);
        scope.spawn(in_the_middle_of_a_move);
    });
}

fn at_the_notice_and_at_the_click() {
    let stage = Stage::new();
    let (first, link) = stage.stuck(&["bob@plain.test"], "first");
    let other = lock(&stage);
    let second = stage.send(&["eve@plain.test"], "second");
    thread::scope(|scope| {
        let click = scope.spawn(|| request("POST", &link, "action=send"));
        // Who only looks need not wait for who writes.
        thread::sleep(Duration::from_millis(300));
        let asked = std::time::Instant::now();
        let page = stage.get(&link);
        assert_eq!(page.status, 200);
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "{:?}",
            asked.elapsed()
        );
        let answer = click.join().expect("an answer");
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.head.contains("Retry-After: 30"), "{answer:?}");
        assert!(
            answer.body.contains("Your message is safe"),
            "{}",
            answer.body
        );
    });
    stage.logged("another process has held it for too long");
    stage.notice_waits(&[&first, &second]);
    let mailq = stage.run("postqueue", posttls::sandbox::Instance::Encrypt, &["-p"]);
    assert!(
        mailq.contains("another process has held it for too long"),
        "{mailq}"
    );
    // Reading goes on, for the admin, too.
    assert_eq!(stage.states(&first)["bob@plain.test"], "open");
    drop(other);
    let answer = stage.post(&link, "action=send");
    assert_eq!(answer.status, 200, "{answer:?}");
    stage.becomes(&first, "bob@plain.test", "released");
    stage.flush_all();
    let link = crate::common::link(&stage.notification(&second));
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.ends_well(&["bob@plain.test", "eve@plain.test"]);
    assert_eq!((stage.told(&first), stage.told(&second)), (1, 1));
}

fn in_the_middle_of_a_move() {
    let stage = Stage::with(|options| options.httpd(false));
    let pause = (
        "FAILPOINTS".to_owned(),
        "move::copied=sleep(1500)".to_owned(),
    );
    stage.sandbox.start_httpd(&[pause]).expect("it starts");
    let (queue_id, link) = stage.stuck(&["bob@plain.test", "eve@plain.test"], "half-way");
    stage.in_queue(&queue_id, "deferred");
    thread::scope(|scope| {
        let click =
            scope.spawn(|| request("POST", &link, "action=send&recipient=bob%40plain.test"));
        stage.in_queue(&queue_id, "hold");
        let other = lock(&stage);
        let answer = click.join().expect("an answer");
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(stage.states(&queue_id)["bob@plain.test"], "releasing");
        assert_eq!(stage.arrivals("bob@plain.test").len(), 0);
        drop(other);
    });
    stage.arrival("bob@plain.test");
    stage.becomes(&queue_id, "bob@plain.test", "released");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), ["eve@plain.test"]);
    let page = stage.get(&link).body;
    assert!(page.contains("bob@plain.test"), "{page}");
    assert_eq!(stage.post(&link, "action=delete").status, 200);
    stage.ends_well(&["bob@plain.test"]);
    assert_eq!(stage.attempts("eve@plain.test"), 0);
}
