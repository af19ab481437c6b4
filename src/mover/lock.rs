//! Only one mover for a may instance, whatever the configurations of two say: a lock on a file in its queue directory.
//!
//! The file is root's alone. A lock on something that others may open (the queue directory itself, as it was before) is one
//! that any of them can take, and then no mover starts.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use log::warn;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

/// In the queue directory, in which only root can make a file.
const NAME: &str = "posttls.lock";

/// Says that this process is the only mover, for as long as it lives.
pub struct Lock {
    _file: File,
    /// The lock of older versions, so that none of them starts beside us.
    _directory: Option<File>,
}

/// Why there is no lock.
#[derive(Debug)]
pub enum LockError {
    /// Another mover has it.
    Taken,
    /// The file can't be had.
    File {
        path: PathBuf,
        doing: &'static str,
        source: io::Error,
    },
}

/// Becomes the only mover that moves mail into the queues below `spool`. `answers` asks whether a mover of our own
/// configuration is running, of whatever version.
pub fn take(spool: &Path, answers: impl Fn() -> bool) -> Result<Lock, LockError> {
    let file = take_file(spool)?;
    let fault = |doing| {
        move |source| LockError::File {
            path: spool.to_owned(),
            doing,
            source,
        }
    };
    let directory = File::open(spool).map_err(fault("open the queue directory"))?;
    let directory = match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Some(directory),
        Err(Errno::WOULDBLOCK) => {
            let inode = directory.metadata().map_err(fault("examine"))?.ino();
            if is_locked_by_a_mover(inode) || answers() {
                return Err(LockError::Taken);
            }
            warn!(
                "{}: some process that is no mover keeps a lock on this directory; it is of no use to it",
                spool.display()
            );
            None
        }
        Err(error) => return Err(fault("lock the queue directory")(error.into())),
    };
    Ok(Lock {
        _file: file,
        _directory: directory,
    })
}

fn take_file(spool: &Path) -> Result<File, LockError> {
    let path = spool.join(NAME);
    let fault = |doing, source| LockError::File {
        path: path.clone(),
        doing,
        source,
    };
    let owner = fs::metadata(spool).map_err(|error| fault("make", error))?;
    if owner.uid() != 0 || owner.mode() & 0o022 != 0 {
        let why = "others than root can write into its directory: run `postfix set-permissions` on the may instance";
        return Err(fault("trust", io::Error::other(why)));
    }
    loop {
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(&path)
            .map_err(|error| fault("open", error))?;
        let found = file.metadata().map_err(|error| fault("examine", error))?;
        if !found.is_file() || found.uid() != 0 || found.mode() & 0o077 != 0 {
            let why = "others than root can open it: give it to root with mode 0600, and end whoever has it open";
            return Err(fault("trust", io::Error::other(why)));
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LockError::Taken),
            Err(error) => return Err(fault("lock", error.into())),
        }
        // Somebody may have removed it just now, and another mover locked a new one.
        let there = fs::symlink_metadata(&path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (found.dev(), found.ino())) {
            return Ok(file);
        }
    }
}

/// Is this inode locked by a mover of an older version, which locks the directory itself? Anybody may lock it: only one who is root
/// and one of our programs counts.
fn is_locked_by_a_mover(inode: u64) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    holders(&locks, inode).any(|pid| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let is_roots = fs::metadata(&process).is_ok_and(|found| found.uid() == 0);
        let program = fs::read_link(process.join("exe")).unwrap_or_default();
        let name = program.file_name().unwrap_or_default();
        is_roots && name.as_encoded_bytes().starts_with(b"posttls")
    })
}

/// The processes with a flock(2) on the file of this inode, by proc_locks(5).
fn holders(locks: &str, inode: u64) -> impl Iterator<Item = u32> {
    locks.lines().filter_map(move |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = words.as_slice() else {
            return None;
        };
        let is_it = file.rsplit(':').next()?.parse() == Ok(inode);
        is_it.then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_a_flock_is_found_and_no_other() {
        let locks = "1: FLOCK  ADVISORY  WRITE 742 08:01:131 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 743 08:01:131 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 744 08:01:131 0 EOF\n\
                     3: FLOCK  ADVISORY  READ  745 08:01:1310 0 EOF\n\
                     4: FLOCK  ADVISORY  READ  x 08:01:131 0 EOF\n";
        assert_eq!(holders(locks, 131).collect::<Vec<_>>(), [742]);
        assert_eq!(holders(locks, 13).count(), 0);
    }

    #[test]
    fn a_second_one_is_refused_until_the_first_is_gone() {
        let spool = tempfile::tempdir().unwrap();
        let first = take(spool.path(), || false);
        assert!(first.is_ok());
        assert!(matches!(
            take(spool.path(), || false),
            Err(LockError::Taken)
        ));
        drop(first);
        // A file that others could open may be locked by them.
        let path = spool.path().join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(take(spool.path(), || false).is_ok());
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(
            take(spool.path(), || false),
            Err(LockError::File { doing: "trust", .. })
        ));
    }

    #[test]
    fn a_lock_that_anybody_has_on_the_directory_is_no_movers_unless_one_answers() {
        let spool = tempfile::tempdir().unwrap();
        let directory = File::open(spool.path()).unwrap();
        flock(&directory, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(matches!(take(spool.path(), || true), Err(LockError::Taken)));
        // The test's own program may be called posttls-….
        if !is_locked_by_a_mover(directory.metadata().unwrap().ino()) {
            assert!(take(spool.path(), || false).is_ok());
        }
    }
}
