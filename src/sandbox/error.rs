//! What can go wrong with a sandbox, in words for the person who started it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a sandbox could not be started, used or stopped.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The store can't be made.
    #[error(transparent)]
    Store(#[from] crate::case::store::StoreError),
    /// A file or directory operation failed.
    #[error("{path}: {source}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The Postfix, pipe or web user could not reach the sandbox.
    #[error(
        "{0}: other users may not enter this directory (mode o+x), and Postfix's user must; choose another --dir"
    )]
    NotTraversable(PathBuf),
    /// An account that the sandbox needs does not exist.
    #[error("there is no user or group {0:?} on this host")]
    NoSuchUser(String),
    /// A shipped file no longer has the text that the sandbox replaces.
    #[error("{file} has no {token:?} to replace: the sandbox and the shipped files disagree")]
    NoToken {
        /// The shipped file.
        file: &'static str,
        /// The text that should be there.
        token: String,
    },
    /// A program could not be run or failed.
    #[error("{command} failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it printed.
        output: String,
    },
    /// `postfix check` or `postconf` had something to say about the shipped configuration.
    #[error("{command} is not silent: {output}")]
    NotSilent {
        /// The command line.
        command: String,
        /// What it printed.
        output: String,
    },
    /// Another program took a port between the search for a free one and its use.
    #[error("port {0} on the loopback interface was taken by somebody else")]
    PortLost(u16),
    /// Something did not happen in time.
    #[error("waited {waited:?} in vain for {what}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// An SMTP server refused a command.
    #[error("{command}: the server answered {reply:?}")]
    Refused {
        /// The command, or `connection`.
        command: String,
        /// The server's reply, lines joined by newlines.
        reply: String,
    },
    /// What a sandbox started can't be stopped.
    #[error("these processes of the sandbox do not end: {0:?}")]
    StillRunning(Vec<i32>),
    /// `sandbox.json` is missing a key or is no JSON.
    #[error("{0}: not the description of a sandbox")]
    BadDescription(PathBuf),
}

/// Adds the path to an I/O error.
pub(super) trait AtPath<T> {
    /// The same result, its error naming `path`.
    fn at(self, path: &Path) -> Result<T, SandboxError>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, SandboxError> {
        self.map_err(|source| SandboxError::File {
            path: path.to_owned(),
            source,
        })
    }
}
