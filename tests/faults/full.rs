//! Full file systems: that of the store at the notice, at the click and in the middle of a move; that of either spool.

use std::thread;

use posttls::sandbox::Instance;

use crate::common::mount::Small;
use crate::common::{Stage, link, request};
use crate::kit::make_store;

/// A stage whose store is on a small file system, with this failpoint in its mover.
fn small_store(points: &str) -> Option<(Small, Stage)> {
    let stage = Stage::with(|options| options.httpd(false));
    let mount = Small::mount(&stage.dir().join("state"), 1024)?;
    make_store(&stage);
    let points = [("FAILPOINTS".to_owned(), points.to_owned())];
    stage.sandbox.start_httpd(&points).expect("it starts");
    Some((mount, stage))
}

#[test]
fn the_store_at_the_notice_and_at_the_click() {
    let Some((mount, stage)) = small_store("") else {
        return;
    };
    let (first, page) = stage.stuck(&["bob@plain.test"], "first");
    stage.in_queue(&first, "deferred");
    mount.fill();
    let answer = stage.post(&page, "action=send");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer.body.contains("Your message is safe"),
        "{}",
        answer.body
    );
    stage.logged("free some space on its file system");
    assert_eq!(stage.get(&page).status, 200);
    assert_eq!(stage.states(&first)["bob@plain.test"], "open");
    let second = stage.send(&["eve@plain.test"], "second");
    stage.notice_waits(&[&first, &second]);
    let mailq = stage.run("postqueue", Instance::Encrypt, &["-p"]);
    assert!(
        mailq.contains("file system"),
        "mailq says what to do: {mailq}"
    );
    assert!(stage.check_says("store-space").starts_with("fail"));
    assert_eq!(stage.told(&second), 0);

    mount.free();
    assert_eq!(stage.post(&page, "action=send").status, 200);
    stage.becomes(&first, "bob@plain.test", "released");
    stage.flush_all();
    let page = link(&stage.notification(&second));
    assert_eq!(stage.post(&page, "action=send").status, 200);
    stage.ends_well(&["bob@plain.test", "eve@plain.test"]);
    assert_eq!((stage.told(&first), stage.told(&second)), (1, 1));
    drop(mount);
}

/// The disk is full before the move has begun, and when the copy is ready but the journal does not know it.
#[test]
fn the_store_in_the_middle_of_a_move() {
    thread::scope(|scope| {
        for point in ["move::copied", "move::ready"] {
            scope.spawn(move || {
                let Some((mount, stage)) = small_store(&format!("{point}=sleep(1000)")) else {
                    return;
                };
                let (queue_id, page) = stage.stuck(&["bob@plain.test", "eve@plain.test"], "full");
                stage.in_queue(&queue_id, "deferred");
                thread::scope(|scope| {
                    let click = scope
                        .spawn(|| request("POST", &page, "action=send&recipient=bob%40plain.test"));
                    match point {
                        "move::copied" => stage.in_queue(&queue_id, "hold"),
                        _ => stage.wait("the mark", || {
                            (stage.pending(&queue_id) == ["eve@plain.test"]).then_some(())
                        }),
                    }
                    mount.fill();
                    let answer = click.join().expect("an answer");
                    assert_eq!(answer.status, 200, "{point}: {answer:?}");
                });
                stage.logged_about(&queue_id, "free some space on its file system");
                assert_eq!(stage.states(&queue_id)["bob@plain.test"], "releasing");
                assert_eq!(stage.arrivals("bob@plain.test").len(), 0, "{point}");
                mount.free();
                stage.arrival("bob@plain.test");
                stage.becomes(&queue_id, "bob@plain.test", "released");
                stage.in_queue(&queue_id, "deferred");
                assert_eq!(stage.pending(&queue_id), ["eve@plain.test"]);
                assert_eq!(stage.post(&page, "action=delete").status, 200);
                stage.ends_well(&["bob@plain.test"]);
                assert_eq!(stage.attempts("eve@plain.test"), 0);
                drop(mount);
            });
        }
    });
}

/// A stage with a spool on a small file system: large enough for mail of a few kB, by the sizes that Postfix looks at.
fn small_spool(instance: Instance) -> Option<(Small, Stage)> {
    let mut mount = None;
    let stage = Stage::with(|options| {
        let spool = options.dir.join("small");
        mount = Small::mount(&spool, 4096);
        let options = options
            .main_cf(instance, "message_size_limit", "100000")
            .main_cf(instance, "queue_minfree", "0");
        if mount.is_some() {
            options.spool(instance, spool.join("spool"))
        } else {
            options
        }
    });
    Some((mount?, stage))
}

#[test]
fn the_spool_of_the_may_instance() {
    let Some((mount, stage)) = small_spool(Instance::May) else {
        return;
    };
    let (queue_id, page) = stage.stuck(&["bob@plain.test", "eve@plain.test"], "no-room");
    stage.in_queue(&queue_id, "deferred");
    // Its own way of the notification is over.
    stage.wait("the may instance to be idle", || {
        stage.has_nothing(Instance::May).then_some(())
    });
    mount.fill();
    let answer = stage.post(&page, "action=send&recipient=bob%40plain.test");
    assert_eq!(answer.status, 200, "{answer:?}");
    let line = stage.logged_about(
        &queue_id,
        "copy the message into the queue of the may instance",
    );
    assert!(
        line.contains("free some space on its file system"),
        "{line}"
    );
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "releasing");
    // The other recipient need not wait for it.
    stage.in_queue(&queue_id, "deferred");
    // As an admin sees it a little later.
    stage.sql("UPDATE moves SET begun_at = begun_at - 120000");
    let said = stage.check_says("decisions");
    assert!(
        said.starts_with("warn") && said.contains(&queue_id),
        "{said}"
    );
    assert!(stage.check_says("may-space").starts_with("fail"));
    assert_eq!(stage.arrivals("bob@plain.test").len(), 0);

    mount.free();
    stage.arrival("bob@plain.test");
    stage.becomes(&queue_id, "bob@plain.test", "released");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.post(&page, "action=delete").status, 200);
    stage.ends_well(&["bob@plain.test"]);
    assert!(stage.check_says("decisions").starts_with("ok"));
    drop(mount);
}

/// Postfix accepts nothing when its spool is full; what was there before goes on, only that no notice can be written.
/// The census finds it.
#[test]
fn the_spool_of_the_encrypt_instance() {
    let Some((mount, stage)) = small_spool(Instance::Encrypt) else {
        return;
    };
    let (decided, page) = stage.stuck(&["bob@plain.test", "ann@plain.test"], "decided");
    stage.in_queue(&decided, "deferred");
    // Arrived, and not tried yet.
    stage.run(
        "postconf",
        Instance::Encrypt,
        &["-e", "defer_transports=smtp", "delay_warning_time=0h"],
    );
    stage.reload(Instance::Encrypt);
    let unheard = stage.send(&["eve@plain.test"], "unheard");
    stage.in_queue(&unheard, "deferred");
    mount.fill();
    let submitted = stage.sandbox.submit(
        "alice@sender.test",
        &["x@plain.test"],
        b"Subject: x\r\n\r\nx\r\n",
    );
    assert!(
        submitted.as_ref().is_err_and(
            |error| error.to_string().contains("452") || error.to_string().contains("451")
        ),
        "nobody is told that it was accepted: {submitted:?}"
    );
    // A decision needs no room in this spool.
    let answer = stage.post(&page, "action=send&recipient=bob%40plain.test");
    assert_eq!(answer.status, 200, "{answer:?}");
    stage.arrival("bob@plain.test");
    stage.becomes(&decided, "bob@plain.test", "released");
    stage.run(
        "postconf",
        Instance::Encrypt,
        &["-e", "defer_transports=", "delay_warning_time=1s"],
    );
    stage.reload(Instance::Encrypt);
    stage.flush(&unheard);
    stage.wait("the failure of the notice", || {
        let log = stage.sandbox.log(Instance::Encrypt);
        log.contains("No space left on device").then_some(())
    });
    stage.in_queue(&unheard, "deferred");
    assert_eq!(stage.told(&unheard), 0);
    assert!(stage.check_says("encrypt-space").starts_with("fail"));

    mount.free();
    // What Postfix does at its next queue run, and PostTLS within an hour.
    stage.flush(&unheard);
    stage.in_queue(&unheard, "deferred");
    let link = stage.wait("the sender to be told", || {
        stage.said(&["census"]);
        let reference = format!("(Reference: {unheard})");
        let inbox = stage.sandbox.inbox();
        let mails = inbox.iter().map(|mail| String::from_utf8_lossy(mail));
        mails
            .into_iter()
            .find(|mail| mail.contains(&reference))
            .map(|mail| link(&mail))
    });
    assert_eq!(stage.post(&link, "action=send").status, 200);
    assert_eq!(stage.post(&page, "action=delete").status, 200);
    stage.ends_well(&["bob@plain.test", "eve@plain.test"]);
    assert_eq!(stage.attempts("ann@plain.test"), 0);
    assert_eq!((stage.told(&decided), stage.told(&unheard)), (1, 1));
    drop(mount);
}
