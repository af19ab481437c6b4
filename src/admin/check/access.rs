//! Checks of files and users: who may read the secrets, who owns the store, and that the hook can do its work.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::context::{Context, HookUser};
use super::{Outcome, Verdict};
use crate::link::Keys;
use crate::postfix::user::{self, Access, User, UserError};
use crate::standing::wire;

const OTHERS: u32 = 0o007;
const OTHERS_AND_GROUP: u32 = 0o077;

/// Why a secret file is not as it should be: readable by the hook, and by no other user.
fn secret(path: &Path, hook: &HookUser) -> Result<Option<String>, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if metadata.mode() & OTHERS != 0 {
        let mode = metadata.mode() & 0o7777;
        return Ok(Some(format!("mode {mode:04o} lets everybody in")));
    }
    if metadata.uid() != 0 {
        return Ok(Some(format!("owned by user {}, not root", metadata.uid())));
    }
    if hook.with_group().may(Access::Write, path).map_err(text)? {
        return Ok(Some("the hook's user may write it".to_owned()));
    }
    let readable = hook.with_group().may(Access::Read, path).map_err(text)?;
    Ok((!readable).then(|| "the hook's user can't read it".to_owned()))
}

fn text(error: UserError) -> String {
    error.to_string()
}

/// How a secret's owner and mode are set right.
fn repair(path: &Path, hook: &HookUser) -> String {
    let path = path.display();
    format!("chown root:{} {path}; chmod 0640 {path}", hook.group)
}

pub(super) fn configuration(at: &Context<'_>) -> Outcome {
    let hook = at.good_hook_user()?;
    let what = format!("access to {}", at.config_path.display());
    Ok(match secret(at.config_path, &hook) {
        Ok(None) => Verdict::ok(format!("{what}: root and the hook's group")),
        Ok(Some(why)) | Err(why) => {
            Verdict::fail(format!("{what}: {why}"), repair(at.config_path, &hook))
        }
    })
}

pub(super) fn link_key(at: &Context<'_>) -> Outcome {
    let path = &at.config.link.key_file;
    if let Err(error) = Keys::load(path) {
        let todo = "correct the line, or restore the file: without it no link works";
        return Ok(Verdict::fail(error.to_string(), todo));
    }
    let hook = at.good_hook_user()?;
    let what = format!("link key {}", path.display());
    Ok(match secret(path, &hook) {
        Ok(None) => Verdict::ok(format!("{what}: for root and the hook's group")),
        Ok(Some(why)) | Err(why) => Verdict::fail(format!("{what}: {why}"), repair(path, &hook)),
    })
}

pub(super) fn log_target(at: &Context<'_>) -> Outcome {
    let target = at.config.log.target.as_str();
    let what = format!("log: {target}");
    let todo = "start the system's log service, or set log.target to a file";
    if target == "stderr" {
        let todo = "set log.target to \"syslog\" or a file: what the hook says goes to nobody";
        return Ok(Verdict::warn(what, todo));
    }
    if target == "syslog" {
        // As the log itself does it.
        let reached = ["/dev/log", "/var/run/syslog"]
            .into_iter()
            .any(|path| UnixDatagram::unbound().is_ok_and(|socket| socket.connect(path).is_ok()));
        return Ok(if reached {
            Verdict::ok(what)
        } else {
            Verdict::fail(format!("{what}: nobody listens at /dev/log"), todo)
        });
    }
    let hook = at.good_hook_user()?;
    let path = Path::new(target);
    // A file that does not exist yet is made by whoever comes first.
    let tried = if path.exists() {
        path
    } else {
        path.parent().unwrap_or(path)
    };
    Ok(match hook.with_group().may(Access::Write, tried) {
        Ok(true) => Verdict::ok(what),
        Ok(false) => Verdict::fail(
            format!("{what}: the hook's user {} can't write it", hook.user.name),
            format!("let that user write {}", tried.display()),
        ),
        Err(error) => Verdict::fail(error.to_string(), "install coreutils"),
    })
}

pub(super) fn web_user(at: &Context<'_>) -> Outcome {
    let name = &at.config.http.web_user;
    let todo = "set http.web_user to a user of its own that may read nothing of this; `posttls init` makes one";
    let user = match user::lookup(name) {
        Ok(user) => user,
        Err(error) => return Ok(Verdict::fail(format!("http.web_user: {error}"), todo)),
    };
    if user.uid == 0 {
        return Ok(Verdict::fail("http.web_user is root", todo));
    }
    let config = at.config;
    for path in [&config.link.key_file, &config.store.path, at.config_path] as [&Path; 3] {
        match user.may(Access::Read, path) {
            Ok(false) => {}
            Ok(true) => {
                let what = format!("http.web_user {name} can read {}", path.display());
                return Ok(Verdict::fail(what, todo));
            }
            Err(error) => return Ok(Verdict::fail(error.to_string(), "install coreutils")),
        }
    }
    Ok(Verdict::ok(format!(
        "http.web_user {name} can read neither store nor key nor configuration"
    )))
}

pub(super) fn pipe_program(at: &Context<'_>) -> Outcome {
    let program = at.program()?;
    let hook = at.good_hook_user()?;
    let what = format!("hook program {}", program.display());
    let todo = "install posttls-pipe there, for all to run and for root alone to write";
    let metadata = match fs::metadata(&program) {
        Ok(metadata) => metadata,
        Err(error) => return Ok(Verdict::fail(format!("{what}: {error}"), todo)),
    };
    if metadata.mode() & 0o022 != 0 || metadata.uid() != 0 {
        let what = format!("{what}: others than root may write it");
        return Ok(Verdict::fail(what, todo));
    }
    Ok(match hook.with_group().may(Access::Execute, &program) {
        Ok(true) if metadata.is_file() => Verdict::ok(what),
        Ok(_) => {
            let who = &hook.user.name;
            Verdict::fail(format!("{what}: the hook's user {who} can't run it"), todo)
        }
        Err(error) => Verdict::fail(error.to_string(), "install coreutils"),
    })
}

pub(super) fn pipe_user(at: &Context<'_>) -> Outcome {
    let todo =
        "give the hook's entry in master.cf a user of its own; `posttls init` makes \"posttls\"";
    let user = match at.hook_user()? {
        None => return Ok(Verdict::fail("the hook's entry names no user=", todo)),
        Some(Err(error)) => return Ok(Verdict::fail(format!("hook user: {error}"), todo)),
        Some(Ok(hook)) => hook.user,
    };
    let what = format!("hook user {}", user.name);
    let settings = at.encrypt()?;
    let rivals = [
        ("root", "root"),
        ("the owner of Postfix's queue", settings.get("mail_owner")),
        ("the web child's user", at.config.http.web_user.as_str()),
    ];
    for (who, name) in rivals {
        if user::lookup(name).is_ok_and(|other: User| other.uid == user.uid) {
            return Ok(Verdict::fail(format!("{what} is {who}"), todo));
        }
    }
    Ok(Verdict::ok(what))
}

pub(super) fn store(at: &Context<'_>) -> Outcome {
    let path = &at.config.store.path;
    let hook = at.good_hook_user()?;
    let what = format!("access to the store {}", path.display());
    let directory = path.parent().unwrap_or(path);
    for (path, mode) in [(directory, "0700"), (path.as_path(), "0600")] {
        let shown = path.display();
        let todo = format!("chown {} {shown}; chmod {mode} {shown}", hook.user.name);
        match fs::metadata(path) {
            Err(error) => {
                let what = format!("{what}: {shown}: {error}");
                return Ok(Verdict::fail(what, "`posttls init` makes the store"));
            }
            Ok(metadata) if metadata.uid() != hook.user.uid => {
                let what = format!("{what}: {shown} belongs to user {}", metadata.uid());
                return Ok(Verdict::fail(what, todo));
            }
            Ok(metadata) if metadata.mode() & OTHERS_AND_GROUP != 0 => {
                let mode = metadata.mode() & 0o7777;
                let what = format!("{what}: {shown} has mode {mode:04o}");
                return Ok(Verdict::fail(what, todo));
            }
            Ok(_) => {}
        }
    }
    Ok(match hook.with_group().may(Access::Write, path) {
        Ok(true) => Verdict::ok(format!("{what}: the hook's user alone")),
        Ok(false) => Verdict::fail(
            format!("{what}: the hook's user can't reach it"),
            "let that user enter the directories above it",
        ),
        Err(error) => Verdict::fail(error.to_string(), "install coreutils"),
    })
}

pub(super) fn run_dir(at: &Context<'_>) -> Outcome {
    let directory = &at.config.mover.run_dir;
    let what = format!("run directory {}", directory.display());
    let private = |path: &Path, closed: u32| -> io::Result<Option<String>> {
        let metadata = fs::symlink_metadata(path)?;
        let private = metadata.uid() == 0 && metadata.mode() & closed == 0;
        let mode = metadata.mode() & 0o7777;
        let uid = metadata.uid();
        Ok((!private).then(|| format!("{}: user {uid}, mode {mode:04o}", path.display())))
    };
    let todo = "name a directory for PostTLS alone in mover.run_dir, which posttls-httpd makes when there is none, or set the mode of this one to 0711";
    // Others may pass through it, to the socket that is theirs.
    match private(directory, OTHERS_AND_GROUP & !0o011) {
        Ok(None) => {}
        Ok(Some(why)) => return Ok(Verdict::fail(format!("{what}: {why}"), todo)),
        Err(error) => return Ok(Verdict::fail(format!("{what}: {error}"), todo)),
    }
    let socket = wire::socket(directory);
    if socket.exists() {
        let hook = at.good_hook_user()?;
        if !hook
            .with_group()
            .may(Access::Write, &socket)
            .unwrap_or(false)
        {
            let who = &hook.user.name;
            let what = format!(
                "{what}: the hook's user {who} can't reach {}",
                socket.display()
            );
            let todo = format!(
                "chmod 0711 {}, and restart posttls-httpd",
                directory.display()
            );
            return Ok(Verdict::fail(what, todo));
        }
    }
    let socket = directory.join("control");
    Ok(match fs::symlink_metadata(&socket) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            match private(&socket, OTHERS_AND_GROUP) {
                Ok(None) => Verdict::ok(format!("{what} and its socket: root's alone")),
                Ok(Some(why)) => Verdict::fail(format!("{what}: {why}"), todo),
                Err(error) => Verdict::fail(format!("{what}: {error}"), todo),
            }
        }
        // Whether there should be one is for another check.
        _ => Verdict::ok(format!("{what}: root's alone")),
    })
}
