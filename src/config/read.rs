//! From text and environment to a [`Config`]: names, types and ranges, each error with its line or variable and what
//! would be right (pure).

use std::collections::BTreeMap;

use serde::{Deserialize as _, Deserializer};
use toml::{Table, Value};

use super::environment::{self, Setting};
use super::{Config, DEFAULT_FILE};
use crate::address::Address;

/// Keys whose default can't be right for anyone.
const REQUIRED: [(&str, &str); 4] = [
    ("senders", "internal"),
    ("link", "base_url"),
    ("notification", "from_address"),
    ("notification", "admin_contact"),
];

/// Empty text is no address at all.
pub(super) fn optional_address<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Address>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// The shipped file, as a table.
pub(super) fn defaults() -> Result<Table, Problem> {
    DEFAULT_FILE
        .parse()
        .map_err(|error: toml::de::Error| Problem::new(error.to_string()))
}

/// Checks the text of a configuration file together with the environment, whose word comes first.
pub(super) fn parse(text: &str, variables: &BTreeMap<String, String>) -> Result<Config, Problem> {
    let given: Table = text.parse().map_err(|error: toml::de::Error| Problem {
        place: Place::File(error.span().map(|span| line_at(text, span.start))),
        message: error.message().to_owned(),
    })?;
    let defaults = defaults()?;
    check_names(text, &given, &defaults)?;
    let own_word = |section: &str, key: &str| {
        let value = given.get(section).and_then(|table| table.get(key));
        value.is_some_and(|value| value.as_str() != Some(""))
    };
    let mut settings = environment::settings(variables, &defaults)?;
    // An older name stands in for a key that is not its own only where that has no value.
    settings.retain(|one| !one.is_stand_in() || !own_word(&one.section, &one.key));
    for (section, key) in REQUIRED {
        let in_file = given
            .get(section)
            .is_some_and(|table| table.get(key).is_some());
        if !in_file && !settings.iter().any(|one| one.is(section, key)) {
            return Err(Problem::new(format!(
                "{section}.{key} is missing: it has no default that could be right for you; give it here or as {}",
                environment::variable(section, key)
            )));
        }
    }
    let mut merged = defaults.clone();
    for (section, key, value) in entries(&given) {
        set(&mut merged, section, key, value.clone());
    }
    for one in &settings {
        set(&mut merged, &one.section, &one.key, one.value.clone());
    }
    let config: Config = merged.try_into().map_err(|error: toml::de::Error| {
        blame(text, &given, &settings, &defaults, error.message())
    })?;
    config.check_ranges().map_err(|(name, message)| {
        let (section, key) = name.split_once('.').unwrap_or_default();
        if let Some(one) = settings.iter().find(|one| one.is(section, key)) {
            return one.problem(&message);
        }
        Problem {
            place: Place::File(line_of(text, section, key)),
            message: format!("{name}: {message}"),
        }
    })?;
    Ok(config)
}

/// Does the environment alone give all that has no default?
pub(super) fn is_enough(variables: &BTreeMap<String, String>) -> Result<bool, Problem> {
    let settings = environment::settings(variables, &defaults()?)?;
    let given = |(section, key)| settings.iter().any(|one| one.is(section, key));
    Ok(REQUIRED.into_iter().all(given))
}

/// Where an error is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In the file, on this line where it is known.
    File(Option<usize>),
    /// In this environment variable.
    Variable(String),
}

/// An error in a configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub place: Place,
    pub message: String,
}

impl Problem {
    fn new(message: String) -> Self {
        Self {
            place: Place::File(None),
            message,
        }
    }
}

pub(super) fn entries(table: &Table) -> impl Iterator<Item = (&str, &str, &Value)> {
    table.iter().flat_map(|(section, body)| {
        let body = body.as_table();
        body.into_iter()
            .flatten()
            .map(move |(key, value)| (section.as_str(), key.as_str(), value))
    })
}

fn set(table: &mut Table, section: &str, key: &str, value: Value) {
    if let Some(body) = table.get_mut(section).and_then(Value::as_table_mut) {
        body.insert(key.to_owned(), value);
    }
}

fn check_names(text: &str, given: &Table, defaults: &Table) -> Result<(), Problem> {
    for (section, body) in given {
        let Some(known) = defaults.get(section).and_then(Value::as_table) else {
            let line = text.lines().position(|line| {
                line.trim_start()
                    .trim_start_matches('[')
                    .starts_with(section.as_str())
            });
            let message = format!(
                "unknown section [{section}]{}",
                suggestion(section, defaults.keys())
            );
            return Err(Problem {
                place: Place::File(line.map(|n| n + 1)),
                message,
            });
        };
        let Some(body) = body.as_table() else {
            return Err(Problem::new(format!(
                "{section} is a section: write it as [{section}]"
            )));
        };
        for key in body.keys() {
            if !known.contains_key(key) {
                let message = format!(
                    "unknown key {key:?} in [{section}]{}",
                    suggestion(key, known.keys())
                );
                return Err(Problem {
                    place: Place::File(line_of(text, section, key)),
                    message,
                });
            }
        }
    }
    Ok(())
}

/// Finds the key that makes a merged configuration fail, by trying each given key alone on top of the defaults:
/// values in a table no longer know where they are from.
fn blame(
    text: &str,
    given: &Table,
    settings: &[Setting],
    defaults: &Table,
    message: &str,
) -> Problem {
    let fault = |section: &str, key: &str, value: &Value| {
        let mut one = defaults.clone();
        set(&mut one, section, key, value.clone());
        one.try_into::<Config>().err()
    };
    for one in settings {
        if let Some(error) = fault(&one.section, &one.key, &one.value) {
            return one.problem(error.message());
        }
    }
    for (section, key, value) in entries(given) {
        if let Some(error) = fault(section, key, value) {
            return Problem {
                place: Place::File(line_of(text, section, key)),
                message: format!("{section}.{key}: {}", error.message()),
            };
        }
    }
    Problem::new(message.to_owned())
}

pub(super) fn suggestion<'a>(word: &str, known: impl Iterator<Item = &'a String>) -> String {
    let nearest = known
        .map(|name| (strsim::jaro_winkler(word, name), name))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, name)) if likeness > 0.75 => format!("; did you mean {name:?}?"),
        _ => "; the shipped posttls.toml has every key".to_owned(),
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.get(..offset).unwrap_or(text).matches('\n').count() + 1
}

fn line_of(text: &str, section: &str, key: &str) -> Option<usize> {
    let mut current = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
        {
            name.trim().clone_into(&mut current);
        } else if current == section
            && line
                .split('=')
                .next()
                .is_some_and(|name| name.trim().trim_matches('"') == key)
        {
            return Some(number + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "senders.internal = [\"*\"]\n[link]\nbase_url = \"https://x.example\"\n[notification]\nfrom_address = \"a@x.example\"\nadmin_contact = \"b\"\n";

    fn read(text: &str) -> Result<Config, Problem> {
        parse(text, &BTreeMap::new())
    }

    #[test]
    fn the_shipped_example_is_a_whole_configuration() {
        let config = read(DEFAULT_FILE).unwrap();
        assert_eq!(config.case_url("T"), "https://posttls.example.org/c/T");
    }

    #[test]
    fn what_is_left_out_keeps_its_default() {
        let config = read(MINIMAL).unwrap();
        assert_eq!(config.notification.smtp_port, 25);
        assert_eq!(config.notification.from_address.as_str(), "a@x.example");
    }

    #[test]
    fn errors_name_the_line_and_what_would_be_right() {
        let cases = [
            (
                "[notification]\nsmtp_prot = 25\n",
                Some(8),
                "unknown key \"smtp_prot\" in [notification]; did you mean \"smtp_port\"?",
            ),
            (
                "[sotre]\npath = \"/x\"\n",
                Some(7),
                "unknown section [sotre]; did you mean \"store\"?",
            ),
            (
                "[http]\nlisten = \"nowhere\"\n",
                Some(8),
                "http.listen: invalid socket address syntax",
            ),
            ("[link]\nvalid_days = 366\n", None, "duplicate key"),
            (
                "[mover]\nworkers = 0\n",
                Some(8),
                "mover.workers: must be from 1 to 64",
            ),
            (
                "[offer]\nfailures = [\"not-tls\"]\n",
                Some(8),
                "offer.failures: not-tls can't be offered to senders",
            ),
            (
                "[store]\npath = \"relative\"\n",
                Some(8),
                "store.path: \"relative\" must be an absolute path",
            ),
            (
                "[notification]\nlanguage = \"fr\"\n",
                Some(8),
                "notification.language: unknown language \"fr\"; there are texts in \"en\", \"de\"",
            ),
            (
                "[notification]\nlanguages = { \"example.de\" = \"german\" }\n",
                Some(8),
                "notification.languages: unknown language \"german\"",
            ),
            ("[log]\ntarget = \n", Some(8), ""),
        ];
        for (text, line, message) in cases {
            let text = match text.strip_prefix("[notification]\n") {
                Some(rest) => format!("{MINIMAL}\n{rest}"),
                None => format!("{MINIMAL}{text}"),
            };
            let problem = read(&text).unwrap_err();
            assert!(problem.message.contains(message), "{text}: {problem:?}");
            if line.is_some() {
                assert_eq!(problem.place, Place::File(line), "{text}: {problem:?}");
            }
        }
    }

    #[test]
    fn a_configuration_from_before_reply_to_can_still_be_read() {
        assert_eq!(read(MINIMAL).unwrap().notification.reply_to, None);
        let text = format!("{MINIMAL}reply_to = \"help@x.example\"\n");
        let reply_to = read(&text).unwrap().notification.reply_to;
        assert_eq!(reply_to, "help@x.example".parse().ok());
        let text = format!("{MINIMAL}reply_to = \"nonsense\"\n");
        let problem = read(&text).unwrap_err();
        assert!(
            problem.message.starts_with("notification.reply_to: "),
            "{problem:?}"
        );
    }

    #[test]
    fn mail_needs_an_address_that_it_can_come_from() {
        let text = MINIMAL.replace("a@x.example", "nonsense");
        let problem = read(&text).unwrap_err();
        let expected = "notification.from_address: nonsense has no domain";
        assert!(problem.message.starts_with(expected), "{problem:?}");
    }

    #[test]
    fn the_nearest_domain_says_the_language() {
        let text = format!(
            "{MINIMAL}languages = {{ \"example.de\" = \"de\", \"en.example.de\" = \"en\", \"bücher.example\" = \"de\" }}\n"
        );
        let notification = read(&text).unwrap().notification;
        for (address, code) in [
            ("a@example.de", "de"),
            ("a@mail.EXAMPLE.de", "de"),
            ("a@x.en.example.de", "en"),
            ("a@badexample.de", "en"),
            ("a@xn--bcher-kva.example", "de"),
            ("a@[192.0.2.1]", "en"),
        ] {
            let language = notification.language_of(&address.parse().unwrap());
            assert_eq!(language.code(), code, "{address}");
        }
    }

    #[test]
    fn required_keys_are_asked_for() {
        assert!(
            read("senders.internal = []")
                .unwrap_err()
                .message
                .contains("link.base_url is missing")
        );
    }
}
