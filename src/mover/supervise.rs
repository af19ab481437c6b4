//! Starts the web child without privilege, answers its questions, and replaces it when it ends.
//!
//! The mover keeps the listening socket, so while one child is replaced by the next no connection is refused: the
//! kernel queues it. A child that says something that is not understood is taken for taken over, and killed.

use std::io::{self, BufReader};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{error, info, warn};

use super::{Desk, web_child};
use crate::postfix::user::User;
use crate::web::protocol::{
    Answer, MAX_ANSWER, MAX_QUESTION, Numbered, Question, Settings, receive, send,
};

/// Questions that may wait for a free worker; beyond it the child hears "busy".
const WAITING: usize = 256;
/// A child that ends sooner than this is started again only after as long: long enough to spare the machine, short
/// enough that nobody who can make it end can keep senders out.
const SHORT_LIFE: Duration = Duration::from_millis(200);
/// How long a child may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(4);
/// How long answers under way may delay the end of a child: a little longer than a click waits for a delivery by default
/// (`mover.delivery_wait_seconds`), so that who has decided just before hears so.
const LAST_ANSWERS: Duration = Duration::from_secs(4);

/// A question, and where its answer goes.
struct Errand {
    question: Numbered<Question>,
    answer_to: Arc<Mutex<UnixStream>>,
    /// Counted by [`Supervisor::close`].
    _owed: Arc<()>,
}

/// Everything that a web child is started with.
pub struct Supervisor {
    /// Program to run as the child: this one.
    pub program: PathBuf,
    /// The user it runs as.
    pub user: User,
    /// What it serves on.
    pub listener: TcpListener,
    /// Paths that it must not be able to open.
    pub forbidden: Vec<PathBuf>,
    /// What it is told when it starts.
    pub settings: Mutex<Settings>,
    errands: SyncSender<Errand>,
    /// Every errand has a clone of it.
    owed: Arc<()>,
    current: Mutex<Current>,
}

/// The child that serves now. `replacing` is set while it is ended on purpose, `ending` for good.
#[derive(Default)]
struct Current {
    stream: Option<UnixStream>,
    replacing: bool,
    ending: bool,
}

impl Supervisor {
    /// Prepares to start children, and starts `workers` threads that answer their questions at `desk`.
    pub fn new(
        program: PathBuf,
        user: User,
        listener: TcpListener,
        forbidden: Vec<PathBuf>,
        settings: Settings,
        desk: &Arc<Desk>,
        workers: usize,
    ) -> Self {
        let (errands, inbox) = sync_channel(WAITING);
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..workers {
            let (inbox, desk) = (Arc::clone(&inbox), Arc::clone(desk));
            thread::spawn(move || answer_errands(&inbox, &desk));
        }
        Self {
            program,
            user,
            listener,
            forbidden,
            settings: Mutex::new(settings),
            errands,
            owed: Arc::default(),
            current: Mutex::default(),
        }
    }

    /// Keeps one web child running until [`Supervisor::end`] is called. Tells `ready` when the first one serves; ends at
    /// once, and drops `ready`, when the first one does not come that far: then something is wrong with the set-up.
    pub fn run(&self, ready: &SyncSender<()>) {
        let mut proved = false;
        loop {
            let started = Instant::now();
            let mut on_ready = || {
                proved = true;
                // Nobody listens any more after the first time.
                let _ = ready.try_send(());
            };
            match self.serve_one(&mut on_ready) {
                Ok(status) => info!("web child ended: {status}"),
                Err(error) => error!("web child: {error}"),
            }
            let mut current = self.current();
            if current.ending || !proved {
                return;
            }
            let wanted = std::mem::take(&mut current.replacing);
            drop(current);
            if !wanted && started.elapsed() < SHORT_LIFE {
                thread::sleep(SHORT_LIFE);
            }
        }
    }

    /// Ends the present child; the next one starts with the settings that are set then.
    pub fn replace(&self) {
        self.close(|current| current.replacing = true);
    }

    /// Ends the present child, and starts no other.
    pub fn end(&self) {
        self.close(|current| current.ending = true);
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A child ends when it can read no more from its mover. What it has asked by then is answered first: its sender
    /// would else be told that we can't answer, when the decision was made.
    fn close(&self, note: impl FnOnce(&mut Current)) {
        note(&mut self.current());
        let deadline = Instant::now() + LAST_ANSWERS;
        while Arc::strong_count(&self.owed) > 1 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let current = self.current();
        if let Some(stream) = &current.stream {
            // An error means that the child has gone already.
            let _ = stream.shutdown(Shutdown::Write);
            // One that hangs does not notice. Then we stop listening to it, and that ends it.
            if let Ok(stream) = stream.try_clone() {
                thread::spawn(move || {
                    thread::sleep(FAREWELL);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        }
    }

    /// Starts a child and answers it until it ends.
    fn serve_one(&self, on_ready: &mut dyn FnMut()) -> io::Result<std::process::ExitStatus> {
        let (ours, theirs) = UnixStream::pair()?;
        // A child that does not read must not keep those who answer it.
        ours.set_write_timeout(Some(FAREWELL))?;
        let mut child = web_child::start(
            &self.program,
            &self.user,
            &self.forbidden,
            &self.listener,
            theirs,
        )?;
        let answer_to = Arc::new(Mutex::new(ours.try_clone()?));
        let settings = self
            .settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        {
            let mut current = self.current();
            current.stream = Some(ours.try_clone()?);
            if current.ending {
                ours.shutdown(Shutdown::Write)?;
            }
        }
        info!(
            "web child {} started as user {}",
            child.id(),
            self.user.name
        );
        let welcome = Numbered {
            number: 0,
            body: Answer::Welcome(Box::new(settings)),
        };
        let told = send(
            &mut *answer_to.lock().unwrap_or_else(PoisonError::into_inner),
            &welcome,
            MAX_ANSWER,
        );
        let result =
            told.and_then(|()| self.listen(BufReader::new(ours), &answer_to, child.id(), on_ready));
        self.current().stream = None;
        if let Err(error) = result {
            warn!("web child {}: {error}; it is replaced", child.id());
            child.kill()?;
        }
        wait(&mut child, FAREWELL)
    }

    /// Reads questions until the child ends. An error means that it said something that is not understood, or has not
    /// given up what it must.
    fn listen(
        &self,
        mut from: BufReader<UnixStream>,
        answer_to: &Arc<Mutex<UnixStream>>,
        child: u32,
        on_ready: &mut dyn FnMut(),
    ) -> io::Result<()> {
        let mut ready = false;
        while let Some(question) = receive::<Numbered<Question>>(&mut from, MAX_QUESTION)? {
            if (question.body == Question::Ready) == ready {
                return Err(io::Error::other("it has to say \"ready\", first and once"));
            }
            if !ready {
                web_child::is_shut_in(child, &self.user)?;
                ready = true;
                on_ready();
                continue;
            }
            let errand = Errand {
                question,
                answer_to: Arc::clone(answer_to),
                _owed: Arc::clone(&self.owed),
            };
            match self.errands.try_send(errand) {
                Ok(()) => {}
                Err(TrySendError::Full(errand) | TrySendError::Disconnected(errand)) => {
                    reply(&errand, Answer::Busy);
                }
            }
        }
        Ok(())
    }
}

fn answer_errands(inbox: &Mutex<Receiver<Errand>>, desk: &Desk) {
    loop {
        let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(errand) = next else { return };
        let answer = desk.answer(errand.question.body.clone());
        reply(&errand, answer);
    }
}

/// A child that is gone needs no answer; what was decided stands all the same.
fn reply(errand: &Errand, body: Answer) {
    let answer = Numbered {
        number: errand.question.number,
        body,
    };
    let mut stream = errand
        .answer_to
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = send(&mut *stream, &answer, MAX_ANSWER) {
        warn!("cannot answer the web child: {error}");
    }
}

/// Waits for a child to end, and kills it when it takes longer than `patience`.
fn wait(child: &mut Child, patience: Duration) -> io::Result<std::process::ExitStatus> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(20));
    }
    warn!(
        "web child {} did not end by itself and is killed",
        child.id()
    );
    child.kill()?;
    child.wait()
}
