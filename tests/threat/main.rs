//! The threat model of README.md: what each actor can't do is tried here, unless another test has done so already (the
//! README names it). One module an actor.
//!
//! Some of it is tried from inside: `inside` and `web_child::relay` do nothing unless a test starts this program again
//! as another user, with a task in its environment.

#[path = "../common/mod.rs"]
mod common;

mod forwarded;
mod inside;
mod limits;
mod local;
mod outsider;
mod recipient;
mod unit;
mod web_child;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A user who exists only by number and belongs to no group that anything belongs to.
pub const STRANGER: u32 = 54_321;

/// A copy of this program where any user can run it; the build directory may be closed to others.
pub fn this_program(directory: &Path) -> PathBuf {
    let program = directory.join("program");
    fs::copy(std::env::current_exe().expect("a program"), &program).expect("a copy");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("a mode");
    program
}

/// The queue file of a message in the deferred queue, which is hashed.
pub fn deferred(stage: &common::Stage, queue_id: &str) -> PathBuf {
    stage.in_queue(queue_id, "deferred");
    let mut files = stage.spool_files().into_iter();
    let found = files.find(|path| {
        path.ends_with(queue_id) && path.components().any(|part| part.as_os_str() == "deferred")
    });
    found.expect("a queue file")
}

/// The process ID in the last line of a log that has `before` and a number.
pub fn pid_after(log: &str, before: &str) -> u32 {
    let found = log.rmatch_indices(before).find_map(|(at, _)| {
        let rest = &log[at + before.len()..];
        rest.split(' ').next()?.parse().ok()
    });
    found.unwrap_or_else(|| panic!("no {before:?} in {log}"))
}

/// Does a process of this number run? One that has ended and was not waited for does not.
pub fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}
