//! Real Postfix instances in a directory, for the demo, the tests and the benchmarks.
//!
//! [`up`] starts three: **encrypt** and **may**, wired with the shipped files, and **mx**, the rest of the world, with a
//! port for each way in which a server can treat STARTTLS. Everything is below one directory and on loopback ports;
//! nothing of the host's own Postfix is touched, no user is created, and the domains exist nowhere else (RFC 2606).

mod build;
mod config;
mod deliver;
mod error;
mod guard;
mod leftover;
mod options;
mod ports;
mod process;
mod running;
mod smtp;

use std::fs;
use std::path::Path;
use std::thread;

pub use deliver::{Target, deliver, maildir_of};
pub use error::SandboxError;
pub use guard::{Guard, guard};
pub use leftover::processes;
pub use options::{Instance, UpOptions};
pub use process::compatibility_level;
pub use running::{QUEUES, Sandbox};
pub use smtp::{Mail, submit};

use error::AtPath;
use ports::Ports;

/// How often to start over when another program takes one of our ports.
const ATTEMPTS: usize = 5;

/// Starts a sandbox. The returned value stops it when dropped, unless told otherwise.
///
/// # Errors
/// Whatever went wrong; what had been started by then is stopped.
pub fn up(options: &UpOptions) -> Result<Sandbox, SandboxError> {
    fs::create_dir_all(&options.dir).at(&options.dir)?;
    // Postfix and the shipped files need absolute paths.
    let options = UpOptions {
        dir: fs::canonicalize(&options.dir).at(&options.dir)?,
        ..options.clone()
    };
    let mut attempt = 1;
    loop {
        match try_up(&options) {
            Err(SandboxError::PortLost(_)) if attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

fn try_up(options: &UpOptions) -> Result<Sandbox, SandboxError> {
    let ports = Ports::find().at(&options.dir)?;
    let nonce = build::random_hex::<8>();
    build::lay_out(options, &ports, &nonce)?;
    // From here on, leaving early drops this value, and that stops what runs.
    let sandbox = Sandbox::describe(options, &ports)?;
    let wanted: Vec<Instance> = Instance::ALL
        .into_iter()
        .filter(|instance| *instance != Instance::May || options.start_may)
        .collect();
    let started: Vec<Result<(), SandboxError>> = thread::scope(|scope| {
        let starting: Vec<_> = wanted
            .iter()
            .map(|instance| {
                let config = sandbox.config_dir(*instance);
                scope.spawn(move || {
                    process::run(process::postfix_tool("postfix", &config).arg("start")).map(drop)
                })
            })
            .collect();
        starting
            .into_iter()
            .map(|handle| handle.join().expect("starting Postfix does not panic"))
            .collect()
    });
    // A master that cannot bind fails to start, so look for lost ports before reporting that.
    let mut listening = vec![];
    if wanted.contains(&Instance::Mx) {
        listening.extend(
            ports::DOMAINS
                .iter()
                .map(|domain| ports.domains[domain.name]),
        );
    }
    listening.push(ports.encrypt);
    if options.start_may {
        listening.push(ports.may);
    }
    for port in listening {
        Ports::check(port, &nonce)?;
    }
    started.into_iter().collect::<Result<(), _>>()?;
    if options.httpd {
        sandbox.start_httpd(&options.httpd_env)?;
    }
    Ok(sandbox)
}

/// Stops whatever of the sandbox in `dir` is running; deletes `dir` if `remove`. Works on half a sandbox, and twice. What
/// an instance has left behind, or can't be asked to stop as its queue directory is gone, is ended, too.
///
/// # Errors
/// When an instance cannot be stopped, or the directory not be deleted.
pub fn down(dir: &Path, remove: bool) -> Result<(), SandboxError> {
    let Ok(dir) = fs::canonicalize(dir) else {
        return Ok(());
    };
    process::stop_httpd(&dir);
    let stopped: Vec<Result<(), SandboxError>> = thread::scope(|scope| {
        let stopping: Vec<_> = Instance::ALL
            .into_iter()
            .map(|instance| {
                let config = dir.join(instance.as_str());
                scope.spawn(move || process::stop_instance(&config))
            })
            .collect();
        stopping
            .into_iter()
            .map(|handle| handle.join().expect("stopping Postfix does not panic"))
            .collect()
    });
    leftover::end(&dir)?;
    stopped.into_iter().collect::<Result<(), _>>()?;
    if remove {
        fs::remove_dir_all(&dir).at(&dir)?;
    }
    Ok(())
}
