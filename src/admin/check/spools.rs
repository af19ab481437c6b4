//! Checks of the queue directories and the file systems that they and the store are on.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, statvfs};

use super::context::Context;
use super::{Outcome, Verdict};
use crate::postfix::Settings;
use crate::postfix::user;

/// Less than this of a file system is too little.
const LEAST_PERCENT: u64 = 5;

fn queue_directory(settings: &Settings) -> &Path {
    Path::new(settings.get("queue_directory"))
}

fn spool(name: &str, settings: &Settings) -> Verdict {
    let directory = queue_directory(settings);
    let what = format!("{name} instance: queue directory {}", directory.display());
    let todo = "mount its file system, or correct owner and mode with: postfix set-permissions";
    let owner = match user::lookup(settings.get("mail_owner")) {
        Ok(owner) => owner.uid,
        Err(error) => return Verdict::fail(format!("mail_owner: {error}"), todo),
    };
    let expected = [
        ("", 0),
        ("deferred", owner),
        ("active", owner),
        ("incoming", owner),
        ("hold", owner),
    ];
    for (queue, uid) in expected {
        let path = directory.join(queue);
        match fs::metadata(&path) {
            Err(error) => {
                return Verdict::fail(format!("{what}: {}: {error}", path.display()), todo);
            }
            Ok(metadata) if metadata.uid() != uid => {
                let owned = format!("{} belongs to user {}", path.display(), metadata.uid());
                return Verdict::fail(format!("{what}: {owned}, not to {uid}"), todo);
            }
            Ok(_) => {}
        }
    }
    Verdict::ok(what)
}

pub(super) fn encrypt(at: &Context<'_>) -> Outcome {
    Ok(spool("encrypt", at.encrypt()?))
}

pub(super) fn may(at: &Context<'_>) -> Outcome {
    Ok(spool("may", at.may()?))
}

pub(super) fn differ(at: &Context<'_>) -> Outcome {
    let todo = "give the may instance a queue_directory and a data_directory of its own";
    let (encrypt, may) = (at.encrypt()?, at.may()?);
    for name in ["queue_directory", "data_directory"] {
        let identity = |path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
        let (a, b) = (Path::new(encrypt.get(name)), Path::new(may.get(name)));
        let one = a == b || matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b);
        if one {
            let what = format!("both instances have the same {name}: {}", a.display());
            return Ok(Verdict::fail(what, todo));
        }
    }
    Ok(Verdict::ok("the instances have directories of their own"))
}

/// The copy that the mover makes begins as a file without a name.
pub(super) fn tmpfile(at: &Context<'_>) -> Outcome {
    let hold = queue_directory(at.may()?).join("hold");
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(
        match rustix::fs::open(&hold, flags, Mode::RUSR | Mode::WUSR) {
            Ok(_) => Verdict::ok("may instance: its file system has O_TMPFILE"),
            Err(rustix::io::Errno::NOENT) => {
                return Err(super::Skip("the may instance has no hold queue"));
            }
            Err(error) => Verdict::fail(
                format!("may instance: no O_TMPFILE in {}: {error}", hold.display()),
                "put its queue_directory on ext4, XFS, Btrfs or tmpfs: the mover can't work there",
            ),
        },
    )
}

fn space(name: &str, path: &Path) -> Verdict {
    let what = format!("{name}: file system of {}", path.display());
    let found = match statvfs(path) {
        Ok(found) => found,
        Err(error) => return Verdict::fail(format!("{what}: {error}"), "mount it"),
    };
    let percent = |free: u64, all: u64| {
        // A file system that counts nothing has no end.
        free.saturating_mul(100).checked_div(all).unwrap_or(100)
    };
    let octets = percent(found.f_bavail, found.f_blocks);
    let inodes = percent(found.f_favail, found.f_files);
    let what = format!("{what}: {octets} % of space and {inodes} % of inodes are free");
    let todo = "free some: without it mail is refused, and decisions are not recorded";
    if octets == 0 || inodes == 0 {
        Verdict::fail(what, todo)
    } else if octets < LEAST_PERCENT || inodes < LEAST_PERCENT {
        Verdict::warn(what, todo)
    } else {
        Verdict::ok(what)
    }
}

pub(super) fn encrypt_space(at: &Context<'_>) -> Outcome {
    Ok(space("encrypt instance", queue_directory(at.encrypt()?)))
}

pub(super) fn may_space(at: &Context<'_>) -> Outcome {
    Ok(space("may instance", queue_directory(at.may()?)))
}

pub(super) fn store_space(at: &Context<'_>) -> Outcome {
    let store = &at.config.store.path;
    Ok(space("store", store.parent().unwrap_or(store)))
}

/// For information: nothing depends on it.
pub(super) fn file_systems(at: &Context<'_>) -> Outcome {
    let device = |settings| fs::metadata(queue_directory(settings)).map(|found| found.dev());
    Ok(Verdict::ok(
        match (device(at.encrypt()?), device(at.may()?)) {
            (Ok(encrypt), Ok(may)) if encrypt == may => {
                "both queues are on one file system".to_owned()
            }
            (Ok(_), Ok(_)) => {
                "the queues are on different file systems: releasing a message copies all of it"
                    .to_owned()
            }
            _ => return Err(super::Skip("a queue directory is missing")),
        },
    ))
}
