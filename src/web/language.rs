//! The languages of the pages: which of them a reader wants, and dates in them. Pure.

use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::tz::Offset;
use minijinja::Value;
use minijinja::value::Serde;

pub use crate::language::Language;
use crate::text::shown;
use crate::web::facts::Moment;

static TEXTS: LazyLock<Vec<(Language, Value)>> = LazyLock::new(|| {
    let texts = |language: Language| (language, Value::from(Serde(language.of_pages())));
    Language::all().map(texts).collect()
});

impl Language {
    /// The one that the values of `Accept-Language` like best (RFC 9110 section 12.5.4). A range that is not
    /// understood is passed over; among equals the first one counts, as browsers write them in order.
    pub fn accepted<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut best = (Self::DEFAULT, 0);
        for range in values.into_iter().flat_map(|value| value.split(',')) {
            if let Some((language, quality)) = wanted(range)
                && quality > best.1
            {
                best = (language, quality);
            }
        }
        best.0
    }

    pub(crate) fn texts(self) -> &'static Value {
        static NOTHING: Value = Value::UNDEFINED;
        let found = TEXTS.iter().find(|(language, _)| *language == self);
        found.map_or(&NOTHING, |(_, texts)| texts)
    }

    fn date(self, key: &str) -> Value {
        let dates = self.texts().get_attr("date");
        dates
            .and_then(|dates| dates.get_attr(key))
            .unwrap_or_default()
    }

    /// A moment as people write it.
    pub(crate) fn moment(self, moment: &Moment) -> String {
        let (Ok(timestamp), Ok(offset)) = (
            Timestamp::from_second(moment.seconds),
            Offset::from_seconds(moment.offset),
        ) else {
            return String::new();
        };
        let local = offset.to_datetime(timestamp);
        let name = |key, index: i8| {
            let names = self.date(key);
            let name = names.get_item_by_index(usize::try_from(index - 1).unwrap_or(usize::MAX));
            name.unwrap_or_default().to_string()
        };
        let fields = [
            (
                "{weekday}",
                name("weekdays", local.weekday().to_monday_one_offset()),
            ),
            ("{month}", name("months", local.month())),
            ("{day}", local.day().to_string()),
            ("{year}", local.year().to_string()),
            (
                "{time}",
                format!("{:02}:{:02}", local.hour(), local.minute()),
            ),
            ("{zone}", shown(&moment.zone)),
        ];
        let mut text = self.date("pattern").to_string();
        for (field, value) in fields {
            text = text.replace(field, &value);
        }
        text
    }
}

/// A language that we have, and how much it is wanted, in thousandths.
fn wanted(range: &str) -> Option<(Language, u16)> {
    let mut parts = range.split(';').map(str::trim);
    let tag = parts.next()?;
    let quality = match (parts.next(), parts.next()) {
        (None, _) => 1000,
        (Some(weight), None) => quality(weight.strip_prefix("q=").or(weight.strip_prefix("Q="))?)?,
        _ => return None,
    };
    let primary = tag.split('-').next()?;
    let known = Language::all().find(|one| one.code().eq_ignore_ascii_case(primary));
    let language = match known {
        Some(known) => known,
        None if tag == "*" => Language::DEFAULT,
        None => return None,
    };
    Some((language, quality))
}

/// `qvalue` of RFC 9110 section 12.4.2: at most three decimals, at most one.
fn quality(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
#[path = "language_tests.rs"]
mod tests;
