//! Moves in the background: those that had to wait, and those that a decision about many messages has left.
//!
//! One after the other, and a little at a time: a sender who decides about five thousand messages must not keep others
//! waiting, nor the sweep that comes after a pass.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use log::{error, info, warn};

use super::engine::{Later, Progress};
use super::{Desk, MoveError};
use crate::case::CaseId;
use crate::case::store::{MoveId, Store};

/// Between two looks at the journal.
pub(super) const RETRY_TICK: Duration = Duration::from_secs(1);
/// The longest pause between two tries of one move.
const RETRY_MOST: Duration = Duration::from_secs(60);
/// For so long one pass begins moves that are tried again, and then others.
const PASS: Duration = Duration::from_secs(5);
/// So many of the newest moves come before the others: one that a click has left waiting does not queue up behind
/// thousands.
const NEWEST: usize = 8;

/// What lasts is said again after so long: nobody must have to look for it, and it must not fill the log.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Tries moves that had to wait again, each at growing intervals.
#[derive(Default)]
pub(super) struct Retries {
    next: HashMap<MoveId, (Instant, Duration)>,
    /// What is wrong with the store, and when that was said last.
    trouble: Option<(String, Instant)>,
}

impl Retries {
    /// One pass. Whether there is more to do at once.
    pub(super) fn run(&mut self, store: &Store, desk: &Desk) -> bool {
        let owed = match store.unfinished_moves() {
            Ok(owed) => owed,
            Err(error) => {
                self.complain(error.to_string());
                return false;
            }
        };
        if self.trouble.take().is_some() {
            info!("the store can be read again; what was decided is carried out");
        }
        let known: HashSet<MoveId> = owed.iter().map(|(id, _)| *id).collect();
        self.next.retain(|id, _| known.contains(id));
        let let_go = desk.moved();
        let (tried, fresh): (Vec<_>, Vec<_>) = owed
            .into_iter()
            .partition(|(id, _)| self.next.contains_key(id));
        // Who has waited longest comes first, so that each has its turn however long one try takes.
        let mut due: Vec<_> = tried
            .into_iter()
            .filter_map(|(id, case)| {
                let (when, _) = self.next.get_mut(&id)?;
                let first = let_go.contains(&case);
                if first {
                    // That is said once, and this pass may end before its turn.
                    *when = Instant::now();
                }
                (*when <= Instant::now()).then_some((!first, *when, id, case))
            })
            .collect();
        due.sort_unstable_by_key(|(later, when, ..)| (*later, *when));
        let end = Instant::now() + PASS;
        for (_, _, id, case) in due {
            if Instant::now() >= end {
                break;
            }
            self.try_one(id, case, desk);
        }
        let end = Instant::now() + PASS;
        let newest = fresh.len().saturating_sub(NEWEST);
        let order = fresh[newest..].iter().rev().chain(&fresh[..newest]);
        for (id, case) in order {
            if Instant::now() >= end {
                return true;
            }
            self.try_one(*id, *case, desk);
        }
        false
    }

    fn complain(&mut self, what: String) {
        let said = self.trouble.as_ref();
        if said.is_none_or(|(before, at)| *before != what || at.elapsed() > SAY_AGAIN) {
            error!("{what}; no decision is carried out until this is mended");
            self.trouble = Some((what, Instant::now()));
        }
    }

    fn try_one(&mut self, id: MoveId, case: CaseId, desk: &Desk) {
        let result: Result<Progress, MoveError> = desk.retry(id, case);
        let pause = self
            .next
            .get(&id)
            .map_or(RETRY_TICK, |(_, pause)| (*pause * 2).min(RETRY_MOST));
        match result {
            Ok(Progress::Ended) => {
                self.next.remove(&id);
                return;
            }
            // The lookout says when it is let go; this is for what it could not see.
            Ok(Progress::Later(Later::Hold)) => {
                let pause = pause.max(RETRY_MOST);
                self.next.insert(id, (Instant::now() + pause, pause));
                return;
            }
            // A delivery under way may end any second: its sender is waiting for us.
            Ok(Progress::Later(_)) => {
                self.next.insert(id, (Instant::now(), RETRY_TICK));
                return;
            }
            Err(error) => warn!("{error}; next try in {} s", pause.as_secs()),
        }
        self.next.insert(id, (Instant::now() + pause, pause));
    }
}
