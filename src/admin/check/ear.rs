//! The check of posttls-ear in the may instance: its settings, its entry in master.cf, and whether it answers.
//!
//! Apart from the other checks of that instance, as this one follows a way of its own: three tables lead to a service,
//! and while that cannot be run, released mail waits.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::context::Context;
use super::{Outcome, Verdict};
use crate::ear::socketmap::NOT_FOUND;
use crate::postfix::Service;
use crate::postfix::user::{self, Access};

/// smtp(8) asks by these.
const TABLES: [&str; 3] = [
    "smtp_reply_filter",
    "smtp_discard_ehlo_keyword_address_maps",
    "smtp_delivery_status_filter",
];
const NAME: &str = "posttls-ear";
/// A question that says nothing about any message.
const QUESTION: &[u8] = b"6:check ,";
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
    if matches!(settings.is_running(), Ok(true)) {
        let queue = Path::new(settings.get("queue_directory"));
        let socket = queue.join("private").join(NAME);
        if let Err(error) = ask(&socket) {
            return Ok(Verdict::fail(
                format!(
                    "{what} does not answer at {}: {error}: released mail waits",
                    socket.display()
                ),
                "reload the may instance, and read what its spawn(8) says in the log",
            ));
        }
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

fn ask(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(QUESTION)?;
    let mut answer = [0; NOT_FOUND.len()];
    stream.read_exact(&mut answer)?;
    if answer == NOT_FOUND {
        Ok(())
    } else {
        Err(io::Error::other("it gave an answer that is not its own"))
    }
}
