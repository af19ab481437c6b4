//! Remembered choices and mandatory domains: what is judged and what is recorded, also when both change in between.

use super::*;
use crate::address::Address;
use crate::case::{MessageKey, policy::Ground};
use crate::config::{Config, DEFAULT_FILE};
use crate::domain::Domain;
use crate::intake::{self, Deferred, Found};
use crate::standing::Standing;

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("posttls.db"), true).unwrap();
    (directory, store)
}

/// The shipped configuration, with remembered choices, and every failure offered that can be.
fn config() -> Config {
    let mut config: Config = toml::from_str(DEFAULT_FILE).unwrap();
    config.remember.days = 30;
    config.offer.failures.push(Failure::Certificate);
    config
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

fn consent(scope: Scope, target: &str) -> NewConsent {
    NewConsent {
        sender: address("a@b.test"),
        scope,
        target: target.to_owned(),
        failures: vec![Failure::NotOffered, Failure::Certificate],
        client: "192.0.2.7".to_owned(),
        expires_at: now_ms() + 86_400_000,
    }
}

fn found(queue_id: &str, to: &str, failure: Failure) -> Found {
    Found {
        automatic: false,
        held: false,
        key: MessageKey {
            queue_id: queue_id.parse().unwrap(),
            sender: Some(address("a@b.test")),
            arrival: 100,
        },
        subject: "s".to_owned(),
        message_id: None,
        retry_until: None,
        source: Source::Notice,
        deferred: vec![Deferred {
            address: address(to),
            written: crate::case::Written::Same,
            words: failure,
            host: None,
            standing: Standing::Free,
            status: "4.7.801".to_owned(),
            detail: String::new(),
        }],
    }
}

/// A recipient as it is recorded when it was judged so.
fn judged(action: Option<(Action, Actor)>, consent: Option<ConsentId>, asked: Asked) -> NewCase {
    NewCase {
        key: found("ABCDEF1", "one@x.test", Failure::NotOffered).key,
        subject: String::new(),
        message_id: None,
        retry_until: None,
        source: Source::Notice,
        asked,
        recipients: vec![NewRecipient {
            address: address("one@x.test"),
            written: crate::case::Written::Same,
            failure: Failure::NotOffered,
            status: "4.7.801".to_owned(),
            detail: String::new(),
            may_send: true,
            state: RecipientState::Open,
            action,
            consent,
        }],
    }
}

/// State, may_send, and who decided what, of the only recipient of a case.
fn outcome(store: &Store, case: CaseId) -> (RecipientState, bool, Option<(Action, Actor)>) {
    let recipient = store.recipients(case).unwrap().remove(0);
    let decision = store
        .lock()
        .query_row(
            "SELECT action, actor FROM decisions WHERE recipient_id = ?1",
            [recipient.id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .ok();
    (recipient.state, recipient.may_send, decision)
}

#[test]
fn a_remembered_choice_is_used_counted_and_named() {
    let (_directory, store) = store();
    let id = store
        .add_consent(&consent(Scope::Recipient, "one@x.test"))
        .unwrap();
    for (round, queue_id) in ["ABCDEF1", "ABCDEF2"].into_iter().enumerate() {
        let found = found(queue_id, "one@x.test", Failure::NotOffered);
        let admitted = intake::admit(&store, &config(), &found).unwrap();
        let send = (Action::Send, Actor::Consent);
        assert_eq!(
            outcome(&store, admitted.case),
            (RecipientState::Releasing, true, Some(send))
        );
        let expected = (address("one@x.test"), send.0, send.1, Some(id));
        assert_eq!(admitted.decided, [expected]);
        let used = store.consent(id).unwrap().unwrap();
        assert_eq!(used.uses, round as i64 + 1);
        assert!(used.used_at.is_some());
        // The same again is no other use.
        intake::admit(&store, &config(), &found).unwrap();
        assert_eq!(store.consent(id).unwrap().unwrap().uses, used.uses);
    }
    let by: i64 = store
        .lock()
        .query_row(
            "SELECT count(*) FROM decisions WHERE consent_id = ?1",
            [id],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(by, 2);
    // What was done by it is told: news that are owed when the move has ended.
    let (moved, _) = store.unfinished_moves().unwrap()[0];
    let mut journal = store.load_move(moved).unwrap().unwrap();
    journal.recipients[0].outcome = Some(Outcome::Released);
    store.finish_move(&journal, "").unwrap();
    assert_eq!(owed(&store), ["consent"]);
}

fn owed(store: &Store) -> Vec<String> {
    let connection = store.lock();
    let mut statement = connection
        .prepare("SELECT news FROM owed WHERE news <> 'stuck'")
        .unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

#[test]
fn a_remembered_choice_covers_what_it_was_given_for_and_nothing_else() {
    let (_directory, store) = store();
    let recipient = store
        .add_consent(&consent(Scope::Recipient, "one@x.test"))
        .unwrap();
    let whole = store
        .add_consent(&consent(Scope::Domain, "y.test"))
        .unwrap();
    let judge = |config: &Config, from: &str, to: &str, failure| {
        intake::judge(
            &store,
            config,
            Some(&address(from)),
            config.senders.judge(Some(&address(from)), false),
            &address(to),
            failure,
            &Standing::Free,
        )
        .unwrap()
    };
    let usual = config();
    for (from, to, failure, expected) in [
        (
            "a@b.test",
            "one@x.test",
            Failure::NotOffered,
            Some(recipient),
        ),
        (
            "a@b.test",
            "anyone@Y.test",
            Failure::NotOffered,
            Some(whole),
        ),
        ("other@b.test", "one@x.test", Failure::NotOffered, None),
        ("a@b.test", "two@x.test", Failure::NotOffered, None),
        ("a@b.test", "one@sub.y.test", Failure::NotOffered, None),
        ("a@b.test", "one@xy.test", Failure::NotOffered, None),
        ("a@b.test", "one@x.test", Failure::HandshakeFailed, None),
        ("a@b.test", "one@x.test", Failure::RequireTls, None),
        ("a@b.test", "one@x.test", Failure::LocalFault, None),
    ] {
        let judged = judge(&usual, from, to, failure);
        assert_eq!(judged.consent, expected, "{from} {to} {failure}");
        let sends = judged.verdict.ground == Ground::Consent;
        assert_eq!(sends, expected.is_some(), "{from} {to} {failure}");
    }
    // Not even when it says so.
    let certificate = judge(&usual, "a@b.test", "one@x.test", Failure::Certificate);
    assert_eq!(certificate.verdict.action, None);
    let mut never = config();
    never.remember.days = 0;
    let judged = judge(&never, "a@b.test", "one@x.test", Failure::NotOffered);
    assert_eq!(judged.verdict.ground, Ground::Asked);
    store.add_mandatory(&domain("test"), "root").unwrap();
    let judged = judge(&usual, "a@b.test", "one@x.test", Failure::NotOffered);
    assert_eq!(judged.verdict.ground, Ground::Mandatory);
    assert!(!judged.verdict.may_send);
}

#[test]
fn a_remembered_choice_that_has_ended_is_not_used() {
    let (_directory, store) = store();
    let id = store
        .add_consent(&consent(Scope::Recipient, "one@x.test"))
        .unwrap();
    let judge = || {
        let (from, to) = (address("a@b.test"), address("one@x.test"));
        intake::judge(
            &store,
            &config(),
            Some(&from),
            config().senders.judge(Some(&from), false),
            &to,
            Failure::NotOffered,
            &Standing::Free,
        )
        .unwrap()
    };
    assert_eq!(judge().consent, Some(id));
    store
        .lock()
        .execute("UPDATE consents SET expires_at = ?1", [now_ms() - 1])
        .unwrap();
    assert_eq!(judge().consent, None);
    assert!(!store.end_consent(id, "too late").unwrap());
    assert!(store.consents(false).unwrap().is_empty());
    let again = store
        .add_consent(&consent(Scope::Recipient, "one@x.test"))
        .unwrap();
    assert!(store.end_consent(again, "revoked").unwrap());
    assert!(!store.end_consent(again, "revoked again").unwrap());
    assert_eq!(judge().consent, None);
    assert_eq!(store.consents(true).unwrap().len(), 2);
}

#[test]
fn a_choice_revoked_after_it_was_judged_is_not_used() {
    let (_directory, store) = store();
    let id = store
        .add_consent(&consent(Scope::Recipient, "one@x.test"))
        .unwrap();
    let new = judged(
        Some((Action::Send, Actor::Consent)),
        Some(id),
        Asked::Sender,
    );
    assert!(store.end_consent(id, "revoked").unwrap());
    let admitted = store.admit(&new).unwrap();
    assert_eq!(
        outcome(&store, admitted.case),
        (RecipientState::Open, true, None)
    );
    assert!(admitted.decided.is_empty());
    assert!(store.unfinished_moves().unwrap().is_empty());
    assert_eq!(store.consent(id).unwrap().unwrap().uses, 0);
}

#[test]
fn a_domain_listed_after_it_was_judged_is_mandatory() {
    for (action, asked, expected) in [
        (None, Asked::Sender, (Action::Delete, Actor::Mandatory)),
        (
            Some((Action::Send, Actor::Consent)),
            Asked::Sender,
            (Action::Delete, Actor::Mandatory),
        ),
        (
            Some((Action::Send, Actor::Policy)),
            Asked::Nobody,
            (Action::Keep, Actor::Policy),
        ),
        (
            Some((Action::Delete, Actor::Policy)),
            Asked::Nobody,
            (Action::Delete, Actor::Policy),
        ),
    ] {
        let (_directory, store) = store();
        let new = judged(action, None, asked);
        store.add_mandatory(&domain("x.test"), "root").unwrap();
        let admitted = store.admit(&new).unwrap();
        let (_, may_send, decision) = outcome(&store, admitted.case);
        assert_eq!((may_send, decision), (false, Some(expected)), "{new:?}");
    }
}

#[test]
fn listing_a_domain_ends_what_is_open_and_lets_stand_what_is_decided() {
    let (_directory, store) = store();
    let open = |queue_id: &str, to: &str| {
        let found = found(queue_id, to, Failure::NotOffered);
        intake::admit(&store, &config(), &found).unwrap().case
    };
    let below = open("ABCDEF1", "one@sub.x.test");
    let odd = open("ABCDEF2", "one@-odd.x.test");
    let like = open("ABCDEF3", "one@badx.test");
    let sent = open("ABCDEF4", "one@x.test");
    let recipient = store.recipients(sent).unwrap()[0].id;
    store
        .decide(sent, &[(recipient, Action::Send)], Actor::Link, "::1", None)
        .unwrap();
    let listing = store.add_mandatory(&domain("x.test"), "root").unwrap();
    assert!(listing.is_new);
    let effects: Vec<Effect> = listing.affected.iter().map(|one| one.effect).collect();
    assert_eq!(
        effects
            .iter()
            .filter(|one| **one == Effect::Deleted)
            .count(),
        2
    );
    assert_eq!(
        effects
            .iter()
            .filter(|one| **one == Effect::DecidedBefore)
            .count(),
        1
    );
    assert_eq!(effects.len(), 3);
    let delete = Some((Action::Delete, Actor::Mandatory));
    for case in [below, odd] {
        assert_eq!(
            outcome(&store, case),
            (RecipientState::Deleting, false, delete)
        );
    }
    assert_eq!(outcome(&store, like), (RecipientState::Open, true, None));
    let send = Some((Action::Send, Actor::Link));
    assert_eq!(
        outcome(&store, sent),
        (RecipientState::Releasing, true, send)
    );
    // Too late for the others.
    let recipient = store.recipients(below).unwrap()[0].id;
    let click = store
        .decide(
            below,
            &[(recipient, Action::Send)],
            Actor::Link,
            "::1",
            None,
        )
        .unwrap();
    assert_eq!(click.outcomes, [(recipient, Outcome::AlreadyDecided)]);
    // The senders are told when it has been done.
    let (moved, _) = *store
        .unfinished_moves()
        .unwrap()
        .iter()
        .find(|(_, case)| *case == below)
        .unwrap();
    let mut journal = store.load_move(moved).unwrap().unwrap();
    journal.recipients[0].outcome = Some(Outcome::Deleted);
    store.finish_move(&journal, "").unwrap();
    assert_eq!(owed(&store), ["mandatory"]);
    // Again: nothing is left to do.
    let again = store.add_mandatory(&domain("x.test"), "root").unwrap();
    assert!(!again.is_new && again.affected.len() == 1, "{again:?}");
    // Off the list, what was decided stands, and new failures are handled as any others.
    assert!(store.remove_mandatory(&domain("x.test"), "root").unwrap());
    assert!(!store.remove_mandatory(&domain("x.test"), "root").unwrap());
    assert_eq!(outcome(&store, odd).0, RecipientState::Deleting);
    let later = open("ABCDEF5", "one@sub.x.test");
    assert_eq!(outcome(&store, later), (RecipientState::Open, true, None));
    assert_eq!(store.mandatory_history().unwrap().len(), 1);
}

#[test]
fn a_sender_who_becomes_one_of_ours_is_told_what_is_deleted() {
    let (_directory, store) = store();
    let keep = Some((Action::Keep, Actor::Policy));
    let case = store
        .admit(&judged(keep, None, Asked::Nobody))
        .unwrap()
        .case;
    let mut joining = judged(
        Some((Action::Delete, Actor::Mandatory)),
        None,
        Asked::Sender,
    );
    joining.recipients[0].address = address("two@x.test");
    assert_eq!(store.admit(&joining).unwrap().case, case);
    assert_eq!(store.case(case).unwrap().unwrap().asked, Asked::Sender);
}

#[test]
fn the_admin_is_told_of_stuck_mail_to_mandatory_domains_too() {
    let (_directory, store) = store();
    store.add_mandatory(&domain("x.test"), "root").unwrap();
    let mut config = config();
    config.senders.internal = vec!["elsewhere.test".parse().unwrap()];
    config.senders.external = crate::config::Unasked::Tell;
    let told = || -> i64 {
        let sql = "SELECT coalesce(sum(pending), 0) FROM alerts";
        store.lock().query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let to_x = found("ABCDEF1", "one@x.test", Failure::NotOffered);
    let greylisted = found("ABCDEF2", "one@y.test", Failure::NotTls);
    for (found, expected) in [(&to_x, 1), (&to_x, 1), (&greylisted, 1)] {
        intake::admit(&store, &config, found).unwrap();
        assert_eq!(told(), expected);
    }
}

#[test]
fn a_stuck_mail_to_the_admin_makes_no_other_mail_to_the_admin() {
    let (_directory, store) = store();
    let mut config = config();
    config.senders.null = crate::config::Unasked::Tell;
    config.notification.admin_address = Some(address("root@x.test"));
    let told = || -> i64 {
        let sql = "SELECT coalesce(sum(pending), 0) FROM alerts";
        store.lock().query_row(sql, [], |row| row.get(0)).unwrap()
    };
    for (queue_id, to, failure, expected) in [
        ("ABCDEF1", "root@x.test", Failure::NotOffered, 0),
        ("ABCDEF2", "root@x.test", Failure::LocalFault, 0),
        ("ABCDEF3", "one@x.test", Failure::NotOffered, 1),
        ("ABCDEF4", "one@x.test", Failure::LocalFault, 2),
    ] {
        let mut found = found(queue_id, to, failure);
        found.key.sender = None;
        intake::admit(&store, &config, &found).unwrap();
        assert_eq!(told(), expected, "{queue_id}");
    }
}

/// What becomes of a message that a page could not show when its sender, on that page, has all sent that it shows.
fn unseen_by_all(first: &Found, before: &Config, second: &Found, after: &Config) {
    let (_directory, store) = store();
    let hidden = intake::admit(&store, before, first).unwrap().case;
    let pause = || std::thread::sleep(std::time::Duration::from_millis(5));
    pause();
    let shown = found("ABCDEF2", "two@x.test", Failure::NotOffered);
    let shown = intake::admit(&store, after, &shown).unwrap().case;
    let sender = address("a@b.test");
    let page = store.inbox_summary(&sender).unwrap();
    assert_eq!((page.messages, page.recipients), (1, 1));
    pause();
    assert_eq!(intake::admit(&store, after, second).unwrap().case, hidden);
    let bulk = Bulk {
        sender: &sender,
        action: Action::Send,
        domain: None,
        seen: page.latest,
        client: "::1",
    };
    let (decided, _) = store.decide_bulk(&bulk, BulkMark::START).unwrap();
    let cases: Vec<CaseId> = decided.iter().map(|one| one.case).collect();
    assert_eq!(cases, [shown]);
    assert!(store.inbox_summary(&sender).unwrap().recipients > 0);
}

#[test]
fn a_decision_about_all_is_not_about_what_was_found_earlier_and_shown_later() {
    let stuck = found("ABCDEF1", "one@x.test", Failure::NotOffered);
    // It was on hold, and nobody was asked.
    let mut held = stuck.clone();
    held.held = true;
    unseen_by_all(&held, &config(), &stuck, &config());
    // TLS was broken on our side first.
    let ours = found("ABCDEF1", "one@x.test", Failure::LocalFault);
    unseen_by_all(&ours, &config(), &stuck, &config());
    // The sender was not one of ours, and is now.
    let mut others = config();
    others.senders.internal = vec!["elsewhere.test".parse().unwrap()];
    let joins = found("ABCDEF1", "three@x.test", Failure::NotOffered);
    unseen_by_all(&stuck, &others, &joins, &config());
}

#[test]
fn a_message_to_several_domains_adds_to_a_suspicion_unless_it_is_old() {
    for (source, expected) in [
        (Source::Census, Failure::HandshakeFailed),
        (Source::Sweep, Failure::HandshakeFailed),
        (Source::Notice, Failure::Unjudged),
    ] {
        let (_directory, store) = store();
        // No message is enough alone, as no sender is.
        for (id, sender, to) in [
            ("ABCDEF2", "bob@sender.test", "one@p.test"),
            ("ABCDEF3", "bob@sender.test", "one@q.test"),
            ("ABCDEF4", "carol@sender.test", "one@r.test"),
        ] {
            let mut other = found(id, to, Failure::HandshakeFailed);
            other.key.sender = Some(address(sender));
            intake::admit(&store, &config(), &other).unwrap();
        }
        assert!(store.alerts_due().unwrap().is_empty());
        let mut whole = found("ABCDEF1", "one@x.test", Failure::HandshakeFailed);
        whole.source = source;
        let like = whole.deferred.remove(0);
        for domain in ["v.test", "w.test", "x.test", "y.test", "z.test"] {
            let address = address(&format!("one@{domain}"));
            let like = like.clone();
            whole.deferred.push(Deferred { address, ..like });
        }
        // What is known to be demanded stays so, and other failures are nobody's suspicion.
        whole.deferred[0].standing = Standing::Demanded("d".to_owned());
        whole.deferred.push(Deferred {
            address: address("one@plain.test"),
            words: Failure::NotOffered,
            ..like
        });
        let case = intake::admit(&store, &config(), &whole).unwrap().case;
        let recipients = store.recipients(case).unwrap();
        let failures: Vec<Failure> = recipients.iter().map(|one| one.failure).collect();
        let mut all = vec![Failure::Policy];
        all.extend([expected; 4]);
        all.push(Failure::NotOffered);
        assert_eq!(failures, all, "{source}");
        assert_eq!(
            store.alerts_due().unwrap().len(),
            usize::from(source == Source::Notice)
        );
    }
}
