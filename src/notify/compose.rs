//! From a draft to a mail: templates, texts, header (pure).
//!
//! Everything in a draft that comes from strangers has been made one plain line first ([`text::readable`],
//! [`text::shown`]), and HTML is escaped by the template engine, so neither a subject nor an address can add a header,
//! a line or a tag.

use lettre::message::header::{HeaderName, HeaderValue, Headers};
use lettre::message::{MultiPart, SinglePart, header};
use mailparse::MailHeaderMap as _;
use minijinja::value::Kwargs;
use minijinja::{AutoEscape, Environment, ErrorKind, Value};

use super::field;
use super::templates::{Overrides, TEMPLATES};
use super::texts::{TextError, Texts};
use crate::address::Address;
use crate::config::Notification;
use crate::domain::Domain;
use crate::text;

/// Characters of a subject that are shown.
pub(super) const SUBJECT: usize = 150;
/// Columns of the text part.
const COLUMNS: usize = 76;

/// A mail ready to be sent.
pub struct Letter {
    /// The only recipient.
    pub to: Address,
    /// Header and body, with CRLF line ends.
    pub content: Vec<u8>,
}

/// Why no mail could be composed. None of these goes away by itself.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// What SMTP has no way to write (RFC 5321 section 4.1.2).
    #[error(
        "<{0}> can't be written to: SMTP cannot express it, as it is no UTF-8, or has behind its last \"@\" what no domain may have"
    )]
    Address(Address),
    /// A template, most likely the admin's own, fails.
    #[error("template {name}: {}", chain(source))]
    Template {
        /// File name, or `notification.subject`.
        name: String,
        /// Why.
        source: minijinja::Error,
    },
    /// A catalogue of texts lacks something.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The system gives no random numbers for a Message-ID.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// minijinja tells the line in the source of an error.
fn chain(error: &minijinja::Error) -> String {
    format!("{error:#}")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The subject of a mail.
pub(super) enum Headline {
    /// As it is.
    Text(String),
    /// A template of the admin's.
    Template(String),
}

/// A mail before it gets its form.
pub struct Draft<'a> {
    pub(super) to: Address,
    pub(super) settings: &'a Notification,
    pub(super) texts: Texts,
    /// Name of the templates, without extension.
    pub(super) template: &'static str,
    /// Has it a part in HTML?
    pub(super) html: bool,
    pub(super) values: Value,
    pub(super) headline: Headline,
    /// `Message-ID` of the message that it is about.
    pub(super) in_reply_to: Option<String>,
}

impl Draft<'_> {
    /// Composes the mail, with the admin's own templates where there are any.
    ///
    /// # Errors
    /// See [`ComposeError`].
    pub fn compose(&self, overrides: &Overrides) -> Result<Letter, ComposeError> {
        let environment = self.environment(overrides)?;
        let render = |extension: &str| {
            let name = format!("{}.{extension}", self.template);
            environment
                .get_template(&name)
                .and_then(|template| template.render(&self.values))
                .map_err(|source| ComposeError::Template { name, source })
        };
        let plain = SinglePart::builder()
            .header(header::ContentType::TEXT_PLAIN)
            .body(render("txt")?);
        let headline =
            match &self.headline {
                Headline::Text(text) => text.clone(),
                Headline::Template(source) => environment
                    .render_str(source, &self.values)
                    .map_err(|source| ComposeError::Template {
                        name: "notification.subject".to_owned(),
                        source,
                    })?,
            };
        if !self.to.is_writable() {
            return Err(ComposeError::Address(self.to.clone()));
        }
        let mut content = self.header(&headline)?.to_string().into_bytes();
        content.extend(if self.html {
            let html = SinglePart::builder()
                .header(header::ContentType::TEXT_HTML)
                .body(render("html")?);
            MultiPart::alternative()
                .singlepart(plain)
                .singlepart(html)
                .formatted()
        } else {
            plain.formatted()
        });
        let to = self.to.clone();
        Ok(Letter { to, content })
    }

    fn header(&self, headline: &str) -> Result<Headers, ComposeError> {
        let from = format!(
            "{} <{}>",
            field::phrase(&self.settings.from_name, "From".len()),
            field::address(&self.settings.from_address)
        );
        let subject = text::readable(headline, SUBJECT + 100);
        let mut headers = Headers::new();
        let mut set = |name: &'static str, value: String| {
            let name = HeaderName::new_from_ascii_str(name);
            // Encoded and folded already.
            headers.insert_raw(HeaderValue::dangerous_new_pre_encoded(
                name,
                value.clone(),
                value,
            ));
        };
        set("From", from);
        set("To", field::address(&self.to));
        // Else a reply goes to an address that may have no mailbox, and comes back to the sender.
        if let Some(address) = &self.settings.reply_to {
            set("Reply-To", field::address(address));
        }
        set("Subject", field::unstructured(&subject, "Subject".len()));
        set("Message-ID", message_id(self.settings)?);
        if let Some(id) = &self.in_reply_to {
            set("In-Reply-To", id.clone());
            set("References", id.clone());
        }
        // RFC 3834 section 5: so that vacation programs and mailing lists leave it alone.
        set("Auto-Submitted", "auto-generated".to_owned());
        set("X-Auto-Response-Suppress", "All".to_owned());
        headers.set(header::Date::now());
        headers.set(header::MIME_VERSION_1_0);
        Ok(headers)
    }

    /// The templates of this mail and no others: a broken one of another mail is no reason to do without this one.
    fn environment<'e>(&self, overrides: &'e Overrides) -> Result<Environment<'e>, ComposeError> {
        let mut environment = Environment::new();
        // By name: only what ends in .html is escaped as HTML.
        environment.set_auto_escape_callback(|name| {
            if name.ends_with(".html") {
                AutoEscape::Html
            } else {
                AutoEscape::None
            }
        });
        let texts = self.texts;
        environment.add_function("t", move |key: &str, values: Kwargs| {
            said(texts, key, &values)
        });
        environment.add_filter("fill", |text: &str, indent: Option<usize>| {
            fill(text, indent.unwrap_or(0))
        });
        let html = format!("{}.html", self.template);
        let plain = format!("{}.txt", self.template);
        for (name, builtin) in TEMPLATES {
            let wanted = *name == plain || self.html && (*name == html || *name == "mail.html");
            if !wanted {
                continue;
            }
            let source = overrides.get(*name).map_or(*builtin, String::as_str);
            environment
                .add_template(name, source)
                .map_err(|source| ComposeError::Template {
                    name: (*name).to_owned(),
                    source,
                })?;
        }
        Ok(environment)
    }
}

/// A text of the catalogue, as templates ask for it: `t("key", name=value)`.
fn said(texts: Texts, key: &str, values: &Kwargs) -> Result<String, minijinja::Error> {
    let mut given = Vec::new();
    for name in values.args() {
        given.push((name, values.get::<Value>(name)?.to_string()));
    }
    let given: Vec<(&str, &str)> = given
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    texts
        .text(key, &given)
        .map_err(|error| minijinja::Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// A paragraph in lines of at most 76 columns, each after `indent` blanks. A word that is longer, such as a link, has a
/// line of its own and stays whole.
fn fill(text: &str, indent: usize) -> String {
    let margin = " ".repeat(indent);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let width = word.chars().count();
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + width <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{margin}{word}")),
        }
    }
    lines.join("\n")
}

/// Is a message with this header and without an envelope sender one that PostTLS wrote, from this address? Whoever makes
/// theirs look like that gains nothing: PostTLS only leaves it alone.
pub fn is_ours(header: &[u8], from: &Address) -> bool {
    let Ok((fields, _)) = mailparse::parse_headers(header) else {
        return false;
    };
    let generated = fields
        .get_first_value("Auto-Submitted")
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("auto-generated"));
    let written_by = fields
        .get_first_header("From")
        .and_then(|field| mailparse::addrparse_header(field).ok())
        .and_then(|addresses| addresses.extract_single_info());
    generated
        && written_by.is_some_and(|one| {
            one.addr.eq_ignore_ascii_case(from.as_str())
                || one.addr.eq_ignore_ascii_case(&from.quoted())
        })
}

/// A Message-ID in the domain of the From address: the library's own would be `@localhost`.
fn message_id(settings: &Notification) -> Result<String, ComposeError> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random)?;
    let hex: String = random.iter().map(|octet| format!("{octet:02x}")).collect();
    let domain = Domain::of(&settings.from_address);
    let domain = domain.as_ref().map_or("posttls.invalid", Domain::as_str);
    Ok(format!("<{hex}@{domain}>"))
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn paragraphs_are_filled_and_long_words_stay_whole() {
        let url = format!("https://x.example/{}", "y".repeat(100));
        let filled = fill(&format!("one two {url} {}", "word ".repeat(30)), 4);
        let lines: Vec<&str> = filled.lines().collect();
        assert_eq!(lines[0], "    one two");
        assert_eq!(lines[1], format!("    {url}"));
        assert!(
            lines[2..]
                .iter()
                .all(|line| line.len() <= 76 && line.starts_with("    word"))
        );
        assert_eq!(fill("", 4), "");
    }
}
