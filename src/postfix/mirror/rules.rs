//! Which parameters both instances must have alike, and which not (pure). README.md lists both.

use crate::postfix::settings::list;

/// Alike besides those that begin with [`PREFIXES`] or end in [`BY_TRANSPORT`].
const ALIKE: [&str; 37] = [
    // Where mail goes.
    "relayhost",
    "transport_maps",
    "default_transport",
    "relay_transport",
    "relay_domains",
    "parent_domain_matches_subdomains",
    "recipient_delimiter",
    "empty_address_relayhost_maps_lookup_key",
    "empty_address_default_transport_maps_lookup_key",
    "disable_dns_lookups",
    "ignore_mx_lookup_error",
    "defer_transports",
    // Who this host is.
    "myhostname",
    "mydomain",
    "myorigin",
    "inet_interfaces",
    "inet_protocols",
    "proxy_interfaces",
    // How long, and how hard it is tried.
    "maximal_queue_lifetime",
    "bounce_queue_lifetime",
    "maximal_backoff_time",
    "transport_retry_time",
    "soft_bounce",
    "initial_destination_concurrency",
    "default_transport_rate_delay",
    "default_destination_concurrency_limit",
    "default_destination_concurrency_positive_feedback",
    "default_destination_concurrency_negative_feedback",
    "default_destination_concurrency_failed_cohort_limit",
    "default_destination_rate_delay",
    "default_destination_recipient_limit",
    // What the others mean.
    "compatibility_level",
    "smtputf8_enable",
    "default_database_type",
    "proxy_read_maps",
    "import_environment",
    "export_environment",
];

/// The domain that leads to the hook ([`crate::notice::DOMAIN`], which is above this module).
const HOOK_DOMAIN: &str = "posttls.invalid";

const PREFIXES: [&str; 3] = ["smtp_", "sender_dependent_", "tls_"];

/// Ends of the names of parameters that are about one transport.
const BY_TRANSPORT: [&str; 8] = [
    "_destination_concurrency_limit",
    "_destination_concurrency_positive_feedback",
    "_destination_concurrency_negative_feedback",
    "_destination_concurrency_failed_cohort_limit",
    "_destination_rate_delay",
    "_destination_recipient_limit",
    "_initial_destination_concurrency",
    "_transport_rate_delay",
];

/// Not alike, though they begin with [`PREFIXES`], and why.
const OWN: [(&str, &str); 19] = [
    ("smtp_tls_security_level", LEVEL),
    ("smtp_use_tls", LEVEL),
    ("smtp_enforce_tls", LEVEL),
    ("smtp_tls_enforce_peername", LEVEL),
    ("smtp_tls_policy_maps", DEMANDS),
    ("smtp_tls_per_site", DEMANDS),
    ("smtp_delivery_status_filter", LISTENS),
    ("smtp_reply_filter", LISTENS),
    ("smtp_discard_ehlo_keyword_address_maps", LISTENS),
    ("smtp_connection_cache_on_demand", LISTENS),
    ("smtp_connection_cache_destinations", LISTENS),
    ("smtp_tls_connection_reuse", LISTENS),
    ("smtp_tls_session_cache_database", FILE),
    ("smtp_tls_session_cache_timeout", FILE),
    ("tls_random_exchange_name", FILE),
    ("smtp_tls_loglevel", LOG),
    ("smtp_tls_note_starttls_offer", LOG),
    ("tls_required_enable", LEVEL),
    ("tls_server_sni_maps", "it receives nothing"),
];
const LEVEL: &str = "in the level of TLS the two instances differ";
const DEMANDS: &str = "what it demands would hold released mail again";
const LISTENS: &str = "PostTLS listens by it, or would be disturbed by it";
const FILE: &str = "each instance has such a file of its own";
const LOG: &str = "it changes the log only";

/// Why a parameter is of each instance's own, though it looks as if it were not.
pub(super) fn own(name: &str) -> Option<&'static str> {
    let mut all = OWN.iter();
    all.find(|(own, _)| *own == name).map(|(_, why)| *why)
}

/// Must this parameter be alike? `transports` are those that smtp(8) serves.
pub(super) fn is_alike(name: &str, transports: &[&str]) -> bool {
    if own(name).is_some() {
        return false;
    }
    ALIKE.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || BY_TRANSPORT.iter().any(|end| {
            name.strip_suffix(end)
                .is_some_and(|transport| transports.contains(&transport))
        })
}

/// Can this value of the encrypt instance not be taken over by itself? Why not.
pub(super) fn by_hand(name: &str, value: &str) -> Option<&'static str> {
    if name == "smtp_tls_wrappermode" && value == "yes" {
        return Some(
            "with TLS from the first octet there is no level \"may\": give the may instance another way out by hand",
        );
    }
    let socket = value
        .match_indices("unix:")
        .any(|(at, found)| !value[at + found.len()..].starts_with('/'));
    socket.then_some(
        "it names a socket below the encrypt instance's queue directory: make the service in the may instance, too, \
         or name the socket by its whole path",
    )
}

/// A `transport_maps` without what leads to the hook.
pub(super) fn without_hook(value: &str) -> String {
    let tables = list(value).into_iter().filter_map(|table| {
        let Some(inner) = table
            .strip_prefix("inline:{")
            .and_then(|rest| rest.strip_suffix('}'))
        else {
            return Some(table.to_owned());
        };
        let entries = list(inner);
        let others: Vec<&str> = entries
            .iter()
            .copied()
            .filter(|entry| !leads_to_hook(entry))
            .collect();
        if others.len() == entries.len() {
            Some(table.to_owned())
        } else if others.is_empty() {
            None
        } else {
            Some(format!("inline:{{{}}}", others.join(", ")))
        }
    });
    tables.collect::<Vec<_>>().join(", ")
}

fn leads_to_hook(entry: &str) -> bool {
    let entry = entry.trim_start_matches('{').trim_start();
    let key = entry.split('=').next().unwrap_or_default().trim_end();
    key.rsplit('@').next() == Some(HOOK_DOMAIN)
}

/// A value as people may see it: without passwords.
pub(super) fn shown(name: &str, value: &str) -> String {
    if value.is_empty() {
        return "(nothing)".to_owned();
    }
    if name != "smtp_sasl_password_maps" {
        return value.to_owned();
    }
    let tables = list(value).into_iter().map(|table| {
        // What stands in braces, or after "static:", is the password itself.
        match table.split_once([':', '{']) {
            Some(("inline" | "static", _)) => {
                format!("{}:(not shown)", &table[..6])
            }
            _ if table.contains('{') => "(not shown)".to_owned(),
            _ => table.to_owned(),
        }
    });
    tables.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_way_out_needs_is_alike_and_what_makes_the_difference_is_not() {
        for name in [
            "relayhost",
            "smtp_sasl_password_maps",
            "smtp_bind_address",
            "smtp_tls_cert_file",
            "sender_dependent_relayhost_maps",
            "tls_high_cipherlist",
            "slow_destination_rate_delay",
            "relay_domains",
        ] {
            assert!(is_alike(name, &["smtp", "slow"]), "{name}");
        }
        for name in [
            "smtp_tls_security_level",
            "smtp_tls_policy_maps",
            "smtp_reply_filter",
            "smtpd_recipient_restrictions",
            "posttls_destination_recipient_limit",
            "virtual_destination_recipient_limit",
            "delay_warning_time",
            "minimal_backoff_time",
            "mydestination",
            "queue_directory",
        ] {
            assert!(!is_alike(name, &["smtp", "slow"]), "{name}");
        }
    }

    #[test]
    fn the_way_to_the_hook_is_left_out_of_transport_maps() {
        for (value, expected) in [
            ("inline:{posttls.invalid=posttls:}", ""),
            (
                "inline:{posttls.invalid=posttls:}, hash:/etc/postfix/transport",
                "hash:/etc/postfix/transport",
            ),
            (
                "inline:{{a.test=smtp:[127.0.0.1]:25}, {posttls.invalid = posttls:}} hash:/x",
                "inline:{{a.test=smtp:[127.0.0.1]:25}}, hash:/x",
            ),
            (
                "inline:{ notice@posttls.invalid=posttls:, b.test=x: }",
                "inline:{b.test=x:}",
            ),
            ("inline:{b.test=x:}", "inline:{b.test=x:}"),
        ] {
            assert_eq!(without_hook(value), expected, "{value}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = |value| shown("smtp_sasl_password_maps", value);
        assert_eq!(shown("hash:/etc/postfix/sasl"), "hash:/etc/postfix/sasl");
        assert_eq!(
            shown("static:user:secret, inline:{{[a]:25 = user:secret}}"),
            "static:(not shown), inline:(not shown)"
        );
        assert_eq!(shown("pipemap:{static:user:secret}"), "(not shown)");
        assert_eq!(shown("{static:user:secret}"), "(not shown)");
    }

    #[test]
    fn sockets_below_a_queue_directory_are_for_hands() {
        assert!(by_hand("transport_maps", "socketmap:unix:private/x:y").is_some());
        assert!(by_hand("transport_maps", "socketmap:unix:/run/x:y").is_none());
        assert!(by_hand("smtp_tls_wrappermode", "yes").is_some());
        assert!(by_hand("smtp_tls_wrappermode", "no").is_none());
    }
}
