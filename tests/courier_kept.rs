//! The mover keeps a courier: unprivileged, replaced when it dies or the configuration changes, and never as root.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};

use common::{Stage, signal};
use rustix::process::Signal;

/// The courier that the mover runs now, from /proc.
fn courier(stage: &Stage) -> Option<u32> {
    let mover = stage.sandbox.httpd_pid()?;
    let children = format!("/proc/{mover}/task");
    let tasks = fs::read_dir(children).ok()?.flatten();
    let mut all = tasks.flat_map(|task| {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        list.split_whitespace()
            .filter_map(|pid| pid.parse::<u32>().ok())
            .collect::<Vec<_>>()
    });
    all.find(|pid| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with(b"posttls-httpd (courier)"))
    })
}

fn running(stage: &Stage) -> u32 {
    stage.wait("a courier", || courier(stage))
}

#[test]
fn it_has_the_hooks_user_and_nothing_else() {
    let stage = Stage::new();
    let courier = running(&stage);
    let owner = fs::metadata(stage.dir().join("state/posttls.db")).expect("a store");
    stage.wait("its unprivileged state", || {
        let status = fs::read_to_string(format!("/proc/{courier}/status")).ok()?;
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        (line("Uid:") == vec![owner.uid().to_string(); 4]
            && line("Gid:") == vec![owner.gid().to_string(); 4]
            && line("CapEff:") == ["0000000000000000"]
            && line("NoNewPrivs:") == ["1"])
        .then_some(())
    });
    let environment =
        fs::read_to_string(format!("/proc/{courier}/environ")).expect("an environment");
    assert_eq!(environment, "", "nothing of ours is set");
    let sockets = fs::read_dir(format!("/proc/{courier}/fd"))
        .expect("its files")
        .flatten();
    for file in sockets {
        let target = fs::read_link(file.path()).unwrap_or_default();
        assert!(
            !target.to_string_lossy().starts_with("socket:"),
            "{target:?}"
        );
    }
}

#[test]
fn it_is_replaced_when_it_dies_and_when_the_configuration_changes_and_ends_with_the_mover() {
    let stage = Stage::new();
    let first = running(&stage);
    signal(first, Signal::KILL);
    let second = stage.wait("another one", || {
        courier(&stage).filter(|pid| *pid != first)
    });
    stage.configure("notification", "language", "\"de\"");
    stage.signal_mover(Signal::HUP);
    let third = stage.wait("a third one", || {
        courier(&stage).filter(|pid| *pid != second)
    });
    stage.send(&["bob@plain.test"], "after");
    stage.mail("Noch nicht gesendet: after");
    stage.minutes_pass(240);
    stage.mail("Erinnerung: noch nicht gesendet: after");
    // However the mover ends, its courier does not outlive it.
    stage.signal_mover(Signal::KILL);
    stage.wait("the courier's end", || {
        fs::read(format!("/proc/{third}/cmdline"))
            .unwrap_or_default()
            .is_empty()
            .then_some(())
    });
}

#[test]
fn a_store_of_roots_gets_no_courier_and_senders_can_still_decide() {
    let stage = Stage::new();
    let (_, link) = stage.stuck(&["bob@plain.test"], "roots");
    stage.sandbox.stop_httpd();
    chown(stage.dir().join("state/posttls.db"), Some(0), Some(0)).expect("root's");
    stage.sandbox.start_httpd(&[]).expect("it starts");
    stage.wait("the reason in the log", || {
        stage.log().contains("does not run as root").then_some(())
    });
    assert_eq!(courier(&stage), None);
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("bob@plain.test");
}
