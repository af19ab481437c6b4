//! The may instance's side: what became of released recipients.

use log::info;

use super::file::{Place, Watched};
use super::judge::Mark;
use super::{LookError, Lookout};
use crate::case::store::Traveller;
use crate::case::{MessageKey, Passage};
use crate::mover::engine::Pair;
use crate::mover::source;
use crate::postfix::{QueueId, RecipientState, deferrals};

const UNSEEN: &str = "nobody saw how it ended";

impl Lookout {
    /// Records what a watched copy in the may instance says that is new.
    pub(super) fn see_travelling(&self, watched: &Watched, gone: bool) -> Result<(), LookError> {
        let content = watched.content()?;
        let fresh = watched.fresh(&content);
        if !fresh.is_empty() {
            self.hear_of_logs(watched);
        }
        let place = watched.place();
        let (mut delivered, mut unclear) = (Vec::new(), Vec::new());
        let travellers = self.store.travellers(&watched.id)?;
        let reasons = if place == Place::Deferred {
            watched.deferrals()
        } else {
            Vec::new()
        };
        let overdue = watched.is_overdue();
        for traveller in &travellers {
            let records = source::records(&content, &traveller.address);
            match watched.judge(&records, overdue, fresh.len()) {
                Mark::Delivered => delivered.push(traveller),
                Mark::Unclear => unclear.push(traveller),
                Mark::Returned(why) => self.pass(watched, traveller, Passage::Returned, &why)?,
                Mark::Waits if gone => self.left(watched, traveller, place)?,
                Mark::Waits => {
                    let mut all = deferrals(&reasons);
                    let own = all.find(|one| {
                        records
                            .iter()
                            .any(|record| one.offset == Some(record.offset))
                            || one.recipient == traveller.address
                    });
                    if let Some(own) = own {
                        self.pass(watched, traveller, Passage::Deferred, &own.reason)?;
                    }
                }
                Mark::Nothing => {}
            }
        }
        self.arrived(&watched.id, &watched.key, &delivered)?;
        self.deliver_or_lose(&watched.id, &watched.key, &unclear)?;
        watched.have_judged(&fresh);
        Ok(())
    }

    /// A copy that was found when a mover started: what became of it before that is known only by what was heard.
    pub(super) fn catch_up_with(&self, watched: &Watched) -> Result<(), LookError> {
        let content = watched.content()?;
        let travellers = self.store.travellers(&watched.id)?;
        let done: Vec<&Traveller> = travellers
            .iter()
            .filter(|one| {
                let records = source::records(&content, &one.address);
                !records.is_empty()
                    && records
                        .iter()
                        .all(|one| one.state != RecipientState::Pending)
            })
            .collect();
        self.deliver_or_lose(&watched.id, &watched.key, &done)?;
        self.see_travelling(watched, watched.is_gone())
    }

    /// Nobody has watched a copy, and it is gone.
    pub(super) fn lose(&self, copy: &QueueId, key: &MessageKey) -> Result<(), LookError> {
        let travellers = self.store.travellers(copy)?;
        let all: Vec<&Traveller> = travellers.iter().collect();
        self.deliver_or_lose(copy, key, &all)
    }

    /// These are done with; they were delivered if that many deliveries were heard.
    fn deliver_or_lose(
        &self,
        copy: &QueueId,
        key: &MessageKey,
        done: &[&Traveller],
    ) -> Result<(), LookError> {
        let heard = self.store.unmatched_hearings(copy)?;
        if heard >= done.len() as u64 {
            return self.arrived(copy, key, done);
        }
        for one in done {
            self.store.lose_passage(copy, one.id, UNSEEN)?;
            info!(
                "{}: to=<{}>, may instance: {copy}, {UNSEEN}",
                key.queue_id, one.address
            );
        }
        Ok(())
    }

    fn arrived(
        &self,
        copy: &QueueId,
        key: &MessageKey,
        delivered: &[&Traveller],
    ) -> Result<(), LookError> {
        if delivered.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = delivered.iter().map(|one| one.id).collect();
        for arrival in self.store.record_deliveries(copy, &ids)? {
            if let Some(one) = delivered.iter().find(|one| one.id == arrival.id) {
                let how = arrival.passage;
                info!(
                    "{}: to=<{}>, may instance: {copy}, status={how} ({})",
                    key.queue_id, one.address, arrival.reply
                );
            }
        }
        Ok(())
    }

    fn left(&self, watched: &Watched, one: &Traveller, place: Place) -> Result<(), LookError> {
        match place {
            Place::Active if watched.has_expired() => {
                self.pass(watched, one, Passage::Returned, "not delivered in time")
            }
            Place::Maildrop => {
                let why = "taken in anew under another queue ID (postsuper -r)";
                Ok(self.store.lose_passage(&watched.id, one.id, why)?)
            }
            _ => self.pass(
                watched,
                one,
                Passage::Removed,
                "removed from the queue by somebody",
            ),
        }
    }

    fn pass(
        &self,
        watched: &Watched,
        one: &Traveller,
        passage: Passage,
        detail: &str,
    ) -> Result<(), LookError> {
        if self
            .store
            .record_passage(&watched.id, one.id, passage, detail)?
        {
            let (id, copy) = (&watched.key.queue_id, &watched.id);
            info!(
                "{id}: to=<{}>, may instance: {copy}, status={passage} ({detail})",
                one.address
            );
        }
        Ok(())
    }
}

/// Is the copy in no queue of the may instance? An error says no: only what is known to be gone is given up.
pub(super) fn is_gone(pair: &Pair, copy: &QueueId) -> bool {
    matches!(pair.may.find(copy), Ok(None)) && !pair.may.is_misplaced(copy)
}
