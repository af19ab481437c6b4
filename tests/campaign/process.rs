//! Finding the sandbox's own processes and killing them. Everything starts from a process ID that the sandbox itself
//! knows (the mover's, a master's) and goes down from parent to child: nobody else's process can be hit.

use std::fs;
use std::path::Path;

use posttls::sandbox::Instance;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::Stage;

/// The children of a process, whichever of its threads has started them.
pub fn children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task"));
    let mut found = Vec::new();
    for task in tasks.into_iter().flatten().flatten() {
        let listed = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(
            listed
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    found
}

/// The name of the program that a process runs, in at most 15 letters.
pub fn name(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// What the mover's children are: the web child and the courier run the mover's own program.
pub fn role(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let name = name(pid)?;
    Some(match name.as_str() {
        "posttls-httpd" if line.contains("courier") => "courier".to_owned(),
        "posttls-httpd" => "web child".to_owned(),
        _ => name,
    })
}

pub fn signal(pid: u32, signal: Signal) -> bool {
    let pid = Pid::from_raw(pid.cast_signed());
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// The master of an instance, if it runs.
pub fn master(stage: &Stage, instance: Instance) -> Option<u32> {
    let queue = stage.sandbox.queue_dir(instance);
    let text = fs::read_to_string(queue.join("pid/master.pid")).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    // The file outlives the process, and the number may be somebody else's by then.
    let is_ours = name(pid)? == "master"
        && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| is_below(&cwd, &queue));
    is_ours.then_some(pid)
}

fn is_below(path: &Path, root: &Path) -> bool {
    path.starts_with(root)
}

/// The hooks that the encrypt instance has running: children of its pipe(8) processes.
pub fn hooks(master: u32) -> Vec<u32> {
    let pipes = children(master)
        .into_iter()
        .filter(|pid| name(*pid).as_deref() == Some("pipe"));
    let mut found: Vec<u32> = pipes.flat_map(children).collect();
    found.retain(|pid| name(*pid).as_deref() == Some("posttls-pipe"));
    found
}

/// Is it more than an ended process of which its parent has not heard yet?
pub fn is_alive(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}
