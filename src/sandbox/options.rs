//! What a caller may choose about a sandbox, with defaults that suit the demo.

use std::fmt;
use std::path::{Path, PathBuf};

/// One of the three Postfix instances of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Instance {
    /// Sends over TLS or not at all.
    Encrypt,
    /// Sends what was released, over TLS where possible.
    May,
    /// The remote side of every connection.
    Mx,
}

impl Instance {
    /// All three, in the order in which they are started.
    pub const ALL: [Self; 3] = [Self::Mx, Self::May, Self::Encrypt];

    /// The name in directories, logs and `sandbox.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::May => "may",
            Self::Mx => "mx",
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How to build a sandbox. Made with [`UpOptions::new`]; every field has a default and may be changed.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Everything lives below this directory; made when missing.
    pub dir: PathBuf,
    /// Where `posttls`, `posttls-pipe`, `posttls-httpd` and `posttls-ear` are; default: beside the running program.
    pub bin_dir: PathBuf,
    /// Start `posttls-httpd`, too; default: yes.
    pub httpd: bool,
    /// Start the may instance (it is configured in any case); default: yes.
    pub start_may: bool,
    /// Have `postfix check` and `postconf` look at each instance before it starts; default: yes. Without it a sandbox
    /// takes half the time of the processor.
    pub check: bool,
    /// A program to run in place of `posttls-pipe`, with the same arguments.
    pub hook: Option<PathBuf>,
    /// The existing user and group under which pipe(8) runs programs; default: `nobody`, `nogroup`.
    pub pipe_user: (String, String),
    /// The existing user of the web child; default: `daemon`.
    pub web_user: String,
    /// Long queue IDs in these instances; default: none.
    pub long_queue_ids: Vec<Instance>,
    /// `hash_queue_names` and `hash_queue_depth` of encrypt and may; default: Postfix's own.
    pub hash_queues: Option<(String, u32)>,
    /// Queue directories outside `dir`, for tests across file systems.
    pub spools: Vec<(Instance, PathBuf)>,
    /// Further `main.cf` settings; each replaces an earlier one of the same name.
    pub main_cf: Vec<(Instance, String, String)>,
    /// Text appended to `posttls.toml`.
    pub posttls_toml: String,
    /// Environment of `posttls-httpd`, for instance `FAILPOINTS`.
    pub httpd_env: Vec<(String, String)>,
    /// Wire posttls-ear into the may instance; default: yes.
    pub ear: bool,
    /// Log every SMTP command that the mx sees; default: yes. Benchmarks turn it off.
    pub mx_dialogue: bool,
}

impl UpOptions {
    /// Defaults for a sandbox in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let bin_dir = std::env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(Path::to_owned))
            .unwrap_or_default();
        Self {
            dir: dir.into(),
            bin_dir,
            httpd: true,
            start_may: true,
            check: true,
            hook: None,
            pipe_user: ("nobody".into(), "nogroup".into()),
            web_user: "daemon".into(),
            long_queue_ids: Vec::new(),
            hash_queues: None,
            spools: Vec::new(),
            main_cf: Vec::new(),
            posttls_toml: String::new(),
            httpd_env: Vec::new(),
            ear: true,
            mx_dialogue: true,
        }
    }

    /// Take the programs from `dir`.
    pub fn bin_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.bin_dir = dir.into();
        self
    }

    /// Start `posttls-httpd` or not.
    pub fn httpd(mut self, yes: bool) -> Self {
        self.httpd = yes;
        self
    }

    /// Start the may instance or not.
    pub fn start_may(mut self, yes: bool) -> Self {
        self.start_may = yes;
        self
    }

    /// See [`UpOptions::check`].
    #[must_use]
    pub fn check(mut self, yes: bool) -> Self {
        self.check = yes;
        self
    }

    /// Run `program` in place of `posttls-pipe`.
    pub fn hook(mut self, program: impl Into<PathBuf>) -> Self {
        self.hook = Some(program.into());
        self
    }

    /// Use long queue IDs in `instance`.
    pub fn long_queue_ids(mut self, instance: Instance) -> Self {
        self.long_queue_ids.push(instance);
        self
    }

    /// Set `hash_queue_names` and `hash_queue_depth` in encrypt and may.
    pub fn hash_queues(mut self, names: &str, depth: u32) -> Self {
        self.hash_queues = Some((names.to_owned(), depth));
        self
    }

    /// Keep the queue of `instance` in `dir`.
    pub fn spool(mut self, instance: Instance, dir: impl Into<PathBuf>) -> Self {
        self.spools.push((instance, dir.into()));
        self
    }

    /// Set a `main.cf` parameter of `instance`, in place of whatever the sandbox would set.
    pub fn main_cf(mut self, instance: Instance, name: &str, value: &str) -> Self {
        self.main_cf
            .push((instance, name.to_owned(), value.to_owned()));
        self
    }

    /// Append `text` to `posttls.toml`.
    pub fn posttls_toml(mut self, text: &str) -> Self {
        self.posttls_toml.push_str(text);
        self
    }

    /// Set an environment variable of `posttls-httpd`.
    pub fn httpd_env(mut self, name: &str, value: &str) -> Self {
        self.httpd_env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Wire posttls-ear into the may instance, or not.
    pub fn ear(mut self, yes: bool) -> Self {
        self.ear = yes;
        self
    }

    /// Log every SMTP command that the mx sees, or not.
    pub fn mx_dialogue(mut self, yes: bool) -> Self {
        self.mx_dialogue = yes;
        self
    }
}
