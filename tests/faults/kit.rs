//! What several faults need: a small file system that can be filled, and a look at what a fault must never do.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use posttls::case::store::Store;
use posttls::postfix::user::lookup;
use posttls::sandbox::Instance;

use crate::common::Stage;

/// A new store at the usual place of a stage, which has none.
pub fn make_store(stage: &Stage) {
    let nobody = lookup("nobody").expect("a user");
    let directory = stage.dir().join("state");
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).expect("a mode");
    chown(&directory, Some(nobody.uid), Some(nobody.gid)).expect("an owner");
    drop(Store::open(&database(stage), true).expect("a store"));
    give_to_hook(&database(stage));
}

pub fn give_to_hook(file: &Path) {
    let nobody = lookup("nobody").expect("a user");
    chown(file, Some(nobody.uid), Some(nobody.gid)).expect("an owner");
    fs::set_permissions(file, Permissions::from_mode(0o600)).expect("a mode");
}

pub fn database(stage: &Stage) -> PathBuf {
    stage.dir().join("state/posttls.db")
}

/// Another process that keeps the store locked until it is dropped.
pub fn lock(stage: &Stage) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(database(stage)).expect("a store");
    other
        .busy_timeout(crate::common::PATIENCE)
        .expect("a timeout");
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    other
}

impl Stage {
    /// Has Postfix try everything that waits in the encrypt instance, the notices above all.
    pub fn flush_all(&self) {
        self.run("postqueue", Instance::Encrypt, &["-f"]);
    }

    /// Waits until the log has a line that begins with this queue ID (after the program) and has `text` in it.
    pub fn logged_about(&self, queue_id: &str, text: &str) -> String {
        let begins = format!(": {queue_id}: ");
        let begins_with_level = format!(" {queue_id}: ");
        self.wait(&format!("{queue_id} and {text:?} in one line"), || {
            let log = self.log();
            log.lines()
                .find(|line| {
                    (line.contains(&begins) || line.contains(&begins_with_level))
                        && line.contains(text)
                })
                .map(str::to_owned)
        })
    }

    /// What `posttls check` says about one thing.
    pub fn check_says(&self, id: &str) -> String {
        let output = self.posttls(&["check", "--json"]);
        let all: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let mut all = all.as_array().into_iter().flatten();
        let found = all.find(|one| one["id"] == id);
        let found = found.unwrap_or_else(|| panic!("no check {id}"));
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        format!("{}: {} - {}", text("status"), text("what"), text("todo"))
    }

    /// Waits for the delivery, and for the end of everything: one delivery to each, nothing left anywhere.
    pub fn ends_well(&self, recipients: &[&str]) {
        for recipient in recipients {
            self.arrival(recipient);
        }
        self.queues_are_empty();
        self.spools_are_clean();
        for recipient in recipients {
            assert_eq!(self.arrivals(recipient).len(), 1, "{recipient}");
        }
    }

    /// The mails that tell of a message.
    pub fn told(&self, queue_id: &str) -> usize {
        let reference = format!("(Reference: {queue_id})");
        let told = |mail: &Vec<u8>| String::from_utf8_lossy(mail).contains(&reference);
        self.sandbox
            .inbox()
            .iter()
            .filter(|mail| told(mail))
            .count()
    }

    /// The one message in the encrypt instance's queue that is not among these.
    pub fn notice_waits(&self, known: &[&str]) {
        self.wait("the notice in the deferred queue", || {
            let queues = self.sandbox.queue(Instance::Encrypt);
            let mut waiting = queues["deferred"].iter();
            waiting
                .any(|id| !known.contains(&id.as_str()))
                .then_some(())
        });
    }
}
