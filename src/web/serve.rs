//! One HTTP request: read it, ask the mover, make the page.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tiny_http::Request;

use crate::web::form;
use crate::web::mover_link::{MoverLink, Unanswered};
use crate::web::pages::{Fault, Pages};
use crate::web::protocol::{Answer, Question, Settings};
use crate::web::reply::Reply;
use crate::web::routes::{self, MAX_BODY, Route};

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
        match routes::route(request.method().as_str(), request.url()) {
            Route::Front => Reply::html(200, self.pages.front()),
            Route::Style => Reply::css(self.pages.style()),
            Route::Robots => Reply::text(200, "User-agent: *\nDisallow: /\n"),
            Route::Health => self.health(),
            Route::Show { token, preselect } => {
                match self.mover.ask(Question::Show {
                    token: token.clone(),
                }) {
                    Ok(Answer::Case(case)) => {
                        Reply::html(200, self.pages.case(&token, &case, preselect))
                    }
                    other => self.no_case(other, &token),
                }
            }
            Route::Decide { token } => self.decide(request, token),
            Route::Unknown => self.fault(&Fault::NotFound, None),
            Route::TooLong => self.fault(&Fault::AddressTooLong, None),
            Route::WrongMethod { allow } => {
                self.fault(&Fault::WrongMethod, None).with("Allow", allow)
            }
        }
    }

    fn health(&self) -> Reply {
        match self.mover.ask(Question::Health) {
            Ok(Answer::Healthy) => Reply::text(200, "ok\n"),
            _ => Reply::text(503, "the mover does not answer\n").with("Retry-After", "30"),
        }
    }

    fn decide(&self, request: &mut Request, token: String) -> Reply {
        let form = match read_form(request) {
            Ok(form) => form,
            Err(fault) => return self.fault(&fault, Some(&token)),
        };
        let decision = match form::parse(&form) {
            Ok(decision) => decision,
            Err(why) => return self.fault(&Fault::BadForm(why), Some(&token)),
        };
        let client = self.client(request).to_string();
        match self.mover.ask(Question::Decide {
            token: token.clone(),
            decision,
            client,
        }) {
            Ok(Answer::Decided(case)) => Reply::html(200, self.pages.result(&token, &case)),
            other => self.no_case(other, &token),
        }
    }

    fn no_case(&self, answer: Result<Answer, Unanswered>, token: &str) -> Reply {
        match answer {
            Ok(Answer::Unknown) => self.fault(&Fault::NotFound, None),
            Ok(Answer::Expired) => self.fault(&Fault::Expired, None),
            Ok(Answer::Refused { why }) => self.fault(&Fault::Refused(why), Some(token)),
            Ok(Answer::Busy) | Err(Unanswered::Late | Unanswered::Gone) => {
                self.fault(&Fault::Unavailable, Some(token))
            }
            Err(Unanswered::TooLong) => self.fault(&Fault::TooLarge, Some(token)),
            Ok(Answer::Welcome(_) | Answer::Healthy | Answer::Case(_) | Answer::Decided(_)) => {
                log::error!("the mover's answer does not fit the question");
                self.fault(&Fault::Internal, Some(token))
            }
        }
    }

    fn fault(&self, fault: &Fault, token: Option<&str>) -> Reply {
        let reply = Reply::html(fault.status(), self.pages.error(fault, token));
        match fault {
            Fault::Unavailable => reply.with("Retry-After", "30"),
            _ => reply,
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
