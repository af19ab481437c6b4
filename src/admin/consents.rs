//! `posttls consents`: choices that senders wanted to be remembered, listed and revoked.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, Subcommand};
use log::info;
use serde::Serialize;

use super::cases::clock;
use super::who::who;
use super::{AdminError, Done, print, print_json};
use crate::address::Address;
use crate::case::store::{Consent, Store, now_ms};
use crate::config::Config;
use crate::exit::Exit;
use crate::{logging, text};

/// Digits of an ID that are shown at least, and that may be typed at least.
const SHORTEST: usize = 6;

#[derive(Debug, Args)]
pub(super) struct ConsentsOptions {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show the remembered choices that are in force.
    List(List),
    /// End remembered choices: their senders are asked again.
    Revoke(Revoke),
}

#[derive(Debug, Args)]
struct List {
    /// Also those that have ended or expired.
    #[arg(long)]
    all: bool,
    /// Only those of this sender.
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<Address>,
    /// Print JSON: an array of choices.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Revoke {
    /// IDs as `posttls consents list` shows them; the first digits will do if no other ID begins so.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// A choice as JSON shows it: with an ID that `revoke` takes.
#[derive(Serialize)]
struct Line<'a> {
    id: String,
    in_force: bool,
    sender: &'a Address,
    scope: crate::case::Scope,
    target: &'a str,
    failures: &'a [crate::case::Failure],
    client: &'a str,
    granted_at: i64,
    expires_at: i64,
    ended_at: Option<i64>,
    ended_why: Option<&'a str>,
    uses: i64,
    used_at: Option<i64>,
}

fn line(one: &Consent) -> Line<'_> {
    Line {
        id: one.id.to_string(),
        in_force: one.is_in_force(now_ms()),
        sender: &one.sender,
        scope: one.scope,
        target: &one.target,
        failures: &one.failures,
        client: &one.client,
        granted_at: one.granted_at,
        expires_at: one.expires_at,
        ended_at: one.ended_at,
        ended_why: one.ended_why.as_deref(),
        uses: one.uses,
        used_at: one.used_at,
    }
}

pub(super) fn run(options: &ConsentsOptions, config: &Path) -> Done {
    let config = Config::load(config)?;
    let store = Store::open(&config.store.path, false)?;
    match &options.what {
        What::List(list) => show(&store, list),
        What::Revoke(revoke) => {
            logging::start("posttls/admin", &config.log.target);
            end(&store, revoke)
        }
    }
}

/// How many digits tell every ID from every other one.
fn digits(all: &[Consent]) -> usize {
    let mut ids: Vec<String> = all.iter().map(|one| one.id.to_string()).collect();
    ids.sort();
    let shared = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let most = ids.windows(2).map(|two| shared(&two[0], &two[1])).max();
    most.map_or(SHORTEST, |most| SHORTEST.max(most + 1))
}

fn show(store: &Store, options: &List) -> Done {
    // Told apart from all there are, so that what is shown can be typed.
    let digits = digits(&store.consents(true)?);
    let mut list = store.consents(options.all)?;
    if let Some(sender) = &options.sender {
        list.retain(|one| one.sender == *sender);
    }
    if options.json {
        print_json(&list.iter().map(line).collect::<Vec<_>>())?;
        return Ok(Exit::Ok);
    }
    let mut out = String::new();
    if list.is_empty() {
        out.push_str("No remembered choices.\n");
    }
    for one in &list {
        let id = one.id.to_string();
        let failures: Vec<&str> = one.failures.iter().map(|kind| kind.as_str()).collect();
        let _ = writeln!(
            out,
            "{}  from=<{}>  {} {}, for {}",
            &id[..digits],
            one.sender,
            one.scope,
            text::shown(&one.target),
            failures.join(", ")
        );
        let state = match one.ended_at {
            Some(at) => {
                let why = one.ended_why.as_deref().unwrap_or_default();
                format!("ended {}: {}", clock(at), text::shown(why))
            }
            None if one.is_in_force(now_ms()) => format!("until {}", clock(one.expires_at)),
            None => format!("expired {}", clock(one.expires_at)),
        };
        let used = one
            .used_at
            .map_or(String::new(), |at| format!(", last {}", clock(at)));
        let _ = writeln!(
            out,
            "    given {} from {}, {state}; uses: {}{used}",
            clock(one.granted_at),
            text::shown(&one.client),
            one.uses
        );
    }
    print(&out)?;
    Ok(Exit::Ok)
}

fn end(store: &Store, options: &Revoke) -> Done {
    let all = store.consents(true)?;
    // All are found before the first one ends.
    let chosen = options
        .ids
        .iter()
        .map(|id| find(&all, id))
        .collect::<Result<Vec<_>, _>>()?;
    let by = who();
    let mut out = String::new();
    let mut lines = Vec::new();
    for one in chosen {
        let (id, sender, target) = (one.id, &one.sender, text::shown(&one.target));
        if store.end_consent(id, &format!("revoked by {by}"))? {
            info!("from=<{sender}>, to=<{target}>: remembered choice {id} revoked by {by}");
            let _ = writeln!(
                out,
                "{id}: revoked: from=<{sender}>, {} {target}",
                one.scope
            );
        } else {
            let _ = writeln!(out, "{id}: had ended before");
        }
        lines.extend(store.consent(id)?);
    }
    if options.json {
        print_json(&lines.iter().map(line).collect::<Vec<_>>())?;
    } else {
        print(&out)?;
    }
    Ok(Exit::Ok)
}

fn find<'a>(all: &'a [Consent], typed: &str) -> Result<&'a Consent, AdminError> {
    let wanted = typed.to_ascii_lowercase();
    if wanted.len() < SHORTEST || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
        let text = format!(
            "{:?} is no ID: expected {SHORTEST} to 16 hexadecimal digits, as `posttls consents list` shows them",
            typed.chars().take(80).collect::<String>()
        );
        return Err(AdminError::new(Exit::Usage, text));
    }
    let mut found = all
        .iter()
        .filter(|one| one.id.to_string().starts_with(&wanted));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(AdminError::new(
            Exit::Usage,
            format!("{wanted}: several remembered choices begin so: give more digits"),
        )),
        (None, _) => Err(AdminError::new(
            Exit::NotFound,
            format!(
                "{wanted}: there is no such remembered choice; `posttls consents list --all` shows them"
            ),
        )),
    }
}
