//! The socketmap protocol (pure; socketmap_table(5)): questions and answers as netstrings, `LENGTH:TEXT,`.

use std::io;

/// Octets of the longest question that is understood; smtp(8) cuts what servers say far below that.
const LONGEST: usize = 100_000;
/// Digits of a length.
const DIGITS: usize = 6;

/// The one answer that smtp(8) ever gets.
pub const NOT_FOUND: &[u8] = b"9:NOTFOUND ,";

/// What `posttls check` asks, and no table: which files does the process that asks keep a shared lock on?
pub const CHECK: &[u8] = b"check ";

/// A text as it goes over the connection.
pub fn netstring(text: &[u8]) -> Vec<u8> {
    [text.len().to_string().as_bytes(), b":", text, b","].concat()
}

/// An answer with a value.
pub fn found(value: &str) -> Vec<u8> {
    netstring(format!("OK {value}").as_bytes())
}

/// Questions, as they come in pieces.
#[derive(Debug, Default)]
pub struct Queries {
    pending: Vec<u8>,
}

impl Queries {
    /// Takes what was read.
    pub fn add(&mut self, octets: &[u8]) {
        self.pending.extend_from_slice(octets);
    }

    /// The next whole question: name of the table, a blank, and the key.
    ///
    /// # Errors
    /// When what came is no netstring, or a longer one than smtp(8) sends.
    pub fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "this is no socketmap question");
        let Some(colon) = self
            .pending
            .iter()
            .take(DIGITS + 1)
            .position(|octet| *octet == b':')
        else {
            return if self.pending.len() > DIGITS {
                Err(wrong())
            } else {
                Ok(None)
            };
        };
        let length = std::str::from_utf8(&self.pending[..colon]).ok();
        let length: usize = length
            .filter(|digits| digits.bytes().all(|octet| octet.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|length| *length <= LONGEST)
            .ok_or_else(wrong)?;
        let end = colon + 1 + length;
        match self.pending.get(end) {
            None => Ok(None),
            Some(b',') => {
                let query = self.pending[colon + 1..end].to_vec();
                self.pending.drain(..=end);
                Ok(Some(query))
            }
            Some(_) => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn questions_come_whole_whatever_the_pieces() {
        let wire = b"9:reply 220,0:,14:ehlo 192.0.2.1,".as_slice();
        for size in 1..wire.len() {
            let mut queries = Queries::default();
            let mut found = Vec::new();
            for piece in wire.chunks(size) {
                queries.add(piece);
                while let Some(query) = queries.take().unwrap() {
                    found.push(String::from_utf8(query).unwrap());
                }
            }
            assert_eq!(found, ["reply 220", "", "ehlo 192.0.2.1"]);
        }
    }

    #[test]
    fn what_is_no_netstring_or_too_long_is_refused() {
        for wire in ["x:", "3:abcd", "1234567", "999999:", "-1:", "+1:a,", ":,"] {
            let mut queries = Queries::default();
            queries.add(wire.as_bytes());
            assert!(queries.take().is_err(), "{wire}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20)) {
            let mut queries = Queries::default();
            for piece in pieces {
                queries.add(&piece);
                while let Ok(Some(_)) = queries.take() {}
            }
        }
    }
}
