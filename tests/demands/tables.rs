//! Tables that fail, and tables that hang.

use std::thread;
use std::time::{Duration, Instant};

use posttls::mover::{Envelope, Ways};
use posttls::sandbox::Instance;
use posttls::standing::Standing;

use crate::common::{Stage, came_over_tls, link};
use crate::policies::{Policies, with, with_options};
use crate::{can_not_be_sent, flat, history, is, recipient};

#[test]
fn a_table_that_fails_makes_nothing_weaker_and_is_asked_again() {
    let policies = Policies::start();
    let stage = with_options(&policies, |options| options.httpd(false));
    // Nobody can be asked: the sender hears at once, and truthfully.
    let queue_id = stage.send(&["bob@plain.test"], "unjudged");
    let mail = stage.notification(&queue_id);
    assert!(flat(&mail).contains("still checking whether"), "{mail}");
    assert!(!mail.contains("Our rules do not allow"), "{mail}");
    is(&stage, &queue_id, "unjudged", "open");
    policies.set(&stage, "plain.test", "TEMP out of order");
    stage.sandbox.start_httpd(&[]).expect("a daemon");
    stage.logged("not judged, so not to be sent");
    is(&stage, &queue_id, "unjudged", "open");
    can_not_be_sent(&stage, &queue_id, &link(&mail), "bob@plain.test");
    policies.set(&stage, "plain.test", "NOTFOUND ");
    stage.wait("a judgement", || {
        let one = recipient(&stage, &queue_id);
        (one["failure"] == "not-offered" && one["may_send"] == true).then_some(())
    });
    assert!(history(&stage, &queue_id).contains("could not be judged before"));
    // The sender was told once.
    assert_eq!(stage.sandbox.inbox().len(), 1);
    policies.set(&stage, "plain.test", "TEMP out of order");
    thread::sleep(std::time::Duration::from_secs(6));
    // What can't be asked when it is to be sent waits.
    let answer = stage.post(&link(&mail), "action=send&seen=1");
    assert_eq!(answer.status, 200);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "releasing");
    assert_eq!(stage.attempts("bob@plain.test"), 0);
    policies.set(&stage, "plain.test", "NOTFOUND ");
    assert!(!came_over_tls(&stage.arrival("bob@plain.test")));
}

#[test]
fn one_that_can_not_be_judged_keeps_no_other_recipient_waiting() {
    let policies = Policies::start();
    let stage = with(&policies);
    let (bob, ann, eve) = ("bob@plain.test", "ann@broken.test", "eve@refuse.test");
    let (queue_id, page) = stage.stuck(&[bob, ann, eve], "one-of-three");
    policies.set(&stage, "plain.test", "TEMP out of order");
    // An answer counts for some seconds.
    thread::sleep(std::time::Duration::from_secs(6));
    stage.in_queue(&queue_id, "deferred");
    let number = |to| stage.number(&queue_id, to);
    let form = format!(
        "choice-{}=send&choice-{}=send&choice-{}=delete",
        number(bob),
        number(ann),
        number(eve)
    );
    let answer = stage.post(&page, &form);
    assert!(!answer.body.contains("cannot be chosen"), "{answer:?}");
    assert!(!came_over_tls(&stage.arrival(ann)));
    stage.becomes(&queue_id, ann, "released");
    stage.becomes(&queue_id, eve, "deleted");
    assert_eq!(stage.states(&queue_id)[bob], "releasing");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.attempts(bob) + stage.attempts(eve), 0);
    let history = history(&stage, &queue_id);
    assert!(
        history.contains("not judged, so not to be sent"),
        "{history}"
    );
    let shown = stage.get(&page).body;
    assert!(shown.contains("could not be carried out yet"), "{shown}");
    // A mover that is killed then knows of both.
    stage.sandbox.stop_httpd();
    policies.set(&stage, "plain.test", "NOTFOUND ");
    stage.sandbox.start_httpd(&[]).expect("a daemon");
    assert!(!came_over_tls(&stage.arrival(bob)));
    stage.becomes(&queue_id, bob, "released");
    assert_eq!(stage.sandbox.delivered(ann).len(), 1);
    stage.queues_are_empty();
}

/// How long the hook took with the last notice, as pipe(8) says: the last of its delays.
fn hook_took(stage: &Stage) -> Option<f64> {
    let log = stage.sandbox.log(Instance::Encrypt);
    let mut lines = log.lines().rev();
    let line = lines.find(|line| line.contains("relay=posttls,"))?;
    let (_, delays) = line.split_once("delays=")?;
    delays.split(',').next()?.rsplit('/').next()?.parse().ok()
}

#[test]
fn a_table_that_hangs_keeps_no_sender_waiting_and_is_asked_again_soon() {
    let policies = Policies::start();
    let stage = Stage::with(|options| {
        let table = policies.table();
        options.main_cf(Instance::Encrypt, "smtp_tls_policy_maps", &table)
    });
    // What smtp(8) asks is answered.
    policies.hang(false, true);
    let queue_id = stage.send(&["bob@plain.test"], "hanging");
    let mail = stage.notification(&queue_id);
    assert!(flat(&mail).contains("still checking whether"), "{mail}");
    is(&stage, &queue_id, "unjudged", "open");
    // Before the mover itself has given the table up.
    stage.logged("has not found it out within 800 ms, and goes on asking");
    let took = stage.wait("the hook's end", || hook_took(&stage));
    assert!(took < 5.0, "{took}");
    can_not_be_sent(&stage, &queue_id, &link(&mail), "bob@plain.test");
    stage.logged("not judged, so not to be sent");
    policies.hang(false, false);
    // Long before the next sweep, which comes once a minute here.
    let answers = Instant::now();
    let judged = || {
        let one = recipient(&stage, &queue_id);
        one["failure"] == "not-offered" && one["may_send"] == true
    };
    while !judged() {
        assert!(answers.elapsed() < Duration::from_secs(50), "not judged");
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(stage.sandbox.inbox().len(), 1);
}

#[test]
fn a_table_that_hangs_is_waited_for_once_however_many_next_hops_there_are() {
    let policies = Policies::start();
    let stage = with_options(&policies, |options| options.httpd(false));
    let config = stage.sandbox.config_dir(Instance::Encrypt);
    let table = config.join("transport");
    let before = std::fs::read_to_string(&table).expect("a table");
    let routes: String = (0..100)
        .map(|n| format!("d{n}.test smtp:hop{n}.test\n"))
        .collect();
    std::fs::write(&table, routes + &before).expect("written");
    stage.reload(Instance::Encrypt);
    let instance = posttls::postfix::Instance::load(&config).expect("an instance");
    let ways = Ways::new(&[]);
    let ask = |n: usize| {
        let to = format!("bob@d{n}.test").parse().expect("an address");
        ways.standing(
            &instance,
            &Envelope::default(),
            "alice@sender.test",
            &to,
            None,
        )
    };
    policies.hang(true, false);
    let begun = Instant::now();
    for n in 0..100 {
        let standing = ask(n);
        assert!(matches!(&standing, Standing::Unknown(_)), "{standing:?}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    // A try after each pause; smtp(8) asks nothing here.
    assert!(policies.asked() <= 8, "{}", policies.asked());
    policies.hang(false, false);
    thread::sleep(Duration::from_secs(6));
    assert_eq!(ask(99), Standing::Free);
    assert_eq!(ask(98), Standing::Free);
}
