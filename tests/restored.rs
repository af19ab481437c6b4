//! A store is restored from a backup that is older than a move, or begun anew: what the move has left in the hold queues is
//! found and explained, nothing of it is sent or removed by itself, and what an admin holds is nobody else's matter.
#![cfg(feature = "failpoints")]

mod common;
mod moving;

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{Stage, came_over_tls};
use moving::{Fate, Message, POINTS, Point, die_at};
use posttls::sandbox::Instance;

use Fate::{Deleted, Sent, Waits};

fn database(stage: &Stage) -> PathBuf {
    stage.dir().join("state/posttls.db")
}

/// As the README says.
fn back_up(stage: &Stage, to: &Path) {
    let _ = std::fs::remove_file(to);
    stage.sql(&format!("VACUUM INTO '{}'", to.display()));
}

/// As the README says.
fn restore(stage: &Stage, from: &Path) {
    let database = database(stage);
    let owner = std::fs::metadata(&database).expect("a database");
    // A child of the mover may still be ending.
    for suffix in ["", "-wal", "-shm"] {
        let mut name = database.clone().into_os_string();
        name.push(suffix);
        let _ = std::fs::remove_file(name);
    }
    std::fs::copy(from, &database).expect("a copy");
    chown(&database, Some(owner.uid()), Some(owner.gid())).expect("an owner");
}

/// What `posttls check` says of the hold queues.
fn checked(stage: &Stage) -> (String, String) {
    let output = stage.posttls(&["check", "--json"]);
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut all = all.as_array().expect("checks").iter();
    let found = all.find(|one| one["id"] == "hold-queues").expect("a check");
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("what"))
}

/// The mover has died at this point, and the store is that of before the decision.
fn die_and_restore(stage: &Stage, point: &Point, fates: &[Fate]) -> Message {
    let message = Message::send(stage, &point.tag(), fates);
    let backup = stage.dir().join("backup.db");
    back_up(stage, &backup);
    die_at(stage, point, &message);
    restore(stage, &backup);
    message
}

fn held(stage: &Stage, instance: Instance) -> Vec<String> {
    stage.sandbox.queue(instance)["hold"].clone()
}

#[test]
fn what_a_lost_move_has_left_is_found_and_explained() {
    for point in POINTS.iter().filter(|point| point.copy_held) {
        let stage = Stage::new();
        let message = die_and_restore(&stage, point, &[Sent, Waits]);
        let (id, to) = (message.queue_id.as_str(), &message.sent()[0]);
        let copy = held(&stage, Instance::May).remove(0);
        let (status, what) = checked(&stage);
        assert_eq!(status, "fail", "{}: {what}", point.name);
        assert!(what.contains(id), "{}: {what}", point.name);
        stage.sandbox.start_httpd(&[]).expect("it starts");
        // The case says what is true, and its page promises nothing.
        let shown = stage.said(&["case", id]);
        assert!(
            shown.contains("is stopped for you to look at"),
            "{}: {shown}",
            point.name
        );
        assert_eq!(stage.states(id)[to], "releasing", "{}", point.name);
        let page = stage.get(&message.link).body;
        assert!(
            page.contains("your administrator has to repair or settle"),
            "{page}"
        );
        let answer = stage.post(&message.link, &message.form);
        assert_eq!(answer.status, 200, "{}", point.name);
        for false_word in ["elivered securely", "no longer in the queue"] {
            assert!(
                !answer.body.contains(false_word),
                "{}: {}",
                point.name,
                answer.body
            );
        }
        let resolve = stage.said(&["resolve", id]);
        let may = stage.sandbox.config_dir(Instance::May);
        let encrypt = stage.sandbox.config_dir(Instance::Encrypt);
        for command in [
            format!("postsuper -c {} -H {copy}", may.display()),
            format!("postsuper -c {} -d {copy}", may.display()),
            format!("postsuper -c {} -H {id}", encrypt.display()),
            format!("to=<{to}>: send"),
        ] {
            assert!(
                resolve.contains(&command),
                "{}: no {command} in {resolve}",
                point.name
            );
        }
        // Nothing is sent and nothing removed, and a later decision waits.
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(stage.sandbox.delivered(to).len(), 0, "{}", point.name);
        assert_eq!(
            held(&stage, Instance::May),
            vec![copy.clone()],
            "{}",
            point.name
        );
        assert_eq!(held(&stage, Instance::Encrypt), [id], "{}", point.name);
        // An admin does what is said, and everybody gets it once.
        let run = |instance, verb, what: &str| {
            let run = stage.sandbox.run("postsuper", instance, &[verb, what]);
            run.unwrap_or_else(|error| panic!("{}: {error}", point.name));
        };
        if point.step == posttls::case::MoveStep::Begun
            && ["published", "sealed"].contains(&point.tag().as_str())
        {
            // Nobody is marked: it is the encrypt instance's as before.
            run(Instance::May, "-d", &copy);
            run(Instance::Encrypt, "-H", id);
            stage.said(&["resolve", id, "--settled"]);
            stage.in_queue(id, "deferred");
            assert_eq!(stage.pending(id).len(), 2, "{}", point.name);
            continue;
        }
        run(Instance::May, "-H", &copy);
        stage
            .sandbox
            .run("postqueue", Instance::May, &["-f"])
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(!came_over_tls(&stage.arrival(to)));
        run(Instance::Encrypt, "-H", id);
        stage.said(&["resolve", id, "--settled"]);
        stage.in_queue(id, "deferred");
        assert_eq!(stage.pending(id), message.waiting(), "{}", point.name);
        assert_eq!(stage.sandbox.delivered(to).len(), 1, "{}", point.name);
        assert_eq!(checked(&stage).0, "ok", "{}", point.name);
    }
}

#[test]
fn a_sealed_message_without_a_copy_is_found_too() {
    for name in ["move::written", "move::marked-sealed"] {
        let stage = Stage::new();
        let point = POINTS.iter().find(|one| one.name == name).expect("a point");
        let message = die_and_restore(&stage, point, &[Deleted, Waits]);
        let id = message.queue_id.as_str();
        assert_eq!(checked(&stage).0, "fail", "{name}");
        stage.sandbox.start_httpd(&[]).expect("it starts");
        let resolve = stage.said(&["resolve", id]);
        assert!(resolve.contains("sealed by a move"), "{resolve}");
        // Postfix's tools see it again.
        let run = stage
            .sandbox
            .run("postsuper", Instance::Encrypt, &["-H", id]);
        run.unwrap_or_else(|error| panic!("{error}"));
        stage.in_queue(id, "deferred");
        stage.said(&["resolve", id, "--settled"]);
        assert_eq!(stage.pending(id), message.waiting(), "{name}");
    }
}

#[test]
fn when_the_copy_is_gone_it_is_said_what_is_known() {
    let stage = Stage::new();
    let point = POINTS.iter().find(|one| one.name == "move::requeued");
    let message = die_and_restore(&stage, point.expect("a point"), &[Sent, Waits]);
    let (id, to) = (message.queue_id.as_str(), &message.sent()[0]);
    stage.arrival(to);
    stage.wait("the end of the copy", || {
        let queues = stage.sandbox.queue(Instance::May);
        queues.values().all(Vec::is_empty).then_some(())
    });
    let (status, what) = checked(&stage);
    assert_eq!(status, "warn", "{what}");
    stage.sandbox.start_httpd(&[]).expect("it starts");
    let shown = stage.said(&["case", id]);
    assert!(shown.contains("unexplained"), "{shown}");
    assert!(
        shown.contains("or by a move that the journal does not know"),
        "{shown}"
    );
    assert_eq!(stage.sandbox.delivered(to).len(), 1);
}

#[test]
fn with_a_new_store_the_census_and_the_check_tell_of_it() {
    let stage = Stage::new();
    let point = POINTS.iter().find(|one| one.name == "move::published");
    let message = Message::send(&stage, "new", &[Sent, Waits]);
    die_at(&stage, point.expect("a point"), &message);
    let database = database(&stage);
    let owner = std::fs::metadata(&database).expect("a database");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
    }
    drop(posttls::case::store::Store::open(&database, true).expect("a new store"));
    for suffix in ["", "-wal", "-shm"] {
        let _ = chown(
            format!("{}{suffix}", database.display()),
            Some(owner.uid()),
            Some(owner.gid()),
        );
    }
    let copy = held(&stage, Instance::May).remove(0);
    let (status, what) = checked(&stage);
    assert_eq!(status, "fail", "{what}");
    let dry = stage.json(&["census", "--json", "--dry-run"]);
    assert_eq!(dry["strays"], 1, "{dry}");
    let counts = stage.json(&["census", "--json"]);
    assert_eq!(counts["strays"], 1, "{counts}");
    assert!(stage.log().contains(&copy), "{}", stage.log());
    assert_eq!(held(&stage, Instance::May), [copy]);
    assert_eq!(stage.sandbox.delivered(&message.sent()[0]).len(), 0);
}

#[test]
fn what_an_admin_holds_is_not_ours() {
    let stage = Stage::new();
    let (id, _) = stage.stuck(&["bob@plain.test"], "held");
    let run = |tool: &str, instance, arguments: &[&str]| {
        let run = stage.sandbox.run(tool, instance, arguments);
        run.unwrap_or_else(|error| panic!("{error}"));
    };
    run("postsuper", Instance::Encrypt, &["-h", &id, "deferred"]);
    // A message of the may instance's own, and one of which PostTLS has no case.
    let sendmail = |instance, to: &str| {
        let directory = stage.sandbox.config_dir(instance);
        let mut child = Command::new("sendmail")
            .arg("-C")
            .arg(directory)
            .args(["-f", "root@sender.test", to])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("sendmail");
        use std::io::Write as _;
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(b"Subject: x\n\nx\n").expect("a message");
        drop(input);
        assert!(child.wait().expect("an end").success());
    };
    for instance in [Instance::May, Instance::Encrypt] {
        sendmail(instance, "ann@down.test");
        stage.wake_pickup(instance);
        let waiting = || {
            let queues = stage.sandbox.queue(instance);
            let mut all = queues["deferred"].iter();
            all.find(|one| **one != id).cloned()
        };
        let other = stage.wait("another message", waiting);
        run("postsuper", instance, &["-h", &other, "deferred"]);
    }
    stage.sandbox.stop_httpd();
    stage.sandbox.start_httpd(&[]).expect("it starts");
    let (status, what) = checked(&stage);
    assert_eq!(status, "ok", "{what}");
    assert_eq!(stage.json(&["census", "--json"])["strays"], 0);
    assert!(!stage.log().contains("conflict"), "{}", stage.log());
    let shown = stage.said(&["case", &id]);
    assert!(
        !shown.contains("stopped") && !shown.contains("unexplained"),
        "{shown}"
    );
}
