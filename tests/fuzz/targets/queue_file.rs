//! The queue file reader, what is derived from a file, and the marking of recipients. A file is the whole input.
#![no_main]

use std::cell::RefCell;
use std::fs::File;
use std::io::Cursor;
use std::os::unix::fs::FileExt as _;

use libfuzzer_sys::fuzz_target;
use posttls::notice::original;
use posttls::postfix::{QueueFile, Recipient, RecipientState, check_content, header, mark_done};

/// Postfix marks and PostTLS marks in a file; so a file it is, without a name.
fn scratch() -> File {
    let path = std::env::temp_dir().join(format!("posttls-fuzz-{}", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path);
    let file = file.expect("a scratch file");
    std::fs::remove_file(&path).expect("the scratch file is ours");
    file
}

thread_local! { static SCRATCH: RefCell<File> = RefCell::new(scratch()); }

fuzz_target!(|octets: &[u8]| {
    let found = match QueueFile::read(Cursor::new(octets)) {
        Ok(found) => found,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    sound(octets, &found);
    if let Ok(text) = header(Cursor::new(octets), &found.size) {
        assert!(text.len() <= (512 << 10) + 1);
        let _ = original(&text);
    }
    let _ = check_content(Cursor::new(octets), &found.size);
    SCRATCH.with_borrow(|file| marking(octets, &found, file));
});

/// Every fact is one that stands in the file, and where it is said to stand.
fn sound(octets: &[u8], found: &QueueFile) {
    assert_eq!(found.recipients.len() as u64, found.size.recipients);
    let end = found.size.data_offset + found.size.data_size;
    assert!(found.size.data_offset > 0 && end < octets.len() as u64);
    for recipient in &found.recipients {
        let at = usize::try_from(recipient.offset).expect("an offset in memory");
        let kind = match recipient.state {
            RecipientState::Pending => b'R',
            RecipientState::Done => b'D',
            RecipientState::Cancelled => b'/',
        };
        assert_eq!(octets[at], kind);
        assert_eq!(record(&octets[at..]), recipient.bytes);
        let content = found.size.data_offset..end;
        assert!(
            !content.contains(&recipient.offset),
            "a recipient in the content"
        );
        if let Some(address) = &recipient.address {
            assert_eq!(address.octets().as_ref(), recipient.bytes);
        }
    }
    let mut offsets: Vec<u64> = found.recipients.iter().map(|one| one.offset).collect();
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(
        offsets.len(),
        found.recipients.len(),
        "one record was taken for two recipients"
    );
    for (name, _) in &found.attributes {
        assert!(found.attribute(name).is_some());
    }
}

/// The data of the record that begins here, by another way than the reader's.
fn record(octets: &[u8]) -> &[u8] {
    let groups = octets[1..]
        .iter()
        .position(|octet| octet & 0x80 == 0)
        .expect("a length")
        + 1;
    let length = octets[1..=groups]
        .iter()
        .rev()
        .fold(0, |sum, octet| sum << 7 | usize::from(octet & 0x7f));
    &octets[1 + groups..][..length]
}

/// Marking changes the recipients that were named, by one octet each, and nothing else in the file or in its meaning.
fn marking(octets: &[u8], found: &QueueFile, file: &File) {
    file.set_len(octets.len() as u64)
        .expect("the size of the scratch file");
    file.write_all_at(octets, 0)
        .expect("the content of the scratch file");
    // Which ones is left to the input.
    let chosen =
        |one: &&Recipient| octets[usize::try_from(one.offset).expect("an offset") / 2] & 1 == 0;
    let offsets: Vec<u64> = found
        .pending()
        .filter(chosen)
        .map(|one| one.offset)
        .collect();
    let beyond = [&offsets[..], &[octets.len() as u64]].concat();
    assert!(mark_done(file, &beyond).is_err());
    let sender_or_so = [&offsets[..], &[0]].concat();
    assert!(
        mark_done(file, &sender_or_so).is_err(),
        "the size record was marked"
    );
    assert_eq!(
        read_back(file, octets.len()),
        octets,
        "an error that changed something"
    );

    assert_eq!(mark_done(file, &offsets).expect("marks"), offsets.len());
    assert_eq!(mark_done(file, &offsets).expect("marks"), 0);
    let mut expected = octets.to_vec();
    for offset in &offsets {
        expected[usize::try_from(*offset).expect("an offset")] = b'D';
    }
    let marked = read_back(file, octets.len());
    assert_eq!(marked, expected);
    let mut meaning = found.clone();
    for recipient in &mut meaning.recipients {
        if offsets.contains(&recipient.offset) {
            recipient.state = RecipientState::Done;
        }
    }
    let again = QueueFile::read(Cursor::new(&marked));
    assert_eq!(again.expect("a marked file is still one"), meaning);
}

fn read_back(file: &File, length: usize) -> Vec<u8> {
    let mut octets = vec![0; length];
    file.read_exact_at(&mut octets, 0)
        .expect("the scratch file");
    octets
}
