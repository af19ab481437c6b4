//! How the hook, which is another user, asks the mover for standings: a socket of its own in the mover's directory, which
//! only the hook's user and root may use. It changes nothing, so it opens nothing to who holds it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Host, Standing};
use crate::address::Address;
use crate::case::MessageKey;
use crate::postfix::connect_within;
use crate::web::protocol::{receive, send};

/// The longest question and answer, in octets.
pub const MOST: usize = 1 << 20;
/// Recipients in one question.
pub const RECIPIENTS: usize = 500;
/// How long an answer may take, all questions about one message together.
const PATIENCE: Duration = Duration::from_secs(10);

/// A recipient that is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// As in the queue file.
    pub address: Address,
    /// The server that Postfix's words name.
    pub host: Option<Host>,
}

/// What stands between these recipients of this message and plain text?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The message.
    pub key: MessageKey,
    /// At most [`RECIPIENTS`].
    pub recipients: Vec<Asked>,
}

/// One standing for each recipient, in the order of the question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The standings.
    pub standings: Vec<Standing>,
}

/// The socket, in the mover's directory.
pub fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("facts")
}

/// Asks the mover. Without an answer every standing is unknown: nothing is decided by silence.
pub fn ask(run_dir: &Path, key: &MessageKey, recipients: &[Asked]) -> Vec<Standing> {
    let deadline = Instant::now() + PATIENCE;
    let mut standings = Vec::with_capacity(recipients.len());
    if let Err(error) = exchange(&socket(run_dir), key, recipients, deadline, &mut standings) {
        let why = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                "posttls-httpd does not run".to_owned()
            }
            _ => format!("posttls-httpd does not answer: {error}"),
        };
        standings.resize(recipients.len(), Standing::Unknown(why));
    }
    standings
}

fn exchange(
    path: &Path,
    key: &MessageKey,
    recipients: &[Asked],
    deadline: Instant,
    standings: &mut Vec<Standing>,
) -> io::Result<()> {
    if recipients.is_empty() {
        return Ok(());
    }
    let stream = connect_within(path, deadline)?;
    for part in recipients.chunks(RECIPIENTS) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))?;
        let question = Question {
            key: key.clone(),
            recipients: part.to_vec(),
        };
        send(&stream, &question, MOST)?;
        let answer: Answer = receive(&stream, MOST)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if answer.standings.len() != part.len() {
            return Err(io::Error::other("the answer is about others"));
        }
        standings.extend(answer.standings);
    }
    Ok(())
}
