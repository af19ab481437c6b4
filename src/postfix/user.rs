//! Users of this system, looked up with `getent`, which asks every source that the system knows.

use std::io;
use std::process::Command;

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
    #[error("cannot run getent passwd {name}: {source}")]
    Run {
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
    let output = Command::new("getent")
        .env_clear()
        .env("PATH", super::instance::PROGRAM_PATH)
        .args(["passwd", name])
        .output()
        .map_err(|source| UserError::Run {
            name: name.to_owned(),
            source,
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut fields = text.trim_end().split(':').skip(2);
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
    let output = Command::new("getent")
        .env_clear()
        .env("PATH", super::instance::PROGRAM_PATH)
        .args(["passwd", &uid.to_string()])
        .output()
        .ok()?;
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
