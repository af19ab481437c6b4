//! The sentences of the mails, from the catalogue of a language (pure).
//!
//! A catalogue is a tree of texts; a text is named by its path, with dots. `{name}` in it is filled in once: what is
//! filled in is never looked through for more.

use jiff::Timestamp;
use toml::{Table, Value};

use crate::case::Failure;
use crate::language::Language;
use crate::text::local_zone;

/// The texts of one language.
#[derive(Debug, Clone, Copy)]
pub struct Texts(&'static Table);

/// A text that can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// No catalogue has it.
    #[error("there is no text {0:?} in the catalogue")]
    Missing(String),
    /// It needs a value that was not given.
    #[error("the text {key:?} needs a value for {{{name}}}")]
    Value {
        /// Its name.
        key: String,
        /// What is missing.
        name: String,
    },
}

impl Texts {
    /// The texts of a language.
    pub fn of(language: Language) -> Self {
        Self(language.of_mails())
    }

    fn find(self, key: &str) -> Option<&'static Value> {
        let mut parts = key.split('.');
        let first = self.0.get(parts.next()?);
        parts.try_fold(first?, |found, part| found.get(part))
    }

    /// A text with its values filled in. A value `n` chooses between "one" and "other", where the text has both.
    ///
    /// # Errors
    /// When there is no such text, or it needs a value that is not given.
    pub fn text(&self, key: &str, values: &[(&str, &str)]) -> Result<String, TextError> {
        let given = |name: &str| {
            values
                .iter()
                .find(|(known, _)| *known == name)
                .map(|one| one.1)
        };
        let number = if given("n") == Some("1") {
            "one"
        } else {
            "other"
        };
        let pattern = self
            .find(key)
            .and_then(|found| found.as_str().or_else(|| found.get(number)?.as_str()))
            .ok_or_else(|| TextError::Missing(key.to_owned()))?;
        let mut filled = String::with_capacity(pattern.len() + 80);
        let mut rest = pattern;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            filled.push_str(given(name).ok_or_else(|| TextError::Value {
                key: key.to_owned(),
                name: name.to_owned(),
            })?);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    /// The reason in words for people who don't run mail servers.
    ///
    /// # Errors
    /// When the catalogue lacks it.
    pub fn reason(&self, failure: Failure) -> Result<String, TextError> {
        self.text(&format!("reason.{failure}"), &[])
    }

    /// A moment, in Unix seconds, as people read it; in the time zone of this system.
    ///
    /// # Errors
    /// When the catalogue lacks it.
    pub fn moment(&self, seconds: i64) -> Result<String, TextError> {
        let zoned = Timestamp::from_second(seconds)
            .unwrap_or_default()
            .to_zoned(local_zone());
        let of = |list: &str, place: i8| {
            self.find(list)
                .and_then(|items| items.get(usize::try_from(place).ok()?)?.as_str())
                .ok_or_else(|| TextError::Missing(list.to_owned()))
        };
        self.text(
            "moment.format",
            &[
                (
                    "weekday",
                    of("moment.weekdays", zoned.weekday().to_monday_zero_offset())?,
                ),
                ("day", &zoned.day().to_string()),
                ("month", of("moment.months", zoned.month() - 1)?),
                ("year", &zoned.year().to_string()),
                ("time", &zoned.strftime("%H:%M").to_string()),
                ("zone", &zoned.strftime("%Z").to_string()),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every single text, with its path.
    fn walk(path: &str, value: &Value, into: &mut Vec<(String, String)>) {
        if let Some(table) = value.as_table() {
            for (key, below) in table {
                walk(&format!("{path}.{key}"), below, into);
            }
        } else if let Some(text) = value.as_str() {
            into.push((path.to_owned(), text.to_owned()));
        }
    }

    #[test]
    fn every_language_has_what_is_asked_for_by_name_and_no_markup() {
        for language in Language::all() {
            let texts = Texts::of(language);
            let mut all = Vec::new();
            walk("", &Value::Table(texts.0.clone()), &mut all);
            assert!(all.len() > 80, "{language}: {}", all.len());
            for (key, text) in all {
                let plain = !text.contains(['<', '>', '&', '\n']);
                assert!(plain, "{language}: {key}: no markup");
            }
            let items = |key| texts.find(key).and_then(Value::as_array).map(Vec::len);
            assert_eq!(items("moment.weekdays"), Some(7), "{language}");
            assert_eq!(items("moment.months"), Some(12), "{language}");
            for failure in Failure::ALL {
                texts.reason(*failure).unwrap();
            }
            for kind in crate::case::alert::Kind::ALL {
                for about in ["what", "advice"] {
                    texts
                        .text(&format!("alert.{about}.{}", kind.as_str()), &[])
                        .unwrap();
                }
            }
        }
    }

    #[test]
    fn values_are_filled_in_once() {
        let texts = Texts::of("en".parse().unwrap());
        let subject = texts.text("notification.subject", &[("subject", "{n} {subject} }{")]);
        assert_eq!(subject.unwrap(), "Not sent yet: {n} {subject} }{");
        let text = |n: &str| texts.text("digest.more", &[("n", n)]).unwrap();
        assert_eq!(text("1"), "One more message is on the page.");
        assert_eq!(text("2"), "2 more messages are on the page.");
        assert_eq!(
            texts.text("nothing", &[]),
            Err(TextError::Missing("nothing".to_owned()))
        );
        assert!(matches!(
            texts.text("notification.subject", &[]),
            Err(TextError::Value { .. })
        ));
    }

    #[test]
    fn moments_are_in_the_language() {
        let moment = |code: &str| {
            Texts::of(code.parse().unwrap())
                .moment(1_795_000_000)
                .unwrap()
        };
        let zone = local_zone();
        let zoned = Timestamp::from_second(1_795_000_000)
            .unwrap()
            .to_zoned(zone);
        let day = zoned.day();
        assert!(
            moment("en").contains(&format!(", {day} November 2026, ")),
            "{}",
            moment("en")
        );
        assert!(
            moment("de").contains(&format!(", {day}. November 2026, ")),
            "{}",
            moment("de")
        );
        assert!(moment("de").contains(" Uhr ("), "{}", moment("de"));
    }
}
