//! The records of a queue file, one by one: type byte, length in 7-bit groups with the low ones first, data
//! (Postfix src/global/record.c).
//!
//! Apart from [`super::queue_file`] because here stand the bounds that keep any bytes whatever from costing memory or
//! time: no record is read before it is known to lie within the file, and the sum of all is limited.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// Longest envelope record, in octets. Postfix cuts at `line_length_limit`, 2048 by default.
const MAX_RECORD: u64 = 256 << 10;

/// All envelope records of one file together, with their lengths and types, in octets.
const MAX_TOTAL: u64 = 256 << 20;

/// Groups of 7 bits in a length: Postfix stops at the width of an `int`.
const MAX_LENGTH_OCTETS: u32 = 5;

/// Why the records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// From the file.
    #[error("cannot read the queue file: {0}")]
    Io(#[from] io::Error),
    /// The file ends where a record should begin or go on.
    #[error("the queue file ends within or before the record at offset {0}")]
    Truncated(u64),
    /// Over 5 octets of length, or over 256 KiB.
    #[error("the record at offset {0} is longer than any that Postfix writes")]
    TooLong(u64),
    /// Over 256 MiB.
    #[error("the envelope of the queue file exceeds the limit of {MAX_TOTAL} octets")]
    TooMuch,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where its type byte stands, in octets from the start of the file.
    pub offset: u64,
    /// Its type (Postfix src/global/rec_type.h).
    pub kind: u8,
    /// Its data, without the length.
    pub data: Vec<u8>,
}

/// How a record begins.
pub(super) struct Head {
    /// Where its type byte stands.
    pub offset: u64,
    /// Its type.
    pub kind: u8,
    /// Octets of its data.
    pub length: u64,
}

/// Reads records from a position that can be moved.
pub struct RecordReader<F> {
    file: BufReader<F>,
    position: u64,
    length: u64,
    total: u64,
}

impl<F: Read + Seek> RecordReader<F> {
    /// Starts at the beginning of the file.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn new(mut file: F) -> Result<Self, RecordError> {
        let length = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        Ok(Self {
            file: BufReader::new(file),
            position: 0,
            length,
            total: 0,
        })
    }

    /// The size of the file, in octets.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Where the next record begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes to an offset.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn go_to(&mut self, offset: u64) -> Result<(), RecordError> {
        self.file.seek(SeekFrom::Start(offset))?;
        self.position = offset;
        Ok(())
    }

    /// Reads the next record, whatever its type.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn read(&mut self) -> Result<Record, RecordError> {
        let head = self.head()?;
        self.data(head)
    }

    /// Reads type and length of the next record; [`Self::data`] or [`Self::pass_over`] must follow.
    pub(super) fn head(&mut self) -> Result<Head, RecordError> {
        let offset = self.position;
        let kind = self.octet(offset)?;
        let length = self.record_length(offset)?;
        if length > MAX_RECORD {
            return Err(RecordError::TooLong(offset));
        }
        if self.position + length > self.length {
            return Err(RecordError::Truncated(offset));
        }
        Ok(Head {
            offset,
            kind,
            length,
        })
    }

    /// Reads the data of the record that begins with `head`.
    pub(super) fn data(&mut self, head: Head) -> Result<Record, RecordError> {
        let Head {
            offset,
            kind,
            length,
        } = head;
        let end = self.position + length;
        self.total += end - offset;
        if self.total > MAX_TOTAL {
            return Err(RecordError::TooMuch);
        }
        let size = usize::try_from(length).map_err(|_| RecordError::TooLong(offset))?;
        let mut data = vec![0; size];
        self.file
            .read_exact(&mut data)
            .map_err(|e| at_end(e, offset))?;
        self.position = end;
        Ok(Record { offset, kind, data })
    }

    /// Goes to the record behind the one that begins with `head`.
    pub(super) fn pass_over(&mut self, head: &Head) -> Result<(), RecordError> {
        let length = i64::try_from(head.length).map_err(|_| RecordError::TooLong(head.offset))?;
        self.file.seek_relative(length)?;
        self.position += head.length;
        Ok(())
    }

    fn record_length(&mut self, offset: u64) -> Result<u64, RecordError> {
        let mut length = 0;
        for group in 0..MAX_LENGTH_OCTETS {
            let octet = self.octet(offset)?;
            length |= u64::from(octet & 0x7f) << (7 * group);
            if octet & 0x80 == 0 {
                return Ok(length);
            }
        }
        Err(RecordError::TooLong(offset))
    }

    fn octet(&mut self, offset: u64) -> Result<u8, RecordError> {
        let mut octet = [0];
        self.file
            .read_exact(&mut octet)
            .map_err(|e| at_end(e, offset))?;
        self.position += 1;
        Ok(octet[0])
    }
}

fn at_end(error: io::Error, offset: u64) -> RecordError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        RecordError::Truncated(offset)
    } else {
        RecordError::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn lengths_have_their_low_groups_first() {
        let mut bytes = vec![b'A', 0xac, 0x02];
        bytes.extend([b'x'; 300]);
        let mut reader = RecordReader::new(Cursor::new(bytes)).unwrap();
        let record = reader.read().unwrap();
        assert_eq!(
            (record.offset, record.kind, record.data.len()),
            (0, b'A', 300)
        );
        assert!(matches!(reader.read(), Err(RecordError::Truncated(303))));
    }

    #[test]
    fn lengths_that_lie_cost_nothing() {
        for bytes in [
            &[b'A', 0xff, 0xff, 0xff, 0xff, 0x7f][..],
            &[b'A', 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
        ] {
            let mut reader = RecordReader::new(Cursor::new(bytes)).unwrap();
            assert!(matches!(reader.read(), Err(RecordError::TooLong(0))));
        }
        let mut reader = RecordReader::new(Cursor::new(&[b'A', 0x05, b'x'][..])).unwrap();
        assert!(matches!(reader.read(), Err(RecordError::Truncated(0))));
    }
}
