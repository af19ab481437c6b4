//! The languages that mails are written in. One list, so that configuration, mails and tests agree.
//!
//! A language is added by adding its catalogue of texts and a line to `CATALOGUES`.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// The code of each language (RFC 5646), and the catalogue of the mails.
const CATALOGUES: &[(&str, &str)] = &[
    ("en", include_str!("notify/texts/en.toml")),
    ("de", include_str!("notify/texts/de.toml")),
];

/// A language that there are texts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Language(usize);

/// A code that no language here has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown language {0:?}; there are texts in {known}", known = names())]
pub struct UnknownLanguage(pub String);

fn names() -> String {
    let quoted: Vec<String> = CATALOGUES
        .iter()
        .map(|(code, _)| format!("{code:?}"))
        .collect();
    quoted.join(", ")
}

impl Language {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..CATALOGUES.len()).map(Self)
    }

    /// Its code.
    pub fn code(self) -> &'static str {
        CATALOGUES[self.0].0
    }

    /// The catalogue of the mails, as TOML.
    pub fn catalogue(self) -> &'static str {
        CATALOGUES[self.0].1
    }
}

impl std::str::FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(text: &str) -> Result<Self, UnknownLanguage> {
        let unknown = || UnknownLanguage(text.chars().take(40).collect());
        Self::all()
            .find(|language| language.code() == text)
            .ok_or_else(unknown)
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl<'de> Deserialize<'de> for Language {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
