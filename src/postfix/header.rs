//! The header of a message, out of its queue file.
//!
//! Apart from [`super::queue_file`], which passes the content over. Content records may be cut and patched by milters, so
//! pointers are followed here, too; whatever a file says, the work is bounded.

use std::io::{Read, Seek};

use super::envelope::target;
use super::queue_file::{QueueFileError, Size};
use super::record::RecordReader;

/// Octets of header that are read. What people recognise a message by stands before that.
const MAX_HEADER: usize = 256 << 10;

/// Records that are read, pointers and padding included.
const MAX_RECORDS: usize = 20_000;

/// The header with a newline after each line, without the blank line that ends it. Of a header over 256 KiB the
/// beginning.
///
/// # Errors
/// When the records can't be read, or a pointer leads out of the file.
pub fn header(file: impl Read + Seek, size: &Size) -> Result<Vec<u8>, QueueFileError> {
    let mut reader = RecordReader::new(file)?;
    reader.go_to(size.data_offset)?;
    let mut text = Vec::new();
    let mut line_begins = true;
    for _ in 0..MAX_RECORDS {
        let record = reader.read()?;
        match record.kind {
            b'N' if line_begins && record.data.is_empty() => break,
            b'N' | b'L' => {
                text.extend(&record.data);
                line_begins = record.kind == b'N';
                if line_begins {
                    text.push(b'\n');
                }
            }
            b'p' => {
                if let Some(target) = target(&record, reader.length())? {
                    reader.go_to(target)?;
                }
            }
            b'w' => {}
            // The content has ended: it is all header.
            _ => break,
        }
        if text.len() >= MAX_HEADER {
            break;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn record(kind: u8, data: &[u8]) -> Vec<u8> {
        [&[kind, u8::try_from(data.len()).unwrap()][..], data].concat()
    }

    fn read(content: &[u8]) -> Result<String, QueueFileError> {
        let size = Size {
            data_size: 1,
            data_offset: 3,
            recipients: 0,
            flags: 0,
            content_length: 1,
            options: None,
        };
        let file = [b"...", content].concat();
        header(Cursor::new(file), &size).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn lines_are_joined_and_pointers_followed() {
        // A milter has replaced the second line: a pointer to the heap, and one back.
        let line = record(b'N', b"From: a@b");
        let pointer = |to: usize| record(b'p', format!("{to:15}").as_bytes());
        let cut = [record(b'L', b"Subject: lo"), record(b'N', b"ng")].concat();
        let end = [record(b'N', b""), record(b'N', b"body"), record(b'X', b"")].concat();
        let back = 3 + line.len() + 17;
        let heap = back + cut.len() + end.len();
        let content = [
            line,
            pointer(heap),
            cut,
            end,
            record(b'N', b"X-New: 1"),
            pointer(back),
        ]
        .concat();
        let expected = "From: a@b\nX-New: 1\nSubject: long\n";
        assert_eq!(read(&content).unwrap(), expected);
    }

    #[test]
    fn a_loop_ends_and_a_pointer_out_of_the_file_is_an_error() {
        assert_eq!(read(&record(b'p', b"              3")).unwrap(), "");
        assert!(matches!(
            read(&record(b'p', b"             99")),
            Err(QueueFileError::Pointer(3, 99))
        ));
        assert_eq!(read(&record(b'X', b"")).unwrap(), "");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let size = Size { data_size: 1, data_offset: 0, recipients: 0, flags: 0, content_length: 1, options: None };
            let _ = header(Cursor::new(bytes), &size);
        }
    }
}
