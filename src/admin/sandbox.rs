//! `posttls sandbox`: real Postfix instances in a directory.

use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{AdminError, Done, print};
use crate::exit::Exit;
use crate::sandbox::{self, Instance, Target, UpOptions};

#[derive(Debug, Args)]
pub(super) struct SandboxOptions {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the instances encrypt, may and mx, and posttls-httpd, on free loopback ports, with everything below DIR.
    Up(UpArguments),
    /// Stop what runs in DIR.
    Down(DownArguments),
    /// Wait for the end of standard input, then stop what runs in DIR; a sandbox has one of these for its own end.
    #[command(hide = true)]
    Guard(GuardArguments),
    /// Write the message on standard input into a Maildir; the mx of a sandbox runs this.
    #[command(hide = true)]
    Deliver(DeliverArguments),
}

#[derive(Debug, Args)]
struct UpArguments {
    /// The directory; created if missing. Users other than root must be able to reach it.
    #[arg(long)]
    dir: PathBuf,
    /// Do not start posttls-httpd.
    #[arg(long)]
    no_httpd: bool,
    /// Give this instance long queue IDs; may be given several times.
    #[arg(long, value_parser = ["encrypt", "may", "mx"], value_name = "INSTANCE")]
    long_queue_ids: Vec<String>,
    /// Lines to add to posttls.toml.
    #[arg(long, default_value = "", value_name = "TEXT")]
    toml: String,
}

#[derive(Debug, Args)]
struct DownArguments {
    /// The directory that `up` was given.
    #[arg(long)]
    dir: PathBuf,
    /// Delete the directory, too.
    #[arg(long)]
    remove: bool,
}

#[derive(Debug, Args)]
struct GuardArguments {
    /// The directory of the sandbox.
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Where {
    /// One Maildir for all recipients.
    #[arg(long)]
    maildir: Option<PathBuf>,
    /// A directory with a Maildir for each recipient.
    #[arg(long, requires = "recipient")]
    maildir_root: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct DeliverArguments {
    #[command(flatten)]
    place: Where,
    /// The recipient of this delivery.
    #[arg(long, allow_hyphen_values = true)]
    recipient: Option<String>,
}

pub(super) fn run(options: &SandboxOptions) -> Done {
    match &options.command {
        Command::Up(arguments) => up(arguments),
        Command::Down(arguments) => {
            sandbox::down(&arguments.dir, arguments.remove)?;
            Ok(Exit::Ok)
        }
        Command::Guard(arguments) => {
            sandbox::guard(&arguments.dir)?;
            Ok(Exit::Ok)
        }
        Command::Deliver(arguments) => Ok(deliver(arguments)),
    }
}

fn up(arguments: &UpArguments) -> Done {
    if !rustix::process::geteuid().is_root() {
        return Err(AdminError::new(
            Exit::Usage,
            "sandbox up must be run as root: Postfix's master needs it",
        ));
    }
    let mut options = UpOptions::new(&arguments.dir)
        .httpd(!arguments.no_httpd)
        .posttls_toml(&arguments.toml);
    for instance in Instance::ALL.into_iter().filter(|one| {
        arguments
            .long_queue_ids
            .iter()
            .any(|name| name == one.as_str())
    }) {
        options = options.long_queue_ids(instance);
    }
    let mut running = sandbox::up(&options)?;
    running.leave_running();
    print(&format!(
        "{}\n",
        running.dir().join("sandbox.json").display()
    ))?;
    Ok(Exit::Ok)
}

/// The mx keeps a message that can't be written, and tries again.
fn deliver(arguments: &DeliverArguments) -> Exit {
    let target = match (
        &arguments.place.maildir,
        &arguments.place.maildir_root,
        &arguments.recipient,
    ) {
        (Some(maildir), _, _) => Target::Maildir(maildir),
        (None, Some(root), Some(recipient)) => Target::Recipient { root, recipient },
        _ => return Exit::TryAgain,
    };
    match sandbox::deliver(&target, io::stdin().lock()) {
        Ok(_) => Exit::Ok,
        Err(error) => {
            crate::logging::to_stderr(&format!("cannot deliver: {error}\n"));
            Exit::TryAgain
        }
    }
}
