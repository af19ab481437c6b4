//! Reconcile: what lies in the two hold queues, compared with the journal of moves.
//!
//! A store that was restored from a backup, or begun anew, knows nothing of the moves since. Such a move may have left its
//! message on hold in the encrypt instance and a copy of it on hold in the may instance, and nobody would ever look there.
//! A copy is its source octet for octet but for the marks of recipients, so each is known by the other. What is found is
//! never sent and never removed: it becomes a move that is stopped, for `posttls resolve`.

mod files;
mod words;

use std::io;
use std::path::PathBuf;

use log::{error, warn};

use super::source::{self, Source};
use super::{MoveError, Sighting, copy};
use crate::case::store::Store;
use crate::case::{Action, Case, MessageKey, Recipient};
use crate::octets;
use crate::postfix::{Instance, Queue, QueueId};
use files::{File, Unknown, are_twins, files};
use words::{UNKNOWN, told_of_copy};

/// Something in a hold queue that the journal does not explain.
#[derive(Debug)]
pub struct Stray {
    /// The case of the message, if there is one.
    case: Option<Case>,
    /// Queue ID in the encrypt instance, or that of the copy if the message is not known.
    id: QueueId,
    copy: Option<(QueueId, Queue)>,
    /// Is the message on hold?
    held: bool,
    /// Whom the unknown move was about.
    recipients: Vec<(i64, Action)>,
    /// What lies where, and what to do.
    why: String,
    /// Is it sure that a move has put it there?
    sure: bool,
}

/// The two instances.
#[derive(Clone, Copy)]
struct Pair<'a> {
    encrypt: &'a Instance,
    may: &'a Instance,
}

/// What the journal does not explain, as far as it may be of a move.
///
/// # Errors
/// When a queue or the store can't be read.
pub fn strays(store: &Store, encrypt: &Instance, may: &Instance) -> Result<Vec<Stray>, MoveError> {
    let pair = Pair { encrypt, may };
    let (mut copies, mut strays) = (Vec::new(), Vec::new());
    for file in files(may, Queue::Hold)? {
        // A copy gets its name after the journal has it.
        if store.knows_copy(&file.id)? {
            continue;
        }
        match file.read(may) {
            Some(source) => copies.push(Unknown { file, source }),
            None if file.unfinished && !file.is_being_written() => {
                strays.push(nameless(pair, &file))
            }
            None => {}
        }
    }
    for file in files(encrypt, Queue::Hold)? {
        let cases = store.cases_of(&file.id)?;
        let alike = copies.iter().any(|copy| copy.file.length == file.length);
        if cases.is_empty() && !file.unfinished && !alike {
            continue;
        }
        let Some(source) = file.read(encrypt) else {
            continue;
        };
        let case = cases.into_iter().find(|case| source.is_message(&case.key));
        let here = Here {
            store,
            pair,
            case: case.as_ref(),
            file: &file,
            source: &source,
        };
        let mut twins = 0;
        while let Some(at) = copies
            .iter()
            .position(|copy| are_twins(&copy.source, &source))
        {
            twins += 1;
            strays.push(here.with_copy(&copies.swap_remove(at))?);
        }
        if twins == 0 {
            strays.extend(here.alone()?);
        }
    }
    for copy in copies {
        strays.extend(without_source(store, pair, &copy)?);
    }
    Ok(strays)
}

/// A message of the encrypt instance, as it was found.
struct Here<'a> {
    store: &'a Store,
    pair: Pair<'a>,
    case: Option<&'a Case>,
    file: &'a File,
    source: &'a Source,
}

impl Here<'_> {
    fn recipients(&self) -> Result<Vec<Recipient>, MoveError> {
        Ok(match self.case {
            Some(case) => self.store.recipients(case.id)?,
            None => Vec::new(),
        })
    }

    /// Its copy is in the may instance.
    fn with_copy(&self, copy: &Unknown) -> Result<Stray, MoveError> {
        let recipients = self.recipients()?;
        let sent = recipients
            .iter()
            .filter(|one| !copy.source.records_of(&one.address).0.is_empty())
            .map(|one| (one.id, Action::Send));
        Ok(Stray {
            case: self.case.cloned(),
            id: self.file.id.clone(),
            copy: Some((copy.file.id.clone(), copy.file.queue)),
            held: self.file.queue == Queue::Hold,
            recipients: sent.collect(),
            why: self.told(Some(copy)),
            sure: true,
        })
    }

    /// No copy of it is on hold: then only a seal proves that a move has been at it.
    fn alone(&self) -> Result<Option<Stray>, MoveError> {
        let explained = || match self.case {
            Some(case) => self.store.explains_hold(case.id),
            None => Ok(false),
        };
        if explained()? {
            return Ok(None);
        }
        let mut done = self.recipients()?;
        done.retain(|one| {
            let (pending, done) = self.source.records_of(&one.address);
            super::ending::waits(one) && pending.is_empty() && done
        });
        if !self.file.unfinished {
            if done.is_empty() {
                return Ok(None);
            }
            if let Some(copy) = self.under_way()? {
                return self.with_copy(&copy).map(Some);
            }
        } else if self.file.is_being_written() && self.case.is_none()
            || explained()?
            || !self.source.is_sealed().unwrap_or(false)
        {
            // A move that was under way just now.
            return Ok(None);
        }
        Ok(Some(Stray {
            case: self.case.cloned(),
            id: self.file.id.clone(),
            copy: None,
            held: true,
            recipients: done.iter().map(|one| (one.id, Action::Delete)).collect(),
            why: self.told(None),
            sure: self.file.unfinished,
        }))
    }

    /// A copy that no journal knows, and that the may instance has already.
    fn under_way(&self) -> Result<Option<Unknown>, MoveError> {
        let may = self.pair.may;
        for queue in [Queue::Deferred, Queue::Active, Queue::Incoming] {
            for file in files(may, queue)? {
                if file.length == self.file.length
                    && !self.store.knows_copy(&file.id)?
                    && let Some(source) = file.read(may)
                    && are_twins(&source, self.source)
                {
                    return Ok(Some(Unknown { file, source }));
                }
            }
        }
        Ok(None)
    }
}

/// An unfinished file that can't even be read.
fn nameless(pair: Pair<'_>, file: &File) -> Stray {
    Stray {
        case: None,
        id: file.id.clone(),
        copy: Some((file.id.clone(), file.queue)),
        held: false,
        recipients: Vec::new(),
        why: format!(
            "an unfinished file on hold in the may instance, and not sent, that is no queue file as Postfix writes it: \
             look at {}",
            pair.may.path(file.queue, &file.id).display()
        ),
        sure: true,
    }
}

/// A copy whose source is not on hold.
fn without_source(
    store: &Store,
    pair: Pair<'_>,
    copy: &Unknown,
) -> Result<Option<Stray>, MoveError> {
    let content = &copy.source.content;
    let cases = store.cases_from(content.arrival.0, &octets::text(&content.sender))?;
    let mut gone = Vec::new();
    for case in cases {
        match source::sight(pair.encrypt, &case.key)? {
            (Sighting::Queued(queue), Some(source)) if are_twins(&source, &copy.source) => {
                let path = source.path.clone();
                let Some(file) = File::of(pair.encrypt, queue, (case.key.queue_id.clone(), path))
                else {
                    return Ok(None);
                };
                let here = Here {
                    store,
                    pair,
                    case: Some(&case),
                    file: &file,
                    source: &source,
                };
                return here.with_copy(copy).map(Some);
            }
            (Sighting::Gone, _) => gone.push(case),
            (Sighting::Queued(_), _) => {}
        }
    }
    // Ready, and of no message that we know: an admin's matter alone.
    if gone.is_empty() && (!copy.file.unfinished || copy.file.is_being_written()) {
        return Ok(None);
    }
    let ids: Vec<&str> = gone.iter().map(|case| case.key.queue_id.as_str()).collect();
    let whose = match ids.as_slice() {
        [] => "the message that it was made from is not known".to_owned(),
        [_] => "the message is not in the encrypt instance any more".to_owned(),
        several => format!(
            "it is of one of these messages, which are not there any more: {}",
            several.join(", ")
        ),
    };
    let case = (gone.len() == 1).then(|| gone.swap_remove(0));
    let mut recipients = Vec::new();
    if let Some(case) = &case {
        let all = store.recipients(case.id)?;
        let sent = all
            .iter()
            .filter(|one| !copy.source.records_of(&one.address).0.is_empty());
        recipients.extend(sent.map(|one| (one.id, Action::Send)));
    }
    let id = case
        .as_ref()
        .map_or(&copy.file.id, |case| &case.key.queue_id);
    let chmod = if case.is_none() && copy.file.unfinished {
        format!(" (first: chmod 700 {})", copy.file.path.display())
    } else {
        String::new()
    };
    Ok(Some(Stray {
        id: id.clone(),
        case,
        copy: Some((copy.file.id.clone(), copy.file.queue)),
        held: false,
        recipients,
        why: format!(
            "{UNKNOWN}: {whose}; {}{chmod}",
            told_of_copy(pair.may, copy)
        ),
        sure: true,
    }))
}

impl Stray {
    /// Queue ID in the encrypt instance, or that of the copy if the message is not known.
    pub fn id(&self) -> &QueueId {
        &self.id
    }

    /// One line about it.
    pub fn line(&self) -> String {
        format!("{}: {}", self.id, self.why)
    }

    /// Is it sure that a move has put it there?
    pub fn is_sure(&self) -> bool {
        self.sure
    }

    /// Has its case tell of it. What a move has left is a move that is stopped from now on.
    fn record(&self, store: &Store, pair: Pair<'_>) -> Result<(), MoveError> {
        let Some(case) = &self.case else {
            error!("{}", self.line());
            return Ok(());
        };
        if !self.sure {
            if store.note_unexplained(case.id, &self.why)? {
                warn!("{}", self.line());
            }
            return Ok(());
        }
        let copy = self.copy.as_ref().map(|(name, _)| name);
        if store.stop_unknown(case.id, copy, self.held, &self.recipients, &self.why)? {
            error!("{}, conflict: {}", super::shown(&case.key), self.why);
            self.show(pair, &case.key)?;
        }
        Ok(())
    }

    /// From now on the admin's tools shall see both. They stay on hold.
    fn show(&self, pair: Pair<'_>, key: &MessageKey) -> Result<(), MoveError> {
        let fault = |path: PathBuf, source: io::Error| MoveError::File {
            queue_id: self.id.clone(),
            doing: "make ready",
            path,
            source,
        };
        if let Some((name, Queue::Hold)) = &self.copy {
            copy::make_ready(pair.may, name)
                .map_err(|error| fault(pair.may.path(Queue::Hold, name), error))?;
        }
        if let Some(source) = source::open(pair.encrypt, Queue::Hold, &key.queue_id, false)?
            && source.is_message(key)
            && source.is_sealed().unwrap_or(false)
        {
            source
                .unseal()
                .map_err(|error| fault(source.path.clone(), error))?;
        }
        Ok(())
    }
}

/// Compares, and records what was found: how much that is.
///
/// # Errors
/// As [`strays`]; and when it can't be recorded.
pub fn reconcile(store: &Store, encrypt: &Instance, may: &Instance) -> Result<u64, MoveError> {
    let pair = Pair { encrypt, may };
    let found = strays(store, encrypt, may)?;
    for stray in &found {
        stray.record(store, pair)?;
    }
    Ok(found.len() as u64)
}
