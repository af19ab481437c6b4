//! How long senders wait: from Postfix's `status=deferred` line to the notification's acceptance, and from the click to
//! the may instance's `queue active` line; the second beside the older way of doing it by hand, in the same run.
//!
//!     cargo bench --bench latency [-- ROUNDS]
//!
//! Postfix's log has whole seconds only, so a thread reads the logs as they grow and takes the time of each new line.

#[path = "../common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, Stage};
use posttls::sandbox::Instance;

type Seen = Vec<(Instant, &'static str, String)>;

/// New lines of some logs, with the moment at which each was seen.
struct Watch {
    lines: Arc<Mutex<Seen>>,
    ended: Arc<AtomicBool>,
}

impl Watch {
    fn start(logs: Vec<(&'static str, PathBuf)>) -> Self {
        let (lines, ended) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let (found, stop) = (Arc::clone(&lines), Arc::clone(&ended));
        thread::spawn(move || {
            let mut open: HashMap<&str, (File, String)> = HashMap::new();
            while !stop.load(Ordering::Relaxed) {
                for &(name, ref path) in &logs {
                    if let (Entry::Vacant(entry), Ok(file)) = (open.entry(name), File::open(path)) {
                        entry.insert((file, String::new()));
                    }
                    let Some((file, rest)) = open.get_mut(&name) else {
                        continue;
                    };
                    let mut new = Vec::new();
                    file.read_to_end(&mut new).expect("a readable log");
                    if new.is_empty() {
                        continue;
                    }
                    let now = Instant::now();
                    rest.push_str(&String::from_utf8_lossy(&new));
                    while let Some(end) = rest.find('\n') {
                        let line: String = rest.drain(..=end).collect();
                        found.lock().expect("lines").push((now, name, line));
                    }
                }
                thread::sleep(Duration::from_micros(200));
            }
        });
        Self { lines, ended }
    }

    /// The moment of the first line of `log` at or after `since` that has all of `parts`.
    fn when(&self, log: &str, since: Instant, parts: &[&str]) -> Instant {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = self.lines.lock().expect("lines");
            let found = lines.iter().find(|(at, name, line)| {
                *name == log && *at >= since && parts.iter().all(|part| line.contains(part))
            });
            if let Some((at, ..)) = found {
                return *at;
            }
            drop(lines);
            assert!(
                Instant::now() < deadline,
                "no line with {parts:?} in the log {log}"
            );
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// The way of the older PostTLS, as a shell would do it.
fn by_hand(stage: &Stage, queue_id: &str, to: &str) {
    stage
        .sandbox
        .run("postsuper", Instance::Encrypt, &["-h", queue_id])
        .expect("on hold");
    let (encrypt, may) = (
        stage.sandbox.config_dir(Instance::Encrypt),
        stage.sandbox.config_dir(Instance::May),
    );
    let mut postcat = Command::new("postcat")
        .arg("-c")
        .arg(encrypt)
        .args(["-qbh", queue_id])
        .stdout(Stdio::piped())
        .spawn()
        .expect("postcat");
    let mut sendmail = Command::new("sendmail")
        .arg("-C")
        .arg(may)
        .args(["-f", "alice@sender.test", "--", to])
        .stdin(Stdio::piped())
        .spawn()
        .expect("sendmail");
    let mut message = Vec::new();
    postcat
        .stdout
        .take()
        .expect("a pipe")
        .read_to_end(&mut message)
        .expect("a message");
    sendmail
        .stdin
        .take()
        .expect("a pipe")
        .write_all(&message)
        .expect("sendmail reads");
    assert!(
        postcat.wait().expect("postcat").success() && sendmail.wait().expect("sendmail").success()
    );
    stage
        .sandbox
        .run("postsuper", Instance::Encrypt, &["-d", queue_id])
        .expect("deleted");
}

fn report(what: &str, mut times: Vec<Duration>) -> f64 {
    times.sort();
    let at = |share: f64| {
        times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0
    };
    println!(
        "{what:<58} median {:6.1} ms   10 % {:6.1}   90 % {:6.1}   99 % {:6.1}   (n = {})",
        at(0.5),
        at(0.1),
        at(0.9),
        at(0.99),
        times.len()
    );
    at(0.5)
}

fn main() {
    let rounds: usize = std::env::args()
        .find_map(|word| word.parse().ok())
        .unwrap_or(50);
    let stage = Stage::with(|options| options.mx_dialogue(false));
    let log = |name: &str| stage.dir().join(format!("{name}.log"));
    let watch = Watch::start(vec![
        ("encrypt", log("encrypt")),
        ("may", log("may")),
        ("posttls", log("posttls")),
    ]);
    let (mut told, mut clicked, mut older) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        for by_link in [true, false] {
            let to = format!("r{round}@plain.test");
            let start = Instant::now();
            let (queue_id, link) = stage.stuck(&[&to], &format!("round-{round}-{by_link}"));
            let deferred = watch.when("encrypt", start, &[&queue_id, "status=deferred"]);
            // `notified` is logged when the server has accepted the mail: DATA was answered with 250.
            told.push(
                watch
                    .when("posttls", start, &[&queue_id, "notified"])
                    .saturating_duration_since(deferred),
            );
            let click = Instant::now();
            if by_link {
                assert_eq!(stage.post(&link, "action=send").status, 200);
            } else {
                by_hand(&stage, &queue_id, &to);
            }
            let active = watch.when("may", click, &["from=<alice@sender.test>", "queue active"]);
            if by_link { &mut clicked } else { &mut older }.push(active - click);
            stage.queues_are_empty();
        }
    }
    report("status=deferred to notification accepted", told);
    let new = report("click to queue active in the may instance", clicked);
    let old = report(
        "the older way (postsuper, postcat | sendmail, postsuper)",
        older,
    );
    println!("ratio of the medians, click to older way: {:.2}", new / old);
}
