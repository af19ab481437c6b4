//! Reminders: for whom, when, how often, and that they end.

mod common;

use common::Stage;
use posttls::case::store::now_ms;

const HOUR: i64 = 60;

/// When the reminder of a message is due, in minutes from now; `None` for never.
fn due(stage: &Stage, queue_id: &str) -> Option<i64> {
    let store = stage.store();
    let case = store
        .cases_of(&queue_id.parse().unwrap())
        .unwrap()
        .remove(0);
    let (at, _) = store.reminders_of(case.id).expect("reminders");
    at.map(|at| (at - now_ms()) / 60_000)
}

#[test]
fn who_has_not_decided_is_reminded_and_the_last_time_hears_that_it_is_the_last() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test", "ann@refuse.test"], "waiting");
    let first = stage.wait("a reminder to be planned", || due(&stage, &queue_id));
    assert!((3 * HOUR..4 * HOUR + 1).contains(&first), "{first}");

    stage.minutes_pass(4 * HOUR);
    let reminder = stage.mail("Reminder: not sent yet: waiting");
    assert_eq!(
        reminder.in_reply_to.as_deref(),
        Some("<waiting@sender.test>")
    );
    assert!(reminder.text.contains("still waiting") && !reminder.text.contains("last reminder"));
    assert!(reminder.text.contains("bob@plain.test") && reminder.text.contains("ann@refuse.test"));
    assert!(reminder.raw.contains("Auto-Submitted: auto-generated"));
    // The old link and the new one open the same page.
    for link in [&link, &reminder.link("/c/")] {
        let page = stage.get(link);
        assert!(
            page.status == 200 && page.body.contains("bob@plain.test"),
            "{page:?}"
        );
    }
    // One of two decided: the other is still asked about.
    assert_eq!(
        stage
            .post(&link, "action=delete&recipient=ann%40refuse.test")
            .status,
        200
    );
    stage.becomes(&queue_id, "ann@refuse.test", "deleted");
    let second = due(&stage, &queue_id).expect("another one");
    assert!((19 * HOUR..20 * HOUR + 1).contains(&second), "{second}");

    stage.minutes_pass(20 * HOUR);
    let last = stage.mail("Last reminder: not sent yet: waiting");
    assert!(
        last.text
            .contains("This is the last reminder. Our mail server gives up on"),
        "{}",
        last.text
    );
    assert!(!last.text.contains("ann@refuse.test"), "{}", last.text);
    stage.wait("the end", || due(&stage, &queue_id).is_none().then_some(()));
    stage.minutes_pass(100 * HOUR);
    stage.has_mails(3);
    let events = stage.case(&queue_id)["events"].to_string();
    assert_eq!(events.matches("\"reminded\"").count(), 2, "{events}");
}

#[test]
fn who_has_decided_or_keeps_trying_is_left_in_peace() {
    let stage = Stage::new();
    let (_, kept) = stage.stuck(&["bob@plain.test"], "kept");
    let (_, deleted) = stage.stuck(&["bob@plain.test"], "deleted");
    let (_, partly) = stage.stuck(&["bob@plain.test", "ann@refuse.test"], "partly");
    assert_eq!(stage.post(&kept, "action=keep").status, 200);
    assert_eq!(stage.post(&deleted, "action=delete").status, 200);
    assert_eq!(
        stage
            .post(&partly, "action=keep&recipient=bob%40plain.test")
            .status,
        200
    );
    stage.minutes_pass(4 * HOUR);
    let reminder = stage.has_mails(4).remove(3);
    assert_eq!(reminder.subject, "Reminder: not sent yet: partly");
}

#[test]
fn several_that_are_due_make_one_mail() {
    let stage = Stage::new();
    for subject in ["one", "two", "three"] {
        stage.stuck(&["bob@plain.test"], subject);
    }
    stage.minutes_pass(4 * HOUR);
    let reminder = stage.has_mails(4).remove(3);
    assert_eq!(reminder.subject, "Reminder: 3 messages not sent yet");
    assert_eq!(reminder.in_reply_to, None);
    for subject in ["one", "two", "three"] {
        assert!(
            reminder.text.contains(&format!("* {subject}")),
            "{}",
            reminder.text
        );
    }
    assert!(reminder.link("/s/").starts_with(stage.sandbox.http()));
}

#[test]
fn reminders_that_were_missed_are_not_made_up_for() {
    let stage = Stage::new();
    let (queue_id, _) = stage.stuck(&["bob@plain.test"], "asleep");
    stage.sandbox.stop_httpd();
    stage.minutes_pass(50 * HOUR);
    stage.sandbox.start_httpd(&[]).expect("it starts");
    let mails = stage.has_mails(2);
    assert_eq!(mails[1].subject, "Last reminder: not sent yet: asleep");
    assert_eq!(due(&stage, &queue_id), None);
}

#[test]
fn no_reminder_comes_when_postfix_has_given_up_by_then_or_none_is_wanted() {
    let stage = Stage::configured(&[("reminders", "after_hours", "[4, 200]")]);
    let (queue_id, _) = stage.stuck(&["bob@plain.test"], "short");
    stage.wait("a reminder to be planned", || due(&stage, &queue_id));
    stage.minutes_pass(4 * HOUR);
    stage.mail("Last reminder: not sent yet: short");
    stage.configure("reminders", "after_hours", "[]");
    let (queue_id, _) = stage.stuck(&["bob@plain.test"], "never");
    assert_eq!(due(&stage, &queue_id), None);
}

#[test]
fn nobody_is_reminded_of_what_postfix_has_given_up_while_no_courier_ran() {
    let stage = Stage::new();
    let (queue_id, _) = stage.stuck(&["bob@plain.test"], "too late");
    stage.wait("a reminder to be planned", || due(&stage, &queue_id));
    stage.sandbox.stop_httpd();
    stage.sql("UPDATE cases SET retry_until = unixepoch() - 60");
    stage.minutes_pass(4 * HOUR);
    stage.sandbox.start_httpd(&[]).expect("it starts");
    stage.wait("the end", || due(&stage, &queue_id).is_none().then_some(()));
    stage.has_mails(1);
    let events = stage.case(&queue_id)["events"].to_string();
    assert!(!events.contains("\"reminded\""), "{events}");
}
