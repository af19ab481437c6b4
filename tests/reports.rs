//! Postfix's own mail to senders: bounces and requested reports arrive as ever, notices of delay never.

mod common;

use common::Stage;
use common::remote::subjects;
use posttls::sandbox::{Instance, Mail};

const BOUNCE: &str = "Undelivered Mail Returned to Sender";
const REPORT: &str = "Successful Mail Delivery Report";

/// Waits for a mail to the sender with this subject.
fn mail(stage: &Stage, subject: &str) -> String {
    stage.wait(subject, || {
        let inbox = stage.sandbox.inbox();
        let mut mails = inbox.iter().map(|raw| String::from_utf8_lossy(raw));
        mails
            .find(|mail| common::header(mail, "Subject").as_deref() == Some(subject))
            .map(|mail| mail.into_owned())
    })
}

#[test]
fn an_unknown_user_bounces_as_ever_beside_one_who_is_asked_about() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["nouser@tls.test", "bob@plain.test"], "mixed");
    let bounce = mail(&stage, BOUNCE);
    assert!(bounce.contains("550 5.1.1"), "{bounce}");
    assert!(bounce.contains("Final-Recipient: rfc822; nouser@tls.test"));
    assert!(!bounce.contains("bob@plain.test"), "{bounce}");
    let states = stage.states(&queue_id);
    assert_eq!(states.keys().collect::<Vec<_>>(), ["bob@plain.test"]);
    assert_eq!(subjects(&stage).len(), 2);
    stage.post(&link, "action=delete");
    stage.queues_are_empty();
    // A deletion that the sender chose is not returned.
    assert_eq!(subjects(&stage).len(), 2, "{:?}", subjects(&stage));
}

#[test]
fn a_bounce_after_the_release_reaches_the_sender() {
    let stage = Stage::new();
    // To the encrypt instance without TLS, to the may instance a server that refuses the user.
    stage.add_domain("late.test", "plain.test");
    let (_, link) = stage.stuck(&["bob@late.test"], "returned");
    let transport = stage.sandbox.config_dir(Instance::May).join("transport");
    let table = std::fs::read_to_string(&transport).expect("a table");
    let refusing = "late.test error:5.1.1 no such user here\n".to_owned();
    let others = table.lines().filter(|line| !line.starts_with("late.test"));
    let table = others.fold(refusing, |table, line| table + line + "\n");
    std::fs::write(&transport, table).expect("a table");
    stage.reload(Instance::May);
    assert_eq!(stage.post(&link, "action=send").status, 200);
    let bounce = mail(&stage, BOUNCE);
    assert!(bounce.contains("no such user here"), "{bounce}");
    assert!(bounce.contains("body of returned"), "{bounce}");
    stage.queues_are_empty();
}

#[test]
fn requested_reports_arrive_for_secure_and_for_released_deliveries() {
    let stage = Stage::new();
    let to = ["ann@nodsn.test", "bob@plain.test"];
    let content = "From: alice@sender.test\nSubject: reported\n\nx\n";
    let mail_of = Mail::new("alice@sender.test", &to, content)
        .mail_params("RET=HDRS ENVID=report-7")
        .rcpt_params("NOTIFY=SUCCESS,FAILURE,DELAY");
    let queue_id = stage
        .sandbox
        .submit_mail(Instance::Encrypt, &mail_of)
        .expect("a queue ID");
    let link = common::link(&stage.notification(&queue_id));
    // The encrypt instance reports for the server that can't.
    let report = mail(&stage, REPORT);
    assert!(report.contains("Reporting-MTA: dns; encrypt.host.test"));
    assert!(report.contains("Original-Envelope-Id: report-7"));
    assert!(report.contains("ann@nodsn.test") && !report.contains("bob@plain.test"));
    assert_eq!(subjects(&stage).len(), 2, "{:?}", subjects(&stage));

    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("bob@plain.test");
    // The remote side was asked for the second report, and sends it.
    let second = stage.wait("the second report", || {
        let mails = stage.sandbox.inbox();
        let mut mails = mails.iter().map(|raw| String::from_utf8_lossy(raw));
        mails
            .find(|mail| mail.contains("Final-Recipient: rfc822; bob@plain.test"))
            .map(|mail| mail.into_owned())
    });
    assert!(
        second.contains("Reporting-MTA: dns; mx.host.test"),
        "{second}"
    );
    assert!(
        second.contains("Original-Envelope-Id: report-7"),
        "{second}"
    );
    stage.queues_are_empty();
    assert_eq!(subjects(&stage).len(), 3, "{:?}", subjects(&stage));
}

#[test]
fn notices_of_delay_never_reach_the_sender() {
    let stage = Stage::new();
    let to = ["bob@plain.test", "tom@down.test"];
    let content = "From: alice@sender.test\nSubject: delayed\n\nx\n";
    let mail = Mail::new("alice@sender.test", &to, content).rcpt_params("NOTIFY=DELAY");
    let queue_id = stage
        .sandbox
        .submit_mail(Instance::Encrypt, &mail)
        .expect("a queue ID");
    let link = common::link(&stage.notification(&queue_id));
    // Postfix made its notice, and it was thrown away.
    stage.wait("the sender's copy to be discarded", || {
        let log = stage.sandbox.log(Instance::Encrypt);
        log.contains("discard: header Subject: PostTLS sender copy")
            .then_some(())
    });
    for (round, form) in ["action=keep", "action=send"].into_iter().enumerate() {
        let tries = || {
            let log = stage.sandbox.log(Instance::Encrypt);
            log.matches(&format!("{queue_id}: to=<tom@down.test>"))
                .count()
        };
        assert_eq!(stage.post(&link, form).status, 200);
        let before = tries();
        stage.flush(&queue_id);
        stage.wait("another try", || (tries() > before).then_some(()));
        stage.in_queue(&queue_id, "deferred");
        assert_eq!(
            subjects(&stage).len(),
            1,
            "round {round}: {:?}",
            subjects(&stage)
        );
    }
    stage.arrival("bob@plain.test");
    assert_eq!(subjects(&stage).len(), 1, "{:?}", subjects(&stage));
}
