//! The content of a message in its queue file: can it be read from its beginning to its end?
//!
//! Apart from [`super::queue_file`], which passes the content over: only what is about to be moved is worth reading whole.
//! Postfix's delivery agents read it in the same way (Postfix src/global/mail_copy.c), and put a message aside as corrupt,
//! for nobody to get, when a record is not as they expect.

use std::collections::HashSet;
use std::io::{Read, Seek};

use super::envelope::target;
use super::queue_file::{QueueFileError, Size};
use super::record::RecordReader;

/// Goes through all records of the content, where milters' pointers lead, too. What is in the lines is no matter.
///
/// # Errors
/// [`QueueFileError`] names the record that no delivery agent would take.
pub fn check_content(file: impl Read + Seek, size: &Size) -> Result<(), QueueFileError> {
    let mut reader = RecordReader::new(file)?;
    reader.go_to(size.data_offset)?;
    let end = size.data_offset + size.data_size;
    let mut followed = HashSet::new();
    loop {
        let head = reader.head()?;
        match head.kind {
            b'N' | b'L' | b'w' => reader.pass_over(&head)?,
            b'p' => {
                let record = reader.data(head)?;
                if let Some(target) = target(&record, reader.length())? {
                    if !followed.insert(record.offset) {
                        return Err(QueueFileError::Loop(record.offset));
                    }
                    reader.go_to(target)?;
                }
            }
            b'X' if head.offset == end => return Ok(()),
            b'X' => return Err(QueueFileError::Content(head.offset, end)),
            kind => {
                let (offset, kind) = (head.offset, char::from(kind));
                return Err(QueueFileError::Type { offset, kind });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn check(content: &[u8], data_size: u64) -> Result<(), QueueFileError> {
        let size = Size {
            data_size,
            data_offset: 3,
            recipients: 0,
            flags: 0,
            content_length: 1,
            options: None,
        };
        check_content(Cursor::new([b"...", content].concat()), &size)
    }

    #[test]
    fn lines_lead_to_the_end_and_pointers_there_and_back() {
        assert!(check(b"N\x01aL\x02bcN\x00X\x00", 9).is_ok());
        // A line of the heap in the middle.
        assert!(check(b"N\x01ap\x0225X\x00N\x02hip\x0210", 7).is_err());
        assert!(check(b"N\x01ap\x0212X\x00N\x02hip\x0210", 7).is_ok());
    }

    #[test]
    fn what_no_delivery_agent_would_take_is_named() {
        for (content, data_size, expected) in [
            (&b"N\x01aO\x00X\x00"[..], 5, "type 'O', which cannot stand"),
            (b"N\x01aX\x00", 4, "6 instead of 7"),
            (b"N\x09aX\x00", 3, "within or before the record at offset 3"),
            (b"p\x013X\x00", 3, "has a loop"),
            (b"p\x0299X\x00", 4, "leads to 99"),
            (b"p\x01xX\x00", 3, "malformed"),
        ] {
            let error = check(content, data_size).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} instead of {expected}");
        }
    }
}
