//! Requests that are none, or that two programs could read in two ways: refused with the right status, one answer to a
//! connection, and nothing of it reaches the mover.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use posttls::web::protocol::Question;

use crate::web_stage::{Response, Stage, TOKEN};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// Sends octets and the end of the stream; all that comes back.
fn say(stage: &Stage, octets: &[u8]) -> String {
    let mut stream = TcpStream::connect(stage.address).unwrap();
    // It may hang up before it has read all.
    let _ = stream.write_all(octets);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn refused(stage: &Stage, octets: &[u8], status: u16) {
    let answer = say(stage, octets);
    let shown = String::from_utf8_lossy(&octets[..octets.len().min(120)]).into_owned();
    let response = Response::parse(answer.as_bytes());
    assert_eq!(response.status, status, "{shown:?}: {answer}");
    assert_eq!(answer.matches("Server: ").count(), 1, "{shown:?}");
    assert_eq!(response.header("Connection"), Some("close"), "{shown:?}");
    let length = response.body.len().to_string();
    assert_eq!(response.header("Content-Length"), Some(&*length));
    assert_eq!(response.header("Server"), Some("PostTLS"));
}

#[test]
fn what_is_no_request_is_refused() {
    let stage = crate::stage();
    let c = format!("/c/{TOKEN}");
    let get = |rest: &str| format!("GET {c} HTTP/1.1\r\nHost: x\r\n{rest}\r\n").into_bytes();
    let line = |line: &str| format!("{line}\r\nHost: x\r\n\r\n").into_bytes();
    let long = "x".repeat(20_000);
    for (octets, status) in [
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            400,
        ),
        (b"EHLO mail.example.org\r\n\r\n".to_vec(), 400),
        (b"\0\0\0\0".to_vec(), 400),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 400),
        (line(&format!("GET {c}")), 400),
        (line(&format!("GET {c} HTTP/2.0")), 505),
        (line(&format!("GET {c} HTTP/1.1 x")), 400),
        (line(&format!("GET  {c} HTTP/1.1")), 400),
        (format!("GET {c} HTTP/1.1\nHost: x\n\n").into_bytes(), 400),
        (format!("GET {c} HTTP/1.1\r\n\r\n").into_bytes(), 400),
        (get("Host: y\r\n"), 400),
        (get(" folded: x\r\n"), 400),
        (get("X : y\r\n"), 400),
        (get("X: a\rb\r\n"), 400),
        (get("X: a\0b\r\n"), 400),
        (get(&format!("X: {long}\r\n")), 431),
        (get(&format!("{long}: x\r\n")), 431),
        (get(&"X: y\r\n".repeat(500)), 431),
        (get("Expect: a-miracle\r\n"), 417),
        (get("Transfer-Encoding: chunked\r\n"), 411),
        (line(&format!("GET /{long} HTTP/1.1")), 414),
        (format!("GET /{long}").into_bytes(), 414),
        // A target for proxies, and tricks that need decoding.
        (line(&format!("GET http://x{c} HTTP/1.1")), 400),
        (line("GET * HTTP/1.1"), 400),
        (line("OPTIONS * HTTP/1.1"), 400),
        (line("CONNECT x:443 HTTP/1.1"), 405),
        (line("GET /c\\x HTTP/1.1"), 404),
        (line(&format!("GET /{c} HTTP/1.1")), 404),
        (line(&format!("GET /x/..{c} HTTP/1.1")), 404),
        (line(&format!("GET /%2e%2e{c} HTTP/1.1")), 404),
        (line(&format!("GET {c}%00 HTTP/1.1")), 404),
        (line(&format!("GET {c}%0d%0aX:y HTTP/1.1")), 404),
        (
            line(&format!("GET {} HTTP/1.1", c.replacen("/c/", "/c%2f", 1))),
            404,
        ),
        // Methods.
        (line(&format!("get {c} HTTP/1.1")), 501),
        (line(&format!("PROPFIND {c} HTTP/1.1")), 501),
        (line(&format!("PUT {c} HTTP/1.1")), 405),
        (line(&format!("DELETE {c} HTTP/1.1")), 405),
        (line(&format!("OPTIONS {c} HTTP/1.1")), 405),
        (line(&format!("TRACE {c} HTTP/1.1")), 405),
    ] {
        refused(&stage, &octets, status);
    }
    let asked = stage.asked.lock().unwrap();
    assert!(asked.is_empty(), "{asked:?}");
}

#[test]
fn a_second_request_is_not_smuggled_in_with_the_first() {
    let stage = crate::stage();
    let c = format!("/c/{TOKEN}");
    let hidden =
        format!("POST {c} HTTP/1.1\r\nHost: x\r\n{FORM}Content-Length: 11\r\n\r\naction=send");
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for (first, status) in [
        (format!("GET {c} HTTP/1.1\r\nHost: x\r\n\r\n"), 200),
        (
            format!(
                "GET {c} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
                hidden.len()
            ),
            200,
        ),
        (
            format!("PUT {c} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
            405,
        ),
        (
            format!("POST {c} HTTP/1.1\r\nHost: x\r\n{FORM}Content-Length: 0\r\n\r\n"),
            400,
        ),
        (
            format!("POST / HTTP/1.1\r\nHost: x\r\n{FORM}Content-Length: 4\r\n\r\n"),
            405,
        ),
        (
            format!(
                "POST {c} HTTP/1.1\r\nHost: x\r\n{FORM}Content-Length: 0\r\nContent-Length: 5\r\n\r\n"
            ),
            400,
        ),
        (
            format!("POST {c} HTTP/1.1\r\nHost: x\r\n{FORM}Content-Length: 0, 5\r\n\r\n"),
            400,
        ),
        (
            format!(
                "POST {c} HTTP/1.1\r\nHost: x\r\n{FORM}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
            411,
        ),
        (
            format!("POST {c} HTTP/1.1\r\nHost: x\r\n{FORM}Transfer-Encoding: xchunked\r\n\r\n"),
            411,
        ),
        (
            format!("GET {c} HTTP/1.1\r\nHost: x\r\nX: y\rContent-Length: 0\r\n\r\n"),
            400,
        ),
    ] {
        refused(&stage, format!("{first}{hidden}").as_bytes(), status);
        refused(&stage, format!("{first}{chunk}").as_bytes(), status);
    }
    assert!(stage.decisions().is_empty(), "{:?}", stage.decisions());
}

#[test]
fn a_request_that_is_cut_off_anywhere_decides_nothing() {
    let stage = crate::stage();
    let whole = format!(
        "POST /c/{TOKEN} HTTP/1.1\r\nHost: x\r\n{FORM}Content-Length: 24\r\n\r\n\
         action=delete&recipient="
    );
    for end in 0..whole.len() {
        let answer = say(&stage, &whole.as_bytes()[..end]);
        assert!(
            answer.is_empty() == (end == 0) && !answer.contains(" 200 "),
            "{end}: {answer}"
        );
    }
    assert!(stage.asked.lock().unwrap().is_empty());
}

#[test]
fn a_header_does_not_forge_what_is_recorded() {
    let stage = crate::stage();
    let headers = [
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("PostTLS-Client", "6.6.6.6"),
        ("posttls-client", "6.6.6.6"),
        ("X-Forwarded-For", "203.0.113.9\r\nPostTLS-Client: 6.6.6.6"),
    ];
    let response = stage.request("POST", &format!("/c/{TOKEN}"), &headers, "action=keep");
    assert_eq!(response.status, 200);
    let asked = stage.asked.lock().unwrap();
    assert!(
        matches!(&asked[..], [Question::Decide { client, .. }] if client.to_string() == "203.0.113.9"),
        "{asked:?}"
    );
}
