//! Who is given up when places run out: pure bookkeeping on connections, by age.
//!
//! A connection that has not sent its request in full gives way to a newer one, the oldest first: so however many hang, a
//! client that sends a request at once, as browsers and proxies do, gets its answer. For the same reason an address with
//! too many unfinished connections loses its oldest one, and is never refused a new one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::web::origin::Origin;

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stage {
    /// It has got its answer, and is about to be closed.
    Leaving,
    /// Its request is not there in full.
    Unfinished,
    /// It is being sent its answer.
    Answered,
}

/// The connections that can be given up. Numbers rise with age: a higher one is younger.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// In the order in which they are given up.
    stages: BTreeSet<(Stage, u64)>,
    stage_of: HashMap<u64, (Stage, Option<Origin>)>,
    unfinished: BTreeMap<Origin, BTreeSet<u64>>,
}

impl Places {
    /// Notes where a connection stands; `None` means that it can't be given up now. Gives the connection that must go
    /// when its origin has more than `most` unfinished ones. Trusted proxies have no origin, and no such limit.
    pub(crate) fn note(
        &mut self,
        id: u64,
        stage: Option<Stage>,
        origin: Option<Origin>,
        most: usize,
    ) -> Option<u64> {
        self.forget(id);
        let stage = stage?;
        self.stages.insert((stage, id));
        self.stage_of.insert(id, (stage, origin));
        if stage != Stage::Unfinished {
            return None;
        }
        let same = self.unfinished.entry(origin?).or_default();
        same.insert(id);
        same.first().copied().filter(|_| same.len() > most)
    }

    /// A connection that is closed, or can't be given up now.
    pub(crate) fn forget(&mut self, id: u64) {
        let Some((stage, origin)) = self.stage_of.remove(&id) else {
            return;
        };
        self.stages.remove(&(stage, id));
        if let Some(origin) = origin
            && let Some(same) = self.unfinished.get_mut(&origin)
        {
            same.remove(&id);
            if same.is_empty() {
                self.unfinished.remove(&origin);
            }
        }
    }

    /// The connection that goes next.
    pub(crate) fn first_to_go(&self) -> Option<u64> {
        self.stages.first().map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn origin(text: &str) -> Option<Origin> {
        Some(text.parse::<IpAddr>().unwrap().into())
    }

    #[test]
    fn those_that_leave_go_first_then_the_oldest_unfinished() {
        let mut places = Places::default();
        let a = origin("192.0.2.1");
        places.note(1, Some(Stage::Answered), a, 9);
        places.note(2, Some(Stage::Unfinished), a, 9);
        places.note(3, Some(Stage::Unfinished), a, 9);
        places.note(4, Some(Stage::Leaving), a, 9);
        for expected in [4, 2, 3, 1] {
            assert_eq!(places.first_to_go(), Some(expected));
            places.forget(expected);
        }
        assert_eq!(places.first_to_go(), None);
        assert!(places.unfinished.is_empty() && places.stage_of.is_empty());
    }

    #[test]
    fn a_request_that_is_carried_out_keeps_its_place() {
        let mut places = Places::default();
        places.note(1, Some(Stage::Unfinished), None, 9);
        places.note(1, None, None, 9);
        assert_eq!(places.first_to_go(), None);
    }

    #[test]
    fn an_address_with_too_many_loses_its_oldest_and_a_proxy_none() {
        let mut places = Places::default();
        let (a, b) = (origin("192.0.2.1"), origin("192.0.2.2"));
        let unfinished = Some(Stage::Unfinished);
        assert_eq!(places.note(1, unfinished, b, 2), None);
        assert_eq!(places.note(2, unfinished, a, 2), None);
        assert_eq!(places.note(3, unfinished, a, 2), None);
        assert_eq!(places.note(4, unfinished, a, 2), Some(2));
        places.forget(2);
        places.note(3, Some(Stage::Answered), a, 2);
        assert_eq!(places.note(5, unfinished, a, 2), None);
        for id in 10..20 {
            assert_eq!(places.note(id, unfinished, None, 2), None);
        }
    }
}
