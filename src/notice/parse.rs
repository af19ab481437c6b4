//! A delay notice, read: Postfix's postmaster copy, a `multipart/report` (RFC 3464, RFC 6522; RFC 6533 for SMTPUTF8).
//!
//! Only the outermost boundary is ever looked for, so nothing that a sender wrote in the returned headers can pass for
//! a part of the report, and no nesting can exhaust the stack. The order of parts is fixed (RFC 6522 section 3).

use super::fields::{self, Field, FieldError, fields, lines, optional, required};
use super::report::{
    NoticeRecipient, Reasons, RecipientError, Skipped, address, recipient, seconds, split_type,
};
use super::words;
use crate::address::Address;
use crate::case::automatic;
use crate::octets;
use crate::postfix::QueueId;
use crate::text::{readable, shown};

/// A notice of 100,000 recipients has about this size.
const MAX_OCTETS: usize = 64 << 20;

/// Longest subject and Message-ID kept, in characters.
const MAX_SUBJECT: usize = 300;
const MAX_MESSAGE_ID: usize = 500;

/// Postfix's null sender in `X-Postfix-Sender` (src/bounce/bounce_notify_util.c).
const MAILER_DAEMON: &str = "MAILER-DAEMON";

/// A delay notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The deferred message (`X-Postfix-Queue-ID`).
    pub queue_id: QueueId,
    /// Its envelope sender (`X-Postfix-Sender`), unquoted. `None` for the null sender, which Postfix shows as
    /// `MAILER-DAEMON`, but sends no delay notice for.
    pub sender: Option<Address>,
    /// When the message arrived (`Arrival-Date`), in Unix seconds.
    pub arrival: i64,
    /// The host name of the instance (`Reporting-MTA` without its type), shown safely.
    pub reporting_mta: String,
    /// The deferred recipients, in the order of the defer log; at least one.
    pub recipients: Vec<NoticeRecipient>,
    /// What else the report lists, with the reason why it is no deferred recipient. To be logged.
    pub skipped: Vec<Skipped>,
    /// From the headers of the deferred message.
    pub original: Original,
}

/// What the sender should recognise the message by. All of it is the sender's own text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Original {
    /// `Subject`, decoded (RFC 2047, RFC 6532), made one plain line of at most 300 characters: no line break, control
    /// or direction character is in it.
    pub subject: Option<String>,
    /// `Date`, in Unix seconds.
    pub date: Option<i64>,
    /// Does the header say that a program sent it? See [`automatic::by_field`].
    pub automatic: bool,
    /// `Message-ID` with its angle brackets, if it may stand in `In-Reply-To` as it is: one, printable ASCII, at most
    /// 500 octets (RFC 5322 section 3.6.4).
    pub message_id: Option<String>,
}

/// Why something is no delay notice of Postfix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoticeError {
    /// In octets.
    #[error("the notice has {0} octets, more than the limit of {MAX_OCTETS}")]
    TooLarge(usize),
    /// RFC 6522 section 3.
    #[error("the notice is no multipart/report of report-type delivery-status, but {0:?}")]
    NotAReport(String),
    /// RFC 2046 section 5.1.1.
    #[error("the notice has no {0} part")]
    MissingPart(&'static str),
    /// Postfix encodes none.
    #[error("the delivery report is encoded as {0:?}")]
    Encoded(String),
    /// Named as in the report.
    #[error("the report lacks the field {0}")]
    MissingField(String),
    /// Named as in the report.
    #[error("the report has the field {0} more than once")]
    DuplicateField(String),
    /// The field and what stands there.
    #[error("the report's field {0} cannot be understood: {1:?}")]
    BadField(String, String),
    /// The count of those that were skipped.
    #[error("the report names no deferred recipient ({} others, the first: {})", .0.len(), first_of(.0))]
    NoRecipient(Vec<Skipped>),
}

fn first_of(skipped: &[Skipped]) -> String {
    skipped.first().map_or_else(
        || "none".to_owned(),
        |s| format!("{}: {}", s.recipient, s.reason),
    )
}

impl From<FieldError> for NoticeError {
    fn from(error: FieldError) -> Self {
        match error {
            FieldError::Missing(name) => Self::MissingField(name),
            FieldError::Duplicate(name) => Self::DuplicateField(name),
            FieldError::NotUtf8(name) => Self::BadField(name, "not UTF-8".to_owned()),
        }
    }
}

/// Reads a notice, with LF or CRLF line ends.
///
/// A recipient that is not deferred, or that cannot be understood, goes to [`Notice::skipped`]: it must not lose the
/// others.
///
/// # Errors
/// [`NoticeError`] names what is missing.
pub fn parse(raw: &[u8]) -> Result<Notice, NoticeError> {
    if raw.len() > MAX_OCTETS {
        return Err(NoticeError::TooLarge(raw.len()));
    }
    let (header, body) = fields(raw);
    let mut parts = parts(&raw[body..], &boundary(&header)?).into_iter();
    let (_, human) = part(&mut parts, "notification", &["text/plain"])?;
    let (report_header, report) = part(
        &mut parts,
        "delivery report",
        &["message/delivery-status", "message/global-delivery-status"],
    )?;
    if let Some(encoding) = optional(&report_header, "Content-Transfer-Encoding")?
        && !["7bit", "8bit", "binary"].contains(&encoding.to_ascii_lowercase().as_str())
    {
        return Err(NoticeError::Encoded(readable(&encoding, 40)));
    }
    let returned = [
        "text/rfc822-headers",
        "message/rfc822",
        "message/global-headers",
        "message/global",
    ];
    let original = part(&mut parts, "returned headers", &returned)
        .map_or_else(|_| Original::default(), |(_, headers)| original(headers));
    read_report(report, human, original)
}

fn read_report(report: &[u8], human: &[u8], original: Original) -> Result<Notice, NoticeError> {
    let mut groups = groups(report).into_iter();
    let message = groups.next().unwrap_or_default();
    let mail_name = mail_name(&message)?;
    let field = |name: &str| required(&message, name);
    let sender_field = fields::octets(&message, &format!("X-{mail_name}-Sender"))?;
    let queue_id_field = format!("X-{mail_name}-Queue-ID");
    let queue_id = field(&queue_id_field)?;
    let arrival = field("Arrival-Date")?;
    let reporting_mta = field("Reporting-MTA")?;
    let own_kind = format!("X-{mail_name}");
    let mut reasons = Reasons::new(human);
    let (mut recipients, mut skipped) = (Vec::new(), Vec::new());
    for group in groups {
        match recipient(&group, &own_kind, &mut reasons) {
            Ok(found) => recipients.push(found),
            Err(why) => skipped.push(why),
        }
    }
    if recipients.is_empty() {
        return Err(NoticeError::NoRecipient(skipped));
    }
    Ok(Notice {
        queue_id: queue_id
            .parse()
            .map_err(|_| NoticeError::BadField(queue_id_field, readable(&queue_id, 80)))?,
        sender: sender(sender_field)?,
        arrival: seconds(&arrival).ok_or_else(|| {
            NoticeError::BadField("Arrival-Date".to_owned(), readable(&arrival, 80))
        })?,
        reporting_mta: shown(&readable(
            split_type(&reporting_mta).map_or(reporting_mta.as_str(), |(_, name)| name),
            255,
        )),
        recipients,
        skipped,
        original,
    })
}

/// The name in `X-NAME-Queue-ID`: the parameter `mail_name`, `Postfix` by default, with `-` for what no atom may hold.
fn mail_name(message: &[Field<'_>]) -> Result<String, NoticeError> {
    let names: Vec<&str> = message
        .iter()
        .filter_map(|field| field.name.strip_prefix("X-")?.strip_suffix("-Queue-ID"))
        .collect();
    match names.as_slice() {
        [name] => Ok((*name).to_owned()),
        [] => Err(NoticeError::MissingField("X-Postfix-Queue-ID".to_owned())),
        _ => Err(NoticeError::DuplicateField("X-Postfix-Queue-ID".to_owned())),
    }
}

/// Postfix always names one: without it nobody could tell whose message it is, and it would be taken for nobody's. Other than
/// a recipient it has here the octets of the queue file. The null sender is MAILER_DAEMON without a domain; with one it is
/// somebody's address.
fn sender(field: &[u8]) -> Result<Option<Address>, NoticeError> {
    match address(&octets::text(field)) {
        Ok(sender) => Ok((sender.as_str() != MAILER_DAEMON).then_some(sender)),
        Err(RecipientError::Address(bad)) if bad.0.is_empty() => Ok(None),
        Err(_) => Err(NoticeError::BadField(
            "X-Postfix-Sender".to_owned(),
            shown(&readable(&octets::text(field), 80)),
        )),
    }
}

fn boundary(header: &[Field<'_>]) -> Result<Vec<u8>, NoticeError> {
    let field = required(header, "Content-Type")?;
    let content_type = mailparse::parse_content_type(&field);
    let is_report = content_type
        .mimetype
        .eq_ignore_ascii_case("multipart/report")
        && content_type
            .params
            .get("report-type")
            .is_some_and(|kind| kind.eq_ignore_ascii_case("delivery-status"));
    match content_type.params.get("boundary") {
        Some(boundary) if is_report && !boundary.is_empty() => {
            Ok(format!("--{boundary}").into_bytes())
        }
        _ => Err(NoticeError::NotAReport(readable(&field, 80))),
    }
}

/// What stands between the delimiters. The closing one ends the last part; without it, as in a truncated notice, the
/// last part goes to the end.
fn parts<'a>(body: &'a [u8], delimiter: &[u8]) -> Vec<&'a [u8]> {
    let mut found = Vec::new();
    let mut part_start = None;
    let mut line_start = 0;
    for (line, next) in lines(body) {
        if let Some(after) = line.strip_prefix(delimiter) {
            let closing = after.starts_with(b"--");
            if closing || after.trim_ascii().is_empty() {
                found.extend(part_start.map(|start| &body[start..line_start]));
                part_start = Some(next);
            }
            if closing {
                return found;
            }
        }
        line_start = next;
    }
    found.extend(part_start.map(|start| &body[start..]));
    found
}

/// The next part, which must have one of those types: its header and its body.
fn part<'a>(
    parts: &mut impl Iterator<Item = &'a [u8]>,
    name: &'static str,
    types: &[&str],
) -> Result<(Vec<Field<'a>>, &'a [u8]), NoticeError> {
    let part = parts.next().ok_or(NoticeError::MissingPart(name))?;
    let (header, body) = fields(part);
    let content_type = optional(&header, "Content-Type")?.unwrap_or_default();
    let mime = mailparse::parse_content_type(&content_type).mimetype;
    if !types.iter().any(|known| known.eq_ignore_ascii_case(&mime)) {
        return Err(NoticeError::MissingPart(name));
    }
    Ok((header, &part[body..]))
}

/// Groups of fields with blank lines between (RFC 3464 section 2.1).
fn groups(mut report: &[u8]) -> Vec<Vec<Field<'_>>> {
    let mut found = Vec::new();
    while !report.is_empty() {
        let (group, next) = fields(report);
        report = &report[next..];
        if !group.is_empty() {
            found.push(group);
        }
    }
    found
}

/// What a message's header says that its sender should recognise it by.
pub fn original(headers: &[u8]) -> Original {
    let (header, _) = fields(headers);
    let subject = header.iter().find(|field| field.is("Subject"));
    Original {
        automatic: header
            .iter()
            .any(|field| automatic::by_field(&field.name, &field.lossy_text())),
        subject: subject.map(|field| readable(&words::decode(field.body), MAX_SUBJECT)),
        date: optional(&header, "Date")
            .ok()
            .flatten()
            .and_then(|date| seconds(&date)),
        message_id: optional(&header, "Message-ID")
            .ok()
            .flatten()
            .filter(|id| is_message_id(id)),
    }
}

fn is_message_id(id: &str) -> bool {
    id.len() <= MAX_MESSAGE_ID
        && id
            .strip_prefix('<')
            .and_then(|id| id.strip_suffix('>'))
            .is_some_and(|id| {
                !id.is_empty()
                    && id
                        .bytes()
                        .all(|b| b.is_ascii_graphic() && b != b'<' && b != b'>')
            })
}
