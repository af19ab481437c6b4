//! The log: syslog with facility mail, standard error, or a file. Lines read like Postfix's own: queue ID first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use log::{Level, LevelFilter, Log, Metadata, Record, warn};
use rustix::fs::OFlags;
use rustix::process::geteuid;
use syslog::{Facility, Formatter3164, LoggerBackend};

enum Sink {
    Syslog(Mutex<syslog::Logger<LoggerBackend, Formatter3164>>),
    File(Mutex<File>),
    Stderr,
}

struct Logger {
    program: &'static str,
    sink: Sink,
}

/// Starts the log of this process. What can't be logged where it should goes to standard error, with the reason: a log
/// that can't be opened is no reason to refuse mail.
///
/// `program` is the name in front of every line, in the style of Postfix: `posttls/pipe`.
pub fn start(program: &'static str, target: &str) {
    let (sink, trouble) = match target {
        "stderr" => (Sink::Stderr, None),
        "syslog" => {
            let pid = std::process::id();
            let formatter = Formatter3164 {
                facility: Facility::LOG_MAIL,
                hostname: None,
                process: program.to_owned(),
                pid,
            };
            match syslog::unix(formatter) {
                Ok(logger) => (Sink::Syslog(Mutex::new(logger)), None),
                Err(error) => (Sink::Stderr, Some(error.to_string())),
            }
        }
        path => match log_file(Path::new(path)) {
            Ok(file) => (Sink::File(Mutex::new(file)), None),
            Err(error) => (Sink::Stderr, Some(error.to_string())),
        },
    };
    // A second start in one process (a test, a reload) keeps the first log.
    if log::set_boxed_logger(Box::new(Logger { program, sink })).is_ok() {
        log::set_max_level(LevelFilter::Info);
        if let Some(trouble) = trouble {
            warn!("cannot log to {target}: {trouble}; logging to standard error instead");
        }
    }
}

/// Opens a log file. The mover does so as root: in a directory of another user it follows no link, or that user could
/// have it write anywhere.
fn log_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640);
    let owner = fs::metadata(path.parent().unwrap_or(path))?.uid();
    if owner != 0 && owner != geteuid().as_raw() {
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    }
    options.open(path)
}

/// Says something on standard error, if that can be said: logging never ends a program, as `eprint!` would when there is
/// nobody to read or no space to write.
pub fn to_stderr(text: &str) {
    // There is nowhere left to complain.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries keep their own counsel.
        metadata.target().starts_with("posttls") && metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let prefix = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            _ => "",
        };
        let line = crate::text::shown(&format!("{prefix}{}", record.args()));
        let written = match &self.sink {
            Sink::Syslog(logger) => {
                let mut logger = logger.lock().unwrap_or_else(PoisonError::into_inner);
                let sent = match record.level() {
                    Level::Error => logger.err(&line),
                    Level::Warn => logger.warning(&line),
                    _ => logger.info(&line),
                };
                sent.is_ok()
            }
            Sink::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.write_all(self.stamped(&line).as_bytes()).is_ok()
            }
            Sink::Stderr => false,
        };
        if !written {
            to_stderr(&self.stamped(&line));
        }
    }

    fn flush(&self) {}
}

impl Logger {
    fn stamped(&self, line: &str) -> String {
        let now = Timestamp::now().to_zoned(crate::text::local_zone());
        let now = now.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z");
        format!("{now} {}[{}]: {line}\n", self.program, std::process::id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};

    #[test]
    fn a_link_in_another_users_directory_is_not_followed() {
        if !geteuid().is_root() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let elsewhere = scratch.path().join("elsewhere");
        let directory = scratch.path().join("log");
        fs::create_dir(&directory).unwrap();
        let log = directory.join("posttls.log");
        symlink(&elsewhere, &log).unwrap();
        assert!(log_file(&log).is_ok(), "the link is root's own");
        fs::remove_file(&elsewhere).unwrap();
        chown(&directory, Some(65_534), None).unwrap();
        assert!(log_file(&log).is_err());
        assert!(!elsewhere.exists());
        fs::remove_file(&log).unwrap();
        assert!(log_file(&log).is_ok() && log.exists());
    }
}
