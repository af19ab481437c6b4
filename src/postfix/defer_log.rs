//! The defer log of a message, `defer/<hash>/QUEUE-ID`: which recipients the last attempt deferred, and why.
//!
//! Lines `name=value`, a blank line between recipients (Postfix src/bounce/bounce_append_service.c). Postfix removes
//! the file when the next attempt begins, and appends to it while the attempt lasts; so a missing file or an unfinished
//! last record means "ask again later", and the reader is forgiving where [`super::QueueFile`] is strict.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rustix::fs::OFlags;

use super::{Instance, QueueId};
use crate::address::Address;
use crate::text::readable;

/// Characters kept of a reason.
const MAX_TEXT: usize = 1000;

/// What Postfix keeps about a message beside its queue file; both in the same form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// What the last attempt deferred.
    Defer,
    /// What is to be returned to the sender.
    Bounce,
}

impl Log {
    /// The directory below the queue directory.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Defer => "defer",
            Self::Bounce => "bounce",
        }
    }
}

impl Instance {
    /// The path of a message's log.
    pub fn log_path(&self, log: Log, id: &QueueId) -> PathBuf {
        self.directory(log.as_str(), id).join(id.as_str())
    }

    /// Opens a message's log for reading. `None` when there is none (now).
    ///
    /// # Errors
    /// When it is there and can't be opened.
    pub fn open_log(&self, log: Log, id: &QueueId) -> io::Result<Option<File>> {
        // Should it be anything but a file, opening must not wait for it, nor follow it elsewhere.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(flags.bits()).map_err(io::Error::other)?)
            .open(self.log_path(log, id));
        match file {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// One deferred recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferral {
    /// The recipient (`recipient`), unquoted. Postfix writes it in quoted form.
    pub recipient: Address,
    /// Its address before alias expansion (`original_recipient`), if another one.
    pub original_recipient: Option<Address>,
    /// Where its record's type byte stands in the queue file (`offset`): the surest match with
    /// [`super::Recipient::offset`], as addresses are written with `?` for what is not printable.
    pub offset: Option<u64>,
    /// `status`: an enhanced status code (RFC 3463); `4.0.0` when there is none, as Postfix assumes.
    pub status: String,
    /// `action`: `delayed`, as a rule.
    pub action: String,
    /// `diag_type` and `diag_text`: whose words, and the words; `smtp` for the server's, empty for what can't be read.
    /// Absent when Postfix's own reason is all there is.
    pub diagnostic: Option<(String, String)>,
    /// `mta_name`: the server that answered.
    pub remote_mta: Option<String>,
    /// `reason`: what Postfix logged. One plain line.
    pub reason: String,
}

/// The recipients of a defer log; [`crate::notice::classify_deferral`] judges each. Passed over are records without a usable address, lines in the form of Postfix
/// before 2.3, and a last record without its blank line, which Postfix is writing or which was cut off.
pub fn deferrals(log: &[u8]) -> impl Iterator<Item = Deferral> {
    let mut lines = log.split_inclusive(|b| *b == b'\n');
    std::iter::from_fn(move || {
        let mut record = Vec::new();
        for line in lines.by_ref() {
            let line = line.strip_suffix(b"\n")?;
            if !line.is_empty() {
                record.push(line);
            } else if !record.is_empty() {
                match deferral(&record) {
                    Some(found) => return Some(found),
                    None => record.clear(),
                }
            }
        }
        None
    })
}

fn deferral(lines: &[&[u8]]) -> Option<Deferral> {
    // The last line of a name counts, also when it can't be read: an earlier one does not stand in for it.
    let octets = |name: &str| {
        lines.iter().rev().find_map(|line| {
            let at = line.iter().position(|octet| *octet == b'=')?;
            let value = line[at + 1..].trim_ascii();
            let is_it = line[..at].trim_ascii() == name.as_bytes();
            (is_it && !value.is_empty()).then_some(value)
        })
    };
    let value = |name: &str| octets(name).and_then(|value| std::str::from_utf8(value).ok());
    let text = |name: &str| value(name).map(|text| readable(text, MAX_TEXT));
    let address = |name: &str| Address::from_quoted_octets(octets(name)?).ok();
    // Words of somebody whom we can't tell are not Postfix's own.
    let somebodys = octets("diag_type").is_some() || octets("diag_text").is_some();
    Some(Deferral {
        recipient: address("recipient")?,
        original_recipient: address("original_recipient"),
        offset: value("offset").and_then(|offset| offset.parse().ok()),
        status: text("status").unwrap_or_else(|| "4.0.0".to_owned()),
        action: text("action").unwrap_or_else(|| "delayed".to_owned()),
        diagnostic: somebodys.then(|| {
            let (kind, words) = (text("diag_type"), text("diag_text"));
            (kind.unwrap_or_default(), words.unwrap_or_default())
        }),
        remote_mta: text("mta_name"),
        reason: text("reason").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOG: &str = "\n<a@b.test>: old style\nrecipient=a@b.test\noffset=417\ndsn_orig_rcpt=rfc822;x@b.test\n\
        status=4.7.4\naction=delayed\nreason=TLS is required, but was not offered by host mx[192.0.2.1]\n\n\n\
        recipient=\"c d\"@e.test\noriginal_recipient=o@e.test\noffset=502\nstatus=4.7.0\naction=delayed\n\
        diag_type=smtp\ndiag_text=454 no = no\nmta_type=dns\nmta_name=mx.e.test\n\
        reason=delivery temporarily suspended: TLS is required, but host mx[192.0.2.1] refused to start TLS: 454\n\n\
        recipient=<>\nstatus=4.4.1\nreason=x\n\nrecipient=f@g.test\nstatus=4.4.1\nreason=Connection refu";

    #[test]
    fn every_finished_record_is_read() {
        let found: Vec<_> = deferrals(LOG.as_bytes()).collect();
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].offset, &found[0].diagnostic), (Some(417), &None));
        assert_eq!(found[1].recipient.as_str(), "c d@e.test");
        let words = ("smtp".to_owned(), "454 no = no".to_owned());
        assert_eq!(found[1].diagnostic, Some(words));
        assert_eq!(found[1].remote_mta.as_deref(), Some("mx.e.test"));
        assert!(found[1].reason.ends_with("refused to start TLS: 454"));
    }

    #[test]
    fn what_cannot_be_read_does_not_give_way_to_something_else() {
        let read = |record: &[u8]| {
            let log = [b"recipient=a@b.test\n", record, b"\n\n"].concat();
            deferrals(&log).next().unwrap()
        };
        let found = read(b"status=4.7.801\nstatus=4.4.\xff\nreason=first\nreason=\xff");
        assert_eq!(
            (found.status.as_str(), found.reason.as_str()),
            ("4.0.0", "")
        );
        let words = |kind: &str, text: &str| Some((kind.to_owned(), text.to_owned()));
        for (record, expected) in [
            (&b"diag_type=smtp\ndiag_text=\xff"[..], words("smtp", "")),
            (b"diag_type=smtp", words("smtp", "")),
            (b"diag_type=\xff\ndiag_text=454 no", words("", "454 no")),
            (b"diag_text=454 no", words("", "454 no")),
            (b"status=4.7.0", None),
        ] {
            assert_eq!(read(record).diagnostic, expected);
        }
    }

    #[test]
    fn any_cut_leaves_the_records_before_it() {
        let whole: Vec<_> = deferrals(LOG.as_bytes()).collect();
        for cut in 0..LOG.len() {
            let found: Vec<_> = deferrals(&LOG.as_bytes()[..cut]).collect();
            assert_eq!(found, whole[..found.len()]);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "[recipnt=@\n.]{0,80}") {
            let _ = deferrals(&bytes).count();
            let _ = deferrals(text.as_bytes()).count();
        }
    }
}
