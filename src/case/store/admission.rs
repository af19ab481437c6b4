//! How recipients come into the store: with a new case, or into the one that their message has already.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::cases::{mark_changed, sender_column, standing};
use super::consents::is_in_force;
use super::decisions::{By, decide};
use super::mandatory::nearest_listed;
use super::news::{forget, owe};
use super::people::person_of;
use super::{Store, StoreError, now_ms, record};
use crate::address::Address;
use crate::case::policy;
use crate::case::{
    Action, Actor, Asked, CaseId, CaseState, ConsentId, Failure, MessageKey, News, RecipientState,
    Source, Written,
};
use crate::domain::Domain;

/// A message of which recipients are stuck.
#[derive(Debug, Clone)]
pub struct NewCase {
    /// The message.
    pub key: MessageKey,
    /// Decoded subject.
    pub subject: String,
    /// `Message-ID` of the original.
    pub message_id: Option<String>,
    /// Until when Postfix keeps trying, in Unix seconds.
    pub retry_until: Option<i64>,
    /// How PostTLS came to know of it.
    pub source: Source,
    /// Who is asked.
    pub asked: Asked,
    /// The deferred recipients, in the order in which they are to be shown.
    pub recipients: Vec<NewRecipient>,
}

/// A recipient about to be recorded.
#[derive(Debug, Clone)]
pub struct NewRecipient {
    /// Address, as in the queue file.
    pub address: Address,
    /// What the sender wrote.
    pub written: Written,
    /// Why it is stuck.
    pub failure: Failure,
    /// Status code.
    pub status: String,
    /// What Postfix or the remote server said.
    pub detail: String,
    /// May it go unencrypted?
    pub may_send: bool,
    /// The state to start in.
    pub state: RecipientState,
    /// What is done at once, and in whose name; decided in the same transaction.
    pub action: Option<(Action, Actor)>,
    /// The remembered choice behind that.
    pub consent: Option<ConsentId>,
}

impl NewRecipient {
    /// Who is asked about it, in a case about which `whole` is asked.
    fn asked(&self, whole: Asked) -> Asked {
        match self.written {
            Written::Never => Asked::Nobody,
            Written::Same | Written::Other(_) => whole,
        }
    }
}

/// What became of an admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The message's case.
    pub case: CaseId,
    /// Was the case opened just now?
    pub opened: bool,
    /// The recipients that were not known before, or are now known to be stuck for TLS.
    pub fresh: Vec<Address>,
    /// What was decided for some of these at once, in whose name, and by which remembered choice.
    pub decided: Vec<(Address, Action, Actor, Option<ConsentId>)>,
}

impl Store {
    /// Opens a case, or lets recipients join the one that their message has: one case a message, ever. A recipient that
    /// is known as stuck, decided or done with stays as it is, so the same notice twice changes nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub fn admit(&self, new: &NewCase) -> Result<Admitted, StoreError> {
        self.write("cannot record a case", |tx| {
            let key = &new.key;
            let known = tx
                .prepare_cached("SELECT id FROM cases WHERE queue_id = ?1 AND arrival = ?2 AND sender = ?3")?
                .query_row(params![key.queue_id, key.arrival, sender_column(key)], |row| row.get(0))
                .optional()?;
            let (case, is_new) = match known {
                Some(case) => (case, false),
                None => (insert_case(tx, new)?, true),
            };
            if !is_new && new.asked == Asked::Sender {
                // The configuration was another one before: whoever is asked about a part is told about all.
                let now_asked = tx
                    .prepare_cached("UPDATE cases SET asked = 'sender' WHERE id = ?1 AND asked <> 'sender'")?
                    .execute([case])?;
                if now_asked == 1 {
                    // A decision about all that a page has shown must not include what it did not show.
                    tx.prepare_cached(
                        "UPDATE recipients SET stuck_at = ?2 WHERE case_id = ?1 AND state IN ('open', 'kept')",
                    )?
                    .execute(params![case, now_ms()])?;
                }
            }
            let (mut fresh, mut decided) = (Vec::new(), Vec::new());
            for recipient in &new.recipients {
                let recipient = still_valid(tx, recipient.asked(new.asked), recipient)?;
                if !admit_recipient(tx, case, new, is_new, &recipient)? {
                    continue;
                }
                fresh.push(recipient.address.clone());
                if let Some((action, actor)) = recipient.action {
                    decided.push((recipient.address, action, actor, recipient.consent));
                }
            }
            let open = standing(tx, case)?.undecided;
            let state = if open { CaseState::Open } else { CaseState::Watched };
            // A case that was closed is looked after again, if only by watching.
            if is_new || !fresh.is_empty() {
                tx.prepare_cached(
                    "UPDATE cases SET state = ?2, closed_at = NULL, closed_why = NULL WHERE id = ?1",
                )?
                .execute(params![case, state])?;
            }
            if is_new {
                let count = new.recipients.len();
                let detail = format!("recipients deferred: {count}, state {state}, by {}", new.source);
                record(tx, case, "", "opened", &detail)?;
            }
            Ok(Admitted { case, opened: is_new, fresh, decided })
        })
    }
}

fn insert_case(tx: &Transaction<'_>, new: &NewCase) -> rusqlite::Result<CaseId> {
    let key = &new.key;
    tx.prepare_cached(
        "INSERT INTO cases (id, queue_id, sender, arrival, subject, message_id, retry_until, state, opened_at, source, asked, person)
         VALUES (abs(random() / 2), ?1, ?2, ?3, ?4, ?5, ?6, 'watched', ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        key.queue_id,
        sender_column(key),
        key.arrival,
        new.subject,
        new.message_id,
        new.retry_until,
        now_ms(),
        new.source,
        new.asked,
        person_of(key),
    ])?;
    Ok(CaseId(tx.last_insert_rowid()))
}

/// What was judged before this transaction, if that is still right: a domain may have been listed since, and a remembered
/// choice have ended.
fn still_valid(
    tx: &Transaction<'_>,
    asked: Asked,
    judged: &NewRecipient,
) -> rusqlite::Result<NewRecipient> {
    let mut new = judged.clone();
    let listed = match Domain::nearest(&new.address) {
        Some(domain) if new.state == RecipientState::Open => nearest_listed(tx, &domain)?,
        _ => None,
    };
    if listed.is_some() && new.failure == Failure::Unjudged {
        // What is ours to mend must not be deleted; the next look tells.
        new.state = RecipientState::NotOffered;
    } else if listed.is_some() {
        new.may_send = false;
        new.consent = None;
        new.action = match (asked, new.action) {
            (Asked::Sender, _) => Some((Action::Delete, Actor::Mandatory)),
            (Asked::Nobody, Some((Action::Send, _))) => Some((Action::Keep, Actor::Policy)),
            (Asked::Nobody, action) => action,
        };
    } else if let Some(consent) = new.consent
        && !is_in_force(tx, consent)?
    {
        new.consent = None;
        new.action = None;
    }
    Ok(new)
}

/// Whether the recipient is new, or was only watched until now.
fn admit_recipient(
    tx: &Transaction<'_>,
    case: CaseId,
    whole: &NewCase,
    is_new: bool,
    new: &NewRecipient,
) -> rusqlite::Result<bool> {
    let domain = Domain::of(&new.address);
    let asked = new.asked(whole.asked);
    let known: Option<(i64, RecipientState, Failure)> = tx
        .prepare_cached(
            "SELECT id, state, failure FROM recipients WHERE case_id = ?1 AND address = ?2",
        )?
        .query_row(params![case, new.address], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let id = match known {
        // The same failure becomes the sender's matter when an admin ends the hold under which it was found.
        Some((id, RecipientState::NotOffered, failure))
            if failure != new.failure || new.state != RecipientState::NotOffered =>
        {
            replace(tx, id, new, new.state)?;
            if new.state != RecipientState::NotOffered {
                forget(tx, id, News::Withheld)?;
                let detail = format!("{failure} before, now {}", new.failure);
                record(tx, case, new.address.as_str(), "stuck", &detail)?;
            }
            id
        }
        // It was asked about before it could be judged; what was chosen since stands.
        Some((id, state, Failure::Unjudged))
            if state.is_open() && new.failure != Failure::Unjudged =>
        {
            let offered = new.state != RecipientState::NotOffered;
            replace(tx, id, new, if offered { state } else { new.state })?;
            mark_changed(tx, id)?;
            let detail = format!("could not be judged before, now {}", new.failure);
            record(tx, case, new.address.as_str(), "judged", &detail)?;
            if !offered || new.written == Written::Never {
                forget(tx, id, News::Stuck)?;
            }
            if offered && !acts(state, asked, new) {
                // Whoever asked was told, or is about to be.
                return Ok(true);
            }
            id
        }
        Some((id, state, before))
            // A notice may be older than what was seen since.
            if state.is_open()
                && whole.source != Source::Notice
                && policy::supersedes(new.failure, before) =>
        {
            if !judge_anew(tx, case, (id, state, before), asked, new)? {
                return Ok(false);
            }
            if !acts(state, asked, new) {
                return Ok(true);
            }
            id
        }
        Some(_) => return Ok(false),
        None => {
            let (written, unwritten) = written(new);
            tx.prepare_cached(
                "INSERT INTO recipients (case_id, number, address, failure, status, detail, may_send, state, domain, stuck_at,
                     written, unwritten)
                 VALUES (?1, (SELECT coalesce(max(number), 0) + 1 FROM recipients WHERE case_id = ?1),
                         ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                case,
                new.address,
                new.failure,
                new.status,
                new.detail,
                new.may_send,
                new.state,
                domain.as_ref().map_or("", Domain::as_str),
                stuck_at(new),
                written,
                unwritten,
            ])?;
            let id = tx.last_insert_rowid();
            if !is_new {
                let detail = format!("{}, found by {}", new.failure, whole.source);
                record(tx, case, new.address.as_str(), "joined", &detail)?;
            }
            id
        }
    };
    match new.action {
        Some((action, actor)) => {
            let by = By {
                consent: new.consent,
                ..By::plain(actor, "")
            };
            decide(tx, case, &[(id, action)], &by)?;
        }
        None if new.state == RecipientState::Open && asked == Asked::Sender => {
            owe(tx, id, News::Stuck)?;
        }
        None => {}
    }
    Ok(true)
}

/// Since when a new failure is known.
fn stuck_at(new: &NewRecipient) -> Option<i64> {
    (new.failure != Failure::NotTls).then(now_ms)
}

/// The columns `written` and `unwritten`.
fn written(new: &NewRecipient) -> (&str, bool) {
    match &new.written {
        Written::Same => ("", false),
        Written::Other(address) => (address.as_str(), false),
        Written::Never => ("", true),
    }
}

/// What could not be judged, or was nobody's matter, is known in another way now. Only now can its sender see it so: a
/// decision about all that a page has shown before must not include it.
fn replace(
    tx: &Transaction<'_>,
    id: i64,
    new: &NewRecipient,
    state: RecipientState,
) -> rusqlite::Result<()> {
    let (written, unwritten) = written(new);
    tx.prepare_cached(
        "UPDATE recipients SET failure = ?2, status = ?3, detail = ?4, may_send = ?5, state = ?6,
         stuck_at = CASE WHEN ?6 = 'not-offered' THEN coalesce(stuck_at, ?7) ELSE ?7 END,
         written = ?8, unwritten = ?9 WHERE id = ?1",
    )?
    .execute(params![
        id,
        new.failure,
        new.status,
        new.detail,
        new.may_send,
        state,
        stuck_at(new),
        written,
        unwritten
    ])?;
    Ok(())
}

/// What is known of a recipient about whom somebody is asked, as the newest failure has it. Whether more has changed than
/// the words.
fn judge_anew(
    tx: &Transaction<'_>,
    case: CaseId,
    (id, state, before): (i64, RecipientState, Failure),
    asked: Asked,
    new: &NewRecipient,
) -> rusqlite::Result<bool> {
    let could_send: bool = tx
        .prepare_cached("SELECT may_send FROM recipients WHERE id = ?1")?
        .query_row([id], |row| row.get(0))?;
    let changed = before != new.failure || could_send != new.may_send;
    // A decision about all that a page has shown must not include what it has shown otherwise.
    tx.prepare_cached(
        "UPDATE recipients SET failure = ?2, status = ?3, detail = ?4, may_send = ?5,
         stuck_at = CASE WHEN ?6 THEN ?7 ELSE stuck_at END WHERE id = ?1",
    )?
    .execute(params![
        id,
        new.failure,
        new.status,
        new.detail,
        new.may_send,
        changed,
        now_ms()
    ])?;
    if !changed {
        return Ok(false);
    }
    mark_changed(tx, id)?;
    let address = new.address.as_str();
    let offered = match (could_send, new.may_send) {
        (true, false) => ", may not go unencrypted any more",
        (false, true) => ", may go unencrypted now",
        _ => "",
    };
    if before == new.failure {
        let detail = format!("{before}{offered}");
        record(tx, case, address, "offer-changed", &detail)?;
    } else {
        let detail = format!("{before} before, now {}{offered}", new.failure);
        record(tx, case, address, "failure-changed", &detail)?;
    }
    let may_choose =
        state == RecipientState::Open && asked == Asked::Sender && new.action.is_none();
    if may_choose && new.may_send && !could_send {
        // Once: a server that changes its mind at each attempt must not make a mail of each.
        let told: bool = tx
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM events WHERE case_id = ?1 AND recipient = ?2 AND what = 'offered')",
            )?
            .query_row(params![case, address], |row| row.get(0))?;
        if !told {
            record(
                tx,
                case,
                address,
                "offered",
                "its sender is told of the new choice",
            )?;
            owe(tx, id, News::Stuck)?;
        }
    }
    Ok(true)
}

/// Is what was judged to be done at once done for one that is known already? Who has said "keep trying" of this message has
/// said it; a rule has not.
fn acts(state: RecipientState, asked: Asked, new: &NewRecipient) -> bool {
    match new.action {
        None | Some((Action::Keep, _)) => false,
        Some(_) => state == RecipientState::Open || asked == Asked::Nobody,
    }
}
