//! A queue file's envelope: who sent it, when, and which recipients are still to do.
//!
//! The reader goes through the file as qmgr does (Postfix src/qmgr/qmgr_message.c), but is stricter: what it does not
//! understand is an error, because the mover turns every recipient outside a choice to "done", and one that this
//! reader missed would go out in plain text unasked. So also the count of recipients must be the declared one.
//!
//! The order in a file: `C` size · envelope records · `M` · content · `X` · extracted records · `E` · a heap, where
//! milters' changes lie. A pointer record `p` leads into the heap and another one back.

use std::io::{Read, Seek};

use super::envelope::{Envelope, size};
use super::record::{RecordError, RecordReader};
use crate::address::Address;

/// More than any message has; qmgr's own limit of recipients in memory is 20,000.
pub(super) const MAX_RECIPIENTS: usize = 1_000_000;

/// Which types may stand before the content, and after it (Postfix src/global/rec_type.h). `p`, a pointer, and `w`,
/// padding, may stand anywhere.
const IN_ENVELOPE: &[u8] = b"TcFILSDRO/WVA>K<ionM";
const IN_EXTRACTED: &[u8] = b"DRO/PreAFILV>KonE";

/// Why a queue file is not understood. Offsets are octets from the start of the file.
#[derive(Debug, thiserror::Error)]
pub enum QueueFileError {
    /// See there.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The file does not begin with a size record, or its fields are not those of Postfix 2.4 and later.
    #[error("the queue file does not begin with a size record that PostTLS knows: {0}")]
    Size(String),
    /// Not known, or not allowed in this part of the file.
    #[error("the record at offset {offset} has type {kind:?}, which cannot stand there")]
    Type {
        /// Where.
        offset: u64,
        /// The type.
        kind: char,
    },
    /// Its data is not as Postfix writes it.
    #[error("the {kind:?} record at offset {offset} is malformed")]
    Malformed {
        /// Where.
        offset: u64,
        /// The type.
        kind: char,
    },
    /// It may stand in a file once.
    #[error("the {kind:?} record at offset {offset} is the second one of its kind")]
    Second {
        /// Where.
        offset: u64,
        /// The type.
        kind: char,
    },
    /// The content is not where the size record says.
    #[error("the content does not lie where the size record says: {0} instead of {1}")]
    Content(u64, u64),
    /// Out of the file, or into the content.
    #[error("the pointer at offset {0} leads to {1}, where no envelope record can be")]
    Pointer(u64, u64),
    /// Followed once already.
    #[error("the pointer at offset {0} was followed before: the file has a loop")]
    Loop(u64),
    /// Pointers lead twice to the same octets: a mark in one record would change another one.
    #[error(
        "the records from offset {0} on overlap others: a pointer leads into the middle of something"
    )]
    Overlap(u64),
    /// Without it the file is not one of Postfix's.
    #[error("the queue file has no {0:?} record")]
    Missing(char),
    /// The declared count and the one found.
    #[error("the size record declares {0} recipients, but the file has {1}")]
    Count(u64, u64),
    /// Over one million.
    #[error("the queue file has more than {MAX_RECIPIENTS} recipients")]
    TooManyRecipients,
}

/// The size record `C`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Octets from the start of the content to the `X` record, with the records' own overhead.
    pub data_size: u64,
    /// Where the content starts.
    pub data_offset: u64,
    /// Recipients, whatever their state.
    pub recipients: u64,
    /// qmgr's hints (Postfix src/global/qmgr_user.h).
    pub flags: u64,
    /// Octets of content, as Postfix logs it (`size=`).
    pub content_length: u64,
    /// Options such as SMTPUTF8 (Postfix 3.0 and later: src/global/smtputf8.h, sendopts.h).
    pub options: Option<u64>,
}

/// The message was sent with REQUIRETLS (RFC 8689; src/global/sendopts.h, Postfix 3.11 and later).
const REQUIRE_TLS: u64 = 1 << 5;

impl Size {
    /// Must the message never be sent without TLS, whatever anybody says?
    pub fn requires_tls(&self) -> bool {
        self.options
            .is_some_and(|options| options & REQUIRE_TLS != 0)
    }
}

/// Whether a recipient is still to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipientState {
    /// `R`: to be delivered.
    Pending,
    /// `D`: delivered, bounced or moved.
    Done,
    /// `/`: taken out by a milter.
    Cancelled,
}

/// A recipient of a queue file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Where the type byte of its record stands: what [`super::mark_done`] takes, and what the defer log calls `offset`.
    pub offset: u64,
    /// Whether it is still to do.
    pub state: RecipientState,
    /// The address as it stands there, in internal form.
    pub bytes: Vec<u8>,
    /// The same, unless it is no [`Address`]. Such a recipient can be matched only by offset.
    pub address: Option<Address>,
    /// `O`: the address before alias expansion, as it stands there.
    pub original: Option<Vec<u8>>,
    /// `dsn_orig_rcpt`: ORCPT (RFC 3461), `type;address` with its xtext undone.
    pub dsn_original: Option<Vec<u8>>,
    /// `notify_flags`: NOTIFY (RFC 3461) in Postfix's bits: 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY.
    pub notify: Option<u8>,
}

/// What a queue file says before and after the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFile {
    /// The size record.
    pub size: Size,
    /// Arrival (`T`): Unix seconds and microseconds.
    pub arrival: (i64, u32),
    /// The envelope sender (`S`) in internal form; empty for the null sender.
    pub sender: Vec<u8>,
    /// All recipients, in qmgr's order.
    pub recipients: Vec<Recipient>,
    /// Named attributes (`A`) that belong to no recipient, in their order.
    pub attributes: Vec<(String, Vec<u8>)>,
    /// `>`: the one address to which qmgr sends the message *instead of* its recipients.
    pub redirect: Option<Vec<u8>>,
    /// `L`: the content filter to which qmgr sends the message first.
    pub filter: Option<Vec<u8>>,
    /// `W`: when the next delay notice is due, in Unix seconds; -1 after it was sent, `None` for the null sender.
    pub warn: Option<i64>,
}

impl QueueFile {
    /// Reads the envelope; the content is passed over.
    ///
    /// # Errors
    /// [`QueueFileError`] names what is not understood, and where.
    pub fn read(file: impl Read + Seek) -> Result<Self, QueueFileError> {
        let mut reader = RecordReader::new(file)?;
        let size = size(&reader.read()?, reader.length())?;
        let mut parts = Envelope::default();
        let content = size.data_offset..size.data_offset + size.data_size;
        let mut allowed = IN_ENVELOPE;
        loop {
            let record = reader.read()?;
            match record.kind {
                b'p' => parts.follow(&record, &content, &mut reader)?,
                b'w' => {}
                kind if !allowed.contains(&kind) => return Err(record.bad_type()),
                b'M' => {
                    if reader.position() != content.start {
                        return Err(QueueFileError::Content(reader.position(), content.start));
                    }
                    reader.go_to(content.end)?;
                    let extracted = reader.read()?;
                    if extracted.kind != b'X' {
                        return Err(extracted.bad_type());
                    }
                    allowed = IN_EXTRACTED;
                }
                b'E' => return parts.complete(size, reader.position()),
                _ => parts.take(record)?,
            }
        }
    }

    /// The last value of a named attribute: later ones override earlier ones.
    pub fn attribute(&self, name: &str) -> Option<&[u8]> {
        let mut named = self
            .attributes
            .iter()
            .rev()
            .filter(|(known, _)| known == name);
        named.next().map(|(_, value)| value.as_slice())
    }

    /// The recipients that are still to do.
    pub fn pending(&self) -> impl Iterator<Item = &Recipient> {
        self.recipients
            .iter()
            .filter(|r| r.state == RecipientState::Pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn record(kind: char, data: &[u8]) -> Vec<u8> {
        assert!(data.len() < 128);
        [&[kind as u8, data.len() as u8], data].concat()
    }

    /// A file with these records before `M` and after `X`, and behind `E` a heap.
    fn file(
        recipients: usize,
        envelope: &[Vec<u8>],
        extracted: &[Vec<u8>],
        heap: &[u8],
    ) -> Vec<u8> {
        let envelope = [
            &[record('T', b"1787299200 17")][..],
            &[record('S', b"a@b")],
            envelope,
        ]
        .concat()
        .concat();
        let content = [record('N', b"Subject: R"), record('p', b"              0")].concat();
        let data_offset = 81 + envelope.len() + 2;
        let size = format!(
            "{:15} {data_offset:15} {recipients:15} {:15} {:15}",
            content.len(),
            0,
            10
        );
        let start = [
            record('C', size.as_bytes()),
            envelope,
            record('M', b""),
            content,
        ]
        .concat();
        [
            start,
            record('X', b""),
            extracted.concat(),
            record('E', b""),
            heap.to_vec(),
        ]
        .concat()
    }

    fn read(bytes: &[u8]) -> Result<QueueFile, QueueFileError> {
        QueueFile::read(Cursor::new(bytes))
    }

    #[test]
    fn a_nul_is_refused_wherever_postfix_would_stop_reading() {
        for kind in ['A', 'O', 'R', 'D', 'F', 'o'] {
            let with = |data: &[u8]| {
                let done = usize::from("RD".contains(kind));
                read(&file(done, &[], &[record(kind, data)], b""))
            };
            assert!(with(b"a=b").is_ok(), "{kind}");
            for data in [&b"a\0=b"[..], b"\0a=b", b"a=b\0"] {
                assert!(with(data).is_err(), "{kind}: {data:?}");
            }
        }
    }

    #[test]
    fn recipients_stand_before_and_after_the_content() {
        let envelope = [
            record('A', b"notify_flags=8"),
            record('O', b"list@b"),
            record('R', b"\xff@b"),
            record('D', b"c@b"),
        ];
        let found = read(&file(3, &envelope, &[record('/', b"d@b")], b"")).unwrap();
        assert_eq!(found.arrival, (1_787_299_200, 17));
        assert_eq!(found.sender, b"a@b");
        let first = &found.recipients[0];
        assert_eq!(
            (first.bytes.as_slice(), first.notify),
            (&b"\xff@b"[..], Some(8))
        );
        let address = first.address.as_ref().map(ToString::to_string);
        assert_eq!(address.as_deref(), Some(r"\xFF@b"));
        assert_eq!(first.original.as_deref(), Some(&b"list@b"[..]));
        assert_eq!(
            (found.recipients[1].notify, found.recipients[1].state),
            (None, RecipientState::Done)
        );
        assert_eq!(found.recipients[2].state, RecipientState::Cancelled);
        assert_eq!(found.pending().count(), 1);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let pointer = |to: usize| record('p', format!("{to:15}").as_bytes());
        let here = 81 + 15 + 5;
        // A record in whose data another one stands, and a pointer to behind the one that follows.
        let hidden = [record('R', b"a@b"), pointer(here + 2 + 22 + 17)].concat();
        let hides_a_recipient = record('F', &hidden);
        for (bytes, expected) in [
            (
                file(2, &[record('R', b"c@b")], &[], b""),
                "declares 2 recipients, but the file has 1",
            ),
            (
                file(0, &[record('?', b"")], &[], b""),
                "type '?', which cannot stand there",
            ),
            (
                file(0, &[], &[record('N', b"")], b""),
                "type 'N', which cannot stand there",
            ),
            (
                file(0, &[record('S', b"x@y")], &[], b""),
                "is the second one of its kind",
            ),
            (
                file(0, &[record('A', b"nothing")], &[], b""),
                "the 'A' record at offset 101 is malformed",
            ),
            (file(0, &[pointer(here)], &[], b""), "the file has a loop"),
            (file(0, &[pointer(9999)], &[], b""), "leads to 9999"),
            (
                file(1, &[hides_a_recipient, pointer(here + 2)], &[], b""),
                "overlap others",
            ),
            (
                file(0, &[record('p', b"-1")], &[], b""),
                "the 'p' record at offset 101 is malformed",
            ),
            (
                file(0, &[record('M', b"")], &[], b""),
                "does not lie where the size record says",
            ),
            (record('T', b"1 1"), "does not begin with a size record"),
            (record('C', b"1 2 3"), "does not begin with a size record"),
            (Vec::new(), "ends within or before the record at offset 0"),
        ] {
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} instead of {expected}");
        }
    }

    fn any_record() -> impl Strategy<Value = Vec<u8>> {
        let kinds =
            prop::sample::select("TcFILSDRO/WVA>K<ionMpwXLNEPre".chars().collect::<Vec<_>>());
        let data = prop_oneof!["[a-z]{1,9}=[0-9a-z]{0,5}", "[0-9 ]{1,15}", "[a-z]@[a-z]"];
        (kinds, data).prop_map(|(kind, data)| record(kind, data.as_bytes()))
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_loop(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn no_records_panic_or_loop(
            recipients in 0usize..9,
            envelope in prop::collection::vec(any_record(), 0..9),
            extracted in prop::collection::vec(any_record(), 0..9),
            heap in prop::collection::vec(any_record(), 0..9),
        ) {
            if let Ok(found) = read(&file(recipients, &envelope, &extracted, &heap.concat())) {
                prop_assert_eq!(found.recipients.len(), recipients);
            }
        }
    }
}
