//! `[senders]`: who may be asked about their mail (pure).

use std::str::FromStr;

use serde::Deserialize;

use crate::address::Address;
use crate::case::{Asked, automatic};
use crate::domain::Domain;

/// `[senders]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Senders {
    /// Whose senders are asked.
    pub internal: Vec<SenderPattern>,
    /// What happens to stuck mail of other senders.
    pub external: Unasked,
    /// What happens to stuck mail of the null sender.
    pub null: Unasked,
    /// What happens to stuck mail that a program has sent.
    pub automatic: Automatic,
    /// Senders who are persons, whatever their addresses and headers look like.
    pub persons: Vec<SenderPattern>,
}

/// What happens to stuck mail that a program has sent, as far as its sender would be asked otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Automatic {
    /// Its sender is asked like any other.
    Ask,
    /// As [`Unasked::Keep`].
    Keep,
    /// As [`Unasked::Release`].
    Release,
    /// As [`Unasked::Delete`].
    Delete,
    /// As [`Unasked::Tell`].
    Tell,
}

/// What happens to stuck mail about which nobody is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unasked {
    /// Postfix keeps trying, and returns it in the end.
    Keep,
    /// It is released as if the sender had chosen so.
    Release,
    /// It is deleted.
    Delete,
    /// As [`Unasked::Keep`], and the admin gets a mail.
    Tell,
}

/// Some senders.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SenderPattern {
    /// `*`: everybody.
    Everybody,
    /// `example.org`: the senders of this domain.
    Domain(Domain),
    /// `.example.org`: the senders of the domains below it.
    Below(Domain),
    /// `alice@example.org`. The domain is compared as domains are, the local part octet by octet but for ASCII case.
    Address(String, Domain),
}

/// Text that names no senders.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no senders: expected a domain, a dot and a domain (all domains below it), an address, or \"*\""
)]
pub struct BadPattern(String);

impl SenderPattern {
    /// Is `sender` one of these?
    pub fn matches(&self, sender: &Address) -> bool {
        match self {
            Self::Everybody => true,
            Self::Domain(domain) => Domain::of(sender).is_some_and(|of| of == *domain),
            Self::Below(domain) => Domain::of(sender).is_some_and(|of| of.is_below(domain)),
            Self::Address(local, domain) => {
                let own = sender.as_str().rsplit_once('@').map(|(local, _)| local);
                own.is_some_and(|own| own.eq_ignore_ascii_case(local))
                    && Domain::of(sender).is_some_and(|of| of == *domain)
            }
        }
    }
}

impl FromStr for SenderPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let bad = || BadPattern(text.chars().take(80).collect());
        let domain = |text: &str| text.parse::<Domain>().map_err(|_| bad());
        if text == "*" {
            return Ok(Self::Everybody);
        }
        if let Some(parent) = text.strip_prefix('.') {
            return Ok(Self::Below(domain(parent)?));
        }
        match text.rsplit_once('@') {
            Some(("", _)) => Err(bad()),
            Some((local, of)) => Ok(Self::Address(local.to_owned(), domain(of)?)),
            None => Ok(Self::Domain(domain(text)?)),
        }
    }
}

impl TryFrom<String> for SenderPattern {
    type Error = BadPattern;

    fn try_from(text: String) -> Result<Self, BadPattern> {
        text.parse()
    }
}

impl Senders {
    /// Who is asked about mail of `sender` (`None`: the null sender), and what happens when nobody is. `by_header`: its
    /// header says that a program has sent it.
    pub fn judge(&self, sender: Option<&Address>, by_header: bool) -> (Asked, Unasked) {
        let Some(address) = sender else {
            return (Asked::Nobody, self.null);
        };
        if !self.is_internal(sender) {
            return (Asked::Nobody, self.external);
        }
        let asked = (Asked::Sender, Unasked::Keep);
        if !self.is_automatic(address, by_header) {
            return asked;
        }
        match self.automatic {
            Automatic::Ask => asked,
            Automatic::Keep => (Asked::Nobody, Unasked::Keep),
            Automatic::Release => (Asked::Nobody, Unasked::Release),
            Automatic::Delete => (Asked::Nobody, Unasked::Delete),
            Automatic::Tell => (Asked::Nobody, Unasked::Tell),
        }
    }

    /// Is it one of those who are asked, if a person?
    pub fn is_internal(&self, sender: Option<&Address>) -> bool {
        let mut patterns = self.internal.iter();
        sender.is_some_and(|sender| patterns.any(|pattern| pattern.matches(sender)))
    }

    /// Is it a program whose mail nobody reads?
    pub fn is_automatic(&self, sender: &Address, by_header: bool) -> bool {
        (by_header || automatic::by_name(sender))
            && !self.persons.iter().any(|pattern| pattern.matches(sender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_what_it_says() {
        for (pattern, sender, matches) in [
            ("example.org", "a@Example.ORG", true),
            ("example.org", "a@sub.example.org", false),
            ("example.org", "a@badexample.org", false),
            (".example.org", "a@sub.example.org", true),
            (".example.org", "a@example.org", false),
            (".example.org", "a@badexample.org", false),
            ("alice@example.org", "Alice@EXAMPLE.org", true),
            ("alice@example.org", "malice@example.org", false),
            ("alice@example.org", "alice@sub.example.org", false),
            ("müller.example", "a@xn--mller-kva.example", true),
            ("*", "anything", true),
            ("example.org", "nodomain", false),
            ("example.org", "a@example.org@evil.test", false),
        ] {
            let pattern: SenderPattern = pattern.parse().unwrap();
            assert_eq!(
                pattern.matches(&sender.parse().unwrap()),
                matches,
                "{pattern:?} {sender}"
            );
        }
        for bad in ["", ".", "@example.org", "*.example.org", "a b.test", "a@"] {
            assert!(bad.parse::<SenderPattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn who_is_not_internal_is_not_asked() {
        let senders = Senders {
            internal: vec!["example.org".parse().unwrap()],
            external: Unasked::Delete,
            null: Unasked::Release,
            automatic: Automatic::Tell,
            persons: vec!["support-request@example.org".parse().unwrap()],
        };
        let address = |text: &str| text.parse::<Address>().unwrap();
        assert_eq!(
            senders.judge(Some(&address("a@example.org")), false).0,
            Asked::Sender
        );
        for (sender, by_header, expected) in [
            (
                Some("a@other.test"),
                false,
                (Asked::Nobody, Unasked::Delete),
            ),
            (
                Some("owner-x@other.test"),
                true,
                (Asked::Nobody, Unasked::Delete),
            ),
            (None, true, (Asked::Nobody, Unasked::Release)),
            (
                Some("owner-x@example.org"),
                false,
                (Asked::Nobody, Unasked::Tell),
            ),
            (Some("a@example.org"), true, (Asked::Nobody, Unasked::Tell)),
            (
                Some("support-request@example.org"),
                true,
                (Asked::Sender, Unasked::Keep),
            ),
        ] {
            let sender = sender.map(address);
            assert_eq!(senders.judge(sender.as_ref(), by_header), expected);
        }
    }
}
