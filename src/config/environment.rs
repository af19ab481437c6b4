//! Keys of the configuration given as environment variables: `POSTTLS_<SECTION>_<KEY>`, and the older PostTLS's names
//! (pure). Apart from the file's reading, as text from the environment has no types: the shipped file says which is
//! meant.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::read::{Place, Problem, entries, suggestion};

/// What every variable that is looked at begins with.
pub(super) const PREFIX: &str = "POSTTLS_";

/// Variables that begin so and are no keys: the path of the file itself, and what the tests of PostTLS read.
const OTHERS: [&str; 4] = [
    "POSTTLS_CONFIG",
    "POSTTLS_NO_BROWSER",
    "POSTTLS_SCREENSHOTS",
    "POSTTLS_TEST_AS_NOBODY",
];

/// The older PostTLS had one address for those whom senders ask and those whom it writes to.
const CONTACT: &str = "POSTTLS_NOTIFICATION_SYSADMIN_MAIL_ADDRESS";
const STAND_IN: &str = "admin_address";

/// Names of the older PostTLS, each with the key that it gives. (Its POSTTLS_NOTIFICATION_SMTP_HOST is ours, too.)
const OLDER: [(&str, &str, &str); 3] = [
    (
        "POSTTLS_NOTIFICATION_SENDER",
        "notification",
        "from_address",
    ),
    (CONTACT, "notification", "admin_contact"),
    ("POSTTLS_TLS_HOST", "link", "base_url"),
];

/// A key that the environment gives.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    pub section: String,
    pub key: String,
    pub value: Value,
    /// The variable that gave it.
    pub variable: String,
}

impl Setting {
    /// Does it give this key?
    pub(super) fn is(&self, section: &str, key: &str) -> bool {
        self.section == section && self.key == key
    }

    /// Is the key one that the variable gives only where nobody else does?
    pub(super) fn is_stand_in(&self) -> bool {
        self.key == STAND_IN && self.variable == CONTACT
    }

    /// An error in its value.
    pub(super) fn problem(&self, message: &str) -> Problem {
        let (section, key) = (&self.section, &self.key);
        Problem {
            place: Place::Variable(self.variable.clone()),
            message: format!("{section}.{key}: {message}"),
        }
    }
}

/// The variable of a key.
pub(super) fn variable(section: &str, key: &str) -> String {
    format!(
        "{PREFIX}{}_{}",
        section.to_uppercase(),
        key.to_uppercase().replace('-', "_")
    )
}

/// Finds the keys that `variables` give. `defaults` is the shipped file: it says which keys there are, and their types.
pub(super) fn settings(
    variables: &BTreeMap<String, String>,
    defaults: &Table,
) -> Result<Vec<Setting>, Problem> {
    if variables.is_empty() {
        return Ok(Vec::new());
    }
    let known: BTreeMap<String, (&str, &str, &Value)> = entries(defaults)
        .map(|(section, key, value)| (variable(section, key), (section, key, value)))
        .collect();
    let mut found: Vec<Setting> = Vec::new();
    for (name, text) in variables {
        if !name.starts_with(PREFIX) || OTHERS.contains(&name.as_str()) {
            continue;
        }
        let problem = |message| Problem {
            place: Place::Variable(name.clone()),
            message,
        };
        if let Some((section, key, default)) = known.get(name) {
            found.push(Setting {
                section: (*section).to_owned(),
                key: (*key).to_owned(),
                value: typed(text, default).map_err(problem)?,
                variable: name.clone(),
            });
        } else if let Some((_, section, key)) = OLDER.iter().find(|(older, ..)| older == name) {
            found.push(Setting {
                section: (*section).to_owned(),
                key: (*key).to_owned(),
                value: Value::String(older_form(key, text)),
                variable: name.clone(),
            });
        } else {
            let names: Vec<String> = known
                .keys()
                .cloned()
                .chain(OLDER.map(|(older, ..)| older.to_owned()))
                .collect();
            let message = format!("unknown variable{}", suggestion(name, names.iter()));
            return Err(problem(message));
        }
    }
    agree(&mut found)?;
    if let Some(text) = variables.get(CONTACT)
        && !found.iter().any(|one| one.key == STAND_IN)
    {
        found.push(Setting {
            section: "notification".to_owned(),
            key: STAND_IN.to_owned(),
            value: Value::String(text.clone()),
            variable: CONTACT.to_owned(),
        });
    }
    Ok(found)
}

/// A key by its old and its new name must be one value; it is then given by the new one.
fn agree(found: &mut Vec<Setting>) -> Result<(), Problem> {
    for (older, section, key) in OLDER {
        let newer = variable(section, key);
        let value = |name: &str| {
            let one = found.iter().find(|one| one.variable == name)?;
            Some(one.value.as_str()?.trim_end_matches('/').to_owned())
        };
        if let (Some(old), Some(new)) = (value(older), value(&newer)) {
            if old != new {
                return Err(Problem {
                    place: Place::Variable(older.to_owned()),
                    message: format!(
                        "{old:?} differs from {newer} = {new:?}, and both give {section}.{key}: keep {newer} only"
                    ),
                });
            }
            found.retain(|one| one.variable != older);
        }
    }
    Ok(())
}

/// The older PostTLS had a bare host name where we have a URL.
fn older_form(key: &str, text: &str) -> String {
    if key == "base_url" && !text.contains("://") {
        format!("https://{text}")
    } else {
        text.to_owned()
    }
}

/// Text as a value of the same type as `like`.
fn typed(text: &str, like: &Value) -> Result<Value, String> {
    let toml = |expected: &str| {
        let parsed: Result<Table, _> = format!("value = {text}").parse();
        parsed
            .ok()
            .filter(|table| table.len() == 1)
            .and_then(|mut table| table.remove("value"))
            .ok_or_else(|| format!("{text:?} is not {expected}"))
    };
    match like {
        Value::String(_) => Ok(Value::String(text.to_owned())),
        Value::Integer(_) => text
            .trim()
            .parse()
            .map(Value::Integer)
            .map_err(|_| format!("{text:?} is not a whole number")),
        Value::Boolean(_) => text
            .trim()
            .parse()
            .map(Value::Boolean)
            .map_err(|_| format!("{text:?} is neither \"true\" nor \"false\"")),
        Value::Array(_) if text.trim_start().starts_with('[') => {
            toml("a TOML array, such as [\"a\", \"b\"]")
        }
        Value::Array(items) => {
            let item = items
                .first()
                .cloned()
                .unwrap_or(Value::String(String::new()));
            text.split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(|word| typed(word, &item))
                .collect::<Result<_, _>>()
                .map(Value::Array)
        }
        Value::Table(_) if text.trim().is_empty() => Ok(Value::Table(Table::new())),
        Value::Table(_) => toml("a TOML table, such as { \"example.de\" = \"de\" }"),
        Value::Float(_) | Value::Datetime(_) => toml("a TOML value"),
    }
}
