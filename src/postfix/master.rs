//! The master(8) of an instance as it runs, seen in /proc: where it listens, and since when its queue manager has its
//! settings.
//!
//! Nothing is connected to: a service that is woken by somebody who says nothing logs a warning.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// Of the flags in /proc/net/unix: somebody listens (`__SO_ACCEPTCON`).
const LISTENS: u32 = 0x1_0000;

/// Ticks of a second in /proc. The kernel converts its own to these on every architecture that Debian has.
const TICKS: u64 = 100;

/// A running master(8).
#[derive(Debug)]
pub struct Master {
    pid: u32,
}

/// The fields of /proc/PID/stat that matter here.
struct Process {
    name: String,
    parent: u32,
    /// Has it ended, and nobody has taken notice yet?
    ended: bool,
    /// Ticks after the start of the system.
    started: u64,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{what} is not understood"),
    )
}

/// A file of /proc. Names of processes and sockets may be any octets.
fn text(path: &str) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

impl Process {
    fn of(pid: u32) -> io::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        Self::parse(&text(&path)?).ok_or_else(|| invalid(&path))
    }

    /// `PID (NAME) STATE PARENT …`; the name may have anything in it (proc(5)).
    fn parse(stat: &str) -> Option<Self> {
        let (head, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        Some(Self {
            name: head.split_once(" (")?.1.to_owned(),
            ended: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    fn since(&self) -> SystemTime {
        let now = clock_gettime(ClockId::Boottime);
        let now = Duration::new(
            u64::try_from(now.tv_sec).unwrap_or_default(),
            u32::try_from(now.tv_nsec).unwrap_or_default(),
        );
        let started = Duration::from_millis(self.started.saturating_mul(1000 / TICKS));
        SystemTime::now() - now.saturating_sub(started)
    }
}

impl Master {
    /// The master of the instance with this queue directory; `None` when its file names none that runs.
    ///
    /// # Errors
    /// When the file or /proc can't be read.
    pub fn of(queue_directory: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(queue_directory.join("pid/master.pid")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let pid = text
            .trim()
            .parse()
            .map_err(|_| invalid("the process ID in pid/master.pid"))?;
        match Process::of(pid) {
            Ok(process) if process.name == "master" && !process.ended => Ok(Some(Self { pid })),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of the Unix-domain sockets at which it listens, relative to the queue directory: `private/defer`.
    ///
    /// # Errors
    /// When /proc can't be read.
    pub fn listens_at(&self) -> io::Result<HashSet<String>> {
        let mut own = HashSet::new();
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid))? {
            // One that is closed meanwhile.
            let Ok(target) = fs::read_link(entry?.path()) else {
                continue;
            };
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[");
            own.extend(inode.and_then(|rest| rest.strip_suffix(']')?.parse::<u64>().ok()));
        }
        // Of its own network name space, which need not be ours.
        let table = text(&format!("/proc/{}/net/unix", self.pid))?;
        let rows = table.lines().filter_map(row);
        Ok(rows
            .filter(|(inode, _)| own.contains(inode))
            .map(|(_, name)| name.to_owned())
            .collect())
    }

    /// Since when its child `name` runs, the oldest if there are several; `None` when there is none.
    ///
    /// # Errors
    /// When /proc can't be read.
    pub fn child_since(&self, name: &str) -> io::Result<Option<SystemTime>> {
        let mut oldest = None;
        for entry in fs::read_dir("/proc")? {
            let file = entry?.file_name();
            let Some(pid) = file.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that has ended meanwhile is none.
            let Ok(process) = Process::of(pid) else {
                continue;
            };
            if process.parent == self.pid && process.name == name && !process.ended {
                let since = process.since();
                oldest = Some(oldest.map_or(since, |other: SystemTime| other.min(since)));
            }
        }
        Ok(oldest)
    }
}

/// `Num RefCount Protocol Flags Type St Inode Path` of a socket at which somebody listens.
fn row(line: &str) -> Option<(u64, &str)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let flags = u32::from_str_radix(fields.get(3)?, 16).ok()?;
    if flags & LISTENS == 0 {
        return None;
    }
    Some((fields.get(6)?.parse().ok()?, fields.get(7)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "12 (a) b) S 7 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 424242 1 2";
        let process = Process::parse(stat).expect("a process");
        assert_eq!(
            (process.name.as_str(), process.parent, process.started),
            ("a) b", 7, 424_242)
        );
        assert!(!process.ended && Process::parse(&stat.replace(" S ", " Z ")).unwrap().ended);
        assert!(Process::parse("12 (x) S 7").is_none());
        assert!(Process::parse("").is_none());
    }

    #[test]
    fn only_those_who_listen_count() {
        let head = "Num       RefCount Protocol Flags    Type St Inode Path";
        let listens = "0000000000000000: 00000002 00000000 00010000 0001 01 4711 private/defer";
        let talks = "0000000000000000: 00000003 00000000 00000000 0001 03 4712 private/defer";
        let unnamed = "0000000000000000: 00000002 00000000 00010000 0001 01 4713";
        assert_eq!(row(listens), Some((4711, "private/defer")));
        for line in [head, talks, unnamed, ""] {
            assert_eq!(row(line), None, "{line}");
        }
    }

    #[test]
    fn our_own_process_started_in_the_past() {
        let own = Process::of(std::process::id()).expect("/proc");
        let age = SystemTime::now().duration_since(own.since()).expect("past");
        assert!(age < Duration::from_secs(3600), "{age:?}");
    }
}
