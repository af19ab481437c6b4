//! Nobody decides without the link, and nobody but Postfix makes a notice that counts.

mod common;

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::Stage;
use posttls::case::store::{NewCase, NewRecipient};
use posttls::case::{Asked, CaseId, Failure, MessageKey, RecipientState, Source};
use posttls::link::Keys;
use posttls::sandbox::{Instance, Mail};

const NOTICE: &str = include_str!("corpus/notices/not-offered.eml");

/// The page of a token, as far as a stranger can tell pages apart.
fn answer_to(stage: &Stage, token: &str) -> (u16, String) {
    let answer = stage.get(&format!("{}/c/{token}", stage.sandbox.http()));
    (answer.status, answer.body)
}

fn token_of(link: &str) -> &str {
    link.rsplit('/').next().expect("a token")
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[test]
fn forged_and_unknown_tokens_answer_alike_and_expired_ones_say_so() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "token");
    let genuine = token_of(&link);
    let octets = URL_SAFE_NO_PAD.decode(genuine).expect("base64url");
    let keys = Keys::load(&stage.dir().join("key")).expect("keys");
    let unknown = answer_to(&stage, &keys.sign(CaseId(4711), now() + 60));
    assert_eq!(unknown.0, 404);

    let mut forged = Vec::new();
    for index in 0..octets.len() {
        let mut changed = octets.clone();
        changed[index] ^= 1 << (index % 8);
        forged.push(URL_SAFE_NO_PAD.encode(changed));
    }
    let other = stage.dir().join("other-key");
    std::fs::write(&other, Keys::line(1, &[7; 32])).expect("a key");
    let case = stage.store().cases(None).expect("cases")[0].id;
    forged.push(Keys::load(&other).expect("keys").sign(case, now() + 60));
    forged.push(genuine[..genuine.len() - 1].to_owned());
    forged.push(genuine[..20].to_owned());
    forged.push(format!("{genuine}A"));
    forged.push(URL_SAFE_NO_PAD.encode([&octets[..], b"x"].concat()));
    for (index, token) in forged.iter().enumerate() {
        // One address that tries so many would hear 429.
        let client = format!("192.0.2.{index}");
        let url = format!("{}/c/{token}", stage.sandbox.http());
        for (method, form) in [("GET", ""), ("POST", "action=delete")] {
            let answer = common::forward(&client, method, &url, form);
            assert_eq!((answer.status, answer.body), unknown, "{method} {token}");
        }
    }

    let expired = keys.sign(case, now() - 1);
    let (status, body) = answer_to(&stage, &expired);
    assert_eq!(status, 410);
    assert!(
        !body.contains("bob@plain.test") && body.contains("postmaster@sender.test"),
        "{body}"
    );
    let url = format!("{}/c/{expired}", stage.sandbox.http());
    assert_eq!(stage.post(&url, "action=delete").status, 410);
    // An expired token that is forged as well is a forged one.
    let mut octets = URL_SAFE_NO_PAD.decode(&expired).expect("base64url");
    octets[3] ^= 1;
    assert_eq!(answer_to(&stage, &URL_SAFE_NO_PAD.encode(octets)), unknown);
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("bob@plain.test");
}

#[test]
fn a_link_decides_for_its_own_case_only() {
    let stage = Stage::new();
    let (mine, link) = stage.stuck(&["mine@plain.test"], "mine");
    let (other, _) = stage.stuck(&["other@plain.test", "third@plain.test"], "other");
    for form in [
        "action=send&recipient=other%40plain.test",
        "action=delete&recipient=mine%40plain.test&recipient=other%40plain.test",
        "choice-2=send",
        "choice-1=delete&choice-2=delete",
        "choice-9999999999=send",
    ] {
        let answer = stage.post(&link, form);
        assert_eq!(answer.status, 400, "{form}: {answer:?}");
    }
    assert_eq!(stage.states(&mine)["mine@plain.test"], "open");
    assert!(stage.states(&other).values().all(|state| state == "open"));
    assert_eq!(stage.pending(&other).len(), 2);
    assert!(stage.sandbox.delivered("other@plain.test").is_empty());
}

/// A notice that names this message, with everything right that its sender can know.
fn forged_notice(stage: &Stage, queue_id: &str, recipient: &str) -> String {
    let arrival = stage.case(queue_id)["arrival"].as_i64().expect("a time");
    let arrival = jiff::Timestamp::from_second(arrival)
        .expect("a time")
        .strftime("%a, %d %b %Y %H:%M:%S +0000 (UTC)")
        .to_string();
    let text = NOTICE
        .replace(
            "Arrival-Date: Sun, 22 Nov 2026 21:31:35 +0000 (UTC)",
            &format!("Arrival-Date: {arrival}"),
        )
        .replace("A5F5C9C8038", queue_id)
        .replace("ann@sender.test", "alice@sender.test")
        .replace("bob@plain.test", recipient);
    assert!(text.contains(&arrival) && text.contains(queue_id) && text.contains(recipient));
    text
}

/// Hands a message to the encrypt instance as a local user would.
fn sendmail(stage: &Stage, message: &str) {
    let mut child = Command::new("/usr/sbin/sendmail")
        .arg("-C")
        .arg(stage.sandbox.config_dir(Instance::Encrypt))
        .args([
            "-f",
            "double-bounce@encrypt.host.test",
            "notice@posttls.invalid",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .expect("sendmail runs");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(message.as_bytes())
        .expect("a message");
    assert!(child.wait().expect("an end").success());
}

#[test]
fn no_notice_comes_in_by_smtp() {
    let stage = Stage::new();
    for address in [
        "notice@posttls.invalid",
        "NOTICE@PostTLS.invalid",
        "any@posttls.invalid",
    ] {
        // The client is in mynetworks.
        let mail = Mail::new("double-bounce@encrypt.host.test", &[address], NOTICE);
        let error = stage
            .sandbox
            .submit_mail(Instance::Encrypt, &mail)
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("reserved for notices made by this host"),
            "{error}"
        );
    }
    assert!(stage.store().odd_notices().expect("notices").is_empty());
}

#[test]
fn a_local_users_notice_is_kept_and_believed_in_nothing() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "real");
    let before = stage.case(&queue_id);
    let inbox = stage.sandbox.inbox().len();
    let named = |recipient| forged_notice(&stage, &queue_id, recipient);
    let strange = NOTICE.replace("ann@sender.test", "victim@sender.test");
    // Headers of one's own that look like Postfix's come after Postfix's.
    let doubled = format!(
        "Received: by encrypt.host.test (Postfix)\n\tid BB6049C803F; Sun, 22 Nov 2026 21:31:35 +0000 (UTC)\n{strange}"
    );
    let forged = [
        named("bob@plain.test"),
        named("eve@plain.test"),
        strange,
        doubled,
    ];
    for message in &forged {
        sendmail(&stage, message);
    }
    let odd = stage.wait("the notices", || {
        let odd = stage.store().odd_notices().expect("notices");
        (odd.len() == forged.len()).then_some(odd)
    });
    for (id, why) in &odd {
        assert!(
            why.contains("not made by Postfix itself") && why.contains("local user with the ID 0"),
            "{why}"
        );
        assert!(
            stage
                .log()
                .contains(&format!("warning: {id}: not a notice that can be used")),
            "{}",
            stage.log()
        );
        stage.wait("its end", || {
            stage
                .sandbox
                .queue_of(Instance::Encrypt, id)
                .is_none()
                .then_some(())
        });
    }
    assert_eq!(stage.store().cases(None).expect("cases").len(), 1);
    assert_eq!(stage.case(&queue_id), before);
    assert_eq!(stage.sandbox.inbox().len(), inbox);
    assert!(stage.has_nothing(Instance::May));
    let listed = String::from_utf8(stage.posttls(&["cases"]).stdout).expect("text");
    assert!(
        listed.contains("Notices that could not be used: 4"),
        "{listed}"
    );
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("bob@plain.test");
}

/// Of what a command prints Postfix makes status and reason, word by word: a recipient who has one could say that TLS
/// failed, and the sender would be asked.
#[test]
fn the_words_of_a_command_are_no_failure_of_tls() {
    let stage = Stage::new();
    let script = stage.dir().join("talker");
    let said = "4.7.4 TLS is required, but was not offered by host mx.talk.test[192.0.2.1]";
    let text = format!("#!/bin/sh\ncat >/dev/null\necho '{said}'\nexit 75\n");
    std::fs::write(&script, text).expect("a script");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, everybody).expect("a mode");
    let service = format!(
        "talker/unix=talker unix - n n - 1 pipe user=daemon argv={}",
        script.display()
    );
    stage.run("postconf", Instance::Encrypt, &["-M", "-e", &service]);
    let before = stage.run("postconf", Instance::Encrypt, &["-h", "transport_maps"]);
    let maps = format!(
        "transport_maps=inline:{{{{talk.test=talker:}}}}, {}",
        before.trim()
    );
    stage.run("postconf", Instance::Encrypt, &["-e", &maps]);
    stage.run("postfix", Instance::Encrypt, &["reload"]);
    let queue_id = stage.send(&["bob@plain.test", "eve@talk.test"], "talk");
    stage.notification(&queue_id);
    let log = stage.sandbox.log(Instance::Encrypt);
    assert!(
        log.contains("dsn=4.7.4, status=deferred (TLS is required, but was not offered by"),
        "{log}"
    );
    let case = stage.case(&queue_id);
    let failure = |to: &str| {
        let recipients = case["recipients"].as_array().expect("recipients");
        let one = recipients.iter().find(|one| one["address"] == to);
        one.map(|one| (one["failure"].clone(), one["state"].clone()))
    };
    assert_eq!(
        failure("bob@plain.test"),
        Some(("not-offered".into(), "open".into()))
    );
    assert_eq!(
        failure("eve@talk.test"),
        Some(("not-tls".into(), "not-offered".into()))
    );
}

#[test]
fn a_case_that_is_not_quite_the_message_moves_nothing() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "real");
    let genuine = stage.store().cases(None).expect("cases").remove(0);
    let keys = Keys::load(&stage.dir().join("key")).expect("keys");
    let other_sender = MessageKey {
        sender: "eve@sender.test".parse().ok(),
        ..genuine.key.clone()
    };
    let null_sender = MessageKey {
        sender: None,
        ..genuine.key.clone()
    };
    let other_time = MessageKey {
        arrival: genuine.key.arrival - 1,
        ..genuine.key.clone()
    };
    for key in [other_sender, null_sender, other_time] {
        for action in ["send", "delete"] {
            let key = MessageKey {
                arrival: key.arrival - i64::from(action == "send") * 3600,
                ..key.clone()
            };
            let case = NewCase {
                key,
                subject: "forged".to_owned(),
                message_id: None,
                retry_until: None,
                source: Source::Notice,
                asked: Asked::Sender,
                recipients: vec![NewRecipient {
                    address: "bob@plain.test".parse().expect("an address"),
                    written: posttls::case::Written::Same,
                    failure: Failure::NotOffered,
                    status: "4.7.801".to_owned(),
                    detail: String::new(),
                    may_send: true,
                    state: RecipientState::Open,
                    action: None,
                    consent: None,
                }],
            };
            let id = stage.store().admit(&case).expect("a case").case;
            let url = format!("{}/c/{}", stage.sandbox.http(), keys.sign(id, now() + 60));
            let answer = stage.post(&url, &format!("action={action}"));
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(
                stage.store().recipients(id).expect("recipients")[0].state,
                RecipientState::Gone
            );
        }
    }
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), ["bob@plain.test"]);
    assert!(stage.sandbox.delivered("bob@plain.test").is_empty());
    assert!(stage.has_nothing(Instance::May));
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("bob@plain.test");
}
