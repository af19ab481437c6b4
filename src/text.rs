//! Text from strangers made safe to show: one line, no control characters, nothing that turns the reading direction.
//!
//! Apart because mail, page and log need the same rule; escaping for HTML is left to the template engine.

use std::fmt::Write as _;
use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::octets;

/// Characters that change the direction or the visibility of what stands around them (Unicode UAX #9 and the
/// zero-width ones): in an address or a subject they can make one domain look like another.
fn misleads(c: char) -> bool {
    matches!(c,
        '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

const ZWNJ: char = '\u{200C}';
const ZWJ: char = '\u{200D}';

/// Letters of scripts that are written with joiners: those of which a letter's form depends on its neighbours, and those
/// with conjuncts (RFC 5892 appendix A.1 and A.2; Unicode, chapters 9 and 12 to 16).
fn is_joined(c: char) -> bool {
    matches!(c, '\u{0600}'..='\u{0605}' | '\u{0620}'..='\u{06FF}' | '\u{0700}'..='\u{08FF}' | '\u{0900}'..='\u{0DFF}'
        | '\u{0F00}'..='\u{109F}' | '\u{1780}'..='\u{180D}' | '\u{180F}'..='\u{18AF}' | '\u{1A20}'..='\u{1AAF}'
        | '\u{1B00}'..='\u{1C4F}' | '\u{A800}'..='\u{A82F}' | '\u{A840}'..='\u{A8FF}' | '\u{A980}'..='\u{A9FF}'
        | '\u{AA00}'..='\u{AAFF}' | '\u{ABC0}'..='\u{ABFF}' | '\u{FB50}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFC}'
        | '\u{10A00}'..='\u{10A5F}' | '\u{10AC0}'..='\u{10AFF}' | '\u{10D00}'..='\u{10D3F}'
        | '\u{11000}'..='\u{11FFF}' | '\u{1E900}'..='\u{1E95F}')
}

/// Pictures that are joined to others, with what chooses their form or colour.
fn is_picture(c: char) -> bool {
    matches!(c, '\u{2190}'..='\u{2BFF}' | '\u{3030}' | '\u{FE0F}' | '\u{1F000}'..='\u{1FAFF}')
}

/// Is a joiner between these two part of what is written? Elsewhere it can't be seen, and makes two alike differ.
fn joins(before: Option<char>, joiner: char, after: Option<char>) -> bool {
    match (before, joiner) {
        (Some(before), ZWNJ | ZWJ) if is_joined(before) => true,
        (Some(before), ZWJ) => is_picture(before) && after.is_some_and(is_picture),
        _ => false,
    }
}

/// `text` with every control and misleading character written out as `\u{…}`, and every octet that is no UTF-8 as `\xFC`.
pub fn shown(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        if let Some(octet) = octets::octet(c) {
            // To a string it can always be written.
            let _ = write!(result, "\\x{octet:02X}");
        } else if c.is_control() || misleads(c) {
            result.extend(c.escape_unicode());
        } else {
            result.push(c);
        }
    }
    result
}

/// `text` for a person to read: runs of white space and control characters become one blank, misleading characters go
/// but for joiners where a script needs them, and what exceeds `max` characters is cut with an ellipsis.
pub fn readable(text: &str, max: usize) -> String {
    let mut visible = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let before = visible.chars().next_back();
        if !misleads(c) || joins(before, c, characters.peek().copied()) {
            visible.push(c);
        }
    }
    let words: Vec<&str> = visible
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|w| !w.is_empty())
        .collect();
    let line = words.join(" ");
    if line.chars().count() <= max {
        return line;
    }
    let mut cut: String = line.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// The time zone of this system, as it was when this process first asked.
///
/// jiff's own way looks through all of the time zone database for the *name* of the zone, which is of no use here: that
/// is a hundred system calls in each run of the hook. A `TZ` in the environment is left to it.
pub fn local_zone() -> TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    let read = || {
        if std::env::var_os("TZ").is_some() {
            return None;
        }
        let rules = std::fs::read("/etc/localtime").ok()?;
        TimeZone::tzif("", &rules).ok()
    };
    ZONE.get_or_init(|| read().unwrap_or_else(TimeZone::system))
        .clone()
}

/// A moment as people read it, in the time zone of this system.
pub fn moment(seconds: i64) -> String {
    let Ok(timestamp) = Timestamp::from_second(seconds) else {
        return String::new();
    };
    timestamp
        .to_zoned(local_zone())
        .strftime("%A, %-d %B %Y, %H:%M (%Z)")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn direction_marks_are_made_visible() {
        assert_eq!(shown("a\u{202E}gro.elpmaxe@b"), "a\\u{202e}gro.elpmaxe@b");
        assert_eq!(
            readable("Invoice\u{202E} 7\r\nBcc: x", 80),
            "Invoice 7 Bcc: x"
        );
        assert_eq!(readable("abcdef", 4), "abc…");
    }

    #[test]
    fn octets_that_are_no_text_are_shown_as_octets() {
        assert_eq!(shown(&octets::text(b"j\xfcr\xc3\xbc")), "j\\xFCrü");
    }

    #[test]
    fn joiners_stay_where_a_script_needs_them() {
        for kept in [
            "می\u{200C}خواهم",
            "क्\u{200D}ष",
            "ශ්\u{200D}රී",
            "👩\u{200D}👩\u{200D}👧",
            "🏳\u{FE0F}\u{200D}🌈",
            "👩🏽\u{200D}🚀",
        ] {
            assert_eq!(readable(kept, 80), kept);
            assert!(shown(kept).contains("\\u{200"), "an address shows them");
        }
        for (text, plain) in [
            ("pay\u{200D}pal", "paypal"),
            ("pay\u{200C}pal", "paypal"),
            ("\u{200D}a", "a"),
            ("می\u{200C}\u{200C}خ", "می\u{200C}خ"),
            ("😀\u{200C}😀", "😀😀"),
            ("😀\u{200D}", "😀"),
            ("😀\u{200D}x", "😀x"),
        ] {
            assert_eq!(readable(text, 80), plain);
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_in_one_plain_line_comes_out(text in any::<String>(), max in 1usize..50) {
            prop_assert!(!shown(&text).chars().any(|c| c.is_control() || misleads(c)));
            let line: Vec<char> = readable(&text, max).chars().collect();
            for (at, c) in line.iter().enumerate() {
                let before = at.checked_sub(1).map(|at| line[at]);
                let joins = matches!(*c, ZWNJ | ZWJ) && before.is_some_and(|c| is_joined(c) || is_picture(c));
                prop_assert!(!c.is_control() && (joins || !misleads(*c)));
            }
            prop_assert!(readable(&text, max).chars().count() <= max);
        }
    }
}
