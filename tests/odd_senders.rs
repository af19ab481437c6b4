//! Senders whose addresses a mail library would not take: whatever Postfix has accepted as an envelope sender is told.

mod common;

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};

use common::{PATIENCE, Stage};
use posttls::sandbox::{Instance, Mail, UpOptions};

/// Two instances in which a bare name stays one, and in the may instance belongs to sender.test.
fn stage(more: &[(Instance, &str, &str)]) -> Stage {
    Stage::with(|mut options: UpOptions| {
        let bare = [
            (Instance::Encrypt, "append_at_myorigin", "no"),
            (Instance::May, "myorigin", "sender.test"),
        ];
        for (instance, name, value) in bare.iter().chain(more) {
            let setting = (*instance, (*name).to_owned(), (*value).to_owned());
            options.main_cf.push(setting);
        }
        options
    })
}

fn send(stage: &Stage, from: &str, parameters: &str, subject: &str) -> String {
    let data = format!("From: x@sender.test\r\nSubject: {subject}\r\n\r\nbody\r\n");
    let mail = Mail::new(from, &["bob@plain.test"], data).mail_params(parameters);
    stage
        .sandbox
        .submit_mail(Instance::Encrypt, &mail)
        .unwrap_or_else(|error| panic!("{from}: {error}"))
}

/// Submits as root with `sendmail` and gives the queue ID.
fn sendmail(stage: &Stage, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> String {
    let picked_up = || {
        let log = stage.sandbox.log(Instance::Encrypt);
        let lines = log.lines().filter(|line| line.contains("/pickup["));
        let ids = lines.filter_map(|line| line.split(": ").nth(1).map(str::to_owned));
        ids.collect::<Vec<_>>()
    };
    let before = picked_up().len();
    let mut child = Command::new("sendmail")
        .arg("-C")
        .arg(stage.sandbox.config_dir(Instance::Encrypt))
        .arg("-f")
        .args([from.as_ref(), to.as_ref()])
        .env_remove("MAIL_CONFIG")
        .stdin(Stdio::piped())
        .spawn()
        .expect("sendmail");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(b"Subject: unwritable\n\nbody\n")
        .expect("a message");
    drop(stdin);
    assert!(child.wait().expect("sendmail").success());
    stage.wait("pickup", || picked_up().into_iter().nth(before))
}

#[test]
fn whatever_postfix_has_accepted_as_a_sender_gets_its_mail() {
    let stage = stage(&[]);
    let long = format!("{}@sender.test", "x".repeat(100));
    let senders = [
        long.as_str(),
        "SRS0=ab12=XY=other.test=bob@sender.test",
        "prvs=1234abcdef=alice@sender.test",
        "\"a b\"@sender.test",
        "\"say \\\"hi\\\"\"@sender.test",
        "\"a..b\"@sender.test",
        ".alice@sender.test",
        "root",
        "a+b/c=d@sender.test",
    ];
    for (number, from) in senders.iter().enumerate() {
        let subject = format!("odd{number}x");
        let queue_id = send(&stage, from, "", &subject);
        let told = stage.mail(&format!("Not sent yet: {subject}"));
        assert!(told.text.contains("bob@plain.test"), "{from}: {}", told.raw);
        let page = stage.get(&told.link("/c/"));
        assert_eq!(page.status, 200, "{from}");
        assert_eq!(
            stage.post(&told.link("/c/"), "action=delete").status,
            200,
            "{from}"
        );
        stage.becomes(&queue_id, "bob@plain.test", "deleted");
    }
    assert!(!stage.log().contains("can't be told"), "{}", stage.log());
}

#[test]
fn a_sender_with_letters_of_its_own_is_told_with_and_without_smtputf8() {
    for (offered, to) in [
        ("yes", "to=<alice@müller.example>"),
        ("no", "to=<alice@xn--mller-kva.example>"),
    ] {
        let stage = stage(&[(Instance::May, "smtputf8_enable", offered)]);
        send(&stage, "alice@müller.example", "SMTPUTF8", "idn");
        stage.wait("the mail server to take the notification", || {
            stage.sandbox.log(Instance::May).contains(to).then_some(())
        });
        // A local part has no other form; a server without the extension may take it all the same, as Postfix does.
        send(&stage, "jürgen@sender.test", "SMTPUTF8", "letters");
        stage
            .sandbox
            .wait_for("its sender to be told", PATIENCE, || {
                let log = stage.log();
                log.contains("from=<jürgen@sender.test>, notified")
                    .then_some(())
            })
            .unwrap_or_else(|error| panic!("{error}\n{}", stage.log()));
    }
}

#[test]
fn whom_smtp_cannot_name_is_given_up_once_and_the_admin_hears_the_truth() {
    let stage = Stage::configured(&[("notification", "admin_address", "\"admin@sender.test\"")]);
    // smtpd(8) takes no such sender; a local program can put it into the queue.
    let queue_id = sendmail(&stage, "alice@sen\\>der.test", "bob@plain.test");
    let told = stage.mail("PostTLS: mail to senders can't be composed");
    assert!(
        told.text.contains(&queue_id) && told.text.contains("it is not tried again"),
        "{}",
        told.text
    );
    stage.wait("it to be given up", || {
        (stage.number_of("SELECT count(*) FROM owed") == 0).then_some(())
    });
    let count = stage.log().matches("is not tried again").count();
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(stage.log().matches("is not tried again").count(), count);
    assert!(count <= 1, "{}", stage.log());
    stage.said(&["delete", &queue_id]);
    stage.becomes(&queue_id, "bob@plain.test", "deleted");
}

#[test]
fn an_address_in_latin_1_is_no_mystery_to_anybody() {
    for smtputf8 in ["yes", "no"] {
        let stage = stage(&[
            (Instance::Encrypt, "smtputf8_enable", smtputf8),
            (Instance::May, "smtputf8_enable", smtputf8),
            // With it smtpd(8) refuses whatever is no UTF-8.
            (Instance::Mx, "smtputf8_enable", "no"),
        ]);
        stage.configure("notification", "admin_address", "\"admin@sender.test\"");
        stage.signal_mover(rustix::process::Signal::HUP);
        // RFC 6531 has no way to write to such a sender: the admin hears of it, and can decide.
        let from = OsStr::from_bytes(b"j\xfcrgen@sender.test");
        let queue_id = sendmail(&stage, from, "bob@plain.test");
        let told = stage.mail("PostTLS: mail to senders can't be composed");
        assert!(
            told.text.contains(&queue_id) && told.text.contains(r"j\xFCrgen@sender.test"),
            "{}",
            told.text
        );
        stage.said(&["release", &queue_id]);
        stage.arrival("bob@plain.test");
        stage.becomes(&queue_id, "bob@plain.test", "released");
        // A recipient like that has its octets on the page, and can be chosen by them. With SMTPUTF8 Postfix returns it.
        if smtputf8 == "yes" {
            continue;
        }
        let to = OsStr::from_bytes(b"j\xf6rg@plain.test");
        let queue_id = sendmail(&stage, "alice@sender.test", to);
        let link = common::link(&stage.notification(&queue_id));
        let page = stage.get(&link).body;
        assert!(page.contains(r"j\xF6rg@plain.test"), "{page}");
        assert!(!page.contains("j?rg"), "{page}");
        let form = "action=delete&recipient=j%F4%8F%BB%B6rg%40plain.test";
        assert_eq!(stage.post(&link, form).status, 200);
        stage.queues_are_empty();
    }
}

/// Postfix sends no notice about mail without a sender, so whoever is called so in one is somebody.
#[test]
fn a_mailer_daemon_elsewhere_is_a_sender_like_any_other() {
    let stage = stage(&[]);
    for (from, decided) in [
        ("MAILER-DAEMON@elsewhere.test", "keep, by policy"),
        ("MAILER-DAEMON@sender.test", "keep, by policy"),
    ] {
        let queue_id = send(&stage, from, "", "daemon");
        stage.logged(&format!(
            "{queue_id}: to=<bob@plain.test>, decision recorded: {decided}"
        ));
        assert_eq!(stage.case(&queue_id)["sender"], from);
        stage.said(&["delete", &queue_id]);
        stage.becomes(&queue_id, "bob@plain.test", "deleted");
    }
}

#[test]
fn one_person_under_three_spellings_of_a_domain_is_one() {
    let stage = stage(&[]);
    stage.configure("limits", "first", "1");
    stage.signal_mover(rustix::process::Signal::HUP);
    let spellings = [
        "alice@sender.test",
        "alice@SENDER.TEST",
        "alice@Sender.Test",
    ];
    let first = send(&stage, spellings[0], "", "first");
    stage.notification(&first);
    let mut all = vec![first];
    for from in &spellings[1..] {
        let queue_id = send(&stage, from, "", "more");
        stage.logged(&format!("{queue_id}: from=<{from}>, is told later"));
        all.push(queue_id);
    }
    stage.has_mails(1);
    stage.minutes_pass(11);
    let digest = stage.mail("Not sent yet: 2 messages");
    let link = digest.link("/s/");
    let page = stage.get(&link);
    for queue_id in &all {
        assert_eq!(stage.states(queue_id)["bob@plain.test"], "open");
    }
    assert_eq!(page.body.matches("<h3 ").count(), 3, "{}", page.body);
    let case = |queue_id: &String| stage.case(queue_id)["id"].as_i64().expect("a number");
    let form = format!("choice-{}-1=delete", case(&all[2]));
    assert_eq!(stage.post(&link, &form).status, 200);
    stage.becomes(&all[2], "bob@plain.test", "deleted");
    stage.has_mails(2);
}

#[test]
fn lists_and_programs_are_a_matter_of_the_admin() {
    let stage = Stage::configured(&[
        ("notification", "admin_address", "\"admin@sender.test\""),
        ("senders", "persons", "[\"help-request@sender.test\"]"),
    ]);
    let mut sent = Vec::new();
    for number in 0..50 {
        let from = format!("news-return-{number}-bob{number}=plain.test@sender.test");
        sent.push(send(&stage, &from, "", "news"));
    }
    for field in [
        "Precedence: bulk",
        "List-Id: <x.test>",
        "Auto-Submitted: auto-replied",
    ] {
        let data = format!("From: alice@sender.test\r\n{field}\r\nSubject: s\r\n\r\nbody\r\n");
        let to = ["bob@plain.test"];
        let submitted = stage
            .sandbox
            .submit("alice@sender.test", &to, data.as_bytes());
        sent.push(submitted.unwrap_or_else(|error| panic!("{error}")));
    }
    for queue_id in &sent {
        stage.logged(&format!(
            "{queue_id}: to=<bob@plain.test>, decision recorded: keep"
        ));
    }
    let told = stage.mail("PostTLS: mail of lists and programs is stuck");
    assert!(told.text.contains("senders.persons"), "{}", told.text);
    assert_eq!(stage.has_mails(1).len(), 1);
    let case = stage.case(&sent[52]);
    assert_eq!(case["asked"], "nobody");
    // Persons are asked, whatever they are called.
    let queue_id = send(&stage, "help-request@sender.test", "", "help");
    stage.notification(&queue_id);
    stage.said(&["release", &sent[0]]);
    stage.arrival("bob@plain.test");
}
