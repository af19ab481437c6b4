use super::*;
use proptest::prelude::*;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));
const PAGE: &str = "/c/AbCdEf0123456789-_";

fn read(head: &str) -> Result<Head, Refusal> {
    parse(head.as_bytes(), PEER, &Front::default())
}

fn behind(proxies: &[IpAddr]) -> Front {
    Front {
        trusted_proxies: proxies.to_vec(),
        ..Front::default()
    }
}

fn get(target: &str, headers: &str) -> Result<Head, Refusal> {
    read(&format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"
    ))
}

fn post(headers: &str) -> Result<usize, Refusal> {
    read(&format!("POST {PAGE} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).map(|head| head.body)
}

#[test]
fn only_what_posttls_reads_goes_on() {
    let head = get(
        "/",
        "Cookie: a=b\r\nAccept-Language: de\r\naccept-language: en;q=0.5\r\nTE: chunked\r\n\
         PostTLS-Client: 1.2.3.4\r\nConnection: upgrade\r\nUser-Agent: \u{e9}\r\n",
    );
    assert_eq!(
        head.unwrap().for_tiny_http(),
        "GET / HTTP/1.1\r\nPostTLS-Client: 192.0.2.9\r\nAccept-Language: de, en;q=0.5\r\n\r\n"
    );
}

#[test]
fn a_forwarded_address_counts_only_from_a_trusted_proxy() {
    let client = |head: &str, proxies: &[IpAddr]| {
        parse(head.as_bytes(), PEER, &behind(proxies))
            .unwrap()
            .client
    };
    let head = "GET / HTTP/1.0\r\nX-Forwarded-For: 203.0.113.5\r\n\r\n";
    assert_eq!(client(head, &[]), PEER);
    assert_eq!(client(head, &[PEER]).to_string(), "203.0.113.5");
    let head = "GET / HTTP/1.0\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: \u{e9}, 203.0.113.5\r\n\r\n";
    assert_eq!(client(head, &[PEER]).to_string(), "203.0.113.5");
}

#[test]
fn one_host_and_a_plain_one() {
    assert!(read("GET / HTTP/1.0\r\n\r\n").is_ok());
    for host in ["x", "posttls.example.org:443", "[2001:db8::1]:80", ""] {
        assert!(
            read(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).is_ok(),
            "{host}"
        );
    }
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: <script>\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    ] {
        assert_eq!(read(head), Err(Refusal::Malformed), "{head}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for head in [
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / \r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        "GET / http/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nnocolon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA(b): c\r\n\r\n",
    ] {
        assert_eq!(read(head), Err(Refusal::Malformed), "{head}");
    }
    for version in ["0.9", "1.2", "2.0", "3.0"] {
        let head = format!("GET / HTTP/{version}\r\nHost: x\r\n\r\n");
        assert_eq!(read(&head), Err(Refusal::Version), "{version}");
    }
    let many = "A: b\r\n".repeat(MAX_HEADERS);
    assert_eq!(get("/", &many), Err(Refusal::HeadTooLarge));
}

#[test]
fn methods() {
    let of = |method: &str| read(&format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n")).err();
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        assert_eq!(of(method), None);
    }
    assert_eq!(of("CONNECT"), Some(Refusal::Method));
    for method in ["get", "Get", "PROPFIND", "X", "GETT"] {
        assert_eq!(of(method), Some(Refusal::UnknownMethod), "{method}");
    }
    assert_eq!(of("G@T"), Some(Refusal::Malformed));
}

#[test]
fn targets() {
    for target in ["/", "/%2e%2e/%00", "//c/x", "/?a=b", PAGE] {
        assert_eq!(get(target, "").unwrap().target, target);
    }
    for target in [
        "*",
        "http://x/c/AbCdEf0123456789-_",
        "c/x",
        "x:443",
        "/\u{e9}",
        "\\",
    ] {
        assert_eq!(get(target, "").err(), Some(Refusal::Malformed), "{target}");
    }
    let long = format!("/{}", "x".repeat(MAX_TARGET));
    assert_eq!(get(&long, "").err(), Some(Refusal::AddressTooLong));
}

#[test]
fn lengths() {
    for (headers, expected) in [
        ("Content-Length: 11\r\n", Ok(11)),
        ("Content-Length: 0\r\n", Ok(0)),
        ("Content-Length: 262144\r\n", Ok(MAX_BODY)),
        ("Content-Length: 262145\r\n", Err(Refusal::TooLarge)),
        (
            "Content-Length: 99999999999999999999999\r\n",
            Err(Refusal::TooLarge),
        ),
        ("", Err(Refusal::LengthRequired)),
        ("Content-Length: +11\r\n", Err(Refusal::Malformed)),
        ("Content-Length: 0x1\r\n", Err(Refusal::Malformed)),
        ("Content-Length: 1, 1\r\n", Err(Refusal::Malformed)),
        ("Content-Length:\r\n", Err(Refusal::Malformed)),
        (
            "Content-Length: 11\r\ncontent-length: 11\r\n",
            Err(Refusal::Malformed),
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            Err(Refusal::LengthRequired),
        ),
        (
            "Content-Length: 11\r\nTransfer-Encoding: x\r\n",
            Err(Refusal::LengthRequired),
        ),
    ] {
        assert_eq!(post(headers), expected, "{headers}");
    }
    assert_eq!(get(PAGE, "Content-Length: 9\r\n").unwrap().body, 0);
    let elsewhere = read("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n").unwrap();
    assert_eq!(elsewhere.body, 0, "no page that takes a form");
}

#[test]
fn expectations() {
    let waits = |length: &str, expect: &str| {
        let head = format!(
            "POST {PAGE} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: {expect}\r\n\r\n"
        );
        read(&head).map(|head| head.waits)
    };
    assert_eq!(waits("5", "100-Continue"), Ok(true));
    assert_eq!(waits("0", "100-continue"), Ok(false));
    assert_eq!(waits("5", "200-ok"), Err(Refusal::Expectation));
}

proptest! {
    #[test]
    fn what_goes_on_is_one_head_of_known_lines(
        target in "/[!-~]{0,40}",
        headers in prop::collection::vec(("[A-Za-z-]{1,20}", "[ -~\t]{0,30}"), 0..6),
    ) {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        if let Ok(head) = get(&target, &lines) {
            let sent = head.for_tiny_http();
            prop_assert!(sent.ends_with("\r\n\r\n") && sent.matches("\r\n\r\n").count() == 1);
            prop_assert!(sent.lines().count() <= 6);
        }
    }
}
