//! Many messages of one sender: one mail at once, the others together in one mail at the end of the window, and never
//! more mail than the ceilings allow.

mod common;

use common::Stage;
use posttls::link::Keys;

const ONE_FIRST: (&str, &str, &str) = ("limits", "first", "1");

fn send_many(stage: &Stage, count: usize) {
    std::thread::scope(|scope| {
        for number in 0..count {
            scope.spawn(move || stage.send(&["bob@plain.test"], &format!("storm{number}")));
        }
    });
    stage.wait("all cases", || {
        (stage.store().cases(None).expect("cases").len() == count).then_some(())
    });
}

#[test]
fn many_messages_at_once_make_one_mail_now_and_one_later() {
    let stage = Stage::configured(&[ONE_FIRST]);
    send_many(&stage, 20);
    let first = stage.has_mails(1).remove(0);
    assert!(
        first.subject.starts_with("Not sent yet: storm"),
        "{first:?}"
    );
    assert!(first.in_reply_to.is_some());
    assert!(stage.log().contains("is told later"), "{}", stage.log());

    stage.minutes_pass(11);
    let digest = stage.has_mails(2).remove(1);
    assert_eq!(digest.subject, "Not sent yet: 19 messages");
    assert_eq!(
        digest.in_reply_to, None,
        "it is no reply to any one of them"
    );
    assert!(
        digest
            .text
            .contains("19 of your messages have not been sent")
    );
    assert!(digest.raw.contains("Auto-Submitted: auto-generated"));
    assert_eq!(stage.number_of("SELECT count(*) FROM owed"), 0);
    assert_eq!(
        stage.number_of("SELECT count(*) FROM cases WHERE notified_at IS NULL"),
        0
    );
    assert_eq!(
        stage.number_of("SELECT count(*) FROM cases WHERE remind_at IS NULL"),
        0
    );
    // Its link is to all messages of this sender.
    let token = digest.link("/s/").rsplit('/').next().unwrap().to_owned();
    let keys = Keys::load(&stage.dir().join("key")).expect("a key");
    let now = posttls::case::store::now_ms() / 1000;
    let id = keys
        .verify(&token, now + 5 * 86_400)
        .expect("a link that stays valid");
    let sender = stage
        .store()
        .sender(id)
        .expect("a store")
        .expect("a sender");
    assert_eq!(sender.as_str(), "alice@sender.test");

    // The digest began a window of its own; at its end a single message is told of as ever.
    let late = stage.send(&["bob@plain.test"], "straggler");
    stage.wait("the hook to leave it", || {
        let log = stage.log();
        log.contains(&format!("{late}: from=<alice@sender.test>, is told later"))
            .then_some(())
    });
    stage.has_mails(2);
    stage.minutes_pass(11);
    let single = stage.has_mails(3).remove(2);
    assert_eq!(single.subject, "Not sent yet: straggler");
    assert_eq!(stage.get(&single.link("/c/")).status, 200);
}

#[test]
fn other_senders_are_not_kept_waiting_by_a_storm() {
    let stage = Stage::configured(&[ONE_FIRST]);
    send_many(&stage, 3);
    let message = b"From: zoe@sender.test\r\nSubject: calm\r\n\r\nx\r\n";
    stage
        .sandbox
        .submit("zoe@sender.test", &["bob@plain.test"], message)
        .expect("taken");
    assert_eq!(stage.mail("Not sent yet: calm").to, "zoe@sender.test");
}

#[test]
fn what_is_decided_before_the_window_ends_is_not_told() {
    let stage = Stage::configured(&[ONE_FIRST]);
    send_many(&stage, 4);
    stage.has_mails(1);
    for case in stage.store().cases(None).expect("cases") {
        let id = case.key.queue_id.to_string();
        if case.subject != "storm3" && case.notified_at.is_none() {
            assert!(stage.posttls(&["delete", &id]).status.success());
        }
    }
    let left = stage.number_of("SELECT count(DISTINCT recipient_id) FROM owed");
    stage.minutes_pass(11);
    // Of those that waited one is left, unless it was the one that was told at once.
    let mails = stage.has_mails(1 + usize::try_from(left).unwrap());
    assert!(left <= 1);
    assert!(
        mails
            .iter()
            .any(|mail| mail.subject == "Not sent yet: storm3")
    );
}

#[test]
fn beyond_the_ceilings_mail_waits_and_the_admin_is_told() {
    let stage = Stage::configured(&[
        ("limits", "per_sender_hour", "2"),
        ("notification", "admin_address", "\"admin@sender.test\""),
    ]);
    for number in 0..4 {
        stage.send(&["bob@plain.test"], &format!("limit{number}"));
    }
    let alert = stage.mail("PostTLS: a sender has got as many mails as are allowed");
    assert_eq!(alert.to, "admin@sender.test");
    assert!(
        alert.text.contains("alice@sender.test") && alert.text.contains("limits.per_sender_hour")
    );
    stage.has_mails(3);
    // The ceiling counts an hour, and then the two that waited are told. Both fit beside those of the hour before.
    stage.minutes_pass(61);
    let mails = stage.has_mails(5);
    let told = mails
        .iter()
        .filter(|mail| mail.subject.starts_with("Not sent yet: limit"));
    assert_eq!(told.count(), 4);
}

#[test]
fn the_ceiling_for_all_holds_for_everybody() {
    let stage = Stage::configured(&[
        ("limits", "per_hour", "1"),
        ("notification", "admin_address", "\"admin@sender.test\""),
    ]);
    stage.stuck(&["bob@plain.test"], "first");
    let message = b"From: zoe@sender.test\r\nSubject: second\r\n\r\nx\r\n";
    stage
        .sandbox
        .submit("zoe@sender.test", &["bob@plain.test"], message)
        .expect("taken");
    let alert = stage.mail("PostTLS: senders have got as many mails as are allowed");
    assert!(alert.text.contains("zoe@sender.test"), "{}", alert.text);
    stage.has_mails(2);
    stage.minutes_pass(61);
    stage.mail("Not sent yet: second");
}
