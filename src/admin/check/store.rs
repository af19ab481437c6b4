//! Checks of what is in the store, and of the clock, which the store has seen before.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::context::Context;
use super::{Outcome, Verdict};
use crate::case::store::{Integrity, Version};
use crate::postfix::instance::PROGRAM_PATH;

/// Clocks that are set by the network jump by less.
const TOLERANCE: Duration = Duration::from_secs(5);

pub(super) fn opens(at: &Context<'_>) -> Outcome {
    let path = at.config.store.path.display();
    Ok(match &at.store {
        Err(error) => Verdict::fail(
            format!("store: {error}"),
            "`posttls init` makes one where none is; free space if its file system is full; restore one that is damaged",
        ),
        Ok(health) => match health.version {
            Version::Current => Verdict::ok(format!("store {path}")),
            Version::Older => Verdict::warn(
                format!("store {path}: its schema is that of an older PostTLS"),
                "restart posttls-httpd, which brings it up to date",
            ),
            Version::Newer => Verdict::fail(
                format!("store {path}: its schema is that of a newer PostTLS"),
                "install that version again",
            ),
        },
    })
}

pub(super) fn integrity(at: &Context<'_>) -> Outcome {
    Ok(match &at.store()?.integrity {
        Integrity::Good => Verdict::ok("store: quick_check finds nothing"),
        Integrity::TooLong => {
            Verdict::ok("store: quick_check found nothing in the time that it had")
        }
        Integrity::Damaged(why) => Verdict::fail(
            format!("store: quick_check says: {why}"),
            "stop posttls-httpd, keep a copy of the database, and restore it from a backup",
        ),
    })
}

pub(super) fn conflicts(at: &Context<'_>) -> Outcome {
    let stopped = &at.store()?.conflicts;
    Ok(if stopped.is_empty() {
        Verdict::ok("no move is stopped in the middle")
    } else {
        // None of them goes on by itself, and their mail waits on hold.
        Verdict::fail(
            format!(
                "moves that are stopped in the middle, for you to look at: {}",
                stopped.join(", ")
            ),
            "`posttls resolve QUEUE_ID` shows what is where, and records that you have settled it",
        )
    })
}

pub(super) fn decisions(at: &Context<'_>) -> Outcome {
    const SHOWN: usize = 10;
    let late = &at.store()?.late;
    if late.is_empty() {
        return Ok(Verdict::ok("every decision was carried out"));
    }
    let mut named = late[..late.len().min(SHOWN)].join(", ");
    if let Some(more @ 1..) = late.len().checked_sub(SHOWN) {
        named += &format!(" and {more} more");
    }
    Ok(Verdict::warn(
        format!("decisions that have waited for more than a minute to be carried out: {named}"),
        "`posttls case QUEUE_ID` says why, and so does the log; PostTLS goes on by itself when that is mended",
    ))
}

pub(super) fn odd_notices(at: &Context<'_>) -> Outcome {
    let count = at.store()?.odd_notices;
    Ok(if count == 0 {
        Verdict::ok("no notice was refused or misunderstood")
    } else {
        Verdict::warn(
            format!("notices that were refused or misunderstood: {count}"),
            format!(
                "they are in the table odd_notices of {}, with the reason; delete them there when you have looked",
                at.config.store.path.display()
            ),
        )
    })
}

pub(super) fn clock(at: &Context<'_>) -> Outcome {
    let now = SystemTime::now();
    let newest = at.store().ok().and_then(|health| health.newest_event);
    let event = newest
        .and_then(|at| u64::try_from(at).ok())
        .map(|at| SystemTime::UNIX_EPOCH + Duration::from_millis(at));
    let modified = |path: &std::path::Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let seen = [
        ("the newest event in the store", event),
        (
            "the last change of the store",
            modified(&at.config.store.path),
        ),
        (
            "the build of this program",
            std::env::current_exe()
                .ok()
                .and_then(|path| modified(&path)),
        ),
    ];
    for (what, when) in seen {
        if let Some(ahead) = when.and_then(|when| when.duration_since(now).ok())
            && ahead > TOLERANCE
        {
            return Ok(Verdict::fail(
                format!("clock: {what} is {} s in the future", ahead.as_secs()),
                "set the clock: links expire and reminders are sent by it; if it is right now, it was ahead before, and this passes",
            ));
        }
    }
    if let Some(until) = at
        .store()
        .ok()
        .and_then(|health| health.clock_doubted_until)
    {
        return Ok(Verdict::warn(
            format!(
                "clock: it was set ahead, or no mover ran for more than a day; nothing is forgotten before {}",
                crate::admin::cases::clock(until)
            ),
            "if the time is right now, there is nothing to do; if not, set the clock before that",
        ));
    }
    Ok(if synchronised() == Some(false) {
        Verdict::warn(
            "clock: plausible, but not synchronised",
            "start a time service (systemd-timesyncd, chrony)",
        )
    } else {
        Verdict::ok("clock: not behind what the store has seen")
    })
}

/// What systemd knows of it; `None` where nobody can be asked.
fn synchronised() -> Option<bool> {
    let output = Command::new("timedatectl")
        .env_clear()
        .env("PATH", PROGRAM_PATH)
        .args(["show", "--property=NTPSynchronized", "--value"])
        .output()
        .ok()?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}
