//! What senders are told besides that mail is stuck, in which language, and what the admin is told.

mod common;

use common::Stage;
use posttls::case::store::{NewCase, NewConsent, NewRecipient};
use posttls::case::{Asked, ConsentId, Failure, RecipientState, Scope, Source, alert};
use posttls::link::Keys;

const ADMIN: (&str, &str, &str) = ("notification", "admin_address", "\"admin@sender.test\"");

#[test]
fn who_writes_to_a_mandatory_domain_hears_what_was_deleted_and_what_to_do() {
    let stage = Stage::new();
    let domain = "plain.test".parse().unwrap();
    assert!(stage.store().add_mandatory(&domain, "test").unwrap().is_new);
    let queue_id = stage.send(&["bob@plain.test", "eve@refuse.test"], "secret");
    let told = stage.mail("Not sent: secret");
    assert!(
        told.text.contains("bob@plain.test") && !told.text.contains("eve@refuse.test"),
        "{}",
        told.text
    );
    assert!(
        told.text
            .contains("The domain plain.test must be reached over TLS.")
    );
    assert!(
        told.text.contains("What you can do instead")
            && told.text.contains("postmaster@sender.test")
    );
    assert_eq!(told.in_reply_to.as_deref(), Some("<secret@sender.test>"));
    let asked = stage.mail("Not sent yet: secret");
    assert!(
        asked.text.contains("eve@refuse.test") && !asked.text.contains("bob@plain.test"),
        "{}",
        asked.text
    );
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "deleted");
    stage.has_mails(2);
    assert_eq!(stage.number_of("SELECT count(*) FROM owed"), 0);
}

#[test]
fn a_remembered_choice_that_was_used_is_told_with_a_link_to_revoke_it() {
    let stage = Stage::configured(&[("remember", "days", "30")]);
    let sender = "alice@sender.test".parse().unwrap();
    let consent = stage
        .store()
        .add_consent(&NewConsent {
            sender,
            scope: Scope::Domain,
            target: "plain.test".to_owned(),
            failures: vec![Failure::NotOffered],
            client: "::1".to_owned(),
            expires_at: posttls::case::store::now_ms() + 86_400_000,
        })
        .unwrap();
    stage.send(&["bob@plain.test"], "again");
    stage.arrival("bob@plain.test");
    let told = stage.mail("Sent unencrypted, as you chose: again");
    assert!(
        told.text.contains("You chose so for plain.test, until"),
        "{}",
        told.text
    );
    let token = told.link("/r/").rsplit('/').next().unwrap().to_owned();
    let keys = Keys::load(&stage.dir().join("key")).expect("a key");
    let next_week = posttls::case::store::now_ms() / 1000 + 7 * 86_400;
    assert_eq!(
        keys.verify::<ConsentId>(&token, next_week).unwrap(),
        consent
    );
    stage.has_mails(1);
}

#[test]
fn several_informations_within_a_window_are_one_mail() {
    let stage = Stage::new();
    let domain = "plain.test".parse().unwrap();
    assert!(stage.store().add_mandatory(&domain, "test").unwrap().is_new);
    stage.send(&["bob@plain.test"], "first");
    stage.mail("Not sent: first");
    for subject in ["second", "third"] {
        let queue_id = stage.send(&["bob@plain.test"], subject);
        stage.wait("it to be recorded", || {
            let known = stage.store().cases_of(&queue_id.parse().unwrap()).unwrap();
            (!known.is_empty()).then_some(())
        });
        stage.becomes(&queue_id, "bob@plain.test", "deleted");
    }
    stage.has_mails(1);
    stage.minutes_pass(11);
    let told = stage.has_mails(2).remove(1);
    assert_eq!(told.subject, "What became of 2 recipients of your mail");
    assert!(told.text.contains("Subject: second") && told.text.contains("Subject: third"));
}

/// Says what the sweep would have seen.
fn delivered(stage: &Stage, queue_id: &str) {
    let store = stage.store();
    let case = store
        .cases_of(&queue_id.parse().unwrap())
        .unwrap()
        .remove(0)
        .id;
    let seen: Vec<(i64, RecipientState)> = store
        .recipients(case)
        .unwrap()
        .iter()
        .map(|recipient| (recipient.id, RecipientState::Delivered))
        .collect();
    store.settle(case, &seen).unwrap();
}

#[test]
fn a_delivery_after_all_is_told_if_that_is_wanted() {
    for (wanted, mails) in [("true", 2), ("false", 1)] {
        let stage = Stage::configured(&[("notification", "tell_delivered", wanted)]);
        let (queue_id, _) = stage.stuck(&["bob@plain.test"], "late");
        delivered(&stage, &queue_id);
        let mails = stage.has_mails(mails);
        if wanted == "true" {
            assert_eq!(mails[1].subject, "Delivered securely after all: late");
            assert!(
                mails[1]
                    .text
                    .contains("There is nothing left for you to do")
            );
            assert_eq!(mails[1].in_reply_to.as_deref(), Some("<late@sender.test>"));
        }
        assert_eq!(stage.number_of("SELECT count(*) FROM owed"), 0);
    }
}

#[test]
fn a_recipient_who_joins_a_case_is_told_of() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "grows");
    let case = stage
        .store()
        .cases_of(&queue_id.parse().unwrap())
        .unwrap()
        .remove(0);
    let joins = |address: &str, source| NewCase {
        key: case.key.clone(),
        subject: case.subject.clone(),
        message_id: case.message_id.clone(),
        retry_until: case.retry_until,
        source,
        asked: Asked::Sender,
        recipients: vec![NewRecipient {
            address: address.parse().unwrap(),
            written: posttls::case::Written::Same,
            failure: Failure::Refused,
            status: "4.7.802".to_owned(),
            detail: String::new(),
            may_send: true,
            state: RecipientState::Open,
            action: None,
            consent: None,
        }],
    };
    let admitted = stage
        .store()
        .admit(&joins("eve@refuse.test", Source::Sweep))
        .unwrap();
    assert_eq!(admitted.case, case.id);
    let mails = stage.has_mails(2);
    assert_eq!(mails[1].subject, "Not sent yet: grows");
    assert!(mails[1].text.contains("bob@plain.test") && mails[1].text.contains("eve@refuse.test"));
    assert_eq!(stage.get(&link).status, 200);
    let again = stage.store().case(case.id).unwrap().unwrap();
    assert_eq!(
        again.notified_at,
        stage.store().cases(None).unwrap()[0].notified_at
    );
}

#[test]
fn mail_is_in_the_language_of_the_senders_domain() {
    let stage = Stage::configured(&[("notification", "languages", "{ \"sender.test\" = \"de\" }")]);
    stage.send(&["bob@plain.test"], "gruss");
    let told = stage.mail("Noch nicht gesendet: gruss");
    assert!(
        told.text
            .contains("Der Mailserver der Gegenseite bietet keine Verschlüsselung an."),
        "{}",
        told.text
    );
    assert!(
        told.text.contains(" Uhr (") && told.text.contains("Unverschlüsselt senden"),
        "{}",
        told.text
    );
    assert_eq!(stage.get(&told.link("/c/")).status, 200);
    stage.minutes_pass(240);
    let reminder = stage.mail("Erinnerung: noch nicht gesendet: gruss");
    assert!(
        reminder
            .text
            .contains("wartet immer noch auf Ihre Entscheidung")
    );
}

#[test]
fn the_admin_hears_of_one_cause_once_an_hour() {
    let stage = Stage::configured(&[ADMIN]);
    let cause = format!("{}our TLS engine is unavailable", alert::LOCAL_FAULT);
    let raise = |id: &str| {
        stage
            .store()
            .raise_alert(&cause, &format!("{id}: to=<bob@plain.test>"))
            .unwrap()
    };
    raise("3A41B12345");
    let first = stage.mail("PostTLS: TLS does not work on our side");
    assert_eq!(first.to, "admin@sender.test");
    for words in [
        "our TLS engine is unavailable",
        "3A41B12345",
        "Once, on ",
        "postqueue -f",
    ] {
        assert!(first.text.contains(words), "{words}: {}", first.text);
    }
    for id in ["3A41B12346", "3A41B12347", "3A41B12348"] {
        raise(id);
    }
    stage.has_mails(1);
    stage.minutes_pass(61);
    // One mail a minute at most, whatever the cause.
    stage.sandbox.stop_httpd();
    stage.sandbox.start_httpd(&[]).expect("it starts");
    let second = stage.has_mails(2).remove(1);
    assert!(
        second.text.contains("3 times since") && second.text.contains("3A41B12346"),
        "{}",
        second.text
    );
}

#[test]
fn mail_of_senders_who_are_not_asked_is_the_admins() {
    let stage = Stage::configured(&[
        ADMIN,
        ("senders", "internal", "[\"other.test\"]"),
        ("senders", "external", "\"tell\""),
    ]);
    let queue_id = stage.send(&["bob@plain.test"], "foreign");
    let told = stage.mail("PostTLS: mail of senders who are not asked is stuck");
    assert!(
        told.text.contains(&queue_id) && told.text.contains("posttls release"),
        "{}",
        told.text
    );
    stage.has_mails(1);
}

#[test]
fn without_an_admins_address_alerts_are_in_the_log() {
    let stage = Stage::new();
    stage
        .store()
        .raise_alert("something new", "3A41B12345: strange")
        .unwrap();
    stage.wait("the log", || {
        let log = stage.log();
        log.contains("error: something new: 1 times, for example 3A41B12345: strange")
            .then_some(())
    });
    assert!(stage.mails().is_empty());
}

#[test]
fn a_subject_is_read_as_programs_mean_it_and_nothing_in_ours_is_decoded_twice() {
    let stage = Stage::new();
    for (number, (subject, shown)) in [
        (
            "=?utf-8*de?B?R3LD?==?utf-8?B?vMOfZQ?= an =?iso-2022-jp?B?GyRCRnxLXBsoQg==?=",
            "Grüße an 日本",
        ),
        (
            "=?us-ascii?Q?=3D=3Futf-8=3FQ=3F=3DE2=3D80=3DAEx=3F=3D?=",
            "=?utf-8?Q?=E2=80=AEx?=",
        ),
        (
            "=?utf-8?Q?=D9=85=DB=8C=E2=80=8C=D8=AE=E2=80=AE?=",
            "می\u{200c}خ",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let from = format!("person{number}@sender.test");
        let data = format!("From: {from}\r\nSubject: {subject}\r\n\r\nbody\r\n");
        let to = ["bob@plain.test"];
        let queue_id = stage.sandbox.submit(&from, &to, data.as_bytes()).unwrap();
        let mail = stage.notification(&queue_id);
        let told = common::header(&mail, "Subject").expect("a subject");
        assert_eq!(told, format!("Not sent yet: {shown}"));
        assert_eq!(stage.case(&queue_id)["subject"], shown);
    }
}
