//! `posttls census`: the census by hand, with what it has done so far on a terminal's last line.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{AdminError, Done, print, print_json};
use crate::case::store::Store;
use crate::config::Config;
use crate::exit::Exit;
use crate::logging;
use crate::mover::{Census, Go, Summary, Ways};
use crate::postfix::Instance;

#[derive(Debug, Args)]
pub(super) struct CensusOptions {
    /// Record nothing; only count what would be recorded.
    #[arg(long)]
    dry_run: bool,
    /// Print the counts as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &CensusOptions, config: &Path) -> Done {
    let config = Config::load(config)?;
    if !rustix::process::geteuid().is_root() {
        let text = "census must be run as root: it reads Postfix's queue files";
        return Err(AdminError::new(Exit::Failure, text));
    }
    // What is found is logged as what the hook finds: one log tells of all cases.
    logging::start("posttls/census", &config.log.target);
    let store = Store::open(&config.store.path, false)?;
    let instance = Instance::load(&config.encrypt.config_dir)?;
    let may = Instance::load(&config.may.config_dir)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let census = Census {
        store: &store,
        instance: &instance,
        ways: &Ways::patient(&config.encrypt.remote_hosts),
        may: &may,
        config: &config,
        dry_run: options.dry_run,
    };
    // Draws on standard error, and only when that is a terminal.
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template(
        "{spinner} {pos} messages ({per_sec}), {msg}",
    )?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let result = census.run(&mut |so_far| {
        bar.set_position(so_far.messages);
        if so_far.messages % 100 == 0 {
            let Summary { stuck, opened, .. } = so_far;
            bar.set_message(format!("{stuck} with a TLS failure, {opened} new cases"));
        }
        if stop.load(Ordering::Relaxed) {
            Go::Stop
        } else {
            Go::On
        }
    });
    bar.finish_and_clear();
    let summary = result?;
    if options.json {
        print_json(&summary)?;
    } else {
        print(&table(&summary, options.dry_run))?;
    }
    if summary.complete {
        return Ok(Exit::Ok);
    }
    let text =
        "interrupted: what is counted above is done; run `posttls census` again for the rest";
    Err(AdminError::new(Exit::Failure, text))
}

fn table(summary: &Summary, dry_run: bool) -> String {
    let mut out = String::new();
    let lines = [
        (summary.messages, "messages in the queue"),
        (summary.deferred, "deferred, with a reason"),
        (summary.stuck, "  with a TLS failure"),
        (summary.opened, "    new cases"),
        (summary.joined, "    cases that recipients have joined"),
        (summary.known, "    known already"),
        (
            summary.internal,
            "    notices of Postfix and mails of PostTLS, left alone",
        ),
        (summary.recipients, "recipients recorded"),
        (
            summary.moved,
            "changed queues meanwhile; the next census sees them",
        ),
        (summary.unreadable, "could not be read; the log says why"),
        (
            summary.strays,
            "on hold, of a move that the journal does not know, perhaps; the log and `posttls check` say more",
        ),
    ];
    for (count, what) in lines {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{count:>9}  {what}");
    }
    if dry_run {
        out.push_str("Nothing was recorded (--dry-run).\n");
    }
    out
}
