//! Mail addresses in the form in which Postfix keeps them in the queue file: unquoted, never empty, one line.
//!
//! Addresses come from strangers. They are made here once, at the border, and shown only through
//! [`crate::text::shown`], so that no control or direction character reaches a log, a mail or a page.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::octets;

/// Longer than any address that SMTP lets through (RFC 5321 section 4.5.3.1 allows 64 + 1 + 255 octets; Postfix allows
/// more in the local part), short enough to bound what strangers make us keep.
const MAX_OCTETS: usize = 1000;

/// An envelope address in internal (unquoted) form, such as `a b@example.org` for `"a b"@example.org`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

/// Text that is no mail address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a mail address: expected one line of 1 to {MAX_OCTETS} octets without control characters"
)]
pub struct BadAddress(pub String);

impl Address {
    /// Reads an address in the quoted form of mail headers and DSN fields: `"a b"@example.org`
    /// (RFC 5321 section 4.1.2, `Quoted-string`). Only the white space of ASCII around it is none of it.
    ///
    /// # Errors
    /// As [`Address::from_str`], on the unquoted form.
    pub fn from_quoted(text: &str) -> Result<Self, BadAddress> {
        Self::from_quoted_octets(&octets::of(text))
    }

    /// As [`Address::from_quoted`], of octets that need not be UTF-8.
    ///
    /// # Errors
    /// As [`Address::from_str`], on the unquoted form.
    pub fn from_quoted_octets(octets: &[u8]) -> Result<Self, BadAddress> {
        Self::from_octets(&unquoted(octets.trim_ascii()))
    }

    /// Reads an address as it stands in a queue file. Postfix takes any octets ([`octets`]).
    ///
    /// # Errors
    /// As [`Address::from_str`].
    pub fn from_octets(octets: &[u8]) -> Result<Self, BadAddress> {
        octets::text(octets).parse()
    }

    /// The octets in a queue file.
    pub fn octets(&self) -> Cow<'_, [u8]> {
        octets::of(&self.0)
    }

    /// The internal form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the last `@`, in lower case; empty when there is none.
    pub fn domain(&self) -> String {
        self.0
            .rsplit_once('@')
            .map_or_else(String::new, |(_, domain)| domain.to_lowercase())
    }

    /// Can it be written in SMTP? A domain cannot be quoted, so that what ends an address, or begins a parameter, has
    /// no place in it (RFC 5321 section 4.1.2), and octets that are not UTF-8 have none anywhere (RFC 6531 section 3.3);
    /// whatever else Postfix has accepted may stand there.
    pub fn is_writable(&self) -> bool {
        if octets::has_any(&self.0) {
            return false;
        }
        let Some((_, domain)) = self.0.rsplit_once('@') else {
            return true;
        };
        let literal = domain
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let inner = literal.unwrap_or(domain);
        !inner.is_empty()
            && !inner.contains(|c: char| c.is_whitespace() || "<>()[]\\,;\"".contains(c))
    }

    /// The form for SMTP and mail headers: the local part is quoted when it is no dot-atom.
    pub fn quoted(&self) -> String {
        let (local, domain) = match self.0.rsplit_once('@') {
            Some((local, domain)) => (local, Some(domain)),
            None => (self.0.as_str(), None),
        };
        let local = if is_dot_atom(local) {
            local.to_owned()
        } else {
            format!("\"{}\"", local.replace('\\', "\\\\").replace('"', "\\\""))
        };
        domain.map_or_else(|| local.clone(), |domain| format!("{local}@{domain}"))
    }
}

/// RFC 5322 section 3.2.3, with RFC 6532 letters.
fn is_dot_atom(local: &str) -> bool {
    !local.is_empty()
        && local.split('.').all(|atom| {
            !atom.is_empty()
                && atom.chars().all(|c| {
                    !c.is_ascii() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
                })
        })
}

fn unquoted(text: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(text.len());
    let mut quoted = false;
    let mut octets = text.iter().copied();
    while let Some(octet) = octets.next() {
        match octet {
            b'"' => quoted = !quoted,
            b'\\' => result.extend(octets.next()),
            _ => result.push(octet),
        }
    }
    if quoted { text.to_owned() } else { result }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let plausible =
            (1..=MAX_OCTETS).contains(&text.len()) && !text.chars().any(char::is_control);
        plausible
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| BadAddress(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Address {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, BadAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0
    }
}

/// As Postfix logs it between `<` and `>`, with characters that could mislead a reader made visible.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::text::shown(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_of_another_kind_is_part_of_the_address() {
        let address = Address::from_quoted(" bob\u{a0}@example.org \t").unwrap();
        assert_eq!(address.as_str(), "bob\u{a0}@example.org");
        let address = Address::from_quoted(" bob\u{a0}").unwrap();
        assert_eq!(address.as_str(), "bob\u{a0}");
    }

    #[test]
    fn quoting_is_undone_and_done_again() {
        for (quoted, internal) in [
            ("user@example.org", "user@example.org"),
            ("\"a b\"@example.org", "a b@example.org"),
            (r#""a\"b\\c"@example.org"#, r#"a"b\c@example.org"#),
            ("\"a@b\"@example.org", "a@b@example.org"),
            ("jürgen@müller.example", "jürgen@müller.example"),
        ] {
            let address = Address::from_quoted(quoted).unwrap();
            assert_eq!(address.as_str(), internal);
            assert_eq!(address.quoted(), quoted);
        }
    }

    #[test]
    fn only_what_would_end_the_address_cannot_be_written() {
        for text in [
            "root",
            "a@[192.0.2.1]",
            "a@[IPv6:2001:db8::1]",
            "a@b_c.test",
            "a@müller.example",
            "a> NOTIFY=NEVER@b.test",
        ] {
            assert!(text.parse::<Address>().unwrap().is_writable(), "{text}");
        }
        for text in ["a@b> NOTIFY=NEVER", "a@b c", "a@", "a@[b", "a@b,c"] {
            assert!(!text.parse::<Address>().unwrap().is_writable(), "{text}");
        }
    }

    #[test]
    fn octets_that_are_no_utf_8_stay_what_they_are() {
        for octets in [
            &b"j\xfcrgen@example.org"[..],
            "jürgen@m\u{85}.test".as_bytes(),
        ] {
            let address = Address::from_octets(octets).unwrap();
            assert_eq!(address.octets().as_ref(), octets);
            assert!(!address.is_writable());
        }
        // As Postfix writes a sender in a notice.
        let address = Address::from_quoted_octets(b" \"j\\\xfcr gen\"@b.test").unwrap();
        assert_eq!(address.octets().as_ref(), b"j\xfcr gen@b.test");
        assert_eq!(address.to_string(), "j\\xFCr gen@b.test");
        assert!(Address::from_octets(b"j\xfc\n@b").is_err());
    }

    #[test]
    fn line_breaks_and_empty_text_are_refused() {
        for text in ["", "a@b\r\nBcc: c@d", "a\0@b"] {
            assert!(text.parse::<Address>().is_err());
        }
        assert!("x".repeat(MAX_OCTETS + 1).parse::<Address>().is_err());
    }

    #[test]
    fn the_domain_is_what_follows_the_last_at_sign() {
        assert_eq!(
            "a@b@Example.ORG".parse::<Address>().unwrap().domain(),
            "example.org"
        );
        assert_eq!("postmaster".parse::<Address>().unwrap().domain(), "");
    }
}
