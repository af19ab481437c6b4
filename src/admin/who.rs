//! Who gives a command: for the record of decisions and lists, which all commands keep alike.

use std::fs;

use crate::postfix::user;
use crate::text;

/// What `/proc/self/loginuid` says of processes that nobody logged in for.
const NOBODY: u32 = u32::MAX;

/// The login name behind this process: the user that sudo was called by, else the one that logged in, else root.
pub(super) fn who() -> String {
    let by_sudo = std::env::var("SUDO_USER")
        .ok()
        .filter(|name| !name.is_empty());
    let name = by_sudo.or_else(|| {
        let number = fs::read_to_string("/proc/self/loginuid").ok()?;
        let uid = number.trim().parse().ok().filter(|uid| *uid != NOBODY)?;
        user::name_of(uid)
    });
    text::readable(name.as_deref().unwrap_or("root"), 80)
}
