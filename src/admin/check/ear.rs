//! The check of posttls-ear in the may instance: its settings, its entry in master.cf, and whether it answers.
//!
//! Apart from the other checks of that instance, as this one follows a way of its own: three tables lead to a service,
//! and while that cannot be run, released mail waits.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, MemfdFlags, flock, memfd_create};

use super::context::Context;
use super::{Outcome, Skip, Verdict};
use crate::connect;
use crate::ear::socketmap::{CHECK, NOT_FOUND, netstring};
use crate::postfix::settings::list;
use crate::postfix::user::{self, Access};
use crate::postfix::{Service, Settings};

/// smtp(8) asks by these.
const TABLES: [&str; 3] = [
    "smtp_reply_filter",
    "smtp_discard_ehlo_keyword_address_maps",
    "smtp_delivery_status_filter",
];
/// What it asks them, in a way that says nothing about any message.
const QUESTIONS: [&str; 3] = ["220 posttls check", "192.0.2.1", "4.0.0 posttls check"];
const NAME: &str = "posttls-ear";
/// Octets of the longest answer.
const LONGEST: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(5);
const ENTRY: &str =
    "make the service posttls-ear in master.cf what may-master.cf has, and reload that instance";

pub(super) fn ear(at: &Context<'_>) -> Outcome {
    let settings = at.may()?;
    let missing: Vec<&str> = TABLES
        .into_iter()
        .filter(|name| !settings.get(name).contains("private/posttls-ear:"))
        .collect();
    if missing.len() == TABLES.len() {
        return Ok(Verdict::warn(
            "may instance: without posttls-ear: whether released mail went out over TLS is not known",
            "append may-ear.cf to main.cf and may-master.cf to master.cf, if you want to know",
        ));
    }
    let what = "may instance: posttls-ear";
    let Some(service) = settings
        .running("spawn")
        .find(|service| service.name == NAME && service.kind == "unix")
    else {
        return Ok(Verdict::fail(
            format!(
                "{what}: main.cf names it, and master.cf does not have it: released mail waits"
            ),
            ENTRY,
        ));
    };
    if let Err(why) = entry(at, service) {
        return Ok(Verdict::fail(format!("{what}: {why}"), ENTRY));
    }
    if !matches!(settings.is_running(), Ok(true)) {
        return Err(Skip(
            "the may instance does not run, and posttls-ear with it",
        ));
    }
    let queue = Path::new(settings.get("queue_directory"));
    let socket = queue.join("private").join(NAME);
    let hears = match ask(&socket) {
        Ok(hears) => hears,
        Err(error) => {
            return Ok(Verdict::fail(
                format!(
                    "{what} does not answer at {}: {error}: released mail waits",
                    socket.display()
                ),
                "reload the may instance, and read what its spawn(8) says in the log",
            ));
        }
    };
    if let Err(why) = tables(settings) {
        return Ok(Verdict::fail(
            format!("{what}: {why}: released mail waits"),
            "set the three as may-ear.cf has them, copy posttls-ear-replies beside main.cf, and reload the may instance",
        ));
    }
    if hears.is_none() {
        return Ok(Verdict::warn(
            format!("{what} is one of an older version: it can't say whether it hears"),
            "reload the may instance",
        ));
    }
    if hears == Some(false) {
        return Ok(Verdict::warn(
            format!(
                "{what} is deaf: it can't see which message smtp(8) delivers, so whether released mail went out over TLS \
                 is not known"
            ),
            "its /proc has no locks (as with ProcSubset=pid in Debian 13's unit of the may instance), and posttls-httpd, \
             which it asks then, does not answer: start posttls-httpd; or it can't read the configuration: read its log",
        ));
    }
    if !missing.contains(&TABLES[0]) && !settings.get(TABLES[0]).contains("regexp:") {
        return Ok(Verdict::fail(
            format!("{what} is asked about every line that a server says"),
            "set smtp_reply_filter as may-ear.cf has it: should the ear fail after the last line, a message would be \
             delivered twice",
        ));
    }
    let cache = settings.get("smtp_connection_cache_on_demand");
    if cache != "no" {
        return Ok(Verdict::warn(
            format!("{what}: smtp_connection_cache_on_demand = {cache}"),
            "set it to no: of a connection that another process has opened the ear knows nothing",
        ));
    }
    Ok(if missing.is_empty() {
        Verdict::ok(format!("{what}: TLS or not is known of what it sends"))
    } else {
        Verdict::warn(
            format!("{what} is not asked by {}", missing.join(", ")),
            "set all three as may-ear.cf has them: with fewer it can't tell TLS from plain text",
        )
    })
}

/// What keeps the service from being run, or from noting what it hears.
fn entry(at: &Context<'_>, service: &Service) -> Result<(), String> {
    let name = service.attribute("user").ok_or("it has no user=")?;
    let name = name.split(':').next().unwrap_or_default();
    let user = user::lookup(name).map_err(|error| error.to_string())?;
    let argv = service.argv().unwrap_or_default();
    let program = Path::new(argv.first().copied().unwrap_or_default());
    let runs = program.is_file()
        && user
            .may(Access::Execute, program)
            .map_err(|error| error.to_string())?;
    if !runs {
        let program = program.display();
        return Err(format!(
            "the program {program} is not there, or user {name} can't run it: released mail waits"
        ));
    }
    let config = argv
        .windows(2)
        .find_map(|pair| (pair[0] == "--config").then_some(pair[1]))
        .unwrap_or("/etc/posttls/posttls.toml");
    if Some(config) != at.config_path.to_str() {
        let own = at.config_path.display();
        return Err(format!("its --config is {config} and not {own}"));
    }
    // A store that is not there is another check's.
    let owner = fs::metadata(&at.config.store.path).map(|metadata| metadata.uid());
    if owner.is_ok_and(|owner| owner != user.uid) {
        return Err(format!(
            "user {name} does not own the store, and can't note what it hears"
        ));
    }
    Ok(())
}

/// Asks the tables of main.cf what smtp(8) asks them, as it does: none may fail, and ours has no answer.
fn tables(settings: &Settings) -> Result<(), String> {
    for (name, question) in TABLES.into_iter().zip(QUESTIONS) {
        let tables = list(settings.get(name)).into_iter();
        for table in tables.filter(|table| table.contains(':')) {
            match settings.lookup(table, question) {
                Ok(Some(answer)) if table.contains(NAME) => {
                    return Err(format!("{name} answers {answer:?}"));
                }
                Ok(_) => {}
                Err(error) => return Err(format!("{name} can't be asked: {error}")),
            }
        }
    }
    Ok(())
}

/// Has the ear look for a lock of this process, as it does for those of smtp(8). Says whether it found it;
/// `None` from one of an older version, which may still be there after an upgrade.
fn ask(socket: &Path) -> io::Result<Option<bool>> {
    let locked = File::from(memfd_create("posttls-check", MemfdFlags::CLOEXEC)?);
    flock(&locked, FlockOperation::LockShared)?;
    let mut stream = connect::within(socket, PATIENCE)?;
    stream.write_all(&netstring(CHECK))?;
    let answer = read_netstring(&mut stream)?;
    if NOT_FOUND == netstring(&answer) {
        return Ok(None);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let inodes = answer
        .strip_prefix("OK ")
        .ok_or_else(|| io::Error::other("it gave an answer that is not its own"))?;
    let own = locked.metadata()?.ino().to_string();
    Ok(Some(
        inodes.split_ascii_whitespace().any(|inode| inode == own),
    ))
}

fn read_netstring(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let broken = || io::Error::other("it gave an answer that is not its own");
    let mut octets = Vec::new();
    let mut rest = stream.take(LONGEST);
    loop {
        let mut octet = [0];
        rest.read_exact(&mut octet)?;
        octets.push(octet[0]);
        let Some(colon) = octets.iter().position(|octet| *octet == b':') else {
            continue;
        };
        let length = std::str::from_utf8(&octets[..colon]).ok();
        let length: usize = length.and_then(|n| n.parse().ok()).ok_or_else(broken)?;
        if octets.len() == colon + 1 + length + 1 {
            let text = octets[colon + 1..colon + 1 + length].to_vec();
            return if octet == *b"," {
                Ok(text)
            } else {
                Err(broken())
            };
        }
    }
}
