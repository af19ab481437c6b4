//! Keeps the options of a message, above all SMTPUTF8, when cleanup(8) takes it in a second time.
//!
//! After `postsuper -r` cleanup reads the options from the old size record with `sscanf("%*s $*s %*s %*s %*s %d")`
//! (Postfix src/cleanup/cleanup_envelope.c; seen in 3.7.11). The dollar sign is a slip: no record that Postfix writes
//! ever matches. The message then goes out with addresses in UTF-8 and without SMTPUTF8, which servers refuse. A record
//! whose second field reads `$*s` matches that format, and also the one that was meant. Nobody else uses the field of
//! a file that waits to be taken in: cleanup writes a size record of its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::queue_file::Size;

/// Of each field of a size record; one blank stands between two (Postfix src/global/rec_type.h).
const WIDTH: usize = 15;
/// Where the second field stands in the file: behind type, length, first field and blank.
const SECOND: u64 = 2 + WIDTH as u64 + 1;

/// Makes the size record of a copy one whose options cleanup takes over. Nothing is done when it has none.
///
/// # Errors
/// When the file can't be read or written, or its second field is not the one that `size` was read from.
pub fn keep_options(copy: &File, size: &Size) -> io::Result<()> {
    if size.options.unwrap_or(0) == 0 {
        return Ok(());
    }
    let mut field = [0; WIDTH];
    copy.read_exact_at(&mut field, SECOND)?;
    if field != *format!("{:WIDTH$}", size.data_offset).as_bytes() {
        return Err(io::Error::other("the size record is laid out otherwise"));
    }
    copy.write_all_at(format!("{:>WIDTH$}", "$*s").as_bytes(), SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn kept(options: Option<u64>) -> String {
        let size = Size {
            data_size: 357,
            data_offset: 698,
            recipients: 1,
            flags: 0,
            content_length: 357,
            options,
        };
        let record = format!("C_{:15} {:15} {:15}", 357, 698, 1);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(record.as_bytes()).unwrap();
        keep_options(&file, &size).unwrap();
        let mut found = vec![0; record.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        String::from_utf8(found).unwrap()
    }

    #[test]
    fn only_a_record_with_options_is_changed_and_only_in_its_second_field() {
        let changed = "C_            357             $*s               1";
        assert_eq!(kept(Some(7)), changed);
        for none in [None, Some(0)] {
            assert_eq!(kept(none), changed.replace("$*s", "698"));
        }
    }

    #[test]
    fn another_layout_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[b' '; 60]).unwrap();
        let size = Size {
            data_size: 1,
            data_offset: 2,
            recipients: 1,
            flags: 0,
            content_length: 1,
            options: Some(1),
        };
        assert!(keep_options(&file, &size).is_err());
    }
}
