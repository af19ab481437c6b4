//! One small Postfix in a directory of its own, stopped when dropped. It delivers to `@ok.test` (nowhere), and keeps
//! the rest deferred as if TLS had failed, without a server.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use posttls::sandbox::{Guard, compatibility_level};
use tempfile::TempDir;

const MAIN_CF: &str = "inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.test
mydestination =
mynetworks = 127.0.0.0/8
smtpd_peername_lookup = no
alias_maps =
local_recipient_maps =
virtual_alias_domains = alias.test
virtual_alias_maps = inline:{ {list@alias.test=ann@defer.test, bob@ok.test} }
transport_maps = inline:{ {ok.test=discard:}, {alias.test=discard:} }
default_transport = retry:4.7.4 TLS is required, but was not offered by host mx.test[192.0.2.1]
smtpd_reject_unlisted_recipient = no
smtpd_relay_restrictions = permit_mynetworks, reject
";

/// For one step of Postfix on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const MASTER_CF: &str = "pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
discard unix - - n - - discard
retry unix - - n - - error
showq unix n - n - - showq
postlog unix-dgram n - n - 1 postlogd
";

pub struct Postfix {
    /// Before the directory.
    _guard: Guard,
    directory: TempDir,
    port: u16,
}

impl Postfix {
    /// Starts it; `settings` are further lines of main.cf.
    pub fn start(settings: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("posttls-queue-file-")
            .tempdir()
            .unwrap();
        let path = directory.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["etc", "queue", "data"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        run(Command::new("chown").arg("postfix").arg(path.join("data")));
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let at = path.display();
        let level = compatibility_level().unwrap();
        let places = format!(
            "compatibility_level = {level}\nqueue_directory = {at}/queue\ndata_directory = {at}/data\nmaillog_file = {at}/log\nmaillog_file_prefixes = {at}\n"
        );
        fs::write(
            path.join("etc/main.cf"),
            format!("{MAIN_CF}{places}{settings}\n"),
        )
        .unwrap();
        let smtpd = format!("127.0.0.1:{port} inet n - n - - smtpd\n");
        fs::write(path.join("etc/master.cf"), format!("{smtpd}{MASTER_CF}")).unwrap();
        let guard = Guard::start(Path::new(env!("CARGO_BIN_EXE_posttls")), path).unwrap();
        let postfix = Self {
            _guard: guard,
            directory,
            port,
        };
        postfix.run("postfix", &["start"]);
        postfix
    }

    pub fn queue(&self) -> PathBuf {
        self.directory.path().join("queue")
    }

    /// Sends by SMTP and gives the queue ID. `mail` and `recipients` are what stands behind `MAIL FROM:` and `RCPT TO:`.
    pub fn send(&self, mail: &str, recipients: &[&str], content: &[u8]) -> String {
        let stream = within("smtpd", || {
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        answer(&mut answers);
        let mut commands = vec!["EHLO client.test".to_owned(), format!("MAIL FROM:{mail}")];
        commands.extend(
            recipients
                .iter()
                .map(|recipient| format!("RCPT TO:{recipient}")),
        );
        commands.push("DATA".to_owned());
        for command in commands {
            // In one write: two would wait for each other (RFC 1122 section 4.2.3.2, delayed ACK).
            stream
                .write_all(format!("{command}\r\n").as_bytes())
                .unwrap();
            let line = answer(&mut answers);
            assert!(line.starts_with(['2', '3']), "{command}: {line}");
        }
        stream.write_all(content).unwrap();
        stream.write_all(b"\r\n.\r\nQUIT\r\n").unwrap();
        let line = answer(&mut answers);
        line.rsplit_once("queued as ")
            .unwrap_or_else(|| panic!("{line}"))
            .1
            .trim()
            .to_owned()
    }

    /// Submits with `sendmail -t` and gives the queue ID of the first message of that sender.
    pub fn sendmail(&self, sender: &str, content: &[u8]) -> String {
        let mut child = Command::new("sendmail")
            .arg("-C")
            .arg(self.config())
            .args(["-f", sender, "-t"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(content).unwrap();
        assert!(child.wait().unwrap().success());
        let needle = format!(" from=<{sender}>");
        within("the log line of sendmail's message", || {
            let log = fs::read_to_string(self.directory.path().join("log")).ok()?;
            let line = log
                .lines()
                .find(|line| line.contains("/pickup[") && line.contains(&needle))?;
            line.split(": ").nth(1).map(str::to_owned)
        })
    }

    /// Waits until the message is deferred; then no process works on it any more.
    pub fn deferred(&self, id: &str) -> PathBuf {
        within(&format!("{id} in the deferred queue"), || {
            find(&self.queue().join("deferred"), id)
        })
    }

    pub fn defer_log(&self, id: &str) -> Vec<u8> {
        fs::read(find(&self.queue().join("defer"), id).unwrap()).unwrap()
    }

    /// What postcat shows of the envelope, with offsets; pointer records are shown, and followed.
    pub fn postcat(&self, file: &Path) -> Vec<u8> {
        self.run("postcat", &["-e", "-o", "-v", file.to_str().unwrap()])
            .stdout
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        run(Command::new(program)
            .arg("-c")
            .arg(self.config())
            .args(arguments))
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("etc")
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn answer(answers: &mut impl BufRead) -> String {
    loop {
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        if line.as_bytes().get(3) != Some(&b'-') {
            return line;
        }
    }
}

fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(directory).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            find(&path, name)
        } else {
            (entry.file_name() == name).then_some(path)
        }
    })
}

fn within<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < end, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
