//! What a header field of our own mails carries, in the form that every mail program reads alike (RFC 5322, RFC 2047).
//!
//! Apart from the mail library, whose idea of an address is stricter than Postfix's, and which lets words pass that
//! look like encoded ones: a reader would decode them into what was filtered out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::address::Address;
use crate::domain::Domain;

/// Columns of a line (RFC 5322 section 2.1.1), and octets of text in an encoded word of at most 75 (RFC 2047 section 2).
const COLUMNS: usize = 76;
const WORD: usize = 45;

/// Octets of an address that fit into a line of at most 998 octets.
const LONGEST_ADDRESS: usize = 900;

/// Unstructured text, such as a subject, behind a field name of `name` octets and a colon. Read again it is `text`, and
/// nothing in it is an encoded word but those made here.
pub(super) fn unstructured(text: &str, name: usize) -> String {
    if is_plain(text) {
        folded(text.split(' '), name + 2)
    } else {
        folded(encoded_words(text).iter().map(String::as_str), name + 2)
    }
}

/// A display name: a quoted string, or encoded words.
pub(super) fn phrase(text: &str, name: usize) -> String {
    if is_plain(text) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        unstructured(text, name)
    }
}

/// An address for `From:` and `To:`. One that no line can hold is left out: the envelope has it.
pub(super) fn address(address: &Address) -> String {
    let text = with_ascii_domain(address).unwrap_or_else(|| address.quoted());
    if text.len() > LONGEST_ADDRESS {
        "undisclosed-recipients:;".to_owned()
    } else {
        text
    }
}

/// The address in ASCII, if only its domain needs other letters (RFC 5890 section 2.3.2.1: its A-labels).
pub(super) fn with_ascii_domain(address: &Address) -> Option<String> {
    let quoted = address.quoted();
    if quoted.is_ascii() {
        return Some(quoted);
    }
    let (local, _) = quoted.rsplit_once('@')?;
    let domain = Domain::of(address)?;
    local.is_ascii().then(|| format!("{local}@{domain}"))
}

/// ASCII on one line, without anything that a reader could take for an encoded word, and short enough to be folded.
fn is_plain(text: &str) -> bool {
    let printable = |c: char| c == ' ' || c.is_ascii_graphic();
    let neat = !text.starts_with(' ') && !text.ends_with(' ') && !text.contains("  ");
    let short = text.split(' ').all(|word| word.len() < COLUMNS - 10);
    text.chars().all(printable) && neat && short && !text.contains("=?")
}

/// Whole characters in each word: readers decode each by itself.
fn encoded_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut start = 0;
    for (at, c) in text.char_indices() {
        if at + c.len_utf8() - start > WORD {
            words.push(encoded(&text[start..at]));
            start = at;
        }
    }
    if start < text.len() {
        words.push(encoded(&text[start..]));
    }
    words
}

fn encoded(text: &str) -> String {
    format!("=?utf-8?B?{}?=", STANDARD.encode(text))
}

fn folded<'w>(words: impl Iterator<Item = &'w str>, mut column: usize) -> String {
    let mut lines = String::new();
    for (number, word) in words.enumerate() {
        if number > 0 {
            if column + 1 + word.len() > COLUMNS {
                lines.push_str("\r\n");
                column = 0;
            }
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += word.len();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(field: &str) -> String {
        let raw = format!("Subject: {field}\r\n");
        let (header, _) = mailparse::parse_header(raw.as_bytes()).unwrap();
        header.get_value()
    }

    #[test]
    fn what_looks_like_an_encoded_word_is_not_decoded_by_the_reader() {
        for text in [
            "=?utf-8?Q?=E2=80=AEcod.exe?=",
            "a =?utf-8?B?4oCu?= b",
            "=?us-ascii?Q?=0D=0ABcc:_x?=",
        ] {
            let field = unstructured(text, 7);
            assert!(field.starts_with("=?utf-8?B?"), "{field}");
            assert_eq!(read(&field), text);
        }
        assert_eq!(
            unstructured("Not sent yet: Offer", 7),
            "Not sent yet: Offer"
        );
        assert_eq!(phrase("Mail \"x\" team", 4), "\"Mail \\\"x\\\" team\"");
    }

    #[test]
    fn an_address_is_ascii_where_it_can_be() {
        for (text, field) in [
            ("alice@sender.test", "alice@sender.test"),
            ("alice@müller.example", "alice@xn--mller-kva.example"),
            ("jürgen@müller.example", "jürgen@müller.example"),
            ("a b@sender.test", "\"a b\"@sender.test"),
            ("root", "root"),
            ("a@[192.0.2.1]", "a@[192.0.2.1]"),
        ] {
            assert_eq!(address(&text.parse().unwrap()), field);
        }
        let long = format!("{}@sender.test", "x".repeat(950));
        assert_eq!(address(&long.parse().unwrap()), "undisclosed-recipients:;");
    }

    proptest! {
        #[test]
        fn a_reader_reads_what_was_written(text in "\\PC{0,120}|(=\\?|utf-8|\\?[BQ]\\?|=E2=80=AE|\\?=| |ü){0,30}") {
            let text = crate::text::readable(&text, 250);
            let field = unstructured(&text, 7);
            prop_assert_eq!(read(&field), text);
            prop_assert!(field.is_ascii());
            prop_assert!(field.split("\r\n").all(|line| line.len() <= COLUMNS + 12), "{}", field);
        }
    }
}
