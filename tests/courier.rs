//! The courier by itself, as user nobody, with a mail server that does as it is told: what it owes is paid once, however
//! often it or the server fails.

mod hook_stage;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hook_stage::{Bench, End, NOTICE, Server};

/// A courier that runs until it is dropped.
///
/// The store is kept open as the mover does: else the files beside it come and go, and belong to root for a moment
/// whenever this test looks into it.
struct Courier(Child, #[allow(dead_code)] posttls::case::store::Store);

impl Courier {
    fn start(bench: &Bench) -> Self {
        let store = bench.store();
        store.senders_owed().expect("a store that is in use");
        let program = bench.path("posttls-httpd");
        if !program.exists() {
            bench.install("posttls-httpd", env!("CARGO_BIN_EXE_posttls-httpd"));
        }
        let child = Command::new("setpriv")
            .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"])
            .arg(&program)
            .args(["--courier", "--config"])
            .arg(bench.path("posttls.toml"))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stderr(said(bench))
            .spawn()
            .expect("setpriv runs");
        Self(child, store)
    }

    /// Closes its standard input, and waits for its end.
    fn end(&mut self) -> std::process::ExitStatus {
        drop(self.0.stdin.take());
        self.0.wait().expect("an end")
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What couriers say on standard error, one after the other.
fn said(bench: &Bench) -> std::fs::File {
    let path = bench.path("courier.err");
    let mut options = std::fs::OpenOptions::new();
    let file = options.append(true).create(true).open(path);
    file.expect("a file")
}

fn wait(what: &str, bench: &Bench, found: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !found() {
        assert!(
            Instant::now() < deadline,
            "waited in vain for {what}: {}\n{}\n{:?}",
            bench.log(),
            letters(bench),
            std::fs::read_to_string(bench.path("courier.err"))
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// What the store says about mails under way.
fn letters(bench: &Bench) -> String {
    let store = rusqlite::Connection::open(bench.database()).expect("a store");
    let text = store.query_row(
        "SELECT (SELECT group_concat(l.id || ' ' || kind || ' ' || claimed_at || ' ' || ifnull(sent_at, '-')) FROM letters l)
         || ' / ' || (SELECT group_concat(news || ' ' || since) FROM owed)",
        [],
        |row| row.get::<_, Option<String>>(0),
    );
    format!("{text:?}")
}

fn sql(bench: &Bench, statements: &str) {
    let store = rusqlite::Connection::open(bench.database()).expect("a store");
    store
        .busy_timeout(Duration::from_secs(30))
        .expect("a time-out");
    store.execute_batch(statements).expect("SQL");
}

fn owed(bench: &Bench) -> i64 {
    let store = rusqlite::Connection::open(bench.database()).expect("a store");
    let count = store.query_row("SELECT count(*) FROM owed", [], |row| row.get(0));
    count.expect("a number")
}

/// The case of a notice that the hook recorded, and did not get to tell of because its mail server was down.
fn left_by_the_hook(bench: &Bench) {
    bench.configure(1, 5, "");
    assert_eq!(bench.run(NOTICE).end, End::TryAgain);
    assert_eq!(owed(bench), 1);
    bench.configure(bench.server.port, 5, "");
    sql(bench, "UPDATE owed SET since = since - 6000");
}

#[test]
fn what_the_hook_could_not_send_is_sent_and_the_notice_that_comes_again_changes_nothing() {
    let bench = Bench::new();
    left_by_the_hook(&bench);
    let mut courier = Courier::start(&bench);
    wait("a mail", &bench, || owed(&bench) == 0);
    assert_eq!(bench.run(NOTICE).end, End::Done);
    assert!(bench.log().contains("was told before"), "{}", bench.log());
    let ended = courier.end();
    assert!(ended.success(), "{ended}");
    assert_eq!(bench.server.mails().len(), 1);
    assert!(bench.log().contains("posttls/courier"), "{}", bench.log());
}

#[test]
fn a_fresh_case_is_left_to_the_hook_for_a_while() {
    let bench = Bench::new();
    let _courier = Courier::start(&bench);
    wait("the courier", &bench, || bench.log().contains("started"));
    bench.configure(1, 5, "");
    assert_eq!(bench.run(NOTICE).end, End::TryAgain);
    // Two rounds of the courier.
    thread::sleep(Duration::from_millis(2500));
    assert!(bench.server.mails().is_empty(), "{}", bench.log());
    wait("a mail", &bench, || owed(&bench) == 0);
    assert_eq!(bench.server.mails().len(), 1);
}

/// Cases that nobody has been told of, with the numbers from 1.
fn waiting(bench: &Bench, count: u32) {
    sql(
        bench,
        &format!("BEGIN;
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count})
         INSERT INTO cases (id, queue_id, sender, arrival, subject, retry_until, state, opened_at)
             SELECT n, printf('ABC%05X', n), 'ann@sender.test', 1790000000 + n, 'mail ' || n, 1790432000 + n, 'open', 1790000000000 FROM n;
         INSERT INTO recipients (id, case_id, number, address, failure, status, detail, may_send, state, domain, stuck_at)
             SELECT id, id, 1, 'bob@plain.test', 'not-offered', '4.7.801', '', 1, 'open', 'plain.test', 1790000000000 FROM cases;
         INSERT INTO owed (recipient_id, news, sender, since)
             SELECT id, 'stuck', 'ann@sender.test', 1790000000000 FROM recipients;
         COMMIT"),
    );
}

#[test]
fn what_a_hook_is_telling_is_not_told_together_with_the_rest() {
    let bench = Bench::new();
    let path = bench.path("posttls.toml");
    let settings = std::fs::read_to_string(&path).expect("settings");
    std::fs::write(&path, settings.replace("first = 100", "first = 2")).expect("settings");
    waiting(&bench, 3);
    let claim = format!(
        "INSERT INTO letters (sender, case_id, kind, claimed_at) VALUES ('ann@sender.test', 1, 'notification', {})",
        posttls::case::store::now_ms()
    );
    sql(&bench, &claim);
    let _courier = Courier::start(&bench);
    wait("the mail", &bench, || owed(&bench) == 1);
    let mails = bench.server.mails();
    assert_eq!(mails.len(), 1, "{}", bench.log());
    assert!(mails[0].contains("Not sent yet: 2 messages") && !mails[0].contains("ABC00001"));
}

#[test]
fn five_thousand_messages_of_one_sender_are_one_mail() {
    let bench = Bench::new();
    waiting(&bench, 5000);
    let begun = Instant::now();
    let _courier = Courier::start(&bench);
    wait("the mail", &bench, || owed(&bench) == 0);
    println!("5,000 messages were told of after {:?}", begun.elapsed());
    // Two rounds of the courier.
    thread::sleep(Duration::from_millis(2500));
    let mails = bench.server.mails();
    assert_eq!(mails.len(), 1, "{}", bench.log());
    assert!(mails[0].contains("Not sent yet: 5000 messages") && mails[0].len() < 30_000);
    assert!(
        bench.log().contains("notified of 5000 messages"),
        "{}",
        bench.log()
    );
}

#[test]
fn a_server_that_fails_is_tried_again_and_nothing_is_told_twice() {
    for stage in ["CONNECT", "RCPT", "."] {
        let failing = Arc::new(AtomicBool::new(true));
        let (fails, tries) = (Arc::clone(&failing), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&tries);
        let server = Server::start(move |command| {
            if command != stage || !fails.load(Ordering::SeqCst) {
                return None;
            }
            counted.fetch_add(1, Ordering::SeqCst);
            Some("451 4.3.0 later")
        });
        let bench = Bench::with(server);
        left_by_the_hook(&bench);
        let _courier = Courier::start(&bench);
        wait("two tries", &bench, || tries.load(Ordering::SeqCst) >= 2);
        assert_eq!(owed(&bench), 1);
        assert!(bench.log().contains("next try in "), "{}", bench.log());
        failing.store(false, Ordering::SeqCst);
        wait("the mail", &bench, || owed(&bench) == 0);
        assert_eq!(bench.server.mails().len(), 1, "{stage}");
    }
}

#[test]
fn a_mail_on_which_the_server_falls_silent_does_not_keep_the_others_waiting() {
    let bench = Bench::with(Server::start(|command| {
        command.contains("<ann@sender.test>").then_some("")
    }));
    bench.configure(bench.server.port, 1, "");
    waiting(&bench, 2);
    sql(
        &bench,
        "UPDATE cases SET sender = 'zoe@sender.test' WHERE id = 2;
         UPDATE owed SET sender = 'zoe@sender.test' WHERE recipient_id = 2",
    );
    let _courier = Courier::start(&bench);
    wait("the other sender's mail", &bench, || owed(&bench) == 1);
    let mails = bench.server.mails();
    assert!(
        mails.len() == 1 && mails[0].contains("To: zoe@sender.test"),
        "{mails:?}"
    );
    assert!(
        bench.log().contains("mail to senders waits"),
        "{}",
        bench.log()
    );
}

#[test]
fn what_the_server_refuses_stays_owed_and_the_admin_hears_of_it() {
    let server = Server::start(|command| (command == "RCPT").then_some("550 5.1.1 no such user"));
    let bench = Bench::with(server);
    left_by_the_hook(&bench);
    let _courier = Courier::start(&bench);
    wait("the refusal", &bench, || {
        bench
            .log()
            .contains("error: mail to senders is refused: 1 times")
    });
    assert!(bench.log().contains("next try in 60 s"), "{}", bench.log());
    assert_eq!(owed(&bench), 1);
    let case = bench.store().cases(None).expect("cases").remove(0);
    let events = bench.store().events(case.id).expect("events");
    assert!(
        events.iter().any(|event| event.what == "not-notified"),
        "{events:?}"
    );
}

#[test]
fn a_claim_is_respected_until_it_is_too_old() {
    let bench = Bench::new();
    left_by_the_hook(&bench);
    let claim = format!(
        "INSERT INTO letters (sender, case_id, kind, claimed_at)
         SELECT sender, id, 'notification', {} FROM cases",
        posttls::case::store::now_ms()
    );
    sql(&bench, &claim);
    let _courier = Courier::start(&bench);
    // Two rounds of the courier.
    thread::sleep(Duration::from_millis(2500));
    assert!(bench.server.mails().is_empty(), "{}", bench.log());
    sql(
        &bench,
        "UPDATE letters SET claimed_at = claimed_at - 150001",
    );
    wait("the mail", &bench, || owed(&bench) == 0);
    assert_eq!(bench.server.mails().len(), 1);
}

#[test]
fn two_couriers_tell_once() {
    let bench = Bench::with(Server::start(|command| {
        if command == "DATA" {
            thread::sleep(Duration::from_millis(700));
        }
        None
    }));
    left_by_the_hook(&bench);
    let couriers = [Courier::start(&bench), Courier::start(&bench)];
    wait("the mail", &bench, || owed(&bench) == 0);
    // Two rounds of both.
    thread::sleep(Duration::from_millis(2500));
    drop(couriers);
    assert_eq!(bench.server.mails().len(), 1);
}

#[test]
fn killed_in_a_mail_it_is_told_once_by_the_next_courier_when_the_claim_is_too_old() {
    let bench = Bench::with(Server::start(|command| (command == "EHLO").then_some("")));
    left_by_the_hook(&bench);
    bench.configure(bench.server.port, 30, "");
    let courier = Courier::start(&bench);
    let claimed = || {
        let store = rusqlite::Connection::open(bench.database()).expect("a store");
        let count: i64 = store
            .query_row(
                "SELECT count(*) FROM letters WHERE sent_at IS NULL",
                [],
                |row| row.get(0),
            )
            .expect("a number");
        count == 1
    };
    wait("a claim", &bench, claimed);
    drop(courier);
    let good = Server::start(|_| None);
    bench.configure(good.port, 5, "");
    sql(
        &bench,
        "UPDATE letters SET claimed_at = claimed_at - 150001",
    );
    let _courier = Courier::start(&bench);
    wait("the mail", &bench, || owed(&bench) == 0);
    assert_eq!(good.mails().len(), 1);
}

#[test]
fn it_does_not_run_as_root_and_says_what_is_wrong_with_its_configuration() {
    let bench = Bench::new();
    let output = Command::new(env!("CARGO_BIN_EXE_posttls-httpd"))
        .args(["--courier", "--config"])
        .arg(bench.path("posttls.toml"))
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("it runs as root"), "{said}");
    bench.configure(25, 5, "[reminders]\nafter_hours = [4, 2]\n");
    let mut courier = Courier::start(&bench);
    assert!(!courier.0.wait().expect("an end").success());
    let said = std::fs::read_to_string(bench.path("courier.err")).expect("a text");
    assert!(said.contains("reminders.after_hours: must be"), "{said}");
}
