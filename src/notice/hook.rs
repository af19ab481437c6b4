//! `posttls-pipe`: what pipe(8) runs for each delay notice.
//!
//! The contract with Postfix (pipe(8), DIAGNOSTICS): exit 0 and the notice is done with; exit 75 or death by a signal
//! and Postfix delivers it again later; **anything else and Postfix bounces it**. So this program ends in three ways
//! only: 0, 75, or a signal (see [`abort_on_panic`]). It ends well before pipe(8) loses patience, and it never
//! keeps more than `MAX_NOTICE` octets in memory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::Parser;
use fail::fail_point;
use log::{error, info, warn};

use super::{Delivery, Notice, NoticeRecipient, origin, parse};
use crate::address::Address;
use crate::case::store::{Claim, Store, StoreError};
use crate::case::{Case, CaseId, MessageKey, RecipientState, Source};
use crate::config::{Config, ConfigError};
use crate::exit::{self, Exit, abort_on_panic};
use crate::intake::{self, Deferred, Found};
use crate::link::{KeyFileError, Keys};
use crate::notify::{self, SendError};
use crate::postfix::QueueId;
use crate::{logging, text};

/// Octets of the longest notice that is read: about 30,000 deferred recipients.
const MAX_NOTICE: u64 = 16 * 1024 * 1024;

/// pipe(8) kills the hook after `posttls_time_limit`, 120 seconds in postfix-conf/encrypt-main.cf: end well before it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// A claim older than this is that of a process that died: pipe(8) lets none live that long.
const STALE_CLAIM_MS: i64 = 150_000;

/// Seconds that a message is expected to stay queued when its notice does not say: Postfix's default five days.
const USUAL_LIFETIME: i64 = 5 * 86_400;

/// Receives one of Postfix's delay notices on standard input, records the case, and writes to the sender.
///
/// Run by pipe(8) as master.cf.example shows, not by hand.
#[derive(Debug, Parser)]
#[command(name = "posttls-pipe", version)]
struct Arguments {
    /// The configuration file.
    #[arg(
        long,
        default_value = "/etc/posttls/posttls.toml",
        env = "POSTTLS_CONFIG"
    )]
    config: PathBuf,
    /// `${client_address}`: empty for mail that Postfix made itself.
    #[arg(long, allow_hyphen_values = true)]
    client: String,
    /// `${sender}`: the envelope sender of the notice.
    #[arg(long, allow_hyphen_values = true)]
    sender: String,
    /// `${queue_id}` of the notice itself.
    #[arg(long)]
    queue_id: QueueId,
    /// The instance's `double_bounce_sender`.
    #[arg(long, default_value = "double-bounce")]
    double_bounce: String,
}

/// What stands in the way now, and may not do so later.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error("cannot read the notice from standard input: {0}")]
    Input(io::Error),
    #[error("{path}: cannot read the template: {source}; see notification.template_dir")]
    Template { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("another posttls-pipe is writing to the sender")]
    Elsewhere,
    #[error("the case {0} has vanished from the store")]
    Vanished(CaseId),
}

/// Runs the hook with the arguments of this process.
pub fn main() -> Exit {
    abort_on_panic();
    // The crash tests name their points in the environment variable FAILPOINTS.
    #[cfg(feature = "failpoints")]
    let _points = fail::FailScenario::setup();
    // A wrong master.cf is one that an admin can mend while notices wait.
    let arguments: Arguments = match exit::arguments(Exit::TryAgain) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    // A thread of its own, because what hangs may be any system call.
    thread::spawn(|| {
        thread::sleep(DEADLINE);
        error!(
            "gave up after {} s; Postfix will deliver the notice again",
            DEADLINE.as_secs()
        );
        std::process::exit(75);
    });
    match receive(&arguments) {
        Ok(()) => Exit::Ok,
        Err(trouble) => {
            // pipe(8) puts standard error into the log and into `mailq`.
            eprintln!("{trouble}");
            error!(
                "{}: notice kept by Postfix for another try: {trouble}",
                arguments.queue_id
            );
            Exit::TryAgain
        }
    }
}

fn receive(arguments: &Arguments) -> Result<(), Trouble> {
    let config = Config::load(&arguments.config)?;
    logging::start("posttls/pipe", &config.log.target);
    let mut raw = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_NOTICE)
        .read_to_end(&mut raw)
        .map_err(Trouble::Input)?;
    let store = Store::open(&config.store.path, false)?;
    let id = &arguments.queue_id;
    let odd = |why: String| {
        warn!(
            "{id}: not a notice that can be used, kept in the table odd_notices of the store: {why}"
        );
        store
            .keep_odd_notice(id.as_str(), &why, &raw)
            .map_err(Trouble::from)
    };
    let delivery = Delivery {
        client: &arguments.client,
        sender: &arguments.sender,
        queue_id: id,
        double_bounce: &arguments.double_bounce,
    };
    if let Err(forged) = origin::check(&raw, &delivery) {
        return odd(format!("not made by Postfix itself: {forged}"));
    }
    let notice = match parse(&raw) {
        Ok(notice) => notice,
        Err(error) => return odd(error.to_string()),
    };
    for skipped in &notice.skipped {
        warn!(
            "{}: to=<{}>, passed over: {}",
            notice.queue_id, skipped.recipient, skipped.reason
        );
    }
    if is_own(&notice, &arguments.double_bounce) {
        info!(
            "{}: a delayed notice of Postfix's own, nobody to ask",
            notice.queue_id
        );
        return Ok(());
    }
    let case = open(&store, &config, &notice)?;
    fail_point!("hook::recorded");
    write_to_sender(&store, &config, case)
}

/// Is the delayed message one that Postfix made to inform us, or an admin?
fn is_own(notice: &Notice, double_bounce: &str) -> bool {
    let local = notice
        .sender
        .as_ref()
        .and_then(|sender| sender.as_str().rsplit_once('@'))
        .map(|(local, _)| local);
    local == Some(double_bounce)
}

/// Records the case.
fn open(store: &Store, config: &Config, notice: &Notice) -> Result<CaseId, Trouble> {
    let recipients = &notice.recipients;
    let found = Found {
        key: MessageKey {
            queue_id: notice.queue_id.clone(),
            sender: notice.sender.clone(),
            arrival: notice.arrival,
        },
        subject: notice.original.subject.clone().unwrap_or_default(),
        message_id: notice.original.message_id.clone(),
        retry_until: recipients.iter().filter_map(|one| one.retry_until).min(),
        source: Source::Notice,
        held: false,
        deferred: recipients.iter().map(deferred).collect(),
    };
    Ok(intake::admit(store, config, &found)?.case)
}

fn deferred(recipient: &NoticeRecipient) -> Deferred {
    let detail = recipient.diagnostic.as_ref().map(|one| one.text.clone());
    Deferred {
        address: recipient.address.clone(),
        failure: recipient.failure(),
        status: recipient.status.clone(),
        detail: detail.unwrap_or_default(),
    }
}

/// Writes to the sender, unless that was done, or nobody is to be asked.
fn write_to_sender(store: &Store, config: &Config, id: CaseId) -> Result<(), Trouble> {
    let case = store.case(id)?.ok_or(Trouble::Vanished(id))?;
    let Some(sender) = &case.key.sender else {
        info!("{}: from=<>, nobody to ask", case.key.queue_id);
        return Ok(());
    };
    let recipients = store.recipients(id)?;
    if !recipients
        .iter()
        .any(|recipient| recipient.state == RecipientState::Open)
    {
        info!(
            "{}: from=<{sender}>, nothing to ask yet, watched",
            case.key.queue_id
        );
        return Ok(());
    }
    match store.claim_notification(id, STALE_CLAIM_MS)? {
        Claim::Yours => {}
        Claim::Sent => {
            info!("{}: from=<{sender}>, was told before", case.key.queue_id);
            return Ok(());
        }
        Claim::Elsewhere => return Err(Trouble::Elsewhere),
    }
    let result = deliver(store, config, &case, sender, &recipients);
    if let Err(trouble) = &result {
        store.release_claim(id, &trouble.to_string())?;
    }
    result
}

fn deliver(
    store: &Store,
    config: &Config,
    case: &Case,
    sender: &Address,
    recipients: &[crate::case::Recipient],
) -> Result<(), Trouble> {
    let queue_id = &case.key.queue_id;
    let keys = Keys::load(&config.link.key_file)?;
    let until = case
        .retry_until
        .unwrap_or(case.key.arrival + USUAL_LIFETIME);
    let token = keys.sign(case.id, until + i64::from(config.link.valid_days) * 86_400);
    let url = config.case_url(&token);
    let overrides = templates(&config.notification.template_dir)?;
    let given_up = |why: String| {
        error!("{queue_id}: from=<{sender}>, the sender can't be told: {why}");
        store.release_claim(case.id, &why).map_err(Trouble::from)
    };
    let compose = |overrides: &BTreeMap<String, String>| {
        notify::compose(
            case,
            sender,
            recipients,
            &url,
            &text::moment,
            &config.notification,
            overrides,
        )
    };
    // The sender must hear even when the admin's own template is broken.
    let composed = compose(&overrides).or_else(|error| {
        error!("{queue_id}: {error}; using the built-in templates");
        compose(&BTreeMap::new())
    });
    let letter = match composed {
        Ok(letter) => letter,
        Err(error) => return given_up(error.to_string()),
    };
    fail_point!("hook::claimed");
    match notify::send(&letter, &config.notification) {
        Ok(()) => {}
        Err(error) if error.is_permanent() => return given_up(error.to_string()),
        Err(error) => return Err(error.into()),
    }
    info!(
        "{queue_id}: from=<{sender}>, notified, relay={}:{}",
        config.notification.smtp_host, config.notification.smtp_port
    );
    // The sender has it: to try again because this fails would only write twice.
    if let Err(error) = store.mark_notified(case.id, sender) {
        warn!("{queue_id}: the notification was sent, but that could not be recorded: {error}");
    }
    Ok(())
}

/// The admin's own templates, by file name.
fn templates(directory: &Path) -> Result<BTreeMap<String, String>, Trouble> {
    let mut found = BTreeMap::new();
    if directory.as_os_str().is_empty() {
        return Ok(found);
    }
    for (name, _) in notify::TEMPLATES {
        let path = directory.join(name);
        match fs::read_to_string(&path) {
            Ok(source) => drop(found.insert(name.to_owned(), source)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Trouble::Template { path, source }),
        }
    }
    Ok(found)
}
