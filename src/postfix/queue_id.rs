//! Queue IDs, short and long, and the directory that Postfix hashes each into.
//!
//! Postfix reuses queue IDs, so one alone names a message only together with its sender and arrival time
//! (the store keeps all three).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The digits of Postfix's base 52 numbers in long queue IDs: no vowels, so that no words arise
/// (postconf(5), `enable_long_queue_ids`).
const BASE_52: &[u8] = b"0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz";

/// Seconds take six digits of a long queue ID, microseconds the four that follow.
const LONG_SECONDS: usize = 6;
const LONG_MICROSECONDS: usize = 4;
/// Hexadecimal digits of the microseconds, with which a short queue ID begins.
const SHORT_MICROSECONDS: usize = 5;

/// A Postfix queue ID: ASCII letters and digits only, so it is safe in a path, an argument list and a log line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueId(String);

/// Text that is no queue ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a Postfix queue ID: expected 6 to 64 letters and digits, as `mailq` shows")]
pub struct BadQueueId(pub String);

impl QueueId {
    /// The ID as Postfix logs it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The characters that Postfix hashes into subdirectories, one directory each, `hash_queue_depth` of them.
    ///
    /// For a short ID these are its first characters. For a long one they are those of the microseconds in five
    /// hexadecimal digits, because the first characters of a long ID hardly change (mail_queue.h, `MQID_LG_GET_HEX_USEC`).
    pub fn hash_characters(&self) -> String {
        self.microseconds_of_long_id().map_or_else(
            || self.0.clone(),
            |microseconds| format!("{microseconds:05X}"),
        )
    }

    /// Within which microsecond of a second the queue file was made (mail_queue.h; the seconds only a long ID has).
    /// `None` when the ID does not begin as Postfix's do.
    pub fn microseconds(&self) -> Option<u32> {
        let digits = self.hash_characters();
        u32::from_str_radix(digits.get(..SHORT_MICROSECONDS)?, 16).ok()
    }

    /// Microseconds within a long ID, or `None` for a short one: only a long ID has `z` after its time digits.
    fn microseconds_of_long_id(&self) -> Option<u32> {
        let time = LONG_SECONDS + LONG_MICROSECONDS;
        let separator = self.0.rfind('z')?;
        if separator < time {
            return None;
        }
        let digits = &self.0.as_bytes()[separator - LONG_MICROSECONDS..separator];
        digits.iter().try_fold(0u32, |sum, digit| {
            let value = BASE_52.iter().position(|known| known == digit)?;
            Some(sum * 52 + u32::try_from(value).ok()?)
        })
    }
}

impl FromStr for QueueId {
    type Err = BadQueueId;

    fn from_str(text: &str) -> Result<Self, BadQueueId> {
        let plausible =
            (6..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        plausible
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| BadQueueId(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for QueueId {
    type Error = BadQueueId;

    fn try_from(text: String) -> Result<Self, BadQueueId> {
        text.parse()
    }
}

impl From<QueueId> for String {
    fn from(id: QueueId) -> Self {
        id.0
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_options_are_no_queue_ids() {
        for text in [
            "",
            "ALL",
            "../../etc/passwd",
            "-d",
            "4ABC DEF",
            "4ABCDEF\n",
            "ÄÖÜABCDEF",
            "A.B.C.D",
        ] {
            assert_eq!(text.parse::<QueueId>(), Err(BadQueueId(text.to_owned())));
        }
    }

    #[test]
    fn a_short_id_hashes_by_its_first_characters() {
        assert_eq!(
            "3A41B12345".parse::<QueueId>().unwrap().hash_characters(),
            "3A41B12345"
        );
    }

    #[test]
    fn a_long_id_hashes_by_its_microseconds() {
        // 4dcB is 4·52³ + 33·52² + 32·52 + 10: the digits of Postfix's alphabet have gaps where the vowels are.
        let id: QueueId = "3Q2bNN4dcBz1xyz".parse::<QueueId>().unwrap();
        assert!(id.hash_characters().len() >= 5);
        let simple: QueueId = "4Zxyzb0010zBcd".parse().unwrap();
        assert_eq!(simple.hash_characters(), format!("{:05X}", 52));
    }

    #[test]
    fn both_kinds_say_when_in_a_second_the_file_was_made() {
        let microseconds = |id: &str| id.parse::<QueueId>().unwrap().microseconds();
        assert_eq!(microseconds("003D29A0111"), Some(0x3D2));
        assert_eq!(microseconds("F423F9A0111"), Some(999_999));
        assert_eq!(microseconds("4Zxyzb0010zBcd"), Some(52));
        assert_eq!(microseconds("nonsense"), None);
    }
}
