//! `posttls init`: everything on this host that PostTLS needs beside Postfix. Running it again is harmless.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use clap::Args;

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
    #[arg(long, value_name = "URL")]
    base_url: Option<url::Url>,
    /// From address of the mail to senders. Needed while there is no configuration file.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<Address>,
    /// Whom senders ask, as mail and pages show it. Needed while there is no configuration file.
    #[arg(long, value_name = "TEXT")]
    admin_contact: Option<String>,
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
    if !config_path.exists() {
        // Asked for before anything is made.
        answers(options, config_path)?;
    }
    let pipe_user = ensure_user(&options.pipe_user, options.no_users)?;
    if let Some(directory) = config_path.parent() {
        ensure_directory(directory, 0o755, None)?;
    }
    ensure_config(config_path, options, &pipe_user)?;
    let config = Config::load(config_path)?;
    ensure_user(&config.http.web_user, options.no_users)?;
    ensure_key(&config.link.key_file, &pipe_user)?;
    ensure_store(&config.store.path, &pipe_user)?;
    ensure_directory(&config.mover.run_dir, 0o700, None)?;
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

fn ensure_config(path: &Path, options: &InitOptions, pipe_user: &User) -> Result<(), AdminError> {
    if path.exists() {
        return say("configuration", &path.display().to_string(), false);
    }
    let (base_url, from, contact) = answers(options, path)?;
    let mut text = DEFAULT_FILE.to_owned();
    let wanted = [
        ("base_url", base_url.as_str().trim_end_matches('/')),
        ("from_address", from.as_str()),
        ("admin_contact", contact),
    ];
    for (key, value) in wanted {
        text = set_key(&text, key, value)?;
    }
    write_secret(path, &text, pipe_user)?;
    say("configuration", &path.display().to_string(), true)
}

/// What a configuration file can't do without.
fn answers<'a>(
    options: &'a InitOptions,
    path: &Path,
) -> Result<(&'a url::Url, &'a Address, &'a str), AdminError> {
    match (&options.base_url, &options.from, &options.admin_contact) {
        (Some(base_url), Some(from), Some(contact)) => Ok((base_url, from, contact)),
        _ => Err(AdminError::new(
            Exit::Usage,
            format!(
                "{}: there is no configuration file yet: give --base-url, --from and --admin-contact",
                path.display()
            ),
        )),
    }
}

/// Gives `key` another value in the text of the shipped file, and leaves its comments alone.
fn set_key(text: &str, key: &str, value: &str) -> Result<String, AdminError> {
    let start = format!("{key} = ");
    let mut found = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with(&start) {
            found = true;
            lines.push(format!("{start}{}", toml::Value::String(value.to_owned())));
        } else {
            lines.push(line.to_owned());
        }
    }
    if found {
        Ok(lines.join("\n") + "\n")
    } else {
        Err(AdminError::new(
            Exit::Failure,
            format!("the shipped file has no key {key}"),
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
        chown(path, Some(pipe_user.uid), Some(pipe_user.gid)).map_err(at(path, "set its owner"))?;
        fs::set_permissions(path, Permissions::from_mode(0o600))
            .map_err(at(path, "set its mode"))?;
    }
    say("database", &path.display().to_string(), made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_as_toml() {
        let text = set_key(DEFAULT_FILE, "admin_contact", "IT \"help\"\\desk").unwrap();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(
            table["notification"]["admin_contact"].as_str(),
            Some("IT \"help\"\\desk")
        );
        assert!(set_key(DEFAULT_FILE, "no_such_key", "x").is_err());
    }
}
