//! Complete requests that wait for their turn: clients take turns, not requests. Pure.
//!
//! So a client with a thousand requests delays another one by at most one request for each place, and never takes all
//! places.

use std::collections::{HashMap, VecDeque};

use crate::web::origin::Origin;

/// One line for each client.
#[derive(Debug)]
pub(crate) struct Line<T> {
    waiting: HashMap<Origin, VecDeque<T>>,
    /// Clients with something in `waiting`, the next one first; each is here once.
    turns: VecDeque<Origin>,
    /// Requests of a client under way; no entry is zero.
    under_way: HashMap<Origin, usize>,
    /// Of one client at the same time.
    share: usize,
}

impl<T> Line<T> {
    /// An empty one; of one client `share` requests may be under way.
    pub(crate) fn new(share: usize) -> Self {
        Self {
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            under_way: HashMap::new(),
            share,
        }
    }

    /// Adds a request.
    pub(crate) fn push(&mut self, origin: Origin, request: T) {
        let own = self.waiting.entry(origin).or_default();
        if own.is_empty() {
            self.turns.push_back(origin);
        }
        own.push_back(request);
    }

    /// The next request, which is under way from now on until [`Line::done`].
    pub(crate) fn pop(&mut self) -> Option<(Origin, T)> {
        for _ in 0..self.turns.len() {
            let origin = self.turns.pop_front()?;
            if self
                .under_way
                .get(&origin)
                .is_some_and(|n| *n >= self.share)
            {
                self.turns.push_back(origin);
                continue;
            }
            let own = self.waiting.get_mut(&origin)?;
            let request = own.pop_front()?;
            if own.is_empty() {
                self.waiting.remove(&origin);
            } else {
                self.turns.push_back(origin);
            }
            *self.under_way.entry(origin).or_default() += 1;
            return Some((origin, request));
        }
        None
    }

    /// One request of this client is answered.
    pub(crate) fn done(&mut self, origin: Origin) {
        if let Some(count) = self.under_way.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(&origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn origin(last: u8) -> Origin {
        IpAddr::from(Ipv4Addr::new(192, 0, 2, last)).into()
    }

    #[test]
    fn clients_take_turns() {
        let mut line = Line::new(100);
        for request in 0..50 {
            line.push(origin(1), request);
        }
        line.push(origin(2), 100);
        line.push(origin(2), 101);
        let order: Vec<i32> = std::iter::from_fn(|| line.pop()).map(|(_, r)| r).collect();
        assert_eq!(order[..5], [0, 100, 1, 101, 2]);
        assert_eq!(order.len(), 52);
        assert!(line.turns.is_empty() && line.waiting.is_empty());
    }

    #[test]
    fn one_client_has_no_more_than_its_share() {
        let mut line = Line::new(2);
        for request in 0..5 {
            line.push(origin(1), request);
        }
        assert_eq!(line.pop(), Some((origin(1), 0)));
        assert_eq!(line.pop(), Some((origin(1), 1)));
        assert_eq!(line.pop(), None);
        line.push(origin(2), 9);
        assert_eq!(line.pop(), Some((origin(2), 9)));
        line.done(origin(1));
        assert_eq!(line.pop(), Some((origin(1), 2)));
        for origin in [origin(1), origin(1), origin(2)] {
            line.done(origin);
        }
        assert!(line.under_way.is_empty());
    }
}
