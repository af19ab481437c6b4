//! `posttls test`: what PostTLS would do with a failure for a sender and a recipient, and why. Changes nothing.
//!
//! The policy itself is asked, through [`crate::intake::judge`], which is the way that real failures take.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::{AdminError, Done, print, print_json};
use crate::address::Address;
use crate::case::policy::Ground;
use crate::case::store::{Consent, Store};
use crate::case::{Action, Asked, Failure, RecipientState};
use crate::config::{Config, SenderPattern, Unasked};
use crate::exit::Exit;
use crate::intake::{self, Judged};
use crate::mover::{Envelope, Ways};
use crate::postfix::Instance;
use crate::standing::Standing;
use crate::text;

#[derive(Debug, Args)]
pub(super) struct TestOptions {
    /// The recipient's address.
    recipient: Address,
    /// The envelope sender; "<>" is the null sender. Without it: a sender of the first domain in senders.internal.
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// Only this kind of failure.
    #[arg(long, value_parser = |text: &str| text.parse::<Failure>(), value_name = "KIND")]
    #[arg(
        help = "Only this kind of failure: not-offered, refused, handshake-failed, certificate, local-fault, \
                  require-tls, policy, unjudged or not-tls"
    )]
    failure: Option<Failure>,
    /// Print JSON: an array with an object for each kind of failure.
    #[arg(long)]
    json: bool,
}

/// What would be done about one kind of failure.
#[derive(Debug, Serialize)]
struct Answer {
    failure: Failure,
    /// "sender" or "nobody".
    asked: Asked,
    /// May it be sent unencrypted, if somebody who may decide wants that?
    may_send: bool,
    /// What is done at once.
    action: Option<Action>,
    /// What may be chosen, by the sender or, when nobody is asked, by an admin.
    choices: Vec<Action>,
    /// What follows, in words.
    what: String,
    /// What decides that: a key of the configuration, or an entry of a list.
    why: String,
}

pub(super) fn run(options: &TestOptions, config: &Path) -> Done {
    let config = Config::load(config)?;
    let store = Store::open(&config.store.path, false)?;
    let sender = sender(options, &config)?;
    let kinds = match &options.failure {
        Some(kind) => vec![*kind],
        None => Failure::ALL.to_vec(),
    };
    let standing = standing(&config, sender.as_ref(), &options.recipient);
    let mut answers = Vec::with_capacity(kinds.len());
    for failure in kinds {
        let judged = intake::judge(
            &store,
            &config,
            sender.as_ref(),
            config.senders.judge(sender.as_ref(), false),
            &options.recipient,
            failure,
            &standing,
        )?;
        let consent = match judged.consent {
            Some(id) => store.consent(id)?,
            None => None,
        };
        answers.push(answer(
            failure,
            &judged,
            &standing,
            consent.as_ref(),
            sender.as_ref(),
            &config,
        ));
    }
    if options.json {
        print_json(&answers)?;
        return Ok(Exit::Ok);
    }
    let from = sender.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut out = format!("from=<{from}>, to=<{}>\n", options.recipient);
    for answer in &answers {
        // What is written to a text can't fail.
        let _ = write!(
            out,
            "{:17} {}\n{:17} {}\n",
            answer.failure, answer.what, "", answer.why
        );
    }
    print(&out)?;
    Ok(Exit::Ok)
}

/// The sender that is asked about. `None` is the null sender.
fn sender(options: &TestOptions, config: &Config) -> Result<Option<Address>, AdminError> {
    match options.sender.as_deref().map(str::trim) {
        Some("" | "<>") => Ok(None),
        Some(text) => {
            let bare = text
                .strip_prefix('<')
                .and_then(|rest| rest.strip_suffix('>'));
            let address = bare.unwrap_or(text).parse::<Address>();
            address
                .map(Some)
                .map_err(|error| AdminError::new(Exit::Usage, format!("--sender: {error}")))
        }
        None => {
            let example = config
                .senders
                .internal
                .first()
                .map(|pattern| match pattern {
                    SenderPattern::Everybody => "somebody@example.org".to_owned(),
                    SenderPattern::Domain(domain) => format!("somebody@{domain}"),
                    SenderPattern::Below(domain) => format!("somebody@sub.{domain}"),
                    SenderPattern::Address(local, domain) => format!("{local}@{domain}"),
                });
            let example = example.ok_or_else(|| {
                let text =
                    "senders.internal is empty, so no sender is asked: give --sender ADDRESS";
                AdminError::new(Exit::Usage, text)
            })?;
            Ok(Some(example.parse()?))
        }
    }
}

/// What Postfix's tables have for the recipient now.
fn standing(config: &Config, sender: Option<&Address>, recipient: &Address) -> Standing {
    match Instance::load(&config.encrypt.config_dir) {
        Ok(instance) => Ways::patient(&config.encrypt.remote_hosts).standing(
            &instance,
            &Envelope::default(),
            sender.map_or("", Address::as_str),
            recipient,
            None,
        ),
        Err(error) => Standing::Unknown(error.to_string()),
    }
}

fn answer(
    failure: Failure,
    judged: &Judged,
    standing: &Standing,
    consent: Option<&Consent>,
    sender: Option<&Address>,
    config: &Config,
) -> Answer {
    let verdict = judged.verdict;
    let kind = judged.failure;
    let why = why(kind, judged, consent, sender, config);
    // What its words would mean elsewhere does not count here.
    let why = match standing.remark() {
        Some(remark) if kind != failure => format!("{kind}: {remark}; {why}"),
        _ => why,
    };
    let action = verdict.action.map(|(action, _)| action);
    let settled = matches!(action, Some(Action::Send | Action::Delete));
    let mut choices = Vec::new();
    if !settled && kind.is_senders_matter() {
        if verdict.may_send {
            choices.push(Action::Send);
        }
        choices.extend([Action::Delete, Action::Keep]);
    }
    Answer {
        failure,
        asked: if kind.is_senders_matter() {
            judged.asked
        } else {
            Asked::Nobody
        },
        may_send: verdict.may_send,
        action,
        what: what(kind, judged, &choices),
        why,
        choices,
    }
}

fn what(failure: Failure, judged: &Judged, choices: &[Action]) -> String {
    let names: Vec<&str> = choices.iter().map(|action| action.as_str()).collect();
    let names = names.join(", ");
    match (judged.verdict.action, judged.asked) {
        (None, _) if failure == Failure::LocalFault => {
            "nobody is asked; Postfix keeps trying; the admin is told at once".to_owned()
        }
        (None, _) if failure == Failure::NotTls => {
            "nobody is asked; Postfix keeps trying, and the message is watched".to_owned()
        }
        (None, _) if judged.verdict.state == RecipientState::NotOffered => {
            "nobody is asked until it can be judged; Postfix keeps trying".to_owned()
        }
        (None, _) => format!("the sender is asked, and may choose: {names}"),
        (Some((Action::Send, _)), Asked::Sender) => {
            "sent unencrypted at once; the sender is told".to_owned()
        }
        (Some((Action::Send, _)), Asked::Nobody) => {
            "sent unencrypted at once; nobody is told".to_owned()
        }
        (Some((Action::Delete, _)), Asked::Sender) => {
            "deleted at once; the sender is told".to_owned()
        }
        (Some((Action::Delete, _)), Asked::Nobody) => "deleted at once; nobody is told".to_owned(),
        (Some((Action::Keep, _)), _) => {
            let told = if judged.unasked == Unasked::Tell {
                "; the admin is told"
            } else {
                ""
            };
            format!("nobody is asked; Postfix keeps trying{told}; an admin may choose: {names}")
        }
    }
}

fn why(
    failure: Failure,
    judged: &Judged,
    consent: Option<&Consent>,
    sender: Option<&Address>,
    config: &Config,
) -> String {
    let not_ours = || match sender {
        None => format!(
            "mail of the null sender: senders.null = {:?}",
            name(config.senders.null)
        ),
        Some(address) if config.senders.is_internal(sender) => format!(
            "<{address}> looks like a mailing list or a program: senders.automatic = {:?}",
            name(judged.unasked)
        ),
        Some(sender) => format!(
            "<{sender}> is not in senders.internal: senders.external = {:?}",
            name(config.senders.external)
        ),
    };
    let mandatory = || {
        let domain = judged
            .mandatory
            .as_ref()
            .map_or("", |domain| domain.as_str());
        format!("{domain} is a mandatory domain (`posttls mandatory list`)")
    };
    match judged.verdict.ground {
        Ground::NotTls => "the failure has nothing to do with TLS".to_owned(),
        Ground::LocalFault => "the fault is on our side, and no sender can answer that".to_owned(),
        Ground::Unjudged => "it is judged as soon as that can be found out".to_owned(),
        Ground::Mandatory if judged.asked == Asked::Nobody => {
            format!("{}; {}", mandatory(), not_ours())
        }
        Ground::Mandatory => mandatory(),
        Ground::Unasked => {
            let own = not_ours();
            if judged.unasked == Unasked::Release && !judged.verdict.may_send {
                format!("{own}; but {}", not_offered(failure))
            } else {
                own
            }
        }
        Ground::MayNotGo => not_offered(failure),
        Ground::Consent => consent.map_or_else(
            || "by a remembered choice of the sender".to_owned(),
            |consent| {
                format!(
                    "by remembered choice {} of <{}> for the {} {}, until {} (`posttls consents list`)",
                    consent.id.0,
                    consent.sender,
                    consent.scope,
                    text::shown(&consent.target),
                    text::moment(consent.expires_at / 1000)
                )
            },
        ),
        Ground::Asked => format!(
            "{}; {failure} is in offer.failures",
            sender.map_or_else(String::new, |sender| pattern(sender, config))
        ),
    }
}

fn not_offered(failure: Failure) -> String {
    if failure.can_be_offered() {
        format!("{failure} is not in offer.failures")
    } else {
        format!("{failure} is never answered with plain text")
    }
}

/// The entry of senders.internal that makes the sender one of ours.
fn pattern(sender: &Address, config: &Config) -> String {
    let found = config
        .senders
        .internal
        .iter()
        .find(|entry| entry.matches(sender));
    let entry = match found {
        Some(SenderPattern::Everybody) => "*".to_owned(),
        Some(SenderPattern::Domain(domain)) => domain.to_string(),
        Some(SenderPattern::Below(domain)) => format!(".{domain}"),
        Some(SenderPattern::Address(local, domain)) => text::shown(&format!("{local}@{domain}")),
        None => return format!("<{sender}> is asked"),
    };
    format!("<{sender}> is in senders.internal ({entry:?})")
}

/// As it stands in the configuration.
fn name(unasked: Unasked) -> &'static str {
    match unasked {
        Unasked::Keep => "keep",
        Unasked::Release => "release",
        Unasked::Delete => "delete",
        Unasked::Tell => "tell",
    }
}
