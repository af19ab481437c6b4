//! The shipped systemd unit: no more than the mover needs, and the mover does its work with no more.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::common::{Stage, signal};

const UNIT: &str = include_str!("../../postfix-conf/posttls-httpd.service");
/// The exposure that `systemd-analyze security` finds, in tenths; from 50 on it says "medium".
const EXPOSURE: u32 = 26;

fn setting(name: &str) -> &'static str {
    let lines = UNIT.lines().filter_map(|line| line.split_once('='));
    let mut found = lines.filter(|(key, _)| *key == name);
    found.next().unwrap_or_else(|| panic!("no {name}")).1
}

/// The output of systemd-analyze, if there is one.
fn analyze(arguments: &[&str]) -> Option<String> {
    match Command::new("systemd-analyze").args(arguments).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let text = text + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{arguments:?}: {text}");
            Some(text)
        }
        Err(error) => {
            eprintln!("SKIPPED, systemd-analyze can't be run: {error}");
            None
        }
    }
}

#[test]
fn the_unit_is_valid_and_closed() {
    let help = analyze(&["--help"]).unwrap_or_default();
    if !help.contains("--offline") {
        eprintln!("SKIPPED, there is no systemd-analyze that judges a file (--offline)");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("posttls-httpd.service");
    // `verify` wants the program to be there.
    let program = env!("CARGO_BIN_EXE_posttls-httpd");
    fs::write(&path, UNIT.replace("/usr/local/bin/posttls-httpd", program)).expect("a unit");
    let path = path.to_str().expect("a path");
    if let Some(said) = analyze(&["verify", path]) {
        assert!(!said.contains("posttls-httpd.service:"), "{said}");
    }
    let Some(said) = analyze(&["security", "--offline=true", "--no-pager", path]) else {
        return;
    };
    let level = said
        .split("posttls-httpd.service: ")
        .nth(1)
        .expect("a level");
    let level = level.split(' ').next().expect("a figure").replace('.', "");
    println!("exposure: {level} tenths");
    assert!(
        level.parse::<u32>().expect("a number") <= EXPOSURE,
        "{said}"
    );
}

/// The mover with the capabilities that the unit leaves it, no others to be gained, and no new privileges.
#[test]
fn the_mover_works_with_the_capabilities_of_the_unit() {
    let stage = Stage::new();
    let (queue_id, link) = stage.stuck(&["bob@plain.test", "carol@plain.test"], "bounded");
    stage.sandbox.stop_httpd();
    assert_eq!(setting("NoNewPrivileges"), "yes");
    let capabilities: Vec<String> = setting("CapabilityBoundingSet")
        .split_whitespace()
        .map(|name| format!("+{}", name.trim_start_matches("CAP_").to_ascii_lowercase()))
        .collect();
    let bounded = format!("--bounding-set=-all,{}", capabilities.join(","));
    let mut mover = Command::new("setpriv")
        .args([&*bounded, "--inh-caps=-all", "--no-new-privs"])
        .arg(stage.sandbox.program("posttls-httpd"))
        .arg("--config")
        .arg(stage.sandbox.config_file())
        .spawn()
        .expect("setpriv runs");
    let url = format!("{}/healthz", stage.sandbox.http());
    stage.wait("the mover", || {
        crate::common::try_request("GET", &url, "")
            .ok()
            .filter(|answer| answer.status == 200)
    });
    let status = fs::read_to_string(format!("/proc/{}/status", mover.id())).expect("a process");
    assert!(
        !status.contains("CapEff:\t000001ffffffffff") && status.contains("NoNewPrivs:\t1"),
        "{status}"
    );
    let form = format!(
        "choice-{}=send&choice-{}=delete",
        stage.number(&queue_id, "bob@plain.test"),
        stage.number(&queue_id, "carol@plain.test")
    );
    assert_eq!(stage.post(&link, &form).status, 200);
    stage.arrival("bob@plain.test");
    stage.becomes(&queue_id, "carol@plain.test", "deleted");
    stage.queues_are_empty();
    signal(mover.id(), Signal::TERM);
    assert!(mover.wait().expect("an end").success());
}
