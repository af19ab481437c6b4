//! `posttls cases` and `posttls case`: what the store knows.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::{AdminError, Done, print, print_json};
use crate::case::store::{Event, Store};
use crate::case::{Asked, Case, CaseState, Passage, Recipient, Source, Written};
use crate::config::Config;
use crate::exit::Exit;
use crate::postfix::QueueId;
use crate::text;

#[derive(Debug, Args)]
pub(super) struct CasesOptions {
    /// Cases in another state than open.
    #[arg(long, value_parser = |text: &str| text.parse::<CaseState>(), value_name = "open|watched|closed")]
    state: Option<CaseState>,
    /// Cases in every state.
    #[arg(long, conflicts_with = "state")]
    all: bool,
    /// Print JSON: an array of cases with their recipients.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CaseOptions {
    /// Queue ID in the encrypt instance, as `mailq` shows it.
    queue_id: QueueId,
    /// Print JSON: the case with recipients and events.
    #[arg(long)]
    json: bool,
}

/// A case as JSON shows it.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    case: Case,
    recipients: Vec<Recipient>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<Event>>,
    /// What keeps a decision from being carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    hindered: Option<String>,
}

pub(super) fn list(options: &CasesOptions, config: &Path) -> Done {
    let store = open(config)?;
    let state = if options.all {
        None
    } else {
        Some(options.state.unwrap_or(CaseState::Open))
    };
    let mut found = Vec::new();
    for case in store.cases(state)? {
        found.push(Whole {
            recipients: store.recipients(case.id)?,
            case,
            events: None,
            hindered: None,
        });
    }
    if options.json {
        print_json(&found)?;
        return Ok(Exit::Ok);
    }
    let odd = store.odd_notices()?.len();
    let mut out = String::new();
    if found.is_empty() {
        let what = state.map_or("", CaseState::as_str);
        let _ = writeln!(out, "No {what} cases.");
    }
    for Whole {
        case, recipients, ..
    } in &found
    {
        let _ = writeln!(out, "{}", headline(case));
        for recipient in recipients {
            let _ = writeln!(out, "    {}", line(recipient));
        }
    }
    if odd > 0 {
        let _ = writeln!(
            out,
            "Notices that could not be used: {odd}. They are in the table odd_notices of the store, with the reason."
        );
    }
    print(&out)?;
    Ok(Exit::Ok)
}

pub(super) fn show(options: &CaseOptions, config: &Path) -> Done {
    let store = open(config)?;
    let cases = store.cases_of(&options.queue_id)?;
    if cases.is_empty() {
        return Err(no_case(&options.queue_id));
    }
    let mut found = Vec::new();
    for case in cases {
        found.push(Whole {
            recipients: store.recipients(case.id)?,
            events: Some(store.events(case.id)?),
            hindered: store.hindrance(case.id)?,
            case,
        });
    }
    if options.json {
        // The newest one: that of the message that has the queue ID now.
        print_json(&found[0])?;
        return Ok(Exit::Ok);
    }
    let mut out = String::new();
    for Whole {
        case,
        recipients,
        events,
        hindered,
    } in &found
    {
        let _ = writeln!(out, "{}", headline(case));
        if case.redacted_at.is_none() {
            let _ = writeln!(out, "    subject: {}", text::readable(&case.subject, 100));
        }
        if let Some(until) = case.retry_until
            && case.state != CaseState::Closed
        {
            let _ = writeln!(
                out,
                "    Postfix keeps trying until {}",
                text::moment(until)
            );
        }
        if let Some(at) = case.held_at.filter(|_| case.state != CaseState::Closed) {
            let _ = writeln!(
                out,
                "    ON HOLD by an administrator since {}: decisions wait until it is let go (postsuper -H {})",
                clock(at),
                case.key.queue_id
            );
        }
        for recipient in recipients {
            let _ = writeln!(out, "    {}", line(recipient));
            let _ = writeln!(
                out,
                "        {} {}",
                recipient.status,
                text::readable(&recipient.detail, 200)
            );
            if let Some(detail) = &recipient.passage_detail {
                let _ = writeln!(out, "        may instance: {}", text::readable(detail, 200));
            }
        }
        for event in events.iter().flatten() {
            let recipient = if event.recipient.is_empty() {
                String::new()
            } else {
                format!(" <{}>", text::shown(&event.recipient))
            };
            let _ = writeln!(
                out,
                "    {} {}{recipient}: {}",
                clock(event.at),
                event.what,
                text::shown(&event.detail)
            );
        }
        if let Some(why) = hindered {
            let _ = writeln!(out, "    NOT CARRIED OUT YET: {}", text::shown(why));
        }
        for (id, copy) in store.conflicts(case.id)? {
            let copy = copy.unwrap_or_else(|| "none".to_owned());
            let _ = writeln!(
                out,
                "    move {} is stopped for you to look at (posttls resolve {}); its copy for the may instance: {copy}",
                id.0, case.key.queue_id
            );
        }
    }
    print(&out)?;
    Ok(Exit::Ok)
}

pub(super) fn open(config: &Path) -> Result<Store, AdminError> {
    let config = Config::load(config)?;
    Ok(Store::open(&config.store.path, false)?)
}

pub(super) fn no_case(queue_id: &QueueId) -> AdminError {
    let text = format!(
        "{queue_id}: PostTLS has no case of this queue ID; `posttls cases --all` lists what it has"
    );
    AdminError::new(Exit::NotFound, text)
}

fn headline(case: &Case) -> String {
    let sender = match (&case.key.sender, case.redacted_at) {
        (Some(_), Some(_)) => "removed",
        (Some(sender), None) => &sender.to_string(),
        (None, _) => "",
    };
    let told = match (case.asked, case.notified_at) {
        (Asked::Nobody, _) => "nobody is asked".to_owned(),
        (Asked::Sender, None) => "not notified".to_owned(),
        (Asked::Sender, Some(at)) => format!("notified {}", clock(at)),
    };
    let why = match &case.closed_why {
        Some(why) if case.state == CaseState::Closed => format!(" ({})", text::shown(why)),
        _ => String::new(),
    };
    let found = match case.source {
        Source::Notice => String::new(),
        source => format!(", found by {source}"),
    };
    let redacted = case.redacted_at.map_or_else(String::new, |at| {
        format!(", personal data removed {}", clock(at))
    });
    let held = match case.held_at {
        Some(_) if case.state != CaseState::Closed => ", on hold by an administrator",
        _ => "",
    };
    format!(
        "{}  {}  from=<{sender}>  {}{why}, {told}{found}{held}{redacted}",
        case.key.queue_id,
        clock(case.key.arrival * 1000),
        case.state
    )
}

fn line(recipient: &Recipient) -> String {
    let note = if recipient.may_send || !recipient.state.is_open() {
        ""
    } else {
        ", may not go unencrypted"
    };
    let passage = recipient.passage.map_or_else(String::new, |passage| {
        let at = recipient.passage_at.map(clock).unwrap_or_default();
        format!(", {} {at}", in_words(passage))
    });
    let written = match &recipient.written {
        Written::Same => String::new(),
        Written::Other(address) => format!(" (written: <{address}>)"),
        Written::Never => " (not written by the sender, who does not see it)".to_owned(),
    };
    format!(
        "to=<{}>{written}  {}, {}{note}{passage}",
        recipient.address, recipient.failure, recipient.state
    )
}

/// What the may instance did, for people.
fn in_words(passage: Passage) -> &'static str {
    match passage {
        Passage::Encrypted => "sent over TLS after all",
        Passage::Clear => "sent unencrypted",
        Passage::Sent => "sent",
        Passage::Deferred => "not sent yet",
        Passage::Returned => "returned to the sender",
        Passage::Removed => "removed from the may instance's queue",
    }
}

/// A time in Unix milliseconds, in the time zone of this host.
pub(super) fn clock(milliseconds: i64) -> String {
    let Ok(timestamp) = Timestamp::from_millisecond(milliseconds) else {
        return "?".to_owned();
    };
    timestamp
        .to_zoned(TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S")
        .to_string()
}
