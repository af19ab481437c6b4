//! The hook under real Postfix: its mail server is down for a while, and the message itself is hostile.

mod common;

use common::{Stage, header};
use mailparse::MailHeaderMap as _;
use posttls::sandbox::{Instance, Mail};

#[test]
fn while_notifications_cannot_be_sent_the_notice_waits_and_then_the_sender_is_told_once() {
    let stage = Stage::new();
    let text = std::fs::read_to_string(stage.sandbox.config_file()).expect("posttls.toml");
    stage.configure("notification", "smtp_port", "1");
    let queue_id = stage.send(&["bob@plain.test"], "waits");
    // The message itself and its notice.
    let waiting = |count: usize| {
        stage.wait(&format!("{count} messages in deferred"), || {
            let queues = stage.sandbox.queue(Instance::Encrypt);
            let under_way = queues["incoming"].len() + queues["active"].len();
            (queues["deferred"].len() == count && under_way == 0)
                .then(|| queues["deferred"].clone())
        })
    };
    let deferred = waiting(2);
    assert!(deferred.contains(&queue_id));
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
    for _ in 0..3 {
        let before = stage
            .log()
            .matches("notice kept by Postfix for another try")
            .count();
        stage
            .sandbox
            .run("postqueue", Instance::Encrypt, &["-f"])
            .expect("a queue run");
        stage.wait("another try", || {
            (stage
                .log()
                .matches("notice kept by Postfix for another try")
                .count()
                > before)
                .then_some(())
        });
        // No notice about the notice, and no bounce.
        assert_eq!(waiting(2), deferred);
    }
    assert!(stage.sandbox.inbox().is_empty());
    assert_eq!(stage.store().cases(None).expect("cases").len(), 1);
    let mailq = stage
        .sandbox
        .run("postqueue", Instance::Encrypt, &["-p"])
        .expect("a queue");
    assert!(
        mailq.contains("did not take the notification"),
        "the admin sees why: {mailq}"
    );

    std::fs::write(stage.sandbox.config_file(), text).expect("posttls.toml");
    stage
        .sandbox
        .run("postqueue", Instance::Encrypt, &["-f"])
        .expect("a queue run");
    let link = common::link(&stage.notification(&queue_id));
    assert_eq!(waiting(1), [queue_id.as_str()]);
    stage
        .sandbox
        .run("postqueue", Instance::Encrypt, &["-f"])
        .expect("a queue run");
    assert_eq!(waiting(1), [queue_id.as_str()]);
    assert_eq!(stage.sandbox.inbox().len(), 1);
    assert!(stage.store().odd_notices().expect("notices").is_empty());
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("bob@plain.test");
}

/// One mail, well-formed: everything that a hostile message might have broken.
fn is_well_formed(mail: &str) {
    for line in mail.lines() {
        assert!(line.len() <= 998, "{} octets in a line", line.len());
        assert!(!line.contains('\r') && !line.contains('\0'));
    }
    let parsed = mailparse::parse_mail(mail.as_bytes()).expect("a mail");
    for (name, count) in [
        ("From", 1),
        ("To", 1),
        ("Subject", 1),
        ("Date", 1),
        ("Message-ID", 1),
        ("Bcc", 0),
        ("Cc", 0),
        ("X-Injected", 0),
    ] {
        assert_eq!(
            parsed.headers.get_all_values(name).len(),
            count,
            "{name}: {mail}"
        );
    }
    assert_eq!(parsed.ctype.mimetype, "multipart/alternative");
    assert_eq!(parsed.subparts.len(), 2);
    let subject = header(mail, "Subject").expect("a subject");
    let html = parsed.subparts[1].get_body().expect("HTML");
    let plain = parsed.subparts[0].get_body().expect("text");
    for text in [&subject, &html, &plain] {
        assert!(
            !text.contains(['\u{202E}', '\u{2066}', '\u{200B}', '\0', '\u{7}']),
            "{text}"
        );
    }
    assert!(
        !html.contains("<script") && !html.contains("<img src=x") && !html.contains("javascript:"),
        "{html}"
    );
}

#[test]
fn hostile_subjects_arrive_as_one_well_formed_mail() {
    let stage = Stage::new();
    let subjects = [
        (
            "html",
            "</td><script>alert(1)</script><img src=x onerror=y> & \"quoted\" {{ 7*7 }}".to_owned(),
        ),
        (
            "crlf",
            "=?utf-8?Q?one=0D=0ABcc:_eve@sender.test=0D=0AX-Injected:_yes=0D=0A=0D=0Abody?="
                .to_owned(),
        ),
        (
            "bidi",
            "=?utf-8?B?4oCucmV2ZXJzZWTigKwg4oGmaXNvbGF0ZWTigIs=?= =?utf-8?Q?=00nul=07bell?="
                .to_owned(),
        ),
        ("long", "x".repeat(988)),
        (
            "long-folded",
            format!(
                "{}\r\n {}\r\n\t{}",
                "y".repeat(900),
                "z".repeat(900),
                "w".repeat(900)
            ),
        ),
        ("raw8", "gr\u{fc}\u{df}e \u{202e}gnp.exe".to_owned()),
        (
            "broken",
            "=?utf-8?B?////?= =?no-such-charset?Q?=FF=FE?= =?utf-8?Q?=?=".to_owned(),
        ),
        ("empty", String::new()),
        ("dots", ".\r\n .".to_owned()),
    ];
    let ids: Vec<(&str, String)> = subjects
        .iter()
        .map(|(name, subject)| {
            let data = format!("From: alice@sender.test\r\nSubject: {subject}\r\nMessage-ID: <{name}\r\n @x>\r\n\r\nbody\r\n");
            let mail = Mail::new("alice@sender.test", &[&format!("{name}@plain.test")], data);
            (*name, stage.sandbox.submit_mail(Instance::Encrypt, &mail).unwrap_or_else(|error| panic!("{error}")))
        })
        .collect();
    for (name, queue_id) in &ids {
        let mail = stage.notification(queue_id);
        is_well_formed(&mail);
        assert_eq!(
            header(&mail, "To").as_deref(),
            Some("alice@sender.test"),
            "{name}"
        );
        let page = stage.get(&common::link(&mail));
        assert_eq!(page.status, 200, "{name}");
        assert!(
            !page.body.contains("<script") && !page.body.contains('\u{202E}'),
            "{name}: {}",
            page.body
        );
    }
    assert_eq!(stage.sandbox.inbox().len(), ids.len());
}

#[test]
fn hostile_addresses_are_asked_about_and_delivered_to() {
    let stage = Stage::new();
    let recipients = [
        "\"<script>alert(1)</script>\"@plain.test",
        "\"a b,c;d\"@plain.test",
        "\"x\\\"y\"@plain.test",
        "\"a'b--;drop&amp=1?choice=send#x\"@plain.test",
        "\"x --rf %s\"@plain.test",
        &format!("{}@plain.test", "l".repeat(64)),
    ];
    let senders = [
        "\"a<b>\"@sender.test",
        "o'hara+tag=x@sender.test",
        "\"$(id)`id`\"@sender.test",
    ];
    for (number, sender) in senders.iter().enumerate() {
        let own: Vec<&str> = recipients
            .iter()
            .copied()
            .skip(number * 2)
            .take(2)
            .collect();
        let data = "From: x@sender.test\r\nSubject: odd\r\n\r\nbody\r\n";
        let mail = Mail::new(sender, &own, data);
        let queue_id = stage
            .sandbox
            .submit_mail(Instance::Encrypt, &mail)
            .unwrap_or_else(|error| panic!("{error}"));
        let notification = stage.notification(&queue_id);
        is_well_formed(&notification);
        let states = stage.states(&queue_id);
        assert_eq!(states.len(), 2, "{states:?}");
        assert!(states.values().all(|state| state == "open"), "{states:?}");
        let link = common::link(&notification);
        let page = stage.get(&link);
        assert!(!page.body.contains("<script"), "{}", page.body);
        // By name, as the form of the page has it.
        let form: String = states
            .keys()
            .fold("action=send".to_owned(), |form, address| {
                let encoded: String =
                    url::form_urlencoded::byte_serialize(address.as_bytes()).collect();
                form + "&recipient=" + &encoded
            });
        let answer = stage.post(&link, &form);
        assert_eq!(answer.status, 200, "{answer:?}");
        for address in states.keys() {
            stage.arrival(address);
            assert_eq!(stage.sandbox.delivered(address).len(), 1, "{address}");
        }
    }
    stage.queues_are_empty();
}
