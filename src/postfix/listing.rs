//! `postqueue -j`: every message of an instance, one JSON object a line, read as a stream.
//!
//! However long a line is (it names all recipients of its message), no more of it is kept than what is asked for here.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess, Visitor};

use super::command::{wait, wait_for_end};
use super::instance::{Instance, PostfixError, why_it_failed};
use super::{Queue, QueueId};

/// Octets of the longest line: about a million recipients.
const MAX_LINE: u64 = 512 << 20;

/// Octets kept of what `postqueue` says on standard error.
const MAX_SAID: u64 = 4096;

/// A message of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is; `None` in a queue that PostTLS does not look at.
    pub queue: Option<Queue>,
    /// Its queue ID.
    pub id: QueueId,
    /// Is there a recipient of which a delivery was deferred?
    pub deferred: bool,
}

/// A line of the list that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// The list broke off.
    #[error("cannot read the list of `postqueue -j` after {line} lines: {source}")]
    Io {
        /// Lines that were read.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// Over 512 MiB.
    #[error(
        "line {line} of `postqueue -j` is longer than {MAX_LINE} octets: passed over; look at the message with mailq"
    )]
    TooLong {
        /// Counted from one.
        line: u64,
    },
    /// No JSON, or not with the fields that Postfix writes.
    #[error("line {line} of `postqueue -j` is not understood: {source}")]
    Garbled {
        /// Counted from one.
        line: u64,
        /// Why.
        source: serde_json::Error,
    },
}

/// The longest pause that `postqueue` may make: showq(8), which it asks, may hang.
const SILENCE: Duration = Duration::from_secs(60);

/// Its output, with that limit.
struct Patient(ChildStdout);

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut output = [PollFd::new(&self.0, PollFlags::IN)];
        wait(&mut output, Instant::now() + SILENCE)?;
        self.0.read(buffer)
    }
}

/// A running `postqueue -j`. Ended when it is dropped.
pub struct Listing {
    child: Child,
    lines: Lines<BufReader<Patient>>,
    said: Option<JoinHandle<String>>,
}

impl Instance {
    /// Lists all messages of the instance, whether it runs or not.
    ///
    /// # Errors
    /// When `postqueue` can't be run.
    pub fn list(&self) -> Result<Listing, PostfixError> {
        let fault = |source| PostfixError::Run {
            program: "postqueue -j".to_owned(),
            source,
        };
        let mut command = self.command("postqueue");
        command
            .arg("-j")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(fault)?;
        let missing = || fault(io::ErrorKind::BrokenPipe.into());
        let output = child.stdout.take().ok_or_else(missing)?;
        // Read at the same time, so that neither pipe can fill up unread.
        let said = child.stderr.take().map(|pipe| thread::spawn(|| said(pipe)));
        Ok(Listing {
            child,
            lines: Lines {
                reader: BufReader::new(Patient(output)),
                line: 0,
                longest: MAX_LINE,
            },
            said,
        })
    }
}

fn said(mut pipe: ChildStderr) -> String {
    let mut beginning = Vec::new();
    // What can't be read is not said.
    let _ = pipe.by_ref().take(MAX_SAID).read_to_end(&mut beginning);
    let _ = io::copy(&mut pipe, &mut io::sink());
    why_it_failed(&beginning)
}

impl Iterator for Listing {
    type Item = Result<Entry, ListingError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.lines.next()
    }
}

impl Listing {
    /// Waits for `postqueue` after its last line: only when this is well was the list whole.
    ///
    /// # Errors
    /// When `postqueue` has failed.
    pub fn finish(mut self) -> Result<(), PostfixError> {
        let program = "postqueue -j".to_owned();
        let ended = wait_for_end(&self.child, Instant::now() + SILENCE);
        let status = match ended.and_then(|()| self.child.wait()) {
            Ok(status) => status,
            Err(source) => return Err(PostfixError::Run { program, source }),
        };
        let said = self.said.take().and_then(|thread| thread.join().ok());
        if status.success() {
            return Ok(());
        }
        Err(PostfixError::Failed {
            program,
            status,
            said: said.unwrap_or_default(),
        })
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines of JSON, one after the other.
struct Lines<R> {
    reader: R,
    line: u64,
    /// In octets.
    longest: u64,
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Entry, ListingError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.reader.fill_buf() {
            Ok([]) => return None,
            Ok(_) => {}
            Err(source) => {
                let line = self.line;
                return Some(Err(ListingError::Io { line, source }));
            }
        }
        self.line += 1;
        let line = self.line;
        let mut rest = Line {
            reader: &mut self.reader,
            length: 0,
            longest: self.longest,
            ended: false,
        };
        let mut parser = serde_json::Deserializer::from_reader(BufReader::new(&mut rest));
        let parsed =
            Written::deserialize(&mut parser).and_then(|entry| parser.end().map(|()| entry));
        drop(parser);
        // The next line begins behind the end of this one, whatever was wrong with it.
        let drained = rest.drain();
        Some(match (drained, parsed) {
            (Err(source), _) => Err(ListingError::Io { line, source }),
            (Ok(length), _) if length > self.longest => Err(ListingError::TooLong { line }),
            (Ok(_), Err(source)) => Err(ListingError::Garbled { line, source }),
            (Ok(_), Ok(written)) => Ok(Entry {
                queue: Queue::named(&written.queue_name),
                id: written.queue_id,
                deferred: written.recipients.0,
            }),
        })
    }
}

/// One line as a reader that ends with it, or where it becomes too long.
struct Line<R> {
    reader: R,
    length: u64,
    longest: u64,
    ended: bool,
}

impl<R: BufRead> Line<R> {
    /// The next octets of the line; none at its end.
    fn advance(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let buffer = self.reader.fill_buf()?;
        let most = most.min(buffer.len());
        let end = buffer[..most].iter().position(|octet| *octet == b'\n');
        let piece = buffer[..end.unwrap_or(most)].to_vec();
        self.ended = end.is_some() || most == 0;
        self.reader
            .consume(piece.len() + usize::from(end.is_some()));
        self.length += piece.len() as u64;
        Ok(piece)
    }

    /// Passes over the rest. Returns the length of the whole line.
    fn drain(mut self) -> io::Result<u64> {
        while !self.ended {
            self.advance(64 << 10)?;
        }
        Ok(self.length)
    }
}

impl<R: BufRead> Read for Line<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() || self.length > self.longest {
            return Ok(0);
        }
        let piece = self.advance(buffer.len())?;
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

/// What is read of an object; everything else in it is passed over.
#[derive(Deserialize)]
struct Written {
    queue_name: String,
    queue_id: QueueId,
    #[serde(default)]
    recipients: AnyDelayed,
}

/// Whether one of the recipients has a `delay_reason`; none of them is kept.
#[derive(Default)]
struct AnyDelayed(bool);

#[derive(Deserialize)]
struct WrittenRecipient {
    delay_reason: Option<IgnoredAny>,
}

impl<'de> Deserialize<'de> for AnyDelayed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Recipients;
        impl<'de> Visitor<'de> for Recipients {
            type Value = bool;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("recipients")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<bool, A::Error> {
                let mut any = false;
                while let Some(one) = all.next_element::<WrittenRecipient>()? {
                    any |= one.delay_reason.is_some();
                }
                Ok(any)
            }
        }
        deserializer.deserialize_seq(Recipients).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<Result<Entry, ListingError>> {
        let lines = Lines {
            // A buffer that is smaller than a line.
            reader: BufReader::with_capacity(7, text),
            line: 0,
            longest: 1000,
        };
        lines.collect()
    }

    #[test]
    fn lines_tell_queue_id_and_delay_and_a_bad_one_spoils_no_other() {
        let text = b"{\"queue_name\": \"deferred\", \"queue_id\": \"A367B99A955\", \"sender\": \"\xff\", \"recipients\": \
            [{\"address\": \"a@b\"}, {\"address\": \"\xff@b\", \"delay_reason\": \"\xff\"}]}\n\
            {\"queue_name\": \"hold\", \"queue_id\":\n\
            not at all\n\
            {\"queue_name\": \"maildrop\", \"queue_id\": \"A367B99A956\", \"recipients\": []}";
        let found = read(text);
        assert_eq!(found.len(), 4);
        let first = found[0].as_ref().unwrap();
        assert_eq!((first.queue, first.deferred), (Some(Queue::Deferred), true));
        for (number, line) in [(1, 2), (2, 3)] {
            let error = found[number].as_ref().unwrap_err();
            assert!(matches!(error, ListingError::Garbled { line: of, .. } if *of == line));
        }
        let last = found[3].as_ref().unwrap();
        assert_eq!((last.queue, last.deferred), (None, false));
        assert_eq!(last.id.as_str(), "A367B99A956");
    }

    #[test]
    fn a_line_that_is_too_long_is_named_and_the_next_one_is_read() {
        let entry = "{\"queue_name\": \"hold\", \"queue_id\": \"A367B99A955\"}";
        let text = format!("{entry}{}\n{entry}\n", " ".repeat(1000 - entry.len()));
        let mut lines = Lines {
            reader: text.as_bytes(),
            line: 0,
            longest: 999,
        };
        let first = lines.next().unwrap();
        assert!(matches!(first, Err(ListingError::TooLong { line: 1 })));
        assert_eq!(lines.next().unwrap().unwrap().queue, Some(Queue::Hold));
        assert!(lines.next().is_none());
    }
}
