//! From what was found stuck to what the store knows: the policy is applied, and what it decides is decided, in one
//! transaction. The hook, the sweep and the census all come this way, so that all judge alike.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use log::{error, info};

use crate::address::Address;
use crate::case::policy::{self, Circumstances, Verdict};
use crate::case::store::handshakes::{self, Suspicion};
use crate::case::store::{Admitted, NewCase, NewRecipient, Store, StoreError};
use crate::case::{
    Actor, Asked, ConsentId, Failure, MessageKey, RecipientState, Source, Written, alert,
};
use crate::config::{Config, Unasked};
use crate::domain::Domain;
use crate::standing::{Host, Standing};
use crate::text;

/// Characters kept of what Postfix or a server said.
const MAX_DETAIL: usize = 500;

/// A message of which recipients were found deferred.
#[derive(Debug, Clone)]
pub struct Found {
    /// The message.
    pub key: MessageKey,
    /// Decoded subject.
    pub subject: String,
    /// `Message-ID` of the original.
    pub message_id: Option<String>,
    /// Until when Postfix keeps trying, in Unix seconds.
    pub retry_until: Option<i64>,
    /// How it was found.
    pub source: Source,
    /// Does its header say that a program sent it?
    pub automatic: bool,
    /// Is it on hold? Then an admin is at it, and nobody is asked before the admin lets it go.
    pub held: bool,
    /// Its deferred recipients.
    pub deferred: Vec<Deferred>,
}

/// A deferred recipient.
#[derive(Debug, Clone)]
pub struct Deferred {
    /// Address, as in the queue file.
    pub address: Address,
    /// What the sender wrote.
    pub written: Written,
    /// The kind of failure, as far as its words go.
    pub words: Failure,
    /// The server that they name.
    pub host: Option<Host>,
    /// What stands between it and plain text besides.
    pub standing: Standing,
    /// Status code (RFC 3463).
    pub status: String,
    /// What Postfix or the remote server said.
    pub detail: String,
}

impl Deferred {
    /// Why it was deferred.
    pub fn kind(&self) -> Failure {
        self.standing.kind(self.words)
    }

    /// What the store keeps of that.
    pub fn shown(&self) -> String {
        text::readable(&self.said(), MAX_DETAIL)
    }

    /// What is said about it: what else is known, then the words.
    fn said(&self) -> String {
        let remark = self.standing.remark();
        let remark = remark.filter(|_| self.kind() != self.words);
        match remark {
            Some(remark) if self.detail.is_empty() => remark,
            Some(remark) => format!("{remark} ({})", self.detail),
            None => self.detail.clone(),
        }
    }
}

/// What the policy says of one recipient, and what it was told about it.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Why it is stuck, all things considered.
    pub failure: Failure,
    /// Who is asked about mail of this sender.
    pub asked: Asked,
    /// What happens to mail of senders who are not asked.
    pub unasked: Unasked,
    /// The mandatory domain that the recipient's domain is within.
    pub mandatory: Option<Domain>,
    /// The remembered choice that applies.
    pub consent: Option<ConsentId>,
    /// The verdict.
    pub verdict: Verdict,
}

/// Who is asked about a recipient, and what happens when nobody is. What the sender never wrote is the admin's matter, as
/// it is the admin who has it sent.
fn asked(
    config: &Config,
    sender: Option<&Address>,
    automatic: bool,
    written: &Written,
) -> (Asked, Unasked) {
    match (config.senders.judge(sender, automatic), written) {
        ((Asked::Sender, _), Written::Never) => (Asked::Nobody, Unasked::Tell),
        (judged, _) => judged,
    }
}

/// Asks the store for what the policy must know, and judges. `asked` and `unasked`: see [`crate::config::Senders::judge`].
///
/// # Errors
/// When the store fails.
pub fn judge(
    store: &Store,
    config: &Config,
    sender: Option<&Address>,
    (asked, unasked): (Asked, Unasked),
    recipient: &Address,
    words: Failure,
    standing: &Standing,
) -> Result<Judged, StoreError> {
    let failure = standing.kind(words);
    let mandatory = match Domain::nearest(recipient) {
        Some(domain) => store.mandatory_for(&domain)?,
        None => None,
    };
    let consent = match sender {
        Some(sender) if config.remember.days > 0 => {
            // While it can't be judged, a choice for what the words say may be about to count.
            let wanted = if failure == Failure::Unjudged {
                words
            } else {
                failure
            };
            store.consent_for(sender, recipient, wanted)?
        }
        _ => None,
    };
    let about = Circumstances {
        failure,
        asked,
        unasked,
        mandatory: mandatory.as_ref(),
        consent: consent.is_some(),
    };
    let verdict = policy::judge(&about, &config.offer);
    Ok(Judged {
        failure,
        asked,
        unasked,
        mandatory,
        consent,
        verdict,
    })
}

/// Records what was found, with what the policy decides about it.
///
/// # Errors
/// When the store fails; then nothing was recorded.
pub fn admit(store: &Store, config: &Config, found: &Found) -> Result<Admitted, StoreError> {
    let sender = found.key.sender.as_ref();
    let queue_id = &found.key.queue_id;
    let mut all_written: HashMap<&Address, Written> = HashMap::new();
    for one in &found.deferred {
        let written = all_written.remove(&one.address);
        let written = written.map_or_else(
            || one.written.clone(),
            |first| first.or(one.written.clone()),
        );
        all_written.insert(&one.address, written);
    }
    let (of_sender, _) = config.senders.judge(sender, found.automatic);
    let senders = all_written
        .values()
        .any(|written| *written != Written::Never);
    let whole = if senders { of_sender } else { Asked::Nobody };
    let mut recipients = Vec::with_capacity(found.deferred.len());
    let mut tell = Vec::new();
    let all = deferred_of(store, found)?;
    for deferred in all.iter() {
        let (address, words) = (&deferred.address, deferred.words);
        let standing = &deferred.standing;
        let written = all_written.get(address).cloned().unwrap_or_default();
        let judged = judge(
            store,
            config,
            sender,
            asked(config, sender, found.automatic, &written),
            address,
            words,
            standing,
        )?;
        let mut verdict = judged.verdict;
        if found.held {
            verdict.state = RecipientState::NotOffered;
            verdict.action = None;
        }
        // Also of mandatory domains: nobody else hears of it.
        if judged.unasked == Unasked::Tell
            && !is_alert(config, sender, &deferred.address)
            && matches!(verdict.action, Some((_, Actor::Policy)))
        {
            tell.push(&deferred.address);
        }
        recipients.push(NewRecipient {
            address: deferred.address.clone(),
            written,
            failure: judged.failure,
            status: deferred.status.clone(),
            detail: deferred.shown(),
            may_send: verdict.may_send,
            state: verdict.state,
            action: verdict.action,
            consent: judged
                .consent
                .filter(|_| matches!(verdict.action, Some((_, Actor::Consent)))),
        });
    }
    let admitted = store.admit(&NewCase {
        key: found.key.clone(),
        subject: found.subject.clone(),
        message_id: found.message_id.clone(),
        retry_until: found.retry_until,
        source: found.source,
        asked: whole,
        recipients,
    })?;
    let fresh: HashSet<&Address> = admitted.fresh.iter().collect();
    for deferred in all.iter() {
        let (to, failure) = (&deferred.address, deferred.kind());
        // A fault of ours changes nothing for who is asked already; the admin hears of it all the same.
        if !fresh.contains(to) && failure != Failure::LocalFault {
            continue;
        }
        info!(
            "{queue_id}: to=<{to}>, dsn={}, failure={failure}, source={}",
            deferred.status, found.source
        );
        if failure == Failure::LocalFault {
            let detail = text::readable(&deferred.said(), 300);
            error!("{queue_id}: to=<{to}>: TLS does not work on our side: {detail}");
            if is_alert(config, sender, to) {
                continue;
            }
            // Without what differs from recipient to recipient: one cause, one mail.
            let cause = format!("{}{detail}", alert::LOCAL_FAULT);
            store.raise_alert(&cause, &format!("{queue_id}: to=<{to}>"))?;
        }
    }
    for (to, action, actor, consent) in &admitted.decided {
        let by = consent.map_or_else(|| actor.to_string(), |id| format!("{actor} {id}"));
        info!("{queue_id}: to=<{to}>, decision recorded: {action}, by {by}");
    }
    if let Some(to) = tell.iter().find(|to| fresh.contains(*to)) {
        let from = sender.map_or("", Address::as_str);
        let detail = format!("{queue_id}: from=<{from}>, to=<{to}>");
        // Of an internal sender nobody is asked only about what a program has sent, and what the sender never wrote.
        let cause = if of_sender == Asked::Sender {
            alert::UNWRITTEN
        } else if config.senders.is_internal(sender) {
            alert::AUTOMATIC
        } else {
            alert::UNASKED
        };
        store.raise_alert(cause, &detail)?;
    }
    Ok(admitted)
}

/// The recipients with their standings. Handshakes that fail with several unrelated domains at once are perhaps our own
/// fault, and sending in plain text is no answer to that: while it looks so, the failure counts as not judged yet.
fn deferred_of<'a>(store: &Store, found: &'a Found) -> Result<Cow<'a, [Deferred]>, StoreError> {
    let whole = Cow::Borrowed(found.deferred.as_slice());
    let failed = |one: &&Deferred| {
        one.words == Failure::HandshakeFailed && !matches!(one.standing, Standing::Ours(_))
    };
    let Some(example) = found.deferred.iter().find(failed) else {
        return Ok(whole);
    };
    // What sweep and census find may have failed long before.
    let suspicion = if found.source == Source::Notice {
        let failed = found.deferred.iter().filter(failed);
        let domains: HashSet<Domain> = failed.filter_map(|one| Domain::of(&one.address)).collect();
        let domains: Vec<Domain> = domains.into_iter().collect();
        let example = format!("{}: to=<{}>", found.key.queue_id, example.address);
        store.note_handshakes(found.key.sender.as_ref(), &domains, &example)?
    } else if store.suspects_our_side()? {
        Suspicion::Stands
    } else {
        Suspicion::None
    };
    let (domains, minutes) = (handshakes::DOMAINS, handshakes::MINUTES);
    match suspicion {
        Suspicion::None => return Ok(whole),
        Suspicion::Stands => {}
        Suspicion::Begins => error!(
            "{}: TLS handshakes with {domains} unrelated domains have failed within {minutes} minutes: perhaps it is our \
             side; see `posttls check`, protocols and ciphers of the encrypt instance, and tlsproxy; until that is over, \
             nothing is offered after a failed handshake",
            found.key.queue_id
        ),
    }
    let why = format!(
        "TLS handshakes with {domains} or more domains have failed within {minutes} minutes: perhaps it is our side"
    );
    let mut all = found.deferred.clone();
    for one in &mut all {
        if one.words == Failure::HandshakeFailed && one.standing == Standing::Free {
            one.standing = Standing::Unknown(why.clone());
        }
    }
    Ok(Cow::Owned(all))
}

/// May this be a mail of ours to the admin? To tell the admin that it is stuck would make another such mail, for ever.
fn is_alert(config: &Config, sender: Option<&Address>, recipient: &Address) -> bool {
    sender.is_none() && config.notification.admin_address.as_ref() == Some(recipient)
}
