//! `posttls-pipe` run as pipe(8) would run it, with a mail server that does as it is told, and without Postfix.
#![allow(dead_code)] // Every test program uses a part of it.

#[path = "../common/programs.rs"]
mod programs;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use posttls::case::store::Store;
use posttls::link::Keys;
use posttls::postfix::user::lookup;
use posttls::standing::Standing;
use posttls::standing::wire::{self, Answer, Request, Told};
use posttls::web::protocol::{receive, send};

pub const NOTICE: &str = include_str!("../corpus/notices/not-offered.eml");

/// How the hook ended, as pipe(8) sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Done,
    TryAgain,
    Signal,
}

/// What a run of the hook left.
#[derive(Debug)]
pub struct Run {
    pub end: End,
    pub said: String,
    /// Peak resident memory in KiB, as last seen while it ran.
    pub peak: u64,
}

/// A configuration, a store and a mail server of its own.
pub struct Bench {
    dir: tempfile::TempDir,
    pub server: Server,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(Server::start(|_| None))
    }

    pub fn with(server: Server) -> Self {
        // Other users must be able to enter it.
        let dir = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a directory");
        let bench = Self { dir, server };
        let nobody = lookup("nobody").expect("a user");
        fs::create_dir(bench.path("state")).expect("a directory");
        fs::set_permissions(bench.path("state"), fs::Permissions::from_mode(0o700))
            .expect("a mode");
        chown(bench.path("state"), Some(nobody.uid), Some(nobody.gid)).expect("an owner");
        drop(Store::open(&bench.database(), true).expect("a store"));
        chown(bench.database(), Some(nobody.uid), Some(nobody.gid)).expect("an owner");
        for (name, text) in [("key", Keys::line(1, &[9; 32])), ("log", String::new())] {
            fs::write(bench.path(name), text).expect("a file");
            chown(bench.path(name), Some(nobody.uid), Some(nobody.gid)).expect("an owner");
        }
        bench.answer_facts();
        bench.configure(bench.server.port, 5, "");
        bench.install("posttls-pipe", env!("CARGO_BIN_EXE_posttls-pipe"));
        bench
    }

    /// Says in the mover's place that nothing but our own level stands in the way of anybody.
    fn answer_facts(&self) {
        fs::create_dir(self.path("run")).expect("a directory");
        let path = wire::socket(&self.path("run"));
        let listener = UnixListener::bind(&path).expect("a socket");
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("a mode");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    while let Ok(Some(Request::Standings(question))) =
                        receive::<Request>(&stream, wire::MOST)
                    {
                        let asked = question.recipients.into_iter();
                        let recipients = asked.map(|one| Told {
                            address: one.address,
                            standing: Standing::Free,
                        });
                        let recipients = recipients.collect();
                        if send(&stream, &Answer { recipients }, wire::MOST).is_err() {
                            break;
                        }
                    }
                });
            }
        });
    }

    /// Puts a program where anybody can run it.
    pub fn install(&self, name: &str, program: &str) {
        programs::install(program, &self.path(name));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("state/posttls.db")
    }

    pub fn store(&self) -> Store {
        Store::open(&self.database(), false).expect("a store")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).expect("a log")
    }

    /// Writes posttls.toml: the server's port, its time-out, and further text.
    pub fn configure(&self, port: u16, timeout: u64, more: &str) {
        let dir = self.dir.path().display();
        let text = format!(
            "[mover]\nrun_dir = \"{dir}/run\"\n[senders]\ninternal = [\"*\"]\n[limits]\nfirst = 100\nper_sender_hour = 10000\n[store]\npath = \"{dir}/state/posttls.db\"\n[link]\nkey_file = \"{dir}/key\"\nbase_url = \"http://x.test\"\n\
             [notification]\nfrom_address = \"posttls@x.test\"\nadmin_contact = \"help\"\nsmtp_port = {port}\nsmtp_tls = \"none\"\n\
             smtp_timeout_seconds = {timeout}\n[log]\ntarget = \"{dir}/log\"\n{more}"
        );
        fs::write(self.path("posttls.toml"), text).expect("posttls.toml");
    }

    /// Gives the hook this notice.
    pub fn run(&self, notice: impl AsRef<[u8]>) -> Run {
        let notice = notice.as_ref();
        let id = String::from_utf8_lossy(notice).lines().find_map(|line| {
            Some(
                line.trim()
                    .strip_prefix("id ")?
                    .split(';')
                    .next()?
                    .to_owned(),
            )
        });
        let arguments = [
            "--client",
            "",
            "--sender",
            "double-bounce@x.test",
            "--queue-id",
            id.as_deref().unwrap_or("4ABCDEF"),
        ];
        let config = self.path("posttls.toml");
        self.start(
            &[
                &["--config", config.to_str().expect("UTF-8")][..],
                &arguments,
            ]
            .concat(),
            &[],
            notice,
        )
    }

    /// Runs the hook as user nobody.
    pub fn start(&self, arguments: &[&str], env: &[(&str, &str)], input: &[u8]) -> Run {
        let mut child = Command::new("setpriv")
            .args([
                "--reuid",
                "nobody",
                "--regid",
                "nogroup",
                "--clear-groups",
                "prlimit",
                "--data=100663296",
            ])
            .arg(self.path("posttls-pipe"))
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("setpriv runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        let status = Path::new("/proc")
            .join(child.id().to_string())
            .join("status");
        let (input, peak) = (input.to_owned(), Arc::new(Mutex::new(0)));
        let seen = Arc::clone(&peak);
        thread::spawn(move || {
            // What the hook does not read, it does not want.
            let _ = stdin.write_all(&input);
        });
        thread::spawn(move || {
            while let Ok(text) = fs::read_to_string(&status) {
                let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                if let Some(now) =
                    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok())
                {
                    *seen.lock().expect("no panic") = now;
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        let output = child.wait_with_output().expect("an end");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let peak = *peak.lock().expect("no panic");
        Run {
            end: end(output.status, &said),
            said,
            peak,
        }
    }
}

/// The three ends that the contract with pipe(8) allows.
fn end(status: ExitStatus, said: &str) -> End {
    match (status.code(), status.signal()) {
        (Some(0), _) => End::Done,
        (Some(75), _) => End::TryAgain,
        (None, Some(_)) => End::Signal,
        _ => panic!("pipe(8) would bounce the notice: {status}: {said}"),
    }
}

/// A mail server that keeps what it takes, and answers as it is told.
pub struct Server {
    pub port: u16,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `reply` may give another answer to a command (`CONNECT`, `EHLO`, `MAIL`, `RCPT`, `DATA`, `.`), or to the
    /// whole line of a RCPT; an empty one is silence.
    pub fn start(reply: impl Fn(&str) -> Option<&'static str> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (taken, reply) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(reply));
        let mails = Arc::clone(&taken);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mails, reply) = (Arc::clone(&mails), Arc::clone(&reply));
                thread::spawn(move || serve(&stream, &mails, &*reply));
            }
        });
        Self { port, taken }
    }

    pub fn mails(&self) -> Vec<String> {
        self.taken.lock().expect("no panic").clone()
    }
}

fn serve(
    mut stream: &TcpStream,
    mails: &Mutex<Vec<String>>,
    reply: &dyn Fn(&str) -> Option<&'static str>,
) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let mut answer = |command: &str, usual: &str| {
        let text = reply(command).unwrap_or(usual);
        if text.is_empty() {
            thread::sleep(Duration::from_secs(60));
        }
        stream
            .write_all(format!("{text}\r\n").as_bytes())
            .ok()
            .map(|()| text.starts_with(['2', '3']))
    };
    answer("CONNECT", "220 x.test")?;
    while let Some(Ok(line)) = lines.next() {
        let command = line.split([' ', ':']).next()?.to_uppercase();
        let usual = if command == "DATA" {
            "354 go on"
        } else {
            "250 ok"
        };
        let asked = match command.as_str() {
            "RCPT" if reply(&line).is_some() => &line,
            _ => &command,
        };
        if !answer(asked, usual)? || command != "DATA" {
            continue;
        }
        let mut mail = String::new();
        for line in lines
            .by_ref()
            .map_while(Result::ok)
            .take_while(|line| line != ".")
        {
            mail += &(line + "\r\n");
        }
        if answer(".", "250 taken")? {
            mails.lock().expect("no panic").push(mail);
        }
    }
    Some(())
}
