//! A move found half-way, after a crash or an error: goes on if that is safe, starts over if nothing was changed, and
//! stops for an admin if either might lose or double a delivery.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use log::{error, warn};

use super::engine::Later;
use super::source::{self, Source};
use super::steps::{Outcomes, Steps, Waits};
use super::{MoveError, Sighting, copy, shown};
use crate::case::store::Move;
use crate::case::{MoveStep, Outcome};
use crate::postfix::{Queue, QueueId};

/// Where an admin's `postsuper -H ALL` or `-r ALL` may have put a file that is not ready: Postfix leaves it there.
const STRAYED: [&str; 4] = ["deferred", "incoming", "active", "maildrop"];

/// How the copy of a move that has begun stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// Nothing is sent.
    Unneeded,
    /// It is not where it was put, or never was.
    Missing,
    /// Nobody can have sent it.
    NotReady,
    Ready,
}

impl Steps<'_> {
    /// Begun: the copy may or may not have its name, the source may be sealed or not. Marks in it are ours if it is
    /// sealed, and somebody else's if it is not.
    pub fn resume(&self, journal: &Move, deadline: Instant) -> Result<Waits, MoveError> {
        let recipients = journal.recipients.iter();
        let outcomes: Outcomes = recipients
            .filter_map(|one| Some((one.id, one.outcome?)))
            .collect();
        if !outcomes
            .iter()
            .any(|(_, outcome)| changes_the_queue(*outcome))
        {
            self.store.advance(journal.id, MoveStep::Requeued)?;
            return Ok(None);
        }
        let copy = self.parse(journal.copy_name.as_deref())?;
        let copied = self.copied(copy.as_ref())?;
        self.fetch_source_back()?;
        let (queue, source) = match source::sight(self.encrypt, self.key)? {
            (Sighting::Queued(Queue::Hold), _) => {
                match source::lock_held(self.encrypt, self.key, deadline)? {
                    Some(source) if source.is_message(self.key) => (Queue::Hold, source),
                    _ => return Ok(Some(Later::Delivery)),
                }
            }
            (Sighting::Queued(queue), Some(source)) => (queue, source),
            (Sighting::Queued(_), None) => return Ok(Some(Later::Delivery)),
            (Sighting::Gone, _) => {
                if matches!(copied, Copied::NotReady | Copied::Ready) {
                    return self.conflict(journal, "was removed");
                }
                // Nobody can have sent a copy that is not there: the message ended without our doing.
                self.store.start_over(journal.id)?;
                return Ok(None);
            }
        };
        let sealed = self.is_sealed(&source)?;
        let strange = marked(&source, journal, &outcomes);
        match (queue, copied) {
            (Queue::Hold, Copied::Unneeded | Copied::NotReady | Copied::Ready) if sealed => {
                self.mark(journal, &source, &outcomes)
            }
            // Nothing was sent and nothing can be doubled: as if the move had never begun. So it is judged again, too:
            // what may have come meanwhile is an attempt that failed otherwise, or a policy.
            (_, Copied::Unneeded) => self.start_over(journal, None),
            (_, Copied::Missing) if strange.is_empty() => self.start_over(journal, None),
            (_, Copied::NotReady) if strange.is_empty() => self.start_over(journal, copy.as_ref()),
            (_, Copied::Missing) if sealed => self.conflict(
                journal,
                "lost its copy for the may instance after it was marked",
            ),
            (_, Copied::Missing) => self.conflict(
                journal,
                &format!("has no copy for the may instance{}", by_whom(&strange)),
            ),
            (_, Copied::Ready) => self.conflict(
                journal,
                &format!(
                    "is not what the journal of moves says of it (was the store restored?){}",
                    by_whom(&strange)
                ),
            ),
            (_, Copied::NotReady) => self.conflict(
                journal,
                &format!("was released from hold{}", by_whom(&strange)),
            ),
        }
    }

    fn copied(&self, copy: Option<&QueueId>) -> Result<Copied, MoveError> {
        let Some(copy) = copy else {
            return Ok(Copied::Unneeded);
        };
        if !self.may_holds(copy)? && !self.fetch_back(copy)? {
            return Ok(Copied::Missing);
        }
        let path = self.may.path(Queue::Hold, copy);
        let metadata =
            fs::symlink_metadata(&path).map_err(|error| self.fault("examine", &path, error))?;
        Ok(if metadata.mode() & 0o7777 == copy::NOT_READY {
            Copied::NotReady
        } else {
            Copied::Ready
        })
    }

    /// Back to before the move began. `copy` has been seen by nobody.
    fn start_over(&self, journal: &Move, copy: Option<&QueueId>) -> Result<Waits, MoveError> {
        self.unseal()?;
        if let Some(copy) = copy {
            copy::remove(self.may, copy)
                .map_err(|error| self.fault("remove", &self.may.path(Queue::Hold, copy), error))?;
        }
        self.store.start_over(journal.id)?;
        Ok(None)
    }

    fn is_sealed(&self, source: &Source) -> Result<bool, MoveError> {
        let sealed = source.is_sealed();
        sealed.map_err(|error| self.fault("examine", &source.path, error))
    }

    /// Lets Postfix and its admins see the source again.
    pub(super) fn unseal(&self) -> Result<(), MoveError> {
        self.fetch_source_back()?;
        let held = source::open(self.encrypt, Queue::Hold, &self.key.queue_id, false)?;
        if let Some(source) = held
            && source.is_message(self.key)
            && self.is_sealed(&source)?
        {
            let unsealed = source.unseal();
            unsealed.map_err(|error| self.fault("unseal", &source.path, error))?;
        }
        Ok(())
    }

    /// Stops the move. The copy, if there is one, stays on hold: nothing is sent by itself.
    pub(super) fn conflict(&self, journal: &Move, what: &str) -> Result<Waits, MoveError> {
        let now = self.store.load_move(journal.id)?;
        let copy = self.parse(now.and_then(|now| now.copy_name).as_deref())?;
        let held = copy.filter(|copy| matches!(self.may_holds(copy), Ok(true)));
        let advice = held.map_or_else(String::new, |copy| {
            // From now on the admin's tools shall see it. It stays on hold.
            if let Err(error) = copy::make_ready(self.may, &copy) {
                warn!("{}: cannot make {copy} ready: {error}", self.key.queue_id);
            }
            format!(
                "; on hold in the may instance, and not sent: {copy} (compare the log, then send it with postsuper -c \
                 {may} -H {copy}, or remove it with postsuper -c {may} -d {copy})",
                may = self.may.config_dir.display()
            )
        });
        if let Err(error) = self.unseal() {
            warn!("{error}; no tool of Postfix shows it until its mode is 0700");
        }
        let why = format!(
            "the message {what} in the encrypt instance while it was being moved, so PostTLS can't tell who has it{advice}"
        );
        error!("{}, conflict: {why}", shown(self.key));
        self.store.stop_move(journal, &why)?;
        Ok(None)
    }

    /// Puts a copy that is not ready back into the hold queue, wherever somebody has moved it. Whether it was found.
    fn fetch_back(&self, copy: &QueueId) -> Result<bool, MoveError> {
        let home = self.may.path(Queue::Hold, copy);
        for queue in STRAYED {
            let path = self.may.directory(queue, copy).join(copy.as_str());
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            if metadata.mode() & 0o7777 == copy::NOT_READY {
                warn!(
                    "{}: the copy {copy} for the may instance was moved to {queue}; it is fetched back",
                    self.key.queue_id
                );
                self.rename(&path, &home)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The same for the source, if it is sealed.
    fn fetch_source_back(&self) -> Result<(), MoveError> {
        let id = &self.key.queue_id;
        for queue in STRAYED {
            let path = self.encrypt.directory(queue, id).join(id.as_str());
            // What can't be read is no source of ours: cleanup(8) may be writing another message of this queue ID.
            let Ok(Some(source)) = source::open_at(self.encrypt, path, id, false) else {
                continue;
            };
            if source.is_message(self.key) && self.is_sealed(&source)? {
                warn!(
                    "{id}: it was moved to {queue} while it was being marked; it is fetched back"
                );
                self.rename(&source.path, &self.encrypt.path(Queue::Hold, id))?;
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), MoveError> {
        let renamed = fs::rename(from, to);
        renamed.map_err(|error| self.fault("fetch back", from, error))
    }
}

fn changes_the_queue(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Released | Outcome::Deleted)
}

/// The recipients that the move is to change and that are marked done, or are not there any more.
fn marked(source: &Source, journal: &Move, outcomes: &Outcomes) -> Vec<String> {
    let concerned = journal.recipients.iter().filter(|recipient| {
        outcomes
            .iter()
            .any(|(id, outcome)| *id == recipient.id && changes_the_queue(*outcome))
    });
    let done = concerned.filter(|recipient| {
        let (pending, done) = source.records_of(&recipient.address);
        pending.is_empty() || done
    });
    done.map(|recipient| format!("<{}>", recipient.address))
        .collect()
}

/// What is known of marks that no move has set for sure.
fn by_whom(marked: &[String]) -> String {
    match marked {
        [] => String::new(),
        [one] => format!(
            ", {one} was marked done, and not by this move as far as it can prove (delivered or returned by the encrypt \
             instance, then)"
        ),
        several => format!(
            ", {} were marked done, and not by this move as far as it can prove (delivered or returned by the encrypt \
             instance, then)",
            several.join(", ")
        ),
    }
}
