//! `posttls init`: everything on this host that PostTLS needs beside Postfix. Running it again is harmless.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{
    DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown,
};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use rustix::fs::OFlags;

use super::answers::{Answers, answers, pattern};
use super::{AdminError, Done, print};
use crate::address::Address;
use crate::case::store::Store;
use crate::config::{Config, DEFAULT_FILE};
use crate::exit::Exit;
use crate::link::{KEY_OCTETS, Keys};
use crate::postfix::instance::PROGRAM_PATH;
use crate::postfix::user::{self, User, UserError};

#[derive(Debug, Args)]
pub(super) struct InitOptions {
    /// What links begin with: where senders reach the reverse proxy. Needed while there is no configuration file.
    #[arg(long, value_name = "URL", env = "POSTTLS_LINK_BASE_URL")]
    pub(super) base_url: Option<url::Url>,
    /// From address of the mail to senders. Needed while there is no configuration file.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "POSTTLS_NOTIFICATION_FROM_ADDRESS"
    )]
    pub(super) from: Option<Address>,
    /// Where replies to that mail go: an address that somebody reads. Needed while there is no configuration file.
    #[arg(long, value_name = "ADDRESS", env = "POSTTLS_NOTIFICATION_REPLY_TO")]
    pub(super) reply_to: Option<Address>,
    /// Whom senders ask, as mail and pages show it. Needed while there is no configuration file.
    #[arg(long, value_name = "TEXT", env = "POSTTLS_NOTIFICATION_ADMIN_CONTACT")]
    pub(super) admin_contact: Option<String>,
    /// Whose senders are asked: a domain, a dot and a domain (all below it), an address, or "*" for everybody; may be
    /// given several times. Without it: the domains that the encrypt instance calls its own.
    #[arg(long, value_name = "DOMAIN", value_parser = pattern)]
    pub(super) internal: Vec<String>,
    /// The Postfix instance that is to be the encrypt instance: its configuration directory.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/etc/postfix",
        env = "POSTTLS_ENCRYPT_CONFIG_DIR"
    )]
    pub(super) encrypt_dir: PathBuf,
    /// The user that pipe(8) runs posttls-pipe as; created if missing.
    #[arg(long, value_name = "USER", default_value = "posttls")]
    pipe_user: String,
    /// Create no user; those that are needed must exist.
    #[arg(long)]
    no_users: bool,
}

pub(super) fn run(options: &InitOptions, config_path: &Path) -> Done {
    if !rustix::process::geteuid().is_root() {
        return Err(AdminError::new(
            Exit::Usage,
            "init must be run as root: it creates users and private files",
        ));
    }
    // Asked for before anything is made.
    let given = if config_path.exists() {
        None
    } else {
        Some(answers(options, config_path)?)
    };
    let pipe_user = ensure_user(&options.pipe_user, options.no_users)?;
    if let Some(directory) = config_path.parent() {
        ensure_directory(directory, 0o755, None)?;
    }
    ensure_config(config_path, given.as_ref(), &pipe_user)?;
    let config = Config::load(config_path)?;
    ensure_user(&config.http.web_user, options.no_users)?;
    ensure_key(&config.link.key_file, &pipe_user)?;
    ensure_store(&config.store.path, &pipe_user)?;
    ensure_directory(&config.mover.run_dir, 0o711, None)?;
    print(&format!(
        "\nNext, as the README says step by step:\n\
         - look {} through, smtp_host above all;\n\
         - set up the may instance, then start posttls-httpd and the reverse proxy;\n\
         - wire the encrypt instance last: encrypt-main.cf and master.cf.example.\n",
        config_path.display()
    ))?;
    Ok(Exit::Ok)
}

fn say(what: &str, path: &str, made: bool) -> Result<(), AdminError> {
    print(&format!(
        "{:8} {what} {path}\n",
        if made { "created" } else { "kept" }
    ))
}

fn ensure_user(name: &str, none: bool) -> Result<User, AdminError> {
    match user::lookup(name) {
        Ok(found) => {
            say("user", name, false)?;
            return Ok(found);
        }
        Err(UserError::Unknown(_)) if !none => {}
        Err(error) => return Err(error.into()),
    }
    let status = Command::new("useradd")
        .env("PATH", PROGRAM_PATH)
        .args([
            "--system",
            "--user-group",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
        ])
        .args(["--shell", "/usr/sbin/nologin", "--", name])
        .status()?;
    if !status.success() {
        return Err(AdminError::new(
            Exit::Failure,
            format!("useradd could not create the user {name:?} ({status})"),
        ));
    }
    say("user", name, true)?;
    Ok(user::lookup(name)?)
}

fn at(path: &Path, doing: &str) -> impl FnOnce(std::io::Error) -> AdminError {
    let text = format!("{}: cannot {doing}", path.display());
    move |error| AdminError::new(Exit::Failure, format!("{text}: {error}"))
}

fn ensure_directory(path: &Path, mode: u32, owner: Option<&User>) -> Result<(), AdminError> {
    let made = !path.exists();
    if made {
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .map_err(at(path, "create the directory"))?;
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(at(path, "set its mode"))?;
        if let Some(owner) = owner {
            chown(path, Some(owner.uid), Some(owner.gid)).map_err(at(path, "set its owner"))?;
        }
    }
    say("directory", &path.display().to_string(), made)
}

/// Writes a new file that nobody but root and `group` can ever have read.
fn write_secret(path: &Path, text: &str, group: &User) -> Result<(), AdminError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(at(path, "create the file"))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(at(path, "write the file"))?;
    chown(path, Some(0), Some(group.gid)).map_err(at(path, "set its owner"))?;
    fs::set_permissions(path, Permissions::from_mode(0o640)).map_err(at(path, "set its mode"))
}

fn ensure_config(
    path: &Path,
    given: Option<&Answers<'_>>,
    pipe_user: &User,
) -> Result<(), AdminError> {
    let Some(given) = given else {
        return say("configuration", &path.display().to_string(), false);
    };
    let mut text = DEFAULT_FILE.to_owned();
    let string = |text: &str| toml::Value::String(text.to_owned());
    let internal = given.internal.iter().map(|one| string(one)).collect();
    let encrypt_dir = given.encrypt_dir.to_string_lossy();
    for (section, key, value) in [
        ("encrypt", "config_dir", string(&encrypt_dir)),
        ("link", "base_url", string(given.base_url)),
        ("notification", "from_address", string(given.from.as_str())),
        ("notification", "reply_to", string(given.reply_to.as_str())),
        ("notification", "admin_contact", string(given.contact)),
        ("senders", "internal", toml::Value::Array(internal)),
    ] {
        text = set_key(&text, section, key, &value)?;
    }
    write_secret(path, &text, pipe_user)?;
    say("configuration", &path.display().to_string(), true)?;
    // At once: should a later step fail, the next run finds the file and says no more about it.
    print(&given.about_senders(path))
}

/// Gives a key another value in the text of the shipped file, and leaves its comments alone.
fn set_key(
    text: &str,
    section: &str,
    key: &str,
    value: &toml::Value,
) -> Result<String, AdminError> {
    let (header, start) = (format!("[{section}]"), format!("{key} = "));
    let (mut here, mut found) = (false, false);
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            here = line == header;
        }
        if here && line.starts_with(&start) {
            found = true;
            lines.push(format!("{start}{value}"));
        } else {
            lines.push(line.to_owned());
        }
    }
    if found {
        Ok(lines.join("\n") + "\n")
    } else {
        Err(AdminError::new(
            Exit::Failure,
            format!("the shipped file has no key {section}.{key}"),
        ))
    }
}

fn ensure_key(path: &Path, pipe_user: &User) -> Result<(), AdminError> {
    let made = !path.exists();
    if made {
        let mut key = [0u8; KEY_OCTETS];
        getrandom::fill(&mut key).map_err(|error| {
            AdminError::new(Exit::Failure, format!("no random numbers: {error}"))
        })?;
        let text = format!(
            "# Secret. New keys go on top, with the next number; remove old ones when their links have expired.\n{}",
            Keys::line(1, &key)
        );
        write_secret(path, &text, pipe_user)?;
    }
    Keys::load(path)?;
    say("link key", &path.display().to_string(), made)
}

fn ensure_store(path: &Path, pipe_user: &User) -> Result<(), AdminError> {
    if let Some(directory) = path.parent() {
        ensure_directory(directory, 0o700, Some(pipe_user))?;
    }
    let made = !path.exists();
    drop(Store::open(path, true)?);
    if made {
        // The write-ahead files that may stand beside it follow the owner of the database whenever root opens it.
        // By the file itself: its directory is that user's, who could have put a link in its place.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(at(path, "open the file"))?;
        fchown(&file, Some(pipe_user.uid), Some(pipe_user.gid))
            .map_err(at(path, "set its owner"))?;
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(at(path, "set its mode"))?;
    }
    say("database", &path.display().to_string(), made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_as_toml() {
        let value = toml::Value::from("IT \"help\"\\desk");
        let text = set_key(DEFAULT_FILE, "notification", "admin_contact", &value).unwrap();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(
            table["notification"]["admin_contact"].as_str(),
            Some("IT \"help\"\\desk")
        );
        assert!(set_key(DEFAULT_FILE, "link", "admin_contact", &value).is_err());
        let text = set_key(&text, "encrypt", "config_dir", &toml::Value::from("/x")).unwrap();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["encrypt"]["config_dir"].as_str(), Some("/x"));
        assert_eq!(
            table["may"]["config_dir"].as_str(),
            Some("/etc/postfix-may")
        );
    }
}
