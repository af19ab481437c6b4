//! `posttls-pipe`: what pipe(8) runs for each delay notice.
//!
//! The contract with Postfix (pipe(8), DIAGNOSTICS): exit 0 and the notice is done with; exit 75 or death by a signal
//! and Postfix delivers it again later; **anything else and Postfix bounces it**. So this program ends in three ways
//! only: 0, 75, or a signal (see [`abort_on_panic`]). It ends well before pipe(8) loses patience, and it never
//! keeps more than `MAX_NOTICE` octets in memory.

use std::io::{self, Read, Write as _};
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Parser;
use fail::fail_point;
use log::{error, info, warn};

use super::classify::POSTFIX;
use super::rehearsal::rehearse;
use super::{Delivery, Forged, Notice, NoticeRecipient, origin, parse};
use crate::case::store::{Store, StoreError};
use crate::case::{CaseId, MessageKey, RecipientState, Source};
use crate::config::{Config, ConfigError};
use crate::confine;
use crate::courier::{self, Told, Writer};
use crate::exit::{self, Exit, abort_on_panic};
use crate::intake::{self, Deferred, Found};
use crate::logging;
use crate::postfix::{Instance, QueueId};
use crate::standing::wire::{self, Asked};
use crate::standing::{Host, Standing};

/// Octets of the longest notice that is read: about 30,000 deferred recipients.
const MAX_NOTICE: u64 = 16 * 1024 * 1024;

/// pipe(8) kills the hook after `posttls_time_limit`, 120 seconds in postfix-conf/encrypt-main.cf: end well before it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

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
    /// The `double_bounce_sender` of the encrypt instance; where a notice has another one, Postfix is asked.
    #[arg(long, default_value = "double-bounce")]
    double_bounce: String,
    /// Only say what would be done with the notice, after a try of the store, the key and the templates; record nothing
    /// and write to nobody. `posttls check` asks so.
    #[arg(long)]
    check: bool,
}

/// What stands in the way now, and may not do so later.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot read the notice from standard input: {0}")]
    Input(io::Error),
    #[error(transparent)]
    Write(#[from] courier::Trouble),
    #[error("another process is writing to the sender about this message")]
    Elsewhere,
    #[error("the case {0} has vanished from the store")]
    Vanished(CaseId),
    #[error("{0}")]
    Rehearsal(String),
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
    let queue_id = arguments.queue_id.clone();
    thread::spawn(move || {
        thread::sleep(DEADLINE);
        let why = format!(
            "gave up after {} s; Postfix will deliver the notice again",
            DEADLINE.as_secs()
        );
        logging::to_stderr(&format!("{why}\n"));
        error!("{queue_id}: {why}");
        std::process::exit(75);
    });
    match receive(&arguments) {
        Ok(()) => Exit::Ok,
        Err(trouble) => {
            // pipe(8) puts standard error into the log and into `mailq`.
            logging::to_stderr(&format!("{trouble}\n"));
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
    if !arguments.check {
        logging::start("posttls/pipe", &config.log.target);
    }
    if let Err(why) = confine::gain_nothing() {
        warn!("cannot give up what I could still gain: {why}");
    }
    let mut raw = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_NOTICE)
        .read_to_end(&mut raw)
        .map_err(Trouble::Input)?;
    let delivery = Delivery {
        client: &arguments.client,
        sender: &arguments.sender,
        queue_id: &arguments.queue_id,
        double_bounce: &arguments.double_bounce,
    };
    if arguments.check {
        let would = rehearse(&raw, &delivery, &config).map_err(Trouble::Rehearsal)?;
        return writeln!(io::stdout(), "{would}").map_err(Trouble::Input);
    }
    // It is left to the end of this process to close it. To take it apart first takes longer, and whoever closes a database
    // last copies all of its write-ahead log: that is the business of posttls-httpd, or of the next commit that finds it long.
    let store = ManuallyDrop::new(Store::open_lazy(&config.store.path)?);
    let id = &arguments.queue_id;
    let odd = |why: String| {
        warn!(
            "{id}: not a notice that can be used, kept in the table odd_notices of the store: {why}"
        );
        store
            .keep_odd_notice(id.as_str(), &why, &raw)
            .and_then(|()| store.sync())
            .map_err(Trouble::from)
    };
    let double_bounce = match believe(&raw, &delivery, &config) {
        Ok(double_bounce) => double_bounce,
        Err(forged) => return odd(format!("not made by Postfix itself: {forged}")),
    };
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
    if is_own(&notice, &double_bounce) {
        info!(
            "{}: a delayed notice of Postfix's own, nobody to ask",
            notice.queue_id
        );
        return Ok(());
    }
    let case = open(&store, &config, &notice)?;
    // Before anybody is told: a link must not be to a case that a power failure takes away again.
    store.sync()?;
    fail_point!("hook::recorded");
    write_to_sender(&store, &config, case)
}

/// Checks that Postfix made it, and gives its `double_bounce_sender`. Postfix is asked for that only where the notice has
/// another one than expected: that takes longer than all the rest.
pub(super) fn believe(
    raw: &[u8],
    delivery: &Delivery<'_>,
    config: &Config,
) -> Result<String, Forged> {
    let forged = match origin::check(raw, delivery) {
        Ok(()) => return Ok(delivery.double_bounce.to_owned()),
        Err(forged) => forged,
    };
    let Forged::Sender { .. } = forged else {
        return Err(forged);
    };
    let Ok(instance) = Instance::load(&config.encrypt.config_dir) else {
        return Err(forged);
    };
    let double_bounce = instance.double_bounce;
    let known = Delivery {
        double_bounce: &double_bounce,
        ..*delivery
    };
    origin::check(raw, &known).map(|()| double_bounce)
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
    let key = MessageKey {
        queue_id: notice.queue_id.clone(),
        sender: notice.sender.clone(),
        arrival: notice.arrival,
    };
    let mut deferred: Vec<Deferred> = recipients.iter().map(deferred).collect();
    ask_the_mover(config, &key, &mut deferred);
    let found = Found {
        key,
        subject: notice.original.subject.clone().unwrap_or_default(),
        message_id: notice.original.message_id.clone(),
        retry_until: recipients.iter().filter_map(|one| one.retry_until).min(),
        source: Source::Notice,
        automatic: notice.original.automatic,
        held: false,
        deferred,
    };
    Ok(intake::admit(store, config, &found)?.case)
}

/// The words of a notice do not tell whether plain text may be offered; the mover can find out, and reads in the queue file
/// which octets a `?` of the notice stands for. Without its answer the recipients are recorded as not judged yet, and it
/// judges them when it can.
fn ask_the_mover(config: &Config, key: &MessageKey, deferred: &mut [Deferred]) {
    let mut doubtful: Vec<&mut Deferred> = deferred
        .iter_mut()
        .filter(|one| one.words.needs_standing() || one.address.as_str().contains('?'))
        .collect();
    let asked: Vec<Asked> = doubtful
        .iter()
        .map(|one| Asked {
            address: one.address.clone(),
            host: one.host.clone(),
        })
        .collect();
    let told = wire::ask(&config.mover.run_dir, key, &asked);
    let unknown = told.iter().find_map(|one| match &one.standing {
        Standing::Unknown(why) => Some(why.clone()),
        _ => None,
    });
    if let Some(why) = unknown {
        let id = &key.queue_id;
        warn!("{id}: not all of it can be judged yet, so nothing of that is offered: {why}");
    }
    for (one, told) in doubtful.iter_mut().zip(told) {
        one.standing = told.standing;
        one.address = told.address;
    }
}

fn deferred(recipient: &NoticeRecipient) -> Deferred {
    let detail = recipient.diagnostic.as_ref().map(|one| one.text.clone());
    let own_words = || {
        let diagnostic = recipient.diagnostic.as_ref();
        diagnostic
            .filter(|one| one.kind == POSTFIX)
            .map(|one| one.text.as_str())
    };
    let reason = recipient.reason.as_deref().or_else(own_words);
    Deferred {
        address: recipient.address.clone(),
        written: recipient.written.clone(),
        words: recipient.failure(),
        host: reason.and_then(Host::named_in),
        standing: Standing::unasked(),
        status: recipient.status.clone(),
        detail: detail.unwrap_or_default(),
    }
}

/// Writes to the sender, unless that was done, or nobody is to be asked, or the limits leave it to the courier.
fn write_to_sender(store: &Store, config: &Config, id: CaseId) -> Result<(), Trouble> {
    let case = store.case(id)?.ok_or(Trouble::Vanished(id))?;
    let queue_id = &case.key.queue_id;
    let Some(sender) = &case.key.sender else {
        info!("{queue_id}: from=<>, nobody to ask");
        return Ok(());
    };
    let recipients = store.recipients(id)?;
    if !recipients
        .iter()
        .any(|recipient| recipient.state == RecipientState::Open)
    {
        info!("{queue_id}: from=<{sender}>, nothing to ask yet, watched");
        return Ok(());
    }
    let writer = Writer::new(store, config)?;
    match writer.tell(sender, &case, || fail_point!("hook::claimed")) {
        // That it was, may be forgotten in a power failure: at most it is told twice.
        Ok(Told::Sent) => return Ok(()),
        Ok(Told::Nothing) => info!("{queue_id}: from=<{sender}>, was told before"),
        Ok(Told::NotNow(why)) => {
            info!("{queue_id}: from=<{sender}>, is told later: {why}");
            writer.raise_ceiling(sender, why)?;
        }
        Ok(Told::Elsewhere) => return Err(Trouble::Elsewhere),
        Err(error) if error.is_permanent() => {
            error!("{queue_id}: from=<{sender}>, the sender can't be told: {error}");
        }
        Err(error) => return Err(error.into()),
    }
    store.sync().map_err(Trouble::from)
}
