//! The machine-readable part of a notice, recipient by recipient (RFC 3464 section 2.3, RFC 6533 section 3), and the
//! reason for each from the human-readable part.
//!
//! Apart from [`super::parse`] because one recipient that cannot be understood must not lose the others.

use super::classify::{POSTFIX, classify_with_reason};
use super::fields::{Field, FieldError, lines, lossy, optional, required};
use crate::address::{Address, BadAddress};
use crate::case::{Failure, Written};
use crate::domain::Domain;
use crate::text::{readable, shown};

/// Characters kept of a diagnostic or reason: more than any Postfix text, less than a page.
const MAX_TEXT: usize = 1000;

/// A `Diagnostic-Code` field (RFC 3464 section 2.3.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whose words these are: [`POSTFIX`] for Postfix's own, whatever its `mail_name`; `smtp` for the remote server's.
    pub kind: String,
    /// One plain line, at most 1000 characters.
    pub text: String,
}

/// A deferred recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeRecipient {
    /// `Final-Recipient`, unquoted. Postfix writes `?` for control characters and for bytes that are not UTF-8, so
    /// this may differ from the queue file's bytes there.
    pub address: Address,
    /// What the sender wrote, by `Original-Recipient`.
    pub written: Written,
    /// `Action`, always `delayed`.
    pub action: String,
    /// `Status`: an enhanced status code of class 4 or 5, such as `4.7.4` (RFC 3463).
    pub status: String,
    /// `Diagnostic-Code`.
    pub diagnostic: Option<Diagnostic>,
    /// The reason that Postfix logged, from the human-readable part; one plain line. When the server's answer is
    /// behind it, this begins with Postfix's words where the diagnostic has only the server's.
    pub reason: Option<String>,
    /// `Remote-MTA` without its type, shown safely.
    pub remote_mta: Option<String>,
    /// `Will-Retry-Until`, in Unix seconds: arrival time plus `maximal_queue_lifetime`.
    pub retry_until: Option<i64>,
    /// `Last-Attempt-Date`, in Unix seconds. Postfix does not send it.
    pub last_attempt: Option<i64>,
}

impl NoticeRecipient {
    /// Why the recipient was deferred.
    pub fn failure(&self) -> Failure {
        classify_with_reason(
            &self.status,
            self.diagnostic.as_ref(),
            self.reason.as_deref(),
        )
    }
}

/// A group of the report that is no deferred recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// `Final-Recipient` as it stands there, shown safely; empty when there is none.
    pub recipient: String,
    /// Why.
    pub reason: RecipientError,
}

/// Why a group of the report is no deferred recipient.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// A field that must be there is not (RFC 3464 section 2.3).
    #[error("the field {0} is missing")]
    Missing(String),
    /// Fields may stand there once; which of the two is meant nobody knows.
    #[error("the field {0} stands there more than once")]
    Duplicate(String),
    /// Postfix writes UTF-8 or ASCII only.
    #[error("the field {0} is not UTF-8")]
    NotUtf8(String),
    /// Neither `rfc822` nor `utf-8` (RFC 6533 section 3).
    #[error("the address type {0:?} is neither rfc822 nor utf-8")]
    AddressType(String),
    /// See [`BadAddress`].
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// Delivered, relayed, expanded or failed: nothing left to decide.
    #[error("the action is {0:?}, not delayed")]
    NotDelayed(String),
    /// No enhanced status code of class 4 or 5 (RFC 3463 section 2).
    #[error("{0:?} is no status of a deferral")]
    Status(String),
}

impl From<FieldError> for RecipientError {
    fn from(error: FieldError) -> Self {
        match error {
            FieldError::Missing(name) => Self::Missing(name),
            FieldError::Duplicate(name) => Self::Duplicate(name),
            FieldError::NotUtf8(name) => Self::NotUtf8(name),
        }
    }
}

/// Reads one group. `own_kind` is the kind under which this Postfix gives its own diagnostics: `X-` and its mail name.
pub(super) fn recipient(
    group: &[Field<'_>],
    own_kind: &str,
    reasons: &mut Reasons<'_>,
) -> Result<NoticeRecipient, Skipped> {
    let skipped = |reason: RecipientError| Skipped {
        recipient: group
            .iter()
            .find(|field| field.is("Final-Recipient"))
            .and_then(Field::text)
            .map_or_else(String::new, |text| shown(&readable(&text, MAX_TEXT))),
        reason,
    };
    let field = required(group, "Final-Recipient").map_err(|e| skipped(e.into()))?;
    let reason = split_type(&field).and_then(|(_, address)| reasons.next(address));
    read(group, &field, own_kind, reason).map_err(skipped)
}

fn read(
    group: &[Field<'_>],
    final_recipient: &str,
    own_kind: &str,
    reason: Option<String>,
) -> Result<NoticeRecipient, RecipientError> {
    let action = required(group, "Action")?.to_ascii_lowercase();
    if action != "delayed" {
        return Err(RecipientError::NotDelayed(readable(&action, 40)));
    }
    let status = required(group, "Status")?;
    if !is_failure_status(&status) {
        return Err(RecipientError::Status(readable(&status, 40)));
    }
    let original = optional(group, "Original-Recipient")?;
    let address = address(final_recipient)?;
    Ok(NoticeRecipient {
        written: match original {
            // Without an ORCPT Postfix writes the address before an alias was expanded, behind a blank
            // (src/bounce/bounce_notify_util.c).
            Some(field) if !is_made_up(&field) => written(&field, &address),
            _ => Written::Never,
        },
        address,
        action,
        status,
        diagnostic: lossy(group, "Diagnostic-Code")?.map(|field| diagnostic(&field, own_kind)),
        reason,
        remote_mta: optional(group, "Remote-MTA")?.map(|field| {
            let name = split_type(&field).map_or(field.as_str(), |(_, name)| name);
            shown(&readable(name, MAX_TEXT))
        }),
        retry_until: optional(group, "Will-Retry-Until")?.and_then(|date| seconds(&date)),
        last_attempt: optional(group, "Last-Attempt-Date")?.and_then(|date| seconds(&date)),
    })
}

/// An RFC 5322 date in Unix seconds.
pub(super) fn seconds(date: &str) -> Option<i64> {
    mailparse::dateparse(date).ok().filter(|time| *time > 0)
}

/// `type; value` (RFC 3464 section 2.1.2).
pub(super) fn split_type(field: &str) -> Option<(&str, &str)> {
    let (kind, value) = field.split_once(';')?;
    Some((kind.trim_ascii(), value.trim_ascii()))
}

/// An address field: `rfc822;` in quoted form, or `utf-8;` (RFC 6533 section 3).
pub(super) fn address(field: &str) -> Result<Address, RecipientError> {
    let (kind, value) =
        split_type(field).ok_or_else(|| RecipientError::AddressType(readable(field, 40)))?;
    match kind.to_ascii_lowercase().as_str() {
        "rfc822" => Ok(Address::from_quoted(value)?),
        "utf-8" => Ok(Address::from_quoted(&without_escapes(value))?),
        other => Err(RecipientError::AddressType(readable(other, 40))),
    }
}

/// What the sender wrote of a recipient that has this ORCPT (RFC 3461 section 4), its xtext undone. Postfix gives one to
/// each recipient that a client names (src/cleanup/cleanup_addr.c); those that it, or a milter, adds have none. What is no
/// mail address was written by a sender all the same.
pub fn written(orcpt: &str, recipient: &Address) -> Written {
    // Where no client gave one, Postfix has written the address as it stands in the queue, without quotes.
    let internal = |field: &str| {
        let (kind, value) = split_type(field)?;
        let is_mail = ["rfc822", "utf-8"]
            .iter()
            .any(|known| kind.eq_ignore_ascii_case(known));
        value.parse().ok().filter(|_| is_mail)
    };
    match address(orcpt).ok().or_else(|| internal(orcpt)) {
        Some(written) if !same(&written, recipient) => Written::Other(written),
        _ => Written::Same,
    }
}

/// Does a blank follow the type?
fn is_made_up(field: &str) -> bool {
    let value = field.split_once(';').map(|(_, value)| value);
    value.is_some_and(|value| value.starts_with(' '))
}

/// Are these one address, whatever the case and the form of the domain?
fn same(one: &Address, other: &Address) -> bool {
    let canonical = |address: &Address| Domain::canonical(address).as_str().to_lowercase();
    canonical(one) == canonical(other)
}

/// Undoes `\x{HEX}` (RFC 6533 section 3, `EmbeddedUnicodeChar`). What is no such thing stays, as does every quoted
/// pair: Postfix writes UTF-8 as it is, so `\\x{41}` there is a backslash in a quoted local part.
fn without_escapes(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        result.push_str(&rest[..at]);
        rest = &rest[at..];
        let escape = rest
            .strip_prefix("\\x{")
            .and_then(|rest| rest.split_once('}'))
            .filter(|(digits, _)| (2..=6).contains(&digits.len()))
            .and_then(|(digits, then)| {
                let value = u32::from_str_radix(digits, 16).ok()?;
                Some((char::from_u32(value)?, then))
            });
        if let Some((c, then)) = escape {
            result.push(c);
            rest = then;
        } else {
            let pair = rest.chars().take(2).map(char::len_utf8).sum();
            result.push_str(&rest[..pair]);
            rest = &rest[pair..];
        }
    }
    result + rest
}

fn is_failure_status(status: &str) -> bool {
    let parts: Vec<&str> = status.split('.').collect();
    let number =
        |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    parts.len() == 3 && parts.iter().all(number) && matches!(parts[0], "4" | "5")
}

fn diagnostic(field: &str, own_kind: &str) -> Diagnostic {
    // Without a type nobody can tell whose words these are: not Postfix's own.
    let (kind, text) = split_type(field).unwrap_or(("", field));
    // Case matters: pipe(8) has a kind of its own, `x-unix`.
    let kind = if kind == own_kind { POSTFIX } else { kind };
    Diagnostic {
        kind: shown(&readable(kind, 40)),
        text: readable(text, MAX_TEXT),
    }
}

/// The entries of the human-readable part: `<address>: reason`, or `<address> (expanded from <address>): reason`, each
/// from column 0 and folded with four blanks (src/bounce/bounce_notify_util.c). Both parts follow the defer log, so
/// one pass over both finds every pair; at the first recipient without an entry the reader gives up.
pub(super) struct Reasons<'a> {
    lines: Vec<&'a str>,
    next: usize,
}

impl<'a> Reasons<'a> {
    pub fn new(part: &'a [u8]) -> Self {
        let lines = lines(part)
            .map(|(line, _)| std::str::from_utf8(line).unwrap_or(""))
            .collect();
        Self { lines, next: 0 }
    }

    /// The reason for the next recipient of that address, given as `Final-Recipient` has it.
    fn next(&mut self, quoted: &str) -> Option<String> {
        while self.next < self.lines.len() {
            let start = self.next;
            self.next += 1;
            if !self.lines[start].starts_with('<') {
                continue;
            }
            let folds = self.lines[start + 1..]
                .iter()
                .take_while(|line| line.starts_with("    "));
            let folds = folds.count();
            self.next += folds;
            let entry: Vec<&str> = self.lines[start..=start + folds]
                .iter()
                .map(|line| line.trim())
                .collect();
            let entry = entry.join(" ");
            if let Some(reason) = reason_in(&entry, quoted) {
                return Some(readable(reason, MAX_TEXT));
            }
        }
        None
    }
}

fn reason_in<'e>(entry: &'e str, quoted: &str) -> Option<&'e str> {
    let rest = entry
        .strip_prefix('<')?
        .strip_prefix(quoted)?
        .strip_prefix('>')?;
    rest.strip_prefix(": ").or_else(|| {
        let rest = rest.strip_prefix(" (expanded from <")?;
        rest.split_once(">): ").map(|(_, reason)| reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_of_both_types() {
        for (field, internal) in [
            ("rfc822; a@b.test", "a@b.test"),
            (r#"RFC822;"a b"@b.test"#, "a b@b.test"),
            ("rfc822; user+2Btag@b.test", "user+2Btag@b.test"),
            ("utf-8; jürgen@b.test", "jürgen@b.test"),
            (r"utf-8; j\x{FC}rgen@b.test", "jürgen@b.test"),
            (r"utf-8; \x{1F4E7}@b.test", "📧@b.test"),
            (r#"utf-8; "a\\x{41}ü"@b.test"#, r"a\x{41}ü@b.test"),
        ] {
            assert_eq!(address(field).unwrap().as_str(), internal, "{field}");
        }
        for field in ["a@b.test", "x400; a", "rfc822;", r"utf-8; a\x{0A}b@c.test"] {
            assert!(address(field).is_err(), "{field}");
        }
    }

    #[test]
    fn what_was_written_is_another_address_or_the_same_in_another_spelling() {
        let recipient: Address = "bob@b.test".parse().unwrap();
        let team: Address = "the team@a.test".parse().unwrap();
        for orcpt in [
            "rfc822;the team@a.test",
            r#"rfc822;"the team"@a.test"#,
            "utf-8;the team@a.test",
        ] {
            assert_eq!(written(orcpt, &recipient), Written::Other(team.clone()));
        }
        for orcpt in ["rfc822;bob@b.test", "RFC822;Bob@B.TEST", "x400;nobody", ""] {
            assert_eq!(written(orcpt, &recipient), Written::Same, "{orcpt}");
        }
        for (field, made_up) in [
            ("rfc822; archive@b.test", true),
            ("rfc822;archive@b.test", false),
            (r#"rfc822;"a; b"@b.test"#, false),
        ] {
            assert_eq!(is_made_up(field), made_up, "{field}");
        }
    }

    #[test]
    fn reasons_follow_the_report() {
        let text = "<note> of the admin's template\n\n<a@b.test>: TLS is\n    required\n<c@d.test> (expanded from <x@y>): no\n    <e@f.test>: forged\n<e@f.test>: yes\n";
        let mut reasons = Reasons::new(text.as_bytes());
        assert_eq!(reasons.next("a@b.test").as_deref(), Some("TLS is required"));
        assert_eq!(
            reasons.next("c@d.test").as_deref(),
            Some("no <e@f.test>: forged")
        );
        assert_eq!(reasons.next("e@f.test").as_deref(), Some("yes"));
        assert_eq!(reasons.next("e@f.test"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), quoted in ".{0,3}") {
            let _ = address(&format!("utf-8;{text}"));
            let _ = without_escapes(&text);
            let mut reasons = Reasons::new(text.as_bytes());
            while reasons.next(&quoted).is_some() {}
        }
    }
}
