//! One HTTP request: read it, ask the mover, make the page.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tiny_http::Request;

use crate::web::gate::{self, Refusal};
use crate::web::guesses::{ALLOWED, Guesses, Verdict};

use crate::web::language::Language;
use crate::web::mover_link::{MoverLink, Unanswered};
use crate::web::origin::Origin;
use crate::web::pages::{Fault, Pages};
use crate::web::protocol::{Action, Answer, Question, Settings};
use crate::web::reply::Reply;
use crate::web::routes::{self, Front, MAX_BODY, Route};
use crate::web::{form, inbox_form};

/// All that a request needs; shared by all.
pub struct Service {
    pages: Pages,
    front: Front,
    guesses: Mutex<Guesses>,
    mover: Arc<MoverLink>,
}

impl Service {
    /// A service that asks this mover.
    pub fn new(settings: &Settings, mover: Arc<MoverLink>) -> Self {
        let front = Front {
            trusted_proxies: settings.trusted_proxies.clone(),
            base: settings.base_path.clone(),
        };
        Self {
            pages: Pages::new(settings),
            front,
            guesses: Mutex::default(),
            mover,
        }
    }

    /// What stands between clients and us.
    pub(crate) fn front(&self) -> &Front {
        &self.front
    }

    /// What a client hears whose request the gate does not let in: a page where a sender may read it, else one line.
    /// `language` is the value of `Accept-Language`, `page` the target that the form stands on.
    pub(crate) fn refusal(&self, refusal: Refusal, language: &str, page: Option<&str>) -> Vec<u8> {
        let fault = match refusal {
            Refusal::Slow => Ok(Fault::TooSlow),
            Refusal::LengthRequired => Ok(Fault::LengthRequired),
            Refusal::TooLarge => Ok(Fault::TooLarge),
            Refusal::AddressTooLong => Ok(Fault::AddressTooLong),
            Refusal::Lost => Ok(Fault::Internal),
            Refusal::Busy => Ok(Fault::Unavailable),
            Refusal::Malformed => Err((400, "this is not a request that can be understood\n")),
            Refusal::Method => Err((405, "this is no proxy\n")),
            Refusal::Expectation => Err((417, "only 100-continue can be expected\n")),
            Refusal::HeadTooLarge => Err((431, "the headers are too large\n")),
            Refusal::UnknownMethod => Err((501, "there is no such method\n")),
            Refusal::Version => Err((505, "HTTP/1.0 and HTTP/1.1 are spoken here\n")),
        };
        let reply = match fault {
            Ok(fault) => {
                let reader = Reader {
                    service: self,
                    language: Language::accepted(std::iter::once(language)),
                    client: Ipv4Addr::UNSPECIFIED.into(),
                };
                let back = page.map(|page| page.split('?').next().unwrap_or(page));
                reader.fault(&fault, back)
            }
            Err((status, text)) => Reply::text(status, text),
        };
        let reply = match refusal {
            Refusal::Method => reply.with("Allow", "GET, HEAD, POST"),
            _ => reply,
        };
        reply.into_octets()
    }

    /// Answers a request, whatever it is.
    pub(crate) fn answer(&self, mut request: Request) {
        let reply = self.reply(&mut request);
        if let Err(error) = request.respond(reply.into_response()) {
            log::debug!("reply not sent: {error}");
        }
    }

    fn reply(&self, request: &mut Request) -> Reply {
        let language = Language::accepted(headers(request, "Accept-Language"));
        let reader = Reader {
            service: self,
            language,
            client: client(request),
        };
        match routes::route(request.method().as_str(), request.url()) {
            Route::Front => reader.html(200, self.pages.front(language)),
            Route::Style => Reply::css(self.pages.style()),
            Route::Robots => Reply::text(200, "User-agent: *\nDisallow: /\n"),
            Route::Health => self.health(),
            Route::Show { token, suggested } => reader.case(&token, suggested, Sent::Not),
            Route::ShowSender { token, page } => reader.inbox(&token, page, Sent::Not),
            Route::ShowConsent { token } => {
                let question = Question::ShowConsent {
                    token: token.clone(),
                };
                reader.consent(&token, question, Sent::Not)
            }
            Route::Decide { token } => reader.decide(request, token),
            Route::DecideSender { token, page } => reader.decide_sender(request, token, page),
            Route::EndConsent { token } => reader.end_consent(request, token),
            Route::Unknown => reader.fault(&Fault::NotFound, None),
            Route::TooLong => reader.fault(&Fault::AddressTooLong, None),
            Route::WrongMethod { allow } => {
                reader.fault(&Fault::WrongMethod, None).with("Allow", allow)
            }
        }
    }

    fn ask(&self, question: Question) -> Result<Answer, Unanswered> {
        self.mover.ask(question)
    }

    fn health(&self) -> Reply {
        match self.ask(Question::Health) {
            Ok(Answer::Healthy) => Reply::text(200, "ok\n"),
            _ => Reply::text(503, "the mover does not answer\n").with("Retry-After", "30"),
        }
    }
}

/// A form sent as its page has it: it decides nothing, and the page is shown once more, with a hint.
const UNTOUCHED: Fault = Fault::BadForm(form::BadForm::NothingChosen);

/// Why a page with a form is shown.
#[derive(Clone, Copy)]
enum Sent {
    /// No form was sent, or one with a choice.
    Not,
    /// Its form was sent without a choice.
    Untouched,
}

impl Sent {
    fn untouched(self) -> bool {
        matches!(self, Self::Untouched)
    }

    fn status(self) -> u16 {
        match self {
            Self::Not => 200,
            Self::Untouched => 400,
        }
    }
}

/// Whoever reads what this request is answered with.
struct Reader<'a> {
    service: &'a Service,
    language: Language,
    client: IpAddr,
}

impl Reader<'_> {
    fn html(&self, status: u16, body: String) -> Reply {
        Reply::html(status, body)
            .with("Content-Language", self.language.code())
            .with("Vary", "Accept-Language")
    }

    fn case(&self, token: &str, suggested: Option<Action>, sent: Sent) -> Reply {
        let question = Question::Show {
            token: token.to_owned(),
        };
        let pages = &self.service.pages;
        match self.service.ask(question) {
            Ok(Answer::Case(case)) => self.html(
                sent.status(),
                pages.case(self.language, token, &case, suggested, sent.untouched()),
            ),
            other => self.no_answer(other, &format!("/c/{token}")),
        }
    }

    fn inbox(&self, token: &str, page: u32, sent: Sent) -> Reply {
        let question = Question::ShowSender {
            token: token.to_owned(),
            page,
        };
        let pages = &self.service.pages;
        match self.service.ask(question) {
            Ok(Answer::Inbox(inbox)) => self.html(
                sent.status(),
                pages.inbox(self.language, token, &inbox, sent.untouched()),
            ),
            other => self.no_answer(other, &format!("/s/{token}")),
        }
    }

    fn decide(&self, request: &mut Request, token: String) -> Reply {
        let back = format!("/c/{token}");
        let decision = match self.form(request, form::parse) {
            Ok(decision) => decision,
            Err(UNTOUCHED) => return self.case(&token, None, Sent::Untouched),
            Err(fault) => return self.fault(&fault, Some(&back)),
        };
        let question = Question::Decide {
            token: token.clone(),
            decision,
            client: self.client,
        };
        match self.service.ask(question) {
            Ok(Answer::Decided(case)) => {
                self.html(200, self.service.pages.result(self.language, &token, &case))
            }
            other => self.no_answer(other, &back),
        }
    }

    fn decide_sender(&self, request: &mut Request, token: String, page: u32) -> Reply {
        let back = format!("/s/{token}?page={page}");
        let decision = match self.form(request, inbox_form::parse) {
            Ok(decision) => decision,
            Err(UNTOUCHED) => return self.inbox(&token, page, Sent::Untouched),
            Err(fault) => return self.fault(&fault, Some(&back)),
        };
        let question = Question::DecideSender {
            token: token.clone(),
            decision,
            client: self.client,
        };
        let pages = &self.service.pages;
        match self.service.ask(question) {
            Ok(Answer::InboxDecided(result)) => self.html(
                200,
                pages.inbox_result(self.language, &token, page, &result),
            ),
            other => self.no_answer(other, &back),
        }
    }

    fn end_consent(&self, request: &mut Request, token: String) -> Reply {
        let sent = match self.form(request, form::parse_revoke) {
            Ok(()) => Sent::Not,
            Err(UNTOUCHED) => Sent::Untouched,
            Err(fault) => return self.fault(&fault, Some(&format!("/r/{token}"))),
        };
        let question = match sent {
            Sent::Not => Question::EndConsent {
                token: token.clone(),
                client: self.client,
            },
            Sent::Untouched => Question::ShowConsent {
                token: token.clone(),
            },
        };
        self.consent(&token, question, sent)
    }

    fn consent(&self, token: &str, question: Question, sent: Sent) -> Reply {
        let pages = &self.service.pages;
        match self.service.ask(question) {
            Ok(Answer::Consent(consent)) => self.html(
                sent.status(),
                pages.consent(self.language, token, &consent, sent.untouched()),
            ),
            other => self.no_answer(other, &format!("/r/{token}")),
        }
    }

    fn form<T>(
        &self,
        request: &mut Request,
        parse: impl Fn(&[u8]) -> Result<T, form::BadForm>,
    ) -> Result<T, Fault> {
        parse(&read_form(request)?).map_err(Fault::BadForm)
    }

    fn no_answer(&self, answer: Result<Answer, Unanswered>, back: &str) -> Reply {
        match answer {
            Ok(Answer::Unknown) => self.unknown(),
            Ok(Answer::Expired) => self.fault(&Fault::Expired, None),
            Ok(Answer::Refused { why }) => self.fault(&Fault::Refused(why), Some(back)),
            Ok(Answer::Busy) | Err(Unanswered::Late | Unanswered::Gone) => {
                self.fault(&Fault::Unavailable, Some(back))
            }
            Err(Unanswered::TooLong) => self.fault(&Fault::TooLarge, Some(back)),
            Ok(_) => {
                log::error!("the mover's answer does not fit the question");
                self.fault(&Fault::Internal, Some(back))
            }
        }
    }

    /// The mover does not know the token.
    fn unknown(&self) -> Reply {
        let origin = Origin::from(self.client);
        let mut guesses = self
            .service
            .guesses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let verdict = guesses.count(origin, Instant::now());
        drop(guesses);
        let Verdict::TooMany { retry_after, first } = verdict else {
            return self.fault(&Fault::NotFound, None);
        };
        if first {
            log::warn!("client={origin}: more than {ALLOWED} unknown links in a minute");
        }
        let seconds = retry_after.as_secs() + 1;
        self.fault(&Fault::TooManyGuesses, None)
            .with("Retry-After", seconds.to_string())
    }

    fn fault(&self, fault: &Fault, back: Option<&str>) -> Reply {
        let page = self.service.pages.error(self.language, fault, back);
        let reply = self.html(fault.status(), page);
        match fault {
            Fault::Unavailable => reply.with("Retry-After", "30"),
            _ => reply,
        }
    }
}

fn headers<'a>(request: &'a Request, name: &'static str) -> impl Iterator<Item = &'a str> {
    request
        .headers()
        .iter()
        .filter(move |h| h.field.equiv(name))
        .map(|h| h.value.as_str())
}

/// The address that the gate has found out.
fn client(request: &Request) -> IpAddr {
    let told = headers(request, gate::CLIENT).next();
    told.and_then(|address| address.parse().ok())
        .unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

/// Reads a form in full, or not at all: a form cut off after `action=delete` would delete for all. The gate has it
/// complete, and has checked its length.
fn read_form(request: &mut Request) -> Result<Vec<u8>, Fault> {
    if !form::is_form(headers(request, "Content-Type").next()) {
        return Err(Fault::BadForm(form::BadForm::Damaged));
    }
    let mut form = vec![0; request.body_length().unwrap_or(0).min(MAX_BODY)];
    request
        .as_reader()
        .read_exact(&mut form)
        .map_err(|_| Fault::TooSlow)?;
    Ok(form)
}
