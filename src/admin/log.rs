//! `posttls log`: every decision that was ever made, by whom, from where, and what came of it.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use clap::Args;

use super::Done;
use super::cases::{clock, open};
use super::moment::Moment;
use crate::case::store::{HistoryFilter, HistoryLine};
use crate::domain::Domain;
use crate::exit::Exit;
use crate::postfix::QueueId;
use crate::text;

#[derive(Debug, Args)]
pub(super) struct LogOptions {
    /// Decisions about this message: its queue ID in the encrypt instance.
    #[arg(long, value_name = "QUEUE_ID")]
    queue_id: Option<QueueId>,
    /// Decisions about mail of this envelope sender; "<>" is the null sender.
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// Decisions for this recipient.
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<String>,
    /// Decisions for recipients in this domain, or in one below it.
    #[arg(long)]
    domain: Option<Domain>,
    /// Decisions from this time on: a date (2026-11-22), a date and time (2026-11-22T18:30, with or without a time
    /// zone), or how long ago (90m, 2h, 3d, 1w).
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Decisions before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Only the newest ones, so many.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u32>,
    /// Print JSON: one object a line, so that a long log can be read as it comes.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &LogOptions, config: &Path) -> Done {
    let store = open(config)?;
    let bare = |address: &String| {
        let address = address.trim();
        let inner = address
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix('>'));
        inner.unwrap_or(address).to_owned()
    };
    let filter = HistoryFilter {
        queue_id: options.queue_id.clone(),
        sender: options.sender.as_ref().map(bare),
        recipient: options.recipient.as_ref().map(bare),
        domain: options.domain.clone(),
        since: options.since.map(Moment::as_millisecond),
        until: options.until.map(Moment::as_millisecond),
        limit: options.limit,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut trouble = None;
    store.history(&filter, |line| {
        let written = if options.json {
            serde_json::to_writer(&mut out, &line)
                .map_err(io::Error::from)
                .and_then(|()| out.write_all(b"\n"))
        } else {
            out.write_all(words(&line).as_bytes())
        };
        trouble = written.err();
        trouble.is_none()
    })?;
    match trouble.map_or_else(|| out.flush(), Err) {
        // A reader that has gone away (`posttls log | head`) is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Exit::Ok),
    }
}

/// One line for a person: when, which message, what for whom, by whom, and what came of it.
fn words(line: &HistoryLine) -> String {
    let (sender, recipient) = if line.redacted {
        ("removed".to_owned(), format!("removed@{}", line.domain))
    } else {
        (text::shown(&line.sender), text::shown(&line.recipient))
    };
    let mut out = format!(
        "{}  {}  from=<{sender}>  to=<{recipient}>  {}  {} by {}",
        clock(line.decided_at),
        line.queue_id,
        line.failure,
        line.action,
        line.actor
    );
    // What is written to a text can't fail.
    if !line.client.is_empty() {
        let _ = write!(out, " {}", text::shown(&line.client));
    }
    if let Some(consent) = line.consent {
        let _ = write!(out, " {}", consent.0);
    }
    let _ = write!(out, "  now {}", line.state);
    if let Some(passage) = line.passage {
        let _ = write!(out, ", {passage}");
    }
    out.push('\n');
    out
}
