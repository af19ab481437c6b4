//! What a round does, all of it from the round's seed: who sends what to whom, and who decides how. Apart so that load,
//! deciders and verdict speak of the same senders and domains.

use fastrand::Rng;

/// What the world does with mail for a domain, and so what may become of a recipient there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Goes out over TLS by itself.
    Tls,
    /// Has no usable TLS: waits for the sender.
    Stuck,
    /// As [`Fate::Stuck`], and its certificate is not trusted: may be deleted or kept only.
    NeverSent,
    /// As [`Fate::Stuck`], and the domain becomes mandatory midway.
    Mandatory,
    /// As [`Fate::Stuck`] at first; gets TLS midway.
    Turns,
    /// Refused for good by a server with TLS.
    Refused,
    /// Has no TLS, and refuses what it is sent.
    StuckThenRefused,
    /// Not now, says a server with TLS, each time.
    Busy,
}

/// A domain, its fate, the domain of the sandbox whose server it shares, and how often it is written to.
pub struct Domain {
    pub name: &'static str,
    pub fate: Fate,
    pub server: &'static str,
    weight: usize,
}

const fn domain(name: &'static str, fate: Fate, server: &'static str, weight: usize) -> Domain {
    Domain {
        name,
        fate,
        server,
        weight,
    }
}

pub const MANDATORY: &str = "bank.test";
pub const TURNING: &str = "turn.test";
/// What the sender with a remembered choice has it for.
pub const TRUSTED: &str = "refuse.test";

pub const DOMAINS: [Domain; 13] = [
    domain("plain.test", Fate::Stuck, "plain.test", 28),
    domain("refuse.test", Fate::Stuck, "refuse.test", 14),
    domain("refuse5.test", Fate::Stuck, "refuse5.test", 7),
    domain("broken.test", Fate::Stuck, "broken.test", 12),
    domain("tls.test", Fate::Tls, "tls.test", 14),
    domain(MANDATORY, Fate::Mandatory, "plain.test", 7),
    domain(TURNING, Fate::Turns, "plain.test", 6),
    domain("cert.test", Fate::NeverSent, "cert.test", 4),
    domain("slow.test", Fate::Tls, "slow.test", 1),
    domain("slowplain.test", Fate::Stuck, "slowplain.test", 1),
    domain("gone.test", Fate::Refused, "tls.test", 3),
    domain("goneplain.test", Fate::StuckThenRefused, "plain.test", 3),
    domain("busy.test", Fate::Busy, "tls.test", 2),
];

/// The domain of an address.
pub fn domain_of(address: &str) -> &'static Domain {
    let name = address.rsplit('@').next().unwrap_or_default();
    let found = DOMAINS.iter().find(|domain| domain.name == name);
    found.unwrap_or_else(|| panic!("{address} is not one of this campaign"))
}

/// How a sender decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// On the page of all messages.
    Bulk,
    /// On the pages of single messages.
    Each,
    /// On both.
    Both,
    /// Has a choice remembered for [`TRUSTED`], and decides about the rest now and then.
    Trusts,
    /// Never.
    Never,
}

pub const SENDERS: [(&str, Habit); 8] = [
    ("bulk1@sender.test", Habit::Bulk),
    ("each1@sender.test", Habit::Each),
    ("both1@sender.test", Habit::Both),
    ("never@sender.test", Habit::Never),
    ("trusts@sender.test", Habit::Trusts),
    ("each2@sender.test", Habit::Each),
    ("bulk2@sender.test", Habit::Bulk),
    ("each3@sender.test", Habit::Each),
];

/// A generator for one actor of the round: what another one draws changes nothing for it.
pub fn rng(seed: u64, actor: &str) -> Rng {
    let mut mixed = seed ^ 0x9e37_79b9_7f4a_7c15;
    for byte in actor.bytes() {
        mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    Rng::with_seed(mixed)
}

/// A message that is to be sent.
pub struct Message {
    pub from: &'static str,
    pub to: Vec<String>,
    pub text: Vec<u8>,
}

/// Message `number` of an actor; `tag` keeps its addresses apart from those of any other message.
pub fn message(rng: &mut Rng, tag: &str) -> Message {
    let (from, _) = SENDERS[rng.usize(..SENDERS.len())];
    let count = match rng.usize(..100) {
        0..80 => rng.usize(1..=5),
        80..95 => rng.usize(6..=15),
        _ => rng.usize(16..=50),
    };
    let total: usize = DOMAINS.iter().map(|domain| domain.weight).sum();
    // Messages of one domain only, and wild mixtures.
    let favourite = rng.bool().then(|| draw(rng, total));
    let to = (0..count)
        .map(|n| {
            let name = favourite.filter(|_| rng.usize(..10) < 7);
            let name = name.unwrap_or_else(|| draw(rng, total));
            format!("{tag}-{n}@{name}")
        })
        .collect();
    let length = match rng.usize(..50) {
        0 => rng.usize(100_000..400_000),
        1..10 => rng.usize(5_000..40_000),
        _ => rng.usize(50..3_000),
    };
    let mut text = format!("From: {from}\r\nSubject: {tag}\r\n\r\n");
    while text.len() < length {
        text.push_str("All work and no play makes a line of a body.\r\n");
    }
    Message {
        from,
        to,
        text: text.into_bytes(),
    }
}

fn draw(rng: &mut Rng, total: usize) -> &'static str {
    let mut left = rng.usize(..total);
    for domain in &DOMAINS {
        if left < domain.weight {
            return domain.name;
        }
        left -= domain.weight;
    }
    unreachable!("the weights sum up to the total")
}
