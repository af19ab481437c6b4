//! The languages of mails and pages: one file each in `src/texts/`, compiled in. One list, so that configuration, mails,
//! pages and tests agree.
//!
//! A language is added by adding its file; its name is the language's code (RFC 5646). A test compares every file with
//! the English one. (Cargo does not see a new file by itself: touch this one, or build anew.)

use std::fmt;
use std::sync::{LazyLock, OnceLock};

use include_dir::{Dir, include_dir};
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

static FILES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/src/texts");

/// What readers get for whom there is nothing better.
const FIRST: &str = "en";

/// The code of each language and its file; [`FIRST`] comes first.
static CATALOGUES: LazyLock<Vec<Catalogue>> = LazyLock::new(|| {
    let entry = |file: &'static include_dir::File<'static>| {
        Some(Catalogue {
            code: file.path().file_stem()?.to_str()?,
            file,
            mails: OnceLock::new(),
            pages: OnceLock::new(),
        })
    };
    let mut all: Vec<_> = FILES.files().filter_map(entry).collect();
    all.sort_by_key(|one| (one.code != FIRST, one.code));
    all
});

/// A file, of which only the half that is asked for is parsed: the hook needs the texts of one mail, and lives for some
/// milliseconds.
struct Catalogue {
    code: &'static str,
    file: &'static include_dir::File<'static>,
    mails: OnceLock<Table>,
    pages: OnceLock<Table>,
}

impl Catalogue {
    /// The text of the file from its beginning to [page], and from there to its end.
    fn halves(&self) -> (&'static str, &'static str) {
        let text = self.file.contents_utf8().unwrap_or_default();
        text.split_at(text.find("\n[page]").unwrap_or(text.len()))
    }

    fn mails(&self) -> &Table {
        self.mails.get_or_init(|| table("mail", self.halves().0))
    }

    fn pages(&self) -> &Table {
        self.pages.get_or_init(|| table("page", self.halves().1))
    }
}

/// One table of a file. A test sees to it that all can be read.
fn table(name: &str, text: &str) -> Table {
    let file: Table = text.parse().unwrap_or_default();
    match file.into_iter().find(|(key, _)| key == name) {
        Some((_, Value::Table(table))) => table,
        _ => Table::new(),
    }
}

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
        .map(|one| format!("{:?}", one.code))
        .collect();
    quoted.join(", ")
}

impl Language {
    /// English.
    pub const DEFAULT: Self = Self(0);

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..CATALOGUES.len()).map(Self)
    }

    /// Its code, such as `en`.
    pub fn code(self) -> &'static str {
        CATALOGUES[self.0].code
    }

    /// The texts of the mails.
    pub fn of_mails(self) -> &'static Table {
        CATALOGUES[self.0].mails()
    }

    /// The texts of the pages.
    pub fn of_pages(self) -> &'static Table {
        CATALOGUES[self.0].pages()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Every text by its path; a list counts item by item.
    fn walk(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
        match value {
            Value::Table(table) => {
                for (key, value) in table {
                    walk(&format!("{path}.{key}"), value, into);
                }
            }
            Value::Array(list) => {
                for (index, value) in list.iter().enumerate() {
                    walk(&format!("{path}[{index}]"), value, into);
                }
            }
            other => {
                let text = other.as_str().expect("a text").to_owned();
                into.insert(path.to_owned(), text);
            }
        }
    }

    fn texts_of(code: &str) -> BTreeMap<String, String> {
        let file = FILES.get_file(format!("{code}.toml")).expect("a file");
        let table: Table = file.contents_utf8().expect("UTF-8").parse().expect("TOML");
        let mut texts = BTreeMap::new();
        walk("", &Value::Table(table), &mut texts);
        texts
    }

    fn placeholders(text: &str) -> Vec<&str> {
        let mut found: Vec<&str> = text
            .split('{')
            .skip(1)
            .map(|rest| rest.split_once('}').expect("a closed brace").0)
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn no_language_lacks_a_text_or_a_placeholder() {
        let reference = texts_of(FIRST);
        assert!(reference.len() > 250, "{}", reference.len());
        assert_eq!(Language::DEFAULT.code(), FIRST);
        assert_eq!(Language::all().count(), FILES.files().count());
        for language in Language::all() {
            let code = language.code();
            let texts = texts_of(code);
            assert_eq!((&*texts[".mail.lang"], &*texts[".page.lang"]), (code, code));
            // Taken by halves, [mail] before [page], there is as much as in the whole file.
            let mut halves = BTreeMap::new();
            for (name, half) in [("mail", language.of_mails()), ("page", language.of_pages())] {
                walk(
                    &format!(".{name}"),
                    &Value::Table(half.clone()),
                    &mut halves,
                );
            }
            assert_eq!(halves, texts, "{code}");
            let keys = |texts: &BTreeMap<String, String>| texts.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&texts), keys(&reference), "{code}");
            for (key, text) in &texts {
                assert!(!text.trim().is_empty(), "{code}{key} is empty");
                let of_reference = placeholders(&reference[key]);
                assert_eq!(placeholders(text), of_reference, "{code}{key}");
            }
        }
    }
}
