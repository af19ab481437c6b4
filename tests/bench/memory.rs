//! The most memory that a process ever had (`VmHWM`), as the kernel counts it.

use std::fs;
use std::time::Duration;

use crate::Effort;
use crate::common::Stage;
use crate::kept::Kept;
use crate::measure::Table;
use crate::stage::{Sink, with_sink};

pub fn run(effort: Effort, table: &mut Table) {
    let sink = Sink::start();
    let stage = with_sink(&sink, |options| options);
    for recipients in [1, 1000] {
        let mut kept = Kept::new(recipients);
        let mut peaks: Vec<f64> = (0..effort.pick(5, 2))
            .map(|_| of_hook(&stage, &mut kept))
            .collect();
        peaks.sort_by(f64::total_cmp);
        let what = format!("Memory, `posttls-pipe`, recipients in the notice: {recipients}");
        table.peak(&what, peaks[peaks.len() - 1], "MB", "");
    }
    let mover = stage.sandbox.httpd_pid().expect("the mover");
    let before = peak(mover).expect("the mover");
    let line = format!("{}\r\n", "x".repeat(70));
    let body = line.repeat(50_000_000 / line.len());
    let message = format!("From: alice@sender.test\r\nSubject: large\r\n\r\n{body}");
    let sent = stage
        .sandbox
        .submit("alice@sender.test", &["big@plain.test"], message.as_bytes());
    let queue_id = sent.unwrap_or_else(|error| panic!("{error}"));
    let link = stage.case_link(&queue_id);
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.queues_are_empty();
    let beside = format!("{} MB before", before.round());
    let after = peak(mover).expect("the mover");
    table.peak(
        "Memory, mover that released a message of 50 MB",
        after,
        "MB",
        &beside,
    );
}

/// Runs the hook and looks at it until it ends.
fn of_hook(stage: &Stage, kept: &mut Kept) -> f64 {
    let mut process = kept.start(stage);
    let mut most: f64 = 0.0;
    loop {
        // It only grows, and is gone with the process: the last look is the right one.
        most = peak(process.id()).map_or(most, |now| most.max(now));
        if let Some(status) = process.try_wait().expect("the hook") {
            assert!(status.success(), "{status}");
            return most;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// The peak of a process in MB, while it has memory.
pub fn peak(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1024.0)
}

/// The child of a process that was started with this option.
pub fn child_of(parent: u32, option: &str) -> u32 {
    let has_option = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|word| word == option.as_bytes())
    };
    children(parent)
        .into_iter()
        .find(has_option)
        .expect("a child")
}

/// The children of a process, whichever of its threads has started them.
pub fn children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).expect("tasks");
    let lists = tasks
        .flatten()
        .map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| {
            let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<u32>>()
        })
        .collect()
}
