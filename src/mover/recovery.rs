//! A move found half-way, after a crash or an error: goes on if that is safe, starts over if nothing was changed, and
//! stops for an admin if either might lose or double a delivery.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

use log::{error, warn};

use super::source::{self, Source};
use super::steps::{Outcomes, Steps, Waits};
use super::{MoveError, Sighting, copy, shown};
use crate::case::store::Move;
use crate::case::{MoveStep, Outcome};
use crate::postfix::{Queue, QueueId};

/// Where an admin's `postsuper -H ALL` or `-r ALL` may have put a copy that is not ready: Postfix leaves it there.
const STRAYED: [&str; 4] = ["deferred", "incoming", "active", "maildrop"];

impl Steps<'_> {
    /// Begun: the copy may or may not have its name, the source may be unmarked, partly marked or marked.
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
        let copy_is_there = match &copy {
            Some(copy) => self.may_holds(copy)? || self.fetch_back(copy)?,
            None => false,
        };
        match source::sight(self.encrypt, self.key)? {
            // Never published, or removed by an admin, and nothing is marked: as if it had never been.
            (Sighting::Queued(_), Some(source))
                if copy.is_some() && !copy_is_there && untouched(&source, journal, &outcomes) =>
            {
                self.store.start_over(journal.id)?;
                Ok(None)
            }
            (Sighting::Queued(Queue::Hold), _) if copy_is_there || copy.is_none() => {
                let Some(source) = source::lock_held(self.encrypt, self.key, deadline)? else {
                    return Ok(Some("a delivery of the message is under way"));
                };
                self.mark(journal, &source, &outcomes)
            }
            // Without a copy nothing can be doubled: what is gone by now is gone, and the rest is deleted anew.
            _ if copy.is_none() => {
                self.store.start_over(journal.id)?;
                Ok(None)
            }
            (Sighting::Queued(_), Some(source))
                if copy_is_there && untouched(&source, journal, &outcomes) =>
            {
                // Somebody released the source while we were down, before any mark. Nobody has seen the copy.
                if let Some(copy) = &copy {
                    copy::remove(self.may, copy).map_err(|error| {
                        self.fault("remove", &self.may.path(Queue::Hold, copy), error)
                    })?;
                }
                self.store.start_over(journal.id)?;
                Ok(None)
            }
            // Nobody can have sent a copy that is not ready: what became of the message, it became of it without us.
            (Sighting::Gone, _) if !copy_is_there => {
                self.store.start_over(journal.id)?;
                Ok(None)
            }
            (Sighting::Gone, _) => self.conflict(journal, "was removed"),
            (Sighting::Queued(_), _) if copy_is_there => {
                self.conflict(journal, "was released from hold")
            }
            (Sighting::Queued(_), _) => self.conflict(
                journal,
                "lost its copy for the may instance after it was marked",
            ),
        }
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
                "; on hold in the may instance: {copy} (compare the log, then send it with postsuper -c {may} -H {copy}, \
                 or remove it with postsuper -c {may} -d {copy})",
                may = self.may.config_dir.display()
            )
        });
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
                fs::rename(&path, &home).map_err(|error| self.fault("fetch back", &path, error))?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn changes_the_queue(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Released | Outcome::Deleted)
}

/// Does every recipient that the move is about still wait, without a mark of ours or of a delivery?
fn untouched(source: &Source, journal: &Move, outcomes: &Outcomes) -> bool {
    let mut concerned = journal.recipients.iter().filter(|recipient| {
        outcomes
            .iter()
            .any(|(id, outcome)| *id == recipient.id && changes_the_queue(*outcome))
    });
    concerned.all(|recipient| {
        let (pending, done) = source.records_of(&recipient.address);
        !pending.is_empty() && !done
    })
}
