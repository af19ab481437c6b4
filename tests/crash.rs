//! The mover dies at every named point of a move, and comes back: nobody gets the message twice, nobody misses it.
//!
//! `FAILPOINTS="NAME=panic"` ends the mover by SIGABRT at that point, as suddenly as a power failure would end it.
#![cfg(feature = "failpoints")]

mod common;
mod moving;

use std::thread;

use common::{Stage, try_request};
use moving::{Fate, Message, POINTS, die_at};
use posttls::case::{Action, Actor};
use posttls::sandbox::Instance;
use rustix::process::Signal;

use Fate::{Deleted, Sent, Waits};

#[test]
fn the_table_has_every_point_of_the_move_in_its_order() {
    let source = include_str!("../src/mover/steps.rs");
    let mut found: Vec<&str> = source
        .split("fail_point!(\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    let mut known: Vec<&str> = POINTS.iter().map(|point| point.name).collect();
    found.sort_unstable();
    known.sort_unstable();
    assert_eq!(known, found);
}

/// Dies once at every point that a decision of this mix passes, and recovers.
fn at_every_point(fates: &[Fate]) {
    let stage = Stage::new();
    let mut messages = Vec::new();
    for point in POINTS.iter().filter(|point| point.is_passed_by(fates)) {
        let message = Message::send(&stage, &point.tag(), fates);
        die_at(&stage, point, &message);
        stage.sandbox.start_httpd(&[]).expect("it starts again");
        message.has_come_right(&stage, point.name);
        messages.push(message);
    }
    nothing_happens_later(&stage, &messages);
}

/// Whatever Postfix still does by itself doubles nothing.
fn nothing_happens_later(stage: &Stage, messages: &[Message]) {
    stage
        .sandbox
        .run("postqueue", Instance::Encrypt, &["-f"])
        .expect("a queue run");
    for message in messages {
        message.has_come_right(stage, "later");
    }
}

#[test]
fn one_of_two_is_sent() {
    at_every_point(&[Sent, Waits]);
}

#[test]
fn both_of_two_are_sent() {
    at_every_point(&[Sent, Sent]);
}

#[test]
fn the_only_one_is_deleted() {
    at_every_point(&[Deleted]);
}

#[test]
fn one_is_sent_one_deleted_and_one_goes_on_trying() {
    at_every_point(&[Sent, Deleted, Waits]);
}

#[test]
fn it_dies_at_the_same_point_again_while_it_recovers() {
    let stage = Stage::new();
    let mut messages = Vec::new();
    for point in &POINTS {
        let message = Message::send(&stage, &point.tag(), &[Sent, Deleted, Waits]);
        die_at(&stage, point, &message);
        // Points that recovery does not pass again let it come up.
        if stage.sandbox.start_httpd(&[point.panic()]).is_ok() {
            stage.sandbox.stop_httpd();
        }
        stage.sandbox.start_httpd(&[]).expect("it starts again");
        message.has_come_right(&stage, point.name);
        messages.push(message);
    }
    nothing_happens_later(&stage, &messages);
}

#[test]
fn it_dies_at_one_point_after_the_other() {
    let stage = Stage::new();
    let message = Message::send(&stage, "chain", &[Sent, Deleted, Waits]);
    die_at(&stage, &POINTS[0], &message);
    let mut deaths = 0;
    for point in &POINTS[1..] {
        match stage.sandbox.start_httpd(&[point.panic()]) {
            Ok(()) => stage.sandbox.stop_httpd(),
            Err(_) => deaths += 1,
        }
        assert!(
            stage.sandbox.delivered(&message.sent()[0]).len() <= 1,
            "{}",
            point.name
        );
    }
    assert_eq!(deaths, POINTS.len() - 1, "recovery passes every point");
    stage.sandbox.start_httpd(&[]).expect("it starts again");
    message.has_come_right(&stage, "chain");
}

#[test]
fn killed_in_its_sleep_it_recovers_as_well() {
    let stage = Stage::new();
    for name in [
        "move::held",
        "move::published",
        "move::marked",
        "move::requeued-unsaid",
        "move::finished-unsaid",
    ] {
        let point = POINTS
            .iter()
            .find(|point| point.name == name)
            .expect("a point");
        let message = Message::send(&stage, &point.tag(), &[Sent, Deleted, Waits]);
        stage.sandbox.stop_httpd();
        stage
            .sandbox
            .start_httpd(&[point.acts("sleep(60000)")])
            .expect("it starts");
        thread::scope(|scope| {
            scope.spawn(|| stage.post_into_the_dark(&message.link, &message.form));
            stage.wait(point.name, || {
                point.is_reached(&stage, &message).then_some(())
            });
            stage.signal_mover(Signal::KILL);
        });
        stage.wait("its end", || {
            stage.sandbox.httpd_pid().is_none().then_some(())
        });
        stage.sandbox.start_httpd(&[]).expect("it starts again");
        message.has_come_right(&stage, point.name);
    }
}

#[test]
fn many_moves_under_way_all_come_right() {
    let stage = Stage::new();
    let messages: Vec<Message> = (0..8)
        .map(|n| Message::send(&stage, &format!("many{n}"), &[Sent, Deleted, Waits]))
        .collect();
    stage.sandbox.stop_httpd();
    // Three get past it, and where the others are by then is anybody's guess.
    stage
        .sandbox
        .start_httpd(&[(
            "FAILPOINTS".to_owned(),
            "move::written=3*off->panic".to_owned(),
        )])
        .expect("it starts");
    thread::scope(|scope| {
        for message in &messages {
            scope.spawn(|| stage.post_into_the_dark(&message.link, &message.form));
        }
    });
    stage.wait("its end", || {
        stage.sandbox.httpd_pid().is_none().then_some(())
    });
    stage.sandbox.start_httpd(&[]).expect("it starts again");
    for message in &messages {
        // Those whose form the mover never read are decided now. For a moment the dead mover's web child may still answer.
        stage.wait("an answer", || {
            let answer = try_request("POST", &message.link, &message.form).ok()?;
            (answer.status == 200).then_some(())
        });
    }
    nothing_happens_later(&stage, &messages);
}

/// A move is half-way and can't go on: another one of the same message waits for it, and as long as the first is half-way,
/// nobody is delivered to.
#[test]
fn a_move_that_cannot_go_on_keeps_another_of_the_message_waiting() {
    let stage = Stage::new();
    let message = Message::send(&stage, "two", &[Sent, Deleted, Waits]);
    let point = POINTS.iter().find(|one| one.name == "move::published");
    let mut forms: Vec<String> = message.form.split('&').map(str::to_owned).collect();
    forms.sort_by_key(|form| form.ends_with("delete"));
    let only_sent = Message {
        queue_id: message.queue_id.clone(),
        link: message.link.clone(),
        form: forms[0].clone(),
        to: message.to.clone(),
    };
    die_at(&stage, point.expect("a point"), &only_sent);
    let store = stage.store();
    let case = stage.known(&message.queue_id).id;
    let number = stage.number(&message.queue_id, "two-2@plain.test");
    let recipients = store.recipients(case).expect("recipients");
    let recipient = recipients
        .iter()
        .find(|one| one.number == number.cast_signed())
        .expect("a recipient");
    let choice = [(recipient.id, Action::Delete)];
    let decided = store.decide(case, &choice, Actor::Link, "::1", None);
    let second = decided.expect("a decision").planned.expect("a move");
    // The file system of the may instance is not there.
    let hold = stage.sandbox.queue_dir(Instance::May).join("hold");
    let away = hold.with_file_name("away");
    std::fs::rename(&hold, &away).expect("a directory");
    stage.sandbox.start_httpd(&[]).expect("it starts again");
    stage.wait("a try", || {
        let log = stage.log();
        (log.matches(&format!("{}: cannot look for", message.queue_id))
            .count()
            > 1)
        .then_some(())
    });
    let unfinished = store.unfinished_moves().expect("a journal");
    assert!(
        unfinished.iter().any(|(id, _)| *id == second),
        "{unfinished:?}"
    );
    stage.in_queue(&message.queue_id, "hold");
    std::fs::rename(&away, &hold).expect("a directory");
    message.has_come_right(&stage, "both");
    nothing_happens_later(&stage, &[message]);
}
