//! The shipped wiring on real Postfix: what reaches the hook, what reaches the sender, and what stays in the queue.
//!
//! A shell script stands in for `posttls-pipe` and keeps its arguments and its input.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use posttls::sandbox::{Instance, Mail, Sandbox, SandboxError, UpOptions, down, up};

const MESSAGE: &[u8] =
    b"From: Jane <jane@sender.test>\r\nSubject: Plans\r\nMessage-ID: <plans@sender.test>\r\n\r\nHello.\r\n";
const SOON: Duration = Duration::from_secs(20);
const SENDER: &str = "jane@sender.test";

/// A sandbox with a recording hook. Fields drop in order: Postfix stops before its directory goes.
struct World {
    sandbox: Sandbox,
    hooked: PathBuf,
    _dir: tempfile::TempDir,
}

/// One run of the hook.
struct Notice {
    args: Vec<String>,
    text: String,
}

impl Notice {
    /// The value of a field in the notice, folded lines joined.
    fn field(&self, name: &str) -> Option<String> {
        let unfolded = self.text.replace("\n    ", " ").replace("\n\t", " ");
        let start = format!("{name}: ");
        unfolded
            .lines()
            .find_map(|line| line.strip_prefix(&start).map(str::to_owned))
    }
}

fn world(change: impl FnOnce(UpOptions) -> UpOptions) -> World {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let hooked = dir.path().join("hooked");
    fs::create_dir(&hooked).unwrap();
    fs::set_permissions(&hooked, fs::Permissions::from_mode(0o777)).unwrap();
    let hook = dir.path().join("hook");
    fs::write(
        &hook,
        format!(
            "#!/bin/sh\ncd {} || exit 75\nprintf '[%s]\\n' \"$@\" >$$.args\n\
             cat >$$.part && mv $$.part $$.notice\n",
            hooked.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_posttls")).parent().unwrap();
    let options = UpOptions::new(dir.path().join("sandbox"))
        .bin_dir(programs)
        .httpd(false)
        .hook(hook);
    World {
        sandbox: up(&change(options)).unwrap(),
        hooked,
        _dir: dir,
    }
}

impl World {
    fn submit(&self, to: &[&str]) -> String {
        self.sandbox.submit(SENDER, to, MESSAGE).unwrap()
    }

    fn notices(&self) -> Vec<Notice> {
        let files = fs::read_dir(&self.hooked).unwrap().flatten();
        files
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "notice"))
            .map(|path| Notice {
                args: fs::read_to_string(path.with_extension("args"))
                    .unwrap()
                    .lines()
                    .map(str::to_owned)
                    .collect(),
                text: fs::read_to_string(path).unwrap(),
            })
            .collect()
    }

    /// Waits for the notice about the message `queue_id`.
    fn notice(&self, queue_id: &str) -> Notice {
        let about =
            |notice: &Notice| notice.field("X-Postfix-Queue-ID").as_deref() == Some(queue_id);
        self.sandbox
            .wait_for(&format!("a notice about {queue_id}"), SOON, || {
                self.notices().into_iter().find(about)
            })
            .unwrap_or_else(|e| panic!("{e}\n{}", self.sandbox.log(Instance::Encrypt)))
    }

    fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        self.sandbox
            .wait_for(what, SOON, || condition().then_some(()))
            .unwrap_or_else(|e| panic!("{e}\n{}", self.sandbox.log(Instance::Encrypt)));
    }

    fn inbox(&self) -> Vec<String> {
        let messages = self.sandbox.inbox();
        messages
            .iter()
            .map(|message| String::from_utf8_lossy(message).into_owned())
            .collect()
    }
}

#[test]
fn the_hook_hears_at_once_and_the_sender_does_not() {
    let world = world(|options| options);
    let queue_id = world.submit(&["bob@plain.test", "eve@tls.test"]);
    let notice = world.notice(&queue_id);

    let notice_id = notice.args.last().unwrap();
    assert_eq!(
        notice.args,
        [
            "[--config]",
            &format!("[{}]", world.sandbox.config_file().display()),
            "[--client]",
            "[]",
            "[--sender]",
            "[double-bounce@encrypt.host.test]",
            "[--queue-id]",
            notice_id,
        ]
    );
    for (field, value) in [
        ("Subject", "PostTLS delay notice"),
        ("X-Postfix-Sender", "rfc822; jane@sender.test"),
        ("Final-Recipient", "rfc822; bob@plain.test"),
        ("Status", "4.7.801"),
    ] {
        assert_eq!(notice.field(field).as_deref(), Some(value), "{field}");
    }
    for field in ["Arrival-Date", "Will-Retry-Until"] {
        assert!(notice.field(field).is_some(), "{field}");
    }
    assert!(notice.text.contains("\nSubject: Plans\n"));
    let received = notice.field("Received").unwrap();
    assert!(received.starts_with("by encrypt.host.test (Postfix) id "));

    let log = world.sandbox.log(Instance::Encrypt);
    assert!(log.contains("discard: header Subject: PostTLS sender copy"));
    world.wait("tls.test's copy", || {
        world.sandbox.delivered("eve@tls.test").len() == 1
    });
    assert_eq!(world.inbox(), [""; 0]);
    assert_eq!(
        world.sandbox.queue_of(Instance::Encrypt, &queue_id),
        Some("deferred")
    );
    assert_eq!(world.notices().len(), 1);
}

#[test]
fn every_kind_of_tls_failure_has_its_status_and_stays_queued() {
    let world = world(|options| options);
    for (recipient, status) in [
        ("bob@plain.test", "4.7.801"),
        ("bob@refuse.test", "4.7.802"),
        ("bob@refuse5.test", "4.7.802"),
        ("bob@broken.test", "4.7.803"),
        ("bob@cert.test", "4.7.804"),
        ("bob@down.test", "4.4.1"),
        ("busy@tls.test", "4.2.0"),
        // The server made this status up; ours are not for it to use.
        ("forged4@tls.test", "4.7.0"),
    ] {
        let queue_id = world.submit(&[recipient]);
        let notice = world.notice(&queue_id);
        assert_eq!(
            notice.field("Status").as_deref(),
            Some(status),
            "{recipient}"
        );
        assert_eq!(notice.field("Action").as_deref(), Some("delayed"));
        world.wait(&format!("{recipient} in deferred"), || {
            world.sandbox.queue_of(Instance::Encrypt, &queue_id) == Some("deferred")
        });
    }
    assert_eq!(world.inbox(), [""; 0]);
}

/// Postfix's queue manager, not its SMTP client, defers mail for a destination that has failed often, and the status
/// filter does not see that: the hook must read the reason.
#[test]
fn a_suspended_destination_keeps_postfix_own_status() {
    let world = world(|options| options);
    const COUNT: usize = 30;
    for (domain, own_status, reason) in [
        (
            "plain.test",
            "4.7.4",
            "TLS is required, but was not offered by host ",
        ),
        (
            "refuse5.test",
            "4.0.0", // a suspension can only be temporary, so Postfix does not believe the server's 5.7.0
            "TLS is required, but host 127.0.0.1[127.0.0.1] refused to start TLS: 554 ",
        ),
    ] {
        // Together: one after the other, on a busy machine each would be tried before the destination is suspended.
        let ids: Vec<String> = std::thread::scope(|scope| {
            let submitting: Vec<_> = (0..COUNT)
                .map(|number| {
                    let to = format!("r{number}@{domain}");
                    let world = &world;
                    scope.spawn(move || world.submit(&[&to]))
                })
                .collect();
            submitting
                .into_iter()
                .map(|one| one.join().expect("a submission"))
                .collect()
        });
        let suspended = format!("X-Postfix; delivery temporarily suspended: {reason}");
        let mut seen = 0;
        for id in &ids {
            let notice = world.notice(id);
            let diagnostic = notice.field("Diagnostic-Code").unwrap();
            let status = notice.field("Status").unwrap();
            if diagnostic.starts_with(&suspended) {
                seen += 1;
                assert_eq!(status, own_status, "{diagnostic}");
            } else {
                assert!(status.starts_with("4.7.80"), "{status} {diagnostic}");
            }
        }
        assert!(seen > 0, "nothing was suspended for {domain}");
        let queue = world.sandbox.queue(Instance::Encrypt);
        assert!(ids.iter().all(|id| queue["deferred"].contains(id)));
    }
    assert_eq!(world.inbox(), [""; 0]);
}

#[test]
fn ordinary_bounces_and_success_reports_reach_the_sender() {
    let world = world(|options| options);
    world.submit(&["nouser@tls.test"]);
    world.submit(&["forged5@tls.test"]);
    let succeeding =
        Mail::new(SENDER, &["bob@nodsn.test"], MESSAGE).rcpt_params("NOTIFY=SUCCESS,DELAY");
    world
        .sandbox
        .submit_mail(Instance::Encrypt, &succeeding)
        .unwrap();
    // Asked for in so many words, a delay report still comes from PostTLS, not from Postfix.
    let delayed = Mail::new(SENDER, &["bob@plain.test"], MESSAGE).rcpt_params("NOTIFY=DELAY");
    let delayed = world
        .sandbox
        .submit_mail(Instance::Encrypt, &delayed)
        .unwrap();
    world.notice(&delayed);
    world.wait("three reports", || world.inbox().len() >= 3);
    let mut subjects: Vec<String> = world
        .inbox()
        .iter()
        .filter_map(|message| {
            let line = message.lines().find(|line| line.starts_with("Subject: "))?;
            Some(line.to_owned())
        })
        .collect();
    subjects.sort();
    assert_eq!(
        subjects,
        [
            "Subject: Successful Mail Delivery Report",
            "Subject: Undelivered Mail Returned to Sender",
            "Subject: Undelivered Mail Returned to Sender",
        ]
    );
    let bounces = world.inbox().join("\n");
    assert!(bounces.contains("Status: 5.1.1"));
    assert!(bounces.contains("Status: 5.7.0"));
    assert!(!bounces.contains("Status: 5.7.801"));
}

#[test]
fn expired_mail_is_returned_with_postfix_own_words() {
    let world = world(|options| {
        [
            "queue_run_delay",
            "minimal_backoff_time",
            "maximal_queue_lifetime",
        ]
        .into_iter()
        .fold(options, |options, name| {
            options.main_cf(Instance::Encrypt, name, "1s")
        })
    });
    world.submit(&["bob@plain.test"]);
    world.wait("the returned message", || world.inbox().len() == 1);
    let returned = world.inbox().remove(0);
    assert!(returned.contains("\nSubject: Undelivered Mail Returned to Sender\n"));
    assert!(returned.contains("Status: 4.7.801"));
}

#[test]
fn a_subject_like_ours_does_not_discard_the_notice() {
    let world = world(|options| options);
    let message = b"From: jane@sender.test\r\nSubject: PostTLS sender copy, to be discarded\r\n\r\nHello.\r\n";
    let mail = Mail::new(SENDER, &["bob@plain.test"], &message[..]).mail_params("RET=FULL");
    let queue_id = world.sandbox.submit_mail(Instance::Encrypt, &mail).unwrap();
    world.notice(&queue_id);
}

#[test]
fn nobody_mails_the_hook_by_smtp() {
    let world = world(|options| options);
    for recipient in [
        "x@posttls.invalid",
        "notice@posttls.invalid",
        "x@POSTTLS.INVALID",
    ] {
        // 127.0.0.1 is in mynetworks.
        let refused = world.sandbox.submit(SENDER, &[recipient], MESSAGE);
        match refused {
            Err(SandboxError::Refused { reply, .. }) => {
                assert!(reply.starts_with("554 5.7.1 "), "{reply}");
            }
            other => panic!("{recipient}: {other:?}"),
        }
    }
}

#[test]
fn a_failing_hook_is_retried_and_reported_to_nobody() {
    let world = world(|options| {
        let always = options.dir.with_file_name("always-75");
        fs::write(&always, "#!/bin/sh\nexit 75\n").unwrap();
        fs::set_permissions(&always, fs::Permissions::from_mode(0o755)).unwrap();
        [
            "queue_run_delay",
            "minimal_backoff_time",
            "maximal_backoff_time",
        ]
        .into_iter()
        .fold(options.hook(always), |options, name| {
            // Longer than a try takes: a queue run that comes upon one still being delivered skips it.
            options.main_cf(Instance::Encrypt, name, "3s")
        })
    });
    world.submit(&["bob@plain.test"]);
    let tries = || {
        let log = world.sandbox.log(Instance::Encrypt);
        log.matches("to=<notice@posttls.invalid>, relay=posttls")
            .count()
    };
    world.wait("three tries", || tries() >= 3);
    let log = world.sandbox.log(Instance::Encrypt);
    assert_eq!(log.matches("postmaster delay notification").count(), 1);
    assert_eq!(world.inbox(), [""; 0]);
}

#[test]
fn may_delivers_in_plain_text_even_in_the_session_that_refused_tls() {
    let world = world(|options| {
        options
            .long_queue_ids(Instance::May)
            .hash_queues("deferred defer hold", 2)
    });
    let to = [
        "bob@plain.test",
        "bob@refuse.test",
        "bob@refuse5.test",
        "bob@broken.test",
    ];
    let message = "From: j@sender.test\r\nSubject: Grüße\r\n\r\n.dot\r\n\r\nEnde, ohne Umbruch";
    let mail = Mail::new(SENDER, &to, message).mail_params("BODY=8BITMIME SMTPUTF8");
    let queue_id = world.sandbox.submit_mail(Instance::May, &mail).unwrap();
    assert!(queue_id.len() > 12 && queue_id.contains('z'), "{queue_id}");
    for recipient in to {
        world.wait(recipient, || world.sandbox.delivered(recipient).len() == 1);
        let text = String::from_utf8(world.sandbox.delivered(recipient).remove(0)).unwrap();
        let (_, body) = text.split_once("\n\n").unwrap();
        assert_eq!(body, ".dot\n\nEnde, ohne Umbruch\n");
        // No "S": no TLS on the last hop.
        let received = text.lines().find(|line| line.contains("(Postfix) with"));
        assert!(
            received.is_some_and(|line| line.contains(" with UTF8SMTP id ")),
            "{text}"
        );
    }
}

#[test]
fn down_twice_and_on_nothing() {
    let mut world = world(|options| options.start_may(false));
    world.sandbox.leave_running();
    let dir = world.sandbox.dir().to_owned();
    let open = Sandbox::open(&dir).unwrap();
    assert_eq!(open.description(), world.sandbox.description());
    drop(open);
    world.submit(&["bob@tls.test"]);
    down(&dir, false).unwrap();
    assert!(
        world
            .sandbox
            .submit(SENDER, &["bob@tls.test"], MESSAGE)
            .is_err()
    );
    down(&dir, true).unwrap();
    assert!(!dir.exists());
    down(&dir, true).unwrap();
}

#[test]
fn a_closed_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    match up(&UpOptions::new(dir.path().join("sandbox"))) {
        Err(SandboxError::NotTraversable(closed)) => assert_eq!(closed, dir.path()),
        other => panic!("{other:?}"),
    }
}

/// Why the mover names the queue when it puts mail on hold: qmgr keeps what is in its active queue in memory. Mail that
/// is held there, released and scanned again can be lost (qmgr adds the recipients to the entry that it still has,
/// takes the message for done and removes it).
#[test]
fn a_hold_that_names_the_deferred_queue_leaves_active_mail_alone() {
    let world = world(|options| options.start_may(false));
    let active = world.submit(&["bob@slow.test"]);
    let deferred = world.submit(&["bob@plain.test"]);
    world.notice(&deferred);
    let sandbox = &world.sandbox;
    let place = |id: &str| sandbox.queue_of(Instance::Encrypt, id);
    world.wait("deferral", || place(&deferred) == Some("deferred"));
    for id in [&active, &deferred] {
        sandbox
            .run("postsuper", Instance::Encrypt, &["-h", id, "deferred"])
            .unwrap();
    }
    assert_eq!(
        (place(&active), place(&deferred)),
        (Some("active"), Some("hold"))
    );
    sandbox
        .run("postsuper", Instance::Encrypt, &["-H", &deferred, "hold"])
        .unwrap();
    assert_eq!(place(&deferred), Some("deferred"));
    world.wait("the slow delivery", || {
        sandbox.delivered("bob@slow.test").len() == 1
    });
}
