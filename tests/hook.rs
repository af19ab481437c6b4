//! posttls-pipe by itself: whatever fails, it ends with 0, with 75, or by a signal. Anything else would bounce a notice.

mod hook_stage;
#[path = "common/mount.rs"]
mod mount;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::thread;
use std::time::{Duration, Instant};

use hook_stage::{Bench, End, NOTICE, Server};
use mount::Small;
use posttls::case::CaseState;
use posttls::postfix::user::lookup;

/// It has to be tried again now, and is done when nothing stands in the way any more: one case, one mail.
fn waits_then_works(bench: &Bench, broken: impl FnOnce(), mended: impl FnOnce()) -> String {
    broken();
    let run = bench.run(NOTICE);
    assert_eq!(run.end, End::TryAgain, "{run:?}");
    assert!(!run.said.is_empty(), "an operator learns why");
    assert!(bench.server.mails().is_empty());
    mended();
    let again = bench.run(NOTICE);
    assert_eq!(again.end, End::Done, "{again:?}");
    assert_eq!(bench.server.mails().len(), 1);
    assert_eq!(bench.store().cases(None).expect("cases").len(), 1);
    run.said
}

#[test]
fn a_good_notice_becomes_one_case_and_one_mail_however_often_it_comes() {
    let bench = Bench::new();
    for _ in 0..3 {
        assert_eq!(bench.run(NOTICE).end, End::Done);
    }
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(bench.run(NOTICE).end, End::Done));
        }
    });
    assert_eq!(bench.server.mails().len(), 1);
    assert_eq!(bench.store().cases(None).expect("cases").len(), 1);
}

#[test]
fn a_check_records_nothing_and_keeps_a_real_notice() {
    let bench = Bench::new();
    let config = bench.path("posttls.toml");
    let config = config.to_str().expect("UTF-8");
    let id = NOTICE
        .split("id ")
        .nth(1)
        .and_then(|rest| rest.split(';').next());
    let id = id.expect("a queue ID");
    // As if --check stood in master.cf: the notice of a message waits instead of getting lost.
    let run = |sender: &str, more: &[&str]| {
        let usual = [
            "--config",
            config,
            "--client",
            "",
            "--sender",
            sender,
            "--queue-id",
            id,
        ];
        bench.start(&[&usual, more].concat(), &[], NOTICE.as_bytes())
    };
    let kept = run("double-bounce@x.test", &["--check"]);
    assert_eq!(kept.end, End::TryAgain);
    assert!(
        kept.said.contains("take --check out of master.cf"),
        "{kept:?}"
    );
    // A sender who has that name does not switch it on.
    let odd = run("--check", &[]);
    assert_eq!(odd.end, End::Done, "{odd:?}");
    assert_eq!(bench.store().odd_notices().expect("a store").len(), 1);
    let checked = run("double-bounce@check.posttls.invalid", &["--check"]);
    assert_eq!(checked.end, End::Done, "{checked:?}");
    assert!(bench.server.mails().is_empty());
    assert!(bench.store().cases(None).expect("cases").is_empty());
    assert_eq!(bench.store().odd_notices().expect("a store").len(), 1);
}

#[test]
fn copies_in_parallel_write_once() {
    // Slow enough that the claim of the first is seen by the others.
    let bench = Bench::with(Server::start(|command| {
        if command == "DATA" {
            thread::sleep(Duration::from_millis(700));
        }
        None
    }));
    let ends: Vec<End> = thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| bench.run(NOTICE).end))
            .collect();
        runs.into_iter()
            .map(|run| run.join().expect("an end"))
            .collect()
    });
    assert!(
        ends.contains(&End::Done) && ends.contains(&End::TryAgain),
        "{ends:?}"
    );
    assert_eq!(bench.run(NOTICE).end, End::Done);
    assert_eq!(bench.server.mails().len(), 1);
}

#[test]
fn a_database_that_another_process_keeps_locked() {
    let bench = Bench::new();
    let other = rusqlite::Connection::open(bench.database()).expect("a connection");
    let said = waits_then_works(
        &bench,
        || other.execute_batch("BEGIN IMMEDIATE").expect("a lock"),
        || other.execute_batch("COMMIT").expect("no lock"),
    );
    assert!(
        said.contains("another process has held it for too long"),
        "{said}"
    );
}

#[test]
fn a_database_that_is_missing_unreadable_or_damaged() {
    let bench = Bench::new();
    let (path, aside) = (bench.database(), bench.path("aside"));
    let owner = lookup("nobody").expect("a user");
    let said = waits_then_works(
        &bench,
        || {
            chown(&path, Some(0), Some(0))
                .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o600)))
                .expect("root's")
        },
        || chown(&path, Some(owner.uid), Some(owner.gid)).expect("nobody's"),
    );
    assert!(
        said.contains("check the owner and the permissions"),
        "{said}"
    );
    fs::rename(&path, &aside).expect("a file");
    assert_eq!(bench.run(NOTICE).end, End::TryAgain);
    assert!(!path.exists(), "a store of its own would lose all cases");
    fs::write(&path, "this is no database, and never was one").expect("a file");
    chown(&path, Some(owner.uid), Some(owner.gid)).expect("nobody's");
    let run = bench.run(NOTICE);
    assert_eq!(run.end, End::TryAgain);
    assert!(run.said.contains("stop PostTLS and restore it"), "{run:?}");
}

#[test]
fn a_disk_that_is_full() {
    let bench = Bench::new();
    let state = bench.path("state");
    let Some(mount) = Small::mount(&state, 512) else {
        return;
    };
    let owner = lookup("nobody").expect("a user");
    chown(&state, Some(owner.uid), Some(owner.gid)).expect("an owner");
    drop(posttls::case::store::Store::open(&bench.database(), true).expect("a store"));
    chown(bench.database(), Some(owner.uid), Some(owner.gid)).expect("an owner");
    let said = waits_then_works(&bench, || mount.fill(), || mount.free());
    println!("{said}");
}

#[test]
fn a_mail_server_that_takes_its_time_with_the_whole_mail_gets_it_once() {
    let bench = Bench::with(Server::start(|command| {
        if command == "." {
            std::thread::sleep(Duration::from_millis(1800));
        }
        None
    }));
    bench.configure(bench.server.port, 1, "");
    for _ in 0..2 {
        assert_eq!(bench.run(NOTICE).end, End::Done, "{}", bench.log());
    }
    assert_eq!(bench.server.mails().len(), 1);
}

#[test]
fn a_mail_server_that_is_down_slow_or_busy() {
    let bench = Bench::new();
    waits_then_works(
        &bench,
        || bench.configure(1, 5, ""),
        || bench.configure(bench.server.port, 5, ""),
    );
    for stage in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        let silent = Server::start(move |command| (command == stage).then_some(""));
        let bench = Bench::new();
        let asked = Instant::now();
        waits_then_works(
            &bench,
            || bench.configure(silent.port, 1, ""),
            || bench.configure(bench.server.port, 5, ""),
        );
        assert!(
            asked.elapsed() < Duration::from_secs(12),
            "{stage}: {:?}",
            asked.elapsed()
        );
        let busy = Server::start(move |command| (command == stage).then_some("451 4.3.0 later"));
        let bench = Bench::new();
        let said = waits_then_works(
            &bench,
            || bench.configure(busy.port, 5, ""),
            || bench.configure(bench.server.port, 5, ""),
        );
        assert!(
            said.contains("did not take the notification"),
            "{stage}: {said}"
        );
    }
}

#[test]
fn a_mail_server_that_refuses_for_good_is_logged_and_ends_it() {
    for stage in ["MAIL", "RCPT", "DATA", "."] {
        let bench = Bench::with(Server::start(move |command| {
            (command == stage).then_some("550 5.1.1 never")
        }));
        let run = bench.run(NOTICE);
        assert_eq!(run.end, End::Done, "{stage}: {run:?}");
        assert!(
            bench
                .log()
                .contains("A5F5C9C8038: from=<ann@sender.test>, the sender can't be told: "),
            "{}",
            bench.log()
        );
        let case = bench.store().cases(None).expect("cases").remove(0);
        assert_eq!((case.state, case.notified_at), (CaseState::Open, None));
    }
}

#[test]
fn a_configuration_or_key_that_is_wrong() {
    let bench = Bench::new();
    let config = bench.path("posttls.toml");
    let good = fs::read_to_string(&config).expect("posttls.toml");
    let restore = || fs::write(&config, &good).expect("posttls.toml");
    for (broken, said) in [
        (good.replace("[store]", "[sotre]"), "did you mean \"store\""),
        (
            good.replace("smtp_tls", "smtp_tsl"),
            "did you mean \"smtp_tls\"",
        ),
        (
            good.replace("\"none\"", "\"some\""),
            "notification.smtp_tls",
        ),
        (
            good.replace("base_url", "# base_url"),
            "link.base_url is missing",
        ),
        ("\u{0}garbage".to_owned(), "posttls.toml"),
    ] {
        fs::write(&config, broken).expect("posttls.toml");
        let run = bench.run(NOTICE);
        assert_eq!(run.end, End::TryAgain, "{run:?}");
        assert!(run.said.contains(said), "{run:?}");
    }
    fs::remove_file(&config).expect("posttls.toml");
    assert_eq!(bench.run(NOTICE).end, End::TryAgain);
    restore();
    fs::set_permissions(&config, Permissions::from_mode(0o600)).expect("a mode");
    assert_eq!(bench.run(NOTICE).end, End::TryAgain);
    fs::set_permissions(&config, Permissions::from_mode(0o644)).expect("a mode");

    let (key, aside) = (bench.path("key"), bench.path("key.aside"));
    waits_then_works(
        &bench,
        || fs::rename(&key, &aside).expect("a key"),
        || fs::rename(&aside, &key).expect("a key"),
    );
    fs::write(&key, "1 no key at all\n").expect("a key");
    let other = NOTICE.replace("A5F5C9C8038", "A5F5C9C8039");
    assert_eq!(bench.run(other).end, End::TryAgain);
    assert_eq!(bench.server.mails().len(), 1);
}

#[test]
fn arguments_that_are_wrong() {
    let bench = Bench::new();
    let config = bench.path("posttls.toml");
    let config = config.to_str().expect("UTF-8");
    for arguments in [
        &[][..],
        &["--nonsense"],
        &["--config", config],
        &[
            "--config",
            config,
            "--client",
            "",
            "--sender",
            "double-bounce",
            "--queue-id",
            "../../etc/passwd",
        ],
        &[
            "--config",
            config,
            "--client",
            "",
            "--sender",
            "double-bounce",
            "--queue-id",
            "",
        ],
        &[
            "--config",
            config,
            "--client",
            "",
            "--sender",
            "double-bounce",
            "--queue-id",
            "4ABCDEF",
            "more",
        ],
    ] {
        let run = bench.start(arguments, &[], NOTICE.as_bytes());
        assert_eq!(run.end, End::TryAgain, "{arguments:?}: {run:?}");
    }
    for arguments in ["--help", "--version"] {
        assert_eq!(bench.start(&[arguments], &[], b"").end, End::Done);
    }
}
