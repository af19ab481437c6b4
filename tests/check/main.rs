//! `posttls check`: a healthy installation passes, and each thing that is broken is found by its own check, and by those
//! that must follow. One sandbox is broken and repaired again and again.

mod answers;
mod clinic;
#[path = "../common/mod.rs"]
mod common;
mod host;
#[path = "../common/programs.rs"]
mod programs;
mod running;
mod way_out;
mod wiring;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use clinic::{Clinic, findings, set_time};
use posttls::postfix::user::lookup;
use posttls::sandbox::Instance;

fn the_store(clinic: &mut Clinic) {
    let empty = [
        ("conflicts", "skip"),
        ("decisions", "skip"),
        ("hold-queues", "skip"),
        ("odd-notices", "skip"),
        ("pipe-rehearsal", "fail"),
        ("store", "fail"),
        ("store-access", "fail"),
        ("store-integrity", "skip"),
        ("untold", "skip"),
    ];
    let other = clinic.path("state/other.db");
    let named = format!("{:?}", other.display().to_string());
    clinic.broken(
        "no store",
        |c| c.stage.configure("store", "path", &named),
        &empty,
    );
    let db = "state/posttls.db";
    let version: i64 = rusqlite::Connection::open(clinic.path(db))
        .and_then(|store| store.pragma_query_value(None, "user_version", |row| row.get(0)))
        .expect("a version");
    for (changed, status) in [(version + 1, "fail"), (version - 1, "warn")] {
        clinic.ill(
            "a store of another version",
            |c| c.sql(db, &format!("PRAGMA user_version = {changed}")),
            &[("hold-queues", "skip"), ("store", status)],
            |c| c.sql(db, &format!("PRAGMA user_version = {version}")),
        );
    }
    clinic.ill(
        "a move that is stopped, one that can't go on, and an odd notice",
        |c| {
            c.sql(
                db,
                "INSERT INTO cases (id, queue_id, sender, arrival, subject, state, opened_at) VALUES (7, '4ABCDEF', 'a@b.test', 0, '', 'open', 0);
                 INSERT INTO moves (case_id, step, begun_at, changed_at) VALUES (7, 'conflict', 0, 0);
                 INSERT INTO recipients (id, case_id, number, address, failure, status, detail, may_send, state)
                 VALUES (7, 7, 1, 'c@d.test', 'not-offered', '4.7.801', '', 1, 'releasing');
                 INSERT INTO moves (id, case_id, step, copy_name, begun_at, changed_at) VALUES (9, 7, 'begun', 'no ID', 0, 0);
                 INSERT INTO move_recipients (move_id, recipient_id, action, outcome) VALUES (9, 7, 'send', 'released');",
            );
            c.stage.store().keep_odd_notice("4ABCDEF", "a test", b"x").expect("a store");
        },
        &[("conflicts", "fail"), ("decisions", "warn"), ("odd-notices", "warn")],
        |c| {
            // The case stays: its history says that the move can't go on.
            c.sql(
                db,
                "DELETE FROM move_recipients; DELETE FROM moves; DELETE FROM recipients; DELETE FROM odd_notices;
                 UPDATE cases SET state = 'closed' WHERE id = 7;",
            );
        },
    );
    clinic.ill(
        "a clock behind the store",
        |c| touch(c, db, SystemTime::now() + Duration::from_secs(86_400)),
        &[("clock", "fail")],
        |c| touch(c, db, SystemTime::now()),
    );
    // A copy with a page of nonsense, of a table that nothing else here reads.
    let source = rusqlite::Connection::open(clinic.path(db)).expect("a database");
    source
        .execute("VACUUM INTO ?1", [other.to_str().expect("a path")])
        .expect("a copy");
    drop(source);
    let copied = rusqlite::Connection::open(&other).expect("a database");
    let (page, size): (i64, i64) = copied
        .query_row(
            "SELECT rootpage, page_size FROM sqlite_schema, pragma_page_size WHERE name = 'alerts'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .expect("a page");
    drop(copied);
    let mut octets = fs::read(&other).expect("a file");
    let at = usize::try_from((page - 1) * size).expect("a size");
    let end = usize::try_from(page * size).expect("a size");
    octets[at..end].fill(0xff);
    fs::write(&other, octets).expect("a file");
    let nobody = lookup("nobody").expect("a user");
    chown(&other, Some(nobody.uid), None).expect("root");
    fs::set_permissions(&other, Permissions::from_mode(0o600)).expect("a mode");
    clinic.broken(
        "a damaged store",
        |c| c.stage.configure("store", "path", &named),
        &[("store-integrity", "fail")],
    );
}

fn touch(clinic: &Clinic, file: &str, when: SystemTime) {
    set_time(&clinic.path(file), when);
}

fn what_does_not_run(clinic: &mut Clinic) {
    let stop = |c: &Clinic, instance| {
        let run = c.stage.sandbox.run("postfix", instance, &["stop"]);
        run.unwrap_or_else(|error| panic!("{error}"));
    };
    stop(clinic, Instance::Encrypt);
    clinic.check(
        "an encrypt instance that stands still",
        &[("encrypt-reload", "skip"), ("encrypt-running", "fail")],
    );
    clinic.stage.sandbox.stop_httpd();
    stop(clinic, Instance::May);
    // A courier that runs would tell at once.
    clinic.sql(
        "state/posttls.db",
        "INSERT INTO cases (id, queue_id, sender, arrival, subject, state, opened_at) VALUES (8, '4ABCDE8', 'a@b.test', 0, '', 'open', 0);
         INSERT INTO recipients (id, case_id, number, address, failure, status, detail, may_send, state)
         VALUES (8, 8, 1, 'c@d.test', 'not-offered', '4.7.801', '', 1, 'open');
         INSERT INTO owed (recipient_id, news, sender, since) VALUES (8, 'stuck', 'a@b.test', 0);",
    );
    clinic.check(
        "nothing runs",
        &[
            ("base-url", "fail"),
            ("encrypt-reload", "skip"),
            ("encrypt-running", "fail"),
            // It can't be asked.
            ("may-ear", "skip"),
            ("may-reload", "skip"),
            ("may-running", "fail"),
            ("mover", "fail"),
            // The sandbox submits notifications to the may instance.
            ("notification-server", "fail"),
            ("reply-to", "fail"),
            ("untold", "warn"),
            ("web-server", "fail"),
        ],
    );
}

/// Tests that are parts of one, and the checks that they have seen complain.
const PARTS: usize = 6;
static SEEN: Mutex<(usize, BTreeSet<String>)> = Mutex::new((0, BTreeSet::new()));

/// Every check must have complained in one of the parts.
fn part(name: &str, examine: impl FnOnce(&mut Clinic)) {
    let mut clinic = Clinic::new();
    let all = findings(&clinic.stage.posttls(&["check", "--json"]));
    examine(&mut clinic);
    let mut seen = SEEN.lock().expect("no panic");
    seen.0 += 1;
    seen.1.append(&mut clinic.seen);
    if seen.0 < PARTS {
        println!("{name}: what was never seen to complain is told by the last part");
        return;
    }
    let every: BTreeSet<String> = all
        .iter()
        .filter_map(|finding| finding["id"].as_str().map(str::to_owned))
        .collect();
    let untested: Vec<_> = every.difference(&seen.1).collect();
    assert!(
        untested.is_empty(),
        "no test has made these complain: {untested:?}"
    );
}

#[test]
fn levels_and_times() {
    part("levels", |clinic| {
        wiring::levels_and_times(clinic);
        wiring::the_ear(clinic);
        wiring::the_way_of_notices(clinic);
        way_out::alike_and_open(clinic);
    });
}

#[test]
fn plain_text_without_a_question() {
    part("plain text", wiring::plain_text);
}

#[test]
fn what_runs_and_what_was_written() {
    part("running", |clinic| {
        running::what_was_not_reloaded(clinic);
        running::what_postfix_warns_of(clinic);
        running::a_hook_that_is_none(clinic);
        running::the_next_boot(clinic);
    });
}

#[test]
fn users_files_and_the_store() {
    part("host", |clinic| {
        host::users_and_files(clinic);
        host::instances_and_spools(clinic);
        the_store(clinic);
    });
}

#[test]
fn what_answers() {
    part("answers", |clinic| {
        answers::what_answers(clinic);
        answers::links(clinic);
        answers::mail(clinic);
        answers::our_own_side_of_tls(clinic);
        clinic.check("all repaired", &[]);
    });
}

#[test]
fn what_is_printed_and_what_does_not_run() {
    part("printed", |clinic| {
        what_is_printed(clinic);
        what_does_not_run(clinic);
    });
}

fn what_is_printed(clinic: &mut Clinic) {
    // As text: every line has its status, and the last one counts.
    let output = clinic.stage.posttls(&["check"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = findings(&clinic.stage.posttls(&["check", "--json"])).len();
    assert!(
        text.lines().count() == count + 1 && text.contains(&format!("\n{count} checks: 0 failed")),
        "{text}"
    );

    // Problems come first, and alone if nothing else is asked for; in colour for people only.
    let problems = |text: &str| {
        text.lines()
            .take_while(|l| l.starts_with(['F', 'w']))
            .count()
    };
    let healthy = clinic.healthy.values().filter(|s| *s == "warn").count();
    assert_eq!(problems(&text), healthy, "{text}");
    let quiet = clinic.stage.said(&["check", "--quiet"]);
    let first: Vec<&str> = text.lines().take(healthy).collect();
    assert_eq!(quiet.lines().collect::<Vec<_>>(), first);
    for (environment, coloured) in [("NO_COLOR=", true), ("NO_COLOR=1", false)] {
        let posttls = clinic.stage.sandbox.program("posttls");
        let command = format!(
            "{environment} {} --config {} check -q",
            posttls.display(),
            clinic.path("posttls.toml").display()
        );
        let output = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .output()
            .expect("script runs");
        let shown = String::from_utf8_lossy(&output.stdout);
        assert_eq!(shown.contains("\x1b[33mwarn\x1b[0m  "), coloured, "{shown}");
        assert_eq!(shown.contains('\x1b'), coloured, "{shown}");
    }

    // A configuration that can't be read fails by itself, and nothing else is tried.
    clinic.replace("posttls.toml", "[mover]", "[moover]");
    let output = clinic.stage.posttls(&["check", "--json"]);
    let all = findings(&output);
    assert_eq!((output.status.code(), all.len()), (Some(1), count));
    assert_eq!(
        (&all[0]["id"], &all[0]["status"]),
        (&"configuration".into(), &"fail".into())
    );
    assert!(
        all[0]["what"].to_string().contains("did you mean"),
        "{}",
        all[0]
    );
    assert!(all[1..].iter().all(|finding| finding["status"] == "skip"));
    clinic.seen.insert("configuration".to_owned());
    clinic.restore();
}

#[test]
fn only_root_may_check() {
    let dir = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o755))
        .tempdir()
        .expect("a directory");
    let program = dir.path().join("posttls");
    programs::install(env!("CARGO_BIN_EXE_posttls"), &program);
    let output = Command::new("setpriv")
        .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"])
        .arg(program)
        .arg("check")
        .output()
        .expect("setpriv runs");
    assert_eq!(output.status.code(), Some(64), "{output:?}");
}
