//! What an entry of `smtp_tls_policy_maps` or `smtp_tls_per_site` means, and under which keys Postfix looks for it (pure).
//! (Postfix src/smtp/smtp_tls_policy.c, src/tls/tls_level.c)

/// A level of TLS, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain text only.
    None,
    /// TLS where it is offered.
    May,
    /// TLS, whatever the certificate.
    Encrypt,
    /// TLS, with a certificate of a known fingerprint.
    Fingerprint,
    /// TLS by the recipient's TLSA records where there are any.
    Dane,
    /// TLS by the recipient's TLSA records, or nothing.
    DaneOnly,
    /// TLS, with a trusted certificate for the server's name.
    Verify,
    /// TLS, with a trusted certificate for the recipient's domain.
    Secure,
}

const NAMES: [(&str, Level); 8] = [
    ("none", Level::None),
    ("may", Level::May),
    ("encrypt", Level::Encrypt),
    ("fingerprint", Level::Fingerprint),
    ("dane", Level::Dane),
    ("dane-only", Level::DaneOnly),
    ("verify", Level::Verify),
    ("secure", Level::Secure),
];

/// Older names, of `smtp_tls_per_site`.
const SITE_NAMES: [(&str, Level); 4] = [
    ("none", Level::None),
    ("may", Level::May),
    ("must_nopeermatch", Level::Encrypt),
    ("must", Level::Verify),
];

impl Level {
    /// The level of this name, as `smtp_tls_security_level` has it.
    pub fn named(name: &str) -> Option<Self> {
        find(&NAMES, name)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, level)| *level == self)
            .map_or("", |(name, _)| name)
    }

    /// Does an entry with this level say that mail must not go in plain text?
    pub fn is_demand(self) -> bool {
        self >= Self::Encrypt
    }
}

fn find(names: &[(&str, Level)], wanted: &str) -> Option<Level> {
    let found = names
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    found.map(|(_, level)| *level)
}

/// The level that an entry of `smtp_tls_policy_maps` begins with. `None`: Postfix refuses the entry, and the mail with it.
/// What follows the level makes no entry weaker, so it does not matter here.
pub fn policy(entry: &str) -> Option<Level> {
    let word = entry
        .split([' ', '\t', '\r', '\n', ','])
        .find(|word| !word.is_empty())?;
    Level::named(word)
}

/// The level of an entry of `smtp_tls_per_site`.
pub fn per_site(entry: &str) -> Option<Level> {
    find(&SITE_NAMES, entry)
}

/// The keys under which Postfix looks for the policy of a next hop, in its order. A domain is followed by its parents,
/// each with its dot; anything else (`[host]`, `host:port`) is looked up as it stands.
pub fn keys(next_hop: &str) -> Vec<&str> {
    let mut keys = vec![next_hop];
    if !is_domain(next_hop) {
        return keys;
    }
    let mut rest = next_hop;
    // A dot at the very beginning is not one to look behind.
    while let Some(at) = rest.char_indices().skip(1).find(|(_, c)| *c == '.') {
        rest = &rest[at.0..];
        keys.push(rest);
    }
    keys
}

/// As valid_utf8_hostname(3), as far as next hops can differ: no brackets, no port, no path, and no address.
fn is_domain(next_hop: &str) -> bool {
    let parts = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || !c.is_ascii();
    next_hop
        .split('.')
        .all(|label| parts(label) && label.chars().all(plain))
        && next_hop.chars().any(|c| !(c.is_ascii_digit() || c == '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_that_postfix_asks_for() {
        assert_eq!(
            keys("mx.sub.example.test"),
            [
                "mx.sub.example.test",
                ".sub.example.test",
                ".example.test",
                ".test"
            ]
        );
        for alone in [
            "[mx.example.test]",
            "[192.0.2.1]:25",
            "example.test:587",
            "192.0.2.1",
            "x",
            "a..b",
        ] {
            assert_eq!(keys(alone), [alone]);
        }
        assert_eq!(keys("müller.example"), ["müller.example", ".example"]);
    }

    #[test]
    fn an_entry_is_what_its_first_word_says() {
        for (entry, level) in [
            (
                "secure match=mx.example.test:.example.test servername=hostname",
                Some(Level::Secure),
            ),
            ("DANE-only", Some(Level::DaneOnly)),
            (" , verify", Some(Level::Verify)),
            (
                "dane policy_type=tlsa policy_domain=example.test",
                Some(Level::Dane),
            ),
            ("may,ciphers=high", Some(Level::May)),
            ("fingerprint match=3D:95", Some(Level::Fingerprint)),
            ("half-dane", None),
            ("", None),
            ("match=x secure", None),
        ] {
            assert_eq!(policy(entry), level, "{entry:?}");
        }
        let demands: Vec<&str> = NAMES
            .iter()
            .filter(|(_, level)| level.is_demand())
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(
            demands,
            [
                "encrypt",
                "fingerprint",
                "dane",
                "dane-only",
                "verify",
                "secure"
            ]
        );
        assert_eq!(per_site("MUST_NOPEERMATCH"), Some(Level::Encrypt));
        assert_eq!(per_site("must"), Some(Level::Verify));
        assert_eq!(per_site("secure"), None);
    }
}
