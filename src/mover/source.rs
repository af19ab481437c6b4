//! The message in the encrypt instance: found, put on hold, locked, and checked to be the one that the case is about.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::{MoveError, Sighting};
use crate::address::Address;
use crate::case::MessageKey;
use crate::postfix::{
    Instance, Queue, QueueFile, QueueId, Recipient, RecipientState, check_content,
};

/// The mode of an unfinished queue file, in the owner's bits: Postfix, and `postsuper` with a queue ID, pass over it
/// (mail_open_ok(3)).
const UNFINISHED: u32 = 0o600;
const OWNERS: u32 = 0o700;

/// Between two looks at a message that a delivery is using.
const PAUSE: Duration = Duration::from_millis(20);

/// An open queue file, understood, and proved to be the message that was meant.
pub struct Source {
    /// Open for reading, or for reading and writing under an exclusive lock.
    pub file: File,
    /// Where it was opened.
    pub path: PathBuf,
    /// What it says.
    pub content: QueueFile,
}

impl Source {
    /// Is this the message that `key` names? A queue ID alone does not tell: Postfix reuses it.
    pub fn is_message(&self, key: &MessageKey) -> bool {
        let sender = key.sender.as_ref().map(Address::octets).unwrap_or_default();
        self.content.arrival.0 == key.arrival && self.content.sender == *sender
    }

    /// Is the open file still the one that stands where it was opened?
    pub fn is_still_there(&self) -> bool {
        let (ours, there) = (self.file.metadata(), std::fs::symlink_metadata(&self.path));
        matches!((ours, there), (Ok(ours), Ok(there)) if ours.ino() == there.ino() && ours.dev() == there.dev())
    }

    /// Is it sealed? Only a move does that, while it marks recipients: see [`Source::seal`].
    pub fn is_sealed(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.mode() & OWNERS == UNFINISHED)
    }

    /// Gives the file the mode of an unfinished one, and waits until that is on disk. From then on nobody delivers it,
    /// wherever it is moved to, so all marks that come are ours; until then none is.
    pub fn seal(&self) -> io::Result<()> {
        // `postsuper` removes unfinished files in which nothing has happened for a week.
        self.file.set_modified(SystemTime::now())?;
        self.change_mode(|mode| mode & !OWNERS | UNFINISHED)
    }

    /// Makes it an ordinary queue file again.
    pub fn unseal(&self) -> io::Result<()> {
        self.change_mode(|mode| mode | OWNERS)
    }

    fn change_mode(&self, change: impl Fn(u32) -> u32) -> io::Result<()> {
        let mode = change(self.file.metadata()?.mode() & 0o7777);
        self.file.set_permissions(Permissions::from_mode(mode))?;
        self.file.sync_all()
    }

    /// Refuses what must not be moved: a message that goes elsewhere than its recipients say, one whose content nobody
    /// could read, and one that lacks the record of a recipient which it had when it was deferred.
    ///
    /// # Errors
    /// [`MoveError::Unsafe`] or [`MoveError::Damaged`].
    pub fn refuse_unsafe<'a>(
        &self,
        key: &MessageKey,
        known: impl IntoIterator<Item = &'a Address>,
    ) -> Result<(), MoveError> {
        // Where such a message goes would be decided otherwise in the may instance.
        let elsewhere = [
            ("redirected", &self.content.redirect),
            ("to pass a content filter", &self.content.filter),
        ];
        let elsewhere = elsewhere.iter().find(|(_, target)| target.is_some());
        let why = match elsewhere {
            Some((what, _)) => Some(format!("the message is {what}")),
            // Postfix changes the state of a record, and never its address: one of them is damaged, perhaps into the
            // address of another recipient.
            None => known
                .into_iter()
                .find(|address| records(&self.content, address).is_empty())
                .map(|address| {
                    format!("there is no record in it of <{address}>, whom it was deferred for")
                }),
        };
        if let Some(why) = why {
            return Err(MoveError::Unsafe {
                queue_id: key.queue_id.clone(),
                path: self.path.clone(),
                why,
            });
        }
        check_content(&self.file, &self.content.size).map_err(|source| MoveError::Damaged {
            queue_id: key.queue_id.clone(),
            path: self.path.clone(),
            source,
        })
    }

    /// Offsets of the records of `address` that wait for delivery, and whether there are others that are done.
    pub fn records_of(&self, address: &Address) -> (Vec<u64>, bool) {
        let found = records(&self.content, address);
        let pending = found
            .iter()
            .filter(|one| one.state == RecipientState::Pending)
            .map(|one| one.offset)
            .collect();
        let done = found.iter().any(|one| one.state == RecipientState::Done);
        (pending, done)
    }

    /// Offsets of all records that wait for delivery.
    pub fn pending(&self) -> Vec<u64> {
        self.content
            .pending()
            .map(|recipient| recipient.offset)
            .collect()
    }
}

/// The records of `address` in a queue file.
///
/// The address comes from a notice, in which Postfix has put `?` for every octet that can't be printed
/// (src/util/printable.c), and with `smtputf8_enable = no` for every one that is not ASCII; the records are compared in
/// those forms, too.
pub fn records<'a>(content: &'a QueueFile, address: &Address) -> Vec<&'a Recipient> {
    let exact = |recipient: &&Recipient| recipient.address.as_ref() == Some(address);
    let shown = |recipient: &&Recipient| {
        let bytes = &recipient.bytes;
        printable(bytes) == address.as_str() || printable_ascii(bytes) == address.as_str()
    };
    let found: Vec<&Recipient> = content.recipients.iter().filter(exact).collect();
    if found.is_empty() {
        content.recipients.iter().filter(shown).collect()
    } else {
        found
    }
}

/// An address of a notice as it stands in the queue file, where that leaves no doubt.
pub fn named(content: &QueueFile, address: &Address) -> Address {
    let found = records(content, address);
    let mut names = found.iter().map(|record| record.address.as_ref());
    match names.next() {
        Some(Some(first)) if names.all(|other| other == Some(first)) => first.clone(),
        _ => address.clone(),
    }
}

/// How a notice may have shown an address.
pub fn as_noticed(address: &Address) -> [String; 2] {
    let octets = address.octets();
    [printable(&octets), printable_ascii(&octets)]
}

/// As Postfix shows octets in logs and notices.
fn printable(octets: &[u8]) -> String {
    let mut shown = String::with_capacity(octets.len());
    for chunk in octets.utf8_chunks() {
        let visible = |c: char| if c.is_control() { '?' } else { c };
        shown.extend(chunk.valid().chars().map(visible));
        shown.extend(chunk.invalid().iter().map(|_| '?'));
    }
    shown
}

fn printable_ascii(octets: &[u8]) -> String {
    let shown = |octet: &u8| match octet {
        b' '..=b'~' => char::from(*octet),
        _ => '?',
    };
    octets.iter().map(shown).collect()
}

/// Opens the queue file of `id` in `queue` and reads it. `None` when it is not there.
///
/// It must be what Postfix itself would deliver (mail_open_ok(3) in Postfix's source): a regular file with one link,
/// owned by `mail_owner`. A symbolic link is never followed.
pub fn open(
    instance: &Instance,
    queue: Queue,
    id: &QueueId,
    writable: bool,
) -> Result<Option<Source>, MoveError> {
    open_at(instance, instance.path(queue, id), id, writable)
}

/// As [`open`], wherever the file is.
pub fn open_at(
    instance: &Instance,
    path: PathBuf,
    id: &QueueId,
    writable: bool,
) -> Result<Option<Source>, MoveError> {
    let fault = |doing, source| MoveError::File {
        queue_id: id.clone(),
        doing,
        path: path.clone(),
        source,
    };
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let file = match OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(flags)
        .open(&path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault("open", error)),
    };
    let metadata = file.metadata().map_err(|error| fault("examine", error))?;
    let suspicion = if !metadata.is_file() {
        Some("it is no regular file".to_owned())
    } else if metadata.uid() != instance.mail_owner.uid {
        Some(format!(
            "it belongs to user {} instead of {}",
            metadata.uid(),
            instance.mail_owner.name
        ))
    } else if metadata.nlink() > 1 {
        Some(format!("it has {} links", metadata.nlink()))
    } else {
        None
    };
    if let Some(why) = suspicion {
        return Err(MoveError::Unsafe {
            queue_id: id.clone(),
            path,
            why,
        });
    }
    let content = QueueFile::read(&file).map_err(|source| MoveError::Damaged {
        queue_id: id.clone(),
        path: path.clone(),
        source,
    })?;
    Ok(Some(Source {
        file,
        path,
        content,
    }))
}

/// Where the message is. A file with the same queue ID but another sender or arrival time is another message.
pub fn sight(
    instance: &Instance,
    key: &MessageKey,
) -> Result<(Sighting, Option<Source>), MoveError> {
    let id = &key.queue_id;
    loop {
        let found = instance.find(id).map_err(|source| MoveError::File {
            queue_id: id.clone(),
            doing: "look for",
            path: instance.queue_directory.clone(),
            source,
        })?;
        let Some(queue) = found else {
            return gone(instance, id).map(|gone| (gone, None));
        };
        // The file may change queues between the look and the opening: look again then.
        if let Some(source) = open(instance, queue, id, false)? {
            let same = source.is_message(key);
            return Ok(if same {
                (Sighting::Queued(queue), Some(source))
            } else {
                (Sighting::Gone, None)
            });
        }
    }
}

/// Of a message that was looked for in vain. "Gone" ends a case: be sure that it is not only elsewhere.
pub fn gone(instance: &Instance, id: &QueueId) -> Result<Sighting, MoveError> {
    if instance.is_misplaced(id) {
        return Err(MoveError::Misplaced {
            queue_id: id.clone(),
            config_dir: instance.config_dir.clone(),
        });
    }
    Ok(Sighting::Gone)
}

/// Opens the held file and waits until no delivery uses it any more. A delivery agent keeps a shared lock from the
/// moment it takes the message until it has marked its recipients, so whoever holds the exclusive lock sees every mark.
/// `None` when a delivery is still under way at `deadline`, or the file is not on hold.
pub fn lock_held(
    instance: &Instance,
    key: &MessageKey,
    deadline: Instant,
) -> Result<Option<Source>, MoveError> {
    let id = &key.queue_id;
    loop {
        let Some(first) = open(instance, Queue::Hold, id, true)? else {
            return Ok(None);
        };
        match flock(&first.file, FlockOperation::NonBlockingLockExclusive) {
            // Somebody took it away before the lock was ours: look again.
            Ok(()) if !first.is_still_there() => {}
            Ok(()) => {
                // Read again: what was read before the lock may lack the last mark.
                let content =
                    QueueFile::read(&first.file).map_err(|source| MoveError::Damaged {
                        queue_id: id.clone(),
                        path: first.path.clone(),
                        source,
                    })?;
                return Ok(Some(Source { content, ..first }));
            }
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(PAUSE),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => {
                let path = first.path;
                return Err(MoveError::File {
                    queue_id: id.clone(),
                    doing: "lock",
                    path,
                    source: error.into(),
                });
            }
        }
    }
}

/// Waits a moment, unless `deadline` has come.
pub fn pause(deadline: Instant) -> bool {
    let now = Instant::now();
    if now >= deadline {
        return false;
    }
    thread::sleep(PAUSE.min(deadline - now));
    true
}

#[cfg(test)]
mod tests {
    use super::{printable, printable_ascii};

    #[test]
    fn octets_that_cannot_be_printed_are_shown_as_in_a_notice() {
        assert_eq!(printable(b"a\x01b@plain.test"), "a?b@plain.test");
        assert_eq!(
            printable("jürgen@plain.test".as_bytes()),
            "jürgen@plain.test"
        );
        assert_eq!(printable(b"j\xfcrgen@plain.test"), "j?rgen@plain.test");
        assert_eq!(printable(b"\xfc\xc3\xbc@plain.test"), "?ü@plain.test");
        assert_eq!(
            printable_ascii("jürgen@plain.test".as_bytes()),
            "j??rgen@plain.test"
        );
    }
}
