//! `posttls-httpd`: one program, three processes. Started by the admin it is the mover; started by the mover, with
//! `--web-child`, it is the web child, and finds its socket to the mover as standard input and its listening socket as
//! standard output; with `--courier` it is the courier, and ends when its standard input does.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::Parser;
use log::{error, info};

use crate::exit::{self, Exit, abort_on_panic};
use crate::web::{child, privilege};
use crate::{confine, courier, logging, mover};

/// Shows senders their cases, and carries out what they decide.
///
/// Start it as root: it moves messages between the queues of two Postfix instances. What speaks HTTP is a child
/// process without privilege. SIGHUP reloads configuration, link key and page templates, and the log
/// names settings that need a restart; SIGTERM ends it.
#[derive(Debug, Parser)]
#[command(name = "posttls-httpd", version)]
struct Arguments {
    /// The configuration file.
    #[arg(
        long,
        default_value = "/etc/posttls/posttls.toml",
        env = "POSTTLS_CONFIG"
    )]
    config: PathBuf,
    /// Send what senders are owed, as the courier of the mover that started this process.
    #[arg(long, hide = true, conflicts_with = "web_child")]
    courier: bool,
    /// Serve as the web child of the mover that started this process.
    #[arg(long, hide = true)]
    web_child: bool,
    /// A path that the web child must not be able to open.
    #[arg(long, hide = true, requires = "web_child")]
    forbidden: Vec<PathBuf>,
}

/// Runs the program with the arguments of this process.
pub fn main() -> Exit {
    let arguments: Arguments = match exit::arguments(Exit::Usage) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    // The mover starts us by another name (`mover::daemon`). One that can't be set is no reason to end.
    let _ = rustix::thread::set_name(c"posttls-httpd");
    let result = if arguments.web_child {
        logging::start("posttls/web", "stderr");
        serve(&arguments.forbidden).map_err(|error| error.to_string())
    } else if arguments.courier {
        abort_on_panic();
        courier(&arguments.config)
    } else {
        abort_on_panic();
        // The crash tests name their points in the environment variable FAILPOINTS.
        #[cfg(feature = "failpoints")]
        let _points = fail::FailScenario::setup();
        mover::run(&arguments.config).map_err(|error| error.to_string())
    };
    match result {
        Ok(()) => Exit::Ok,
        Err(text) => {
            error!("{text}");
            logging::to_stderr(&format!("posttls-httpd: {text}\n"));
            Exit::Failure
        }
    }
}

/// The courier has the hook's user and nothing else.
fn courier(config: &Path) -> Result<(), String> {
    confine::go_first();
    confine::close_inherited().map_err(|error| error.to_string())?;
    privilege::prove_unprivileged(&[]).map_err(|error| error.to_string())?;
    courier::run(config).map_err(|error| error.to_string())
}

fn serve(forbidden: &[PathBuf]) -> Result<(), child::WebError> {
    confine::go_first();
    confine::close_inherited().map_err(child::WebError::Limit)?;
    privilege::prove_unprivileged(forbidden)?;
    // After that there are none to be had.
    let sockets = child::Sockets::make()?;
    let achieved = privilege::shut_in()?;
    info!("shut in: {achieved}");
    let mover = duplicate(io::stdin().as_fd().try_clone_to_owned())?;
    let listener = duplicate(io::stdout().as_fd().try_clone_to_owned())?;
    child::run(
        UnixStream::from(mover),
        TcpListener::from(listener),
        sockets,
    )
}

fn duplicate(descriptor: io::Result<OwnedFd>) -> Result<OwnedFd, child::WebError> {
    descriptor.map_err(child::WebError::Mover)
}
