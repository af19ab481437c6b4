//! Queue files that real Postfix wrote (tests/corpus/queue_files), damaged at every octet, up to the step that decides on a
//! move: either it is refused, or exactly those get the message who would have got it undamaged, and the copy is the
//! source octet for octet. (What a damage has made of a text can't be told: it goes on as it stands.)

use std::fs::{self, File, Permissions};
use std::io::{Cursor, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::*;
use crate::address::Address;
use crate::case::store::MoveId;
use crate::case::{CaseId, MoveStep};
use crate::postfix::{QueueFile, RecipientState};

const QUEUE_ID: &str = "4ABCDEF017";

/// Files up to this size are damaged in each bit.
const SMALL: usize = 1000;

/// Of those that are not refused, one in so many is copied, too: that waits for the disk.
const COPIED: usize = 400;

fn damages(whole: &[u8], at: usize) -> Vec<Vec<u8>> {
    let octet = whole[at];
    let mut changes = vec![octet ^ 0xff, 0, octet.wrapping_add(1)];
    if whole.len() <= SMALL {
        changes.extend((0..8).map(|bit| octet ^ (1 << bit)));
    }
    changes.retain(|change| *change != octet);
    let changed = changes.into_iter().map(|change| {
        let mut octets = whole.to_vec();
        octets[at] = change;
        octets
    });
    let inserted = [&whole[..at], &[octet], &whole[at..]].concat();
    changed.chain([whole[..at].to_vec(), inserted]).collect()
}

/// What the damaged files of one kind came to: refused, taken for another message, moved on.
fn campaign(whole: &[u8]) -> [usize; 3] {
    let directory = tempfile::tempdir().unwrap();
    let encrypt = Instance::bare(&directory.path().join("encrypt"));
    let may = Instance::bare(&directory.path().join("may"));
    let good = QueueFile::read(Cursor::new(whole)).unwrap();
    let key = MessageKey {
        queue_id: QUEUE_ID.parse().unwrap(),
        sender: std::str::from_utf8(&good.sender).unwrap().parse().ok(),
        arrival: good.arrival.0,
    };
    let known: Vec<Address> = good
        .pending()
        .filter_map(|one| one.address.clone())
        .collect();
    let journal = Move {
        id: MoveId(1),
        case: CaseId(1),
        step: MoveStep::Planned,
        held_before: None,
        copy_name: None,
        recipients: vec![MoveRecipient {
            overruled: false,
            id: 1,
            address: known[0].clone(),
            action: Action::Send,
            outcome: None,
        }],
    };
    let path = encrypt.path(Queue::Hold, &key.queue_id);
    let file = File::create(&path).unwrap();
    file.set_permissions(Permissions::from_mode(0o700)).unwrap();
    chown(&path, Some(encrypt.mail_owner.uid), None).unwrap();
    // A child of another thread has a copy of the lock until it becomes another program.
    let patience = Instant::now() + Duration::from_secs(120);
    let mut counts = [0usize; 3];
    for at in 0..whole.len() {
        for octets in damages(whole, at) {
            file.set_len(octets.len() as u64).unwrap();
            file.write_all_at(&octets, 0).unwrap();
            let found = source::lock_held(&encrypt, &key, patience);
            let checked = found.and_then(|found| {
                let source = found.expect("nobody else has a lock");
                let known = source.is_message(&key).then_some(&known);
                let safe = known.map_or(Ok(()), |known| source.refuse_unsafe(&key, known));
                safe.map(|()| source)
            });
            let source = match checked {
                Ok(source) => source,
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        text.starts_with(QUEUE_ID) && text.contains("postcat"),
                        "{text}"
                    );
                    counts[0] += 1;
                    continue;
                }
            };
            if !source.is_message(&key) {
                counts[1] += 1;
                continue;
            }
            moves(&source, &good, &journal);
            if counts[2].is_multiple_of(COPIED) {
                copies(&may, source, &journal, &octets);
            }
            counts[2] += 1;
        }
    }
    counts
}

/// Records, their order and their states are those of the undamaged file, and so are the addresses of all who wait.
fn moves(source: &Source, good: &QueueFile, journal: &Move) {
    let found = &source.content;
    assert_eq!((&found.redirect, &found.filter), (&None, &None));
    assert_eq!(found.recipients.len(), good.recipients.len());
    for (found, good) in found.recipients.iter().zip(&good.recipients) {
        assert_eq!((found.offset, found.state), (good.offset, good.state));
        if good.state == RecipientState::Pending {
            assert_eq!(found.bytes, good.bytes);
        }
    }
    assert_eq!(
        sent(source, journal),
        [good.pending().next().unwrap().offset]
    );
}

fn sent(source: &Source, journal: &Move) -> Vec<u64> {
    let recipients = journal.recipients.iter();
    let outcomes: Outcomes = recipients
        .map(|one| (one.id, outcome_of(source, one, &[])))
        .collect();
    offsets_of(source, journal, &outcomes, Outcome::Released)
}

/// The copy has one recipient left to do, and every other octet is the source's.
fn copies(may: &Instance, mut source: Source, journal: &Move, octets: &[u8]) {
    let keep = sent(&source, journal);
    let mut expected = octets.to_vec();
    for offset in source.pending() {
        if !keep.contains(&offset) {
            expected[usize::try_from(offset).unwrap()] = b'D';
        }
    }
    let copy = copy::make(may, &mut source, &keep).unwrap();
    copy::publish(may, &copy).unwrap();
    let mut copied = Vec::new();
    let path = may.path(Queue::Hold, &copy.name);
    File::open(&path).unwrap().read_to_end(&mut copied).unwrap();
    assert_eq!(copied, expected);
    fs::remove_file(path).unwrap();
    // And the source is untouched.
    source.file.seek(SeekFrom::Start(0)).unwrap();
    let mut now = Vec::new();
    source.file.read_to_end(&mut now).unwrap();
    assert_eq!(now, octets);
}

#[test]
fn a_queue_file_with_any_octet_damaged_is_refused_or_goes_to_the_same_people() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/queue_files");
    let names: Vec<_> = fs::read_dir(corpus)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(names.len() >= 12);
    let campaigns: Vec<_> = names
        .into_iter()
        .map(|path| {
            (
                path.clone(),
                thread::spawn(move || campaign(&fs::read(path).unwrap())),
            )
        })
        .collect();
    for (path, campaign) in campaigns {
        let [refused, another, moved] = campaign.join().unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        println!(
            "{name}: {refused} refused, {another} taken for another message, {moved} moved on as they are"
        );
        assert!(refused > 0 && another > 0);
        // Where such a message goes is not for its recipients to say.
        assert_eq!(
            moved == 0,
            ["redirected", "filtered"].contains(&name.as_str()),
            "{name}"
        );
    }
}
