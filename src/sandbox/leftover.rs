//! Processes of a sandbox that are still there, wherever their files have gone: known by what they were started with.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::SandboxError;

/// How long what has been told to end may take.
const GENTLY: Duration = Duration::from_secs(2);
const FIRMLY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// Ends what is left of the sandbox in `dir`: what Postfix's masters have left behind, and masters whose queue directory
/// is out of sight (a file system that was unmounted).
pub(super) fn end(dir: &Path) -> Result<(), SandboxError> {
    let begun = Instant::now();
    let mut signal = Signal::TERM;
    loop {
        let left = processes(dir);
        if left.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > FIRMLY {
            return Err(SandboxError::StillRunning(left));
        }
        for pid in left {
            // Gone since is as good.
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
        }
        if begun.elapsed() > GENTLY {
            signal = Signal::KILL;
        }
        thread::sleep(PAUSE);
    }
}

/// Postfix's processes have the directory of their configuration in the environment; ours are run from `dir`.
pub fn processes(dir: &Path) -> Vec<i32> {
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_postfix(*pid, dir) || is_ours(*pid, dir))
        .collect()
}

fn is_postfix(pid: i32, dir: &Path) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|octet| *octet == 0);
    let below = |variable: &[u8]| {
        let path = variable.strip_prefix(b"MAIL_CONFIG=")?;
        let rest = path.strip_prefix(dir.as_os_str().as_bytes())?;
        rest.starts_with(b"/").then_some(())
    };
    variables.any(|variable| below(variable).is_some())
}

/// Not `posttls` itself: that is the one who asks, its guard, or a command that ends by itself.
fn is_ours(pid: i32, dir: &Path) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    program.starts_with(dir.join("bin"))
        && ["posttls-httpd", "posttls-pipe", "posttls-ear"]
            .iter()
            .any(|name| program.file_name().is_some_and(|file| is(file, name)))
}

/// A program whose file is gone has a word about it behind its name.
fn is(file: &std::ffi::OsStr, name: &str) -> bool {
    let file = file.as_bytes();
    file == name.as_bytes() || file == format!("{name} (deleted)").as_bytes()
}
