//! The rules that the store itself keeps.

use super::*;
use crate::case::MessageKey;

pub(super) fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("posttls.db"), true).unwrap();
    (directory, store)
}

pub(super) fn new_case(queue_id: &str, arrival: i64) -> NewCase {
    let recipient = |address: &str, state, may_send| NewRecipient {
        address: address.parse().unwrap(),
        written: crate::case::Written::Same,
        failure: Failure::NotOffered,
        status: "4.7.801".to_owned(),
        detail: String::new(),
        may_send,
        state,
        action: None,
        consent: None,
    };
    NewCase {
        key: MessageKey {
            queue_id: queue_id.parse().unwrap(),
            sender: "a@b.test".parse().ok(),
            arrival,
        },
        subject: String::new(),
        message_id: None,
        retry_until: None,
        source: Source::Notice,
        asked: Asked::Sender,
        recipients: vec![
            recipient("one@x.test", RecipientState::Open, true),
            recipient("two@x.test", RecipientState::Open, false),
            recipient("three@x.test", RecipientState::NotOffered, false),
        ],
    }
}

#[test]
fn one_case_a_message_and_another_one_when_postfix_uses_the_queue_id_again() {
    let (_directory, store) = store();
    let first = store.admit(&new_case("ABCDEF1", 100)).unwrap().case;
    assert_eq!(store.admit(&new_case("ABCDEF1", 100)).unwrap().case, first);
    let second = store.admit(&new_case("ABCDEF1", 200)).unwrap().case;
    assert_ne!(second, first);
    let newest = store.cases_of(&"ABCDEF1".parse().unwrap()).unwrap();
    assert_eq!(newest.len(), 2);
}

#[test]
fn no_number_of_a_case_comes_again_in_another_database() {
    let numbers: std::collections::BTreeSet<_> = (0..20)
        .map(|_| store().1.admit(&new_case("ABCDEF1", 100)).unwrap().case)
        .collect();
    assert_eq!(numbers.len(), 20);
    assert!(numbers.iter().all(|id| id.0 >= 0));
}

#[test]
fn the_first_final_decision_wins_and_is_planned_with_its_move() {
    let (_directory, store) = store();
    let case = store.admit(&new_case("ABCDEF1", 100)).unwrap().case;
    let ids: Vec<i64> = store
        .recipients(case)
        .unwrap()
        .iter()
        .map(|recipient| recipient.id)
        .collect();
    let decide = |recipient: usize, action| {
        store
            .decide(case, &[(ids[recipient], action)], Actor::Link, "::1", None)
            .unwrap()
    };
    assert_eq!(decide(0, Action::Keep).outcomes, [(ids[0], Outcome::Kept)]);
    assert_eq!(
        decide(1, Action::Send).outcomes,
        [(ids[1], Outcome::NotPossible)]
    );
    assert_eq!(
        decide(2, Action::Delete).outcomes,
        [(ids[2], Outcome::NotPossible)]
    );
    let first = decide(0, Action::Send);
    assert_eq!(first.outcomes, [(ids[0], Outcome::Recorded)]);
    let second = decide(0, Action::Delete);
    assert_eq!(
        (second.planned, second.outcomes),
        (None, vec![(ids[0], Outcome::AlreadyDecided)])
    );
    let owed = store.unfinished_moves().unwrap();
    assert_eq!(owed, [(first.planned.unwrap(), case)]);
    let journal = store.load_move(owed[0].0).unwrap().unwrap();
    assert_eq!(
        (journal.step, journal.held_before),
        (MoveStep::Planned, None)
    );
    assert_eq!(journal.recipients[0].action, Action::Send);
}

#[test]
fn a_decision_about_a_stranger_records_nothing() {
    let (_directory, store) = store();
    let case = store.admit(&new_case("ABCDEF1", 100)).unwrap().case;
    let other = store.admit(&new_case("ABCDEF2", 100)).unwrap().case;
    let stranger = store.recipients(other).unwrap()[0].id;
    let own = store.recipients(case).unwrap()[0].id;
    let both = [(own, Action::Send), (stranger, Action::Send)];
    assert!(store.decide(case, &both, Actor::Link, "::1", None).is_err());
    assert!(store.unfinished_moves().unwrap().is_empty());
    assert_eq!(
        store.recipients(case).unwrap()[0].state,
        RecipientState::Open
    );
}

#[test]
fn history_is_only_added_to() {
    let (_directory, store) = store();
    let case = store.admit(&new_case("ABCDEF1", 100)).unwrap().case;
    assert_eq!(store.events(case).unwrap()[0].what, "opened");
    for sql in ["UPDATE events SET what = 'x'", "DELETE FROM events"] {
        assert!(store.lock().execute(sql, []).is_err(), "{sql}");
    }
}

#[test]
fn odd_notices_can_not_fill_the_disk() {
    let (_directory, store) = store();
    for number in 0..ODD_NOTICES + 20 {
        store
            .keep_odd_notice("ABCDEF1", &number.to_string(), &[b'x'; 100_000])
            .unwrap();
    }
    let kept = store.odd_notices().unwrap();
    assert_eq!(kept.len() as i64, ODD_NOTICES);
    assert_eq!(kept.last().unwrap().1, (ODD_NOTICES + 19).to_string());
}

#[test]
fn a_symbolic_link_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("posttls.db");
    std::os::unix::fs::symlink(directory.path().join("elsewhere"), &link).unwrap();
    let error = Store::open(&link, true).err().unwrap().to_string();
    assert!(
        error.contains("posttls.db") && !directory.path().join("elsewhere").exists(),
        "{error}"
    );
}

#[test]
fn a_watched_recipient_becomes_the_sender_s_matter_once_and_a_case_that_was_closed_is_looked_after_again()
 {
    let (_directory, store) = store();
    let admitted = |failure, state| {
        let mut new = new_case("A367B99A955", 1);
        new.recipients.truncate(1);
        new.recipients[0].failure = failure;
        new.recipients[0].state = state;
        store.admit(&new).unwrap()
    };
    let stands = |case| {
        let state = store.case(case).unwrap().unwrap().state;
        (store.recipients(case).unwrap()[0].state, state)
    };
    let (watched, open) = (RecipientState::NotOffered, RecipientState::Open);
    let first = admitted(Failure::NotTls, watched);
    assert!(first.opened && first.fresh.len() == 1);
    let case = first.case;
    assert_eq!(stands(case), (watched, CaseState::Watched));
    assert!(admitted(Failure::NotTls, watched).fresh.is_empty());
    // Found on hold: known with its failure, and nobody is asked.
    assert_eq!(admitted(Failure::NotOffered, watched).fresh.len(), 1);
    assert_eq!(stands(case), (watched, CaseState::Watched));
    // Off hold.
    let joined = admitted(Failure::NotOffered, open);
    assert!(!joined.opened && joined.fresh.len() == 1);
    assert_eq!(stands(case), (open, CaseState::Open));
    assert!(admitted(Failure::NotOffered, open).fresh.is_empty());

    let id = store.recipients(case).unwrap()[0].id;
    store.settle(case, &[(id, RecipientState::Gone)]).unwrap();
    assert_eq!(stands(case).1, CaseState::Closed);
    assert!(admitted(Failure::NotOffered, open).fresh.is_empty());
    assert_eq!(stands(case), (RecipientState::Gone, CaseState::Closed));
    let late = store.admit(&new_case("A367B99A955", 1)).unwrap();
    assert!(!late.opened && late.fresh.len() == 2);
    assert_eq!(stands(case).1, CaseState::Open);
    let case = store.case(case).unwrap().unwrap();
    assert_eq!((case.closed_at, case.closed_why), (None, None));
    let joined = store.events(case.id).unwrap();
    assert_eq!(
        joined.iter().filter(|event| event.what == "joined").count(),
        2
    );
}

#[test]
fn what_was_seen_in_the_queue_ends_what_waits_and_touches_no_decision() {
    let (_directory, store) = store();
    let case = store.admit(&new_case("A367B99A955", 1)).unwrap().case;
    let ids: Vec<i64> = store
        .recipients(case)
        .unwrap()
        .iter()
        .map(|one| one.id)
        .collect();
    store
        .decide(case, &[(ids[0], Action::Send)], Actor::Link, "", None)
        .unwrap();
    let seen: Vec<_> = ids
        .iter()
        .map(|id| (*id, RecipientState::Delivered))
        .collect();
    store.settle(case, &seen).unwrap();
    let states: Vec<_> = store
        .recipients(case)
        .unwrap()
        .iter()
        .map(|one| one.state)
        .collect();
    let delivered = RecipientState::Delivered;
    assert_eq!(states, [RecipientState::Releasing, delivered, delivered]);
    assert_eq!(store.case(case).unwrap().unwrap().state, CaseState::Open);
}

#[test]
fn mails_to_all_are_counted_where_the_ceiling_may_be_reached() {
    let (_directory, store) = store();
    let sender = "a@b.test".parse().unwrap();
    let counted = |ceiling| {
        let wanted = Wanted {
            sender: &sender,
            case: None,
            kind: LetterKind::Reminder,
            period_ms: 0,
            ceiling,
            hook_ms: 0,
        };
        store.letter_history(&wanted).unwrap().to_all
    };
    assert_eq!(counted(1), 0);
    let hour = 3_600_000;
    // The last one was written before the clock was set back by a day.
    for (age, sent) in [
        (2 * hour, true),
        (10, true),
        (hour / 2, false),
        (20, false),
        (-24 * hour, true),
    ] {
        let at = now_ms() - age;
        store
            .lock()
            .execute(
                "INSERT INTO letters (sender, kind, claimed_at, sent_at) VALUES ('c@d.test', 'digest', ?1, ?2)",
                params![at, sent.then_some(at)],
            )
            .unwrap();
    }
    // Of five rows, two count: one that was sent in this hour, and one that is on its way.
    assert_eq!((counted(1), counted(2), counted(3)), (1, 2, 2));
    assert!(counted(6) < 6);
}

/// What several programs do that begin at the same time after an upgrade.
#[test]
fn eight_at_once_bring_an_older_store_up_to_date() {
    for version in 0..STEPS.len() {
        for mode in ["WAL", "DELETE"] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("old.db");
            let old = Connection::open(&path).unwrap();
            old.pragma_update(None, "journal_mode", mode).unwrap();
            for step in &STEPS[..version] {
                old.execute_batch(step).unwrap();
            }
            old.pragma_update(None, "user_version", version as i64)
                .unwrap();
            drop(old);
            let start = std::sync::Barrier::new(8);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        start.wait();
                        let store = Store::open(&path, true);
                        let store = store.unwrap_or_else(|why| panic!("{version} {mode}: {why}"));
                        assert!(store.odd_notices().unwrap().is_empty());
                    });
                }
            });
        }
    }
}

#[test]
fn a_store_of_a_newer_program_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("newer.db");
    drop(Store::open(&path, true).unwrap());
    let newer = STEPS.len() as i64 + 1;
    let other = Connection::open(&path).unwrap();
    other.pragma_update(None, "user_version", newer).unwrap();
    let said = Store::open(&path, false).err().unwrap().to_string();
    assert!(said.contains("a newer one has used it"), "{said}");
    let now: i64 = other
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    assert_eq!(now, newer);
}

/// Whoever has a link may ask as often as they like: what stands is not written again.
#[test]
fn what_stands_is_not_recorded_again() {
    let (_directory, store) = store();
    let case = store.admit(&new_case("ABCDEF1", 100)).unwrap().case;
    let recipients = store.recipients(case).unwrap();
    let open: Vec<i64> = recipients
        .iter()
        .filter(|one| one.state.is_open())
        .map(|one| one.id)
        .collect();
    let keep: Vec<_> = open.iter().map(|id| (*id, Action::Keep)).collect();
    let first = store.decide(case, &keep, Actor::Link, "::1", None).unwrap();
    assert_eq!(first.changed, open);
    let written = |store: &Store| {
        let opened = store.lock();
        let changes = opened.total_changes();
        let rows: i64 = opened
            .query_row(
                "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM decisions)",
                [],
                |row| row.get(0),
            )
            .unwrap();
        (changes, rows)
    };
    let before = written(&store);
    // Nor does it wait for somebody who is writing.
    let other = Connection::open(&store.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..100 {
        let again = store.decide(case, &keep, Actor::Link, "::1", None).unwrap();
        assert_eq!(again.outcomes, first.outcomes);
        assert!(again.changed.is_empty() && again.planned.is_none());
    }
    drop(other);
    assert_eq!(written(&store), before);
}
