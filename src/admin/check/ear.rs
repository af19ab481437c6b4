//! Checks of posttls-ear in the may instance. It is optional; but half of it would keep released mail waiting, as smtp(8)
//! waits for tables that it can't ask.

use std::path::Path;

use super::context::Context;
use super::{Outcome, Skip, Verdict};
use crate::postfix::user::{self, Access};
use crate::postfix::{Service, Settings};

/// The tables through which smtp(8) asks it, and the last part of each one's name.
const TABLES: [(&str, &str); 3] = [
    ("smtp_reply_filter", "reply"),
    ("smtp_discard_ehlo_keyword_address_maps", "ehlo"),
    ("smtp_delivery_status_filter", "status"),
];
const SOCKET: &str = "socketmap:unix:private/";
const EXAMPLE: &str = "as postfix-conf/may-ear.cf and may-master.cf have it";

/// The service that a table of smtp(8) leads to, when it leads to an ear.
fn service_of<'a>(settings: &'a Settings, parameter: &str, last: &str) -> Option<&'a str> {
    let (_, rest) = settings.get(parameter).split_once(SOCKET)?;
    let (name, map) = rest.split_once(':')?;
    map.starts_with(last).then_some(name)
}

/// The service's entry; `None` when no table leads to one.
fn wired<'a>(at: &'a Context<'_>) -> Result<Option<(&'a str, Option<&'a Service>)>, Skip> {
    let settings = at.may()?;
    let name = TABLES
        .iter()
        .find_map(|(parameter, last)| service_of(settings, parameter, last));
    Ok(name.map(|name| (name, settings.service(name, "unix"))))
}

pub(super) fn tables(at: &Context<'_>) -> Outcome {
    let settings = at.may()?;
    let Some((name, _)) = wired(at)? else {
        return Ok(Verdict::ok(
            "may instance: no posttls-ear (optional), so released mail is shown as sent, without over TLS or not",
        ));
    };
    let missing: Vec<&str> = TABLES
        .iter()
        .filter(|(parameter, last)| service_of(settings, parameter, last) != Some(name))
        .map(|(parameter, _)| *parameter)
        .collect();
    if !missing.is_empty() {
        return Ok(Verdict::warn(
            format!("may instance: {name} does not hear {}", missing.join(", ")),
            format!("set all three tables {EXAMPLE}, or none"),
        ));
    }
    if !settings.get("smtp_reply_filter").contains("regexp:") {
        return Ok(Verdict::fail(
            format!("may instance: smtp_reply_filter asks {name} about every line of a server"),
            format!(
                "set it {EXAMPLE}: should the ear fail after the last line, a message would be delivered twice"
            ),
        ));
    }
    let cache = settings.get("smtp_connection_cache_on_demand");
    Ok(if cache == "no" {
        Verdict::ok(format!("may instance: {name} hears how mail is delivered"))
    } else {
        Verdict::warn(
            format!("may instance: smtp_connection_cache_on_demand = {cache}"),
            "set it to no: of a connection that another process has opened the ear knows nothing",
        )
    })
}

pub(super) fn service(at: &Context<'_>) -> Outcome {
    let Some((name, entry)) = wired(at)? else {
        return Ok(Verdict::ok(
            "may instance: no service for posttls-ear is needed",
        ));
    };
    let todo = format!("add the service {EXAMPLE}: until then released mail waits");
    let Some(entry) = entry.filter(|entry| entry.command == "spawn") else {
        let what = format!("may instance: no spawn(8) service {name} in master.cf");
        return Ok(Verdict::fail(what, todo));
    };
    let what = format!("may instance: service {name}");
    let user = entry.attribute("user").unwrap_or_default();
    let user = match user::lookup(user.split(':').next().unwrap_or_default()) {
        Ok(user) => user,
        Err(error) => return Ok(Verdict::fail(format!("{what}: {error}"), todo)),
    };
    // When the hook's own user is not known, another check says so.
    if let Ok(hook) = at.good_hook_user()
        && hook.user.uid != user.uid
    {
        return Ok(Verdict::fail(
            format!("{what}: its user is {}", user.name),
            format!(
                "let it be {}, the hook's: both write the store",
                hook.user.name
            ),
        ));
    }
    let argv = entry.argv().unwrap_or_default();
    let Some(program) = argv.first().filter(|program| !program.is_empty()) else {
        return Ok(Verdict::fail(format!("{what} names no program"), todo));
    };
    Ok(match user.may(Access::Execute, Path::new(program)) {
        Ok(true) => Verdict::ok(format!("{what} runs {program}")),
        Ok(false) => Verdict::fail(
            format!("{what}: {} can't run {program}", user.name),
            "install posttls-ear there: until then released mail waits",
        ),
        Err(error) => Verdict::fail(error.to_string(), "install coreutils"),
    })
}
