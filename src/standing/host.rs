//! The server that Postfix's words name (pure).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What qmgr puts before the reason for which it suspended a destination.
const SUSPENDED: &str = "delivery temporarily suspended: ";
/// Postfix's own words that name the server which it talked to (src/smtp/smtp_proto.c).
const NAMING: [&str; 2] = [
    "TLS is required, but was not offered by host ",
    "TLS is required, but host ",
];

/// A server that a delivery failed at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name; an address where it has none.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
}

impl Host {
    /// The server that a reason in Postfix's own words names.
    pub fn named_in(reason: &str) -> Option<Self> {
        let reason = reason.strip_prefix(SUSPENDED).unwrap_or(reason);
        let rest = NAMING.iter().find_map(|words| reason.strip_prefix(words))?;
        let host = rest.split(' ').next()?;
        let (name, address) = host.split_once('[')?;
        let address = address.split_once(']')?.0.parse().ok()?;
        // It goes to another process, which takes no more.
        (name.len() <= 255).then(|| Self {
            name: name.to_owned(),
            address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_taken_from_postfix_s_own_words_only() {
        let named =
            |text: &str| Host::named_in(text).map(|host| (host.name, host.address.to_string()));
        let mx = Some(("mx.test".to_owned(), "192.0.2.1".to_owned()));
        for text in [
            "TLS is required, but was not offered by host mx.test[192.0.2.1]",
            "delivery temporarily suspended: TLS is required, but was not offered by host mx.test[192.0.2.1]",
            "TLS is required, but host mx.test[192.0.2.1] refused to start TLS: 454 host x[127.0.0.1]",
        ] {
            assert_eq!(named(text), mx, "{text}");
        }
        assert_eq!(
            named("TLS is required, but was not offered by host x[2001:db8::1]")
                .map(|(_, address)| address),
            Some("2001:db8::1".to_owned())
        );
        for text in [
            "Cannot start TLS: handshake failure",
            "host mx.test[192.0.2.1] said: TLS is required, but was not offered by host x[127.0.0.1]",
            "TLS is required, but was not offered by host mx.test",
        ] {
            assert_eq!(named(text), None, "{text}");
        }
    }
}
