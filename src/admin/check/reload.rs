//! Checks that what runs is what was read here: every service has its socket, and the queue manager is younger than the
//! files. A reload that was forgotten leaves an installation that looks right and does nothing.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::context::Context;
use super::{Outcome, Skip, Verdict};
use crate::admin::cases::clock;
use crate::postfix::master::Master;
use crate::postfix::{Service, Settings};

/// A file system's times and those of processes are not of one clock.
const TOLERANCE: Duration = Duration::from_secs(1);

/// The socket of a service, relative to the queue directory.
fn socket(service: &Service) -> String {
    let directory = if service.private { "private" } else { "public" };
    format!("{directory}/{}", service.name)
}

/// Services of master.cf at whose socket master(8) does not listen.
fn deaf(settings: &Settings, master: &Master) -> std::io::Result<Vec<String>> {
    let heard = master.listens_at()?;
    let queue = Path::new(settings.get("queue_directory"));
    let listens = |service: &&Service| {
        let name = socket(service);
        let there = fs::symlink_metadata(queue.join(&name));
        heard.contains(&name) && there.is_ok_and(|file| file.file_type().is_socket())
    };
    Ok(settings
        .services
        .iter()
        .filter(|service| service.kind == "unix" && !settings.is_disabled(service))
        .filter(|service| !listens(service))
        .map(socket)
        .collect())
}

fn reloaded(name: &str, settings: &Settings) -> Outcome {
    let directory = settings.config_dir.display();
    let todo =
        format!("postfix -c {directory} reload: until then it does not do what its files say");
    let fault = |error| {
        Verdict::fail(
            format!("{name} instance: what runs can't be seen: {error}"),
            "run check as root of the host, with /proc",
        )
    };
    let queue = Path::new(settings.get("queue_directory"));
    let master = match Master::of(queue) {
        Ok(Some(master)) => master,
        Ok(None) => return Err(Skip("the instance does not run")),
        Err(error) => return Ok(fault(error)),
    };
    match deaf(settings, &master) {
        Ok(deaf) if !deaf.is_empty() => {
            let what = format!(
                "{name} instance: master.cf has services that nobody listens for: {}",
                deaf.join(", ")
            );
            return Ok(Verdict::fail(what, todo));
        }
        Ok(_) => {}
        Err(error) => return Ok(fault(error)),
    }
    let manager = settings.service("qmgr", "unix");
    let manager = manager.map_or("qmgr", |service| service.command.as_str());
    let since = match master.child_since(manager) {
        Ok(Some(since)) => since,
        Ok(None) => {
            return Ok(Verdict::fail(
                format!("{name} instance: no queue manager ({manager}) runs"),
                "read its log: without it nothing is delivered",
            ));
        }
        Err(error) => return Ok(fault(error)),
    };
    for file in ["main.cf", "master.cf"] {
        let path = settings.config_dir.join(file);
        let changed = match fs::metadata(&path).and_then(|found| found.modified()) {
            Ok(changed) => changed,
            Err(error) => return Ok(fault(error)),
        };
        if changed > since + TOLERANCE {
            let what = format!(
                "{name} instance: {} was changed {}, and the instance has its settings since {}",
                path.display(),
                shown(changed),
                shown(since)
            );
            return Ok(Verdict::fail(what, todo));
        }
    }
    Ok(Verdict::ok(format!(
        "{name} instance: it runs with these settings, and listens for every service of master.cf"
    )))
}

fn shown(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    clock(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

pub(super) fn encrypt(at: &Context<'_>) -> Outcome {
    reloaded("encrypt", at.encrypt()?)
}

pub(super) fn may(at: &Context<'_>) -> Outcome {
    reloaded("may", at.may()?)
}
