//! Domain names as they are compared: in lower case, without the root's dot, international ones as A-labels.
//!
//! One form for all that is compared, so that `Müller.example`, `xn--mller-kva.example` and `MÜLLER.example.` are one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::Address;

/// RFC 1035 section 2.3.4, in octets.
const MAX_OCTETS: usize = 253;
const MAX_LABEL: usize = 63;

/// A domain name in ASCII form (RFC 5891 section 4.4, by UTS #46).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

/// Text that is no domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a domain name: expected labels of letters, digits and hyphens, joined by dots"
)]
pub struct BadDomain(pub String);

impl Domain {
    /// The domain of a mail address. `None` when there is none, or an address literal (RFC 5321 section 4.1.3) in its
    /// place.
    pub fn of(address: &Address) -> Option<Self> {
        address.domain().parse().ok()
    }

    /// The form of an address in which every spelling of its domain is the same. The local part stays as it is: only its
    /// own mail server knows what is alike there (RFC 5321 section 2.4).
    pub fn canonical(address: &Address) -> Address {
        let Some((local, _)) = address.as_str().rsplit_once('@') else {
            return address.clone();
        };
        let domain = Self::of(address).map_or_else(|| address.domain(), String::from);
        // It only gets too long where it was too long already.
        format!("{local}@{domain}")
            .parse()
            .unwrap_or_else(|_| address.clone())
    }

    /// As [`Domain::of`]; where that is no well-formed name, the nearest domain above it that is one. What must hold
    /// for a domain holds for everything below it, however oddly that is spelt.
    pub fn nearest(address: &Address) -> Option<Self> {
        let whole = address.domain();
        let mut names = std::iter::successors(Some(whole.trim_end_matches('.')), |name| {
            name.split_once('.').map(|(_, parent)| parent)
        });
        names.find_map(|name| name.parse().ok())
    }

    /// The form with its own letters, when there are others than ASCII in it and it means this domain and no other.
    pub fn unicode(&self) -> Option<String> {
        let (name, result) = idna::domain_to_unicode(&self.0);
        let leads_back = || name.parse().is_ok_and(|domain: Self| domain == *self);
        (result.is_ok() && name != self.0 && leads_back()).then_some(name)
    }

    /// The ASCII form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is this `parent` itself, or a domain below it? Whole labels count: `badexample.org` is not within `example.org`.
    pub fn is_within(&self, parent: &Self) -> bool {
        self == parent || self.is_below(parent)
    }

    /// Is this a domain below `parent`?
    pub fn is_below(&self, parent: &Self) -> bool {
        self.0
            .strip_suffix(parent.as_str())
            .is_some_and(|rest| rest.ends_with('.'))
    }

    /// This domain, then each domain above it: `a.b.c`, `b.c`, `c`.
    pub fn and_parents(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |name| {
            name.split_once('.').map(|(_, parent)| parent)
        })
    }
}

impl FromStr for Domain {
    type Err = BadDomain;

    fn from_str(text: &str) -> Result<Self, BadDomain> {
        let bad = || BadDomain(text.chars().take(80).collect());
        let bare = text.strip_suffix('.').unwrap_or(text);
        let ascii = idna::domain_to_ascii(bare).map_err(|_| bad())?;
        let label = |label: &str| {
            (1..=MAX_LABEL).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let plausible = ascii.len() <= MAX_OCTETS && ascii.split('.').all(label);
        plausible.then_some(Self(ascii)).ok_or_else(bad)
    }
}

impl TryFrom<String> for Domain {
    type Error = BadDomain;

    fn try_from(text: String) -> Result<Self, BadDomain> {
        text.parse()
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domain(text: &str) -> Domain {
        text.parse().unwrap()
    }

    /// An A-label within an A-label: what its letters spell is no name, or another one.
    #[test]
    fn letters_are_shown_only_if_they_lead_back() {
        assert_eq!(domain("xn--xn--mll-xn-lle.").unicode(), None);
        assert_eq!(
            domain("xn--mller-kva.example").unicode().as_deref(),
            Some("müller.example")
        );
    }

    #[test]
    fn one_form_for_every_spelling() {
        for text in [
            "müller.example",
            "MÜLLER.example.",
            "xn--mller-kva.example",
            "mu\u{308}ller.Example",
        ] {
            assert_eq!(domain(text).as_str(), "xn--mller-kva.example", "{text}");
        }
        assert_eq!(domain("A_b.Example").as_str(), "a_b.example");
    }

    #[test]
    fn spellings_of_a_domain_are_one_person_and_those_of_a_name_are_not() {
        for (text, canonical) in [
            ("Alice@Sender.TEST", "Alice@sender.test"),
            ("a@MÜLLER.example.", "a@xn--mller-kva.example"),
            ("a@b@C.test", "a@b@c.test"),
            ("a@[IPv6:2001:DB8::1]", "a@[ipv6:2001:db8::1]"),
            ("Root", "Root"),
        ] {
            let address: Address = text.parse().unwrap();
            let once = Domain::canonical(&address);
            assert_eq!(once.as_str(), canonical);
            assert_eq!(Domain::canonical(&once), once);
        }
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        let long = format!("{}.test", "a".repeat(64));
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "-a.b",
            "a-.b",
            "[192.0.2.1]",
            "a b.test",
            "a@b",
            "*.test",
            "xn--a",
            &long,
        ] {
            assert!(text.parse::<Domain>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn odd_names_belong_to_what_is_above_them() {
        for (address, of, nearest) in [
            ("a@b.test", Some("b.test"), Some("b.test")),
            ("a@-x.b.test", None, Some("b.test")),
            ("a@xn--a.b.test", None, Some("b.test")),
            ("a@x y.b.test.", None, Some("b.test")),
            ("a@b.test..", None, Some("b.test")),
            ("a@x..b.test...", None, Some("b.test")),
            ("a@[192.0.2.1]", None, None),
            ("a@[x.b.test]", None, None),
            ("nobody", None, None),
        ] {
            let address: Address = address.parse().unwrap();
            let text = |domain: Option<Domain>| domain.map(String::from);
            assert_eq!(text(Domain::of(&address)).as_deref(), of, "{address}");
            assert_eq!(text(Domain::nearest(&address)).as_deref(), nearest);
        }
    }

    #[test]
    fn own_letters_are_shown_where_there_are_any() {
        let idn = domain("xn--mller-kva.example");
        assert_eq!(idn.unicode().as_deref(), Some("müller.example"));
        assert_eq!(domain("example.org").unicode(), None);
    }

    #[test]
    fn whole_labels_are_compared() {
        let parent = domain("example.org");
        for (name, within, below) in [
            ("example.org", true, false),
            ("a.example.org", true, true),
            ("b.a.example.org", true, true),
            ("badexample.org", false, false),
            ("example.org.evil.test", false, false),
            ("org", false, false),
        ] {
            let name = domain(name);
            assert_eq!(
                (name.is_within(&parent), name.is_below(&parent)),
                (within, below),
                "{name}"
            );
        }
        assert_eq!(
            domain("a.b.c").and_parents().collect::<Vec<_>>(),
            ["a.b.c", "b.c", "c"]
        );
    }

    proptest! {
        #[test]
        fn parsing_again_changes_nothing(text in "\\PC{1,40}") {
            if let Ok(domain) = text.parse::<Domain>() {
                prop_assert_eq!(domain.as_str().parse::<Domain>().unwrap(), domain);
            }
        }
    }
}
