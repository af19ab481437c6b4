//! Encoded words of a header field (RFC 2047, RFC 2231 section 5), read as mail programs read them.
//!
//! Senders recognise their message by its subject, and their programs make mistakes that others forgive: characters cut
//! between two words, missing padding, no blank between words. Nothing here fails: what is no encoded word stays as it is.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use charset::Charset;

/// Base64 without padding, whatever the last bits are.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// More than any name of a charset, with a language.
const LONGEST_LABEL: usize = 75;

/// A part of a field.
enum Piece<'a> {
    Plain(&'a [u8]),
    Word { charset: Charset, octets: Vec<u8> },
}

/// The text of a field's body, with its folds.
pub(super) fn decode(body: &[u8]) -> String {
    let unfolded: Vec<u8> = body
        .iter()
        .copied()
        .filter(|octet| !matches!(octet, b'\r' | b'\n'))
        .collect();
    let mut text = String::with_capacity(unfolded.len());
    let mut run: Option<(Charset, Vec<u8>)> = None;
    for piece in pieces(&unfolded) {
        match piece {
            // A character may be cut between two words; an encoding with states begins anew in each.
            Piece::Word { charset, octets } => match &mut run {
                Some((of, so_far)) if *of == charset && charset.is_ascii_compatible() => {
                    so_far.extend(octets);
                }
                _ => {
                    finish(&mut text, run.replace((charset, octets)));
                }
            },
            Piece::Plain(octets) => {
                finish(&mut text, run.take());
                text.push_str(&plain(octets));
            }
        }
    }
    finish(&mut text, run);
    text
}

fn finish(text: &mut String, run: Option<(Charset, Vec<u8>)>) {
    if let Some((charset, octets)) = run {
        text.push_str(&charset.decode_without_bom_handling(&octets).0);
    }
}

/// What is not encoded: UTF-8 (RFC 6532), or what programs wrote before that.
fn plain(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) => text.to_owned(),
        Err(_) => charset::decode_latin1(octets).into_owned(),
    }
}

/// White space between two encoded words is none of the text (RFC 2047 section 6.2).
fn pieces(field: &[u8]) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(offset) = find(&field[at..], b"=?") {
        at += offset;
        let Some((word, length)) = word(&field[at..]) else {
            at += 1;
            continue;
        };
        let between = &field[start..at];
        let after_word = matches!(found.last(), Some(Piece::Word { .. }));
        if !(between.is_empty() || after_word && between.trim_ascii().is_empty()) {
            found.push(Piece::Plain(between));
        }
        found.push(word);
        at += length;
        start = at;
    }
    if start < field.len() {
        found.push(Piece::Plain(&field[start..]));
    }
    found
}

/// `=?charset*language?B?text?=` at the beginning, and its length.
fn word(field: &[u8]) -> Option<(Piece<'_>, usize)> {
    let rest = field.strip_prefix(b"=?")?;
    let end = find(&rest[..rest.len().min(LONGEST_LABEL)], b"?")?;
    let (label, rest) = (&rest[..end], &rest[end + 1..]);
    let label = label.split(|octet| *octet == b'*').next()?;
    let [encoding, b'?', rest @ ..] = rest else {
        return None;
    };
    let end = find(rest, b"?=")?;
    let text = &rest[..end];
    let octets = match encoding {
        b'B' | b'b' => from_base64(text)?,
        b'Q' | b'q' => from_quoted(text),
        _ => return None,
    };
    // Programs that do not know what they send often send UTF-8.
    let charset = Charset::for_label_no_replacement(label).or_else(|| {
        let utf8 = Charset::for_label(b"utf-8")?;
        std::str::from_utf8(&octets).is_ok().then_some(utf8)
    })?;
    let length = field.len() - rest.len() + end + 2;
    Some((Piece::Word { charset, octets }, length))
}

fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut digits: Vec<u8> = text
        .iter()
        .copied()
        .filter(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/'))
        .collect();
    // Six bits of an octet are none.
    if digits.len() % 4 == 1 {
        digits.pop();
    }
    BASE64.decode(digits).ok()
}

fn from_quoted(text: &[u8]) -> Vec<u8> {
    let digit = |octet: u8| {
        char::from(octet)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&octet, then)) = rest.split_first() {
        rest = then;
        match (octet, then) {
            (b'_', _) => octets.push(b' '),
            (b'=', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    octets.push(high << 4 | low);
                    rest = after;
                }
                _ => octets.push(octet),
            },
            _ => octets.push(octet),
        }
    }
    octets
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_mail_programs_read_them() {
        for (field, text) in [
            ("plain", "plain"),
            ("=?UTF-8?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
            ("a =?utf-8?B?w7w=?= b", "a ü b"),
            // Cut within a character, in both encodings, and without a blank between the words.
            ("=?utf-8?B?w7zD?= =?utf-8?B?vA==?=", "üü"),
            ("=?utf-8?Q?x=C3?=\r\n =?UTF-8?Q?=BCy?=", "xüy"),
            ("=?utf-8?Q?x=C3?==?utf-8?B?vA?=", "xü"),
            // Without padding, and with too much.
            ("=?utf-8?B?w7w?=", "ü"),
            ("=?utf-8?B?w7w===?=", "ü"),
            ("=?utf-8?B?w7wx?= z", "ü1 z"),
            // A language (RFC 2231).
            ("=?utf-8*de?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
            ("=?iso-8859-1*en-GB?q?caf=E9_au_lait?=", "café au lait"),
            // Charsets of mail programs.
            ("=?windows-1252?Q?=80_100?=", "€ 100"),
            ("=?iso-8859-15?Q?=A4?=", "€"),
            ("=?koi8-r?B?8NLJ18XU?=", "Привет"),
            ("=?gb2312?B?xOO6ww==?=", "你好"),
            ("=?gbk?B?xOM=?= =?gbk?B?usM=?=", "你好"),
            ("=?gb18030?B?xOO6?= =?gb18030?B?ww==?=", "你好"),
            ("=?big5?B?p0Gmbg==?=", "你好"),
            ("=?euc-kr?B?vsiz5w==?=", "안녕"),
            ("=?ks_c_5601-1987?B?vsiz5w==?=", "안녕"),
            ("=?shift_jis?B?k/qWew==?=", "日本"),
            ("=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"),
            ("=?cp1251?Q?=CF=F0=E8=E2=E5=F2?=", "Привет"),
            ("=?utf-7?Q?Hi_+AOk-?=", "Hi é"),
            ("=?utf8?Q?=C3=BC?=", "ü"),
            ("=?x-unknown?Q?=C3=BC?=", "ü"),
            // What is none stays.
            ("=?x-unknown?Q?=E9?=", "=?x-unknown?Q?=E9?="),
            ("=?utf-8?X?abc?=", "=?utf-8?X?abc?="),
            ("=?utf-8?Q?no end", "=?utf-8?Q?no end"),
            ("1 =? 2 ?= 3", "1 =? 2 ?= 3"),
            ("raw ü", "raw ü"),
            // Decoded once: what comes out is text.
            ("=?us-ascii?Q?=3D=3Futf-8=3FQ=3Fx=3F=3D?=", "=?utf-8?Q?x?="),
        ] {
            assert_eq!(decode(field.as_bytes()), text, "{field}");
        }
        assert_eq!(decode(b"caf\xe9"), "café");
    }

    proptest! {
        #[test]
        fn words_cut_anywhere_are_joined(
            text in "[a-zäöüß€你好😀 =?_]{1,60}", cuts in prop::collection::vec((1usize..12, any::<bool>(), 0usize..3), 1..60)
        ) {
            let mut octets = text.as_bytes();
            let mut field = String::new();
            let mut cuts = cuts.into_iter().cycle();
            while !octets.is_empty() {
                let (cut, quoted, blank) = cuts.next().unwrap();
                let (now, later) = octets.split_at(cut.min(octets.len()));
                octets = later;
                if !field.is_empty() {
                    field.push_str(["", " ", "\r\n\t"][blank]);
                }
                let encoded = if quoted {
                    let all: String = now.iter().map(|octet| format!("={octet:02X}")).collect();
                    format!("=?utf-8*x?q?{all}?=")
                } else {
                    format!("=?UTF-8?B?{}?=", BASE64.encode(now))
                };
                field.push_str(&encoded);
            }
            prop_assert_eq!(decode(field.as_bytes()), text);
        }

        #[test]
        fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..200), text in "(=\\?|utf-8|\\?[BQbq]\\?|=|\\?=|[A-Za-z0-9]| ){0,40}") {
            let _ = decode(&octets);
            let _ = decode(text.as_bytes());
        }
    }
}
