//! The two instances must send the same way, or released mail dies where other mail does not: what the may instance needs
//! for that, derived from what the encrypt instance has (pure). [`Side`] asks Postfix, and carries it out.
//!
//! Values are compared, and written, with every `$name` expanded: a file beside the encrypt instance's main.cf is that
//! file in both, and a parameter of the admin's own need not exist in the may instance.

mod rules;
mod side;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::settings::list;
pub use side::{Side, apply, back_up};

/// A service of master.cf that runs smtp(8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// First column.
    pub name: String,
    /// The columns from the third on, the program included: `- - y - - smtp`.
    pub columns: String,
    /// Arguments that are no `-o`.
    pub arguments: Vec<String>,
    /// What its `-o` say, expanded.
    pub options: BTreeMap<String, String>,
    /// The same as it is written.
    pub written: BTreeMap<String, String>,
}

/// How a difference is mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// `postconf -e`, with this value.
    Set(String),
    /// `postconf -X`.
    Unset,
    /// `postconf -M`, with this entry.
    Service(String),
    /// By the admin, for this reason.
    ByHand(&'static str),
}

/// What the may instance has otherwise than the encrypt instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The parameter, or the service: `relayhost`, `slow/unix`.
    pub name: String,
    /// What the encrypt instance has, for people.
    pub encrypt: String,
    /// What the may instance has, for people.
    pub may: String,
    /// What to do.
    pub remedy: Remedy,
}

/// What the encrypt instance sets and the may instance need not have, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The parameter.
    pub name: String,
    /// Why.
    pub why: String,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What must be mended.
    pub differences: Vec<Difference>,
    /// What is left alone.
    pub left: Vec<Left>,
}

/// Compares the ways out of both instances. `own` are the parameters and services that the admin wants to differ.
pub fn compare(encrypt: &Side, may: &Side, own: &[String]) -> Comparison {
    let mut found = Comparison::default();
    let transports: Vec<&str> = encrypt
        .clients
        .iter()
        .map(|client| client.name.as_str())
        .collect();
    let names: BTreeSet<&String> = encrypt.explicit.union(&may.explicit).collect();
    for name in names {
        let leave = |why: &str| Left {
            name: name.clone(),
            why: why.to_owned(),
        };
        if let Some(why) = rules::own(name) {
            if encrypt.explicit.contains(name) {
                found.left.push(leave(why));
            }
        } else if rules::is_alike(name, &transports) {
            match parameter(name, encrypt, may) {
                Some(_) if own.contains(name) => found.left.push(leave(BY_WISH)),
                difference => found.differences.extend(difference),
            }
        }
    }
    for client in &encrypt.clients {
        let id = format!("{}/unix", client.name);
        match service(&id, client, encrypt, may, &transports) {
            Some(_) if own.contains(&id) => found.left.push(Left {
                name: id,
                why: BY_WISH.to_owned(),
            }),
            difference => found.differences.extend(difference),
        }
    }
    found
}

const BY_WISH: &str = "may.own_settings names it";

fn parameter(name: &str, encrypt: &Side, may: &Side) -> Option<Difference> {
    let theirs = encrypt.values.get(name).map_or("", String::as_str);
    let wanted = wanted(name, theirs, encrypt, may);
    let ours = may.values.get(name).map(String::as_str);
    let same = ours.is_some_and(|ours| is_same(name, &wanted, ours));
    if same || (ours.is_none() && wanted.is_empty()) {
        return None;
    }
    let remedy = match rules::by_hand(name, theirs) {
        _ if !encrypt.explicit.contains(name) => Remedy::Unset,
        Some(why) => Remedy::ByHand(why),
        None => Remedy::Set(wanted.clone()),
    };
    Some(Difference {
        name: name.to_owned(),
        encrypt: rules::shown(name, &wanted),
        may: rules::shown(name, ours.unwrap_or_default()),
        remedy,
    })
}

/// What the may instance should have where the encrypt instance has `value`.
fn wanted(name: &str, value: &str, encrypt: &Side, may: &Side) -> String {
    let value = if name == "transport_maps" {
        rules::without_hook(value)
    } else {
        value.to_owned()
    };
    // Databases that Postfix writes are each instance's own.
    below(
        &value,
        &encrypt.data_directory,
        &may.data_directory.to_string_lossy(),
    )
}

/// `text` with every path below `from` put below `to`.
fn below(text: &str, from: &Path, to: &str) -> String {
    let from = from.to_string_lossy();
    if from.is_empty() || to.is_empty() {
        return text.to_owned();
    }
    text.replace(&format!("{from}/"), &format!("{to}/"))
}

fn is_same(name: &str, wanted: &str, ours: &str) -> bool {
    let hookless;
    let ours = if name == "transport_maps" {
        hookless = rules::without_hook(ours);
        &hookless
    } else {
        ours
    };
    list(wanted) == list(ours)
}

fn service(
    id: &str,
    client: &Client,
    encrypt: &Side,
    may: &Side,
    transports: &[&str],
) -> Option<Difference> {
    let alike = |name: &str| rules::is_alike(name, transports);
    let wanted: BTreeMap<&str, String> = client
        .options
        .iter()
        .filter(|(name, _)| alike(name))
        .map(|(name, value)| (name.as_str(), wanted(name, value, encrypt, may)))
        .collect();
    let there = may.clients.iter().find(|one| one.name == client.name);
    let has: BTreeMap<&str, &String> = there
        .iter()
        .flat_map(|one| &one.options)
        .filter(|(name, _)| alike(name))
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    let same = wanted.len() == has.len()
        && wanted.iter().all(|(name, value)| {
            has.get(name)
                .is_some_and(|has| is_same(name, value, has.as_str()))
        });
    if there.is_some() && same {
        return None;
    }
    let shown = |options: &mut dyn Iterator<Item = (&str, &String)>| {
        let each: Vec<String> = options
            .map(|(name, value)| format!("-o {name}={}", rules::shown(name, value)))
            .collect();
        if each.is_empty() {
            "smtp, without options of its own".to_owned()
        } else {
            format!("smtp {}", each.join(" "))
        }
    };
    let foreign = there.is_none() && may.others.contains(id);
    let hand = client
        .options
        .iter()
        .filter(|(name, _)| alike(name))
        .find_map(|(name, value)| rules::by_hand(name, value));
    let remedy = match hand {
        _ if foreign => Remedy::ByHand("another program has that name in the may instance"),
        Some(why) => Remedy::ByHand(why),
        None => Remedy::Service(entry(client, there, &wanted, transports)),
    };
    Some(Difference {
        name: id.to_owned(),
        encrypt: shown(&mut wanted.iter().map(|(name, value)| (*name, value))),
        may: match there {
            Some(_) => shown(&mut has.iter().map(|(name, value)| (*name, *value))),
            None if foreign => "another program".to_owned(),
            None => "(no such service)".to_owned(),
        },
        remedy,
    })
}

/// The service's entry for the may instance. Options of its own that need not be alike stay as they are written there.
fn entry(
    client: &Client,
    there: Option<&Client>,
    wanted: &BTreeMap<&str, String>,
    transports: &[&str],
) -> String {
    let like = there.unwrap_or(client);
    let mut line = format!("{} unix {}", client.name, like.columns);
    for argument in &like.arguments {
        line += &format!(" {argument}");
    }
    let own = there.iter().flat_map(|one| &one.written);
    for (name, value) in own.filter(|(name, _)| !rules::is_alike(name, transports)) {
        line += &option(name, value);
    }
    for (name, value) in wanted {
        line += &option(name, &literal(value));
    }
    line
}

fn option(name: &str, value: &str) -> String {
    if value.contains([' ', '\t', '{', '}']) {
        format!(" -o {{{name}={value}}}")
    } else {
        format!(" -o {name}={value}")
    }
}

/// A value as it is written into a file, where `$` begins a name.
fn literal(value: &str) -> String {
    value.replace('$', "$$")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
