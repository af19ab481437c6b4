//! `posttls`, the admin's command: its command line, and one place that prints errors and chooses the exit code.

mod answers;
mod cases;
mod census;
mod check;
mod consents;
mod decide;
mod demo;
mod init;
mod log;
mod mandatory;
mod mirror;
mod moment;
mod policy_test;
mod resolve;
mod sandbox;
mod stats;
mod who;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::address::Address;
use crate::case::Action;
use crate::exit::{self, Exit};
use crate::postfix::QueueId;

/// Lets Postfix refuse unencrypted delivery, and asks the sender when a server has no usable TLS.
#[derive(Debug, Parser)]
#[command(
    name = "posttls",
    version,
    after_help = "Exit codes: 0 done; 1 failed; 64 wrong usage; 66 no such case, domain or choice."
)]
struct CommandLine {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        default_value = "/etc/posttls/posttls.toml",
        env = "POSTTLS_CONFIG"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the users, directories, key, database and configuration file; what exists is left as it is.
    Init(init::InitOptions),
    /// List the cases: messages of which recipients wait for their sender's decision.
    Cases(cases::CasesOptions),
    /// Show one case: recipients, decisions, and everything that happened.
    Case(cases::CaseOptions),
    /// Look through the whole queue for TLS failures that no notice has announced.
    Census(census::CensusOptions),
    /// Send recipients of a message unencrypted if need be, in the sender's place.
    Release(DecideOptions),
    /// Delete recipients of a message from the queue, in the sender's place.
    Delete(DecideOptions),
    /// Manage the domains that must be reached over TLS.
    Mandatory(mandatory::MandatoryOptions),
    /// Show or revoke choices that senders wanted to be remembered.
    Consents(consents::ConsentsOptions),
    /// Show a move that was stopped in the middle, and record that you have settled it by hand.
    Resolve(resolve::ResolveOptions),
    /// Look the whole installation over: one line a check, each with what to do. Changes nothing, sends no mail.
    ///
    /// Exit code 0: nothing failed, though there may be warnings; 1: something did.
    Check(check::CheckOptions),
    /// Give the may instance what it needs to send mail the same way as the encrypt instance.
    ///
    /// Exit code 0: both send the same way; 1: something is to be done, or is left to be done by hand.
    Mirror(mirror::MirrorOptions),
    /// Show who decided what, when, from which address, and what came of it; the newest last.
    ///
    /// Decisions by the link, by admins, by the configuration, mandatory domains and remembered choices.
    Log(log::LogOptions),
    /// Count: domains without TLS, cases and decisions by day, time to decide, and what became of the recipients.
    ///
    /// Counts need no addresses, so they stay when those are removed.
    Stats(stats::StatsOptions),
    /// Say what would be done with a failure for a recipient: who is asked, what may be chosen, and why.
    ///
    /// Changes nothing.
    Test(policy_test::TestOptions),
    /// Start or stop real Postfix instances in a directory, to try PostTLS out.
    Sandbox(sandbox::SandboxOptions),
    /// Show the main job on real Postfix in a sandbox.
    Demo(demo::DemoOptions),
}

#[derive(Debug, Args)]
struct DecideOptions {
    /// Queue ID in the encrypt instance, as `mailq` shows it.
    queue_id: QueueId,
    /// Only this recipient; may be given several times. Without it: all that wait for a decision.
    #[arg(long = "recipient", value_name = "ADDRESS")]
    recipients: Vec<Address>,
    /// With release: send although a policy of yours demands TLS for the recipient's domain. Logged, and written into the
    /// case. A message under REQUIRETLS, and mail to a mandatory domain, is not sent all the same.
    #[arg(long)]
    override_policy: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// An error of the admin's command: the text for the operator, and how the program ends.
#[derive(Debug)]
pub(crate) struct AdminError {
    text: String,
    exit: Exit,
}

impl AdminError {
    fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            exit,
        }
    }
}

/// Every error of the library explains itself.
impl<E: std::error::Error> From<E> for AdminError {
    fn from(error: E) -> Self {
        Self::new(Exit::Failure, error.to_string())
    }
}

type Done = Result<Exit, AdminError>;

/// Runs the command with the arguments of this process.
pub fn main() -> Exit {
    let line: CommandLine = match exit::arguments(Exit::Usage) {
        Ok(line) => line,
        Err(exit) => return exit,
    };
    let done = match &line.command {
        Command::Init(options) => init::run(options, &line.config),
        Command::Cases(options) => cases::list(options, &line.config),
        Command::Case(options) => cases::show(options, &line.config),
        Command::Census(options) => census::run(options, &line.config),
        Command::Release(options) => decide::run(options, Action::Send, &line.config),
        Command::Delete(options) => decide::run(options, Action::Delete, &line.config),
        Command::Mandatory(options) => mandatory::run(options, &line.config),
        Command::Consents(options) => consents::run(options, &line.config),
        Command::Resolve(options) => resolve::run(options, &line.config),
        Command::Check(options) => check::run(options, &line.config),
        Command::Mirror(options) => mirror::run(options, &line.config),
        Command::Log(options) => log::run(options, &line.config),
        Command::Stats(options) => stats::run(options, &line.config),
        Command::Test(options) => policy_test::run(options, &line.config),
        Command::Sandbox(options) => sandbox::run(options),
        Command::Demo(options) => demo::run(options),
    };
    done.unwrap_or_else(|error| {
        crate::logging::to_stderr(&format!("posttls: {}\n", error.text));
        error.exit
    })
}

/// Prints to standard output. A reader that has gone away (`posttls cases | head`) is no error.
fn print(text: &str) -> Result<(), AdminError> {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints a value as indented JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), AdminError> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}
