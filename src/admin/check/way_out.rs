//! Checks of the way out: that released mail takes the same as other mail, and that no smtpd(8) lost its relay rules.

use super::context::Context;
use super::instances::MANDATORY;
use super::{Outcome, Skip, Verdict};
use crate::postfix::Settings;
use crate::postfix::mirror::{self, Difference, Side};
use crate::postfix::settings::list;

/// How many differences are shown with both values; the others by name only.
const SHOWN: usize = 3;

/// Is mail that the may instance sends as welcome elsewhere as that of the encrypt instance?
pub(super) fn alike(at: &Context<'_>) -> Outcome {
    at.encrypt()?;
    at.may()?;
    let load = |dir| Side::load(dir).map_err(|_| Skip("an instance can't be read"));
    let encrypt = load(&at.config.encrypt.config_dir)?;
    let may = load(&at.config.may.config_dir)?;
    let found = mirror::compare(&encrypt, &may, &at.config.may.own_settings);
    let differ = &found.differences;
    if differ.is_empty() {
        return Ok(Verdict::read(
            "may instance: it sends mail the same way as the encrypt instance",
        ));
    }
    let shown =
        |one: &Difference| format!("{} (encrypt: {}, may: {})", one.name, one.encrypt, one.may);
    let mut named: Vec<String> = differ.iter().take(SHOWN).map(shown).collect();
    named.extend(differ.iter().skip(SHOWN).map(|one| one.name.clone()));
    Ok(Verdict::fail(
        format!(
            "may instance: it sends mail another way than the encrypt instance: {}",
            named.join("; ")
        ),
        "run \"posttls mirror\", which shows all values, and \"posttls mirror --apply\"; what is meant to differ goes to \
         may.own_settings. Until then released mail may be refused where other mail is not",
    ))
}

/// One of these words must be in smtpd's lists, or it refuses all mail (postconf(5), smtpd_relay_restrictions).
const RELAY_RULES: [&str; 6] = [
    "reject_unauth_destination",
    "defer_unauth_destination",
    "reject",
    "defer",
    "defer_if_permit",
    "check_relay_domains",
];

/// If the only relay rules were in smtpd_recipient_restrictions, none is left when ours take their place.
pub(super) fn relay_rules(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let mut without = Vec::new();
    let mut services = 0;
    for service in settings.running("smtpd") {
        services += 1;
        let lists = ["smtpd_relay_restrictions", "smtpd_recipient_restrictions"];
        let ruled = lists
            .iter()
            .any(|name| has_rule(settings, settings.for_service(service, name), 0));
        if !ruled {
            without.push(service.id());
        }
    }
    Ok(if services == 0 {
        Verdict::ok("encrypt instance: no smtpd, so no relay rules")
    } else if without.is_empty() {
        Verdict::read("encrypt instance: smtpd has relay rules everywhere")
    } else {
        Verdict::fail(
            format!(
                "encrypt instance: neither smtpd_relay_restrictions nor smtpd_recipient_restrictions says who may relay, so \
                 smtpd takes no mail at {}",
                without.join(", ")
            ),
            "put your former smtpd_recipient_restrictions back, after the table of encrypt-main.cf: reject_unauth_destination \
             among them",
        )
    })
}

/// As smtpd looks: what stands after "permit" counts for nothing, nor what is only warned of, and the admin's own classes
/// are lists, too.
fn has_rule(settings: &Settings, restrictions: &str, depth: u8) -> bool {
    let classes = list(settings.get("smtpd_restriction_classes"));
    let words = list(restrictions);
    let mut words = words.iter().map(|word| word.to_ascii_lowercase());
    while let Some(word) = words.next() {
        match word.as_str() {
            "permit" => return false,
            "warn_if_reject" => drop(words.next()),
            word if RELAY_RULES.contains(&word) => return true,
            word if depth < 5
                && classes.contains(&word)
                && has_rule(settings, settings.get(word), depth + 1) =>
            {
                return true;
            }
            _ => {}
        }
    }
    false
}

/// Mail for `relay_domains` goes on into the house, past relayhost, by a service that has the encrypt instance's level
/// unless master.cf says otherwise.
pub(super) fn relay_domains(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let own = list(settings.get("mydestination"));
    let mut domains = list(settings.get("relay_domains"));
    domains.retain(|domain| !own.contains(domain));
    if domains.is_empty() {
        return Ok(Verdict::ok("encrypt instance: it relays for no domains"));
    }
    let what = format!(
        "encrypt instance: mail for relay_domains = {}",
        domains.join(", ")
    );
    let transport = settings.get("relay_transport");
    let name = transport.split(':').next().unwrap_or_default();
    let Some(service) = settings.service(name, "unix") else {
        return Ok(Verdict::fail(
            format!(
                "{what} can't be delivered: relay_transport = {transport} names no service of master.cf"
            ),
            "correct relay_transport, or add the service",
        ));
    };
    let level = settings.for_service(service, "smtp_tls_security_level");
    Ok(if service.command == "smtp" && MANDATORY.contains(&level) {
        Verdict::warn(
            format!("{what} goes through {}, which insists on TLS", service.id()),
            format!(
                "right if the servers of these domains have TLS; otherwise what comes in for them is stuck: give {} an \
                 \"-o smtp_tls_security_level=may\" in master.cf",
                service.id()
            ),
        )
    } else {
        Verdict::read(format!("{what} goes through {}", service.id()))
    })
}
