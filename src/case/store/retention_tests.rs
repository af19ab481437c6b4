//! What is forgotten of an old case, and what is not.

use super::*;
use crate::address::Address;
use crate::case::MessageKey;

const DAY: i64 = 86_400_000;
const SENDER: &str = "alice.secret@sender.test";
const RECIPIENT: &str = "bob.secret@müller.test";
const SECRETS: [&str; 7] = [
    "alice.secret",
    "bob.secret",
    "carol.secret",
    "secret subject",
    "secret-id@",
    "secret detail",
    "192.0.2.77",
];

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

/// A case in which everything that can be personal is; decided and done with.
fn closed_case(store: &Store, queue_id: &str, sender: Option<&str>) -> CaseId {
    let recipient = |to: &str| NewRecipient {
        address: address(to),
        written: crate::case::Written::Same,
        failure: Failure::NotOffered,
        status: "4.7.801".to_owned(),
        detail: "secret detail".to_owned(),
        may_send: true,
        state: RecipientState::Open,
        action: None,
        consent: None,
    };
    let case = store
        .admit(&NewCase {
            key: MessageKey {
                queue_id: queue_id.parse().unwrap(),
                sender: sender.map(address),
                arrival: now_ms() / 1000,
            },
            subject: "secret subject".to_owned(),
            message_id: Some("<secret-id@sender.test>".to_owned()),
            retry_until: Some(now_ms() / 1000),
            source: Source::Notice,
            asked: Asked::Sender,
            // One who is called as the placeholders are.
            recipients: vec![recipient(RECIPIENT), recipient("redacted-1")],
        })
        .unwrap()
        .case;
    let wanted = Wanted {
        sender: &address(SENDER),
        case: Some(case),
        kind: LetterKind::Reminder,
        period_ms: 0,
        ceiling: 1,
        hook_ms: 0,
    };
    let LetterClaim::Yours(letter) = store
        .claim_letter(&wanted, |_, _| Ok::<(), ()>(()))
        .unwrap()
    else {
        panic!("a claim");
    };
    let receipt = Receipt {
        told: vec![(case, None)],
        ..Receipt::default()
    };
    store
        .letter_sent(letter, &address(SENDER), &receipt)
        .unwrap();
    let choices: Vec<_> = store
        .recipients(case)
        .unwrap()
        .iter()
        .map(|one| (one.id, Action::Send))
        .collect();
    let decided = store
        .decide(case, &choices, Actor::Link, "192.0.2.77", None)
        .unwrap();
    let mut journal = store.load_move(decided.planned.unwrap()).unwrap().unwrap();
    for one in &mut journal.recipients {
        one.outcome = Some(Outcome::Released);
    }
    store.finish_move(&journal, "secret detail").unwrap();
    assert_eq!(store.case(case).unwrap().unwrap().state, CaseState::Closed);
    let sql = [
        "UPDATE recipients SET passage = 'clear', passage_at = 1, passage_detail = 'secret detail' WHERE case_id = ?1",
        "INSERT INTO owed SELECT id, 'delivered', 'alice.secret', 1 FROM recipients WHERE case_id = ?1",
        "INSERT INTO letters (sender, case_id, kind, claimed_at, sent_at)
         SELECT 'alice.secret@sender.test', id, 'notification', opened_at, opened_at FROM cases WHERE id = ?1",
    ];
    for sql in sql {
        store.lock().execute(sql, [case]).unwrap();
    }
    case
}

/// As if all that is recorded of a case had happened so many days ago.
fn age(store: &Store, case: CaseId, days: i64) {
    let connection = store.lock();
    connection
        .execute(
            "UPDATE cases SET closed_at = closed_at - ?2, retry_until = retry_until - ?2 / 1000 WHERE id = ?1",
            params![case, days * DAY],
        )
        .unwrap();
}

fn count(store: &Store, sql: &str) -> i64 {
    store.lock().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn an_old_case_loses_what_names_a_person_and_keeps_what_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("posttls.db");
    let store = Store::open(&path, true).unwrap();
    let old = closed_case(&store, "ABCDEF1", Some(SENDER));
    let null = closed_case(&store, "ABCDEF2", None);
    let young = closed_case(&store, "ABCDEF3", Some("carol.public@sender.test"));
    store.sender_id(&address(SENDER)).unwrap();
    let carol = store
        .sender_id(&address("carol.public@sender.test"))
        .unwrap();
    let events = store.events(old).unwrap();
    let before = store.recipients(old).unwrap();
    age(&store, old, 91);
    age(&store, null, 91);
    age(&store, young, 89);

    let done = store.forget_old(90, 14).unwrap();
    assert_eq!((done.cases, done.more), (2, false));
    assert_eq!(store.forget_old(90, 14).unwrap(), Forgotten::default());

    let case = store.case(old).unwrap().unwrap();
    assert!(case.redacted_at.is_some());
    assert_eq!(case.key.sender, Some(address(&format!("redacted-{old}"))));
    assert_eq!((case.subject.as_str(), &case.message_id), ("", &None));
    assert_eq!(case.closed_why.as_deref(), Some("released"));
    assert!(case.notified_at.is_some());
    assert_eq!(store.case(null).unwrap().unwrap().key.sender, None);
    let after = store.recipients(old).unwrap();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(after.address.as_str(), format!("redacted-{}", after.number));
        assert_eq!((after.detail.as_str(), &after.passage_detail), ("", &None));
        assert_eq!(
            (after.failure, after.state, after.stuck_at),
            (before.failure, before.state, before.stuck_at)
        );
    }
    assert_eq!(
        count(
            &store,
            "SELECT count(*) FROM recipients WHERE domain = 'xn--mller-kva.test' AND passage = 'clear'"
        ),
        3
    );
    assert_eq!(
        count(
            &store,
            "SELECT count(*) FROM decisions WHERE action = 'send' AND actor = 'link' AND decided_at > 0"
        ),
        6
    );
    assert_eq!(
        count(&store, "SELECT count(*) FROM decisions WHERE client <> ''"),
        2
    );
    let whats = |events: &[Event]| -> Vec<(i64, String)> {
        events
            .iter()
            .map(|event| (event.at, event.what.clone()))
            .collect()
    };
    let blank = store.events(old).unwrap();
    assert_eq!(whats(&blank), whats(&events));
    assert!(
        blank
            .iter()
            .all(|event| event.recipient.is_empty() && event.detail.is_empty())
    );
    assert_eq!(count(&store, "SELECT count(*) FROM owed"), 2);
    // The young one is as it was, and so is its sender's number.
    assert_eq!(
        store.recipients(young).unwrap()[0].address.as_str(),
        RECIPIENT
    );
    assert!(store.sender(carol).unwrap().is_some());
    assert_eq!(count(&store, "SELECT count(*) FROM senders"), 1);
    // A history that was blanked can't be written anew.
    assert!(
        store
            .lock()
            .execute("UPDATE events SET detail = 'x'", [])
            .is_err()
    );

    // Of the old ones, nothing is left in any file.
    let young_too = closed_case(&store, "ABCDEF4", Some("carol.secret@sender.test"));
    for case in [young, young_too] {
        age(&store, case, 100);
    }
    assert_eq!(store.forget_old(90, 14).unwrap().cases, 2);
    store.empty_log().unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let octets = std::fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&octets);
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} is still there");
        }
    }
}

#[test]
fn no_case_is_forgotten_while_its_links_are_valid_or_while_it_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("posttls.db"), true).unwrap();
    let case = closed_case(&store, "ABCDEF1", Some(SENDER));
    age(&store, case, 100);
    store
        .lock()
        .execute(
            "UPDATE cases SET retry_until = ?1",
            [now_ms() / 1000 - 13 * 86_400],
        )
        .unwrap();
    assert_eq!(store.forget_old(90, 14).unwrap().cases, 0);
    assert_eq!(store.forget_old(90, 12).unwrap().cases, 1);
    let open = closed_case(&store, "ABCDEF2", Some(SENDER));
    age(&store, open, 100);
    store
        .lock()
        .execute(
            "UPDATE cases SET state = 'open', closed_at = NULL WHERE id = ?1",
            [open],
        )
        .unwrap();
    assert_eq!(store.forget_old(1, 0).unwrap().cases, 0);
}

#[test]
fn what_serves_no_case_goes_whole() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("posttls.db"), true).unwrap();
    let consent = |target: &str| {
        let new = NewConsent {
            sender: address(SENDER),
            scope: Scope::Recipient,
            target: target.to_owned(),
            failures: vec![Failure::NotOffered],
            client: "192.0.2.77".to_owned(),
            expires_at: now_ms() + 300 * DAY,
        };
        store.add_consent(&new).unwrap()
    };
    let (ended, expired, valid) = (
        consent("a@x.test"),
        consent("b@x.test"),
        consent("c@x.test"),
    );
    store.end_consent(ended, "revoked").unwrap();
    for what in ["old", "young"] {
        store.keep_odd_notice("ABCDEF1", what, b"raw").unwrap();
        store.raise_alert(what, "secret detail").unwrap();
        store
            .lock()
            .execute(
                "INSERT INTO letters (sender, kind, claimed_at) VALUES ('x', ?1, ?2)",
                params![what, now_ms()],
            )
            .unwrap();
    }
    let old = now_ms() - 91 * DAY;
    for sql in [
        "UPDATE consents SET ended_at = ?1 WHERE ended_at IS NOT NULL",
        "UPDATE consents SET expires_at = ?1 WHERE target = 'b@x.test'",
        "UPDATE odd_notices SET at = ?1 WHERE why = 'old'",
        "UPDATE alerts SET since = ?1 WHERE cause = 'old'",
        "UPDATE letters SET claimed_at = ?1 WHERE kind = 'old'",
    ] {
        assert_eq!(store.lock().execute(sql, [old]).unwrap(), 1, "{sql}");
    }
    // A decision that was made by one of them keeps its action, actor and time.
    let case = closed_case(&store, "ABCDEF1", Some(SENDER));
    store
        .lock()
        .execute("UPDATE decisions SET consent_id = ?1", [ended])
        .unwrap();
    let done = store.forget_old(90, 14).unwrap();
    assert_eq!((done.cases, done.rows, done.more), (0, 5, false));
    assert!(store.consent(ended).unwrap().is_none() && store.consent(expired).unwrap().is_none());
    assert!(store.consent(valid).unwrap().is_some());
    assert_eq!(
        store.odd_notices().unwrap(),
        [("ABCDEF1".to_owned(), "young".to_owned())]
    );
    assert_eq!(count(&store, "SELECT count(*) FROM alerts"), 1);
    assert_eq!(
        count(
            &store,
            "SELECT count(*) FROM decisions WHERE consent_id IS NULL"
        ),
        2
    );
    assert!(store.case(case).unwrap().unwrap().redacted_at.is_none());
}

#[test]
fn much_is_forgotten_in_parts() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("posttls.db"), true).unwrap();
    for number in 0..60 {
        store.raise_alert(&format!("cause {number}"), "").unwrap();
    }
    store
        .lock()
        .execute("UPDATE alerts SET since = 0", [])
        .unwrap();
    let first = store.forget_old(90, 14).unwrap();
    assert_eq!((first.rows, first.more), (50, true));
    let second = store.forget_old(90, 14).unwrap();
    assert_eq!((second.rows, second.more), (10, false));
}

#[test]
fn cases_from_before_there_was_retention_end_with_their_last_event() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("posttls.db");
    let before = Connection::open(&path).unwrap();
    before.execute_batch(include_str!("schema.sql")).unwrap();
    before
        .execute_batch(
            "PRAGMA user_version = 1;
             INSERT INTO cases (id, queue_id, sender, arrival, subject, retry_until, state, opened_at)
             VALUES (1, 'ABCDEF1', 'a@b.test', 1, 's', 2, 'closed', 1000), (2, 'ABCDEF2', 'a@b.test', 1, 's', 2, 'open', 1000);
             INSERT INTO recipients (case_id, number, address, failure, status, detail, may_send, state)
             VALUES (1, 1, 'c@Sub.x.test', 'not-offered', '4.7.801', 'd', 1, 'released');
             INSERT INTO events (at, case_id, queue_id, recipient, what, detail) VALUES (3000, 1, 'ABCDEF1', '', 'closed', 'd');",
        )
        .unwrap();
    drop(before);
    let store = Store::open(&path, false).unwrap();
    let closed_at = |id| store.case(CaseId(id)).unwrap().unwrap().closed_at;
    assert_eq!((closed_at(1), closed_at(2)), (Some(3000), None));
    assert_eq!(store.forget_old(90, 14).unwrap().cases, 1);
    let domains =
        "SELECT count(*) FROM recipients WHERE domain = 'sub.x.test' AND address = 'redacted-1'";
    assert_eq!(count(&store, domains), 1);
}
