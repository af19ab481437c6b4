//! An answer of tiny_http as it comes in, until it is whole. Pure. It is held in full, so that a client which reads slowly
//! keeps none of tiny_http's threads.

use httparse::{EMPTY_HEADER, Status};

use crate::web::protocol::MAX_ANSWER;

/// The longest page: some times what the mover says at most.
const MAX_PAGE: usize = 4 * MAX_ANSWER;

/// An answer that comes in.
#[derive(Debug)]
pub(crate) struct Answer {
    octets: Vec<u8>,
    /// Where it ends, once its head is there.
    end: Option<usize>,
    /// The request was for the head alone.
    head_only: bool,
}

/// It can't be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer that makes no sense")]
pub(crate) struct Broken;

impl Answer {
    /// The answer to a request of this method.
    pub(crate) fn to(method: &str) -> Self {
        Self {
            octets: Vec::new(),
            end: None,
            head_only: method == "HEAD",
        }
    }

    /// Takes what was read; gives the whole answer once it is there, as the client gets it.
    pub(crate) fn take(&mut self, chunk: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
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

fn end(octets: &[u8], head_only: bool) -> Result<Option<usize>, Broken> {
    let mut headers = [EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(octets) {
        Ok(Status::Complete(head)) => head,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(Broken),
    };
    if head_only {
        return Ok(Some(head));
    }
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("Content-Length"))
        .and_then(|header| {
            std::str::from_utf8(header.value)
                .ok()?
                .parse::<usize>()
                .ok()
        });
    let length = length.filter(|length| *length <= MAX_PAGE).ok_or(Broken)?;
    Ok(Some(head + length))
}

/// Says that the connection is closed after this answer.
pub(crate) fn last_on_its_connection(mut octets: Vec<u8>) -> Result<Vec<u8>, Broken> {
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
        ] {
            assert_eq!(Answer::to("GET").take(octets), Err(Broken));
        }
    }
}
