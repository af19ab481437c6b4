//! Every catalogue says what every other says; and readers get the language that their browser asks for.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Every text of a catalogue by its path, lists by their length as well.
fn texts_of(tag: &str) -> BTreeMap<String, String> {
    fn walk(path: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    walk(&format!("{path}.{key}"), value, into);
                }
            }
            toml::Value::Array(list) => {
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
    let (_, source) = CATALOGUES
        .iter()
        .find(|(known, _)| *known == tag)
        .expect("a catalogue");
    let table: toml::Table = toml::from_str(source).expect("TOML");
    let mut texts = BTreeMap::new();
    walk("", &toml::Value::Table(table), &mut texts);
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
fn no_catalogue_lacks_what_another_has() {
    let reference = texts_of("en");
    assert!(reference.len() > 100);
    for (tag, _) in CATALOGUES {
        let texts = texts_of(tag);
        assert_eq!(texts[".lang"], *tag);
        let keys = |texts: &BTreeMap<String, String>| texts.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&texts), keys(&reference), "{tag}");
        for (key, text) in &texts {
            assert!(!text.trim().is_empty(), "{tag}{key} is empty");
            assert_eq!(
                placeholders(text),
                placeholders(&reference[key]),
                "{tag}{key}"
            );
        }
    }
}

#[test]
fn every_file_of_texts_is_a_catalogue() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/web/texts");
    let mut files: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut listed: Vec<String> = CATALOGUES
        .iter()
        .map(|(tag, _)| format!("{tag}.toml"))
        .collect();
    files.sort();
    listed.sort();
    assert_eq!(files, listed);
}

#[test]
fn readers_get_what_they_ask_for() {
    for (header, tag) in [
        ("", "en"),
        ("de", "de"),
        ("DE-at", "de"),
        ("de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7", "de"),
        ("en-GB,en;q=0.9,de;q=0.8", "en"),
        ("fr, de;q=0.2", "de"),
        ("fr", "en"),
        ("*", "en"),
        ("*, de;q=0.5", "en"),
        ("de;q=0", "en"),
        ("en;q=0.2 , de ; q=0.75", "de"),
        ("de;q=0.5,en;q=0.5", "de"),
        ("de;q=1.000", "de"),
        ("de;q=1.001", "en"),
        ("de;q=0.1234", "en"),
        ("de;q=x", "en"),
        ("de;q=", "en"),
        ("de;level=1", "en"),
        ("de;q=0.9;q=0.9", "en"),
        ("de_DE", "en"),
        ("deutsch", "en"),
    ] {
        assert_eq!(Language::accepted([header]).tag(), tag, "{header}");
    }
    assert_eq!(Language::accepted(["fr", "de;q=0.1"]).tag(), "de");
}

#[test]
fn a_date_is_in_the_language_and_on_the_clock_of_the_host() {
    let moment = Moment {
        seconds: 1_795_907_700,
        offset: 3600,
        zone: "CET".to_owned(),
    };
    let in_language = |tag| {
        let language = Language::accepted([tag]);
        language.moment(&moment)
    };
    assert_eq!(in_language("en"), "Sunday, 29 November 2026, 00:15 (CET)");
    assert_eq!(
        in_language("de"),
        "Sonntag, 29. November 2026, 00:15 Uhr (CET)"
    );
    let impossible = Moment {
        seconds: i64::MAX,
        ..moment
    };
    assert_eq!(Language::DEFAULT.moment(&impossible), "");
}

proptest! {
    #[test]
    fn any_header_is_some_language(header in "([a-z]{1,3}|\\*|;q=[0-9.]{0,6}|,|-|.){0,12}") {
        prop_assert!(Language::all().any(|known| known == Language::accepted([header.as_str()])));
    }
}
