//! The control socket: how the admin's command asks the running mover to decide, so that only one process ever moves.
//!
//! It lies in a directory that only root can enter, and it speaks the framing of [`crate::web::protocol`].

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{error, warn};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Desk;
use super::desk::{Decided, DeskError};
pub use super::lock::Lock;
use super::lock::{self, LockError};
use crate::address::Address;
use crate::case::{Action, Actor, Case, CaseId, Outcome, Recipient};
use crate::connect;
use crate::web::protocol::{MAX_ANSWER, MAX_QUESTION, receive, send};

/// For a question to come whole, and for its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// For a mover of another version to say that it is there.
const PRESENCE: Duration = Duration::from_secs(2);

/// A decision by the admin.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The case.
    pub case: CaseId,
    /// What to do.
    pub action: Action,
    /// With whom; empty means all that are open.
    pub recipients: Vec<Address>,
    /// Who asks: the login name behind the command.
    pub by: String,
    /// Send although a policy demands TLS?
    pub override_policy: bool,
}

/// A question that changes nothing: is a mover there, and which?
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ping {
    /// Says which message this is.
    pub ping: bool,
}

/// The answer to a [`Ping`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pulse {
    /// The running version of PostTLS.
    pub version: String,
    /// Decisions that are still to be carried out.
    pub unfinished: usize,
}

/// What comes in by the control socket.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Request {
    Order(Order),
    Ping(#[expect(dead_code, reason = "it says all by being one")] Ping),
}

/// What became of an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Report {
    /// Recipients with what was done.
    Done(Vec<(Address, Outcome)>),
    /// Nothing was done, for this reason.
    Refused(String),
}

/// Why the mover's directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A file or socket of it fails.
    #[error("{path}: cannot {doing}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Others could put something in the place of what is in it.
    #[error(
        "{path}: {what}; mover.run_dir must be a directory of root's own, no symbolic link, that nobody else can write \
         to: name one for PostTLS alone, which it makes itself when there is none"
    )]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another mover holds the lock.
    #[error(
        "{0}: another mover works on these queues (posttls-httpd, or an admin's command); stop it first"
    )]
    Running(PathBuf),
}

/// Makes `run_dir` if there is none. One that is there is looked at and never changed: it may be any directory of the
/// system, by a mistake in the configuration.
fn own_directory(run_dir: &Path) -> Result<(), ControlError> {
    let fault = |doing| {
        move |source| ControlError::File {
            path: run_dir.to_owned(),
            doing,
            source,
        }
    };
    let unsafe_as = |what: String| ControlError::Unsafe {
        path: run_dir.to_owned(),
        what,
    };
    let found = match fs::symlink_metadata(run_dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new()
                .recursive(true)
                // The hook's user passes through it to a socket of its own ([`super::standing`]).
                .mode(0o711)
                .create(run_dir)
                .map_err(fault("create the directory"))?;
            fs::symlink_metadata(run_dir).map_err(fault("look at the directory"))?
        }
        Err(error) => return Err(fault("look at the directory")(error)),
    };
    let (own, mode) = (geteuid().as_raw(), found.mode() & 0o7777);
    if !found.is_dir() {
        return Err(unsafe_as("not a directory".to_owned()));
    }
    if found.uid() != own {
        return Err(unsafe_as(format!("owned by user number {}", found.uid())));
    }
    if mode & 0o022 != 0 {
        return Err(unsafe_as(format!(
            "mode {mode:04o}, so others can write to it"
        )));
    }
    Ok(())
}

/// Becomes the only mover that uses `run_dir` and moves mail into the queues below `spool`. The lock is in the spool:
/// whatever two configurations say, two movers of one instance have that in common.
///
/// # Errors
/// When another one is running, or a directory can't be used.
pub fn lock(run_dir: &Path, spool: &Path) -> Result<Lock, ControlError> {
    own_directory(run_dir)?;
    let answers = || matches!(ping(run_dir, PRESENCE), Ok(Some(_)));
    lock::take(spool, answers).map_err(|error| match error {
        LockError::Taken => ControlError::Running(spool.to_owned()),
        LockError::File {
            path,
            doing,
            source,
        } => ControlError::File {
            path,
            doing,
            source,
        },
    })
}

fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("control")
}

/// Answers orders in threads of its own. Needs the [`Lock`]: a socket that is left over is then nobody's.
///
/// # Errors
/// When the socket can't be made.
pub fn serve(run_dir: &Path, desk: Arc<Desk>, _lock: &Lock) -> Result<(), ControlError> {
    let path = socket(run_dir);
    let fault = |source| ControlError::File {
        path: path.clone(),
        doing: "listen",
        source,
    };
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(fault)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(fault)?;
    thread::spawn(move || {
        for connection in listener.incoming() {
            match connection {
                Ok(stream) => {
                    let desk = Arc::clone(&desk);
                    thread::spawn(move || {
                        if let Err(error) = answer(&stream, &desk) {
                            warn!("control socket: {error}");
                        }
                    });
                }
                Err(error) => {
                    error!("control socket: {error}");
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    });
    Ok(())
}

/// A directory that others may enter shows the socket to them before it has its mode.
fn is_ours(stream: &UnixStream) -> io::Result<()> {
    match socket_peercred(stream)?.uid {
        peer if peer.is_root() || peer == geteuid() => Ok(()),
        peer => Err(io::Error::other(format!(
            "refused user number {}: only root may ask",
            peer.as_raw()
        ))),
    }
}

fn answer(stream: &UnixStream, desk: &Desk) -> io::Result<()> {
    is_ours(stream)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    match receive::<Request>(stream, MAX_QUESTION)? {
        None => Ok(()),
        Some(Request::Order(order)) => send(stream, &carry_out(&order, desk), MAX_ANSWER),
        Some(Request::Ping(_)) => {
            let pulse = Pulse {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                unfinished: desk.unfinished().map_err(io::Error::other)?,
            };
            send(stream, &pulse, MAX_ANSWER)
        }
    }
}

/// Carries an order out at this desk.
pub fn carry_out(order: &Order, desk: &Desk) -> Report {
    let result = (|| {
        let (case, recipients) = desk
            .case(order.case)?
            .ok_or_else(|| DeskError::Stranger(format!("case {}", order.case)))?;
        let choices = choices(order, &case, &recipients)?;
        if order.override_policy {
            desk.overrule(case, &choices, &order.by)
        } else {
            // What is known now is what `posttls case` shows.
            desk.decide(case, &choices, Actor::Admin, &order.by, None)
        }
    })();
    match result {
        Ok(Decided { recipients, .. }) => Report::Done(
            recipients
                .into_iter()
                .filter_map(|(recipient, outcome)| Some((recipient.address, outcome?)))
                .collect(),
        ),
        Err(error) => Report::Refused(error.to_string()),
    }
}

fn choices(
    order: &Order,
    case: &Case,
    recipients: &[Recipient],
) -> Result<Vec<(i64, Action)>, DeskError> {
    if order.recipients.is_empty() {
        let open = recipients
            .iter()
            .filter(|recipient| recipient.state.is_open());
        return Ok(open.map(|recipient| (recipient.id, order.action)).collect());
    }
    let find = |address: &Address| {
        let found = recipients
            .iter()
            .find(|recipient| recipient.address == *address);
        found
            .map(|recipient| (recipient.id, order.action))
            .ok_or_else(|| DeskError::Stranger(format!("{address} in {}", case.key.queue_id)))
    };
    order.recipients.iter().map(find).collect()
}

/// Asks the running mover to carry an order out. `None` when none is running.
///
/// # Errors
/// When it does not answer.
pub fn ask(run_dir: &Path, order: &Order) -> Result<Option<Report>, ControlError> {
    exchange(run_dir, order, Duration::from_secs(60))
}

/// Asks whether a mover is running, and waits at most `patience` for its answer. `None` when none is.
///
/// # Errors
/// When it does not answer.
pub fn ping(run_dir: &Path, patience: Duration) -> Result<Option<Pulse>, ControlError> {
    exchange(run_dir, &Ping { ping: true }, patience)
}

fn exchange<T: DeserializeOwned>(
    run_dir: &Path,
    question: &impl Serialize,
    patience: Duration,
) -> Result<Option<T>, ControlError> {
    let path = socket(run_dir);
    let fault = |doing| {
        let path = path.clone();
        move |source| ControlError::File {
            path,
            doing,
            source,
        }
    };
    let stream = match connect::within(&path, patience) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(fault("connect to the mover")(error)),
    };
    send(&stream, question, MAX_QUESTION).map_err(fault("ask the mover"))?;
    let answer = receive(&stream, MAX_ANSWER).map_err(fault("read the mover's answer"))?;
    answer
        .map(Some)
        .ok_or_else(|| fault("read the mover's answer")(io::ErrorKind::UnexpectedEof.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_directory_that_is_there_is_looked_at_and_never_changed() {
        let scratch = tempfile::tempdir().unwrap();
        let absent = scratch.path().join("a/b");
        own_directory(&absent).unwrap();
        assert_eq!(mode(&absent), 0o711);

        let existing = scratch.path().join("existing");
        fs::create_dir(&existing).unwrap();
        for good in [0o755, 0o711, 0o700, 0o1755] {
            fs::set_permissions(&existing, Permissions::from_mode(good)).unwrap();
            own_directory(&existing).unwrap();
            assert_eq!(mode(&existing), good);
        }
        for bad in [0o775, 0o757, 0o1777] {
            fs::set_permissions(&existing, Permissions::from_mode(bad)).unwrap();
            let said = own_directory(&existing).unwrap_err().to_string();
            assert!(said.contains(&format!("mode {bad:04o}")), "{said}");
            assert_eq!(mode(&existing), bad);
        }

        fs::set_permissions(&existing, Permissions::from_mode(0o755)).unwrap();
        let by_link = scratch.path().join("link");
        symlink(&existing, &by_link).unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        for not in [&by_link, &file] {
            let said = own_directory(not).unwrap_err().to_string();
            assert!(said.contains("not a directory"), "{said}");
        }
        assert_eq!(mode(&existing), 0o755);
        if geteuid().is_root() {
            chown(&existing, Some(65_534), None).unwrap();
            let said = own_directory(&existing).unwrap_err().to_string();
            assert!(said.contains("user number 65534"), "{said}");
        }
    }
}
