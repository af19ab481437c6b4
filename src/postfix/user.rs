//! Users of this system, looked up with `getent`, which asks every source that the system knows.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long `getent` may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A user's name and numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Number of the primary group.
    pub gid: u32,
}

/// Why a user is not known.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// `getent` can't be run.
    #[error("cannot run getent {database} {name}: {source}")]
    Run {
        /// `passwd` or `group`.
        database: String,
        /// Who was looked for.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// There is no such user.
    #[error(
        "there is no user {0:?} on this system; `posttls init` creates those that PostTLS needs"
    )]
    Unknown(String),
    /// There is no such group.
    #[error("there is no group {0:?} on this system")]
    UnknownGroup(String),
    /// What a user may do could not be tried.
    #[error("cannot run test(1) as user {name}: {source}")]
    Try {
        /// As whom.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// What a user may do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Write it.
    Write,
    /// Run it, or enter it.
    Execute,
}

impl User {
    /// May this user, with the one group `gid`, do that? The system itself is asked, by test(1) as that user: no rule
    /// of directories, lists or file systems is left out. Needs root.
    ///
    /// # Errors
    /// When test(1) can't be run.
    pub fn may(&self, access: Access, path: &Path) -> Result<bool, UserError> {
        let option = match access {
            Access::Read => "-r",
            Access::Write => "-w",
            Access::Execute => "-x",
        };
        let mut command = Command::new("/usr/bin/test");
        command.env_clear().current_dir("/").arg(option).arg(path);
        // As root this leaves no other group.
        command.uid(self.uid).gid(self.gid);
        let status = command.status().map_err(|source| UserError::Try {
            name: self.name.clone(),
            source,
        })?;
        Ok(status.success())
    }
}

/// The number of a group.
///
/// # Errors
/// When there is none of that name, or the system can't be asked.
pub fn group(name: &str) -> Result<u32, UserError> {
    let unknown = || UserError::UnknownGroup(name.to_owned());
    if name.is_empty() || name.starts_with('-') {
        return Err(unknown());
    }
    let text = entry("group", name)?;
    let number = text.split(':').nth(2);
    number
        .and_then(|field| field.parse().ok())
        .ok_or_else(unknown)
}

/// A directory service that does not answer must not keep us for ever.
fn getent(database: &str, name: &str) -> std::io::Result<std::process::Output> {
    let mut command = Command::new("getent");
    command
        .env_clear()
        .env("PATH", super::instance::PROGRAM_PATH)
        .args([database, name]);
    super::command::output(&mut command, LIMIT)
}

/// The line that `getent` has for a name; empty when it has none.
fn entry(database: &str, name: &str) -> Result<String, UserError> {
    let output = getent(database, name).map_err(|source| UserError::Run {
        database: database.to_owned(),
        name: name.to_owned(),
        source,
    })?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

/// Looks a user up by name.
///
/// # Errors
/// When there is none, or the system can't be asked.
pub fn lookup(name: &str) -> Result<User, UserError> {
    let unknown = || UserError::Unknown(name.to_owned());
    if name.is_empty() || name.starts_with('-') {
        return Err(unknown());
    }
    let text = entry("passwd", name)?;
    let mut fields = text.split(':').skip(2);
    let mut number = || fields.next().and_then(|field| field.parse().ok());
    match (number(), number()) {
        (Some(uid), Some(gid)) => Ok(User {
            name: name.to_owned(),
            uid,
            gid,
        }),
        _ => Err(unknown()),
    }
}

/// The login name of a user number. `None` when nobody has it, or the system can't be asked.
pub fn name_of(uid: u32) -> Option<String> {
    let output = getent("passwd", &uid.to_string()).ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let name = text.split(':').next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_nonsense_is_not() {
        assert_eq!(
            lookup("root").unwrap(),
            User {
                name: "root".to_owned(),
                uid: 0,
                gid: 0
            }
        );
        assert_eq!(name_of(0).as_deref(), Some("root"));
        assert_eq!(name_of(u32::MAX - 1), None);
        for name in ["", "--help", "no such user"] {
            assert!(matches!(lookup(name), Err(UserError::Unknown(_))), "{name}");
        }
    }
}
