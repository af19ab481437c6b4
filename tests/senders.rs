//! Who is asked about stuck mail, and what happens to mail about which nobody is, on real Postfix.

mod common;

use common::{Stage, came_over_tls};
use posttls::case::store::Store;
use posttls::case::{Failure, MessageKey, Source};
use posttls::config::Config;
use posttls::intake::{Deferred, Found, admit};
use posttls::postfix::QueueFile;
use posttls::sandbox::Instance;

/// A sandbox in which only sender.test is asked, and other mail is handled so.
fn stage(external: &str) -> Stage {
    let stage = Stage::new();
    stage.configure("senders", "internal", "[\"sender.test\"]");
    stage.configure("senders", "external", &format!("\"{external}\""));
    stage
}

/// Sends a message from `from` and waits until its case is there.
fn submit(stage: &Stage, from: &str, to: &[&str]) -> String {
    let message = b"From: x@y.test\r\nSubject: forwarded\r\n\r\nbody\r\n";
    let queue_id = stage
        .sandbox
        .submit(from, to, message)
        .unwrap_or_else(|error| panic!("{error}"));
    stage.logged(&format!("{queue_id}: to=<"));
    stage.wait("the case", || {
        stage
            .posttls(&["case", &queue_id])
            .status
            .success()
            .then_some(())
    });
    queue_id
}

fn says(stage: &Stage, arguments: &[&str]) -> String {
    let output = stage.posttls(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn who_matches_a_pattern_is_asked() {
    let stage = stage("keep");
    stage.configure(
        "senders",
        "internal",
        "[\"sender.test\", \".below.test\", \"carol@shared.test\"]",
    );
    for (from, asked) in [
        ("alice@sender.test", "sender"),
        ("alice@sub.sender.test", "nobody"),
        ("alice@badsender.test", "nobody"),
        ("alice@sub.below.test", "sender"),
        ("alice@below.test", "nobody"),
        ("Carol@Shared.test", "sender"),
        ("dave@shared.test", "nobody"),
    ] {
        let queue_id = submit(&stage, from, &["bob@plain.test"]);
        let case = stage.case(&queue_id);
        assert_eq!(case["asked"], asked, "{from}");
        let expected = if asked == "sender" { "open" } else { "kept" };
        assert_eq!(
            stage.states(&queue_id)["bob@plain.test"],
            expected,
            "{from}"
        );
    }
    stage.notification(
        stage
            .case_of("alice@sender.test")
            .as_deref()
            .expect("a case"),
    );
}

trait CaseOf {
    fn case_of(&self, sender: &str) -> Option<String>;
}

impl CaseOf for Stage {
    /// The queue ID of the newest case of a sender.
    fn case_of(&self, sender: &str) -> Option<String> {
        let cases = self.store().cases(None).expect("cases");
        let of = |case: &posttls::case::Case| {
            case.key.sender.as_ref().map(|one| one.as_str()) == Some(sender)
        };
        let case = cases.into_iter().rev().find(of)?;
        Some(case.key.queue_id.to_string())
    }
}

#[test]
fn kept_mail_is_shown_to_the_admin_who_may_decide() {
    let stage = stage("keep");
    let to = ["bob@plain.test", "eve@refuse.test"];
    let queue_id = submit(&stage, "mallory@elsewhere.test", &to);
    assert_eq!(
        stage.states(&queue_id).into_values().collect::<Vec<_>>(),
        ["kept", "kept"]
    );
    let cases = says(&stage, &["cases"]);
    assert!(
        cases.contains(&queue_id)
            && cases.contains("from=<mallory@elsewhere.test>  open, nobody is asked"),
        "{cases}"
    );
    let case = says(&stage, &["case", &queue_id]);
    assert!(
        case.contains("decided <bob@plain.test>: keep by policy"),
        "{case}"
    );
    says(&stage, &["release", &queue_id, "--recipient", to[0]]);
    says(&stage, &["delete", &queue_id, "--recipient", to[1]]);
    assert!(!came_over_tls(&stage.arrival(to[0])));
    stage.queues_are_empty();
    assert_eq!(to.map(|one| stage.attempts(one)), [1, 0]);
    assert!(stage.sandbox.inbox().is_empty(), "nobody was written to");
}

#[test]
fn released_mail_goes_through_the_may_instance_where_it_may() {
    let stage = stage("release");
    let to = ["bob@plain.test", "eve@cert.test", "busy@tls.test"];
    let queue_id = submit(&stage, "mallory@elsewhere.test", &to);
    assert!(!came_over_tls(&stage.arrival(to[0])));
    stage.becomes(&queue_id, to[0], "released");
    stage.in_queue(&queue_id, "deferred");
    // A wrong certificate is not offered, and a full mailbox has nothing to do with TLS.
    assert_eq!(stage.states(&queue_id)[to[1]], "kept");
    assert_eq!(stage.states(&queue_id)[to[2]], "not-offered");
    assert_eq!(stage.pending(&queue_id), [to[1], to[2]]);
    assert_eq!(stage.attempts(to[0]), 1);
    let case = says(&stage, &["case", &queue_id]);
    assert!(
        case.contains("decided <bob@plain.test>: send by policy"),
        "{case}"
    );
    stage.logged(&format!(
        "{queue_id}: to=<bob@plain.test>, decision recorded: send, by policy"
    ));
    assert!(stage.sandbox.inbox().is_empty(), "nobody was written to");
}

#[test]
fn deleted_mail_is_deleted_only_where_tls_is_the_matter() {
    let stage = stage("delete");
    let to = ["bob@plain.test", "eve@cert.test", "busy@tls.test"];
    let queue_id = submit(&stage, "mallory@elsewhere.test", &to);
    stage.becomes(&queue_id, to[0], "deleted");
    stage.becomes(&queue_id, to[1], "deleted");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.states(&queue_id)[to[2]], "not-offered");
    assert_eq!(stage.pending(&queue_id), [to[2]]);
    // All of a message.
    let whole = submit(&stage, "mallory@elsewhere.test", &["bob@plain.test"]);
    stage.becomes(&whole, "bob@plain.test", "deleted");
    stage.wait("the file to go", || {
        stage
            .sandbox
            .queue_of(Instance::Encrypt, &whole)
            .is_none()
            .then_some(())
    });
    assert_eq!(stage.case(&whole)["state"], "closed");
    assert_eq!(stage.attempts(to[0]), 0);
}

#[test]
fn the_admin_is_told_where_that_is_wanted() {
    let stage = stage("tell");
    let queue_id = submit(&stage, "mallory@elsewhere.test", &["bob@plain.test"]);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "kept");
    let database =
        rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a database");
    let (cause, detail): (String, String) = database
        .query_row("SELECT cause, detail FROM alerts", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .expect("an alert");
    assert_eq!(cause, "stuck mail of senders who are not asked");
    assert!(
        detail.contains(&queue_id) && detail.contains("from=<mallory@elsewhere.test>"),
        "{detail}"
    );
}

#[test]
fn what_the_policy_decides_while_the_daemon_is_down_is_done_when_it_is_back() {
    let stage = stage("release");
    stage.sandbox.stop_httpd();
    let queue_id = submit(&stage, "mallory@elsewhere.test", &["bob@plain.test"]);
    // Nobody is there who could judge it.
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "not-offered");
    stage.in_queue(&queue_id, "deferred");
    stage.sandbox.start_httpd(&[]).expect("a daemon");
    stage.arrival("bob@plain.test");
    stage.becomes(&queue_id, "bob@plain.test", "released");
    stage.queues_are_empty();
    assert_eq!(stage.attempts("bob@plain.test"), 1);
}

/// Puts a message without a sender into the queue and hands it in as whoever finds it in the queue would.
fn without_sender(stage: &Stage, null: &str) -> String {
    stage.configure("senders", "null", &format!("\"{null}\""));
    let message = b"From: x@y.test\r\nSubject: a report\r\n\r\nbody\r\n";
    let queue_id = stage
        .sandbox
        .submit("", &["bob@plain.test"], message)
        .unwrap_or_else(|error| panic!("{error}"));
    stage.in_queue(&queue_id, "deferred");
    let instance = posttls::postfix::Instance::load(&stage.sandbox.config_dir(Instance::Encrypt))
        .expect("an instance");
    let id: posttls::postfix::QueueId = queue_id.parse().expect("a queue ID");
    let path = instance.directory("deferred", &id).join(&queue_id);
    let file = QueueFile::read(std::fs::File::open(path).expect("a file")).expect("a queue file");
    assert!(file.sender.is_empty());
    let config = Config::load(&stage.sandbox.config_file()).expect("a configuration");
    let store: Store = stage.store();
    let found = Found {
        automatic: false,
        held: false,
        key: MessageKey {
            queue_id: id,
            sender: None,
            arrival: file.arrival.0,
        },
        subject: "a report".to_owned(),
        message_id: None,
        retry_until: None,
        source: Source::Census,
        deferred: vec![Deferred {
            address: "bob@plain.test".parse().expect("an address"),
            written: posttls::case::Written::Same,
            words: Failure::NotOffered,
            host: None,
            standing: posttls::standing::Standing::Free,
            status: "4.7.801".to_owned(),
            detail: String::new(),
        }],
    };
    admit(&store, &config, &found).expect("a case");
    queue_id
}

#[test]
fn mail_without_a_sender_is_handled_as_configured_and_nobody_is_asked() {
    let stage = stage("keep");
    let kept = without_sender(&stage, "keep");
    assert_eq!(stage.states(&kept)["bob@plain.test"], "kept");
    assert_eq!(stage.case(&kept)["asked"], "nobody");
    let deleted = without_sender(&stage, "delete");
    stage.becomes(&deleted, "bob@plain.test", "deleted");
    assert_eq!(stage.attempts("bob@plain.test"), 0);
    let released = without_sender(&stage, "release");
    stage.becomes(&released, "bob@plain.test", "released");
    let mail = stage.arrival("bob@plain.test");
    assert!(mail.contains("Subject: a report"), "{mail}");
    assert!(stage.sandbox.inbox().is_empty(), "nobody was written to");
}
