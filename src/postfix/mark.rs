//! Turns recipients of a queue file from "to do" to "done", as a delivery agent does: one byte each
//! (Postfix src/global/deliver_completed.c).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PENDING: u8 = b'R';
const DONE: u8 = b'D';

/// Why no recipient was marked.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The file is not the one that was read, or was changed since.
    #[error("no recipient record at offset {offset}, but the octet {found:?}: nothing was marked")]
    NoRecipient {
        /// Where.
        offset: u64,
        /// What stands there.
        found: char,
    },
    /// From the file. Some of the marks may have been written; to call again is safe.
    #[error("cannot mark recipients as done: {0}")]
    Io(#[from] io::Error),
}

/// Marks the recipients whose records begin at `offsets` as done, and says how many were not yet. The caller holds the
/// lock, and sees to it that the marks are on disk. To call it again is harmless.
///
/// # Errors
/// [`MarkError::NoRecipient`] before anything was written, when one of the offsets is that of no recipient record.
pub fn mark_done(file: &File, offsets: &[u64]) -> Result<usize, MarkError> {
    let mut pending = Vec::with_capacity(offsets.len());
    for &offset in offsets {
        let mut kind = [0];
        file.read_exact_at(&mut kind, offset)?;
        match kind[0] {
            PENDING => pending.push(offset),
            DONE => {}
            other => {
                return Err(MarkError::NoRecipient {
                    offset,
                    found: char::from(other),
                });
            }
        }
    }
    pending.sort_unstable();
    pending.dedup();
    for &offset in &pending {
        file.write_all_at(&[DONE], offset)?;
    }
    Ok(pending.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_recipients_are_marked_and_twice_is_once() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"R.D.R.S").unwrap();
        assert!(matches!(
            mark_done(&file, &[0, 6]),
            Err(MarkError::NoRecipient {
                offset: 6,
                found: 'S'
            })
        ));
        assert!(matches!(mark_done(&file, &[0, 99]), Err(MarkError::Io(_))));
        assert_eq!(mark_done(&file, &[0, 2, 4, 0]).unwrap(), 2);
        assert_eq!(mark_done(&file, &[0, 2, 4]).unwrap(), 0);
        let mut content = [0; 7];
        file.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(&content, b"D.D.D.S");
    }
}
