//! The web child over real sockets, with a scripted mover at the other end of its stream.

mod web_stage;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use posttls::web::child::WebError;
use posttls::web::protocol::*;
use posttls::web::reply::HEADERS;
use web_stage::{FORM, Stage, TOKEN, stage};

#[test]
fn every_page_has_its_status_type_and_headers() {
    let stage = stage();
    let path = format!("/c/{TOKEN}");
    for (method, target, status, kind) in [
        ("GET", "/", 200, "text/html; charset=utf-8"),
        ("GET", path.as_str(), 200, "text/html; charset=utf-8"),
        ("GET", "/style.css", 200, "text/css; charset=utf-8"),
        ("GET", "/robots.txt", 200, "text/plain; charset=utf-8"),
        ("GET", "/healthz", 200, "text/plain; charset=utf-8"),
        (
            "GET",
            "/c/0000000000000000",
            404,
            "text/html; charset=utf-8",
        ),
        ("GET", "/favicon.ico", 404, "text/html; charset=utf-8"),
        ("PUT", path.as_str(), 405, "text/html; charset=utf-8"),
        ("POST", "/", 405, "text/html; charset=utf-8"),
        ("POST", path.as_str(), 411, "text/html; charset=utf-8"),
    ] {
        let response = stage.request(method, target, &[], "");
        assert_eq!(response.status, status, "{method} {target}");
        assert_eq!(response.header("Content-Type"), Some(kind));
        assert_eq!(
            response.header("Content-Length"),
            Some(&*response.body.len().to_string())
        );
        for (name, value) in HEADERS {
            assert_eq!(response.header(name), Some(value), "{method} {target}");
        }
        assert_eq!(response.header("Set-Cookie"), None);
        assert_eq!(
            response
                .headers
                .iter()
                .filter(|(name, _)| name == "server")
                .count(),
            1
        );
    }
    assert_eq!(stage.get("/healthz").body, "ok\n");
    assert!(stage.get("/robots.txt").body.contains("Disallow: /"));
    let allow = |method, target: &str| {
        stage
            .request(method, target, &[], "")
            .header("Allow")
            .unwrap()
            .to_owned()
    };
    assert_eq!(allow("DELETE", &path), "GET, HEAD, POST");
    assert_eq!(allow("POST", "/style.css"), "GET, HEAD");
    assert!(stage.decisions().is_empty());
}

#[test]
fn head_is_get_without_the_body() {
    let stage = stage();
    for target in [
        "/",
        &format!("/c/{TOKEN}"),
        "/style.css",
        "/nothing",
        "/healthz",
    ] {
        let (get, head) = (stage.get(target), stage.request("HEAD", target, &[], ""));
        assert_eq!(head.status, get.status);
        assert_eq!(head.header("Content-Length"), get.header("Content-Length"));
        assert_eq!(head.body, "");
    }
}

#[test]
fn reading_never_decides() {
    let stage = stage();
    for query in [
        "?choice=send",
        "?action=send",
        "?action=delete&recipient=a%40plain.test",
    ] {
        for method in ["GET", "HEAD"] {
            let body = "action=delete";
            let response = stage.request(method, &format!("/c/{TOKEN}{query}"), &[FORM], body);
            assert_eq!(response.status, 200);
        }
    }
    // What a link names is marked, and not chosen.
    let page = stage.get(&format!("/c/{TOKEN}?choice=delete")).body;
    let line = page
        .lines()
        .position(|line| line.contains("choice suggested"));
    let line = page.lines().nth(line.expect("a mark") + 1).expect("a line");
    assert!(
        line.contains("value=\"delete\"") && !page.contains(" checked"),
        "{page}"
    );
    let asked = stage.asked.lock().unwrap();
    assert!(
        asked
            .iter()
            .all(|question| matches!(question, Question::Show { .. })),
        "{asked:?}"
    );
}

#[test]
fn a_form_becomes_exactly_one_decision() {
    let stage = stage();
    let page = stage.post("action=send&recipient=a%40plain.test");
    assert_eq!(page.status, 200);
    assert!(
        page.body
            .contains("<h1>Your message has been handed over for sending</h1>")
    );
    assert!(
        page.body
            .contains("One recipient still waits for your decision")
    );
    assert_eq!(stage.post("choice-1=delete&choice-2=keep").status, 200);
    let choices = vec![(1, Action::Delete), (2, Action::Keep)];
    let recipients = vec!["a@plain.test".to_owned()];
    assert_eq!(
        stage.decisions(),
        [
            Decision::Same {
                action: Action::Send,
                recipients,
                remember: None,
                seen: 0
            },
            Decision::Each {
                choices,
                remember: None,
                seen: 0
            }
        ]
    );
}

#[test]
fn expect_100_continue_is_answered_and_the_form_read() {
    let stage = stage();
    let mut stream = TcpStream::connect(stage.address).unwrap();
    let head = format!(
        "POST /c/{TOKEN} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n\
         Content-Type: {}\r\nContent-Length: 11\r\n\r\n",
        FORM.1
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 100");
    stream.write_all(b"action=keep").unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("HTTP/1.1 200 OK"), "{rest}");
    assert_eq!(stage.decisions().len(), 1);
}

#[test]
fn the_movers_no_is_a_page_that_helps() {
    let answers = [
        Answer::Expired,
        Answer::Busy,
        Answer::Unknown,
        Answer::Healthy,
    ];
    let mut next = answers.into_iter().cycle();
    let stage = Stage::with(move |_| next.next());
    let path = format!("/c/{TOKEN}");
    let expired = stage.get(&path);
    assert_eq!(expired.status, 410);
    assert!(expired.body.contains("helpdesk@sender.test") && expired.body.contains("too old"));
    let busy = stage.post("action=send");
    assert_eq!((busy.status, busy.header("Retry-After")), (503, Some("30")));
    assert_eq!(stage.get(&path).status, 404);
    assert_eq!(stage.get(&path).status, 500, "an answer that does not fit");

    let stage = Stage::with(move |_| {
        Some(Answer::Refused {
            why: Refusal::NoSuchRecipient {
                who: "<b>nobody</b>@x.test".to_owned(),
            },
        })
    });
    let refused = stage.post("action=send&recipient=nobody%40x.test");
    assert_eq!(refused.status, 400);
    assert!(
        refused
            .body
            .contains("This message has no recipient &lt;b&gt;nobody&lt;&#x2f;b&gt;@x.test")
    );
}

#[test]
fn a_mover_that_says_nothing_is_a_503_in_ten_seconds_and_others_are_served_meanwhile() {
    let stage = Stage::with(|question| match question {
        Question::Health => Some(Answer::Healthy),
        _ => None,
    });
    let started = Instant::now();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| stage.get(&format!("/c/{TOKEN}"))))
            .collect();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(stage.get("/healthz").status, 200);
        assert!(started.elapsed() < Duration::from_secs(5));
        for response in waiting {
            assert_eq!(response.join().unwrap().status, 503);
        }
    });
    assert!((10..14).contains(&started.elapsed().as_secs()));
}

#[test]
fn the_record_has_the_address_that_the_proxy_saw() {
    let stage = stage();
    let forwarded = ("X-Forwarded-For", "6.6.6.6, 203.0.113.9");
    stage.request(
        "POST",
        &format!("/c/{TOKEN}"),
        &[FORM, forwarded],
        "action=keep",
    );
    let asked = stage.asked.lock().unwrap();
    assert!(
        matches!(&asked[0], Question::Decide { client, .. } if client.to_string() == "203.0.113.9"),
        "{asked:?}"
    );
}

#[test]
fn the_child_ends_with_the_stream_and_reports_a_mover_that_makes_no_sense() {
    let calm = stage();
    assert_eq!(calm.get("/healthz").status, 200);
    assert!(calm.end().is_ok());
    let silent = Stage::with(|_| None);
    let address = silent.address;
    let waiting = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /c/{TOKEN} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    while silent.asked.lock().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(silent.end().is_ok());
    assert!(
        waiting.join().unwrap().contains(" 503 "),
        "a request under way is told"
    );
    assert!(matches!(stage().babble(), Err(WebError::Mover(_))));
}
