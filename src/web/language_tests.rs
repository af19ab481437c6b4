//! Readers get the language that their browser asks for, and dates in it.

use proptest::prelude::*;

use super::*;

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
        assert_eq!(Language::accepted([header]).code(), tag, "{header}");
    }
    assert_eq!(Language::accepted(["fr", "de;q=0.1"]).code(), "de");
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
