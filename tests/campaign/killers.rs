//! Those who kill: the mover at random and at each named point of the move, what the mover and Postfix have started, and
//! Postfix itself. Dense enough to hit everything half-way, and not so dense that nothing comes to an end.

use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use posttls::sandbox::Instance;
use rustix::process::Signal;

use crate::common::Stage;
use crate::ledger::{Ledger, Victim};
use crate::plan::{self, MANDATORY};
use crate::process;

/// The named points of the move, as the source has them.
pub fn points() -> Vec<&'static str> {
    let source = include_str!("../../src/mover/steps.rs");
    let mut found: Vec<&str> = source
        .split("fail_point!(\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Kills the mover again and again. One that dies without having been killed is a finding, and so is one that does not
/// come up again.
pub fn mover(stage: &Stage, ledger: &Ledger, seed: u64) -> Result<(), String> {
    let mut rng = plan::rng(seed, "mover killer");
    let points = points();
    let mut turns = vec![0; points.len()];
    let mut refusals = 0;
    // The point at which it dies of itself in its present life.
    let mut armed: Option<&str> = None;
    loop {
        let patience = rng.u64(if armed.is_some() {
            1500..6000
        } else {
            500..4000
        });
        let end = Instant::now() + Duration::from_millis(patience);
        while !ledger.is_over() && Instant::now() < end && stage.sandbox.httpd_pid().is_some() {
            thread::sleep(Duration::from_millis(10));
        }
        match (stage.sandbox.httpd_pid(), armed) {
            (Some(pid), _) => {
                ledger.killed(Victim::Mover);
                process::signal(pid, Signal::KILL);
                is_gone(stage)?;
            }
            (None, Some(point)) => ledger.killed(Victim::Point(point.to_owned())),
            (None, None) => return Err("the mover ended without having been killed".to_owned()),
        }
        if ledger.is_over() {
            return Ok(());
        }
        // Of three lives one goes on to any moment, the others to a point of the move.
        while stage.sandbox.httpd_pid().is_none() {
            // The one that had its turn the least, so that all have theirs.
            armed = (rng.usize(..3) > 0).then(|| {
                let next = (0..points.len()).min_by_key(|n| (turns[*n], rng.u32(..)));
                let next = next.expect("the move has named points");
                turns[next] += 1;
                points[next]
            });
            let environment: Vec<(String, String)> = armed
                .iter()
                .map(|name| {
                    let action = format!("{name}={}*off->panic", rng.usize(..4));
                    ("FAILPOINTS".to_owned(), action)
                })
                .collect();
            match (stage.sandbox.start_httpd(&environment), armed) {
                (Ok(()), _) => refusals = 0,
                // Recovery has passed the point.
                (Err(_), Some(name)) => ledger.killed(Victim::Point(name.to_owned())),
                (Err(error), None) => {
                    refusals += 1;
                    if refusals > 5 {
                        return Err(format!("the mover does not come up: {error}"));
                    }
                }
            }
        }
    }
}

fn is_gone(stage: &Stage) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while stage.sandbox.httpd_pid().is_some() {
        if Instant::now() > deadline {
            return Err("the mover does not end".to_owned());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Kills what the mover has started, and running hooks.
pub fn helpers(stage: &Stage, ledger: &Ledger, seed: u64) {
    let mut rng = plan::rng(seed, "helper killer");
    while ledger.nap(&mut rng, 50, 700) {
        match rng.usize(..10) {
            0..5 => {
                let tool = |pid: &u32| {
                    process::name(*pid).is_some_and(|name| name.starts_with("postsuper"))
                };
                let find = || {
                    let mover = stage.sandbox.httpd_pid()?;
                    process::children(mover).into_iter().find(tool)
                };
                kill_one(ledger, &mut rng, find, 6_000, Victim::Helper);
            }
            5..8 => {
                let find = || {
                    let master = process::master(stage, Instance::Encrypt)?;
                    process::hooks(master).into_iter().next()
                };
                kill_one(ledger, &mut rng, find, 40_000, |_| Victim::Hook);
            }
            which => {
                let wanted = if which == 8 { "web child" } else { "courier" };
                let find = || {
                    let mover = stage.sandbox.httpd_pid()?;
                    let mut children = process::children(mover).into_iter();
                    children.find(|pid| process::role(*pid).as_deref() == Some(wanted))
                };
                kill_one(ledger, &mut rng, find, 1_000, |_| {
                    Victim::Helper(wanted.to_owned())
                });
            }
        }
    }
}

/// Waits a while for a victim, lets it live for at most so many microseconds, and kills it.
fn kill_one(
    ledger: &Ledger,
    rng: &mut Rng,
    find: impl Fn() -> Option<u32>,
    longest_life: u64,
    victim: impl Fn(String) -> Victim,
) {
    let end = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < end && !ledger.is_over() {
        if let Some(pid) = find() {
            thread::sleep(Duration::from_micros(rng.u64(..longest_life)));
            // None of one that has ended, even if its parent has yet to hear of it.
            if let Some(role) = process::role(pid).filter(|_| process::is_alive(pid))
                && process::signal(pid, Signal::KILL)
            {
                ledger.killed(victim(role));
            }
            return;
        }
        thread::sleep(Duration::from_micros(400));
    }
}

/// Kills single processes of both instances, and now and then a whole instance, which is started again.
pub fn postfix(stage: &Stage, ledger: &Ledger, seed: u64) -> Result<(), String> {
    let mut rng = plan::rng(seed, "Postfix killer");
    while ledger.nap(&mut rng, 600, 3000) {
        let instance = [Instance::Encrypt, Instance::May][rng.usize(..2)];
        let Some(master) = process::master(stage, instance) else {
            return Err(format!(
                "Postfix {instance} does not run, and nobody killed it"
            ));
        };
        if rng.usize(..4) > 0 {
            let services = process::children(master);
            if let Some(pid) = rng.choice(&services)
                && let Some(name) = process::name(*pid).filter(|_| process::is_alive(*pid))
            {
                ledger.killed(Victim::Service(instance, name));
                process::signal(*pid, Signal::KILL);
            }
            continue;
        }
        ledger.killed(Victim::Instance(instance));
        // Stopped first, so that it starts no other while its children are killed.
        process::signal(master, Signal::STOP);
        for pid in process::children(master) {
            process::signal(pid, Signal::KILL);
        }
        process::signal(master, Signal::KILL);
        thread::sleep(Duration::from_millis(rng.u64(20..1500)));
        start(stage, instance)?;
    }
    Ok(())
}

fn start(stage: &Stage, instance: Instance) -> Result<(), String> {
    let mut last = String::new();
    // Killed between making a queue file and giving it its queue ID, cleanup(8) leaves one named TIME.PID, of a message
    // that it never took. postsuper(1), which `postfix start` runs, warns of it, can't open `maillog_file` for that as
    // user postfix, and fails: Postfix does not start until somebody has removed the file.
    let incoming = stage.sandbox.queue_dir(instance).join("incoming");
    for entry in std::fs::read_dir(&incoming).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains('.') {
            std::fs::remove_file(entry.path()).ok();
        }
    }
    for _ in 0..20 {
        match stage.sandbox.run("postfix", instance, &["start"]) {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
        thread::sleep(Duration::from_millis(300));
    }
    Err(format!("Postfix {instance} does not start again: {last}"))
}

/// An admin who runs the queue, and holds and releases messages of a sender who never decides.
pub fn admin(stage: &Stage, ledger: &Ledger, seed: u64) {
    let mut rng = plan::rng(seed, "admin");
    let encrypt = Instance::Encrypt;
    while ledger.nap(&mut rng, 500, 2500) {
        stage.sandbox.run("postqueue", encrypt, &["-f"]).ok();
        let sent = ledger.all_sent();
        // Of mandatory domains recipients are deleted without the sender: who ends a hold of ours makes a conflict.
        let quiet: Vec<&String> = sent
            .iter()
            .filter(|one| one.from.starts_with("never"))
            .filter(|one| !one.to.iter().any(|to| to.ends_with(MANDATORY)))
            .filter_map(|one| one.queue_id.as_ref())
            .collect();
        if let Some(id) = rng.choice(quiet) {
            stage
                .sandbox
                .run("postsuper", encrypt, &["-h", id, "deferred"])
                .ok();
            ledger.nap(&mut rng, 10, 400);
            while stage.sandbox.queue_of(encrypt, id) == Some("hold") {
                stage.sandbox.run("postsuper", encrypt, &["-H", id]).ok();
            }
        }
    }
}
