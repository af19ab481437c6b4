//! Has commands run by threads that keep a table of open files of their own, with next to nothing in it.
//!
//! The mover keeps the queue file of each open case open, tens of thousands on a busy host. Whoever forks from that table
//! copies it, and exec closes each copy again: that took more time than a `postsuper` itself. Threads share the table
//! that their creator has, so one thread takes leave of it (unshare(2), `CLONE_FILES`) and starts all that run commands.
//!
//! A descriptor means nothing, or another file, in the other table. So **none may cross**: in here only commands and
//! their output go to and fro, nothing is logged, and no signal is handled (its handler would write to a pipe).

use std::io;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};

use crate::confine;

static COMMANDS: OnceLock<Sender<Job>> = OnceLock::new();

/// The name of the threads.
const NAME: &str = "commands";

/// A command to run, as [`super::command::output`] does.
struct Job {
    command: Command,
    limit: Duration,
    /// Takes the command back and what became of it.
    done: Sender<(Command, io::Result<Output>)>,
}

/// From now on has all commands of this process run apart. What it is forbidden to do so costs time only.
///
/// # Errors
/// When the kernel refuses; then they run as before.
pub fn start() -> io::Result<()> {
    let (to, jobs) = channel();
    let (ready, started) = channel();
    thread::Builder::new()
        .name(NAME.to_owned())
        .spawn(move || {
            let parted = part();
            let serves = parted.is_ok();
            if ready.send(parted).is_ok() && serves {
                serve(&jobs);
            }
        })?;
    started.recv().map_err(io::Error::other)??;
    // Of two who start at once, one is enough; the other's thread ends with its sender.
    let _ = COMMANDS.set(to);
    Ok(())
}

/// Gives this thread a table of its own, in which only standard input, output and error remain.
fn part() -> io::Result<()> {
    let mut handled = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        handled.add(signal);
    }
    handled.thread_block()?;
    unshare(CloneFlags::CLONE_FILES)?;
    // Else a connection that the others close would stay open here.
    confine::close_inherited()
}

fn serve(jobs: &Receiver<Job>) {
    for job in jobs {
        let done = job.done.clone();
        // Each in a thread of its own: one that hangs keeps no other waiting.
        let started = thread::Builder::new().name(NAME.to_owned()).spawn(move || {
            let Job {
                mut command,
                limit,
                done,
            } = job;
            let result = super::command::output(&mut command, limit);
            // Whoever asked waits for it.
            let _ = done.send((command, result));
        });
        if let Err(error) = started {
            let _ = done.send((Command::new(NAME), Err(error)));
        }
    }
}

/// Runs a command apart if that was started, else here. See [`super::command::output`].
pub(super) fn output(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let Some(commands) = COMMANDS.get() else {
        return super::command::output(command, limit);
    };
    let (done, answer) = channel();
    let job = Job {
        command: std::mem::replace(command, Command::new(NAME)),
        limit,
        done,
    };
    let gone = |_| io::Error::other("the thread that runs commands is gone");
    commands.send(job).map_err(|_| gone(()))?;
    let (back, result) = answer.recv().map_err(|_| gone(()))?;
    *command = back;
    result
}
