//! The threat model of README.md: what each actor can't do is tried here, unless another test has done so already (the
//! README names it). One module an actor.
//!
//! Some of it is tried from inside: `inside` and `web_child::relay` do nothing unless a test starts this program again
//! as another user, with a task in its environment.

#[path = "../common/mod.rs"]
mod common;

mod forwarded;
mod growth;
mod inside;
mod limits;
mod local;
mod outsider;
#[path = "../common/programs.rs"]
mod programs;
mod recipient;
mod sockets;
mod unit;
mod web_child;

use std::fs;
use std::path::{Path, PathBuf};

/// A user who exists only by number and belongs to no group that anything belongs to.
pub const STRANGER: u32 = 54_321;

/// A copy of this program where any user can run it; the build directory may be closed to others.
pub fn this_program(directory: &Path) -> PathBuf {
    let program = directory.join("program");
    programs::install(std::env::current_exe().expect("a program"), &program);
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

/// The table in the README names tests that there are.
#[test]
fn the_readme_names_tests_that_there_are() {
    let readme = include_str!("../../README.md");
    let section = readme
        .split("## Who can do what")
        .nth(1)
        .expect("a section");
    let section = section
        .split("**What our processes give up**")
        .next()
        .expect("its end");
    let mut sources = String::new();
    for directory in ["tests", "src"] {
        read_all(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(directory),
            &mut sources,
        );
    }
    let quoted = section.split('`').skip(1).step_by(2);
    let names: Vec<&str> = quoted.filter(|name| name.contains("::")).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let (path, test) = name.rsplit_once("::").expect("::");
        let wanted = match test.strip_suffix('…') {
            Some(start) => format!("fn {start}"),
            None => format!("fn {test}("),
        };
        assert!(sources.contains(&wanted), "{name}");
        let file = path.rsplit("::").next().expect("a part");
        assert!(sources.contains(&format!("\n//// {file}\n")), "{name}");
    }
}

/// Every source below a directory, after a line with the name of its file, and its directory for `main.rs` and `mod.rs`.
fn read_all(directory: &Path, into: &mut String) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_all(&path, into);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            for part in [path.file_stem(), directory.file_name()]
                .into_iter()
                .flatten()
            {
                into.push_str(&format!("\n//// {}\n", part.to_string_lossy()));
            }
            into.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}
