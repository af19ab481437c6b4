//! `posttls mandatory`: the domains that must be reached over TLS, and what listing one does to mail that waits.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, Subcommand};
use log::info;
use serde::Serialize;

use super::cases::clock;
use super::who::who;
use super::{AdminError, Done, print, print_json};
use crate::case::store::{Affected, Effect, MandatoryDomain, Store};
use crate::config::Config;
use crate::domain::Domain;
use crate::exit::Exit;
use crate::{logging, text};

#[derive(Debug, Args)]
pub(super) struct MandatoryOptions {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List domains: recipients there never get mail unencrypted. What waits for them now and whose sender is asked is
    /// deleted, and its sender is told.
    Add(Domains),
    /// Take domains off the list. What was deleted stays deleted; new failures are handled as usual.
    Remove(Domains),
    /// Show the list.
    List(List),
}

#[derive(Debug, Args)]
struct Domains {
    /// Domains, also with their own letters (münchen.example). Those below them are included.
    #[arg(required = true, value_name = "DOMAIN")]
    domains: Vec<Domain>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct List {
    /// Also what was taken off it.
    #[arg(long)]
    all: bool,
    /// Print JSON: an array of domains.
    #[arg(long)]
    json: bool,
}

/// What became of one domain, as JSON shows it.
#[derive(Serialize)]
struct Changed {
    domain: Domain,
    #[serde(skip_serializing_if = "Option::is_none")]
    unicode: Option<String>,
    changed: bool,
    affected: Vec<Affected>,
}

/// A line of the list, as JSON shows it.
#[derive(Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    unicode: Option<String>,
    #[serde(flatten)]
    domain: MandatoryDomain,
}

pub(super) fn run(options: &MandatoryOptions, config: &Path) -> Done {
    let config = Config::load(config)?;
    let store = Store::open(&config.store.path, false)?;
    if !matches!(options.what, What::List(_)) {
        logging::start("posttls/admin", &config.log.target);
    }
    match &options.what {
        What::Add(domains) => add(&store, domains),
        What::Remove(domains) => remove(&store, domains),
        What::List(list) => show(&store, list),
    }
}

/// Both forms, where they differ: what looks like one domain may be another.
fn both(domain: &Domain) -> String {
    domain.unicode().map_or_else(
        || domain.to_string(),
        |unicode| format!("{domain} ({})", text::shown(&unicode)),
    )
}

fn add(store: &Store, options: &Domains) -> Done {
    let by = who();
    let mut changes = Vec::new();
    for domain in &options.domains {
        let listing = store.add_mandatory(domain, &by)?;
        if listing.is_new {
            info!("{domain}: listed as mandatory by {by}");
        }
        for one in &listing.affected {
            let (id, to) = (&one.queue_id, &one.recipient);
            match one.effect {
                Effect::Deleted => {
                    info!(
                        "{id}: to=<{to}>, decision recorded: delete, by mandatory {domain}, client={by}"
                    );
                }
                Effect::Barred => {
                    info!("{id}: to=<{to}>, barred from plain text by mandatory {domain}")
                }
                Effect::DecidedBefore => {}
            }
        }
        changes.push(Changed {
            domain: domain.clone(),
            unicode: domain.unicode(),
            changed: listing.is_new,
            affected: listing.affected,
        });
    }
    if options.json {
        print_json(&changes)?;
        return Ok(Exit::Ok);
    }
    let mut out = String::new();
    let mut deleting = 0;
    for change in &changes {
        let what = if change.changed {
            "listed; mail for it and the domains below it never goes unencrypted"
        } else {
            "was listed before"
        };
        let _ = writeln!(out, "{}: {what}", both(&change.domain));
        for one in &change.affected {
            deleting += usize::from(one.effect == Effect::Deleted);
            let _ = writeln!(
                out,
                "    {}: to=<{}>: {}",
                one.queue_id,
                one.recipient,
                words(one.effect)
            );
        }
    }
    if deleting > 0 {
        let _ = writeln!(
            out,
            "To be deleted: {deleting}. posttls-httpd does that within seconds, or when it is started."
        );
    }
    print(&out)?;
    Ok(Exit::Ok)
}

fn words(effect: Effect) -> &'static str {
    match effect {
        Effect::Deleted => "deleted; its sender is told",
        Effect::Barred => {
            "may not go unencrypted any more; its sender is not asked, so it waits on"
        }
        Effect::DecidedBefore => "was decided to be sent before, and that stands",
    }
}

fn remove(store: &Store, options: &Domains) -> Done {
    let by = who();
    let mut changes = Vec::new();
    for domain in &options.domains {
        let changed = store.remove_mandatory(domain, &by)?;
        if changed {
            info!("{domain}: no longer listed as mandatory, by {by}");
        }
        changes.push(Changed {
            domain: domain.clone(),
            unicode: domain.unicode(),
            changed,
            affected: Vec::new(),
        });
    }
    let mut out = String::new();
    let mut missing = Vec::new();
    for change in &changes {
        let parent = store.mandatory_for(&change.domain)?;
        let still = parent.map_or(String::new(), |parent| {
            format!("; it stays mandatory, as {} is listed", both(&parent))
        });
        let domain = both(&change.domain);
        if change.changed {
            let _ = writeln!(out, "{domain}: no longer listed{still}");
        } else {
            missing.push(format!("{domain} is not listed{still}"));
        }
    }
    if options.json {
        print_json(&changes)?;
    } else {
        print(&out)?;
    }
    if missing.is_empty() {
        return Ok(Exit::Ok);
    }
    let text = format!(
        "{}; `posttls mandatory list` shows the list",
        missing.join(". ")
    );
    Err(AdminError::new(Exit::NotFound, text))
}

fn show(store: &Store, options: &List) -> Done {
    let list = if options.all {
        store.mandatory_history()?
    } else {
        store.mandatory_domains()?
    };
    if options.json {
        let lines = list.into_iter().map(|domain| Line {
            unicode: domain.domain.unicode(),
            domain,
        });
        print_json(&lines.collect::<Vec<_>>())?;
        return Ok(Exit::Ok);
    }
    let mut out = String::new();
    if list.is_empty() {
        out.push_str("No mandatory domains.\n");
    }
    for one in &list {
        let by = |at: i64, by: &str| format!("{} by {}", clock(at), text::shown(by));
        let _ = write!(
            out,
            "{}  added {}",
            both(&one.domain),
            by(one.added_at, &one.added_by)
        );
        if let Some(at) = one.removed_at {
            let who = one.removed_by.as_deref().unwrap_or_default();
            let _ = write!(out, ", removed {}", by(at, who));
        }
        out.push('\n');
    }
    print(&out)?;
    Ok(Exit::Ok)
}
