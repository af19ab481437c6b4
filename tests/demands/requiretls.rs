//! Mail sent with REQUIRETLS (RFC 8689): nobody sends it in plain text.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use posttls::sandbox::Instance;

use crate::common::{Stage, link};
use crate::{can_not_be_sent, history, is, recipient};

/// Sets the flag of REQUIRETLS, as Postfix 3.11 does: 32 in the sixth field of the size record.
fn require_tls(stage: &Stage, queue_id: &str) {
    stage.in_queue(queue_id, "deferred");
    // The deferred queue is hashed.
    let instance = posttls::postfix::Instance::load(&stage.sandbox.config_dir(Instance::Encrypt));
    let id = queue_id.parse().expect("a queue ID");
    let path = instance
        .expect("an instance")
        .path(posttls::postfix::Queue::Deferred, &id);
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("a queue file");
    let mut head = vec![0; 2 + 6 * 16];
    file.read_exact_at(&mut head, 0).expect("a size record");
    assert_eq!(head[0], b'C');
    let length = usize::from(head[1]);
    let record = String::from_utf8(head[2..2 + length].to_vec()).expect("numbers");
    let start = record.rfind(char::is_whitespace).expect("fields") + 1;
    let options: u64 = record[start..].parse().expect("a number");
    let text = format!("{:>1$}", options | 32, length - start + 1);
    file.write_all_at(text.as_bytes(), (2 + start - 1) as u64)
        .expect("written");
}

#[test]
fn requiretls_is_never_sent_whoever_decides() {
    let stage =
        Stage::with(|options| options.posttls_toml("[sweep]\nseconds = 1\ncensus_minutes = 0\n"));
    // Offered before its flag was there: the move itself refuses.
    let (queue_id, page) = stage.stuck(&["bob@plain.test"], "offered");
    require_tls(&stage, &queue_id);
    stage.post(&page, "action=send");
    is(&stage, &queue_id, "require-tls", "open");
    assert!(history(&stage, &queue_id).contains("REQUIRETLS"));
    can_not_be_sent(&stage, &queue_id, &page, "bob@plain.test");
    let output = stage.posttls(&["release", &queue_id, "--override-policy"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(stage.attempts("bob@plain.test"), 0);
}

/// The flag of a real message, where Postfix knows it (tests/debian/run sid "demands requiretls"); elsewhere what is sent
/// in the same way is offered.
#[test]
fn requiretls_as_postfix_itself_marks_it() {
    let stage = Stage::new();
    let config = stage.sandbox.config_dir(Instance::Encrypt);
    let settings = posttls::postfix::Settings::load(&config).expect("settings");
    let knows = settings.version().is_some_and(|version| version >= (3, 11));
    let mut command = std::process::Command::new("sendmail");
    command
        .env("MAIL_CONFIG", &config)
        .args(["-f", "alice@sender.test"]);
    if knows {
        command.args(["-O", "requiretls=yes"]);
    }
    let mut child = command
        .arg("bob@plain.test")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("sendmail");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(b"Subject: marked\n\nbody\n")
        .expect("written");
    drop(stdin);
    assert!(child.wait().expect("an end").success());
    let queue_id = stage.wait("a case", || {
        let cases = stage.store().cases(None).expect("cases");
        Some(cases.first()?.key.queue_id.to_string())
    });
    let page = link(&stage.notification(&queue_id));
    if knows {
        is(&stage, &queue_id, "require-tls", "open");
        can_not_be_sent(&stage, &queue_id, &page, "bob@plain.test");
        let output = stage.posttls(&["release", &queue_id, "--override-policy"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(stage.attempts("bob@plain.test"), 0);
    } else {
        assert_eq!(recipient(&stage, &queue_id)["may_send"], true);
    }
}

#[test]
fn the_census_sees_requiretls() {
    let stage = Stage::with(|options| {
        options
            .hook("/bin/true")
            .posttls_toml("[sweep]\nseconds = 1\ncensus_minutes = 0\n")
    });
    let queue_id = stage.send(&["bob@plain.test"], "lost");
    require_tls(&stage, &queue_id);
    stage.said(&["census"]);
    is(&stage, &queue_id, "require-tls", "open");
}
