//! `posttls release` and `posttls delete`: decisions in the sender's place.
//!
//! The running mover carries them out. When none is running, this process becomes the mover for a moment, under the
//! same lock, so that there is never more than one.

use std::path::Path;
use std::sync::Arc;

use log::warn;
use serde::Serialize;

use super::cases::no_case;
use super::who::who;
use super::{AdminError, DecideOptions, Done, print, print_json};
use crate::case::store::Store;
use crate::case::{Action, Case, CaseState, Failure, Outcome};
use crate::config::Config;
use crate::domain::Domain;
use crate::exit::Exit;
use crate::link::Keys;
use crate::logging;
use crate::mover::control::{self, Order, Report};
use crate::mover::{Desk, Engine, reconcile};
use crate::postfix::Instance;

#[derive(Serialize)]
struct Line {
    recipient: String,
    outcome: Outcome,
}

pub(super) fn run(options: &DecideOptions, action: Action, config: &Path) -> Done {
    let config = Config::load(config)?;
    let store = Arc::new(Store::open(&config.store.path, false)?);
    let case = newest(&store, options)?;
    let by = who();
    let order = Order {
        case: case.id,
        action,
        recipients: options.recipients.clone(),
        by,
        override_policy: options.override_policy && action == Action::Send,
    };
    let report = match control::ask(&config.mover.run_dir, &order)? {
        Some(report) => report,
        None => by_myself(&config, Arc::clone(&store), &order)?,
    };
    let results = match report {
        Report::Done(results) => results,
        Report::Refused(why) => {
            return Err(AdminError::new(
                Exit::NotFound,
                format!("{}: {why}", options.queue_id),
            ));
        }
    };
    let wanted = if action == Action::Send {
        Outcome::Released
    } else {
        Outcome::Deleted
    };
    let good = |outcome: Outcome| outcome == wanted || outcome == Outcome::Recorded;
    if options.json {
        let lines = results.iter().map(|(recipient, outcome)| Line {
            recipient: recipient.as_str().to_owned(),
            outcome: *outcome,
        });
        print_json(&lines.collect::<Vec<_>>())?;
    } else if results.is_empty() {
        print(&format!(
            "{}: no recipient waits for a decision.\n",
            options.queue_id
        ))?;
    } else {
        for (recipient, outcome) in &results {
            let listed = match Domain::nearest(recipient) {
                Some(domain) if *outcome == Outcome::NotPossible && action == Action::Send => {
                    store.mandatory_for(&domain)?
                }
                _ => None,
            };
            let case = store.recipients(case.id)?;
            let demanded = case
                .iter()
                .any(|one| one.address == *recipient && one.failure == Failure::Policy);
            let said = listed.map_or_else(
                || {
                    if demanded && *outcome == Outcome::NotPossible {
                        "not done: a policy of yours demands TLS there (`posttls case`); --override-policy sends it all the same".to_owned()
                    } else {
                        words(*outcome).to_owned()
                    }
                },
                |domain| {
                    format!(
                        "not done: {domain} must be reached over TLS (`posttls mandatory list`)"
                    )
                },
            );
            print(&format!("{}: to=<{recipient}>: {said}\n", options.queue_id))?;
        }
    }
    let all_good = !results.is_empty() && results.iter().all(|(_, outcome)| good(*outcome));
    Ok(if all_good { Exit::Ok } else { Exit::Failure })
}

/// The case of the message that has the queue ID now: an open one before an older one of the same ID.
fn newest(store: &Store, options: &DecideOptions) -> Result<Case, AdminError> {
    let cases = store.cases_of(&options.queue_id)?;
    let open = cases.iter().find(|case| case.state == CaseState::Open);
    open.or(cases.first())
        .cloned()
        .ok_or_else(|| no_case(&options.queue_id))
}

fn by_myself(config: &Config, store: Arc<Store>, order: &Order) -> Result<Report, AdminError> {
    logging::start("posttls/admin", &config.log.target);
    let encrypt = Instance::load(&config.encrypt.config_dir)?;
    let may = Instance::load(&config.may.config_dir)?;
    let _lock = control::lock(&config.mover.run_dir, &may.queue_directory)?;
    // As when the mover starts: a queue that can't be listed must not stop an order about another message. What it may
    // have hidden is on hold, and waits as what an administrator holds does.
    if let Err(why) = reconcile(&store, &encrypt, &may) {
        warn!("{why}; the hold queues are not compared with the journal now");
    }
    let engine = Arc::new(Engine::new(
        Arc::clone(&store),
        encrypt,
        may,
        &config.encrypt.remote_hosts,
    ));
    let keys = Keys::load(&config.link.key_file)?;
    let desk = Desk::new(Arc::clone(&store), engine, keys, config);
    for (id, case) in store.unfinished_moves()? {
        // One that can't go on now, whatever the reason, must not stop this order.
        if let Err(why) = desk.retry(id, case) {
            warn!("{why}");
        }
    }
    Ok(control::carry_out(order, &desk))
}

fn words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Released => "handed to the may instance",
        Outcome::Deleted => "deleted",
        Outcome::Kept => "left with the encrypt instance",
        Outcome::Recorded => {
            "recorded; it is carried out as soon as the message can be moved (see the log)"
        }
        Outcome::AlreadyDelivered => "not done: delivered securely in the meantime",
        Outcome::AlreadyReturned => "not done: returned to the sender in the meantime",
        Outcome::AlreadyGone => "not done: no longer in the queue",
        Outcome::AlreadyDecided => "not done: decided before (see `posttls case`)",
        Outcome::NotPossible => {
            "not done: this failure must not be sent unencrypted, or has nothing to do with TLS"
        }
        Outcome::Changed => "not done: its failure is another one by now (see `posttls case`)",
    }
}
