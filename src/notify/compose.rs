//! The notification, from a case and the templates (pure).
//!
//! Everything in it that comes from strangers has been made one plain line first ([`text::readable`], [`text::shown`]),
//! and the HTML part is escaped by the template engine, so neither a subject nor an address can add a header, a line or
//! a tag.

use std::collections::BTreeMap;

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart, header};
use lettre::{Address as Mail, Message};
use minijinja::{AutoEscape, Environment, Value, context};

use crate::address::Address;
use crate::case::{Case, Failure, Recipient, RecipientState};
use crate::config::Notification;
use crate::text;

/// The built-in templates by file name; an admin's file of the same name replaces one.
pub const TEMPLATES: [(&str, &str); 2] = [
    (
        "notification.txt",
        include_str!("templates/notification.txt"),
    ),
    (
        "notification.html",
        include_str!("templates/notification.html"),
    ),
];

/// Characters of a subject that are shown.
const SUBJECT: usize = 150;

/// A mail ready to be sent.
pub struct Letter {
    /// The only recipient.
    pub to: Mail,
    /// Header and body.
    pub message: Message,
}

/// Why no mail could be composed. None of these goes away by itself.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The address can't be used in SMTP.
    #[error("<{address}> can't be written to: {why}")]
    Address {
        /// Whose.
        address: Address,
        /// Why.
        why: String,
    },
    /// A template, most likely the admin's own, fails.
    #[error("template {name}: {}", chain(source))]
    Template {
        /// File name, or `notification.subject`.
        name: &'static str,
        /// Why.
        source: minijinja::Error,
    },
    /// The system gives no random numbers for a Message-ID.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// The mail library refuses the parts.
    #[error("cannot put the notification together: {0}")]
    Assemble(#[from] lettre::error::Error),
}

/// minijinja tells the line in the source of an error.
fn chain(error: &minijinja::Error) -> String {
    format!("{error:#}")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Composes the notification about `case` for `sender`. `url` is the address of the case's page; `times` turns Unix
/// seconds into text; `overrides` are the admin's templates by file name.
///
/// # Errors
/// See [`ComposeError`].
pub fn compose(
    case: &Case,
    sender: &Address,
    recipients: &[Recipient],
    url: &str,
    times: &dyn Fn(i64) -> String,
    settings: &Notification,
    overrides: &BTreeMap<String, String>,
) -> Result<Letter, ComposeError> {
    let subject = text::readable(&case.subject, SUBJECT);
    let line = |recipient: &&Recipient| {
        context! {
            address => text::shown(recipient.address.as_str()),
            reason => reason(recipient.failure),
            may_send => recipient.may_send,
        }
    };
    let of = |wanted: fn(RecipientState) -> bool| {
        let of = recipients.iter().filter(move |one| wanted(one.state));
        of.map(|one| line(&one)).collect::<Vec<Value>>()
    };
    let stuck = of(RecipientState::is_open);
    let others = of(|state| state == RecipientState::NotOffered);
    let values = context! {
        subject,
        sent => times(case.key.arrival),
        retry_until => case.retry_until.map(times),
        stuck,
        others,
        may_send => recipients.iter().any(|one| one.state.is_open() && one.may_send),
        link => context! {
            send => format!("{url}?choice=send"),
            delete => format!("{url}?choice=delete"),
            keep => format!("{url}?choice=keep"),
        },
        admin_contact => settings.admin_contact.as_str(),
        queue_id => case.key.queue_id.as_str(),
    };
    let mut environment = Environment::new();
    // By name: only what ends in .html is escaped as HTML.
    environment.set_auto_escape_callback(|name| {
        if name.ends_with(".html") {
            AutoEscape::Html
        } else {
            AutoEscape::None
        }
    });
    let mut parts = Vec::with_capacity(TEMPLATES.len());
    for (name, builtin) in TEMPLATES {
        let source = overrides.get(name).map_or(builtin, String::as_str);
        let fault = |source| ComposeError::Template { name, source };
        environment.add_template(name, source).map_err(fault)?;
        parts.push(
            environment
                .get_template(name)
                .and_then(|template| template.render(&values))
                .map_err(fault)?,
        );
    }
    let headline = environment
        .render_str(&settings.subject, &values)
        .map_err(|source| ComposeError::Template {
            name: "notification.subject",
            source,
        })?;

    let to = mail_address(sender)?;
    let from = Mailbox::new(
        Some(settings.from_name.clone()),
        mail_address(&settings.from_address)?,
    );
    let html = parts.pop().unwrap_or_default();
    let plain = parts.pop().unwrap_or_default();
    let mut builder = Message::builder()
        .from(from)
        .to(Mailbox::new(None, to.clone()))
        .subject(text::readable(&headline, SUBJECT + 100))
        .message_id(Some(message_id(settings)?))
        .date_now();
    if let Some(id) = &case.message_id {
        builder = builder.in_reply_to(id.clone()).references(id.clone());
    }
    // Given here, because the library does not read every address back from the header that it wrote.
    let envelope = lettre::address::Envelope::new(None, vec![to.clone()])?;
    let mut message = builder.envelope(envelope).multipart(
        MultiPart::alternative()
            .singlepart(
                SinglePart::builder()
                    .header(header::ContentType::TEXT_PLAIN)
                    .body(plain),
            )
            .singlepart(
                SinglePart::builder()
                    .header(header::ContentType::TEXT_HTML)
                    .body(html),
            ),
    )?;
    // RFC 3834 section 5: so that vacation programs and mailing lists leave it alone.
    for (name, value) in [
        ("Auto-Submitted", "auto-generated"),
        ("X-Auto-Response-Suppress", "All"),
    ] {
        message.headers_mut().insert_raw(HeaderValue::new(
            HeaderName::new_from_ascii_str(name),
            value.to_owned(),
        ));
    }
    Ok(Letter { to, message })
}

/// A Message-ID in the domain of the From address: the library's own would be `@localhost`.
fn message_id(settings: &Notification) -> Result<String, ComposeError> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random)?;
    let hex: String = random.iter().map(|octet| format!("{octet:02x}")).collect();
    let domain = settings.from_address.domain();
    let domain = if domain.is_ascii() && !domain.is_empty() {
        domain.as_str()
    } else {
        "posttls.invalid"
    };
    Ok(format!("<{hex}@{domain}>"))
}

fn mail_address(address: &Address) -> Result<Mail, ComposeError> {
    let quoted = address.quoted();
    quoted.parse().map_err(
        |error: lettre::address::AddressError| ComposeError::Address {
            address: address.clone(),
            why: error.to_string(),
        },
    )
}

/// The reason in words for people who don't run mail servers.
fn reason(failure: Failure) -> &'static str {
    match failure {
        Failure::NotOffered => "Their mail server does not offer encryption.",
        Failure::Refused => "Their mail server offers encryption, but refused to use it.",
        Failure::HandshakeFailed => {
            "The encrypted connection to their mail server could not be set up."
        }
        Failure::Certificate => {
            "Their mail server could not prove its identity: it may not be the right one."
        }
        Failure::RequireTls => {
            "This message demands encryption all the way, which their mail server can't give."
        }
        Failure::LocalFault => {
            "Encryption does not work on our side at the moment; our administrators know."
        }
        Failure::NotTls => "Their mail server did not take the message yet.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Asked, CaseId, CaseState, MessageKey, Source};
    use crate::config::Config;
    use proptest::prelude::*;

    fn settings() -> Notification {
        toml::from_str::<toml::Table>(crate::config::DEFAULT_FILE).unwrap()["notification"]
            .clone()
            .try_into()
            .unwrap()
    }

    fn recipient(number: i64, address: &str, failure: Failure) -> Recipient {
        let offer = crate::config::Offer {
            failures: vec![
                Failure::NotOffered,
                Failure::Refused,
                Failure::HandshakeFailed,
            ],
        };
        let about = crate::case::policy::Circumstances {
            failure,
            asked: Asked::Sender,
            unasked: crate::config::Unasked::Keep,
            mandatory: None,
            consent: false,
        };
        let verdict = crate::case::policy::judge(&about, &offer);
        Recipient {
            id: number,
            number,
            address: address.parse().unwrap(),
            failure,
            status: "4.7.4".to_owned(),
            detail: "said so".to_owned(),
            may_send: verdict.may_send,
            state: verdict.state,
            stuck_at: None,
            passage: None,
            passage_at: None,
            passage_detail: None,
        }
    }

    fn letter(subject: &str, recipients: &[Recipient]) -> Letter {
        let sender: Address = "alice@sender.test".parse().unwrap();
        let case = Case {
            id: CaseId(7),
            key: MessageKey {
                queue_id: "3A41B12345".parse().unwrap(),
                sender: Some(sender.clone()),
                arrival: 1_790_000_000,
            },
            subject: subject.to_owned(),
            message_id: Some("<original@sender.test>".to_owned()),
            retry_until: Some(1_790_432_000),
            state: CaseState::Open,
            opened_at: 0,
            notified_at: None,
            source: Source::Notice,
            asked: Asked::Sender,
            closed_at: None,
            closed_why: None,
            redacted_at: None,
        };
        let times = |seconds: i64| format!("[time {seconds}]");
        compose(
            &case,
            &sender,
            recipients,
            "https://x.example/c/TOKEN",
            &times,
            &settings(),
            &BTreeMap::new(),
        )
        .unwrap()
    }

    /// Without what differs from run to run.
    fn stable(letter: &Letter) -> String {
        let text = String::from_utf8(letter.message.formatted())
            .unwrap()
            .replace("\r\n", "\n");
        let boundary = text
            .split("boundary=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .to_owned();
        text.replace(&boundary, "BOUNDARY")
            .lines()
            .filter(|line| !line.starts_with("Date: ") && !line.starts_with("Message-ID: "))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn one_recipient() {
        insta::assert_snapshot!(stable(&letter(
            "Offer",
            &[recipient(1, "bob@plain.test", Failure::NotOffered)]
        )));
    }

    #[test]
    fn several_recipients_some_of_whom_are_not_concerned() {
        insta::assert_snapshot!(stable(&letter(
            "Grüße aus Köln",
            &[
                recipient(1, "bob@plain.test", Failure::NotOffered),
                recipient(2, "carol@cert.test", Failure::Certificate),
                recipient(3, "dave@down.test", Failure::NotTls),
            ]
        )));
    }

    #[test]
    fn html_in_a_subject_is_text() {
        let letter = letter(
            "<script>alert(1)</script>",
            &[recipient(1, "\"<b>\"@plain.test", Failure::NotOffered)],
        );
        let parsed = letter.message.formatted();
        let mail = mailparse::parse_mail(&parsed).unwrap();
        let html = mail.subparts[1].get_body().unwrap();
        assert!(html.contains("&lt;script&gt;alert(1)"), "{html}");
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
    }

    #[test]
    fn the_shipped_subject_is_a_template() {
        let letter = letter(
            "Offer",
            &[recipient(1, "bob@plain.test", Failure::NotOffered)],
        );
        let parsed = letter.message.formatted();
        let mail = mailparse::parse_mail(&parsed).unwrap();
        let subject =
            mailparse::MailHeaderMap::get_first_value(&mail.headers[..], "Subject").unwrap();
        assert_eq!(subject, "Not sent yet: Offer");
        assert!(Config::load(std::path::Path::new("/nonexistent")).is_err());
    }

    proptest! {
        #[test]
        fn no_subject_breaks_the_mail(subject in any::<String>()) {
            let letter = letter(&subject, &[recipient(1, "bob@plain.test", Failure::NotOffered)]);
            let formatted = letter.message.formatted();
            let mail = mailparse::parse_mail(&formatted).unwrap();
            let mut names: Vec<String> = mail.headers.iter().map(|header| header.get_key()).collect();
            names.sort();
            prop_assert_eq!(names.join(" "), "Auto-Submitted Content-Type Date From In-Reply-To MIME-Version Message-ID References Subject To X-Auto-Response-Suppress");
            prop_assert_eq!(mail.subparts.len(), 2);
            prop_assert!(formatted.split(|octet| *octet == b'\n').all(|line| line.len() <= 998), "a line is too long");
        }
    }
}
