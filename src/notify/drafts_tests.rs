//! The mails as they read, in both languages, and what strangers may not do to them.

use super::*;
use crate::case::store::Alert;
use crate::case::{Asked, CaseId, CaseState, Failure, MessageKey, Source};
use crate::notify::{Letter, Overrides};
use proptest::prelude::*;

fn settings(language: &str) -> Notification {
    let mut settings: Notification = toml::from_str::<toml::Table>(crate::config::DEFAULT_FILE)
        .unwrap()["notification"]
        .clone()
        .try_into()
        .unwrap();
    settings.language = language.parse().unwrap();
    settings
}

fn recipient(number: i64, address: &str, failure: Failure) -> Recipient {
    let offer = crate::config::Offer {
        failures: vec![
            Failure::NotOffered,
            Failure::Refused,
            Failure::HandshakeFailed,
        ],
    };
    let about = crate::case::policy::Circumstances {
        failure,
        asked: Asked::Sender,
        unasked: crate::config::Unasked::Keep,
        mandatory: None,
        consent: false,
    };
    let verdict = crate::case::policy::judge(&about, &offer);
    Recipient {
        id: number,
        number,
        address: address.parse().unwrap(),
        written: crate::case::Written::Same,
        failure,
        status: "4.7.4".to_owned(),
        detail: "said so".to_owned(),
        may_send: verdict.may_send,
        state: verdict.state,
        stuck_at: None,
        changed: 0,
        passage: None,
        passage_at: None,
        passage_detail: None,
    }
}

fn alice() -> Address {
    "alice@sender.test".parse().unwrap()
}

fn case(number: i64, subject: &str) -> Case {
    Case {
        id: CaseId(number),
        key: MessageKey {
            queue_id: format!("3A41B1234{number}").parse().unwrap(),
            sender: Some(alice()),
            arrival: 1_790_000_000,
        },
        subject: subject.to_owned(),
        message_id: Some("<original@sender.test>".to_owned()),
        retry_until: Some(1_790_432_000),
        state: CaseState::Open,
        opened_at: 0,
        notified_at: None,
        source: Source::Notice,
        asked: Asked::Sender,
        closed_at: None,
        closed_why: None,
        redacted_at: None,
        held_at: None,
    }
}

fn notification(
    settings: &Notification,
    subject: &str,
    recipients: &[Recipient],
    reminder: Option<Reminder>,
) -> Letter {
    let url = "https://x.example/c/TOKEN";
    Draft::notification(
        &alice(),
        settings,
        &case(7, subject),
        recipients,
        url,
        reminder,
    )
    .unwrap()
    .compose(&Overrides::new())
    .unwrap()
}

fn letter(subject: &str, recipients: &[Recipient]) -> Letter {
    notification(&settings("en"), subject, recipients, None)
}

fn digest(language: &str, count: i64, reminder: Option<Reminder>) -> Letter {
    let messages: Vec<About> = (1..=count)
        .map(|number| About {
            case: case(number, ["Offer", "", "<b>Minutes</b>"][number as usize % 3]),
            waiting: vec!["bob@plain.test".to_owned(); number as usize],
        })
        .collect();
    let url = "https://x.example/s/TOKEN";
    let total = messages.len() + 40;
    Draft::digest(
        &alice(),
        &settings(language),
        &messages,
        total,
        url,
        reminder,
    )
    .unwrap()
    .compose(&Overrides::new())
    .unwrap()
}

fn line(news: News, number: i64) -> Line {
    Line {
        news,
        recipient: format!("bob{number}@plain.test"),
        case: case(number, "Offer"),
        domain: (news == News::Mandatory).then(|| "plain.test".to_owned()),
        said: (news == News::Returned).then(|| "550 5.1.1 no such user".to_owned()),
        consent: (news == News::Consent).then(|| ConsentLine {
            target: "plain.test".to_owned(),
            until: 1_791_000_000,
            url: "https://x.example/r/TOKEN".to_owned(),
        }),
    }
}

fn information(language: &str, lines: &[Line]) -> Letter {
    Draft::information(&alice(), &settings(language), lines)
        .unwrap()
        .compose(&Overrides::new())
        .unwrap()
}

fn alert(language: &str) -> Letter {
    let alert = |cause: &str, count| Alert {
        cause: cause.to_owned(),
        detail: "3A41B12345: to=<bob@plain.test>".to_owned(),
        since: 1_790_000_000_000,
        count,
    };
    let alerts = [
        alert(
            "local fault: TLS is required, but our TLS engine is unavailable",
            3,
        ),
        alert(crate::case::alert::CEILING, 1),
    ];
    Draft::alert(&alice(), &settings(language), &alerts)
        .unwrap()
        .compose(&Overrides::new())
        .unwrap()
}

fn header(letter: &Letter, name: &str) -> Option<String> {
    let raw = letter.content.clone();
    let mail = mailparse::parse_mail(&raw).unwrap();
    mailparse::MailHeaderMap::get_first_value(&mail.headers[..], name)
}

/// Subject, text and HTML, decoded.
fn readable(letter: &Letter) -> String {
    let raw = letter.content.clone();
    let mail = mailparse::parse_mail(&raw).unwrap();
    let mut text = format!("Subject: {}\n", header(letter, "Subject").unwrap());
    let parts = if mail.subparts.is_empty() {
        vec![&mail]
    } else {
        mail.subparts.iter().collect()
    };
    for part in parts {
        text += &format!("--- {}\n{}", part.ctype.mimetype, part.get_body().unwrap());
    }
    text.replace("\r\n", "\n")
}

/// The snapshots hold moments as they are in UTC; elsewhere even the lines break at other places.
fn in_utc() -> bool {
    let moment = jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::system());
    moment.strftime("%Z").to_string() == "UTC"
}

macro_rules! reads {
    ($letter:expr) => {
        if in_utc() {
            insta::assert_snapshot!(readable(&$letter));
        } else {
            assert!(readable(&$letter).contains("Subject: "));
        }
    };
}

#[test]
fn one_recipient() {
    reads!(letter(
        "Offer",
        &[recipient(1, "bob@plain.test", Failure::NotOffered)]
    ));
}

fn three() -> [Recipient; 3] {
    [
        recipient(1, "bob@plain.test", Failure::NotOffered),
        recipient(2, "carol@cert.test", Failure::Certificate),
        recipient(3, "dave@down.test", Failure::NotTls),
    ]
}

#[test]
fn several_recipients_some_of_whom_are_not_concerned() {
    reads!(letter("Grüße aus Köln", &three()));
}

#[test]
fn several_recipients_in_german() {
    let last = Some(Reminder { last: true });
    reads!(notification(
        &settings("de"),
        "Grüße aus Köln",
        &three(),
        last
    ));
}

#[test]
fn a_digest() {
    reads!(digest("en", 3, None));
}

#[test]
fn a_last_reminder_of_many_in_german() {
    reads!(digest("de", 2, Some(Reminder { last: true })));
}

#[test]
fn what_came_back_and_what_still_waits() {
    let lines = [
        line(News::Returned, 1),
        line(News::Waiting, 2),
        line(News::Waiting, 3),
    ];
    reads!(information("en", &lines));
    reads!(information("de", &lines));
}

fn everything() -> Vec<Line> {
    vec![
        line(News::Mandatory, 1),
        line(News::Consent, 2),
        line(News::Delivered, 3),
        line(News::Delivered, 4),
    ]
}

#[test]
fn an_information_of_everything() {
    reads!(information("en", &everything()));
}

#[test]
fn an_information_of_everything_in_german() {
    reads!(information("de", &everything()));
}

#[test]
fn an_alert() {
    reads!(alert("en"));
}

#[test]
fn an_alert_in_german() {
    reads!(alert("de"));
}

#[test]
fn mails_about_one_message_are_replies_to_it_and_others_are_not() {
    let reply = Some("<original@sender.test>".to_owned());
    let one = [recipient(1, "bob@plain.test", Failure::NotOffered)];
    let last = Some(Reminder { last: true });
    let reminder = notification(&settings("en"), "Offer", &one, last);
    assert_eq!(
        header(&reminder, "Subject").unwrap(),
        "Last reminder: not sent yet: Offer"
    );
    let informed = information("en", &[line(News::Mandatory, 1), line(News::Mandatory, 1)]);
    assert_eq!(header(&informed, "Subject").unwrap(), "Not sent: Offer");
    for letter in [letter("Offer", &one), reminder, informed] {
        assert_eq!(header(&letter, "In-Reply-To"), reply);
        assert_eq!(header(&letter, "References"), reply);
    }
    for letter in [
        digest("en", 2, None),
        information("en", &everything()),
        alert("en"),
    ] {
        assert_eq!(header(&letter, "In-Reply-To"), None);
        assert_eq!(header(&letter, "Auto-Submitted").unwrap(), "auto-generated");
    }
}

#[test]
fn a_digest_of_many_lists_some_and_counts_the_others() {
    let text = readable(&digest("en", 9, None));
    assert!(
        text.contains("49 of your messages") && text.contains("40 more messages are on the page")
    );
    assert!(text.contains("bob@plain.test and 8 more"), "{text}");
    assert!(text.contains("(no subject)"), "{text}");
}

#[test]
fn html_in_a_subject_is_text() {
    let strange = [recipient(1, "\"<b>\"@plain.test", Failure::NotOffered)];
    for letter in [
        letter("<script>alert(1)</script>", &strange),
        digest("en", 5, None),
    ] {
        let parsed = letter.content.clone();
        let mail = mailparse::parse_mail(&parsed).unwrap();
        let html = mail.subparts[1].get_body().unwrap();
        assert!(html.contains("&lt;"), "{html}");
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
        assert!(
            html.trim_start().starts_with("<!doctype html>")
                && html.contains("display:inline-block")
        );
    }
}

#[test]
fn the_subject_is_the_admins_or_the_catalogues() {
    let one = [recipient(1, "bob@plain.test", Failure::NotOffered)];
    let mut settings = settings("de");
    let subject = |settings: &Notification, reminder| {
        header(&notification(settings, "Offer", &one, reminder), "Subject").unwrap()
    };
    assert_eq!(subject(&settings, None), "Noch nicht gesendet: Offer");
    settings.subject = "[TLS] {{ subject }}".to_owned();
    assert_eq!(subject(&settings, None), "[TLS] Offer");
    let again = Some(Reminder { last: false });
    assert_eq!(
        subject(&settings, again),
        "Erinnerung: noch nicht gesendet: Offer"
    );
}

#[test]
fn the_admins_templates_replace_single_ones() {
    let (settings, to, lines) = (settings("en"), alice(), everything());
    let draft = Draft::information(&to, &settings, &lines).unwrap();
    let own = [(
        "information.txt".to_owned(),
        "Ours: {{ sections[0].kind }}".to_owned(),
    )];
    let text = readable(&draft.compose(&own.into()).unwrap());
    assert!(
        text.contains("Ours: mandatory") && text.contains("<!doctype html>"),
        "{text}"
    );
    // A template of another mail is not looked at, and a broken one of this is named.
    let broken = |name: &str| [(name.to_owned(), "{{ nonsense".to_owned())].into();
    assert!(draft.compose(&broken("digest.txt")).is_ok());
    let error = draft
        .compose(&broken("information.txt"))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("template information.txt: "), "{error}");
}

proptest! {
    #[test]
    fn no_subject_breaks_the_mail(subject in any::<String>(), german in any::<bool>()) {
        let settings = settings(if german { "de" } else { "en" });
        let recipients = [recipient(1, "bob@plain.test", Failure::NotOffered)];
        let mut stuck = About { case: case(1, &subject), waiting: vec!["bob@plain.test".to_owned()] };
        let mut told = line(News::Delivered, 1);
        told.case.subject = subject.clone();
        stuck.case.id = CaseId(8);
        let (to, url) = (alice(), "https://x.example/");
        for (draft, reply) in [
            (Draft::notification(&to, &settings, &stuck.case, &recipients, url, None), true),
            (Draft::digest(&to, &settings, &[stuck.clone(), stuck.clone()], 2, url, None), false),
            (Draft::information(&to, &settings, &[told]), true),
        ] {
            let formatted = draft.unwrap().compose(&Overrides::new()).unwrap().content;
            let mail = mailparse::parse_mail(&formatted).unwrap();
            let mut names: Vec<String> = mail.headers.iter().map(|header| header.get_key()).collect();
            names.retain(|name| reply || !["In-Reply-To", "References"].contains(&name.as_str()));
            names.sort();
            let thread = if reply { ("In-Reply-To ", "References ") } else { ("", "") };
            let wanted = format!(
                "Auto-Submitted Content-Type Date From {}MIME-Version Message-ID {}Subject To X-Auto-Response-Suppress",
                thread.0, thread.1
            );
            prop_assert_eq!(names.join(" "), wanted);
            prop_assert_eq!(mail.subparts.len(), 2);
            prop_assert!(formatted.split(|octet| *octet == b'\n').all(|line| line.len() <= 998), "a line is too long");
        }
    }
}
