//! Header fields out of bytes: the one lexer for the notice's own header, its report and the returned headers.
//!
//! Apart because all three need the same care: CRLF and LF alike, folded lines, and a bound on what strangers send.
//! Lines that are no fields are passed over, as Postfix lets them through.

use std::borrow::Cow;

/// One field as it stands in the message: `raw` reaches from the name to the last byte before the line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field<'a> {
    /// What stands before the colon, without blanks around it. `mail_name` may bring any octets into it.
    pub name: Cow<'a, str>,
    /// The whole field, with its folds.
    pub raw: &'a [u8],
    /// What stands after the colon, with its folds.
    pub body: &'a [u8],
}

impl Field<'_> {
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The body on one line: each run of white space with a fold in it becomes one blank (RFC 5322 section 2.2.3).
    /// `None` when it is not UTF-8, not even without the quoting that Postfix gives to single octets.
    pub fn text(&self) -> Option<String> {
        let unquoted;
        let text = match std::str::from_utf8(self.body) {
            Ok(text) => text,
            Err(_) => {
                unquoted = String::from_utf8(without_quoted_octets(self.body)).ok()?;
                &unquoted
            }
        };
        let lines: Vec<&str> = text.lines().map(str::trim_ascii).collect();
        Some(lines.join(" ").trim_ascii().to_owned())
    }
}

impl Field<'_> {
    /// As [`Field::text`], with what is not UTF-8 replaced.
    pub fn lossy_text(&self) -> String {
        let text = String::from_utf8_lossy(self.body);
        let lines: Vec<&str> = text.lines().map(str::trim_ascii).collect();
        lines.join(" ").trim_ascii().to_owned()
    }
}

/// Seen in `X-Postfix-Sender` of an SMTPUTF8 message (Postfix 3.7.11): a backslash before every octet that is not
/// ASCII, which tears the characters apart. It goes; other quoted pairs stay.
fn without_quoted_octets(body: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((&octet, then)) = rest.split_first() {
        rest = then;
        match then.split_first() {
            Some((&quoted, then)) if octet == b'\\' => {
                if quoted.is_ascii() {
                    result.push(octet);
                }
                result.push(quoted);
                rest = then;
            }
            _ => result.push(octet),
        }
    }
    result
}

/// Lines with the offset behind each; the line ends, LF or CRLF, are cut off.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(start..).filter(|rest| !rest.is_empty())?;
        let length = rest
            .iter()
            .position(|b| *b == b'\n')
            .map_or(rest.len(), |end| end + 1);
        start += length;
        Some((without_line_end(&rest[..length]), start))
    })
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The fields up to the first blank line, and the offset of what follows that line.
pub(super) fn fields(bytes: &[u8]) -> (Vec<Field<'_>>, usize) {
    let mut found = Vec::new();
    let mut field_start: Option<usize> = None;
    let mut line_start = 0;
    let mut end_of_fields = bytes.len();
    let mut rest = bytes.len();
    for (line, next) in lines(bytes) {
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        if line.is_empty() {
            end_of_fields = line_start;
            rest = next;
            break;
        }
        if !folded {
            found.extend(field_start.and_then(|start| field(&bytes[start..line_start])));
            field_start = Some(line_start);
        }
        line_start = next;
    }
    found.extend(field_start.and_then(|start| field(&bytes[start..end_of_fields])));
    (found, rest)
}

/// RFC 5322 section 2.2: printable ASCII but the colon; blanks before the colon are the obsolete syntax. Postfix puts its
/// `mail_name` into names of fields, and lets all but ASCII's specials pass.
fn field(raw: &[u8]) -> Option<Field<'_>> {
    let raw = without_line_end(raw);
    let colon = raw.iter().position(|b| *b == b':')?;
    let name = raw[..colon].trim_ascii_end();
    let plausible = !name.is_empty() && name.iter().all(|b| b.is_ascii_graphic() || *b >= 0x80);
    plausible.then_some(Field {
        name: String::from_utf8_lossy(name),
        raw,
        body: &raw[colon + 1..],
    })
}

/// Why one field cannot be taken from a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FieldError {
    #[error("the field {0} is missing")]
    Missing(String),
    #[error("the field {0} stands there more than once")]
    Duplicate(String),
    #[error("the field {0} is not UTF-8")]
    NotUtf8(String),
}

/// The only field of that name.
fn only<'f, 'a>(group: &'f [Field<'a>], name: &str) -> Result<Option<&'f Field<'a>>, FieldError> {
    let mut named = group.iter().filter(|field| field.is(name));
    let first = named.next();
    match named.next() {
        Some(_) => Err(FieldError::Duplicate(name.to_owned())),
        None => Ok(first),
    }
}

/// The text of the only field of that name.
pub(super) fn optional(group: &[Field<'_>], name: &str) -> Result<Option<String>, FieldError> {
    let text = |field: &Field<'_>| {
        let text = field.text();
        text.ok_or_else(|| FieldError::NotUtf8(name.to_owned()))
    };
    only(group, name)?.map(text).transpose()
}

/// The octets of the only field of that name, which must be there, as they stand in the message.
pub(super) fn octets<'a>(group: &[Field<'a>], name: &str) -> Result<&'a [u8], FieldError> {
    let field = only(group, name)?.ok_or_else(|| FieldError::Missing(name.to_owned()))?;
    Ok(field.body.trim_ascii())
}

/// As [`optional`], with what is not UTF-8 replaced: for text that says something even so.
pub(super) fn lossy(group: &[Field<'_>], name: &str) -> Result<Option<String>, FieldError> {
    match optional(group, name) {
        Err(FieldError::NotUtf8(_)) => {
            let mut named = group.iter().filter(|field| field.is(name));
            Ok(named.next().map(Field::lossy_text))
        }
        other => other,
    }
}

/// As [`optional`], and the field must be there.
pub(super) fn required(group: &[Field<'_>], name: &str) -> Result<String, FieldError> {
    optional(group, name)?.ok_or_else(|| FieldError::Missing(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn folds_and_line_ends() {
        for text in [
            "A: 1\nB: x\n\ty\nC : z\n\nbody",
            "A: 1\r\nB: x\r\n\ty\r\nC : z\r\n\r\nbody",
        ] {
            let (found, rest) = fields(text.as_bytes());
            let texts: Vec<_> = found
                .iter()
                .map(|f| (f.name.as_ref(), f.text().unwrap()))
                .collect();
            assert_eq!(
                texts,
                [("A", "1".into()), ("B", "x y".into()), ("C", "z".into())]
            );
            assert_eq!(&text[rest..], "body");
        }
    }

    #[test]
    fn what_is_no_field_is_passed_over() {
        let (found, rest) = fields(b"From a@b\nno colon\n: nameless\nGood: yes");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].text().as_deref(), Some("yes"));
        assert_eq!(rest, 38);
    }

    #[test]
    fn octets_that_postfix_quoted_are_joined_again() {
        let (found, _) = fields(b"A: \"j\\\xc3\\\xbcr\\\\\"@b\nB: j\xfc");
        assert_eq!(found[0].text().as_deref(), Some("\"jür\\\\\"@b"));
        assert_eq!(found[1].text(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (found, rest) = fields(&bytes);
            prop_assert!(rest <= bytes.len());
            for field in found { let _ = field.text(); }
        }
    }
}
