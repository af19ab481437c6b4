//! The pages: templates, sentences and style sheet, all within the program, each replaceable by the admin.
//!
//! All sentences stand in catalogues ([`super::language`]) and none in a template, so an admin's own template works in all
//! languages. The engine escapes everything for HTML.
//!
//! An override that is broken must not take the service down: it is reported in the log, and the built-in one is used.

use minijinja::value::{Kwargs, Serde};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};

use crate::text::shown;
use crate::web::form::BadForm;
use crate::web::language::Language;
use crate::web::protocol::{
    Action, CaseView, ConsentView, InboxResult, InboxView, Outcome, Refusal, Settings,
};
use crate::web::{view, view_inbox};

/// The built-in templates by file name, which is also the name of an override.
pub const TEMPLATES: [(&str, &str); 9] = [
    ("layout.html", include_str!("templates/layout.html")),
    ("parts.html", include_str!("templates/parts.html")),
    ("case.html", include_str!("templates/case.html")),
    ("result.html", include_str!("templates/result.html")),
    ("sender.html", include_str!("templates/sender.html")),
    (
        "sender-result.html",
        include_str!("templates/sender-result.html"),
    ),
    ("consent.html", include_str!("templates/consent.html")),
    ("front.html", include_str!("templates/front.html")),
    ("error.html", include_str!("templates/error.html")),
];
/// File name of the style sheet, which can be overridden likewise.
pub const STYLE: (&str, &str) = ("style.css", include_str!("templates/style.css"));

/// Why there is no other page to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 400: the form is no decision.
    BadForm(BadForm),
    /// 400: the mover refused it, for the reason given.
    Refused(Refusal),
    /// 404.
    NotFound,
    /// 405.
    WrongMethod,
    /// 408: the body did not come in time, or not in full.
    TooSlow,
    /// 410.
    Expired,
    /// 411: a body without a length.
    LengthRequired,
    /// 413.
    TooLarge,
    /// 414.
    AddressTooLong,
    /// 429: too many unknown tokens.
    TooManyGuesses,
    /// 500: a fault of ours.
    Internal,
    /// 503: the mover does not answer in time.
    Unavailable,
}

impl Fault {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::BadForm(_) | Self::Refused(_) => 400,
            Self::NotFound => 404,
            Self::WrongMethod => 405,
            Self::TooSlow => 408,
            Self::Expired => 410,
            Self::LengthRequired => 411,
            Self::TooLarge => 413,
            Self::AddressTooLong => 414,
            Self::TooManyGuesses => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }

    fn key(&self) -> &'static str {
        match self {
            Self::BadForm(BadForm::NothingToRemember) => "nothing-to-remember",
            Self::BadForm(_) => "bad-request",
            Self::Refused(_) => "refused",
            Self::NotFound => "not-found",
            Self::WrongMethod => "wrong-method",
            Self::TooSlow => "too-slow",
            Self::Expired => "expired",
            Self::LengthRequired => "length-required",
            Self::TooLarge => "too-large",
            Self::AddressTooLong => "address-too-long",
            Self::TooManyGuesses => "too-many-guesses",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Everything that makes pages.
pub struct Pages {
    built_in: Environment<'static>,
    /// With the admin's templates; `None` when there are none that work.
    overridden: Option<Environment<'static>>,
    style: String,
    contact: Value,
    base: String,
}

impl Pages {
    /// Takes the admin's templates and tries them out.
    pub fn new(settings: &Settings) -> Self {
        let built_in = environment();
        let mut overridden = environment();
        let mut any = false;
        for (name, source) in &settings.templates {
            if name == STYLE.0 {
                continue;
            }
            if !TEMPLATES.iter().any(|(known, _)| known == name) {
                log::warn!(
                    "template {}: there is none of this name, ignored",
                    shown(name)
                );
                continue;
            }
            match overridden.add_template_owned(name.clone(), source.clone()) {
                Ok(()) => any = true,
                Err(error) => log::warn!("template {name}: {error:#}; using the built-in one"),
            }
        }
        Self {
            built_in,
            overridden: any.then_some(overridden),
            style: settings
                .templates
                .get(STYLE.0)
                .map_or(STYLE.1, String::as_str)
                .to_owned(),
            contact: contact(&settings.admin_contact),
            base: settings.base_path.clone(),
        }
    }

    /// The style sheet.
    pub fn style(&self) -> &str {
        &self.style
    }

    /// `/`.
    pub fn front(&self, language: Language) -> String {
        self.render(language, "front.html", context! {})
    }

    /// The case, and the forms for what is open in it. `suggested` is what a link in a mail has named, and chooses
    /// nothing; `untouched` says that the form was sent as it stands, here and below.
    pub fn case(
        &self,
        language: Language,
        token: &str,
        case: &CaseView,
        suggested: Option<Action>,
        untouched: bool,
    ) -> String {
        self.render(
            language,
            "case.html",
            context! {
                token,
                suggested => Value::from(Serde(suggested)),
                untouched,
                case => view::message(case, language),
                open => view::recipients(case, |r| r.open),
                sendable => case.recipients.iter().any(|r| r.open && r.may_send),
                others => view::recipients(case, |r| !r.open),
                remember => view::rememberable(case),
            },
        )
    }

    /// What a decision did.
    pub fn result(&self, language: Language, token: &str, case: &CaseView) -> String {
        self.render(
            language,
            "result.html",
            context! {
                token,
                headline => view::headline(case),
                case => view::message(case, language),
                decided => view::recipients(case, |r| r.outcome.is_some()),
                open => view::recipients(case, |r| r.open && matches!(r.outcome, None | Some(Outcome::Changed))),
                remembered => view::remembered(&case.remembered, language),
            },
        )
    }

    /// All that waits for a sender, and the forms for it.
    pub fn inbox(
        &self,
        language: Language,
        token: &str,
        inbox: &InboxView,
        untouched: bool,
    ) -> String {
        let inbox = view_inbox::inbox(inbox, language);
        self.render(
            language,
            "sender.html",
            context! { token, inbox, untouched },
        )
    }

    /// What a decision about that did; `page` is where it was made.
    pub fn inbox_result(
        &self,
        language: Language,
        token: &str,
        page: u32,
        result: &InboxResult,
    ) -> String {
        self.render(
            language,
            "sender-result.html",
            context! {
                token,
                page,
                headline => view_inbox::inbox_headline(result),
                result => view_inbox::inbox_result(result),
            },
        )
    }

    /// A remembered choice, in force or not.
    pub fn consent(
        &self,
        language: Language,
        token: &str,
        consent: &ConsentView,
        untouched: bool,
    ) -> String {
        let consent = view_inbox::consent(consent, language);
        self.render(
            language,
            "consent.html",
            context! { token, consent, untouched },
        )
    }

    /// Any page with a status of 400 and above. `back` is a path that is worth following again,
    /// without that of `link.base_url`.
    pub fn error(&self, language: Language, fault: &Fault, back: Option<&str>) -> String {
        let why = match fault {
            Fault::Refused(Refusal::NoSuchRecipient { who }) => Some((
                fault_text(language, "refusal", "no-such-recipient"),
                shown(who),
            )),
            Fault::Refused(why) => {
                Some((fault_text(language, "refusal", why.key()), String::new()))
            }
            _ => None,
        };
        let why = why.map(|(text, who)| context! { text, who });
        let error = fault_text(language, "error", fault.key());
        self.render(
            language,
            "error.html",
            context! { error, why, back, status => fault.status() },
        )
    }

    fn render(&self, language: Language, name: &str, values: Value) -> String {
        let values = context! { t => language.texts(), contact => &self.contact, base => &self.base, ..values };
        if let Some(environment) = &self.overridden {
            match environment
                .get_template(name)
                .and_then(|t| t.render(&values))
            {
                Ok(page) => return page,
                Err(error) => log::warn!("template {name}: {error:#}; using the built-in one"),
            }
        }
        let page = self
            .built_in
            .get_template(name)
            .and_then(|t| t.render(&values));
        page.unwrap_or_else(|error| {
            log::error!("built-in template {name}: {error:#}");
            "<!DOCTYPE html><html lang=\"en\"><title>Error</title><h1>Something went wrong on our side</h1></html>"
                .to_owned()
        })
    }
}

fn fault_text(language: Language, section: &str, key: &str) -> Value {
    let texts = language.texts().get_attr(section);
    texts
        .and_then(|texts| texts.get_attr(key))
        .unwrap_or_default()
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.add_filter("fill", fill);
    for (name, source) in TEMPLATES {
        if let Err(error) = environment.add_template(name, source) {
            log::error!("built-in template {name}: {error:#}");
        }
    }
    environment
}

/// `"until {date}"|fill(date=…)`; the result is escaped like any other text.
fn fill(text: &str, values: Kwargs) -> Result<String, minijinja::Error> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, (name, after))) = rest
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    {
        filled.push_str(before);
        filled.push_str(&values.get::<Value>(name)?.to_string());
        rest = after;
    }
    filled.push_str(rest);
    values.assert_all_used()?;
    Ok(filled)
}

/// A link only for what certainly is a plain mail or web address.
fn contact(text: &str) -> Value {
    let text = shown(text);
    let plain = |extra: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
    };
    let href = if text.contains('@') && plain("@.-_+") {
        Some(format!("mailto:{text}"))
    } else if (text.starts_with("https://") || text.starts_with("http://")) && plain(":/.-_~?=&%#")
    {
        Some(text.clone())
    } else {
        None
    };
    context! { text, href }
}

#[cfg(test)]
#[path = "pages_tests.rs"]
pub(crate) mod tests;
