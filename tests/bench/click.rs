//! From the click to the may instance's `queue active`, and the older way of doing the same by hand, in turn.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use posttls::sandbox::{Instance, UpOptions};

use crate::Effort;
use crate::common::Stage;
use crate::log::Watch;
use crate::measure::{Figures, Table};

pub fn run(effort: Effort, table: &mut Table) {
    for (size, name, rounds) in [
        // Two messages a round: the sender is told of a hundred one by one, and of more in digests.
        (5_000, "5 kB", effort.pick(45, 5)),
        (25_000_000, "25 MB", effort.pick(15, 2)),
    ] {
        // By hand, but not by link, the message has to pass the other instance's limits.
        let limit = |options: UpOptions| options.main_cf(Instance::May, "message_size_limit", "0");
        let stage = Stage::with(|options| limit(options.mx_dialogue(false)));
        let watch = Watch::start(&stage, Duration::from_micros(200));
        let (mut clicked, mut older) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            for by_link in [round % 2 == 0, round % 2 != 0] {
                let time = one(&stage, &watch, round, by_link, size);
                // The first round only warms up.
                if round > 0 {
                    if by_link { &mut clicked } else { &mut older }.push(time);
                }
            }
        }
        let (clicked, older) = (Figures::of(&clicked), Figures::of(&older));
        let ratio = clicked.median() / older.median();
        let what = format!("Click to `queue active` in the may instance, {name}");
        let beside = format!("{ratio:.2} of by hand; goal: 0.7");
        table.row(&what, "ms", &clicked, &beside);
        let by_hand = "– by hand: `postsuper -h`, `postcat`, `sendmail`, `postsuper -d`";
        table.row(&format!("{by_hand}, {name}"), "ms", &older, "");
    }
}

fn one(stage: &Stage, watch: &Watch, round: u32, by_link: bool, size: usize) -> Duration {
    let to = format!("r{round}@plain.test");
    let line = format!("{}\r\n", "x".repeat(70));
    let subject = format!("round-{round}-{by_link}");
    let message = format!(
        "From: alice@sender.test\r\nSubject: {subject}\r\n\r\n{}",
        line.repeat(size / line.len())
    );
    let queue_id = stage
        .sandbox
        .submit("alice@sender.test", &[&to], message.as_bytes())
        .unwrap_or_else(|error| panic!("{error}"));
    let link = crate::common::link(&stage.notification(&queue_id));
    stage.in_queue(&queue_id, "deferred");
    watch.forget();
    let click = Instant::now();
    if by_link {
        assert_eq!(stage.post(&link, "action=send").status, 200);
    } else {
        by_hand(stage, &queue_id, &to);
    }
    let time = watch.when("may", &["from=<alice@sender.test>", "queue active"]) - click;
    stage.queues_are_empty();
    for place in ["inbox/new", "delivered"] {
        empty(&stage.dir().join(place));
    }
    time
}

/// What was delivered is not looked at, and large.
fn empty(directory: &std::path::Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let _ = if path.is_dir() {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        };
    }
}

/// The way of the older PostTLS, as a shell would do it.
fn by_hand(stage: &Stage, queue_id: &str, to: &str) {
    let postsuper = |option: &str| {
        let done = stage
            .sandbox
            .run("postsuper", Instance::Encrypt, &[option, queue_id]);
        done.unwrap_or_else(|error| panic!("{error}"));
    };
    postsuper("-h");
    let mut postcat = Command::new("postcat")
        .arg("-c")
        .arg(stage.sandbox.config_dir(Instance::Encrypt))
        .args(["-qbh", queue_id])
        .stdout(Stdio::piped())
        .spawn()
        .expect("postcat");
    let mut sendmail = Command::new("sendmail")
        .arg("-C")
        .arg(stage.sandbox.config_dir(Instance::May))
        .args(["-f", "alice@sender.test", "--", to])
        .stdin(Stdio::piped())
        .spawn()
        .expect("sendmail");
    let mut from = postcat.stdout.take().expect("a pipe");
    let mut into = sendmail.stdin.take().expect("a pipe");
    let mut buffer = vec![0; 65_536];
    loop {
        let count = from.read(&mut buffer).expect("postcat writes");
        if count == 0 {
            break;
        }
        into.write_all(&buffer[..count]).expect("sendmail reads");
    }
    drop(into);
    let done = [postcat.wait(), sendmail.wait()];
    assert!(
        done.into_iter()
            .all(|ended| ended.expect("a program").success())
    );
    postsuper("-d");
}
