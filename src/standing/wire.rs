//! How the hook and the ear, which are another user, ask the mover: a socket of its own in the mover's directory, which
//! only that user and root may use. It changes nothing, so it opens nothing to who holds it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Host, Standing};
use crate::address::Address;
use crate::case::MessageKey;
use crate::connect;
use crate::web::protocol::{receive, send};

/// The longest question and answer, in octets.
pub const MOST: usize = 1 << 20;
/// Recipients in one question.
pub const RECIPIENTS: usize = 500;
/// How long an answer may take, all questions about one message together: a sender is to hear within a second, whatever
/// keeps the mail. The mover goes on asking, and judges what was recorded meanwhile.
pub const PATIENCE: Duration = Duration::from_millis(800);

/// A recipient that is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// As in the notice: with `?` where Postfix shows none of an octet.
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

/// One answer for each recipient, in the order of the question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The answers.
    pub recipients: Vec<Told>,
}

/// What the mover knows of a recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// As in the queue file; as it was asked where that can't tell.
    pub address: Address,
    /// What stands between it and plain text.
    pub standing: Standing,
}

impl Told {
    /// Nothing is known of it.
    pub fn unknown(asked: &Asked, why: &str) -> Self {
        Self {
            address: asked.address.clone(),
            standing: Standing::Unknown(why.to_owned()),
        }
    }
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// By the hook.
    Standings(Question),
    /// By the ear: [`super::locks::messages_of`] this process.
    Locks(i32),
}

/// The answer to the second one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// Inode numbers.
    pub inodes: Vec<u64>,
}

/// The socket, in the mover's directory.
pub fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("standing")
}

/// Asks the mover. Without an answer every standing is unknown: nothing is decided by silence.
pub fn ask(run_dir: &Path, key: &MessageKey, recipients: &[Asked]) -> Vec<Told> {
    let deadline = Instant::now() + PATIENCE;
    let mut told = Vec::with_capacity(recipients.len());
    if let Err(error) = exchange(&socket(run_dir), key, recipients, deadline, &mut told) {
        let why = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                "posttls-httpd does not run".to_owned()
            }
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                format!(
                    "posttls-httpd has not found it out within {} ms, and goes on asking",
                    PATIENCE.as_millis()
                )
            }
            _ => format!("posttls-httpd does not answer: {error}"),
        };
        let unanswered = recipients.iter().skip(told.len());
        told.extend(unanswered.map(|one| Told::unknown(one, &why)));
    }
    told
}

fn exchange(
    path: &Path,
    key: &MessageKey,
    recipients: &[Asked],
    deadline: Instant,
    told: &mut Vec<Told>,
) -> io::Result<()> {
    if recipients.is_empty() {
        return Ok(());
    }
    let stream = connect::within(path, deadline.saturating_duration_since(Instant::now()))?;
    for part in recipients.chunks(RECIPIENTS) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))?;
        let question = Request::Standings(Question {
            key: key.clone(),
            recipients: part.to_vec(),
        });
        send(&stream, &question, MOST)?;
        let answer: Answer = receive(&stream, MOST)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if answer.recipients.len() != part.len() {
            return Err(io::Error::other("the answer is about others"));
        }
        told.extend(answer.recipients);
    }
    Ok(())
}

/// The files on which a process keeps a shared lock, as the mover sees it. While smtp(8) waits for the answer.
///
/// # Errors
/// When the mover can't be asked, or takes too long.
pub fn locks_of(run_dir: &Path, process: i32, patience: Duration) -> io::Result<Vec<u64>> {
    let stream = connect::within(&socket(run_dir), patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    send(&stream, &Request::Locks(process), MOST)?;
    let answer: Locked = receive(&stream, MOST)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(answer.inodes)
}
