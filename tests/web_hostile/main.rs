//! The web child and clients that mean no good, or are cut off: nothing that is not clearly a decision may become one.
//! `raw` has what is no proper request, `siege` has many clients at once, `nginx` both behind the shipped configuration.

mod nginx;
mod raw;
mod siege;
#[path = "../web_stage/mod.rs"]
mod web_stage;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use web_stage::{FORM, TOKEN, stage};

#[test]
fn what_is_no_form_decides_nothing() {
    let stage = stage();
    for body in [
        "action=all",
        "action",
        "%",
        "choice-1=none",
        "action=send&x=1",
        "\u{0}",
        "action=send&action=keep",
    ] {
        let response = stage.post(body);
        assert_eq!(response.status, 400, "{body}");
        assert!(response.body.contains("Nothing was changed"));
    }
    let path = format!("/c/{TOKEN}");
    for kind in [
        "text/plain",
        "application/json",
        "multipart/form-data; boundary=x",
    ] {
        let response = stage.request("POST", &path, &[("Content-Type", kind)], "action=send");
        assert_eq!(response.status, 400, "{kind}");
    }
    assert_eq!(
        stage.request("POST", &path, &[], "action=send").status,
        400,
        "no type"
    );
    let start = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {}\r\n",
        FORM.1
    );
    for (rest, status) in [
        (
            "Content-Length: 11\r\nContent-Length: 11\r\n\r\naction=send",
            400,
        ),
        ("Content-Length: +11\r\n\r\naction=send", 400),
        (
            "Content-Length: 99999999999999999999999\r\n\r\naction=send",
            413,
        ),
        ("Content-Length: 262145\r\n\r\naction=send", 413),
        (
            "Transfer-Encoding: chunked\r\n\r\nb\r\naction=send\r\n0\r\n\r\n",
            411,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 11\r\n\r\naction=send",
            411,
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\nfffffff\r\naction=send",
            411,
        ),
        ("Transfer-Encoding: gzip\r\n\r\naction=send", 411),
    ] {
        let mut stream = TcpStream::connect(stage.address).unwrap();
        stream
            .write_all(format!("{start}{rest}").as_bytes())
            .unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&answer),
            format!("HTTP/1.1 {status}"),
            "{rest}"
        );
    }
    assert!(stage.decisions().is_empty());
}

#[test]
fn a_form_that_is_cut_off_decides_nothing() {
    let stage = stage();
    let head = format!(
        "POST /c/{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nContent-Length: 2000\r\n\r\n",
        FORM.1
    );
    let mut stream = TcpStream::connect(stage.address).unwrap();
    stream
        .write_all(format!("{head}action=delete").as_bytes())
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(stage.decisions().is_empty());
}

#[test]
fn a_form_as_large_as_allowed_is_read_and_a_larger_one_is_not() {
    let stage = stage();
    let fill = |size: usize| {
        let mut body = "action=keep".to_owned();
        while body.len() + 60 < size {
            body += &format!("&recipient={}", "r".repeat(40));
        }
        body += "&recipient=";
        body += &"x".repeat(size - body.len());
        body
    };
    assert_eq!(stage.post(&fill(256 * 1024)).status, 200);
    assert_eq!(stage.post(&fill(256 * 1024 + 1)).status, 413);
    assert_eq!(stage.decisions().len(), 1);
}

#[test]
fn clients_that_send_half_a_request_do_not_keep_others_out() {
    let stage = stage();
    let head = format!(
        "POST /c/{TOKEN} HTTP/1.1\r\nContent-Type: {}\r\nContent-Length: 2000\r\n\r\n",
        FORM.1
    );
    let slow: Vec<TcpStream> = (0..100)
        .map(|n| {
            let mut stream = TcpStream::connect(stage.address).unwrap();
            stream
                .write_all(if n % 2 == 0 {
                    head.as_bytes()
                } else {
                    b"GET /c/"
                })
                .unwrap();
            stream
        })
        .collect();
    let started = Instant::now();
    assert_eq!(stage.get("/healthz").status, 200);
    assert!(started.elapsed() < Duration::from_secs(1));
    drop(slow);
}

#[test]
fn what_stands_in_the_request_reaches_no_header_of_the_reply() {
    let stage = stage();
    for target in [
        "/%0d%0aSet-Cookie:%20a=b",
        "/c/%0d%0aX:%20y/",
        "/?choice=%0d%0aX:y",
        "/<script>",
    ] {
        let response = stage.get(target);
        assert!(!response.body.contains("<script") && response.header("X").is_none());
        assert!(response.header("Set-Cookie").is_none() && response.headers.len() < 16);
    }
    for target in [
        "//",
        "/../etc/passwd",
        "/c/../healthz",
        "/%2e%2e/healthz",
        "/c%2f0123456789",
        "//healthz",
        "/./",
    ] {
        assert_eq!(stage.get(target).status, 404, "{target}");
    }
    assert_eq!(stage.get(&format!("/{}", "x".repeat(3000))).status, 414);
    assert!(stage.asked.lock().unwrap().is_empty());
}
