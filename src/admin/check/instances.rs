//! Checks of what each instance is: that it exists and runs, and the levels of TLS that it sends with.

use super::context::Context;
use super::{Outcome, Verdict};
use crate::postfix::instance::PostfixError;
use crate::postfix::settings::{list, seconds};
use crate::postfix::{Service, Settings};

/// Levels that never send plain text (postconf(5), `smtp_tls_security_level`).
pub(super) const MANDATORY: [&str; 5] = ["encrypt", "dane-only", "fingerprint", "verify", "secure"];
/// And the one that does so for some destinations.
pub(super) const DANE: &str = "dane";

fn exists(name: &str, key: &str, settings: &Result<Settings, PostfixError>) -> Verdict {
    match settings {
        Err(error) => Verdict::fail(
            format!("{name} instance: {error}"),
            format!("correct {key} in posttls.toml, or what postconf complains about"),
        ),
        Ok(settings) => {
            let what = format!(
                "{name} instance: {}, Postfix {}",
                settings.config_dir.display(),
                settings.get("mail_version")
            );
            Verdict::ok(what)
        }
    }
}

pub(super) fn encrypt_instance(at: &Context<'_>) -> Outcome {
    Ok(exists("encrypt", "encrypt.config_dir", &at.encrypt))
}

pub(super) fn may_instance(at: &Context<'_>) -> Outcome {
    Ok(exists("may", "may.config_dir", &at.may))
}

/// Whatever Postfix's commands warned of while the others checked.
fn warned(name: &str, settings: &Settings) -> Verdict {
    let said = settings.warned();
    if said.is_empty() {
        return Verdict::ok(format!("{name} instance: Postfix warns of nothing"));
    }
    Verdict::warn(
        format!("{name} instance: Postfix warns: {}", said.join("; ")),
        "correct what it names; of a parameter that is set twice the last line counts: remove the others",
    )
}

pub(super) fn encrypt_warnings(at: &Context<'_>) -> Outcome {
    Ok(warned("encrypt", at.encrypt()?))
}

pub(super) fn may_warnings(at: &Context<'_>) -> Outcome {
    Ok(warned("may", at.may()?))
}

fn runs(name: &str, settings: &Settings) -> Verdict {
    let todo = format!(
        "start it (postfix -c {} start, or its systemd unit) and read its log",
        settings.config_dir.display()
    );
    match settings.is_running() {
        Ok(true) => Verdict::ok(format!("the {name} instance runs")),
        Ok(false) => Verdict::fail(format!("the {name} instance does not run"), todo),
        Err(error) => Verdict::fail(error.to_string(), todo),
    }
}

pub(super) fn encrypt_running(at: &Context<'_>) -> Outcome {
    Ok(runs("encrypt", at.encrypt()?))
}

pub(super) fn may_running(at: &Context<'_>) -> Outcome {
    Ok(runs("may", at.may()?))
}

/// A value as people see that there is none.
pub(super) fn shown(value: &str) -> &str {
    if value.is_empty() { "(nothing)" } else { value }
}

pub(super) fn encrypt_level(at: &Context<'_>) -> Outcome {
    let level = at.encrypt()?.get("smtp_tls_security_level");
    let what = format!(
        "encrypt instance: smtp_tls_security_level = {}",
        shown(level)
    );
    Ok(match level {
        "encrypt" => Verdict::read(what),
        _ if MANDATORY.contains(&level) => Verdict::warn(
            what,
            "stricter than PostTLS needs: servers whose certificate is not in order fail, too, and their failures \
             may by default not be answered with plain text; \"encrypt\" is the usual level",
        ),
        _ => Verdict::fail(
            what,
            "set it to \"encrypt\" in main.cf: mail leaves unencrypted now, and nobody is asked",
        ),
    })
}

/// Services that run smtp(8), with the level that a `-o` of theirs sets.
fn own_levels(settings: &Settings) -> Vec<(&Service, &str)> {
    settings
        .running("smtp")
        .filter_map(|service| {
            let level = settings.option(service, "smtp_tls_security_level")?;
            Some((service, level))
        })
        .collect()
}

fn named(services: &[(&Service, &str)]) -> String {
    let each = services
        .iter()
        .map(|(service, level)| format!("{} ({level})", service.id()));
    each.collect::<Vec<_>>().join(", ")
}

pub(super) fn tls_required(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let version = settings.get("mail_version");
    if settings.version().is_some_and(|version| version < (3, 10)) {
        return Ok(Verdict::ok(format!(
            "encrypt instance: Postfix {version} knows no \"TLS-Required: no\" that would have to be forbidden"
        )));
    }
    let value = settings.get("tls_required_enable");
    let what = format!("encrypt instance: tls_required_enable = {value}");
    Ok(if value == "no" {
        Verdict::read(what)
    } else {
        Verdict::fail(
            what,
            "set it to \"no\" in main.cf: a header \"TLS-Required: no\" sends a message unencrypted past everything",
        )
    })
}

pub(super) fn may_level(at: &Context<'_>) -> Outcome {
    let level = at.may()?.get("smtp_tls_security_level");
    let what = format!("may instance: smtp_tls_security_level = {}", shown(level));
    Ok(match level {
        "may" => Verdict::read(what),
        DANE => Verdict::warn(
            what,
            "set it to \"may\": for destinations with TLSA records released mail is held to TLS again",
        ),
        "none" => Verdict::warn(
            what,
            "set it to \"may\": released mail goes without TLS even where the server has it by now",
        ),
        _ => Verdict::fail(
            what,
            "set it to \"may\" in main.cf: released mail gets stuck here again, and nobody hears of it",
        ),
    })
}

pub(super) fn may_services(at: &Context<'_>) -> Outcome {
    let mut strict = own_levels(at.may()?);
    strict.retain(|(_, level)| MANDATORY.contains(level) || *level == DANE);
    Ok(if strict.is_empty() {
        Verdict::read("may instance: no smtp service in master.cf insists on TLS")
    } else {
        Verdict::warn(
            format!(
                "may instance: master.cf has smtp services that insist on TLS: {}",
                named(&strict)
            ),
            "take their smtp_tls_security_level away, or released mail gets stuck here again",
        )
    })
}

pub(super) fn may_policy_maps(at: &Context<'_>) -> Outcome {
    let settings = at.may()?;
    let mut forced = Vec::new();
    let mut unknown = Vec::new();
    let tables = ["smtp_tls_policy_maps", "smtp_tls_per_site"].map(|name| settings.get(name));
    for table in tables.into_iter().flat_map(list) {
        match settings.entries(table) {
            Ok(entries) => forced.extend(entries.into_iter().filter_map(|(key, value)| {
                let level = value.split([' ', ',', '\t']).next().unwrap_or_default();
                let level = level.to_ascii_lowercase();
                // The last two are words of smtp_tls_per_site.
                let strict = MANDATORY.contains(&level.as_str())
                    || [DANE, "must", "must_nopeermatch"].contains(&level.as_str());
                strict.then(|| format!("{key} ({level})"))
            })),
            Err(_) => unknown.push(table),
        }
    }
    let todo = "take entries away that ask for more than \"may\": mail released for these destinations gets stuck here \
                again, and nobody hears of it";
    Ok(if !forced.is_empty() {
        Verdict::warn(
            format!(
                "may instance: smtp_tls_policy_maps forces TLS for {}",
                forced.join(", ")
            ),
            todo,
        )
    } else if !unknown.is_empty() {
        Verdict::warn(
            format!(
                "may instance: smtp_tls_policy_maps has tables that can't be looked through: {}",
                unknown.join(", ")
            ),
            todo,
        )
    } else {
        Verdict::ok("may instance: no TLS policy forces TLS")
    })
}

pub(super) fn may_delay_warning_time(at: &Context<'_>) -> Outcome {
    let value = at.may()?.get("delay_warning_time");
    let what = format!("may instance: delay_warning_time = {value}");
    Ok(if seconds(value, 'h') == Some(0) {
        Verdict::read(what)
    } else {
        Verdict::fail(
            what,
            "set it to 0 in main.cf: senders who have released a message get Postfix's notice about it",
        )
    })
}

pub(super) fn may_backoff(at: &Context<'_>) -> Outcome {
    let value = at.may()?.get("minimal_backoff_time");
    let what = format!("may instance: minimal_backoff_time = {value}");
    Ok(if seconds(value, 's').is_some_and(|seconds| seconds <= 1) {
        Verdict::read(what)
    } else {
        Verdict::fail(
            what,
            "set it to 1s in main.cf: after a failed handshake Postfix waits that long before it sends in plain text",
        )
    })
}

pub(super) fn may_inet(at: &Context<'_>) -> Outcome {
    let settings = at.may()?;
    let open: Vec<String> = settings
        .services
        .iter()
        .filter(|service| service.kind == "inet" && !settings.is_disabled(service))
        .map(Service::id)
        .collect();
    Ok(if open.is_empty() {
        Verdict::read("may instance: it listens nowhere")
    } else {
        Verdict::warn(
            format!("may instance: it listens at {}", open.join(", ")),
            "set master_service_disable = inet in main.cf: whatever comes in here is sent unencrypted if need be, \
             without a decision",
        )
    })
}
