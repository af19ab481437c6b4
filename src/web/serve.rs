//! One HTTP request: read it, ask the mover, make the page.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tiny_http::Request;

use crate::web::language::Language;
use crate::web::mover_link::{MoverLink, Unanswered};
use crate::web::pages::{Fault, Pages};
use crate::web::protocol::{Answer, Question, Settings};
use crate::web::reply::Reply;
use crate::web::routes::{self, MAX_BODY, Route};
use crate::web::{form, inbox_form};

/// How long a form may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(20);

/// All that a request needs; shared by all.
pub struct Service {
    pages: Pages,
    trusted_proxies: Vec<IpAddr>,
    mover: Arc<MoverLink>,
}

impl Service {
    /// A service that asks this mover.
    pub fn new(settings: &Settings, mover: Arc<MoverLink>) -> Self {
        let trusted_proxies = settings.trusted_proxies.clone();
        Self {
            pages: Pages::new(settings),
            trusted_proxies,
            mover,
        }
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
        };
        match routes::route(request.method().as_str(), request.url()) {
            Route::Front => reader.html(200, self.pages.front(language)),
            Route::Style => Reply::css(self.pages.style()),
            Route::Robots => Reply::text(200, "User-agent: *\nDisallow: /\n"),
            Route::Health => self.health(),
            Route::Show { token, preselect } => {
                let back = format!("/c/{token}");
                match self.ask(Question::Show {
                    token: token.clone(),
                }) {
                    Ok(Answer::Case(case)) => {
                        reader.html(200, self.pages.case(language, &token, &case, preselect))
                    }
                    other => reader.no_answer(other, &back),
                }
            }
            Route::ShowSender { token, page } => {
                let back = format!("/s/{token}");
                match self.ask(Question::ShowSender {
                    token: token.clone(),
                    page,
                }) {
                    Ok(Answer::Inbox(inbox)) => {
                        reader.html(200, self.pages.inbox(language, &token, &inbox))
                    }
                    other => reader.no_answer(other, &back),
                }
            }
            Route::ShowConsent { token } => reader.consent(
                &token,
                Question::ShowConsent {
                    token: token.clone(),
                },
            ),
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

    fn client(&self, request: &Request) -> IpAddr {
        let peer = request
            .remote_addr()
            .map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
        let forwarded = headers(request, "X-Forwarded-For");
        routes::client(peer, forwarded, &self.trusted_proxies)
    }
}

/// Whoever reads what this request is answered with.
struct Reader<'a> {
    service: &'a Service,
    language: Language,
}

impl Reader<'_> {
    fn html(&self, status: u16, body: String) -> Reply {
        Reply::html(status, body)
            .with("Content-Language", self.language.code())
            .with("Vary", "Accept-Language")
    }

    fn decide(&self, request: &mut Request, token: String) -> Reply {
        let back = format!("/c/{token}");
        let decision = match self.form(request, form::parse) {
            Ok(decision) => decision,
            Err(fault) => return self.fault(&fault, Some(&back)),
        };
        let question = Question::Decide {
            token: token.clone(),
            decision,
            client: self.service.client(request).to_string(),
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
            Err(fault) => return self.fault(&fault, Some(&back)),
        };
        let question = Question::DecideSender {
            token: token.clone(),
            decision,
            client: self.service.client(request).to_string(),
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
        if let Err(fault) = self.form(request, form::parse_revoke) {
            return self.fault(&fault, Some(&format!("/r/{token}")));
        }
        let client = self.service.client(request).to_string();
        let question = Question::EndConsent {
            token: token.clone(),
            client,
        };
        self.consent(&token, question)
    }

    fn consent(&self, token: &str, question: Question) -> Reply {
        match self.service.ask(question) {
            Ok(Answer::Consent(consent)) => {
                let pages = &self.service.pages;
                self.html(200, pages.consent(self.language, token, &consent))
            }
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
            Ok(Answer::Unknown) => self.fault(&Fault::NotFound, None),
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

/// Reads a form in full, or not at all: a form cut off after `action=delete` would delete for all.
fn read_form(request: &mut Request) -> Result<Vec<u8>, Fault> {
    let damaged = Fault::BadForm(form::BadForm::Damaged);
    // tiny_http can't tell the end of a chunked body from the end of the connection. No browser sends forms so.
    if headers(request, "Transfer-Encoding").next().is_some() {
        return Err(Fault::LengthRequired);
    }
    let length = {
        let mut lengths = headers(request, "Content-Length");
        match (lengths.next(), lengths.next()) {
            (None, _) => return Err(Fault::LengthRequired),
            (Some(_), Some(_)) => return Err(damaged),
            (Some(length), None) if length.bytes().all(|b| b.is_ascii_digit()) => {
                length.parse::<u64>().map_err(|_| Fault::TooLarge)?
            }
            _ => return Err(damaged),
        }
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MAX_BODY {
        return Err(Fault::TooLarge);
    }
    if !form::is_form(headers(request, "Content-Type").next()) {
        return Err(damaged);
    }
    read_exactly(request.as_reader(), length).ok_or(Fault::TooSlow)
}

fn read_exactly(body: &mut dyn Read, length: usize) -> Option<Vec<u8>> {
    let end = Instant::now() + BODY_TIME;
    let mut form = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match body.read(&mut form[filled..]) {
            Ok(count) if count > 0 && Instant::now() < end => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => return None,
        }
    }
    Some(form)
}
