//! Octets that are no UTF-8, kept within text, so that an address in Latin-1 is compared, stored and shown as what it is.
//!
//! Each such octet has a character of its own, in a private range that nobody uses; [`crate::text::shown`] writes it as
//! `\xFC`. A character of that range that somebody does use is kept as its octets, so no two inputs become one text.

use std::borrow::Cow;

/// Stands for the octet 0; only those from 0x80 on are ever needed.
const BASE: u32 = 0x10_FE00;

/// The text for these octets. Control characters beyond ASCII are kept as octets, too.
pub fn text(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len());
    for chunk in octets.utf8_chunks() {
        for c in chunk.valid().chars() {
            if octet(c).is_some() || !c.is_ascii() && c.is_control() {
                let mut buffer = [0; 4];
                text.extend(c.encode_utf8(&mut buffer).bytes().filter_map(stand_in));
            } else {
                text.push(c);
            }
        }
        text.extend(chunk.invalid().iter().copied().filter_map(stand_in));
    }
    text
}

/// The octets for which a text stands.
pub fn of(text: &str) -> Cow<'_, [u8]> {
    if !has_any(text) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut octets = Vec::with_capacity(text.len());
    for c in text.chars() {
        match octet(c) {
            Some(octet) => octets.push(octet),
            None => octets.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    Cow::Owned(octets)
}

/// Does any character of it stand for an octet?
pub fn has_any(text: &str) -> bool {
    text.chars().any(|c| octet(c).is_some())
}

/// The octet for which a character stands.
pub fn octet(c: char) -> Option<u8> {
    let octet = u8::try_from(u32::from(c).checked_sub(BASE)?).ok()?;
    (!octet.is_ascii()).then_some(octet)
}

/// The character for an octet that is not ASCII.
fn stand_in(octet: u8) -> Option<char> {
    char::from_u32(BASE + u32::from(octet)).filter(|_| !octet.is_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_is_no_text_has_another_form() {
        assert_eq!(text("jürgen".as_bytes()), "jürgen");
        assert_eq!(text(b"j\xfcrgen"), "j\u{10fefc}rgen");
        assert_eq!(of("j\u{10fefc}rgen").as_ref(), b"j\xfcrgen");
        let foreign = "\u{10fefc}".as_bytes();
        assert_eq!(text(foreign).chars().count(), 4);
        assert_eq!(of(&text(foreign)).as_ref(), foreign);
    }

    proptest! {
        #[test]
        fn octets_come_back_as_they_were(octets in proptest::collection::vec(any::<u8>(), 0..60), more in any::<String>()) {
            let all = [octets, more.into_bytes()].concat();
            let kept = text(&all);
            prop_assert_eq!(of(&kept).into_owned(), all);
        }
    }
}
