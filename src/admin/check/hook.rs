//! Checks of what makes a failure ours, and of the way from a notice to the hook: status filter, transport, pipe(8).

use std::collections::HashMap;

use super::context::{Context, DOMAIN};
use super::notices::EXAMPLE;
use super::{Outcome, Skip, Verdict};
use crate::notice::hook::DEADLINE;
use crate::postfix::settings::seconds;

/// What Postfix says, and the status that the filter must give it.
const SAYINGS: [(&str, &str); 5] = [
    (
        "4.7.4 TLS is required, but was not offered by host mx.example.org[192.0.2.1]",
        "4.7.801",
    ),
    (
        "5.7.0 TLS is required, but host mx.example.org[192.0.2.1] refused to start TLS: 554 no",
        "4.7.802",
    ),
    ("4.7.5 Cannot start TLS: handshake failure", "4.7.803"),
    ("4.7.5 Server certificate not trusted", "4.7.804"),
    (
        "4.7.0 TLS is required, but our TLS engine is unavailable",
        "4.7.805",
    ),
];

pub(super) fn status_filter(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let tables = settings.get("smtp_delivery_status_filter");
    let mut wrong = Vec::new();
    for (said, wanted) in SAYINGS {
        match settings.lookup_in(tables, said) {
            Ok(answer) => {
                let answer = answer.unwrap_or_default();
                if answer.split(' ').next() != Some(wanted) {
                    wrong.push(wanted);
                }
            }
            Err(error) => {
                return Ok(Verdict::fail(
                    format!("smtp_delivery_status_filter: {error}"),
                    "copy postfix-conf/posttls-status-filter there",
                ));
            }
        }
    }
    Ok(if wrong.is_empty() {
        Verdict::ok("smtp_delivery_status_filter gives the statuses 4.7.801 to 4.7.805")
    } else {
        Verdict::fail(
            format!(
                "smtp_delivery_status_filter {tables:?} does not give {}",
                wrong.join(", ")
            ),
            "name posttls-status-filter first in it, as encrypt-main.cf has it: TLS failures are not recognised, \
             and some bounce at once",
        )
    })
}

pub(super) fn transport(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let todo =
        "begin transport_maps with inline:{posttls.invalid=posttls:}, as encrypt-main.cf has it";
    Ok(match &at.transport {
        None => return Err(Skip("the encrypt instance can't be read")),
        Some(Err(error)) => Verdict::fail(format!("transport_maps: {error}"), todo),
        Some(Ok(None)) => Verdict::fail(
            format!(
                "encrypt instance: no transport for {DOMAIN}: notices get lost on the Internet"
            ),
            todo,
        ),
        Some(Ok(Some(answer))) => {
            let name = at.hook_name()?;
            let what = format!("encrypt instance: transport for {DOMAIN}: {answer}");
            match settings.service(name, "unix") {
                Some(service) if service.command == "pipe" => Verdict::ok(what),
                _ => Verdict::fail(
                    format!("{what}, which is no pipe(8) service in master.cf"),
                    format!("{todo}; add the service \"posttls\" {EXAMPLE}"),
                ),
            }
        }
    })
}

pub(super) fn recipient_limit(at: &Context<'_>) -> Outcome {
    let name = format!("{}_destination_recipient_limit", at.hook()?.name);
    let value = at.encrypt()?.get(&name);
    let what = format!("encrypt instance: {name} = {value}");
    Ok(if value == "1" {
        Verdict::read(what)
    } else {
        Verdict::fail(what, format!("set {name} = 1 in main.cf"))
    })
}

pub(super) fn time_limit(at: &Context<'_>) -> Outcome {
    let name = format!("{}_time_limit", at.hook()?.name);
    let value = at.encrypt()?.get(&name);
    let what = format!("encrypt instance: {name} = {value}");
    let (least, most) = (DEADLINE.as_secs(), 600);
    Ok(match seconds(value, 's') {
        Some(limit) if (least..=most).contains(&limit) => Verdict::read(what),
        _ => Verdict::warn(
            what,
            format!(
                "set {name} = 120s in main.cf: the hook gives up by itself after {least} s, and one that hangs \
                 must not keep others waiting"
            ),
        ),
    })
}

pub(super) fn pipe_entry(at: &Context<'_>) -> Outcome {
    let service = at.hook()?;
    let argv = service.argv().unwrap_or_default();
    let options: HashMap<&str, &str> = argv
        .windows(2)
        .filter_map(|pair| match pair {
            [name, value] if name.starts_with("--") => Some((*name, *value)),
            _ => None,
        })
        .collect();
    let mut wrong = Vec::new();
    for (name, wanted) in [
        ("--client", "${client_address}"),
        ("--sender", "${sender}"),
        ("--queue-id", "${queue_id}"),
    ] {
        // An argument that is left out or made up would let others write to the hook.
        if options.get(name).is_none_or(|value| *value != wanted) {
            wrong.push(format!("{name} is not {wanted}"));
        }
    }
    for flag in ['R', 'q'] {
        if !service
            .attribute("flags")
            .unwrap_or_default()
            .contains(flag)
        {
            wrong.push(format!("flags= lacks {flag}"));
        }
    }
    let own = options.get("--config").copied();
    if own != at.config_path.to_str() {
        wrong.push(format!(
            "--config is {} and not {}",
            own.unwrap_or("the default"),
            at.config_path.display()
        ));
    }
    Ok(if wrong.is_empty() {
        Verdict::read(format!("encrypt instance: the pipe entry {}", service.name))
    } else {
        Verdict::fail(
            format!(
                "encrypt instance: the pipe entry {}: {}",
                service.name,
                wrong.join(", ")
            ),
            format!("write it {EXAMPLE}"),
        )
    })
}
