//! From Postfix's `status=deferred` line to the acceptance of the notification, idle and under load.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::Effort;
use crate::common::Stage;
use crate::log::{Line, Watch};
use crate::measure::{Figures, Table};
use crate::stage::{Sink, with_sink};

/// Deferrals a second under load.
const RATE: u32 = 100;

pub fn run(effort: Effort, table: &mut Table) {
    let sink = Sink::start();
    let stage = with_sink(&sink, |options| options);
    let watch = Watch::start(&stage, Duration::from_micros(500));
    let (idle, seconds) = (effort.pick(100, 10), effort.pick(20, 3));
    let mut times = Vec::new();
    for number in 0..idle {
        watch.forget();
        submit(&stage, number);
        times.extend(watch.wait("a notification", |lines| {
            let times = waits(lines);
            (!times.is_empty()).then_some(times)
        }));
        thread::sleep(Duration::from_millis(20));
    }
    let what = "`status=deferred` to notification accepted, idle";
    table.row(what, "ms", &Figures::of(&times), "");
    watch.forget();
    let all = RATE * seconds;
    let start = Instant::now();
    // Two at a time: one session after the other is no hundred a second on a busy machine.
    thread::scope(|scope| {
        for lane in 0..2 {
            let stage = &stage;
            scope.spawn(move || {
                for number in (lane..all).step_by(2) {
                    let due = start + Duration::from_secs(1) * number / RATE;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    submit(stage, idle + number);
                }
            });
        }
    });
    let submitted = f64::from(all) / start.elapsed().as_secs_f64();
    let (times, notices) = watch.wait("all notifications", |lines| {
        let of_encrypt = lines.iter().filter(|(_, log, _)| *log == "encrypt");
        let notice = "postmaster delay notification";
        let notices = of_encrypt
            .filter(|(.., line)| line.contains(notice))
            .count();
        let times = waits(lines);
        (times.len() >= all as usize).then_some((times, notices))
    });
    let unannounced = (all as usize).saturating_sub(notices);
    table.row(
        &format!("– under {submitted:.0} deferrals a second"),
        "ms",
        &Figures::of(&times),
        &format!("{unannounced} of {all} without a notice of Postfix, seen by the mover"),
    );
}

fn submit(stage: &Stage, number: u32) {
    let (from, to) = (
        format!("u{number}@sender.test"),
        format!("r{number}@plain.test"),
    );
    let message = format!("From: {from}\r\nSubject: message {number}\r\n\r\nHello.\r\n");
    let sent = stage
        .sandbox
        .submit_at_once(&from, &[&to], message.as_bytes());
    sent.unwrap_or_else(|error| panic!("{error}"));
}

/// How long each sender waited who was told.
fn waits(lines: &[Line]) -> Vec<Duration> {
    let mut deferred = HashMap::new();
    for (at, log, line) in lines {
        if *log == "encrypt" && line.contains("status=deferred") {
            // "Nov 23 03:51:19 encrypt postfix/smtp[4819]: 6FE4B9D34B2: to=..."
            if let Some(id) = line
                .split("]: ")
                .nth(1)
                .and_then(|rest| rest.split(':').next())
            {
                deferred.entry(id).or_insert(*at);
            }
        }
    }
    let told = lines
        .iter()
        .filter(|(_, log, line)| *log == "posttls" && line.contains(", notified"));
    told.filter_map(|(at, _, line)| {
        let id = line.split("]: ").nth(1)?.split(':').next()?;
        // The line about the deferral may be read after the one about the mail.
        Some(at.saturating_duration_since(*deferred.get(id)?))
    })
    .collect()
}
