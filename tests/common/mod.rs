//! A sandbox with everything running, and the ways in which tests touch it: as a sender, a browser, an admin.
#![allow(dead_code)] // Every test program uses a part of it.

pub mod links;
pub mod mailbox;
pub mod mount;
pub mod remote;
pub mod spools;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use mailparse::MailHeaderMap as _;
use posttls::sandbox::{self, Instance, Sandbox, UpOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Long enough for a busy machine; nothing waits that long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running sandbox in a directory of its own; both end with it.
pub struct Stage {
    pub sandbox: Sandbox,
    _dir: tempfile::TempDir,
}

/// What a page answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Stage {
    pub fn new() -> Self {
        Self::with(|options| options)
    }

    /// A sandbox with options of its own.
    pub fn with(change: impl FnOnce(UpOptions) -> UpOptions) -> Self {
        // Other users must be able to enter it.
        let dir = tempfile::Builder::new()
            .prefix("posttls-test-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .expect("a directory");
        let programs = Path::new(env!("CARGO_BIN_EXE_posttls"))
            .parent()
            .expect("a directory");
        let options = change(UpOptions::new(dir.path()).bin_dir(programs).check(false));
        let sandbox = sandbox::up(&options).unwrap_or_else(|error| panic!("{error}"));
        Self { sandbox, _dir: dir }
    }

    /// A sandbox in which the encrypt instance wants a trusted certificate from everybody, by its own level: only that of
    /// cert.test is not.
    pub fn wanting_certificates(change: impl FnOnce(UpOptions) -> UpOptions) -> Self {
        Self::with(|options| {
            let trusted = options.dir.join("mx/tls-cert.pem").display().to_string();
            let settings = [
                ("smtp_tls_security_level", "secure"),
                ("smtp_tls_CAfile", &trusted),
                ("smtp_tls_secure_cert_match", "mx.host.test"),
                ("smtp_tls_policy_maps", ""),
            ];
            let options = settings.iter().fold(options, |options, (name, value)| {
                options.main_cf(Instance::Encrypt, name, value)
            });
            change(options)
        })
    }

    pub fn dir(&self) -> &Path {
        self.sandbox.dir()
    }

    /// Leaves the directory where it is, for study, when the sandbox ends.
    pub fn keep(&mut self) -> PathBuf {
        self._dir.disable_cleanup(true);
        self.dir().to_owned()
    }

    /// Sends a small message from alice@sender.test and returns its queue ID.
    pub fn send(&self, to: &[&str], subject: &str) -> String {
        let message = format!(
            "From: alice@sender.test\r\nTo: undisclosed-recipients:;\r\nSubject: {subject}\r\nMessage-ID: <{subject}@sender.test>\r\n\r\nbody of {subject}\r\n"
        );
        self.sandbox
            .submit("alice@sender.test", to, message.as_bytes())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn wait<T>(&self, what: &str, found: impl FnMut() -> Option<T>) -> T {
        self.sandbox
            .wait_for(what, PATIENCE, found)
            .unwrap_or_else(|error| {
                panic!(
                    "{error}\n--- posttls.log\n{}--- encrypt.log\n{}--- may.log\n{}",
                    self.log(),
                    self.sandbox.log(Instance::Encrypt),
                    self.sandbox.log(Instance::May)
                )
            })
    }

    /// What PostTLS has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir().join("posttls.log")).unwrap_or_default()
    }

    /// Waits for the notification about a message and returns it whole.
    pub fn notification(&self, queue_id: &str) -> String {
        let reference = format!("(Reference: {queue_id})");
        self.wait(&format!("the notification about {queue_id}"), || {
            self.sandbox
                .inbox()
                .into_iter()
                .map(|raw| String::from_utf8_lossy(&raw).into_owned())
                // What a sender is informed about has no link, and may come first.
                .find(|mail| mail.contains(&reference) && link_in(mail).is_some())
        })
    }

    /// Sends a message and returns its queue ID and the URL of its page, without a choice.
    pub fn stuck(&self, to: &[&str], subject: &str) -> (String, String) {
        let queue_id = self.send(to, subject);
        let link = link(&self.notification(&queue_id));
        (queue_id, link)
    }

    /// Waits until `recipient` has at least one message and returns the first.
    pub fn arrival(&self, recipient: &str) -> String {
        let raw = self.wait(&format!("mail at {recipient}"), || {
            self.sandbox.delivered(recipient).into_iter().next()
        });
        String::from_utf8_lossy(&raw).into_owned()
    }

    /// Waits until nothing is in any queue of both instances, and nothing was left behind.
    pub fn queues_are_empty(&self) {
        for instance in [Instance::Encrypt, Instance::May] {
            self.wait(&format!("empty queues of {instance}"), || {
                self.has_nothing(instance).then_some(())
            });
        }
    }

    /// Waits until the message is in this queue of the encrypt instance.
    pub fn in_queue(&self, queue_id: &str, queue: &str) {
        self.wait(&format!("{queue_id} in {queue}"), || {
            (self.sandbox.queue_of(Instance::Encrypt, queue_id) == Some(queue)).then_some(())
        });
    }

    pub fn get(&self, url: &str) -> Answer {
        request("GET", url, "")
    }

    pub fn post(&self, url: &str, form: &str) -> Answer {
        request("POST", url, form)
    }

    /// Sends a signal to the mover, which must be running.
    pub fn signal_mover(&self, signal: Signal) {
        self::signal(self.sandbox.httpd_pid().expect("a mover"), signal);
    }

    /// Runs the admin's command.
    pub fn posttls(&self, arguments: &[&str]) -> Output {
        Command::new(self.sandbox.program("posttls"))
            .arg("--config")
            .arg(self.sandbox.config_file())
            .args(arguments)
            .output()
            .expect("posttls runs")
    }

    /// What the admin's command prints when it succeeds, as it must.
    pub fn said(&self, arguments: &[&str]) -> String {
        let output = self.posttls(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// As [`Stage::said`], of a command that prints JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.said(arguments)).expect("JSON")
    }

    /// The case of a queue ID, as `posttls case --json` shows it.
    pub fn case(&self, queue_id: &str) -> Value {
        let output = self.posttls(&["case", queue_id, "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// The state of each recipient of a case, by address.
    pub fn states(&self, queue_id: &str) -> std::collections::BTreeMap<String, String> {
        let case = self.case(queue_id);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        case["recipients"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|r| (text(&r["address"]), text(&r["state"])))
            .collect()
    }

    /// The recipients that wait in the queue file of the encrypt instance, wherever it is. (`mailq` still lists those
    /// of the last try from its defer log until the next one.)
    pub fn pending(&self, queue_id: &str) -> Vec<String> {
        let instance =
            posttls::postfix::Instance::load(&self.sandbox.config_dir(Instance::Encrypt))
                .expect("an instance");
        let id = queue_id.parse().expect("a queue ID");
        // The file may change queues between the look and the opening.
        let file = self.wait(&format!("the queue file of {queue_id}"), || {
            let queue = self.sandbox.queue_of(Instance::Encrypt, queue_id)?;
            std::fs::File::open(instance.directory(queue, &id).join(queue_id)).ok()
        });
        let content = posttls::postfix::QueueFile::read(file).expect("a queue file");
        content
            .pending()
            .map(|recipient| String::from_utf8_lossy(&recipient.bytes).into_owned())
            .collect()
    }

    /// The store, as the admin sees it.
    pub fn store(&self) -> posttls::case::store::Store {
        posttls::case::store::Store::open(&self.dir().join("state/posttls.db"), false)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sets a key of posttls.toml to a TOML value. What is running reads it when it next does.
    pub fn configure(&self, section: &str, key: &str, value: &str) {
        let path = self.sandbox.config_file();
        let text = std::fs::read_to_string(&path).expect("posttls.toml");
        let mut lines = Vec::new();
        let mut here = false;
        let header = format!("[{section}]");
        let text = if text.lines().any(|line| line == header) {
            text
        } else {
            format!("{text}\n{header}\n")
        };
        for line in text.lines() {
            here = if line.starts_with('[') {
                line == format!("[{section}]")
            } else {
                here
            };
            if !(here && line.split('=').next().map(str::trim) == Some(key)) {
                lines.push(line.to_owned());
            }
            if line == format!("[{section}]") {
                lines.push(format!("{key} = {value}"));
            }
        }
        std::fs::write(path, lines.join("\n") + "\n").expect("posttls.toml");
    }

    /// Posts a form to a server that may die of it.
    pub fn post_into_the_dark(&self, url: &str, form: &str) {
        let _ = try_request("POST", url, form);
    }

    pub fn queue_file(&self, instance: Instance, queue: &str, queue_id: &str) -> PathBuf {
        self.sandbox.queue_dir(instance).join(queue).join(queue_id)
    }
}

/// Sends a signal to a process of ours that must be there.
pub fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).expect("a process"), signal)
        .expect("it takes signals");
}

/// For what Postfix shows for some milliseconds: on a busy machine it may be missed, and then less is known. `exact` says
/// whether all was seen; of eight tries one must be, also where other work takes every second one.
pub fn seen_in_time(exact: impl FnMut(u32) -> bool) {
    assert!((0..8).any(exact), "missed eight times");
}

/// The page that a notification links to.
pub fn link(notification: &str) -> String {
    link_in(notification).expect("a link")
}

fn link_in(mail: &str) -> Option<String> {
    let mail = mailparse::parse_mail(mail.as_bytes()).expect("a mail");
    let plain = mail.subparts.first()?.get_body().expect("plain text");
    let url = plain.split_whitespace().find(|word| word.contains("/c/"))?;
    url.split('?').next().map(str::to_owned)
}

/// A header of a mail, decoded.
pub fn header(mail: &str, name: &str) -> Option<String> {
    mailparse::parse_mail(mail.as_bytes())
        .expect("a mail")
        .headers
        .get_first_value(name)
}

/// How the last hop travelled: the mx writes "with ESMTPS" when TLS was used.
pub fn came_over_tls(mail: &str) -> bool {
    header(mail, "Received")
        .expect("a Received header")
        .contains("with ESMTPS")
        || header(mail, "Received")
            .expect("a Received header")
            .contains("with UTF8SMTPS")
}

/// One HTTP request, with the form as its body.
pub fn request(method: &str, url: &str, form: &str) -> Answer {
    try_request(method, url, form).expect("posttls-httpd answers")
}

/// One HTTP request to a server that may not be there, or not be there any more.
pub fn try_request(method: &str, url: &str, form: &str) -> std::io::Result<Answer> {
    exchange(method, url, form, "")
}

/// One HTTP request as a reverse proxy forwards it from `client`.
pub fn forward(client: &str, method: &str, url: &str, form: &str) -> Answer {
    let header = format!("X-Forwarded-For: {client}\r\n");
    exchange(method, url, form, &header).expect("posttls-httpd answers")
}

fn exchange(method: &str, url: &str, form: &str, header: &str) -> std::io::Result<Answer> {
    let rest = url.strip_prefix("http://").expect("an http URL");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{header}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0);
    Ok(Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
