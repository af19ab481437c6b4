//! `posttls-ear`: learns from the may instance's SMTP clients whether they delivered over TLS.
//!
//! Postfix writes that nowhere but into its log. What it does offer are three tables that smtp(8) asks while it talks to
//! a server: `smtp_reply_filter` (here: for two kinds of line only, both long before the message is handed over),
//! `smtp_discard_ehlo_keyword_address_maps` (after each EHLO), and `smtp_delivery_status_filter` (after each recipient;
//! an error there changes nothing). As socketmap tables they lead here, one process of this program for each smtp(8)
//! process, run by Postfix's own spawn(8). The answer is always "not found", at once: **nothing that happens here can
//! lose a message or deliver it twice**. Without an ear the mover records "sent".
//!
//! | where | what |
//! | --- | --- |
//! | [`dialogue`] | what the questions say about the session (*pure*) |
//! | [`socketmap`] | the protocol (*pure*) |
//! | [`crate::standing::locks`] | which message a process is delivering |
//! | `notes` | what was heard goes into the store, in a thread of its own |

pub mod dialogue;
mod notes;
pub mod socketmap;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use log::{error, warn};
use rustix::net::sockopt::socket_peercred;

use crate::config::Config;
use crate::confine;
use crate::exit::{self, Exit, abort_on_panic};
use crate::logging;
use crate::standing::{locks, wire};
use dialogue::{Dialogue, Question};
use notes::Notes;
pub use socketmap::CHECK;
use socketmap::Queries;

/// Answers the lookups of one smtp(8) process on standard input and output, and notes what they tell.
///
/// How long the mover may take to say which message smtp(8) delivers, while smtp(8) waits.
const PATIENCE: Duration = Duration::from_millis(300);

/// Run by spawn(8) as postfix-conf/may-master.cf shows, not by hand.
#[derive(Debug, Parser)]
#[command(name = "posttls-ear", version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = "/etc/posttls/posttls.toml")]
    config: PathBuf,
}

/// Runs the ear with the arguments of this process, until smtp(8) hangs up.
pub fn main() -> Exit {
    let arguments: Arguments = match exit::arguments(Exit::Usage) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    // spawn(8) has made standard error the connection, too: a word there would be taken for an answer.
    if let Err(error) = silence_standard_error() {
        logging::to_stderr(&format!("cannot open /dev/null: {error}\n"));
        return Exit::Failure;
    }
    abort_on_panic();
    // Whatever is wrong on our side, mail goes out: an ear that can note nothing answers all the same.
    let notes = match Config::load(&arguments.config) {
        Ok(config) => {
            logging::start("posttls/ear", &config.log.target);
            Some((Notes::new(config.store.path), config.mover.run_dir))
        }
        Err(trouble) => {
            logging::start("posttls/ear", "syslog");
            error!("deaf: {trouble}");
            None
        }
    };
    if let Err(why) = confine::gain_nothing() {
        warn!("cannot give up what I could still gain: {why}");
    }
    match serve(notes.as_ref()) {
        Ok(()) => {}
        // smtp(8) tries again with another ear.
        Err(trouble) => warn!("smtp(8) is no longer listened to: {trouble}"),
    }
    if let Some((notes, _)) = notes {
        notes.finish();
    }
    Exit::Ok
}

fn silence_standard_error() -> io::Result<()> {
    let nowhere: File = OpenOptions::new().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stderr(nowhere)?)
}

/// The messages that smtp(8) is delivering. Where this process can't see the locks, the mover can.
fn messages_of(process: i32, run_dir: &Path) -> Vec<u64> {
    if locks::are_seen() {
        return locks::messages_of(process);
    }
    // An error is as good as no message: then nothing is concluded.
    wire::locks_of(run_dir, process, PATIENCE).unwrap_or_default()
}

/// An admin's or `posttls check`'s postmap(1), which delivers nothing.
fn asks_by_hand(process: i32) -> bool {
    std::fs::read(format!("/proc/{process}/comm")).is_ok_and(|name| name == b"postmap\n")
}

fn serve(notes: Option<&(Notes, PathBuf)>) -> io::Result<()> {
    let mut from = io::stdin().lock();
    let mut to = io::stdout().lock();
    let client = socket_peercred(&from).map(|peer| peer.pid.as_raw_nonzero().get());
    let client = client
        .inspect_err(|error| warn!("deaf: cannot tell which process is asking: {error}"))
        .ok();
    let mut queries = Queries::default();
    let mut dialogue = Dialogue::default();
    let mut told = false;
    let mut buffer = [0; 4096];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        queries.add(&buffer[..count]);
        while let Some(query) = queries.take()? {
            if query == CHECK {
                let messages = match (client, notes) {
                    (Some(client), Some((_, run_dir))) => messages_of(client, run_dir),
                    _ => Vec::new(),
                };
                to.write_all(&socketmap::found(&locks::listed(&messages)))?;
                to.flush()?;
                continue;
            }
            if let (Some(client), Some((notes, run_dir)), Some(question)) =
                (client, notes, Question::read(&query))
            {
                let messages = messages_of(client, run_dir);
                if messages.is_empty()
                    && !asks_by_hand(client)
                    && !std::mem::replace(&mut told, true)
                {
                    warn!(
                        "deaf: it can't be seen which message process {client} delivers; see posttls check"
                    );
                }
                if let Some(heard) = dialogue.hear(&messages, question) {
                    notes.note(&messages, heard);
                }
            }
            to.write_all(socketmap::NOT_FOUND)?;
            to.flush()?;
        }
    }
}
