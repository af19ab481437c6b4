//! The clock jumps while all runs: a day back, some hours ahead, thirty days ahead, and right again; and years ahead, at
//! which nothing may be forgotten for good.
//!
//! libfaketime tells our processes another time than the system's, which stays as it is, and so does Postfix's. Mover,
//! hook, ear and courier get it by LD_PRELOAD and read the offset anew at each question; clocks that nobody can set are
//! left alone, as a jump leaves them. The web child can't have it: it may not open a file, and it does not ask for the
//! time (the mover tells it, in numbers). The mover gives its children an environment of its own; in a build for tests
//! the courier's has the library.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use jiff::{Timestamp, tz::TimeZone};
use posttls::sandbox::Instance;

use crate::common::remote::subjects;
use crate::common::{Stage, link, request};

/// Where the package libfaketime has put the library for programs with threads.
fn library() -> PathBuf {
    let mut found = fs::read_dir("/usr/lib").expect("libraries").flatten();
    found
        .find_map(|entry| {
            let path = entry.path().join("faketime/libfaketimeMT.so.1");
            path.exists().then_some(path)
        })
        .expect("libfaketime: apt-get install faketime")
}

/// The clock of everything that is ours in a stage.
struct Clock(PathBuf);

impl Clock {
    fn new(directory: &Path) -> Self {
        sweep_up();
        let clock = Self(directory.join("clock"));
        clock.set("+0");
        clock
    }

    /// The offset from the system's clock from now on, as libfaketime has it: `-1d`.
    fn set(&self, offset: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{offset}\n")).expect("a file");
        fs::rename(new, &self.0).expect("a file");
    }

    fn environment(&self) -> Vec<(String, String)> {
        let pairs = [
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // Files have the times that the kernel gave them.
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        sweep_up();
    }
}

/// libfaketime keeps two files for each process, by its number. One that is killed, or may not remove them, leaves them
/// there, and a later process of that number would fail at them.
fn sweep_up() {
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let number = ["faketime_shm_", "sem.faketime_sem_"]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix));
        if number.is_some_and(|number| !Path::new("/proc").join(number).exists()) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

/// A stage whose clock can be set, not yet with a posttls-httpd. The clock must outlive it.
fn stage() -> (Clock, Stage) {
    let mut clock = None;
    let stage = Stage::with(|options| {
        let ours = clock.insert(Clock::new(&options.dir)).environment();
        let ours = ours
            .iter()
            .map(|(name, value)| format!(" {{{name}={value}}}"));
        let exported = format!("TZ MAIL_CONFIG LANG{}", ours.collect::<String>());
        let options = options.httpd(false);
        [Instance::Encrypt, Instance::May]
            .into_iter()
            .fold(options, |options, instance| {
                options.main_cf(instance, "export_environment", &exported)
            })
    });
    for (section, key, value) in [
        ("limits", "first", "1"),
        ("sweep", "seconds", "1"),
        ("sweep", "census_minutes", "0"),
    ] {
        stage.configure(section, key, value);
    }
    (clock.expect("a clock"), stage)
}

/// Starts posttls-httpd by this clock.
fn start(stage: &Stage, clock: &Clock, more: &[(&str, &str)]) {
    let mut environment = clock.environment();
    let more = more.iter();
    environment.extend(more.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    stage.sandbox.start_httpd(&environment).expect("it starts");
}

/// Has this program logged a line with these words, by a clock that is so many hours off?
fn logged_by(stage: &Stage, program: &str, words: &str, hours: i64) {
    let zone = TimeZone::system();
    let minutes_ago = |minutes: i64| {
        let seconds = Timestamp::now().as_second() + hours * 3600 - minutes * 60;
        let then = Timestamp::from_second(seconds).expect("a time");
        let then = then.to_zoned(zone.clone());
        then.strftime("%Y-%m-%dT%H:%M").to_string()
    };
    let times: Vec<String> = (0..5).map(minutes_ago).collect();
    let log = stage.log();
    let program = format!(" {program}[");
    let mut lines = log
        .lines()
        .filter(|line| line.contains(&program) && line.contains(words));
    assert!(
        lines.any(|line| times.iter().any(|time| line.starts_with(time.as_str()))),
        "{program}, {words:?}, {hours} h, none of {times:?} in\n{log}"
    );
}

/// A sender's message, and the page that the notification links to.
fn told(stage: &Stage, sender: &str, to: &[&str], subject: &str) -> (String, String) {
    let queue_id = stage.stuck_from(&format!("{sender}@sender.test"), to, subject);
    let page = link(&stage.notification(&queue_id));
    (queue_id, page)
}

#[test]
fn back_and_ahead_while_all_runs_it_loses_and_doubles_nothing() {
    let (clock, stage) = stage();
    // The first move is still half-way when the clock jumps.
    start(
        &stage,
        &clock,
        &[("FAILPOINTS", "move::copied=1*sleep(1500)")],
    );
    let (first, page) = told(
        &stage,
        "alice",
        &["bob@plain.test", "ann@plain.test"],
        "first",
    );
    // Told by the courier when the window is over, which by the clock's word it never will be.
    let owed = stage.stuck_from("alice@sender.test", &["owed@plain.test"], "owed");
    stage.wait("the end of its hook", || {
        let queues = stage.sandbox.queue(Instance::Encrypt);
        let waiting = queues.values().flatten();
        (waiting.count() == 2).then_some(())
    });

    thread::scope(|scope| {
        let click =
            scope.spawn(|| request("POST", &page, "action=send&recipient=bob%40plain.test"));
        stage.in_queue(&first, "hold");
        clock.set("-1d");
        assert_eq!(click.join().expect("an answer").status, 200);
    });
    stage.arrival("bob@plain.test");
    stage.becomes(&first, "bob@plain.test", "released");
    logged_by(&stage, "posttls/httpd", "status=released", -24);
    stage.notification(&owed);
    logged_by(&stage, "posttls/courier", &owed, -24);
    let (second, second_page) = told(&stage, "carol", &["eve@plain.test"], "second");
    logged_by(&stage, "posttls/pipe", &second, -24);
    assert_eq!(stage.get(&page).status, 200);
    let (closed, closed_page) = told(&stage, "old", &["old@plain.test"], "closed");
    assert_eq!(stage.post(&closed_page, "action=delete").status, 200);
    stage.becomes(&closed, "old@plain.test", "deleted");

    // Five hours after the notification, by that clock.
    clock.set("-19h");
    let reminder = stage.mail("Reminder: not sent yet: second");
    assert!(
        reminder.text.contains("eve@plain.test"),
        "{}",
        reminder.text
    );
    // The sweep sees who is stuck later.
    let late = stage.send(&["joe@down.test"], "late");
    stage.known(&late);
    stage.in_queue(&late, "deferred");
    clock.set("+30d");
    stage.route("down.test", "plain.test");
    stage.flush(&late);
    stage.becomes(&late, "joe@down.test", "open");
    stage.notification(&late);
    logged_by(&stage, "posttls/httpd", "source=sweep", 30 * 24);

    // Links have expired, whoever made them, and nothing is decided by them; an admin can.
    let (third, third_page) = told(&stage, "dave", &["kim@plain.test"], "third");
    for expired in [&page, &second_page, &third_page] {
        assert_eq!(stage.get(expired).status, 410);
        assert_eq!(stage.post(expired, "action=delete").status, 410);
    }
    assert_eq!(stage.states(&first)["ann@plain.test"], "open");
    assert_eq!(stage.states(&third)["kim@plain.test"], "open");
    stage.said(&["release", &first]);
    stage.arrival("ann@plain.test");

    // A decision that has to wait is tried again whatever the clock says meanwhile.
    clock.set("+0");
    let hold = stage.sandbox.queue_dir(Instance::May).join("hold");
    let away = hold.with_file_name("hold-away");
    fs::rename(&hold, &away).expect("a directory");
    let answer = stage.post(&second_page, "action=send");
    assert_eq!(answer.status, 200, "they open again: {answer:?}");
    assert!(answer.body.contains("decision is recorded"), "{answer:?}");
    clock.set("-1d");
    stage.logged_about(&second, "next try in");
    fs::rename(&away, &hold).expect("a directory");
    stage.arrival("eve@plain.test");

    clock.set("+0");
    assert_eq!(stage.post(&third_page, "action=send").status, 200);
    stage.arrival("kim@plain.test");
    for rest in [&owed, &late] {
        stage.said(&["delete", rest]);
    }
    stage.ends_well(&[
        "bob@plain.test",
        "ann@plain.test",
        "eve@plain.test",
        "kim@plain.test",
    ]);
    for nobody in ["old@plain.test", "owed@plain.test", "joe@down.test"] {
        assert_eq!(stage.attempts(nobody), 0, "{nobody}");
    }
    let subjects = subjects(&stage);
    for subject in ["closed", "first", "owed", "second", "late", "third"] {
        let wanted = format!("Not sent yet: {subject}");
        let count = subjects.iter().filter(|one| **one == wanted).count();
        assert_eq!(count, 1, "{subject}: {subjects:?}");
    }
    assert_eq!(stage.case(&closed)["sender"], "old@sender.test");
    // Which of the two times is right, it can't tell.
    let said = stage.check_says("clock");
    assert!(
        said.contains("in the future") && said.contains("if it is right now"),
        "{said}"
    );
}

#[test]
fn years_ahead_nothing_is_forgotten_for_a_day() {
    let (clock, stage) = stage();
    start(&stage, &clock, &[]);
    let (queue_id, page) = told(&stage, "alice", &["bob@plain.test"], "kept");
    assert_eq!(stage.post(&page, "action=delete").status, 200);
    stage.becomes(&queue_id, "bob@plain.test", "deleted");
    let looks = |offset: &str| {
        stage.sandbox.stop_httpd();
        clock.set(offset);
        let before = stage.number_of("SELECT at FROM last_look");
        start(&stage, &clock, &[]);
        stage.wait("a look at what is old", || {
            (stage.number_of("SELECT at FROM last_look") != before).then_some(())
        });
    };
    looks("+3650d");
    stage.logged("retention: either no mover ran for more than a day, or the clock was set ahead");
    assert_eq!(stage.case(&queue_id)["sender"], "alice@sender.test");
    let said = stage.check_says("clock");
    assert!(said.starts_with("warn: clock: it was set ahead"), "{said}");

    // Set right within the day, all is as before.
    looks("+0");
    assert!(!stage.check_says("clock").contains("set ahead"));
    assert_eq!(stage.get(&page).status, 200);
    assert_eq!(stage.case(&queue_id)["sender"], "alice@sender.test");

    // Nobody minds, and it is as old as the clock says.
    looks("+3650d");
    assert_eq!(stage.case(&queue_id)["sender"], "alice@sender.test");
    stage.sql("UPDATE last_look SET doubt_until = at");
    looks("+3650d");
    stage.logged("retention: older than 90 days: cases=1 ");
    assert!(!stage.case(&queue_id)["redacted_at"].is_null());
}
