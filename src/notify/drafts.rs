//! The five kinds of mail, as drafts: what each says about which messages (pure).

use minijinja::{Value, context};

use super::compose::{ComposeError, Draft, Headline, SUBJECT};
use super::texts::{TextError, Texts};
use crate::address::Address;
use crate::case::store::Alert;
use crate::case::{Case, Failure, News, Recipient, RecipientState, alert};
use crate::config::Notification;
use crate::text;

/// Messages that a digest lists, and recipients that an information lists of each kind; the others are counted.
const LISTED: usize = 20;
/// Characters of an example that the admin is told.
const EXAMPLE: usize = 400;

/// What makes a mail a reminder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reminder {
    /// Does none come after it?
    pub last: bool,
}

/// A message, for a digest.
#[derive(Debug, Clone)]
pub struct About {
    /// The message.
    pub case: Case,
    /// The recipients that wait for a decision, as the sender knows them.
    pub waiting: Vec<String>,
}

/// A recipient, for an information.
#[derive(Debug, Clone)]
pub struct Line {
    /// What happened.
    pub news: News,
    /// To whom, as the sender knows the recipient.
    pub recipient: String,
    /// To which message.
    pub case: Case,
    /// The domain that must be reached over TLS.
    pub domain: Option<String>,
    /// The remembered choice.
    pub consent: Option<ConsentLine>,
    /// What servers said.
    pub said: Option<String>,
}

/// A remembered choice that was used.
#[derive(Debug, Clone)]
pub struct ConsentLine {
    /// The address or domain that it is for.
    pub target: String,
    /// Until when it is in force, in Unix seconds.
    pub until: i64,
    /// The address of the page on which it is revoked.
    pub url: String,
}

fn subject_of(case: &Case) -> String {
    text::readable(&case.subject, SUBJECT)
}

/// A subject within a subject: an empty one is named.
fn named_subject(case: &Case, texts: Texts) -> Result<String, TextError> {
    let subject = subject_of(case);
    if subject.is_empty() {
        texts.text("common.no-subject", &[])
    } else {
        Ok(subject)
    }
}

fn moment(texts: Texts, seconds: Option<i64>) -> Result<Option<String>, TextError> {
    seconds.map(|seconds| texts.moment(seconds)).transpose()
}

impl<'a> Draft<'a> {
    fn new(to: &Address, settings: &'a Notification, template: &'static str) -> Self {
        Self {
            to: to.clone(),
            settings,
            texts: Texts::of(settings.language_of(to)),
            template,
            html: true,
            values: Value::UNDEFINED,
            headline: Headline::Text(String::new()),
            in_reply_to: None,
        }
    }

    /// That one message waits for a decision, or still does; in reply to that message. `url` is the address of the
    /// case's page.
    ///
    /// # Errors
    /// When a catalogue lacks a text.
    pub fn notification(
        to: &Address,
        settings: &'a Notification,
        case: &Case,
        recipients: &[Recipient],
        url: &str,
        reminder: Option<Reminder>,
    ) -> Result<Self, ComposeError> {
        let mut draft = Self::new(to, settings, "notification");
        let texts = draft.texts;
        let subject = named_subject(case, texts)?;
        let retry_until = moment(texts, case.retry_until)?;
        let (h1, headline, until) = match reminder {
            None => (
                "notification.h1",
                "notification.subject",
                "notification.until",
            ),
            Some(Reminder { last: false }) => {
                ("reminder.h1", "reminder.subject", "notification.until")
            }
            Some(Reminder { last: true }) => {
                ("reminder.h1", "reminder.subject-last", "reminder.last")
            }
        };
        draft.headline = if reminder.is_none() && !settings.subject.is_empty() {
            Headline::Template(settings.subject.clone())
        } else {
            Headline::Text(texts.text(headline, &[("subject", &subject)])?)
        };
        let of = |wanted: fn(RecipientState) -> bool| {
            let of = recipients.iter().filter(|one| wanted(one.state));
            of.map(|one| {
                Ok(context! {
                    address => text::shown(&one.name()),
                    reason => texts.reason(one.failure)?,
                    may_send => one.may_send,
                    unjudged => one.failure == Failure::Unjudged,
                })
            })
            .collect::<Result<Vec<Value>, TextError>>()
        };
        draft.values = context! {
            title => texts.text("notification.title", &[])?,
            h1 => texts.text(h1, &[])?,
            subject => subject_of(case),
            sent => texts.moment(case.key.arrival)?,
            until => until_words(texts, until, retry_until.as_deref())?,
            retry_until,
            stuck => of(RecipientState::is_open)?,
            others => of(|state| state == RecipientState::NotOffered)?,
            may_send => recipients.iter().any(|one| one.state.is_open() && one.may_send),
            link => context! {
                send => format!("{url}?choice=send"),
                delete => format!("{url}?choice=delete"),
                keep => format!("{url}?choice=keep"),
            },
            admin_contact => settings.admin_contact.as_str(),
            queue_id => case.key.queue_id.as_str(),
        };
        draft.in_reply_to = case.message_id.clone();
        Ok(draft)
    }

    /// That several messages wait for decisions, or still do. `url` is the address of the page with all messages of the
    /// sender; `total` counts those that are not among `messages`, too.
    ///
    /// # Errors
    /// When a catalogue lacks a text.
    pub fn digest(
        to: &Address,
        settings: &'a Notification,
        messages: &[About],
        total: usize,
        url: &str,
        reminder: Option<Reminder>,
    ) -> Result<Self, ComposeError> {
        let mut draft = Self::new(to, settings, "digest");
        let texts = draft.texts;
        let count = total.to_string();
        let n = [("n", count.as_str())];
        let first_end = messages.iter().filter_map(|one| one.case.retry_until).min();
        let retry_until = moment(texts, first_end)?;
        let (h1, headline, until) = match reminder {
            None => ("digest.h1", "digest.subject", "digest.until"),
            Some(Reminder { last: false }) => {
                ("reminder.h1-many", "reminder.subject-many", "digest.until")
            }
            Some(Reminder { last: true }) => (
                "reminder.h1-many",
                "reminder.subject-many-last",
                "reminder.last-many",
            ),
        };
        draft.headline = Headline::Text(texts.text(headline, &n)?);
        let listed = &messages[..messages.len().min(LISTED)];
        let lines = listed
            .iter()
            .map(|one| {
                Ok(context! {
                    subject => subject_of(&one.case),
                    sent => texts.moment(one.case.key.arrival)?,
                    to => addressees(texts, &one.waiting)?,
                })
            })
            .collect::<Result<Vec<Value>, TextError>>()?;
        let ids: Vec<&str> = listed
            .iter()
            .map(|one| one.case.key.queue_id.as_str())
            .collect();
        draft.values = context! {
            title => texts.text("digest.title", &[])?,
            h1 => texts.text(h1, &n)?,
            messages => lines,
            more => total.saturating_sub(listed.len()),
            until => until_words(texts, until, retry_until.as_deref())?,
            retry_until,
            link => url,
            admin_contact => settings.admin_contact.as_str(),
            queue_ids => ids.join(", "),
        };
        Ok(draft)
    }

    /// What happened, and leaves nothing to decide. About one message it is in reply to that.
    ///
    /// # Errors
    /// When a catalogue lacks a text.
    pub fn information(
        to: &Address,
        settings: &'a Notification,
        lines: &[Line],
    ) -> Result<Self, ComposeError> {
        let mut draft = Self::new(to, settings, "information");
        let texts = draft.texts;
        let mut sections = Vec::new();
        for news in [
            News::Returned,
            News::Withheld,
            News::Waiting,
            News::Mandatory,
            News::Consent,
            News::Delivered,
        ] {
            let of: Vec<&Line> = lines.iter().filter(|line| line.news == news).collect();
            if of.is_empty() {
                continue;
            }
            let listed = of
                .iter()
                .take(LISTED)
                .map(|line| line_of(line, texts))
                .collect::<Result<Vec<Value>, TextError>>()?;
            sections.push(context! {
                kind => news.as_str(),
                count => of.len(),
                more => of.len() - listed.len(),
                lines => listed,
            });
        }
        let one = lines.first().filter(|first| {
            let mut others = lines.iter();
            others.all(|line| (line.case.id, line.news) == (first.case.id, first.news))
        });
        draft.headline = Headline::Text(match one {
            Some(one) => {
                let subject = named_subject(&one.case, texts)?;
                let key = format!("information.{}-subject", one.news);
                texts.text(&key, &[("subject", &subject)])?
            }
            None => texts.text(
                "information.subject-many",
                &[("n", &lines.len().to_string())],
            )?,
        });
        draft.in_reply_to = one.and_then(|one| one.case.message_id.clone());
        draft.values = context! {
            title => texts.text("information.title", &[])?,
            h1 => texts.text("information.h1", &[])?,
            sections,
            admin_contact => settings.admin_contact.as_str(),
        };
        Ok(draft)
    }

    /// What the admin should know.
    ///
    /// # Errors
    /// When a catalogue lacks a text.
    pub fn alert(
        to: &Address,
        settings: &'a Notification,
        alerts: &[Alert],
    ) -> Result<Self, ComposeError> {
        let mut draft = Self::new(to, settings, "alert");
        let texts = draft.texts;
        draft.html = false;
        let what = |one: &Alert| {
            let kind = alert::Kind::of(&one.cause).as_str();
            texts.text(&format!("alert.what.{kind}"), &[])
        };
        draft.headline = Headline::Text(match alerts {
            [one] => texts.text("alert.subject", &[("what", &what(one)?)])?,
            many => texts.text("alert.subject-many", &[("n", &many.len().to_string())])?,
        });
        let listed = alerts
            .iter()
            .map(|one| {
                let kind = alert::Kind::of(&one.cause);
                // The names of the other kinds say it all; Postfix's own words are worth reading.
                let cause = match kind {
                    alert::Kind::LocalFault | alert::Kind::Other => one.cause.as_str(),
                    _ => "",
                };
                Ok(context! {
                    kind => kind.as_str(),
                    cause => text::readable(cause, EXAMPLE),
                    count => one.count,
                    since => texts.moment(one.since / 1000)?,
                    example => text::readable(&one.detail, EXAMPLE),
                })
            })
            .collect::<Result<Vec<Value>, TextError>>()?;
        draft.values = context! { h1 => texts.text("alert.h1", &[])?, alerts => listed };
        Ok(draft)
    }
}

/// What happens until when: `key` names the text with a date, `key-unknown` the one without.
fn until_words(texts: Texts, key: &str, end: Option<&str>) -> Result<String, TextError> {
    match end {
        Some(end) => texts.text(key, &[("date", end)]),
        None => texts.text(&format!("{key}-unknown"), &[]),
    }
}

fn addressees(texts: Texts, waiting: &[String]) -> Result<String, TextError> {
    let first = waiting.first().map_or("", String::as_str);
    let first = text::shown(first);
    match waiting.len() {
        0 | 1 => Ok(first),
        many => texts.text(
            "common.more-recipients",
            &[("address", &first), ("n", &(many - 1).to_string())],
        ),
    }
}

fn line_of(line: &Line, texts: Texts) -> Result<Value, TextError> {
    let consent = match &line.consent {
        Some(consent) => Some(context! {
            target => text::shown(&consent.target),
            until => texts.moment(consent.until)?,
            link => consent.url.as_str(),
        }),
        None => None,
    };
    Ok(context! {
        address => text::shown(&line.recipient),
        subject => subject_of(&line.case),
        sent => texts.moment(line.case.key.arrival)?,
        queue_id => line.case.key.queue_id.as_str(),
        domain => line.domain.as_deref().map(text::shown),
        said => line.said.as_deref().map(|said| text::readable(said, EXAMPLE)),
        consent,
    })
}

#[cfg(test)]
#[path = "drafts_tests.rs"]
mod tests;
