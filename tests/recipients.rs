//! Recipients that stand elsewhere in a queue file: taken from the header, or added by a milter.

mod common;
#[path = "queue_file/milter.rs"]
mod milter;

use std::io::Write as _;
use std::process::{Command, Stdio};

use common::Stage;
use common::remote::as_sent;
use posttls::sandbox::Instance;

/// Submits as root with `sendmail -t` and gives the queue ID.
fn sendmail(stage: &Stage, content: &[u8]) -> String {
    let mut child = Command::new("sendmail")
        .arg("-C")
        .arg(stage.sandbox.config_dir(Instance::Encrypt))
        .args(["-f", "alice@sender.test", "-t"])
        .env_remove("MAIL_CONFIG")
        .stdin(Stdio::piped())
        .spawn()
        .expect("sendmail");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(content).expect("a message");
    drop(stdin);
    assert!(child.wait().expect("sendmail").success());
    stage.wait("pickup", || {
        let log = stage.sandbox.log(Instance::Encrypt);
        let line = log
            .lines()
            .find(|line| line.contains("/pickup[") && line.contains(" from=<alice@sender.test>"))?;
        line.split(": ").nth(1).map(str::to_owned)
    })
}

#[test]
fn recipients_from_the_header() {
    let stage = Stage::new();
    let to = ["to@plain.test", "cc@plain.test", "bcc@plain.test"];
    let head = "From: alice@sender.test\nTo: to@plain.test\nCc: Carl <cc@plain.test>\n";
    let rest = "Subject: from the header\nDate: Sun, 22 Nov 2026 12:00:00 +0000\n\
                Message-ID: <t@sender.test>\n\nno newline at the end";
    let content = format!("{head}Bcc: bcc@plain.test\n{rest}");
    let queue_id = sendmail(&stage, content.as_bytes());
    let link = common::link(&stage.notification(&queue_id));
    assert_eq!(stage.states(&queue_id).len(), 3);

    let form = "action=send&recipient=bcc%40plain.test";
    assert_eq!(stage.post(&link, form).status, 200);
    let mail = stage.arrival("bcc@plain.test");
    let content = String::from_utf8_lossy(as_sent(mail.as_bytes()));
    assert_eq!(content, format!("{head}{rest}\n"));
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), ["to@plain.test", "cc@plain.test"]);
    let form = "action=delete&recipient=cc%40plain.test";
    assert_eq!(stage.post(&link, form).status, 200);
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("to@plain.test");
    stage.queues_are_empty();
    assert_eq!(to.map(|recipient| stage.attempts(recipient)), [1, 0, 1]);
}

#[test]
fn recipients_added_by_a_milter() {
    let port = milter::start();
    let stage = Stage::with(|options| {
        let service = format!("inet:127.0.0.1:{port}");
        options.main_cf(Instance::Encrypt, "smtpd_milters", &service)
    });
    stage.add_domain("defer.test", "plain.test");
    let to = ["bob@plain.test", "removed@defer.test"];
    let (queue_id, link) = stage.stuck(&to, "milter");
    // Thirty were added, one of them removed again.
    let mut all: Vec<String> = (0..30).map(|n| format!("added{n}@defer.test")).collect();
    all.retain(|address| address != "added7@defer.test");
    all.push("bob@plain.test".to_owned());
    all.sort();
    let states = stage.states(&queue_id);
    assert_eq!(states.keys().cloned().collect::<Vec<_>>(), all);

    // The sender has written one of them, and sees and decides about no other.
    assert!(!stage.notification(&queue_id).contains("added"));
    assert!(!stage.get(&link).body.contains("added"));
    let form = "action=send&recipient=added3%40defer.test";
    assert_ne!(stage.post(&link, form).status, 200);
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.said(&["release", &queue_id, "--recipient", "added3@defer.test"]);
    for recipient in ["added3@defer.test", "bob@plain.test"] {
        let mail = stage.arrival(recipient);
        assert!(mail.contains("another body\n") && !mail.contains("body of milter"));
        assert_eq!(
            common::header(&mail, "X-Added").as_deref(),
            Some("by the milter")
        );
    }
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id).len(), 28);
    stage.said(&["delete", &queue_id, "--recipient", "added29@defer.test"]);
    stage.said(&["release", &queue_id]);
    stage.queues_are_empty();
    for recipient in &all {
        let expected = usize::from(recipient != "added29@defer.test");
        assert_eq!(stage.attempts(recipient), expected, "{recipient}");
    }
    for recipient in ["added7@defer.test", "removed@defer.test"] {
        assert_eq!(stage.attempts(recipient), 0, "{recipient}");
    }
    let senders = stage.dialogue();
    let mut senders = senders
        .iter()
        .filter(|line| line.starts_with("MAIL FROM:<"));
    assert!(senders.all(|line| line.contains("<changed@sender.test>") || line.contains("<>")));
    // Nothing but the notification went to a sender.
    assert_eq!(stage.sandbox.inbox().len(), 1);
}
