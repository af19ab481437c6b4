//! One notice as pipe(8) gave it to the hook, with its arguments, to run the hook by itself as often as wanted: each time
//! about a message and a sender that it has not heard of.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::backlog::{after, replaced};
use crate::common::Stage;
use crate::stage::queue_id;

/// The sender of the message; the digits are replaced.
pub const SENDER: &str = "u00000000@sender.test";
/// Its recipient, or the first of them.
pub const RECIPIENT: &str = "r00000000@plain.test";

/// A notice.
pub struct Kept {
    raw: Vec<u8>,
    sender: String,
    queue_id: String,
    about: String,
    next: u64,
}

impl Kept {
    /// Has real Postfix write one about a message with so many recipients.
    pub fn new(recipients: usize) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("posttls-kept-")
            .tempdir()
            .expect("a directory");
        // The hook's user writes there, whatever our umask says.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("a mode");
        let hook = dir.path().join("keep");
        let place = dir.path().display();
        let text = format!(
            "#!/bin/sh\ncat >{place}/raw\necho \"$6 $8\" >{place}/new\nmv {place}/new {place}/done\n"
        );
        fs::write(&hook, text).expect("a program");
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("a program");
        let stage = Stage::with(|options| options.httpd(false).start_may(false).hook(&hook));
        let mut to = vec![RECIPIENT.to_owned()];
        to.extend((1..recipients).map(|number| format!("r{number:08}@plain.test")));
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let message = format!("From: {SENDER}\r\nSubject: kept\r\n\r\nHello.\r\n");
        let sent = stage.sandbox.submit(SENDER, &to, message.as_bytes());
        sent.unwrap_or_else(|error| panic!("{error}"));
        let arguments = stage.wait("a notice", || {
            fs::read_to_string(dir.path().join("done")).ok()
        });
        let (sender, id) = arguments.trim().split_once(' ').expect("two arguments");
        let raw = fs::read(dir.path().join("raw")).expect("a notice");
        Self {
            about: after(&raw, b"X-Postfix-Queue-ID: "),
            raw,
            sender: sender.to_owned(),
            queue_id: id.to_owned(),
            next: 0,
        }
    }

    /// Starts the hook of a sandbox with it.
    pub fn start(&mut self, stage: &Stage) -> Child {
        self.next += 1;
        let fresh = queue_id(0x8_0000 + self.next, self.about.len());
        let raw = replaced(&self.raw, self.about.as_bytes(), fresh.as_bytes());
        let sender = numbered(SENDER, 50_000_000 + self.next);
        let raw = replaced(&raw, SENDER.as_bytes(), sender.as_bytes());
        let mut input = tempfile::tempfile().expect("a file");
        input.write_all(&raw).expect("a file");
        std::io::Seek::rewind(&mut input).expect("a file");
        let owner = owner(&stage.dir().join("state/posttls.db"));
        Command::new(stage.sandbox.program("posttls-pipe"))
            .arg("--config")
            .arg(stage.sandbox.config_file())
            .args([
                "--client",
                "",
                "--sender",
                &self.sender,
                "--queue-id",
                &self.queue_id,
            ])
            .stdin(input)
            .stdout(Stdio::null())
            .uid(owner.0)
            .gid(owner.1)
            .spawn()
            .expect("the hook")
    }
}

/// An address of the same length with another number.
pub fn numbered(address: &str, number: u64) -> String {
    address.replace("00000000", &format!("{number:08}"))
}

/// User and group of a file.
pub fn owner(path: &Path) -> (u32, u32) {
    let found = fs::metadata(path).expect("a file");
    (found.uid(), found.gid())
}
