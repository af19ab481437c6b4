//! The programs that pipe(8) runs in turn: the real hook, and three to compare it with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use posttls::sandbox::Instance;

use crate::common::Stage;

/// What takes the notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `posttls-pipe`.
    PostTls,
    /// `/bin/true`: what Postfix itself needs.
    Null,
    /// A shell that discards its input and sends one message with `smtp-source`: less can't tell a sender.
    Floor,
    /// A few lines of Python.
    Python,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::PostTls, Self::Floor, Self::Null, Self::Python];

    /// As the table names it.
    pub fn what(self) -> &'static str {
        match self {
            Self::PostTls => "Notices a second, 8 processes: `posttls-pipe`",
            Self::Null => "– null hook (`/bin/true`)",
            Self::Floor => "– SMTP floor (`sh`, `smtp-source`)",
            Self::Python => "– a Python hook of a few lines",
        }
    }
}

/// The programs of one sandbox.
pub struct Hooks {
    floor: PathBuf,
    python: PathBuf,
    /// The line of master.cf that runs the real one.
    original: String,
}

impl Hooks {
    /// Writes the programs. `port` is that of the server that takes their mails.
    pub fn new(stage: &Stage, port: u16) -> Self {
        let (floor, python) = (
            stage.dir().join("bin/floor"),
            stage.dir().join("bin/python"),
        );
        program(
            &floor,
            &format!(
                "#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/bin\ncat >/dev/null\n\
                 exec smtp-source -4 -f '' -t alice@sender.test 127.0.0.1:{port}\n"
            ),
        );
        program(&python, include_str!("python-hook.py"));
        let master = fs::read_to_string(master_cf(stage)).expect("master.cf");
        let original = master.lines().find(|line| line.contains("posttls-pipe"));
        let original = original.expect("the hook's line").to_owned();
        Self {
            floor,
            python,
            original,
        }
    }

    /// From now on pipe(8) runs this one.
    pub fn switch(&self, stage: &Stage, hook: Hook, port: u16) {
        let line = match hook {
            Hook::PostTls => self.original.clone(),
            Hook::Null => "  argv=/bin/true".to_owned(),
            Hook::Floor => format!("  argv={}", self.floor.display()),
            Hook::Python => format!(
                "  argv={} {}/state/python.db {port}",
                self.python.display(),
                stage.dir().display()
            ),
        };
        let path = master_cf(stage);
        let master = fs::read_to_string(&path).expect("master.cf");
        // It is the only transport whose program gets notices, and the last argv= line of the file.
        let at = master.rfind("  argv=").expect("an argv line");
        let end = master[at..].find('\n').map_or(master.len(), |end| at + end);
        fs::write(&path, format!("{}{line}{}", &master[..at], &master[end..])).expect("master.cf");
        settled(&path);
        reload(stage);
    }
}

/// Sets a parameter of the encrypt instance's main.cf, or takes it away with an empty value.
pub fn set_main(stage: &Stage, name: &str, value: &str) {
    let path = stage.sandbox.config_dir(Instance::Encrypt).join("main.cf");
    let text = fs::read_to_string(&path).expect("main.cf");
    let others = text
        .lines()
        .filter(|line| !line.starts_with(&format!("{name} =")));
    let mut text = others.collect::<Vec<_>>().join("\n") + "\n";
    if !value.is_empty() {
        text += &format!("{name} = {value}\n");
    }
    fs::write(&path, text).expect("main.cf");
    settled(&path);
    reload(stage);
}

fn reload(stage: &Stage) {
    let reloaded = stage.sandbox.run("postfix", Instance::Encrypt, &["reload"]);
    reloaded.unwrap_or_else(|error| panic!("{error}"));
    // The master reads its file again when it gets to the signal.
    std::thread::sleep(Duration::from_millis(700));
}

fn master_cf(stage: &Stage) -> PathBuf {
    stage
        .sandbox
        .config_dir(Instance::Encrypt)
        .join("master.cf")
}

fn program(path: &Path, text: &str) {
    fs::write(path, text).expect("a program");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a program");
}

/// Postfix waits until a file that has just changed is a second old.
fn settled(path: &Path) {
    let file = fs::File::options().append(true).open(path).expect("a file");
    file.set_modified(SystemTime::now() - Duration::from_secs(10))
        .expect("a time");
}
