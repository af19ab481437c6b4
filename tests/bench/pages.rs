//! The case page under load, asked for by wrk.

use std::process::Command;

use crate::Effort;
use crate::common::Stage;
use crate::measure::{Figures, Table};
use crate::memory;

pub fn run(effort: Effort, table: &mut Table) {
    let (rounds, seconds) = (effort.pick(7, 1), effort.pick(5, 2));
    let stage = Stage::with(|options| options.mx_dialogue(false));
    let to = ["a@plain.test", "b@plain.test", "c@plain.test"];
    let (_, link) = stage.stuck(&to, "the-page");
    assert_eq!(stage.get(&link).status, 200);
    let (mut rates, mut slowest) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let output = Command::new("wrk")
            .args(["-t1", "-c16", &format!("-d{seconds}s"), "--latency", &link])
            .output()
            .expect("wrk");
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!report.contains("Non-2xx"), "{report}");
        rates.push(number(&report, "Requests/sec:"));
        slowest.push(number(&report, "99%"));
    }
    table.row(
        "Case page, 16 connections: requests a second",
        "/s",
        &Figures::new(rates),
        "",
    );
    table.row(
        "– 99th percentile of a run",
        "ms",
        &Figures::new(slowest),
        "",
    );
    let child = memory::child_of(stage.sandbox.httpd_pid().expect("the mover"), "--web-child");
    let peak = memory::peak(child).expect("the web child");
    table.peak("Memory, web child under that load", peak, "MB", "");
}

/// The number after `mark`; times in milliseconds.
fn number(report: &str, mark: &str) -> f64 {
    let line = report
        .lines()
        .find(|line| line.trim_start().starts_with(mark));
    let word = line.and_then(|line| line.split_whitespace().last());
    let word = word.unwrap_or_else(|| panic!("no {mark} in {report}"));
    let (digits, factor) = if let Some(digits) = word.strip_suffix("us") {
        (digits, 0.001)
    } else if let Some(digits) = word.strip_suffix("ms") {
        (digits, 1.0)
    } else if let Some(digits) = word.strip_suffix('s') {
        (digits, 1000.0)
    } else {
        (word, 1.0)
    };
    digits.parse::<f64>().expect("a number") * factor
}
