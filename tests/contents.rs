//! Envelope and content of a released message: as sent, octet by octet and parameter by parameter.

mod common;

use std::fs::{self, File, FileTimes};
use std::io::Cursor;
use std::os::unix::fs::FileExt as _;

use common::Stage;
use common::remote::as_sent;
use posttls::postfix::{Queue, QueueFile};
use posttls::sandbox::{Instance, Mail};

/// Submits a mail, releases all its recipients and waits until everything has left.
fn released(stage: &Stage, mail: &Mail) {
    let queue_id = stage
        .sandbox
        .submit_mail(Instance::Encrypt, mail)
        .unwrap_or_else(|error| panic!("{error}"));
    let link = common::link(&stage.notification(&queue_id));
    assert_eq!(stage.post(&link, "action=send").status, 200);
    for (recipient, _) in &mail.to {
        stage.arrival(recipient);
    }
    stage.queues_are_empty();
}

/// What the mx was told in the transaction with this sender, in parts: `["MAIL FROM:<…>", "SIZE=…", …]`.
fn said(stage: &Stage, command: &str) -> Vec<Vec<String>> {
    let dialogue = stage.dialogue().into_iter();
    let asked = dialogue.filter(|line| line.starts_with(command));
    asked
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

const HEAD: &[u8] = b"From: alice@sender.test\nTo: bob@plain.test\n\
    Date: Sun, 22 Nov 2026 12:00:00 +0000\nMessage-ID: <content@sender.test>\n";

/// As the mx has it: every hop's Received fields are taken off.
fn arrived(stage: &Stage, recipient: &str) -> Vec<u8> {
    let all = stage.sandbox.delivered(recipient);
    assert_eq!(all.len(), 1, "{recipient}");
    assert!(all[0].starts_with(b"Received:"));
    as_sent(&all[0]).to_vec()
}

fn shown(octets: &[u8]) -> String {
    octets.escape_ascii().to_string().replace("\\n", "\n")
}

#[test]
fn every_octet_of_the_content_arrives() {
    let stage = Stage::new();
    let mut content = HEAD.to_vec();
    // A folded header field, a raw 8-bit one, and one that looks like a hop's.
    content.extend_from_slice(b"Subject: a long\n subject,\n\tfolded\nX-Raw: \xe9\xff\x80\n");
    content.extend_from_slice(
        b"Received: from before.test by before.test; Sun, 22 Nov 2026 11:00:00 +0000\n\n",
    );
    content.extend_from_slice(b".\n..\n...\n.leading dot\ntrailing blanks  \t \n \n\n");
    content.extend_from_slice(
        b"From the beginning of a line\n>From quoted\n\x01\x02\x0b\x0c\x1b\x7f\n",
    );
    content.extend((0x80..=0xff_u8).collect::<Vec<_>>());
    content.push(b'\n');
    content.extend(std::iter::repeat_n(b'x', 998));
    content.extend_from_slice(b"\n\n\nno newline at the end");
    let mail = Mail::new("alice@sender.test", &["bob@plain.test"], content.clone());
    released(&stage, &mail.mail_params("BODY=8BITMIME"));
    // SMTP has no message without a newline at the end.
    content.push(b'\n');
    let arrived = arrived(&stage, "bob@plain.test");
    assert!(
        arrived == content,
        "arrived:\n{}\nsent:\n{}",
        shown(&arrived),
        shown(&content)
    );
    let mail = said(&stage, "MAIL FROM:<alice@sender.test>");
    assert!(mail[0].contains(&"BODY=8BITMIME".to_owned()), "{mail:?}");
}

#[test]
fn an_empty_message_arrives_empty() {
    let stage = Stage::new();
    let content = [HEAD, b"\n"].concat();
    let mail = Mail::new("alice@sender.test", &["bob@plain.test"], content.clone());
    released(&stage, &mail);
    assert_eq!(shown(&arrived(&stage, "bob@plain.test")), shown(&content));
}

#[test]
fn delivery_status_parameters_arrive() {
    let stage = Stage::new();
    let to = ["bob@plain.test", "eve@plain.test", "tom@plain.test"];
    let content = [HEAD, b"Subject: parameters\n\nx\n"].concat();
    let mut mail = Mail::new("alice@sender.test", &to, content)
        .mail_params("RET=HDRS ENVID=QQ+2B31415+3D926")
        .rcpt_params("NOTIFY=FAILURE,DELAY ORCPT=rfc822;origin+2Bbob@else.test");
    mail.to[1].1 = "NOTIFY=NEVER ORCPT=rfc822;eve@plain.test".to_owned();
    mail.to[2].1 = String::new();
    released(&stage, &mail);
    let has = |command: &str, wanted: &[&str], not: &[&str]| {
        let all = said(&stage, command);
        assert_eq!(all.len(), 1, "{command}: {all:?}");
        let has = |part: &&str| all[0].iter().any(|word| word.starts_with(part));
        assert!(wanted.iter().all(&has), "{all:?}: {wanted:?}");
        assert!(!not.iter().any(has), "{all:?}: {not:?}");
    };
    has(
        "MAIL FROM:<alice@sender.test>",
        &["RET=HDRS", "ENVID=QQ+2B31415+3D926"],
        &["SMTPUTF8", "BODY"],
    );
    has(
        "RCPT TO:<bob@plain.test>",
        &[
            "NOTIFY=FAILURE,DELAY",
            "ORCPT=rfc822;origin+2Bbob@else.test",
        ],
        &[],
    );
    has(
        "RCPT TO:<eve@plain.test>",
        &["NOTIFY=NEVER", "ORCPT=rfc822;eve@plain.test"],
        &[],
    );
    // Postfix's smtpd gives every recipient an original one.
    has(
        "RCPT TO:<tom@plain.test>",
        &["ORCPT=rfc822;tom@plain.test"],
        &["NOTIFY"],
    );
}

#[test]
fn internationalized_mail_arrives() {
    let stage = Stage::new();
    let content = "From: jürgen@sender.test\nTo: bücher@plain.test\nSubject: Grüße – 你好\n\
                   Date: Sun, 22 Nov 2026 12:00:00 +0000\nMessage-ID: <utf8@sender.test>\n\nSchöne Grüße\n";
    let mail = Mail::new("jürgen@sender.test", &["bücher@plain.test"], content)
        .mail_params("SMTPUTF8 BODY=8BITMIME");
    released(&stage, &mail);
    let arrived = arrived(&stage, "bücher@plain.test");
    assert_eq!(String::from_utf8_lossy(&arrived), content);
    let mail = said(&stage, "MAIL FROM:<jürgen@sender.test>");
    assert_eq!(mail.len(), 1, "{:?}", stage.dialogue());
    for wanted in ["SMTPUTF8", "BODY=8BITMIME"] {
        assert!(mail[0].contains(&wanted.to_owned()), "{mail:?}");
    }
    assert_eq!(stage.attempts("bücher@plain.test"), 1);
}

/// Messages whose queue files are damaged, each in another place.
const DAMAGED: usize = 24;

/// Changes one octet of a file that nobody works on. The time stays: it tells the queue manager when to try again.
fn put(path: &std::path::Path, octets: &[u8]) {
    let file = File::options()
        .write(true)
        .open(path)
        .expect("a queue file");
    let time = file
        .metadata()
        .and_then(|data| data.modified())
        .expect("a time");
    file.write_all_at(octets, 0).expect("a queue file");
    file.set_times(FileTimes::new().set_modified(time))
        .expect("a time");
}

/// Of the other damages some show only while the message is on hold, where it is for a moment.
fn is_readable(octets: &[u8]) -> bool {
    QueueFile::read(Cursor::new(octets)).is_ok()
}

#[test]
fn a_damaged_queue_file_is_named_and_left_alone_and_moves_once_it_is_mended() {
    let stage = Stage::new();
    let recipients = ["bob@plain.test", "ann@plain.test"];
    let ids: Vec<String> = (0..DAMAGED)
        .map(|number| stage.send(&recipients, &format!("damaged{number}")))
        .collect();
    let encrypt = stage.sandbox.config_dir(Instance::Encrypt);
    let encrypt = posttls::postfix::Instance::load(&encrypt).expect("an instance");
    let mut whole = Vec::new();
    for (number, id) in ids.iter().enumerate() {
        let link = stage.case_link(id);
        stage.in_queue(id, "deferred");
        let path = encrypt.path(Queue::Deferred, &id.parse().expect("a queue ID"));
        let good = fs::read(&path).expect("a queue file");
        let changed = |at: usize| {
            let mut octets = good.clone();
            octets[at] ^= 0xff;
            octets
        };
        let fatal: Vec<usize> = (0..good.len())
            .filter(|at| !is_readable(&changed(*at)))
            .collect();
        let damaged = changed(fatal[fatal.len() * number / DAMAGED]);
        put(&path, &damaged);
        let page = stage.post(&link, "action=send&recipient=bob%40plain.test");
        assert_eq!(page.status, 200, "{}", page.body);
        let named = |line: &str| {
            line.contains(&format!("{id}: /")) && line.contains("look at it with postcat")
        };
        assert!(stage.log().lines().any(named), "{}", stage.log());
        stage.in_queue(id, "deferred");
        assert_eq!(fs::read(&path).expect("a queue file"), damaged);
        whole.push((path, good));
    }
    assert!(stage.arrivals("bob@plain.test").is_empty());
    assert!(stage.has_nothing(Instance::May));
    for (path, good) in &whole {
        put(path, good);
    }
    stage.wait("what was decided to be done", || {
        (stage.arrivals("bob@plain.test").len() == DAMAGED).then_some(())
    });
    assert!(stage.arrivals("ann@plain.test").is_empty());
}
