//! One Postfix instance: its settings, asked once, and the few commands that PostTLS runs on it.
//!
//! Programs and arguments are fixed; the only thing that varies is a [`QueueId`], which can't be mistaken for an option.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use log::warn;

#[cfg(feature = "programs")]
use super::apart::output as carry_out;
#[cfg(not(feature = "programs"))]
use super::command::output as carry_out;
use super::lifetime::{Lifetimes, days_or_unit};
use super::user::{self, User, UserError};
use super::{Queue, QueueId};

/// Where Postfix's own programs are looked for, whatever the caller's PATH says.
pub const PROGRAM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a command about one message may take, in which a sender waits for the answer to a click: with the wait for a
/// delivery under way before it, less than the web child's patience of ten seconds.
const ONE_MESSAGE: Duration = Duration::from_secs(5);
/// How long any other command may take.
pub(super) const ANY: Duration = Duration::from_secs(30);

/// A Postfix instance, as its `main.cf` describes it.
#[derive(Debug, Clone)]
pub struct Instance {
    /// What `-c` takes.
    pub config_dir: PathBuf,
    /// Top of its queues.
    pub queue_directory: PathBuf,
    /// Who owns queue files.
    pub mail_owner: User,
    command_directory: PathBuf,
    /// `main.cf` when it was read.
    stamp: Option<Stamp>,
    pub(super) hashed: Vec<String>,
    pub(super) hash_depth: usize,
    /// How long it keeps trying.
    pub lifetimes: Lifetimes,
    /// Local part of the sender of what it writes to its postmaster.
    pub double_bounce: String,
}

/// What tells one version of a file from the next.
type Stamp = (u64, u64, i64, i64);

fn stamp(config_dir: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(config_dir.join("main.cf")).ok()?;
    Some((
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

/// Why a Postfix command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum PostfixError {
    /// The program can't be run.
    #[error("cannot run {program}: {source}; is Postfix installed?")]
    Run {
        /// With its arguments.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The program did not end, and was killed.
    #[error(
        "{program} did not end within {seconds} s and was killed; run it by hand to see what it waits for"
    )]
    Hung {
        /// With its arguments.
        program: String,
        /// How long it was waited for, in seconds.
        seconds: u64,
    },
    /// The program ran and failed.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// With its arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// Its standard error, on one line.
        said: String,
    },
    /// A setting is not what it must be.
    #[error("{config_dir}: {name} = {value:?}: {expected}")]
    Setting {
        /// The instance.
        config_dir: PathBuf,
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// The owner of the queues is unknown.
    #[error(transparent)]
    User(#[from] UserError),
    /// A queue file did not go where it should have gone.
    #[error(
        "{queue_id}: {program} said that all is well, but the message is {found} instead of {wanted}"
    )]
    NotMoved {
        /// The message.
        queue_id: QueueId,
        /// With its arguments.
        program: String,
        /// Where it is.
        found: String,
        /// Where it should be.
        wanted: &'static str,
    },
}

const SETTINGS: [&str; 8] = [
    "queue_directory",
    "mail_owner",
    "command_directory",
    "hash_queue_names",
    "hash_queue_depth",
    "maximal_queue_lifetime",
    "bounce_queue_lifetime",
    "double_bounce_sender",
];

impl Instance {
    /// Asks `postconf` for the settings of the instance in `config_dir`.
    ///
    /// # Errors
    /// When there is no such instance, or a setting makes no sense.
    pub fn load(config_dir: &Path) -> Result<Self, PostfixError> {
        // Before it is read: a change in between is then seen as one.
        let stamp = stamp(config_dir);
        let mut command = program("postconf", config_dir);
        let output = run(command.args(["-x", "-h"]).args(SETTINGS))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut values = text.lines().map(str::trim);
        let mut next = |name: &'static str| {
            values
                .next()
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
                .ok_or_else(|| PostfixError::Setting {
                    config_dir: config_dir.to_owned(),
                    name,
                    value: String::new(),
                    expected: "must not be empty",
                })
        };
        let queue_directory = PathBuf::from(next(SETTINGS[0])?);
        let mail_owner = user::lookup(&next(SETTINGS[1])?)?;
        let command_directory = PathBuf::from(next(SETTINGS[2])?);
        // The only one of these that may be empty: no queue is hashed then.
        let hashed = next(SETTINGS[3]).unwrap_or_default();
        let hashed = hashed
            .split([' ', ',', '\t'])
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        let number = |name, value: String| {
            let expected = "must be a whole number";
            value.parse::<u64>().map_err(|_| PostfixError::Setting {
                config_dir: config_dir.to_owned(),
                name,
                value,
                expected,
            })
        };
        let hash_depth = number(SETTINGS[4], next(SETTINGS[4])?)?;
        let mut span = |name| {
            let value = next(name)?;
            days_or_unit(&value).ok_or_else(|| PostfixError::Setting {
                config_dir: config_dir.to_owned(),
                name,
                value,
                expected: "must be a time, as 5d",
            })
        };
        let lifetimes = Lifetimes {
            message: span(SETTINGS[5])?,
            bounce: span(SETTINGS[6])?,
        };
        let double_bounce = next(SETTINGS[7])?;
        Ok(Self {
            lifetimes,
            double_bounce,
            config_dir: config_dir.to_owned(),
            queue_directory,
            mail_owner,
            stamp,
            command_directory,
            hashed,
            hash_depth: usize::try_from(hash_depth).unwrap_or(usize::MAX),
        })
    }

    /// Is `main.cf` still the one that was read?
    pub fn is_current(&self) -> bool {
        self.stamp.is_some() && self.stamp == stamp(&self.config_dir)
    }

    /// How long the instance keeps trying before it returns a message, in seconds, as it is set now.
    ///
    /// # Errors
    /// When the settings can't be read.
    pub fn queue_lifetime(&self, null_sender: bool) -> Result<i64, PostfixError> {
        let lifetimes = if self.is_current() {
            self.lifetimes
        } else {
            Self::load(&self.config_dir)?.lifetimes
        };
        Ok(if null_sender {
            lifetimes.bounce
        } else {
            lifetimes.message
        })
    }

    /// Puts the message on hold if it is in the deferred queue, and only then: `postsuper -h QUEUE_ID deferred`.
    /// A message in the active queue is left alone, because the queue manager still has its recipients in memory.
    /// Returns whether it is on hold now.
    ///
    /// # Errors
    /// When `postsuper` fails.
    pub fn hold_deferred(&self, id: &QueueId) -> Result<bool, PostfixError> {
        let result = self.postsuper(&["-h", id.as_str(), "deferred"]);
        let held = self.is_held(id)?;
        if held {
            note_failure(result, "on hold");
            return Ok(true);
        }
        result.map(|()| false)
    }

    /// Puts a held message back into the deferred queue: `postsuper -H`.
    ///
    /// # Errors
    /// When `postsuper` fails, or the message stays where it was.
    pub fn release_hold(&self, id: &QueueId) -> Result<(), PostfixError> {
        self.leave_hold(
            &["-H", id.as_str(), "hold"],
            id,
            "in the deferred queue",
            Some("deferred"),
        )
    }

    /// Removes a held message: `postsuper -d QUEUE_ID hold`.
    ///
    /// # Errors
    /// When `postsuper` fails, or the message stays where it was.
    pub fn delete_held(&self, id: &QueueId) -> Result<(), PostfixError> {
        self.leave_hold(&["-d", id.as_str(), "hold"], id, "removed", None)
    }

    fn is_held(&self, id: &QueueId) -> Result<bool, PostfixError> {
        self.holds(Queue::Hold, id)
            .map_err(|source| PostfixError::Run {
                program: "stat".to_owned(),
                source,
            })
    }

    /// What counts is where the file is: `postsuper` exits with 0 even when it found nothing to do, and with 1 after it
    /// did its work when it can't log it. (As `mail_owner` it can't open `maillog_file` while the instance is stopped.)
    fn leave_hold(
        &self,
        arguments: &[&str],
        id: &QueueId,
        wanted: &'static str,
        arrival: Option<&str>,
    ) -> Result<(), PostfixError> {
        let result = self.postsuper(arguments);
        let held = self.is_held(id)?;
        if !held {
            note_failure(result, wanted);
            // `postsuper` leaves its renames to the system, but the journal is about to say that they are on disk.
            return self
                .sync_out_of_hold(arrival, id)
                .map_err(|source| PostfixError::Run {
                    program: "fsync".to_owned(),
                    source,
                });
        }
        result?;
        Err(PostfixError::NotMoved {
            queue_id: id.clone(),
            program: format!("postsuper {}", arguments.join(" ")),
            found: "still on hold".to_owned(),
            wanted,
        })
    }

    /// Waits until a message's way out of the hold queue, and into `arrival`, is on disk.
    pub(crate) fn sync_out_of_hold(&self, arrival: Option<&str>, id: &QueueId) -> io::Result<()> {
        for queue in arrival.into_iter().chain(["hold"]) {
            match std::fs::File::open(self.directory(queue, id)) {
                Ok(directory) => directory.sync_all()?,
                // Not hashed that way: nothing is there that could be lost.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn postsuper(&self, arguments: &[&str]) -> Result<(), PostfixError> {
        run_within(self.command("postsuper").args(arguments), ONE_MESSAGE).map(drop)
    }

    pub(super) fn command(&self, name: &str) -> Command {
        let path = self.command_directory.join(name);
        program(&path.to_string_lossy(), &self.config_dir)
    }
}

/// A command that did what it should, whatever it says.
fn note_failure(result: Result<(), PostfixError>, is: &str) {
    if let Err(error) = result {
        warn!("{error}; nevertheless the message is {is}");
    }
}

/// A command of Postfix on the instance in `config_dir`, with a fixed environment.
pub(super) fn program(name: &str, config_dir: &Path) -> Command {
    let mut command = Command::new(name);
    command
        .env_clear()
        .env("PATH", PROGRAM_PATH)
        .env("LC_ALL", "C")
        .arg("-c")
        .arg(config_dir);
    command
}

impl PostfixError {
    /// What a program said that failed.
    pub(super) fn failed(command: &Command, output: &Output) -> Self {
        Self::Failed {
            program: line(command),
            status: output.status,
            said: why_it_failed(&output.stderr),
        }
    }
}

/// What a command that failed said about it. Warnings come first and may be many; they are not the reason, unless it said
/// nothing else.
pub(super) fn why_it_failed(stderr: &[u8]) -> String {
    let mut said = failures(stderr);
    if said.is_empty() {
        said = String::from_utf8_lossy(stderr).into_owned();
    }
    crate::text::readable(&said, 500)
}

/// What Postfix's commands put between their name and a warning.
const WARNING: &str = ": warning: ";

/// What a command said on standard error beside warnings: of a doubled line in main.cf, say, every one of them warns.
pub(super) fn failures(stderr: &[u8]) -> String {
    let said = String::from_utf8_lossy(stderr);
    let others = said.lines().filter(|line| warning(line).is_none());
    others.collect::<Vec<_>>().join("\n")
}

/// The warnings of a command, without its name.
pub(super) fn warnings(output: &Output) -> Vec<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines()
        .filter_map(warning)
        .map(|text| crate::text::readable(text, 300))
        .collect()
}

/// The text of a warning; `None` for any other line.
fn warning(line: &str) -> Option<&str> {
    let (program, text) = line.split_once(WARNING)?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-/_".contains(c);
    program.chars().all(is_name).then_some(text)
}

fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a command to its end, however it ends.
pub(super) fn output(command: &mut Command) -> Result<Output, PostfixError> {
    output_within(command, ANY)
}

pub(super) fn output_within(
    command: &mut Command,
    limit: Duration,
) -> Result<Output, PostfixError> {
    let program = line(command);
    let result = carry_out(command, limit);
    result.map_err(|source| match source.kind() {
        io::ErrorKind::TimedOut => PostfixError::Hung {
            program,
            seconds: limit.as_secs(),
        },
        _ => PostfixError::Run { program, source },
    })
}

/// Runs a command that must succeed.
pub(super) fn run(command: &mut Command) -> Result<Output, PostfixError> {
    run_within(command, ANY)
}

fn run_within(command: &mut Command, limit: Duration) -> Result<Output, PostfixError> {
    let output = output_within(command, limit)?;
    if output.status.success() {
        Ok(output)
    } else {
        Err(PostfixError::failed(command, &output))
    }
}

#[cfg(test)]
impl Instance {
    /// One below `directory`, with nothing in its queues, which are not hashed.
    pub fn bare(directory: &Path) -> Self {
        Self::hashing(directory, "", 1)
    }

    /// The same, with these queues hashed so deep.
    pub fn hashing(directory: &Path, queues: &str, depth: usize) -> Self {
        use std::fs;
        fs::create_dir_all(directory.join("hold")).unwrap();
        let at = directory.display();
        let level = crate::sandbox::compatibility_level().unwrap();
        let settings = format!(
            "compatibility_level = {level}\nqueue_directory = {at}\nhash_queue_names = {queues}\nhash_queue_depth = {depth}\n"
        );
        fs::write(directory.join("main.cf"), settings).unwrap();
        fs::write(directory.join("master.cf"), "").unwrap();
        Self::load(directory).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_not_why_a_command_failed() {
        let warning =
            "postmap: warning: /etc/postfix/main.cf, line 5: overriding earlier entry: a=b\n";
        let fatal = "postmap: fatal: open /nowhere: No such file or directory\n";
        assert_eq!(failures(warning.as_bytes()), "");
        assert_eq!(why_it_failed(warning.as_bytes()), warning.trim_end());
        let both = warning.repeat(20) + fatal;
        assert_eq!(why_it_failed(both.as_bytes()), fatal.trim_end());
        // Nor is what only looks like one.
        let other = "cannot load: warning: x\n";
        assert_eq!(failures(other.as_bytes()), other.trim_end());
    }
}
