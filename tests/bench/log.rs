//! Postfix's log has whole seconds only: a thread reads the logs as they grow and takes the time of each new line.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, Stage};

/// A line, which log it is in, and when it was seen.
pub type Line = (Instant, &'static str, String);

/// New lines of some logs, with the moment at which each was seen.
pub struct Watch {
    lines: Arc<Mutex<Vec<Line>>>,
    ended: Arc<AtomicBool>,
}

impl Watch {
    /// Watches the logs of both instances and of PostTLS, looking after each `pause`.
    pub fn start(stage: &Stage, pause: Duration) -> Self {
        let logs: Vec<(&'static str, PathBuf)> = ["encrypt", "may", "posttls"]
            .map(|name| (name, stage.dir().join(format!("{name}.log"))))
            .into();
        let (lines, ended) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (found, stop) = (Arc::clone(&lines), Arc::clone(&ended));
        let mut open: HashMap<&str, (File, String)> = HashMap::new();
        for (name, path) in &logs {
            if let Ok(mut file) = File::open(path) {
                file.seek(SeekFrom::End(0)).expect("the end of a log");
                open.insert(name, (file, String::new()));
            }
        }
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for &(name, ref path) in &logs {
                    if let (Entry::Vacant(entry), Ok(file)) = (open.entry(name), File::open(path)) {
                        entry.insert((file, String::new()));
                    }
                    let Some((file, rest)) = open.get_mut(name) else {
                        continue;
                    };
                    look(name, file, rest, &found);
                }
                thread::sleep(pause);
            }
        });
        Self { lines, ended }
    }

    /// Forgets what was seen until now.
    pub fn forget(&self) {
        self.lines.lock().expect("lines").clear();
    }

    /// What `found` makes of the lines that were seen, as soon as it makes something of them.
    pub fn wait<T>(&self, what: &str, found: impl Fn(&[Line]) -> Option<T>) -> T {
        let deadline = Instant::now() + 4 * PATIENCE;
        loop {
            if let Some(result) = found(&self.lines.lock().expect("lines")) {
                return result;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The moment of the first line of `log` that has all of `parts`.
    pub fn when(&self, log: &str, parts: &[&str]) -> Instant {
        self.wait(
            &format!("a line with {parts:?} in the log {log}"),
            |lines| {
                let has_all = |line: &str| parts.iter().all(|part| line.contains(part));
                lines
                    .iter()
                    .find(|(_, name, line)| *name == log && has_all(line))
                    .map(|(at, ..)| *at)
            },
        )
    }
}

fn look(name: &'static str, file: &mut File, rest: &mut String, found: &Mutex<Vec<Line>>) {
    let mut new = Vec::new();
    file.read_to_end(&mut new).expect("a readable log");
    if new.is_empty() {
        return;
    }
    let now = Instant::now();
    rest.push_str(&String::from_utf8_lossy(&new));
    while let Some(end) = rest.find('\n') {
        let line: String = rest.drain(..=end).collect();
        found.lock().expect("lines").push((now, name, line));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
