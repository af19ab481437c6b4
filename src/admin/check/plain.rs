//! Checks for ways on which mail leaves the encrypt instance in plain text without a question: TLS policies, and smtp(8)
//! services with a level of their own. What can be listed is listed; what can't is asked about a domain that does not
//! exist, and named.

use std::net::IpAddr;

use super::context::Context;
use super::instances::{DANE, MANDATORY, shown};
use super::{Outcome, Verdict};
use crate::postfix::instance::PostfixError;
use crate::postfix::settings::list;
use crate::postfix::{Service, Settings};

/// A domain that no table knows (RFC 2606): what answers for it answers for all.
const NOBODY: &str = "posttls-check.invalid";

/// How many of a kind a line names.
const NAMED: usize = 10;

/// The first names, and how many more there are.
fn named(names: &[String]) -> String {
    let mut out = names[..names.len().min(NAMED)].join(", ");
    if let Some(more @ 1..) = names.len().checked_sub(NAMED) {
        out += &format!(" and {more} more");
    }
    out
}

/// What a table of `key`s says.
struct Listed {
    /// Its answer to a domain that it can't know.
    any: Option<String>,
    /// All of it, or why that can't be had.
    entries: Result<Vec<(String, String)>, PostfixError>,
}

fn listed(settings: &Settings, table: &str) -> Listed {
    Listed {
        // A table that can't be asked is another check's matter; here it is one that can't be listed either.
        any: settings.lookup(table, NOBODY).ok().flatten(),
        entries: settings.entries(table),
    }
}

/// The level that a policy gives, if mail may go in plain text by it: smtp_tls_policy_maps and smtp_tls_per_site.
fn plain_level(policy: &str) -> Option<String> {
    let level = policy.split([' ', ',', '\t']).next().unwrap_or_default();
    let level = level.to_ascii_lowercase();
    ["none", "may", DANE]
        .contains(&level.as_str())
        .then_some(level)
}

/// The tables of TLS policies that count, for main.cf and for each service that has its own; each once.
fn policy_tables<'a>(settings: &'a Settings) -> Vec<&'a str> {
    // Postfix looks into the older tables only where there are no others.
    let counts =
        |newer: &'a str, older: &'a str| list(if newer.is_empty() { older } else { newer });
    let names = ["smtp_tls_policy_maps", "smtp_tls_per_site"];
    let [newer, older] = names.map(|name| settings.get(name));
    let mut tables = counts(newer, older);
    for service in settings.running("smtp") {
        let [newer, older] = names.map(|name| settings.for_service(service, name));
        tables.extend(counts(newer, older));
    }
    let mut once: Vec<&'a str> = Vec::new();
    for table in tables {
        if !once.contains(&table) {
            once.push(table);
        }
    }
    once
}

pub(super) fn policies(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let tables = policy_tables(settings);
    let (mut all, mut some, mut unlisted) = (Vec::new(), Vec::new(), Vec::new());
    for table in &tables {
        let Listed { any, entries } = listed(settings, table);
        if let Some(level) = any.as_deref().and_then(plain_level) {
            all.push(format!("{table} ({level})"));
            continue;
        }
        match entries {
            Ok(entries) => some.extend(
                entries
                    .iter()
                    .filter_map(|(key, policy)| Some(format!("{key} ({})", plain_level(policy)?))),
            ),
            Err(_) => unlisted.push((*table).to_owned()),
        }
    }
    let what = "encrypt instance: TLS policies";
    Ok(if !all.is_empty() {
        Verdict::fail(
            format!("{what} allow plain text for any domain: {}", named(&all)),
            "take that table out of smtp_tls_policy_maps: all mail leaves unencrypted if need be, and nobody is asked",
        )
    } else if !some.is_empty() {
        let more = if unlisted.is_empty() {
            String::new()
        } else {
            format!("; cannot be listed: {}", named(&unlisted))
        };
        Verdict::warn(
            format!("{what} allow plain text for {}{more}", named(&some)),
            "right only for servers of your own house: mail for these goes unencrypted if need be, and nobody is asked \
             (\"dane\": where the domain has no TLSA records)",
        )
    } else if !unlisted.is_empty() {
        Verdict::warn(
            format!(
                "{what}: cannot be listed: {}; about a domain that does not exist nothing was allowed",
                named(&unlisted)
            ),
            "see for yourself that none of their answers is \"may\", \"none\" or \"dane\"",
        )
    } else if tables.is_empty() {
        Verdict::ok(format!("{what}: there are none"))
    } else {
        Verdict::ok(format!(
            "{what}: none allows plain text ({})",
            tables.join(", ")
        ))
    })
}

/// Mail that goes through a service.
#[derive(Debug, PartialEq, Eq)]
struct Way {
    what: String,
    /// Empty: the recipient's domain.
    nexthop: String,
    /// Is it all mail, and not what the admin has named?
    all: bool,
}

/// `TRANSPORT:NEXTHOP` as Postfix's parameters and tables have it.
pub(super) fn split(value: &str) -> (&str, &str) {
    let value = value.trim();
    value.split_once(':').unwrap_or((value, ""))
}

/// Parameters that name the transport of some mail.
const PARAMETERS: [(&str, &str, bool); 5] = [
    ("default_transport", "all mail to other hosts", true),
    ("relay_transport", "mail for relay_domains", false),
    (
        "virtual_transport",
        "mail for virtual_mailbox_domains",
        false,
    ),
    ("local_transport", "mail for mydestination", false),
    ("content_filter", "mail for the content_filter", false),
];

/// Tables whose answers name transports.
const TABLES: [&str; 2] = ["transport_maps", "sender_dependent_default_transport_maps"];

/// What leads to the service `name`, and the tables that may, and can't be listed.
fn ways(settings: &Settings, name: &str) -> (Vec<Way>, Vec<String>) {
    let mut found = Vec::new();
    let mut take = |what: String, value: &str, all: bool| {
        let (transport, nexthop) = split(value);
        if transport == name {
            let nexthop = if nexthop.is_empty() && what.starts_with("all") {
                settings.get("relayhost")
            } else {
                nexthop
            };
            let nexthop = nexthop.to_owned();
            found.push(Way { what, nexthop, all });
        }
    };
    for (parameter, what, all) in PARAMETERS {
        take(
            format!("{what} ({parameter})"),
            settings.get(parameter),
            all,
        );
    }
    for service in &settings.services {
        if let Some(filter) = settings.option(service, "content_filter") {
            take(
                format!("mail that comes in at {}", service.id()),
                filter,
                false,
            );
        }
    }
    let mut unlisted = Vec::new();
    for parameter in TABLES {
        for table in list(settings.get(parameter)) {
            let Listed { any, entries } = listed(settings, table);
            if let Some(value) = any {
                take(format!("all mail ({parameter}: {table})"), &value, true);
            }
            match entries {
                Ok(entries) => {
                    for (key, value) in entries {
                        let all = key == "*";
                        take(format!("mail of {key} ({parameter})"), &value, all);
                    }
                }
                Err(_) => unlisted.push(table.to_owned()),
            }
        }
    }
    (found, unlisted)
}

/// Does mail for this next hop stay on this host?
fn stays_here(nexthop: &str) -> bool {
    let host = nexthop.strip_prefix("inet:").unwrap_or(nexthop);
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(host, _)| host),
    };
    let address = host.strip_prefix("IPv6:").unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

pub(super) fn services(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let (mut holes, mut house, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    let mut fine = Vec::new();
    for service in settings.running("smtp") {
        let Some(level) = settings.option(service, "smtp_tls_security_level") else {
            continue;
        };
        if MANDATORY.contains(&level) {
            continue;
        }
        let id = format!("{} ({})", service.id(), shown(level));
        let (ways, unlisted) = ways(settings, &service.name);
        if ways.is_empty() && !unlisted.is_empty() {
            unknown.push(format!("{id}; cannot be listed: {}", unlisted.join(", ")));
        }
        for way in ways {
            let line = format!("{id} takes {}", way.what);
            if stays_here(&way.nexthop) {
                fine.push(format!("{line}, on this host"));
            } else if way.all {
                holes.push(line);
            } else {
                house.push(line);
            }
        }
    }
    let what = "encrypt instance: smtp services that allow plain text";
    Ok(if !holes.is_empty() {
        Verdict::fail(
            format!("{what}: {}", named(&holes)),
            "take smtp_tls_security_level off that service in master.cf, or lead that mail elsewhere: it leaves \
             unencrypted, and nobody is asked",
        )
    } else if !house.is_empty() {
        Verdict::warn(
            format!("{what}: {}", named(&house)),
            "right for mail into your own house, and for no other: mail through these is sent unencrypted without a \
             question",
        )
    } else if !unknown.is_empty() {
        Verdict::warn(
            format!("{what}: {}", named(&unknown)),
            "see for yourself that no mail to other hosts is led there",
        )
    } else if let Some(unfiltered) = unfiltered(settings) {
        Verdict::warn(
            format!(
                "encrypt instance: master.cf gives smtp services a smtp_delivery_status_filter of their own: {unfiltered}"
            ),
            "take it away, or give them posttls-status-filter, too: some of their TLS failures are not recognised",
        )
    } else if fine.is_empty() {
        Verdict::read("encrypt instance: no smtp service that mail is led to allows plain text")
    } else {
        Verdict::read(format!("{what}: {}", named(&fine)))
    })
}

/// Services that run smtp(8) with another status filter.
fn unfiltered(settings: &Settings) -> Option<String> {
    let odd: Vec<String> = settings
        .running("smtp")
        .filter(|service| {
            let own = settings.option(service, "smtp_delivery_status_filter");
            own.is_some_and(|own| own != settings.get("smtp_delivery_status_filter"))
        })
        .map(Service::id)
        .collect();
    (!odd.is_empty()).then(|| named(&odd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_on_this_host() {
        for here in [
            "[127.0.0.1]:10024",
            "127.0.0.2:10024",
            "localhost:10024",
            "inet:localhost:10024",
            "[::1]:25",
            "[IPv6:::1]",
        ] {
            assert!(stays_here(here), "{here}");
        }
        for elsewhere in [
            "",
            "example.org",
            "[192.0.2.1]:25",
            "[10.0.0.1]",
            "localhost.example",
        ] {
            assert!(!stays_here(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn levels_of_policies() {
        for (policy, level) in [
            ("may", Some("may")),
            ("MAY protocols=TLSv1", Some("may")),
            ("none", Some("none")),
            ("dane", Some("dane")),
            ("encrypt", None),
            ("dane-only", None),
            ("secure match=may", None),
            ("MUST", None),
            ("", None),
        ] {
            assert_eq!(plain_level(policy).as_deref(), level, "{policy}");
        }
    }
}
