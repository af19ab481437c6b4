//! An answer of tiny_http as it comes in, until it is whole. Pure. It is held in full, so that a client which reads slowly
//! keeps none of tiny_http's threads.

use httparse::{EMPTY_HEADER, Status};

use crate::web::protocol::MAX_ANSWER;

/// The longest page: some times what the mover says at most.
const MAX_PAGE: usize = 4 * MAX_ANSWER;

/// An answer that comes in.
#[derive(Debug)]
pub struct Answer {
    octets: Vec<u8>,
    /// Where it ends, once its head is there.
    end: Option<usize>,
    /// The request was for the head alone.
    head_only: bool,
}

/// It can't be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer that makes no sense")]
pub struct Broken;

impl Answer {
    /// The answer to a request of this method.
    pub fn to(method: &str) -> Self {
        Self {
            octets: Vec::new(),
            end: None,
            head_only: method == "HEAD",
        }
    }

    /// Takes what was read; gives the whole answer once it is there, as the client gets it.
    ///
    /// # Errors
    /// When it makes no sense, or could be read in two ways.
    pub fn take(&mut self, chunk: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
        self.octets.extend_from_slice(chunk);
        if self.octets.len() > MAX_PAGE {
            return Err(Broken);
        }
        if self.end.is_none() {
            self.end = end(&self.octets, self.head_only)?;
        }
        match self.end {
            Some(end) if self.octets.len() > end => Err(Broken),
            Some(end) if self.octets.len() == end => {
                let octets = std::mem::take(&mut self.octets);
                last_on_its_connection(octets).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Where the answer ends, once its head is there. As strict as with requests: an answer that could be read in two ways,
/// or as two answers, is none.
fn end(octets: &[u8], head_only: bool) -> Result<Option<usize>, Broken> {
    let head = octets.windows(4).position(|four| four == b"\r\n\r\n");
    let head = head.map(|at| at + 4);
    let so_far = &octets[..head.unwrap_or(octets.len())];
    if !has_clean_lines(so_far) {
        return Err(Broken);
    }
    let mut headers = [EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head = match (response.parse(so_far), head) {
        (Ok(Status::Complete(length)), Some(head)) if length == head => head,
        (Ok(Status::Partial), None) => return Ok(None),
        _ => return Err(Broken),
    };
    // An interim answer would be followed by another one.
    let interim = response.code.is_none_or(|code| code < 200);
    let named = |name: &'static str| {
        let headers = response.headers.iter();
        headers.filter(move |header| header.name.eq_ignore_ascii_case(name))
    };
    let mut lengths = named("Content-Length").map(|header| header.value);
    let (length, second) = (lengths.next(), lengths.next());
    if interim || second.is_some() || named("Transfer-Encoding").next().is_some() {
        return Err(Broken);
    }
    if head_only {
        return Ok(Some(head));
    }
    let length = length
        .filter(|value| value.iter().all(u8::is_ascii_digit))
        .and_then(|value| std::str::from_utf8(value).ok()?.parse::<usize>().ok())
        .filter(|length| *length <= MAX_PAGE)
        .ok_or(Broken)?;
    Ok(Some(head + length))
}

/// Do lines end with CR LF, with neither alone and no other control character but a tab? The last line may be cut off.
fn has_clean_lines(octets: &[u8]) -> bool {
    let before = std::iter::once(&b' ').chain(octets);
    octets
        .iter()
        .zip(before)
        .all(|(octet, before)| match octet {
            b'\n' => *before == b'\r',
            _ if *before == b'\r' => false,
            b'\r' | b'\t' => true,
            octet => !octet.is_ascii_control(),
        })
}

/// Says that the connection is closed after this answer.
///
/// # Errors
/// When it has not even a first line.
pub fn last_on_its_connection(mut octets: Vec<u8>) -> Result<Vec<u8>, Broken> {
    let line = octets
        .windows(2)
        .position(|two| two == b"\r\n")
        .ok_or(Broken)?;
    octets.splice(line..line, *b"\r\nConnection: close");
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello";

    #[test]
    fn it_is_whole_with_its_last_octet() {
        let mut answer = Answer::to("GET");
        let (last, others) = PAGE.split_last().unwrap();
        for octet in others {
            assert_eq!(answer.take(&[*octet]), Ok(None));
        }
        let whole = answer.take(&[*last]).unwrap().unwrap();
        assert_eq!(
            String::from_utf8(whole).unwrap(),
            "HTTP/1.1 200 OK\r\nConnection: close\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello"
        );
    }

    #[test]
    fn without_a_body_it_ends_with_its_head() {
        let head = PAGE.strip_suffix(b"hello").unwrap();
        assert!(Answer::to("HEAD").take(head).unwrap().is_some());
        assert_eq!(Answer::to("GET").take(head), Ok(None));
        assert_eq!(Answer::to("HEAD").take(PAGE), Err(Broken));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for octets in [
            &b"SMTP"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
            b"HTTP/1.1 200 OK\nContent-Length: 4\n\n\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
            b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 1\r\n\r\na",
            b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
        ] {
            assert_eq!(Answer::to("GET").take(octets), Err(Broken));
        }
    }
}
