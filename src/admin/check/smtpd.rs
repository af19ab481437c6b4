//! Checks that nobody can write to the hook by SMTP, or in its name: the access lists of every smtpd(8) service.
//!
//! The lists are read, and not tried in a session: that would be logged as an attempt to abuse this host.

use super::context::{ADDRESS, Context, DOMAIN};
use super::{Outcome, Verdict};
use crate::postfix::instance::PostfixError;
use crate::postfix::settings::list;
use crate::postfix::{Service, Settings};

/// In the order in which smtpd(8) goes through them. A reject in any of them is one.
const LISTS: [&str; 5] = [
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_recipient_restrictions",
];

/// Does a list refuse the address for certain? What comes after something that may permit does not count.
fn refuses(settings: &Settings, restrictions: &str, check: &str) -> Result<bool, PostfixError> {
    let words = list(restrictions);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if *word == "reject" {
            return Ok(true);
        }
        if word.starts_with("permit") {
            return Ok(false);
        }
        if *word != check {
            continue;
        }
        let Some(table) = words.next() else {
            return Ok(false);
        };
        for key in [ADDRESS, DOMAIN] {
            let Some(action) = settings.lookup(table, key)? else {
                continue;
            };
            let action = action.to_ascii_uppercase();
            if action.starts_with("REJECT") || action.starts_with(['4', '5']) {
                return Ok(true);
            }
            if action == "OK" || action.starts_with("PERMIT") {
                return Ok(false);
            }
        }
    }
    Ok(false)
}

fn refused_everywhere(at: &Context<'_>, check: &str, who: &str, parameter: &str) -> Outcome {
    let settings = at.encrypt()?;
    let mut open = Vec::new();
    let mut services = 0;
    for service in settings.running("smtpd") {
        services += 1;
        let mut refused = false;
        for name in LISTS {
            match refuses(settings, settings.for_service(service, name), check) {
                Ok(found) => refused |= found,
                Err(error) => {
                    return Ok(Verdict::fail(
                        format!("{name} of {}: {error}", service.id()),
                        "correct the table",
                    ));
                }
            }
        }
        if !refused {
            open.push(Service::id(service));
        }
    }
    Ok(if services == 0 {
        Verdict::ok(format!(
            "encrypt instance: no smtpd, so no {who} in {DOMAIN}"
        ))
    } else if open.is_empty() {
        Verdict::ok(format!("encrypt instance: smtpd refuses {who} in {DOMAIN}"))
    } else {
        Verdict::fail(
            format!(
                "encrypt instance: smtpd does not refuse {who} in {DOMAIN} at {}",
                open.join(", ")
            ),
            format!(
                "begin {parameter} with {check} and the table of encrypt-main.cf, before everything that permits, \
                 also where master.cf sets {parameter} for a service"
            ),
        )
    })
}

pub(super) fn recipients(at: &Context<'_>) -> Outcome {
    let check = "check_recipient_access";
    refused_everywhere(at, check, "recipients", "smtpd_recipient_restrictions")
}

pub(super) fn senders(at: &Context<'_>) -> Outcome {
    let check = "check_sender_access";
    refused_everywhere(at, check, "senders", "smtpd_sender_restrictions")
}
