//! The link that opens a case (or all cases of a sender, or a remembered choice): a token signed with HMAC-SHA256.
//!
//! A token is base64url of: version (1 octet; it also says what is opened), key number (2), ID (8), expiry in Unix seconds (8), and the first
//! 20 octets of HMAC-SHA256 over all of these. The token is the only secret that a sender holds: who has it may decide
//! this one case, until it expires. Keys rotate by number: the first key of the file signs, every key of it verifies.
//! A forged token and one for a case that does not exist must look the same from outside; [`LinkError`] tells them
//! apart only for the log.

use std::fmt;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::case::{CaseId, ConsentId, SenderId};

const SIGNED: usize = 1 + 2 + 8 + 8;
const SIGNATURE: usize = 20;

/// Octets of a signing key (RFC 2104 section 3 advises the length of the hash).
pub const KEY_OCTETS: usize = 32;

/// What a link can open. The version octet is signed, so a link to one thing never opens another.
pub trait Linked: Copy {
    /// The first octet of its tokens.
    const VERSION: u8;
    /// From its number.
    fn from_number(number: i64) -> Self;
    /// Its number.
    fn number(self) -> i64;
}

macro_rules! linked {
    ($($name:ident = $version:literal),+) => { $(
        impl Linked for $name {
            const VERSION: u8 = $version;
            fn from_number(number: i64) -> Self {
                Self(number)
            }
            fn number(self) -> i64 {
                self.0
            }
        }
    )+ };
}
linked!(CaseId = 1, SenderId = 2, ConsentId = 3);

/// The signing keys.
#[derive(Clone)]
pub struct Keys {
    /// Never empty; the first one signs.
    keys: Vec<(u16, [u8; KEY_OCTETS])>,
}

/// Keys are never shown, not even by a debugging format.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} of them)", self.keys.len())
    }
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not the form of a token.
    #[error("not a token")]
    Malformed,
    /// A token of another version of PostTLS, or one that opens something else.
    #[error("token version {0}, expected {1}")]
    Version(u8, u8),
    /// Signed with a key that the key file no longer has.
    #[error("token signed with key {0}, which the key file does not have")]
    UnknownKey(u16),
    /// The signature is wrong.
    #[error("token with a wrong signature")]
    Forged,
    /// Genuine, but too old.
    #[error("token of {0} has expired")]
    Expired(i64),
}

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It can't be read.
    #[error("{path}: cannot read the link key: {source}; `posttls init` makes one")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line of it is wrong.
    #[error("{path}:{line}: expected a key number from 1 to 65535, a blank, and {} hexadecimal digits", KEY_OCTETS * 2)]
    Line {
        /// The file.
        path: String,
        /// Counted from one.
        line: usize,
    },
    /// It has no key.
    #[error("{0}: there is no key in it; `posttls init` makes one")]
    Empty(String),
}

impl Keys {
    /// Reads a key file: one key a line, `NUMBER HEX`; empty lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// When it can't be read, or holds anything else. No error shows a key.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let shown = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| KeyFileError::Unreadable {
            path: shown.clone(),
            source,
        })?;
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = parse_key(line).ok_or_else(|| KeyFileError::Line {
                path: shown.clone(),
                line: index + 1,
            })?;
            keys.push(key);
        }
        if keys.is_empty() {
            Err(KeyFileError::Empty(shown))
        } else {
            Ok(Self { keys })
        }
    }

    /// The line of a key file for a new key.
    pub fn line(number: u16, key: &[u8; KEY_OCTETS]) -> String {
        let hex: String = key.iter().map(|octet| format!("{octet:02x}")).collect();
        format!("{number} {hex}\n")
    }

    /// Makes the token that opens `id` until `expiry` (Unix seconds).
    pub fn sign<T: Linked>(&self, id: T, expiry: i64) -> String {
        let (number, key) = &self.keys[0];
        let mut token = vec![T::VERSION];
        token.extend_from_slice(&number.to_be_bytes());
        token.extend_from_slice(&id.number().to_be_bytes());
        token.extend_from_slice(&expiry.to_be_bytes());
        let signature = mac(key, &token).finalize().into_bytes();
        token.extend_from_slice(&signature[..SIGNATURE]);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// What `token` opens at the time `now` (Unix seconds).
    ///
    /// # Errors
    /// See [`LinkError`]. An expired token is told from a forged one only after its signature was found right.
    pub fn verify<T: Linked>(&self, token: &str, now: i64) -> Result<T, LinkError> {
        let octets = URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| LinkError::Malformed)?;
        let (signed, signature) = octets
            .split_at_checked(SIGNED)
            .ok_or(LinkError::Malformed)?;
        if signature.len() != SIGNATURE {
            return Err(LinkError::Malformed);
        }
        if signed[0] != T::VERSION {
            return Err(LinkError::Version(signed[0], T::VERSION));
        }
        let number = u16::from_be_bytes([signed[1], signed[2]]);
        let (_, key) = self
            .keys
            .iter()
            .find(|(known, _)| *known == number)
            .ok_or(LinkError::UnknownKey(number))?;
        mac(key, signed)
            .verify_truncated_left(signature)
            .map_err(|_| LinkError::Forged)?;
        let id = number_at(signed, 3)?;
        if number_at(signed, 11)? < now {
            return Err(LinkError::Expired(id));
        }
        Ok(T::from_number(id))
    }
}

fn mac(key: &[u8; KEY_OCTETS], data: &[u8]) -> Hmac<Sha256> {
    // RFC 2104 section 2: a key shorter than the block of the hash is filled up with zeros.
    let mut block = [0u8; 64];
    block[..KEY_OCTETS].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    mac.update(data);
    mac
}

fn number_at(octets: &[u8], at: usize) -> Result<i64, LinkError> {
    let octets = octets
        .get(at..at + 8)
        .and_then(|slice| slice.try_into().ok())
        .ok_or(LinkError::Malformed)?;
    Ok(i64::from_be_bytes(octets))
}

fn parse_key(line: &str) -> Option<(u16, [u8; KEY_OCTETS])> {
    let (number, hex) = line.split_once(' ')?;
    let number: u16 = number.parse().ok().filter(|number| *number > 0)?;
    let hex = hex.trim();
    if hex.len() != KEY_OCTETS * 2 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0u8; KEY_OCTETS];
    for (index, octet) in key.iter_mut().enumerate() {
        *octet = u8::from_str_radix(&hex[index * 2..index * 2 + 2], 16).ok()?;
    }
    Some((number, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(numbers: &[u16]) -> Keys {
        Keys {
            keys: numbers
                .iter()
                .map(|n| (*n, [*n as u8; KEY_OCTETS]))
                .collect(),
        }
    }

    #[test]
    fn a_key_file_is_read_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            file.path(),
            format!(
                "# rotated in June\n{}\n{}",
                Keys::line(2, &[7; 32]),
                Keys::line(1, &[9; 32])
            ),
        )
        .unwrap();
        let loaded = Keys::load(file.path()).unwrap();
        assert_eq!(loaded.keys, vec![(2, [7; 32]), (1, [9; 32])]);
        for wrong in ["1 abc\n", "0 00\n", "x\n", ""] {
            fs::write(file.path(), wrong).unwrap();
            let error = Keys::load(file.path()).unwrap_err().to_string();
            assert!(error.contains(&*file.path().to_string_lossy()), "{error}");
        }
    }

    #[test]
    fn an_old_key_still_opens_and_a_removed_one_does_not() {
        let token = keys(&[1]).sign(CaseId(5), 100);
        assert_eq!(keys(&[2, 1]).verify(&token, 50), Ok(CaseId(5)));
        assert_eq!(
            keys(&[2]).verify::<CaseId>(&token, 50),
            Err(LinkError::UnknownKey(1))
        );
    }

    #[test]
    fn a_link_to_one_thing_opens_nothing_else() {
        let keys = keys(&[1]);
        assert_eq!(
            keys.verify(&keys.sign(SenderId(5), 100), 50),
            Ok(SenderId(5))
        );
        for token in [keys.sign(SenderId(5), 100), keys.sign(ConsentId(5), 100)] {
            assert!(matches!(
                keys.verify::<CaseId>(&token, 50),
                Err(LinkError::Version(..))
            ));
        }
        let mut octets = URL_SAFE_NO_PAD.decode(keys.sign(CaseId(5), 100)).unwrap();
        octets[0] = 2;
        let changed = URL_SAFE_NO_PAD.encode(octets);
        assert_eq!(
            keys.verify::<SenderId>(&changed, 50),
            Err(LinkError::Forged)
        );
    }

    #[test]
    fn it_expires_after_its_last_second() {
        let token = keys(&[1]).sign(CaseId(5), 100);
        assert_eq!(keys(&[1]).verify(&token, 100), Ok(CaseId(5)));
        assert_eq!(
            keys(&[1]).verify(&token, 101),
            Err::<CaseId, _>(LinkError::Expired(5))
        );
    }

    #[test]
    fn another_key_of_the_same_number_does_not_open() {
        let other = Keys {
            keys: vec![(1, [99; KEY_OCTETS])],
        };
        assert_eq!(
            other.verify(&keys(&[1]).sign(CaseId(5), 100), 50),
            Err::<CaseId, _>(LinkError::Forged)
        );
    }

    proptest! {
        #[test]
        fn what_is_signed_is_verified(case in any::<i64>(), expiry in any::<i64>()) {
            let token = keys(&[3]).sign(CaseId(case), expiry);
            prop_assert_eq!(keys(&[3]).verify(&token, expiry), Ok(CaseId(case)));
        }

        #[test]
        fn one_changed_bit_opens_nothing(case in any::<i64>(), bit in 0usize..(SIGNED + SIGNATURE) * 8) {
            let token = keys(&[1]).sign(CaseId(case), i64::MAX);
            let mut octets = URL_SAFE_NO_PAD.decode(token).unwrap();
            octets[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(keys(&[1]).verify::<CaseId>(&URL_SAFE_NO_PAD.encode(octets), 0).is_err());
        }

        #[test]
        fn any_text_is_an_error(text in ".*") {
            prop_assert!(keys(&[1]).verify::<CaseId>(&text, 0).is_err());
        }
    }
}
