//! Text from strangers made safe to show: one line, no control characters, nothing that turns the reading direction.
//!
//! Apart because mail, page and log need the same rule; escaping for HTML is left to the template engine.

use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Characters that change the direction or the visibility of what stands around them (Unicode UAX #9 and the
/// zero-width ones): in an address or a subject they can make one domain look like another.
fn misleads(c: char) -> bool {
    matches!(c,
        '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

/// `text` with every control and misleading character written out as `\u{…}`.
pub fn shown(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || misleads(c) {
            result.extend(c.escape_unicode());
        } else {
            result.push(c);
        }
    }
    result
}

/// `text` for a person to read: runs of white space and control characters become one blank, misleading characters go,
/// and what exceeds `max` characters is cut with an ellipsis.
pub fn readable(text: &str, max: usize) -> String {
    let visible: String = text.chars().filter(|c| !misleads(*c)).collect();
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

    proptest! {
        #[test]
        fn whatever_comes_in_one_plain_line_comes_out(text in any::<String>(), max in 1usize..50) {
            for line in [shown(&text), readable(&text, max)] {
                prop_assert!(!line.chars().any(|c| c.is_control() || misleads(c)));
            }
            prop_assert!(readable(&text, max).chars().count() <= max);
        }
    }
}
