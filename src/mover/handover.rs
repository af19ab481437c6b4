//! Gives the finished copy to the may instance's queue manager, as Postfix's own flush(8) does for `postqueue -i`: the
//! file is renamed into the incoming queue, and qmgr(8) is asked to look there.
//!
//! `postsuper -H` and `postqueue -i` come to the same in two processes, which were half of the time between a sender's
//! click and the message in the active queue. Only what PostTLS itself has put there is renamed here; messages of the
//! encrypt instance change queues by `postsuper` alone.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::OFlags;

use super::copy;
use crate::connect;
use crate::postfix::{Instance, Queue, QueueId};

/// To qmgr(8): forget which destinations are dead (F), then look into the incoming queue (I). Without the first, mail
/// for a server that failed lately is deferred untried (global/qmgr_user.h).
const LOOK: &[u8] = b"FI";

/// A queue manager takes a request at once, however busy it is: the kernel keeps it until it is read. One whose queue of
/// requests is full does not run, or hangs.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where the queue manager of `may` takes requests.
pub fn socket(may: &Instance) -> PathBuf {
    may.queue_directory.join("public/qmgr")
}

/// Moves a ready copy from the hold queue into the incoming queue, and waits until that is on disk. Returns whether it
/// was there: an admin may have released it, or removed it.
pub fn to_incoming(may: &Instance, name: &QueueId) -> io::Result<bool> {
    let [from, to] = [Queue::Hold, Queue::Incoming].map(|queue| may.path(queue, name));
    let incoming = Queue::Incoming.as_str();
    copy::make_hash_directory(may, &may.directory(incoming, name))?;
    match fs::rename(&from, &to) {
        Ok(()) => may.sync_out_of_hold(Some(incoming), name)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    Ok(true)
}

/// Asks the queue manager to look into the incoming queue now. Fails when the instance is stopped, and that is no harm:
/// it looks there when it starts. One that hangs has other requests before it, and sees the copy when it comes to those.
///
/// `unheard` says whether the last request failed. Then this one is not waited for: thousands of moves may come after it.
pub fn wake(may: &Instance, unheard: &AtomicBool) -> io::Result<()> {
    let patience = match unheard.load(Ordering::Relaxed) {
        true => Duration::ZERO,
        false => PATIENCE,
    };
    let result = ask_to_look(may, patience);
    unheard.store(result.is_err(), Ordering::Relaxed);
    result
}

fn ask_to_look(may: &Instance, patience: Duration) -> io::Result<()> {
    let path = socket(may);
    // A master.cf from before Postfix 2.12 says `fifo`.
    if fs::metadata(&path)?.file_type().is_fifo() {
        write_to_fifo(&path)
    } else {
        connect::within(&path, patience)?.write_all(LOOK)
    }
}

/// Without waiting for a reader: none means that the instance is stopped.
fn write_to_fifo(path: &Path) -> io::Result<()> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let mut fifo = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path)?;
    fifo.write_all(LOOK)
}
