//! Checks of how notices are made: when, by which defer service, from which template, through which cleanup service.

use std::fs;

use super::context::{ADDRESS, Context};
use super::instances::shown;
use super::{Outcome, Skip, Verdict};
use crate::postfix::settings::seconds;
use crate::postfix::{Service, Settings};

pub(super) const EXAMPLE: &str = "as master.cf.example has it, and reload Postfix";

pub(super) fn delay_warning_time(at: &Context<'_>) -> Outcome {
    let value = at.encrypt()?.get("delay_warning_time");
    let what = format!("encrypt instance: delay_warning_time = {value}");
    Ok(if seconds(value, 'h') == Some(1) {
        Verdict::read(what)
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
        Verdict::read(what)
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
            (!good).then(|| format!("{name} = {}", shown(found)))
        })
        .collect();
    Ok(if wrong.is_empty() {
        Verdict::read("encrypt instance: the defer service has its five options")
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

/// The two subjects of the delay template, as Postfix itself understands the file: the sender's copy and the hook's.
fn subjects(settings: &Settings, file: &str) -> Result<(Option<String>, Option<String>), String> {
    let written = fs::read_to_string(file).map_err(|error| error.to_string())?;
    let understood = settings
        .templates(file)
        .map_err(|error| error.to_string())?;
    let (text, warnings) = understood;
    if !warnings.is_empty() {
        return Err(warnings.join("; "));
    }
    let template: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("delay_template"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .collect();
    // In place of what a file lacks, Postfix has something of its own.
    let header = |name: &str| {
        let line = template.iter().find(|line| line.starts_with(name))?;
        let is_there = written.lines().any(|of_file| of_file == *line);
        is_there.then(|| line[name.len()..].trim().to_owned())
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
    Ok(match subjects(settings, file) {
        Err(error) => Verdict::fail(format!("bounce template {file}: {error}"), todo),
        Ok((Some(sender), Some(hook))) if sender != hook => Verdict::ok(format!(
            "bounce template {file}: Postfix reads two subjects in it"
        )),
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
        Verdict::read(format!(
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
    let Ok((Some(sender), Some(hook))) = subjects(settings, file) else {
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
