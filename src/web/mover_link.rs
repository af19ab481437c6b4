//! The child's end of the stream to the mover: many requests ask at once, one thread hands out the answers.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::web::protocol::{self, Answer, MAX_ANSWER, MAX_QUESTION, Numbered, Question, Settings};

/// How long a request waits for the mover.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Why a question got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// The mover took longer than [`PATIENCE`].
    Late,
    /// The mover has ended.
    Gone,
    /// The question does not fit into a message.
    TooLong,
}

/// The stream and the questions that are under way.
pub struct MoverLink {
    stream: UnixStream,
    desk: Mutex<Desk>,
}

struct Desk {
    /// Of the question last asked. Never repeats, so that a late answer can't reach another request.
    number: u64,
    waiting: HashMap<u64, SyncSender<Answer>>,
    /// No question may be added: nobody would answer it.
    ended: bool,
}

impl MoverLink {
    /// Reports ready (question 0) and waits for the settings.
    ///
    /// # Errors
    /// When the mover is gone, or says anything but [`Answer::Welcome`].
    pub fn greet(stream: UnixStream) -> io::Result<(Self, Settings)> {
        stream.set_write_timeout(Some(PATIENCE))?;
        protocol::send(
            &stream,
            &Numbered {
                number: 0,
                body: Question::Ready,
            },
            MAX_QUESTION,
        )?;
        match protocol::receive::<Numbered<Answer>>(&stream, MAX_ANSWER)? {
            Some(Numbered {
                number: 0,
                body: Answer::Welcome(settings),
            }) => {
                let desk = Desk {
                    number: 0,
                    waiting: HashMap::new(),
                    ended: false,
                };
                Ok((
                    Self {
                        stream,
                        desk: Mutex::new(desk),
                    },
                    *settings,
                ))
            }
            Some(_) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no welcome from the mover",
            )),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn ask(&self, question: Question) -> Result<Answer, Unanswered> {
        let (number, answer) = self.post(question)?;
        match answer.recv_timeout(PATIENCE) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Disconnected) => Err(Unanswered::Gone),
            Err(RecvTimeoutError::Timeout) => {
                self.desk().waiting.remove(&number);
                Err(Unanswered::Late)
            }
        }
    }

    fn post(&self, question: Question) -> Result<(u64, Receiver<Answer>), Unanswered> {
        let (sender, receiver) = sync_channel(1);
        // The lock is held while writing, so that frames do not mix.
        let mut desk = self.desk();
        if desk.ended {
            return Err(Unanswered::Gone);
        }
        desk.number += 1;
        let number = desk.number;
        desk.waiting.insert(number, sender);
        let Err(error) = protocol::send(
            &self.stream,
            &Numbered {
                number,
                body: question,
            },
            MAX_QUESTION,
        ) else {
            return Ok((number, receiver));
        };
        desk.waiting.remove(&number);
        if error.kind() == io::ErrorKind::InvalidInput {
            return Err(Unanswered::TooLong);
        }
        // Half a frame may be out: nothing that follows could be understood.
        log::error!("question to the mover: {error}");
        let _ = self.stream.shutdown(Shutdown::Both);
        Err(Unanswered::Gone)
    }

    /// Hands out answers until the mover ends the stream.
    ///
    /// # Errors
    /// When the mover says something that is no answer.
    pub fn hand_out_answers(&self) -> io::Result<()> {
        let mut stream = BufReader::new(&self.stream);
        let end = loop {
            match protocol::receive::<Numbered<Answer>>(&mut stream, MAX_ANSWER) {
                Ok(Some(Numbered { number, body })) => {
                    if let Some(waiting) = self.desk().waiting.remove(&number) {
                        let _ = waiting.send(body);
                    }
                }
                Ok(None) => break Ok(()),
                // It ended without having read all questions.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let mut desk = self.desk();
        desk.ended = true;
        desk.waiting.clear();
        end
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
