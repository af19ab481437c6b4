//! What the actors of a round write down as they act: what was sent, what was clicked and answered, who was killed and
//! when. The verdict holds it against what is found afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use posttls::case::store::now_ms;
use posttls::case::{Action, Outcome};
use posttls::sandbox::Instance;

/// A message that the encrypt instance was given.
#[derive(Debug, Clone)]
pub struct Sent {
    pub from: &'static str,
    pub to: Vec<String>,
    /// `None`: the connection broke, and nobody knows whether it was taken. Nobody relies on it then.
    pub queue_id: Option<String>,
}

/// A form, and what was said to it.
#[derive(Debug, Clone)]
pub struct Click {
    pub sender: &'static str,
    /// What it asked for, by recipient.
    pub asked: Vec<(String, Action)>,
    /// About all recipients of the message with this tag.
    pub whole: Option<(String, Action)>,
    /// About all that wait, or all in one domain.
    pub bulk: Option<(Action, Option<String>)>,
    /// What was answered, by recipient; `None` without an answer, or with one of failure.
    pub answered: Option<Vec<(String, Outcome)>>,
}

/// What all addresses of one message begin with.
pub fn tag_of(address: &str) -> &str {
    address.split('-').next().unwrap_or_default()
}

/// Who was killed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// The mover, at any moment.
    Mover,
    /// The mover, at this named point of the move.
    Point(String),
    /// A process that the mover had started: web child, courier, a tool of Postfix.
    Helper(String),
    /// A running `posttls-pipe`.
    Hook,
    /// An instance, with all its processes.
    Instance(Instance),
    /// One process of an instance.
    Service(Instance, String),
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mover => f.write_str("mover"),
            Self::Point(name) => write!(f, "mover at {name}"),
            Self::Helper(name) => f.write_str(name),
            Self::Hook => f.write_str("posttls-pipe"),
            Self::Instance(instance) => write!(f, "Postfix {instance}"),
            Self::Service(instance, name) => write!(f, "{name} of {instance}"),
        }
    }
}

/// When, in Unix milliseconds, and who.
#[derive(Debug, Clone)]
pub struct Kill {
    pub at: i64,
    pub victim: Victim,
}

#[derive(Default)]
pub struct Ledger {
    sent: Mutex<Vec<Sent>>,
    clicks: Mutex<Vec<Click>>,
    kills: Mutex<Vec<Kill>>,
    over: AtomicBool,
    pub turns: Mutex<Turns>,
}

/// Moments of the round, in Unix milliseconds; 0 for not come to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turns {
    /// The domain is on the list of mandatory domains from some moment between these on.
    pub listed: (i64, i64),
    /// The remembered choice has ended at the latest then.
    pub revoked: i64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    pub fn sent(&self, one: Sent) {
        lock(&self.sent).push(one);
    }

    pub fn clicked(&self, one: Click) {
        lock(&self.clicks).push(one);
    }

    pub fn killed(&self, victim: Victim) {
        let at = now_ms();
        lock(&self.kills).push(Kill { at, victim });
    }

    pub fn all_sent(&self) -> Vec<Sent> {
        lock(&self.sent).clone()
    }

    pub fn clicks(&self) -> Vec<Click> {
        lock(&self.clicks).clone()
    }

    pub fn kills(&self) -> Vec<Kill> {
        lock(&self.kills).clone()
    }

    pub fn messages(&self) -> usize {
        lock(&self.sent).len()
    }

    pub fn kills_by_victim(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for kill in lock(&self.kills).iter() {
            *counts.entry(kill.victim.to_string()).or_default() += 1;
        }
        counts
    }

    pub fn turns(&self) -> Turns {
        *lock(&self.turns)
    }

    /// Everybody stops at the next opportunity.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Sleeps between so many milliseconds, or until all is over. Whether it is not.
    pub fn nap(&self, rng: &mut fastrand::Rng, least: u64, most: u64) -> bool {
        let end = Instant::now() + Duration::from_millis(rng.u64(least..=most));
        while !self.is_over() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(Duration::from_millis(100)));
        }
        false
    }
}
