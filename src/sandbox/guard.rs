//! What a sandbox started must not outlive the process that has it, however that ends: its masters are daemons, and
//! know nothing of it. A process of its own waits for that end, and stops what is left.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::error::AtPath;
use super::{SandboxError, down};

/// What tells the guard that it is not needed any more.
const LEAVE: &[u8] = b"leave";

/// The process, and the pipe whose end it waits for.
#[derive(Debug)]
pub struct Guard {
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Has `program`, a `posttls`, stop everything that was started in `dir` when this process is gone.
    ///
    /// # Errors
    /// When it can't be run.
    pub fn start(program: &Path, dir: &Path) -> Result<Self, SandboxError> {
        let mut process = Command::new(program)
            .args(["sandbox", "guard", "--dir"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .at(program)?;
        let pipe = process.stdin.take();
        Ok(Self { process, pipe })
    }

    /// Nothing runs any more, or what runs shall go on.
    pub(super) fn dismiss(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            // If it is gone already, all the better.
            let _ = pipe.write_all(LEAVE);
        }
        let _ = self.process.wait();
    }
}

impl Drop for Guard {
    /// Waits until nothing runs.
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.process.wait();
    }
}

/// What the process does: waits for the end of standard input, then stops what runs in `dir`.
///
/// # Errors
/// When something can't be stopped.
pub fn guard(dir: &Path) -> Result<(), SandboxError> {
    let mut said = Vec::new();
    // However it ends.
    let _ = std::io::stdin().read_to_end(&mut said);
    if said == LEAVE {
        return Ok(());
    }
    down(dir, false)
}
