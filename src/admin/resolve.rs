//! `posttls resolve`: a move that was stopped in the middle, as somebody changed one of the two messages by hand.
//!
//! PostTLS touches neither message any more. This shows what is where, and records that an admin has settled it.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

use clap::Args;

use super::cases::no_case;
use super::who::who;
use super::{AdminError, Done, print};
use crate::case::store::Store;
use crate::config::Config;
use crate::exit::Exit;
use crate::octets;
use crate::postfix::{Instance, QueueFile, QueueId};
use crate::text;

#[derive(Debug, Args)]
pub(super) struct ResolveOptions {
    /// Queue ID in the encrypt instance.
    queue_id: QueueId,
    /// Record that you have settled it: what is in the two queues now is as it should be. Without this, only show.
    #[arg(long)]
    settled: bool,
}

pub(super) fn run(options: &ResolveOptions, config: &Path) -> Done {
    let config = Config::load(config)?;
    let store = Store::open(&config.store.path, false)?;
    let cases = store.cases_of(&options.queue_id)?;
    if cases.is_empty() {
        return Err(no_case(&options.queue_id));
    }
    let id = &options.queue_id;
    let mut out = String::new();
    let mut stopped = 0;
    for case in &cases {
        for (number, copy) in store.conflicts(case.id)? {
            stopped += 1;
            if options.settled {
                continue;
            }
            let encrypt = Instance::load(&config.encrypt.config_dir)?;
            let may = Instance::load(&config.may.config_dir)?;
            // What is written to a text can't fail.
            let _ = writeln!(out, "{id}: move {} is stopped:", number.0);
            for event in store.events(case.id)? {
                if event.what == "conflict" {
                    let _ = writeln!(out, "    {}", text::shown(&event.detail));
                }
            }
            for recipient in store
                .load_move(number)?
                .map_or_else(Vec::new, |m| m.recipients)
            {
                let _ = writeln!(out, "    to=<{}>: {}", recipient.address, recipient.action);
            }
            let _ = writeln!(out, "    encrypt instance, {id}: {}", place(&encrypt, id)?);
            let copied = match copy.as_deref().map(str::parse::<QueueId>) {
                Some(Ok(name)) => format!("{name}: {}", place(&may, &name)?),
                _ => "no copy was made".to_owned(),
            };
            let _ = writeln!(out, "    may instance, {copied}");
        }
    }
    if stopped == 0 {
        print(&format!("{id}: no move is stopped.\n"))?;
        return Ok(Exit::Ok);
    }
    if options.settled {
        let by = who();
        for case in &cases {
            store.resolve_conflicts(case.id, &by)?;
        }
        out = format!("{id}: recorded as settled.\n");
    } else {
        out += &format!(
            "Release, delete or keep these by postsuper, so that each recipient is served once. Then: posttls resolve {id} --settled\n"
        );
    }
    print(&out)?;
    Ok(Exit::Ok)
}

/// The queue that a message is in, and who still waits in it.
fn place(instance: &Instance, id: &QueueId) -> Result<String, AdminError> {
    let Some(queue) = instance.find(id)? else {
        return Ok("not in a queue".to_owned());
    };
    let path = instance.path(queue, id);
    let waiting = File::open(&path)
        .map_err(|error| error.to_string())
        .and_then(|file| {
            let content = QueueFile::read(file).map_err(|error| error.to_string())?;
            let names = content
                .pending()
                .map(|recipient| format!("<{}>", text::shown(&octets::text(&recipient.bytes))));
            Ok(names.collect::<Vec<_>>().join(", "))
        });
    Ok(match waiting {
        Ok(names) if names.is_empty() => format!("in {}, for nobody", queue.as_str()),
        Ok(names) => format!("in {}, for {names}", queue.as_str()),
        Err(why) => format!("in {}; {why}", queue.as_str()),
    })
}
