//! The clock was set back, or ahead, while nothing of ours ran: a test can't set it, so it shifts what the store has seen,
//! which is the same to the programs. What they remember in memory, they count by a clock that nobody can set; how it
//! jumps while they run is in `jump`.

use crate::common::Stage;

const DAY: i64 = 24 * 60;

#[test]
fn set_back_by_a_day_it_silences_nobody() {
    let stage = Stage::configured(&[("limits", "first", "1")]);
    let (first, page) = stage.stuck(&["bob@plain.test"], "first");
    // What was recorded before is from tomorrow.
    stage.minutes_pass(-DAY);
    let (second, _) = stage.stuck(&["eve@plain.test"], "second");
    // A mail that was under way then, and news that were owed: their hook died.
    let third = stage.stuck_from("carol@sender.test", &["ann@plain.test"], "third");
    stage.notification(&third);
    stage.sql(&format!(
        "BEGIN IMMEDIATE;
         INSERT INTO owed (recipient_id, news, sender, since)
           SELECT r.id, 'stuck', c.sender, {tomorrow} FROM recipients r JOIN cases c ON c.id = r.case_id
           WHERE c.queue_id = '{third}';
         UPDATE letters SET sent_at = NULL, claimed_at = {tomorrow} WHERE sender = 'carol@sender.test';
         UPDATE cases SET notified_at = NULL, told_at = NULL WHERE queue_id = '{third}';
         COMMIT",
        tomorrow = jiff::Timestamp::now().as_millisecond() + DAY * 60_000
    ));
    stage.wait("what was owed to be told", || {
        (stage.told(&third) == 2).then_some(())
    });
    assert_eq!((stage.told(&first), stage.told(&second)), (1, 1));
    assert_eq!(stage.post(&page, "action=send").status, 200);
    stage.arrival("bob@plain.test");
    assert_eq!(stage.arrivals("bob@plain.test").len(), 1);
}

#[test]
fn set_ahead_links_expire_and_set_right_they_open_again() {
    let stage = Stage::new();
    let (queue_id, page) = stage.stuck(&["bob@plain.test"], "ahead");
    let id = stage.known(&queue_id).id;
    let expired = stage.page('c', &stage.token(id, -1));
    let answer = stage.get(&expired);
    assert_eq!(answer.status, 410, "{answer:?}");
    assert_eq!(stage.post(&expired, "action=send").status, 410);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
    // An admin can decide whatever the clock says.
    assert_eq!(stage.get(&page).status, 200);
    stage.said(&["release", &queue_id]);
    stage.ends_well(&["bob@plain.test"]);
}

#[test]
fn set_ahead_it_drops_no_news() {
    let stage = Stage::new();
    let (first, _) = stage.stuck(&["bob@plain.test"], "first");
    let (second, _) = stage.stuck(&["eve@plain.test"], "second");
    for queue_id in [&first, &second] {
        stage.in_queue(queue_id, "deferred");
        stage.watched(queue_id);
    }
    stage.route("plain.test", "tls.test");
    stage.flush(&first);
    stage.wait("word that the first was delivered", || {
        (stage.mails().len() == 3).then_some(())
    });
    // The next information comes when the window is over.
    stage.flush(&second);
    stage.becomes(&second, "eve@plain.test", "delivered");
    assert_eq!(stage.number_of("SELECT count(*) FROM owed"), 1);
    // By the clock it is older now than what is given up; but nobody has tried to send it.
    stage.minutes_pass(8 * DAY);
    let mail = stage.wait("word of the second", || stage.mails().into_iter().nth(3));
    assert!(mail.text.contains("eve@plain.test"), "{}", mail.text);
    assert!(!stage.log().contains("given up"), "{}", stage.log());
}
