//! The copy of a queue file for the may instance: complete and on disk before it has a name, and not ready before the
//! source is marked. Postfix passes over a queue file whose mode is not [`READY`] (mail_open_ok(3)).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, OFlags, linkat};

use super::source::Source;
use crate::postfix::mark_done;
use crate::postfix::{Instance, Queue, QueueId};

/// The mode that tells Postfix that a queue file is complete (mail_queue.h, `MAIL_QUEUE_STAT_READY`).
const READY: u32 = 0o700;

/// The mode of a copy until its source is marked.
pub const NOT_READY: u32 = 0o600;

/// A complete copy without a name.
pub struct Copy {
    file: File,
    /// The name that it will get in the hold queue.
    pub name: QueueId,
}

/// Copies `source` for the may instance with every pending recipient outside `keep` marked done. Not a byte of it is
/// held in memory: the kernel copies from file to file.
pub fn make(may: &Instance, source: &mut Source, keep: &[u64]) -> io::Result<Copy> {
    let hold = may.queue_directory.join(Queue::Hold.as_str());
    let flags = i32::try_from(OFlags::TMPFILE.bits()).map_err(io::Error::other)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .mode(NOT_READY)
        .open(&hold)?;
    source.file.rewind()?;
    io::copy(&mut source.file, &mut file)?;
    let others: Vec<u64> = source
        .pending()
        .into_iter()
        .filter(|offset| !keep.contains(offset))
        .collect();
    mark_done(&file, &others).map_err(io::Error::other)?;
    fchown(&file, Some(may.mail_owner.uid), Some(may.mail_owner.gid))?;
    file.set_permissions(Permissions::from_mode(NOT_READY))?;
    file.sync_all()?;
    let name = name_of(&file)?;
    Ok(Copy { file, name })
}

/// Gives the copy its name in the hold queue, and waits until the name is on disk.
pub fn publish(may: &Instance, copy: &Copy) -> io::Result<()> {
    let path = may.path(Queue::Hold, &copy.name);
    if let Some(directory) = path.parent() {
        make_hash_directory(may, directory)?;
        let itself = format!("/proc/self/fd/{}", copy.file.as_raw_fd());
        linkat(CWD, itself, CWD, &path, AtFlags::SYMLINK_FOLLOW)?;
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Makes a published copy one that Postfix takes, and waits until that is on disk.
pub fn make_ready(may: &Instance, name: &QueueId) -> io::Result<()> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(may.path(Queue::Hold, name))?;
    file.set_permissions(Permissions::from_mode(READY))?;
    file.sync_all()
}

/// Removes a copy that nobody has seen, by its name: `postsuper -d` with a queue ID passes over one that is not ready.
pub fn remove(may: &Instance, name: &QueueId) -> io::Result<()> {
    let path = may.path(Queue::Hold, name);
    fs::remove_file(&path)?;
    path.parent()
        .map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// The short queue ID that Postfix itself would give to this file: microseconds of a time and the inode number
/// (mail_queue.h, `MQID_SH_FORMAT`). As the inode is its own, no other file of this file system has the name.
fn name_of(file: &File) -> io::Result<QueueId> {
    let microseconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(io::Error::other)?
        .subsec_micros();
    format!("{microseconds:05X}{:X}", file.metadata()?.ino())
        .parse()
        .map_err(io::Error::other)
}

/// Postfix makes the hash directories of a queue only when it needs them.
pub fn make_hash_directory(instance: &Instance, directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let mut missing = Vec::new();
    let mut path = directory;
    while !path.is_dir() {
        missing.push(path);
        path = path.parent().ok_or(io::ErrorKind::NotFound)?;
    }
    for path in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => std::os::unix::fs::lchown(
                path,
                Some(instance.mail_owner.uid),
                Some(instance.mail_owner.gid),
            )?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}
