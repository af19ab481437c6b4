//! Runs a command to its end or to its time. Apart because of the clock in it: a `postsuper` that hangs must keep no
//! sender waiting, and no other message. What a killed one may have done already, the caller sees from the queue.

use std::fs::File;
#[cfg(feature = "programs")]
use std::io::Write as _;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Runs `command` without input and gives what it said. One that has not ended after `limit` is killed.
///
/// # Errors
/// When it can't be run; of the kind `TimedOut` when it was killed.
pub(super) fn output(command: &mut Command, limit: Duration) -> io::Result<Output> {
    command.stdin(Stdio::null());
    let child = spawn(command)?;
    finish(child, Instant::now() + limit)
}

/// The same of a command that reads `input`, which is shorter than a pipe is long (4096 octets on Linux at least).
///
/// # Errors
/// As [`output`].
#[cfg(feature = "programs")]
pub(crate) fn answer(command: &mut Command, input: &[u8], limit: Duration) -> io::Result<Output> {
    command.stdin(Stdio::piped());
    let mut child = spawn(command)?;
    let deadline = Instant::now() + limit;
    if let Some(mut pipe) = child.stdin.take() {
        match pipe.write_all(input) {
            // It does not care for what we have to say; its own words say why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => {
                child.kill().ok();
                child.wait()?;
                return Err(error);
            }
            Ok(()) => {}
        }
    }
    finish(child, deadline)
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

fn finish(mut child: Child, deadline: Instant) -> io::Result<Output> {
    let said = listen(&mut child, deadline);
    if said.is_err() {
        // It may have ended by itself just now.
        child.kill().ok();
    }
    let status = child.wait()?;
    let [stdout, stderr] = said?;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// Reads standard output and standard error until both are closed, and waits for the end.
fn listen(child: &mut Child, deadline: Instant) -> io::Result<[Vec<u8>; 2]> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("its output can't be read"));
    };
    let mut open = [
        Some(File::from(OwnedFd::from(stdout))),
        Some(File::from(OwnedFd::from(stderr))),
    ];
    let mut said = [Vec::new(), Vec::new()];
    while open.iter().any(Option::is_some) {
        let files: Vec<(usize, &File)> = open
            .iter()
            .enumerate()
            .filter_map(|(index, file)| Some((index, file.as_ref()?)))
            .collect();
        let mut waiting: Vec<PollFd<'_>> = files
            .iter()
            .map(|(_, file)| PollFd::new(*file, PollFlags::IN))
            .collect();
        wait(&mut waiting, deadline)?;
        let ready: Vec<usize> = files
            .iter()
            .zip(&waiting)
            .filter(|(_, poll)| !poll.revents().is_empty())
            .map(|((index, _), _)| *index)
            .collect();
        for index in ready {
            let mut buffer = [0; 4096];
            let count = match &mut open[index] {
                Some(file) => file.read(&mut buffer)?,
                None => 0,
            };
            said[index].extend_from_slice(&buffer[..count]);
            if count == 0 {
                open[index] = None;
            }
        }
    }
    wait_for_end(child, deadline)?;
    Ok(said)
}

/// Waits until a child has ended, and leaves it to be reaped.
pub(super) fn wait_for_end(child: &Child, deadline: Instant) -> io::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("it has no process ID"))?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    wait(
        &mut [PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN)],
        deadline,
    )
}

/// Waits until one of these is ready.
pub(super) fn wait(files: &mut [PollFd<'_>], deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(files, Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> io::Result<Output> {
        output(Command::new("sh").args(["-c", script]), limit)
    }

    #[test]
    fn what_a_command_says_is_read_to_its_end_however_much_it_is() {
        let script = "head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2; exit 3";
        let output = shell(script, Duration::from_secs(30)).expect("it ends");
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(
            (output.stdout.len(), output.stderr.len()),
            (300_000, 200_000)
        );
    }

    #[test]
    fn a_command_that_hangs_is_killed_whether_it_still_talks_or_not() {
        for script in ["exec sleep 60", "exec sleep 60 >&- 2>&-"] {
            let asked = Instant::now();
            let error = shell(script, Duration::from_millis(200)).expect_err("it hangs");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{script}");
            assert!(asked.elapsed() < Duration::from_secs(30), "{script}");
        }
    }
}
