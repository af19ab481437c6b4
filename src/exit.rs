//! Exit codes: one table for all three programs (sysexits.h, as Postfix's src/global/sys_exits.c has it).

use std::process::ExitCode;

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
