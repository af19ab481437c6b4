//! The head of a request: from octets to what may go on to tiny_http, or to the reason why not. Pure.
//!
//! Strict on purpose: whatever two programs could read in two ways (RFC 9112 sections 2.2, 3.2, 5 and 6.3) is refused,
//! so that what a proxy has let through and what is done here are the same. Of the headers only those go on that
//! PostTLS reads.

use std::net::IpAddr;

use httparse::{EMPTY_HEADER, Error, Status};

use crate::web::routes::{self, Front, MAX_BODY, MAX_TARGET, Route};

/// The longest head, in octets: browsers send below 4,096, and a proxy adds a few hundred.
pub const MAX_HEAD: usize = 16 * 1024;
/// Header lines of one request.
const MAX_HEADERS: usize = 100;

/// The header by which tiny_http hears of the client's address. What came in under this name does not go on.
pub const CLIENT: &str = "PostTLS-Client";

/// Why a request is answered at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 400: not HTTP, or HTTP that can be read in two ways.
    Malformed,
    /// 405: a method for proxies.
    Method,
    /// 408: not there in full in time.
    Slow,
    /// 411: a form without a length.
    LengthRequired,
    /// 413: a form that is too long.
    TooLarge,
    /// 414: a target that is too long.
    AddressTooLong,
    /// 417: the client expects what we can't do.
    Expectation,
    /// 431: head too long.
    HeadTooLarge,
    /// 500: tiny_http let us down.
    Lost,
    /// 501: no method of HTTP.
    UnknownMethod,
    /// 503: more than can be held.
    Busy,
    /// 505: neither HTTP/1.0 nor HTTP/1.1.
    Version,
}

/// What counts of a well-formed head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// One of HTTP's own.
    pub method: String,
    /// Begins with a slash, and is printable ASCII; without the path of `link.base_url`.
    pub target: String,
    /// The address that the request came from, as far as can be known.
    pub client: IpAddr,
    /// Value of `Accept-Language`.
    pub language: String,
    /// Value of `Content-Type`.
    content_type: Option<String>,
    /// Octets of the form that follows.
    pub body: usize,
    /// The client sends its form only when told to (RFC 9110 section 10.1.1).
    pub waits: bool,
}

impl Head {
    /// The request line and headers for tiny_http.
    pub fn for_tiny_http(&self) -> String {
        let Self { method, target, .. } = self;
        let mut head = format!(
            "{method} {target} HTTP/1.1\r\n{CLIENT}: {}\r\n",
            self.client
        );
        if !self.language.is_empty() {
            head += &format!("Accept-Language: {}\r\n", self.language);
        }
        if let Some(kind) = &self.content_type {
            head += &format!("Content-Type: {kind}\r\n");
        }
        if self.body > 0 {
            head += &format!("Content-Length: {}\r\n", self.body);
        }
        head + "\r\n"
    }

    /// The page that its form stands on.
    pub fn page(&self) -> Option<&str> {
        takes_form(&self.method, &self.target).then_some(&self.target)
    }
}

/// Reads a head that ends with its empty line.
///
/// # Errors
/// [`Refusal`]: what the client hears instead of an answer.
pub fn parse(octets: &[u8], peer: IpAddr, front: &Front) -> Result<Head, Refusal> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(octets) {
        Ok(Status::Complete(length)) if length == octets.len() => {}
        Ok(_) => return Err(Refusal::Malformed),
        Err(Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        Err(Error::Version) if has_version(octets) => return Err(Refusal::Version),
        Err(_) => return Err(Refusal::Malformed),
    }
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    let headers = Headers(request.headers);
    check_method(method)?;
    check_target(target)?;
    let target = front.target(method, target);
    match (request.version, headers.all("Host").count()) {
        (Some(0), 0) | (_, 1) => {}
        _ => return Err(Refusal::Malformed),
    }
    let host = headers.all("Host").next().unwrap_or_default();
    if !host.iter().all(|octet| is_host(*octet)) {
        return Err(Refusal::Malformed);
    }
    let body = length(&headers, method, target)?;
    let waits = match headers.only("Expect")? {
        None => false,
        Some(value) if value.eq_ignore_ascii_case("100-continue") => {
            request.version == Some(1) && body > 0
        }
        Some(_) => return Err(Refusal::Expectation),
    };
    // What is not ASCII makes its own element unreadable, and may not hide the ones beside it.
    let forwarded: Vec<_> = headers
        .all("X-Forwarded-For")
        .map(String::from_utf8_lossy)
        .collect();
    Ok(Head {
        method: method.to_owned(),
        target: target.to_owned(),
        client: routes::client(
            peer,
            forwarded.iter().map(AsRef::as_ref),
            &front.trusted_proxies,
        ),
        language: headers
            .texts("Accept-Language")
            .collect::<Vec<_>>()
            .join(", "),
        content_type: headers.only("Content-Type")?.map(str::to_owned),
        body,
        waits,
    })
}

struct Headers<'a>(&'a [httparse::Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let named = move |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name);
        self.0.iter().filter(named).map(|header| header.value)
    }

    /// Those that are ASCII: nothing else has a meaning in the headers that we read.
    fn texts(&self, name: &'static str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.all(name)
            .filter(|value| value.is_ascii())
            .filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// A header that may be there once, and then is ASCII.
    fn only(&self, name: &'static str) -> Result<Option<&'a str>, Refusal> {
        match (self.all(name).count(), self.texts(name).next()) {
            (0, _) => Ok(None),
            (1, Some(value)) => Ok(Some(value)),
            _ => Err(Refusal::Malformed),
        }
    }
}

fn has_version(octets: &[u8]) -> bool {
    let line = octets.split(|octet| *octet == b'\r').next();
    let version = line.and_then(|line| line.rsplit(|octet| *octet == b' ').next());
    version.is_some_and(|version| {
        matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit())
    })
}

fn check_method(method: &str) -> Result<(), Refusal> {
    match method {
        // Which of these a page has is the page's business.
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS" | "TRACE" => Ok(()),
        "CONNECT" => Err(Refusal::Method),
        _ => Err(Refusal::UnknownMethod),
    }
}

fn check_target(target: &str) -> Result<(), Refusal> {
    if target.len() > MAX_TARGET {
        Err(Refusal::AddressTooLong)
    } else if target.starts_with('/') && target.bytes().all(|octet| octet.is_ascii_graphic()) {
        Ok(())
    } else {
        // An absolute one, or `*`: for proxies.
        Err(Refusal::Malformed)
    }
}

fn is_host(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~:[]%".contains(&octet)
}

fn takes_form(method: &str, target: &str) -> bool {
    matches!(
        routes::route(method, target),
        Route::Decide { .. } | Route::DecideSender { .. } | Route::EndConsent { .. }
    )
}

/// The length of the form that is to be read. Where no form is taken, none is read: the request is answered, and the
/// connection closed.
fn length(headers: &Headers<'_>, method: &str, target: &str) -> Result<usize, Refusal> {
    // No browser sends forms in chunks, and a length beside them is a trick (RFC 9112 section 6.1).
    if headers.all("Transfer-Encoding").next().is_some() {
        return Err(Refusal::LengthRequired);
    }
    let length = match headers.only("Content-Length")? {
        None => None,
        Some(value) if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
            Some(value.parse::<usize>().map_err(|_| Refusal::TooLarge)?)
        }
        Some(_) => return Err(Refusal::Malformed),
    };
    match length {
        Some(length) if length > MAX_BODY => Err(Refusal::TooLarge),
        Some(length) if takes_form(method, target) => Ok(length),
        None if takes_form(method, target) => Err(Refusal::LengthRequired),
        _ => Ok(0),
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
