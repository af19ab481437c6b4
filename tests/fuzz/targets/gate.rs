//! The gate: what strangers send, in whatever pieces it comes, and what becomes of it for tiny_http; and the answers that
//! come back. An input that begins with `HTTP/` is an answer, all else is what comes in by a connection.
//!
//! What may go on is read here once more, by other code than the gate's.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use posttls::web::gate::answer::{Answer, Broken};
use posttls::web::gate::head::{CLIENT, Head, MAX_HEAD};
use posttls::web::gate::incoming::{Incoming, Progress};
use posttls::web::routes::{Front, MAX_BODY, MAX_TARGET, Route, route};

const PEER: &str = "192.0.2.9";

fuzz_target!(|input: &[u8]| {
    if input.starts_with(b"HTTP/") {
        for method in ["GET", "HEAD"] {
            answer(method, input);
        }
    } else {
        request(input);
    }
});

/// Ways to cut an input in pieces: not at all, in single octets (a long one in as many pieces: an answer is looked at from
/// its beginning each time), and in some way that depends on it.
fn cuts(input: &[u8]) -> [Vec<&[u8]>; 3] {
    let mut state = input.iter().fold(input.len() as u32 + 1, |state, octet| {
        state.wrapping_mul(16_777_619) ^ u32::from(*octet)
    });
    let mut rest = input;
    let mut some = Vec::new();
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (piece, after) = rest.split_at((state >> 16) as usize % rest.len() + 1);
        some.push(piece);
        rest = after;
    }
    [
        vec![input],
        input.chunks(input.len() / 512 + 1).collect(),
        some,
    ]
}

fn request(input: &[u8]) {
    let peer: IpAddr = PEER.parse().expect("an address");
    let [whole, single, some] = cuts(input).map(|pieces| {
        let mut incoming = Incoming::default();
        let mut last = Progress::Head;
        for piece in pieces {
            last = incoming.take(piece, peer, &Front::default());
            if matches!(last, Progress::Complete(_) | Progress::Refused(_)) {
                break;
            }
        }
        // That the client is told to go on depends on what it has sent by then.
        match last {
            Progress::Body { .. } => Progress::Body { tell: false },
            last => last,
        }
    });
    assert_eq!(whole, single);
    assert_eq!(whole, some);
    match whole {
        Progress::Head => assert!(input.len() <= MAX_HEAD),
        Progress::Body { .. } => assert!(input.len() < MAX_HEAD + MAX_BODY),
        Progress::Refused(_) => {}
        Progress::Complete(whole) => goes_on(input, &whole.head, &whole.for_tiny_http()),
    }
}

/// Name in small letters, and value, of a line of a head.
type Field = (String, Vec<u8>);

/// The lines of a head: the first one, the others in two, and what follows. Only what can be read in one way.
fn lines(octets: &[u8]) -> (&[u8], Vec<Field>, &[u8]) {
    let end = octets.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, rest) = octets.split_at(end.expect("the end of a head") + 4);
    let mut lines = head[..head.len() - 4].split(|octet| *octet == b'\n');
    let mut clean = || {
        let line = lines.next()?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let control = |octet: &u8| octet.is_ascii_control() && *octet != b'\t';
        assert!(!line.iter().any(control), "a control character");
        Some(line)
    };
    let first = clean().expect("a first line");
    let fields = std::iter::from_fn(clean).map(|line| {
        assert!(
            !line.starts_with(b" ") && !line.starts_with(b"\t"),
            "a folded line"
        );
        let colon = line.iter().position(|octet| *octet == b':');
        let (name, value) = line.split_at(colon.expect("a colon"));
        let token =
            |octet: &u8| octet.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(octet);
        assert!(!name.is_empty() && name.iter().all(token), "no name");
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        (name, value[1..].trim_ascii().to_vec())
    });
    let fields = fields.collect();
    (first, fields, rest)
}

fn values<'a>(fields: &'a [Field], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let named = fields
        .iter()
        .filter(move |(known, _)| known.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_slice())
}

/// One request goes on: the one that came in, and of its headers those that are read, each once.
fn goes_on(input: &[u8], head: &Head, sent: &[u8]) {
    let (came_first, came, came_after) = lines(input);
    let (first, fields, body) = lines(sent);
    let came_first = std::str::from_utf8(came_first).expect("a request line");
    let words: Vec<&str> = came_first.split(' ').collect();
    let [method, target, version] = words[..] else {
        panic!("{came_first:?} is no request line");
    };
    assert!(["HTTP/1.0", "HTTP/1.1"].contains(&version));
    assert_eq!(first, format!("{method} {target} HTTP/1.1").as_bytes());
    assert_eq!(
        (head.method.as_str(), head.target.as_str()),
        (method, target)
    );
    assert!(target.starts_with('/') && target.len() <= MAX_TARGET);
    assert!(input.len() - came_after.len() <= MAX_HEAD);

    // Whatever a proxy could have read otherwise is not there.
    let hosts: Vec<&[u8]> = values(&came, "host").collect();
    assert!(hosts.len() == 1 || hosts.is_empty() && version == "HTTP/1.0");
    let odd = b" ,/@?#\t\"<>\\";
    assert!(
        !hosts
            .iter()
            .any(|host| host.iter().any(|octet| odd.contains(octet)))
    );
    assert_eq!(values(&came, "transfer-encoding").count(), 0);
    let lengths: Vec<&[u8]> = values(&came, "content-length").collect();
    assert!(lengths.len() < 2);

    let takes_form = matches!(
        route(method, target),
        Route::Decide { .. } | Route::DecideSender { .. } | Route::EndConsent { .. }
    );
    let declared = lengths.first().map_or(0, |value| {
        assert!(!value.is_empty() && value.iter().all(u8::is_ascii_digit));
        let digits = std::str::from_utf8(value).expect("digits");
        digits.parse::<usize>().expect("a length")
    });
    assert!(declared <= MAX_BODY);
    assert_eq!(body.len(), if takes_form { declared } else { 0 });
    assert_eq!(Some(body), came_after.get(..body.len()));

    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    let known = [CLIENT, "accept-language", "content-type", "content-length"];
    for (at, name) in names.iter().enumerate() {
        assert!(
            known.iter().any(|known| known.eq_ignore_ascii_case(name)),
            "{name}"
        );
        assert!(!names[..at].contains(name), "{name} twice");
    }
    let only = |name: &'static str| values(&fields, name).next();
    assert_eq!(only(CLIENT), Some(PEER.as_bytes()));
    let length = (!body.is_empty()).then(|| body.len().to_string());
    assert_eq!(only("content-length"), length.as_deref().map(str::as_bytes));
    assert_eq!(only("content-type"), values(&came, "content-type").next());
    let languages = values(&came, "accept-language").filter(|value| value.is_ascii());
    let languages: Vec<&[u8]> = languages.collect();
    let languages = languages.join(&b", "[..]);
    assert_eq!(
        only("accept-language").unwrap_or_default(),
        languages.trim_ascii()
    );
}

fn answer(method: &str, input: &[u8]) {
    let [whole, single, some] = cuts(input).map(|pieces| {
        let mut answer = Answer::to(method);
        let mut pieces = pieces.into_iter();
        let ended = pieces
            .by_ref()
            .find_map(|piece| answer.take(piece).transpose());
        match ended {
            None => Ok(None),
            // More than the answer is no answer.
            Some(Ok(_)) if pieces.next().is_some() => Err(Broken),
            Some(ended) => ended.map(Some),
        }
    });
    assert_eq!(whole, single);
    assert_eq!(whole, some);
    let Ok(Some(sent)) = whole else {
        return;
    };
    let (came_first, came, came_body) = lines(input);
    let (first, fields, body) = lines(&sent);
    assert_eq!((first, body), (came_first, came_body));
    assert!(!first.starts_with(b"HTTP/1.1 1"), "another answer follows");
    assert_eq!(fields[0], ("connection".to_owned(), b"close".to_vec()));
    assert_eq!(fields[1..], came);
    assert_eq!(values(&fields, "transfer-encoding").count(), 0);
    let lengths: Vec<&[u8]> = values(&fields, "content-length").collect();
    assert!(lengths.len() < 2);
    if method == "HEAD" {
        assert!(body.is_empty());
    } else {
        let digits = std::str::from_utf8(lengths[0]).expect("digits");
        assert!(digits.bytes().all(|octet| octet.is_ascii_digit()));
        assert_eq!(digits.parse(), Ok(body.len()));
    }
}
