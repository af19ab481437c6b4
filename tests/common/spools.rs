//! The queues of both instances: what is in them, what was left behind, and what an admin does with them.

use std::path::{Path, PathBuf};

use posttls::sandbox::Instance;

use super::Stage;

/// The directories of a queue directory that hold something of a message: its file, or what is logged about it.
const OF_MESSAGES: [&str; 9] = [
    "maildrop", "incoming", "active", "deferred", "hold", "defer", "bounce", "trace", "corrupt",
];

impl Stage {
    /// Every file of any message in the spools of both instances, in hashed directories, too.
    pub fn spool_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for instance in [Instance::Encrypt, Instance::May] {
            let root = self.sandbox.queue_dir(instance);
            for name in OF_MESSAGES {
                walk(&root.join(name), &mut found);
            }
        }
        found
    }

    /// Waits until neither spool has any file of any message.
    pub fn spools_are_clean(&self) {
        self.wait("spools without a trace of any message", || {
            self.spool_files().is_empty().then_some(())
        });
    }

    /// Has Postfix try a deferred message of the encrypt instance now.
    pub fn flush(&self, queue_id: &str) {
        self.run("postqueue", Instance::Encrypt, &["-i", queue_id]);
    }

    pub fn reload(&self, instance: Instance) {
        self.run("postfix", instance, &["reload"]);
    }

    /// Has pickup(8) look now; otherwise it does so once a minute. `postkick` may end by SIGPIPE when that is done:
    /// pickup reads only the first of the two octets that it writes.
    pub fn wake_pickup(&self, instance: Instance) {
        let _ = self
            .sandbox
            .run("postkick", instance, &["public", "pickup", "W"]);
    }

    /// Is nothing in any queue of this instance?
    pub fn has_nothing(&self, instance: Instance) -> bool {
        self.sandbox.queue(instance).values().all(Vec::is_empty)
    }

    /// Runs a tool of Postfix that must succeed.
    pub fn run(&self, tool: &str, instance: Instance, arguments: &[&str]) -> String {
        self.sandbox
            .run(tool, instance, arguments)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until `line` is in PostTLS's log.
    pub fn logged(&self, line: &str) {
        self.wait(&format!("{line:?} in the log"), || {
            self.log().contains(line).then_some(())
        });
    }

    /// Waits until a recipient of a case is in this state.
    pub fn becomes(&self, queue_id: &str, recipient: &str, state: &str) {
        self.wait(&format!("{recipient} to be {state}"), || {
            (self.states(queue_id).get(recipient)? == state).then_some(())
        });
    }

    /// Waits until a case has ended, for this reason.
    pub fn closed(&self, queue_id: &str, why: &str) {
        self.wait(&format!("the case of {queue_id} to end"), || {
            (self.case(queue_id)["state"] == "closed").then_some(())
        });
        assert_eq!(self.case(queue_id)["closed_why"], why);
    }

    /// Waits until the mover watches the message: what Postfix does with it before that is seen by nobody.
    pub fn watched(&self, queue_id: &str) {
        let itself = format!("/{queue_id}");
        let pid = self.sandbox.httpd_pid().expect("posttls-httpd runs");
        self.wait(&format!("{queue_id} to be watched"), || {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
            let mut targets = files
                .flatten()
                .filter_map(|file| std::fs::read_link(file.path()).ok());
            targets
                .any(|target| target.to_string_lossy().ends_with(&itself))
                .then_some(())
        });
    }

    /// The number of each recipient in forms, by address.
    pub fn number(&self, queue_id: &str, recipient: &str) -> u64 {
        let case = self.case(queue_id);
        let mut all = case["recipients"].as_array().into_iter().flatten();
        all.find(|known| known["address"] == recipient)
            .and_then(|known| known["number"].as_u64())
            .unwrap_or_else(|| panic!("no {recipient} in {case}"))
    }
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}
