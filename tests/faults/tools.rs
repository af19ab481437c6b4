//! postsuper is missing, fails, or hangs: before anything has changed, and at each command in the middle of a move.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use posttls::sandbox::{Instance, UpOptions};

use crate::common::{Stage, request};

/// Where Postfix's commands are on this host.
fn host_tools() -> PathBuf {
    let output = Command::new("postconf")
        .args(["-d", "-h", "command_directory"])
        .output()
        .expect("postconf runs");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .into()
}

/// A directory with all of Postfix's commands, in which one can be broken.
struct Tools(PathBuf);

impl Tools {
    fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("a directory");
        for entry in fs::read_dir(host_tools()).expect("commands").flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with("post") {
                symlink(entry.path(), directory.join(name)).expect("a link");
            }
        }
        let real = host_tools().join("postsuper");
        for (name, does) in [
            ("fails", "echo 'postsuper: fatal: out of luck' >&2; exit 1"),
            ("hangs", "exec sleep 600"),
        ] {
            for verb in ["-h", "-H", "-d"] {
                let script = format!(
                    "#!/bin/sh\ncase $3 in {verb}) {does};; esac\nexec {} \"$@\"\n",
                    real.display()
                );
                let path = directory.join(format!("{name}{verb}"));
                fs::write(&path, script).expect("a script");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
            }
        }
        Self(directory.to_owned())
    }

    /// From now on postsuper is this; nothing, if there is no such thing.
    fn postsuper(&self, is: &Path) {
        let new = self.0.join("new");
        symlink(is, &new).expect("a link");
        fs::rename(new, self.0.join("postsuper")).expect("a link");
    }

    fn break_with(&self, how: &str) {
        self.postsuper(&self.0.join(how));
    }

    fn mend(&self) {
        self.postsuper(&host_tools().join("postsuper"));
    }
}

fn stage_with_tools() -> (Stage, Tools) {
    let mut tools = None;
    let stage = Stage::with(|options: UpOptions| {
        let directory = options.dir.join("tools");
        tools = Some(Tools::new(&directory));
        let path = directory.display().to_string();
        options.main_cf(Instance::Encrypt, "command_directory", &path)
    });
    (stage, tools.expect("tools"))
}

/// Breaks the commands of the encrypt instance, clicks, looks, and mends. In the end the message is delivered once.
fn is_carried_out_when_mended(stage: &Stage, tools: &Tools, how: &str, said: &str, held: bool) {
    let recipient = format!("{}@plain.test", how.replace(['-', '/'], ""));
    let (queue_id, link) = stage.stuck(&[&recipient], how);
    stage.in_queue(&queue_id, "deferred");
    tools.break_with(how);
    let asked = Instant::now();
    let answer = stage.post(&link, "action=send");
    assert_eq!(answer.status, 200, "{how}: {answer:?}");
    assert!(
        answer.body.contains("decision is recorded"),
        "{how}: {}",
        answer.body
    );
    assert!(asked.elapsed() < Duration::from_secs(10), "{how}");
    let line = stage.logged_about(&queue_id, said);
    assert!(line.contains("postsuper"), "{line}");
    let released = stage.states(&queue_id)[&recipient] == "released";
    assert!(!released, "{how}: not before all is done");
    let queue = if held { "hold" } else { "deferred" };
    assert_eq!(
        stage.sandbox.queue_of(Instance::Encrypt, &queue_id),
        Some(queue),
        "{how}"
    );
    // A second click changes nothing.
    assert_eq!(stage.post(&link, "action=delete").status, 200, "{how}");
    tools.mend();
    stage.arrival(&recipient);
    stage.becomes(&queue_id, &recipient, "released");
    stage.wait("the end of the message", || {
        let gone = stage
            .sandbox
            .queue_of(Instance::Encrypt, &queue_id)
            .is_none();
        gone.then_some(())
    });
    assert_eq!(stage.arrivals(&recipient).len(), 1, "{how}");
}

/// What hangs is waited for, so meanwhile the rest is tried.
#[test]
fn postsuper_breaks() {
    std::thread::scope(|scope| {
        scope.spawn(postsuper_hangs);
        scope.spawn(postsuper_is_missing_or_fails);
    });
}

fn postsuper_is_missing_or_fails() {
    let (stage, encrypt) = stage_with_tools();
    is_carried_out_when_mended(&stage, &encrypt, "nothing", "is Postfix installed?", false);
    is_carried_out_when_mended(&stage, &encrypt, "fails-h", "out of luck", false);
    // The copy is under way already.
    is_carried_out_when_mended(&stage, &encrypt, "fails-d", "out of luck", true);
    stage.queues_are_empty();
    stage.spools_are_clean();
}

fn postsuper_hangs() {
    let (stage, encrypt) = stage_with_tools();
    let (other, page) = stage.stuck(&["ann@plain.test"], "other");
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            stage.wait("a hanging command", || {
                let log = stage.log();
                log.contains("decision recorded").then_some(())
            });
            // Nobody else waits for it.
            let asked = Instant::now();
            assert_eq!(request("GET", &page, "").status, 200);
            assert!(asked.elapsed() < Duration::from_secs(4));
        });
        is_carried_out_when_mended(&stage, &encrypt, "hangs-h", "did not end within 5 s", false);
        looks.join().expect("a page");
    });
    assert_eq!(stage.states(&other)["ann@plain.test"], "open");
}
