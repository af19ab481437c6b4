//! The envelope records of a queue file, gathered.
//!
//! Apart from [`super::queue_file`], which says in which order they stand; here is what each of them means.

use std::collections::HashSet;
use std::io::{Read, Seek};
use std::ops::Range;

use super::queue_file::{
    MAX_RECIPIENTS, QueueFile, QueueFileError, Recipient, RecipientState, Size,
};
use super::record::{Record, RecordReader};
use crate::address::Address;

/// What was found so far. The fields of `next` belong to the recipient whose record comes next.
#[derive(Default)]
pub(super) struct Envelope {
    arrival: Option<(i64, u32)>,
    sender: Option<Vec<u8>>,
    recipients: Vec<Recipient>,
    attributes: Vec<(String, Vec<u8>)>,
    redirect: Option<Vec<u8>>,
    filter: Option<Vec<u8>>,
    warn: Option<i64>,
    next: Next,
    followed: HashSet<u64>,
    /// What was read in one piece, from a pointer's target to the end of the next pointer.
    pieces: Vec<Range<u64>>,
    piece_start: u64,
}

#[derive(Default)]
struct Next {
    original: Option<Vec<u8>>,
    dsn_original: Option<Vec<u8>>,
    notify: Option<u8>,
}

impl Envelope {
    /// A pointer to 0 is a place holder that nobody used.
    pub fn follow<F: Read + Seek>(
        &mut self,
        record: &Record,
        content: &Range<u64>,
        reader: &mut RecordReader<F>,
    ) -> Result<(), QueueFileError> {
        let Some(target) = target(record, reader.length())? else {
            return Ok(());
        };
        if content.contains(&target) {
            return Err(QueueFileError::Pointer(record.offset, target));
        }
        if !self.followed.insert(record.offset) {
            return Err(QueueFileError::Loop(record.offset));
        }
        self.pieces.push(self.piece_start..reader.position());
        self.piece_start = target;
        Ok(reader.go_to(target)?)
    }

    pub fn take(&mut self, record: Record) -> Result<(), QueueFileError> {
        let second = QueueFileError::Second {
            offset: record.offset,
            kind: char::from(record.kind),
        };
        // Postfix reads no further than to a NUL: an attribute or an address would be another one to it, and it puts
        // such a file aside (queue `corrupt`), from where nobody gets it.
        if record.data.contains(&0) {
            return Err(record.malformed());
        }
        match record.kind {
            b'R' | b'D' | b'/' => self.recipient(record)?,
            b'T' if self.arrival.is_some() => return Err(second),
            b'T' => self.arrival = Some(time(&record.data).ok_or_else(|| record.malformed())?),
            b'S' if self.sender.is_some() => return Err(second),
            b'S' => self.sender = Some(record.data),
            b'O' => self.next.original = Some(record.data),
            b'o' => self.next.dsn_original = Some(record.data),
            b'n' => {
                self.next.notify = Some(notify(&record.data).ok_or_else(|| record.malformed())?)
            }
            b'A' => self.attribute(record)?,
            b'>' => self.redirect = Some(record.data),
            b'L' => self.filter = Some(record.data),
            b'W' => {
                // qmgr writes -1 once the notice has gone out.
                let text = std::str::from_utf8(&record.data).ok();
                let time = text.and_then(|text| text.trim().parse().ok());
                self.warn = Some(time.ok_or_else(|| record.malformed())?);
            }
            // Full name, inspector, VERP, killed records, creation time, DSN RET and ENVID as records, priority,
            // return-receipt, errors-to: known, of no use here, and they stay in the copy as they are.
            _ => {}
        }
        Ok(())
    }

    fn recipient(&mut self, record: Record) -> Result<(), QueueFileError> {
        if self.recipients.len() == MAX_RECIPIENTS {
            return Err(QueueFileError::TooManyRecipients);
        }
        let next = std::mem::take(&mut self.next);
        self.recipients.push(Recipient {
            offset: record.offset,
            state: match record.kind {
                b'R' => RecipientState::Pending,
                b'D' => RecipientState::Done,
                _ => RecipientState::Cancelled,
            },
            address: Address::from_octets(&record.data).ok(),
            bytes: record.data,
            original: next.original,
            dsn_original: next.dsn_original,
            notify: next.notify,
        });
        Ok(())
    }

    fn attribute(&mut self, record: Record) -> Result<(), QueueFileError> {
        let (name, value) = record
            .data
            .iter()
            .position(|b| *b == b'=')
            .and_then(|at| {
                let name = std::str::from_utf8(&record.data[..at]).ok()?.trim();
                let value = record.data[at + 1..].trim_ascii();
                (!name.is_empty()).then(|| (name.to_owned(), value.to_vec()))
            })
            .ok_or_else(|| record.malformed())?;
        match name.as_str() {
            "dsn_orig_rcpt" => self.next.dsn_original = Some(value),
            "notify_flags" => {
                self.next.notify = Some(notify(&value).ok_or_else(|| record.malformed())?)
            }
            _ => self.attributes.push((name, value)),
        }
        Ok(())
    }

    /// After the last record, which ends at `end`.
    pub fn complete(mut self, size: Size, end: u64) -> Result<QueueFile, QueueFileError> {
        self.pieces.push(self.piece_start..end);
        self.pieces.sort_unstable_by_key(|piece| piece.start);
        if let Some(pair) = self.pieces.windows(2).find(|two| two[0].end > two[1].start) {
            return Err(QueueFileError::Overlap(pair[1].start));
        }
        let found = self.recipients.len() as u64;
        if found != size.recipients {
            return Err(QueueFileError::Count(size.recipients, found));
        }
        Ok(QueueFile {
            size,
            arrival: self.arrival.ok_or(QueueFileError::Missing('T'))?,
            sender: self.sender.ok_or(QueueFileError::Missing('S'))?,
            recipients: self.recipients,
            attributes: self.attributes,
            redirect: self.redirect,
            filter: self.filter,
            warn: self.warn,
        })
    }
}

impl Record {
    pub(super) fn malformed(&self) -> QueueFileError {
        QueueFileError::Malformed {
            offset: self.offset,
            kind: char::from(self.kind),
        }
    }

    /// The type cannot stand where it does.
    pub(super) fn bad_type(&self) -> QueueFileError {
        QueueFileError::Type {
            offset: self.offset,
            kind: char::from(self.kind),
        }
    }
}

/// Five numbers, or six since Postfix 3.0, each right-justified in 15 columns.
pub(super) fn size(record: &Record, file_length: u64) -> Result<Size, QueueFileError> {
    let shown = || {
        let text: String = record
            .data
            .iter()
            .take(120)
            .map(|b| char::from(*b))
            .collect();
        QueueFileError::Size(format!("{:?} {text:?}", char::from(record.kind)))
    };
    if record.kind != b'C' {
        return Err(shown());
    }
    let text = std::str::from_utf8(&record.data).map_err(|_| shown())?;
    let numbers: Option<Vec<u64>> = text
        .split_ascii_whitespace()
        .map(|n| number(n.as_bytes()))
        .collect();
    let numbers = numbers.ok_or_else(shown)?;
    let (&[data_size, data_offset, recipients, flags, content_length], options) =
        numbers.split_first_chunk().ok_or_else(shown)?;
    let content_fits = data_offset > 0
        && data_size > 0
        && data_offset
            .checked_add(data_size)
            .is_some_and(|end| end < file_length);
    if options.len() > 1 || !content_fits {
        return Err(shown());
    }
    Ok(Size {
        data_size,
        data_offset,
        recipients,
        flags,
        content_length,
        options: options.first().copied(),
    })
}

/// Where a pointer record (`p`) leads in a file of `length` octets; `None` when it is a place kept for a pointer.
pub(super) fn target(pointer: &Record, length: u64) -> Result<Option<u64>, QueueFileError> {
    match number(&pointer.data) {
        Some(0) => Ok(None),
        Some(target) if target < length => Ok(Some(target)),
        Some(target) => Err(QueueFileError::Pointer(pointer.offset, target)),
        None => Err(pointer.malformed()),
    }
}

/// A decimal number with blanks around it.
fn number(data: &[u8]) -> Option<u64> {
    let digits = data.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `SECONDS MICROSECONDS`.
fn time(data: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(data).ok()?;
    let (seconds, microseconds) = text.trim().split_once(' ')?;
    let seconds = i64::try_from(number(seconds.as_bytes())?).ok()?;
    let microseconds = u32::try_from(number(microseconds.as_bytes())?).ok()?;
    (seconds > 0 && microseconds < 1_000_000).then_some((seconds, microseconds))
}

fn notify(data: &[u8]) -> Option<u8> {
    number(data).and_then(|bits| u8::try_from(bits).ok())
}
