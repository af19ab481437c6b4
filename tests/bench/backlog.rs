//! Notices that real Postfix has written, kept, and let go as often as wanted: each time about messages of other queue
//! IDs, so that each time everything is to be done for them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::PathBuf;

use posttls::sandbox::Instance;
use serde_json::Value;

use crate::common::Stage;
use crate::hooks::set_main;
use crate::stage::queue_id;

/// One notice as it stands in the queue.
struct Notice {
    name: String,
    content: Vec<u8>,
    /// The queue ID of the message that it is about.
    about: String,
}

/// The notices.
pub struct Backlog {
    notices: Vec<Notice>,
    waiting_room: PathBuf,
    incoming: PathBuf,
    postfix: (u32, u32),
    next: u64,
}

impl Backlog {
    /// Has Postfix defer `count` messages of as many senders, and takes the notices about them out of the queue.
    pub fn gather(stage: &Stage, count: usize) -> Self {
        set_main(stage, "defer_transports", "posttls");
        // Some more, as Postfix writes none about a message that comes and fails within a tick of the clock, at the
        // beginning of a second.
        for number in 0..count + count / 50 + 5 {
            let from = format!("u{number}@sender.test");
            let message = format!("From: {from}\r\nSubject: message {number}\r\n\r\nHello.\r\n");
            let to = [&*format!("r{number}@plain.test")];
            let sent = stage.sandbox.submit(&from, &to, message.as_bytes());
            sent.unwrap_or_else(|error| panic!("{error}"));
        }
        let queued = stage.wait("all notices in the deferred queue", || {
            let mut queued = notices_in(stage);
            queued.truncate(count);
            (queued.len() == count).then_some(queued)
        });
        let root = stage.sandbox.queue_dir(Instance::Encrypt);
        let deferred = files(stage);
        let notices: Vec<Notice> = queued
            .into_iter()
            .map(|name| {
                let content = fs::read(&deferred[&name]).expect("a queue file");
                let about = after(&content, b"X-Postfix-Queue-ID: ");
                Notice {
                    name,
                    content,
                    about,
                }
            })
            .collect();
        let owner = fs::metadata(root.join("incoming")).expect("a queue");
        let postfix = (owner.uid(), owner.gid());
        let emptied = stage
            .sandbox
            .run("postsuper", Instance::Encrypt, &["-d", "ALL"]);
        emptied.unwrap_or_else(|error| panic!("{error}"));
        let waiting_room = root.join("waiting-room");
        fs::create_dir(&waiting_room).expect("a directory");
        set_main(stage, "defer_transports", "");
        Self {
            notices,
            waiting_room,
            incoming: root.join("incoming"),
            postfix,
            next: 0,
        }
    }

    /// Puts all of them beside the queue, about messages that nobody has heard of.
    pub fn prepare(&mut self) {
        for notice in &self.notices {
            // Of the same length, so that the records of the file stay as they are.
            self.next += 1;
            let fresh = queue_id(self.next, notice.about.len());
            let content = replaced(&notice.content, notice.about.as_bytes(), fresh.as_bytes());
            let path = self.waiting_room.join(&notice.name);
            fs::write(&path, content).expect("a queue file");
            chown(&path, Some(self.postfix.0), Some(self.postfix.1)).expect("an owner");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("a mode");
        }
        rustix::fs::sync();
    }

    /// Lets them go: they are in the incoming queue, and the queue manager knows.
    pub fn release(&self, stage: &Stage) {
        for notice in &self.notices {
            let from = self.waiting_room.join(&notice.name);
            fs::rename(from, self.incoming.join(&notice.name)).expect("a queue");
        }
        // A queue manager that is just starting looks by itself, and may hang up on whoever tells it to.
        let kick = ["public", "qmgr", "I"];
        let _ = stage.sandbox.run("postkick", Instance::Encrypt, &kick);
    }
}

fn notices_in(stage: &Stage) -> Vec<String> {
    let list = stage.sandbox.run("postqueue", Instance::Encrypt, &["-j"]);
    let list = list.unwrap_or_else(|error| panic!("{error}"));
    let entries = list
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    entries
        .filter(|entry| entry["queue_name"] == "deferred")
        .filter(|entry| entry["recipients"][0]["address"] == "notice@posttls.invalid")
        .filter_map(|entry| entry["queue_id"].as_str().map(str::to_owned))
        .collect()
}

/// Where each file of the deferred queue is.
fn files(stage: &Stage) -> HashMap<String, PathBuf> {
    let mut found = HashMap::new();
    let mut open = vec![stage.sandbox.queue_dir(Instance::Encrypt).join("deferred")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("a queue") {
            let path = entry.expect("a queue").path();
            if path.is_dir() {
                open.push(path);
            } else if let Some(name) = path.file_name() {
                found.insert(name.to_string_lossy().into_owned(), path);
            }
        }
    }
    found
}

/// The hexadecimal digits after `mark`.
pub fn after(content: &[u8], mark: &[u8]) -> String {
    let at = content
        .windows(mark.len())
        .position(|window| window == mark);
    let rest = &content[at.expect("a notice") + mark.len()..];
    let end = rest.iter().position(|byte| !byte.is_ascii_hexdigit());
    String::from_utf8_lossy(&rest[..end.unwrap_or(rest.len())]).into_owned()
}

/// With `old` replaced by `new` wherever it stands.
pub fn replaced(content: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    let mut rest = content;
    while let Some(at) = rest.windows(old.len()).position(|window| window == old) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(new);
        rest = &rest[at + old.len()..];
    }
    out.extend_from_slice(rest);
    out
}
