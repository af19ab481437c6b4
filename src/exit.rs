//! Exit codes: one table for all programs (sysexits.h, as Postfix's src/global/sys_exits.c has it).

use std::panic;
use std::process::ExitCode;

/// Makes every panic end this process by a signal, after its message.
///
/// pipe(8) bounces a notice when the hook exits with the 101 of an unwinding panic, but delivers it again when the hook
/// dies of a signal; and a mover in which one thread has died must not go on as if nothing were missing. The web child
/// does without: a fault in a page, or in tiny_http, must cost one request and not the process.
pub fn abort_on_panic() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |information| {
        usual(information);
        std::process::abort();
    }));
}

/// Reads the arguments of this process. When that does not work, or only help was wanted, everything has been said, and
/// the program ends with what is returned: `wrong` for arguments that make no sense.
///
/// # Errors
/// The way to end.
pub fn arguments<T: clap::Parser>(wrong: Exit) -> Result<T, Exit> {
    T::try_parse().map_err(|error| {
        // Nowhere to say it is no reason to end otherwise.
        let _ = error.print();
        if error.use_stderr() { wrong } else { Exit::Ok }
    })
}

/// How a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is done.
    Ok,
    /// It did not work.
    Failure,
    /// The command line or the configuration is wrong (EX_USAGE).
    Usage,
    /// The queue ID, recipient or file that was named does not exist (EX_NOINPUT).
    NotFound,
    /// Try again later (EX_TEMPFAIL): pipe(8) keeps the notice and delivers it again.
    TryAgain,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failure => 1,
            Exit::Usage => 64,
            Exit::NotFound => 66,
            Exit::TryAgain => 75,
        })
    }
}
