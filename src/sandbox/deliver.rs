//! Final delivery in the mx: pipe(8) runs `posttls sandbox deliver`, which writes the message into a Maildir.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where a message goes.
#[derive(Debug, Clone)]
pub enum Target<'a> {
    /// This Maildir.
    Maildir(&'a Path),
    /// The Maildir of `recipient` below `root`.
    Recipient {
        /// The directory of all Maildirs.
        root: &'a Path,
        /// The recipient's address, as the server took it.
        recipient: &'a str,
    },
}

/// The directory of `recipient` below `root`: the address itself, with every byte percent-encoded that could mean
/// something in a path. It can neither leave `root` nor clash with another address.
pub fn maildir_of(root: &Path, recipient: &str) -> PathBuf {
    let mut name = String::new();
    for (index, character) in recipient.chars().enumerate() {
        let risky = character.is_control() || matches!(character, '/' | '%');
        if risky || (index == 0 && character == '.') {
            let mut buffer = [0; 4];
            for byte in character.encode_utf8(&mut buffer).bytes() {
                name.push_str(&format!("%{byte:02X}"));
            }
        } else {
            name.push(character);
        }
    }
    if name.is_empty() {
        name.push('%');
    }
    root.join(name)
}

/// Writes `message` into `tmp/`, makes it durable and renames it to `new/`: a reader never sees half a message.
/// Returns the file.
///
/// # Errors
/// When a directory or file cannot be written. The caller exits with 75, and Postfix tries again.
pub fn deliver(target: &Target<'_>, mut message: impl Read) -> io::Result<PathBuf> {
    let maildir = match target {
        Target::Maildir(dir) => (*dir).to_owned(),
        Target::Recipient { root, recipient } => maildir_of(root, recipient),
    };
    for folder in ["tmp", "new", "cur"] {
        fs::create_dir_all(maildir.join(folder))?;
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // In order of arrival when sorted by name.
    let name = format!(
        "{}.{:09}.{}",
        now.as_secs(),
        now.subsec_nanos(),
        std::process::id()
    );
    let unfinished = maildir.join("tmp").join(&name);
    let mut file = fs::File::create_new(&unfinished)?;
    io::copy(&mut message, &mut file)?;
    file.flush()?;
    file.sync_all()?;
    let finished = maildir.join("new").join(&name);
    fs::rename(&unfinished, &finished)?;
    fs::File::open(maildir.join("new"))?.sync_all()?;
    Ok(finished)
}

/// The messages in a Maildir, oldest first; none when there is no such directory.
pub(super) fn read_maildir(maildir: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(maildir.join("new")) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.iter().flat_map(fs::read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stays_below_the_root_and_is_unique() {
        let root = Path::new("/r");
        let name = |address: &str| {
            let path = maildir_of(root, address);
            assert_eq!(path.parent(), Some(root));
            path.file_name().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(name("jane@plain.test"), "jane@plain.test");
        assert_eq!(name("../../etc@x"), "%2E.%2F..%2Fetc@x");
        assert_eq!(name(".."), "%2E.");
        assert_eq!(name(""), "%");
        assert_eq!(name("50%@x\n"), "50%25@x%0A");
        assert_eq!(name("jürgen@plain.test"), "jürgen@plain.test");
    }

    #[test]
    fn bytes_arrive_as_they_are() {
        let root = tempfile::tempdir().unwrap();
        let target = Target::Recipient {
            root: root.path(),
            recipient: "a@b",
        };
        for message in [&b"first\r\n\xff\0"[..], b"second, no newline"] {
            deliver(&target, message).unwrap();
        }
        assert_eq!(
            read_maildir(&root.path().join("a@b")),
            [&b"first\r\n\xff\0"[..], b"second, no newline"]
        );
    }
}
