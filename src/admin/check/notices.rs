//! Checks of the way that a TLS failure takes to the hook: status filter, defer service, private cleanup service,
//! transport, pipe(8).

use std::collections::HashMap;
use std::path::Path;

use super::context::{ADDRESS, Context, DOMAIN};
use super::{Outcome, Skip, Verdict};
use crate::notice::hook::DEADLINE;
use crate::postfix::settings::seconds;
use crate::postfix::{Service, Settings};

const EXAMPLE: &str = "as master.cf.example has it, and reload Postfix";

pub(super) fn delay_warning_time(at: &Context<'_>) -> Outcome {
    let value = at.encrypt()?.get("delay_warning_time");
    let what = format!("encrypt instance: delay_warning_time = {value}");
    Ok(if seconds(value, 'h') == Some(1) {
        Verdict::ok(what)
    } else {
        Verdict::fail(
            what,
            "set it to 1s in main.cf: with 0 PostTLS hears of nothing, with more it hears late",
        )
    })
}

pub(super) fn confirm_delay_cleared(at: &Context<'_>) -> Outcome {
    let value = at.encrypt()?.get("confirm_delay_cleared");
    let what = format!("encrypt instance: confirm_delay_cleared = {value}");
    Ok(if value == "no" {
        Verdict::ok(what)
    } else {
        Verdict::fail(
            what,
            "set it to \"no\" in main.cf: senders are told that a delay is over of which they never heard",
        )
    })
}

/// The service that writes delay notices.
fn defer(settings: &Settings) -> Result<&Service, Skip> {
    let service = settings.service("defer", "unix");
    service.ok_or(Skip("master.cf has no service \"defer\""))
}

pub(super) fn defer_service(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let Some(service) = settings.service("defer", "unix") else {
        return Ok(Verdict::fail(
            "encrypt instance: master.cf has no service \"defer\"",
            format!("add it {EXAMPLE}"),
        ));
    };
    let wanted = [
        ("notify_classes", Some("delay")),
        ("delay_notice_recipient", Some(ADDRESS)),
        ("internal_mail_filter_classes", Some("bounce")),
        // Which file, and which service, is the admin's to say; what is in them is another check's.
        ("bounce_template_file", None),
        ("cleanup_service_name", None),
    ];
    let wrong: Vec<String> = wanted
        .into_iter()
        .filter_map(|(name, wanted)| {
            let found = settings.option(service, name).unwrap_or_default();
            let good = wanted.map_or(!found.is_empty(), |wanted| found == wanted);
            (!good).then(|| format!("{name} = {found}"))
        })
        .collect();
    Ok(if wrong.is_empty() {
        Verdict::ok("encrypt instance: the defer service has its five options")
    } else {
        Verdict::fail(
            format!(
                "encrypt instance: options of the defer service: {}",
                wrong.join(", ")
            ),
            format!("set them in master.cf {EXAMPLE}"),
        )
    })
}

/// The two subjects of the delay template: the sender's copy and the hook's.
fn subjects(file: &Path) -> std::io::Result<(Option<String>, Option<String>)> {
    let text = std::fs::read_to_string(file)?;
    let template: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.trim_start().starts_with("delay_template"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .collect();
    let header = |name: &str| {
        let mut values = template.iter().filter_map(|line| line.strip_prefix(name));
        values.next().map(|value| value.trim().to_owned())
    };
    Ok((header("Subject:"), header("Postmaster-Subject:")))
}

pub(super) fn bounce_template(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let file = settings.for_service(defer(settings)?, "bounce_template_file");
    if file.is_empty() {
        return Err(Skip("the defer service names no bounce_template_file"));
    }
    let todo = "copy postfix-conf/posttls-bounce.cf there, and reload Postfix";
    Ok(match subjects(Path::new(file)) {
        Err(error) => Verdict::fail(format!("bounce template {file}: {error}"), todo),
        Ok((Some(sender), Some(hook))) if sender != hook => {
            Verdict::ok(format!("bounce template {file}: two subjects"))
        }
        Ok((sender, hook)) => Verdict::fail(
            format!(
                "bounce template {file}: delay_template has Subject: {}, Postmaster-Subject: {}",
                sender.as_deref().unwrap_or("none"),
                hook.as_deref().unwrap_or("none"),
            ),
            todo,
        ),
    })
}

/// The private cleanup service that the defer service names.
fn cleanup(settings: &Settings) -> Result<&Service, Skip> {
    let name = settings.for_service(defer(settings)?, "cleanup_service_name");
    settings
        .service(name, "unix")
        .filter(|service| service.command == "cleanup")
        .ok_or(Skip("the defer service has no cleanup service of its own"))
}

/// What else notices could meet in a cleanup service, and must not.
const OFF: [&str; 14] = [
    "mime_header_checks",
    "nested_header_checks",
    "body_checks",
    "non_smtpd_milters",
    "milter_header_checks",
    "canonical_maps",
    "sender_canonical_maps",
    "recipient_canonical_maps",
    "masquerade_domains",
    "always_bcc",
    "sender_bcc_maps",
    "recipient_bcc_maps",
    "message_size_limit",
    "delay_warning_time",
];

pub(super) fn cleanup_service(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let name = settings.for_service(defer(settings)?, "cleanup_service_name");
    let Ok(service) = cleanup(settings) else {
        return Ok(Verdict::fail(
            format!("encrypt instance: master.cf has no cleanup service {name:?}"),
            format!("add it to master.cf {EXAMPLE}"),
        ));
    };
    if name == "cleanup" {
        return Ok(Verdict::fail(
            "encrypt instance: notices go through the cleanup service of all mail",
            format!("give them one of their own {EXAMPLE}"),
        ));
    }
    let wrong: Vec<String> = OFF
        .into_iter()
        .filter_map(|option| {
            let value = settings.for_service(service, option);
            let off = value.is_empty() || seconds(value, 's') == Some(0);
            (!off).then(|| format!("{option} = {value}"))
        })
        .collect();
    Ok(if wrong.is_empty() {
        Verdict::ok(format!(
            "encrypt instance: the service {name} lets nothing touch notices"
        ))
    } else {
        Verdict::fail(
            format!(
                "encrypt instance: notices in the service {name} meet {}",
                wrong.join(", ")
            ),
            format!("switch that off in master.cf {EXAMPLE}"),
        )
    })
}

pub(super) fn header_check(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let tables = settings.for_service(cleanup(settings)?, "header_checks");
    let file = settings.for_service(defer(settings)?, "bounce_template_file");
    let Ok((Some(sender), Some(hook))) = subjects(Path::new(file)) else {
        return Err(Skip("the bounce template has no two subjects"));
    };
    let ask = |subject: &str| settings.lookup_in(tables, &format!("Subject: {subject}"));
    let todo = "name posttls-header-checks there, with the Subject: of posttls-bounce.cf in it";
    Ok(match (ask(&sender), ask(&hook)) {
        (Err(error), _) | (_, Err(error)) => {
            Verdict::fail(format!("header check: {error}"), "correct the table")
        }
        (Ok(Some(action)), Ok(None)) if action.starts_with("DISCARD") => {
            Verdict::ok("header check: the sender's copy is discarded, the hook's passes")
        }
        (Ok(action), Ok(None)) => Verdict::fail(
            format!(
                "header check: {tables:?} says {:?} to \"Subject: {sender}\", not DISCARD: senders get Postfix's \
                 own notice",
                action.unwrap_or_default()
            ),
            todo,
        ),
        (_, Ok(Some(action))) => Verdict::fail(
            format!("header check: {tables:?} says {action:?} to the hook's copy"),
            todo,
        ),
    })
}

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
        Verdict::ok(what)
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
        Some(limit) if (least..=most).contains(&limit) => Verdict::ok(what),
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
        Verdict::ok(format!("encrypt instance: the pipe entry {}", service.name))
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
