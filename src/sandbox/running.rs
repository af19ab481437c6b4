//! A running sandbox, and what tests, demo and benchmarks do with it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::deliver::{maildir_of, read_maildir};
use super::error::AtPath;
use super::guard::Guard;
use super::ports::{DOMAINS, DOWN, Ports};
use super::process;
use super::smtp::{self, Mail};
use super::{Instance, SandboxError, UpOptions, down};

/// The queues that [`Sandbox::queue`] lists.
pub const QUEUES: [&str; 5] = ["maildrop", "incoming", "active", "deferred", "hold"];

/// Milliseconds of a second in which a message that is submitted comes in before the next one, and after the clocks agree.
const FAR_FROM_A_TURN: Range<u32> = 20..950;

fn subsecond() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.subsec_millis())
}

/// A sandbox that was started. Unless [`Sandbox::leave_running`] is called, dropping it stops everything; its directory stays.
#[derive(Debug)]
pub struct Sandbox {
    dir: PathBuf,
    description: Value,
    stop_on_drop: bool,
    /// Of one that this process has started.
    guard: Option<Guard>,
    httpd: Mutex<Option<Child>>,
    /// Kept while this process has the sandbox: an instance may be stopped and started.
    _reserved: Arc<Vec<OwnedFd>>,
}

impl Sandbox {
    /// Attaches to the sandbox that is running in `dir`; dropping the value leaves it running.
    ///
    /// # Errors
    /// When `sandbox.json` cannot be read.
    pub fn open(dir: &Path) -> Result<Self, SandboxError> {
        let file = dir.join("sandbox.json");
        let description = serde_json::from_slice(&fs::read(&file).at(&file)?)
            .map_err(|_| SandboxError::BadDescription(file))?;
        Ok(Self {
            dir: dir.to_owned(),
            description,
            stop_on_drop: false,
            guard: None,
            httpd: Mutex::new(None),
            _reserved: Arc::default(),
        })
    }

    /// Writes `sandbox.json` and returns the guard that stops everything.
    pub(super) fn describe(options: &UpOptions, ports: &Ports) -> Result<Self, SandboxError> {
        let dir = options.dir.as_path();
        let instance = |instance: Instance, port: Option<u16>| {
            json!({
                "config_dir": dir.join(instance.as_str()),
                "smtp": port.map(|port| format!("127.0.0.1:{port}")),
                "log": dir.join(format!("{instance}.log")),
                "queue": super::build::spool(options, instance),
            })
        };
        let mut domains = serde_json::Map::new();
        for domain in DOMAINS {
            let port = ports.domains[domain.name];
            domains.insert(
                domain.name.to_owned(),
                json!({"smtp": format!("127.0.0.1:{port}"), "what": domain.what}),
            );
        }
        domains.insert(
            DOWN.0.to_owned(),
            json!({"smtp": format!("127.0.0.1:{}", DOWN.1), "what": "nobody listens"}),
        );
        let description = json!({
            "encrypt": instance(Instance::Encrypt, Some(ports.encrypt)),
            "may": instance(Instance::May, Some(ports.may)),
            "mx": instance(Instance::Mx, Some(ports.domains["tls.test"])),
            "http": format!("http://127.0.0.1:{}", ports.http),
            "config": dir.join("posttls.toml"),
            "inbox": dir.join("inbox"),
            "delivered": dir.join("delivered"),
            "binaries": dir.join("bin"),
            "domains": domains,
        });
        let file = dir.join("sandbox.json");
        fs::write(&file, format!("{description:#}\n")).at(&file)?;
        let program = dir.join("bin/posttls");
        let guard = program.is_file().then(|| Guard::start(&program, dir));
        Ok(Self {
            dir: dir.to_owned(),
            description,
            stop_on_drop: true,
            guard: guard.transpose()?,
            httpd: Mutex::new(None),
            _reserved: Arc::clone(&ports.reserved),
        })
    }

    /// Lets everything run on when this value is dropped.
    pub fn leave_running(&mut self) {
        self.stop_on_drop = false;
        if let Some(guard) = &mut self.guard {
            guard.dismiss();
        }
    }

    /// The sandbox's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The content of `sandbox.json`.
    pub fn description(&self) -> &Value {
        &self.description
    }

    /// The configuration directory of an instance.
    pub fn config_dir(&self, instance: Instance) -> PathBuf {
        self.dir.join(instance.as_str())
    }

    /// The queue directory of an instance.
    pub fn queue_dir(&self, instance: Instance) -> PathBuf {
        self.text(&format!("/{instance}/queue")).into()
    }

    /// `posttls.toml`.
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("posttls.toml")
    }

    /// A program of PostTLS, where the sandbox runs it.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// The web server's URL, without a slash at the end.
    pub fn http(&self) -> &str {
        self.text("/http")
    }

    /// The port on which an instance takes mail on 127.0.0.1; of the mx, that of tls.test.
    pub fn smtp_port(&self, instance: Instance) -> u16 {
        self.text(&format!("/{instance}/smtp"))
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .unwrap_or(0)
    }

    fn text(&self, pointer: &str) -> &str {
        self.description
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Submits a message without parameters to the encrypt instance; returns its queue ID there.
    ///
    /// # Errors
    /// When the server refuses the message or a recipient.
    pub fn submit(&self, from: &str, to: &[&str], data: &[u8]) -> Result<String, SandboxError> {
        self.submit_mail(Instance::Encrypt, &Mail::new(from, to, data))
    }

    /// Submits a message to an instance; returns its queue ID there. Waits when a second is about to begin: of what comes in
    /// and fails just then Postfix may write no notice at the first attempt, and most who try things wait for one.
    ///
    /// # Errors
    /// When the server refuses the message or a recipient.
    pub fn submit_mail(&self, instance: Instance, mail: &Mail) -> Result<String, SandboxError> {
        while !FAR_FROM_A_TURN.contains(&subsecond()) {
            thread::sleep(Duration::from_millis(5));
        }
        smtp::submit(self.smtp_port(instance), mail)
    }

    /// The same as [`Sandbox::submit`], whatever the time.
    ///
    /// # Errors
    /// When the server refuses the message or a recipient.
    pub fn submit_at_once(
        &self,
        from: &str,
        to: &[&str],
        data: &[u8],
    ) -> Result<String, SandboxError> {
        let port = self.smtp_port(Instance::Encrypt);
        smtp::submit(port, &Mail::new(from, to, data))
    }

    /// What the mx accepted for `recipient`, oldest first, as it would stand in a mailbox (newlines, no CRLF).
    pub fn delivered(&self, recipient: &str) -> Vec<Vec<u8>> {
        read_maildir(&maildir_of(&self.dir.join("delivered"), recipient))
    }

    /// What arrived for any address in sender.test, oldest first.
    pub fn inbox(&self) -> Vec<Vec<u8>> {
        read_maildir(&self.dir.join("inbox"))
    }

    /// The log of an instance so far.
    pub fn log(&self, instance: Instance) -> String {
        let path = self.dir.join(format!("{instance}.log"));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    /// The queue IDs of an instance by queue ([`QUEUES`]), read from its directories, sorted.
    pub fn queue(&self, instance: Instance) -> BTreeMap<&'static str, Vec<String>> {
        let root = self.queue_dir(instance);
        QUEUES
            .into_iter()
            .map(|name| {
                let mut ids = Vec::new();
                collect_files(&root.join(name), &mut ids);
                ids.sort();
                (name, ids)
            })
            .collect()
    }

    /// The queue that `queue_id` is in, if any.
    pub fn queue_of(&self, instance: Instance, queue_id: &str) -> Option<&'static str> {
        self.queue(instance)
            .into_iter()
            .find(|(_, ids)| ids.iter().any(|id| id == queue_id))
            .map(|(name, _)| name)
    }

    /// Runs one of Postfix's tools (`postsuper`, `postqueue`, `postcat` …) for an instance; returns what it printed.
    ///
    /// # Errors
    /// When it cannot be run or does not exit with 0.
    pub fn run(
        &self,
        tool: &str,
        instance: Instance,
        args: &[&str],
    ) -> Result<String, SandboxError> {
        process::run(process::postfix_tool(tool, &self.config_dir(instance)).args(args))
    }

    /// Polls until `found` returns something, for at most `timeout`. `what` completes "waited in vain for".
    ///
    /// # Errors
    /// [`SandboxError::Timeout`].
    pub fn wait_for<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut found: impl FnMut() -> Option<T>,
    ) -> Result<T, SandboxError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(result) = found() {
                return Ok(result);
            }
            if Instant::now() > deadline {
                return Err(SandboxError::Timeout {
                    what: what.to_owned(),
                    waited: timeout,
                });
            }
            thread::sleep(Duration::from_millis(15));
        }
    }

    /// Starts `posttls-httpd` with further environment variables, after [`Sandbox::stop_httpd`] or its crash.
    ///
    /// # Errors
    /// When it ends or does not answer HTTP within 15 seconds.
    pub fn start_httpd(&self, env: &[(String, String)]) -> Result<(), SandboxError> {
        let port = self.http().rsplit(':').next().and_then(|p| p.parse().ok());
        let child = process::start_httpd(&self.dir, port.unwrap_or(0), env)?;
        *self.httpd.lock().unwrap_or_else(|e| e.into_inner()) = Some(child);
        Ok(())
    }

    /// The process ID of `posttls-httpd`, if this value started it and it has not ended.
    pub fn httpd_pid(&self) -> Option<u32> {
        let mut httpd = self.httpd.lock().unwrap_or_else(|e| e.into_inner());
        let child = httpd.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    /// Ends `posttls-httpd`, if it runs.
    pub fn stop_httpd(&self) {
        process::stop_httpd(&self.dir);
        let child = self.httpd.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(mut child) = child {
            child.wait().ok();
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.stop_on_drop {
            self.stop_httpd();
            match (down(&self.dir, false), &mut self.guard) {
                (Ok(()), Some(guard)) => guard.dismiss(),
                (Ok(()), None) => {}
                (Err(error), _) => {
                    crate::logging::to_stderr(&format!("posttls sandbox: {error}\n"));
                }
            }
        }
    }
}

fn collect_files(dir: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect_files(&entry.path(), names),
            Ok(_) => names.push(entry.file_name().to_string_lossy().into_owned()),
            Err(_) => {}
        }
    }
}
