//! A request as it comes in, octet by octet: pure, and each octet is looked at once.
//!
//! Nothing is parsed before the head is there in full, so that a client which sends single octets costs no more than
//! one which does not.

use std::net::IpAddr;

use super::head::{self, Head, MAX_HEAD, Refusal};
use crate::web::routes::{Front, MAX_TARGET};

/// The longest request line: method, target and version.
const MAX_LINE: usize = MAX_TARGET + 64;

/// What has come in so far.
#[derive(Debug, Default)]
pub struct Incoming {
    octets: Vec<u8>,
    scanned: usize,
    /// The request line is there in full.
    has_line: bool,
    head: Option<Head>,
}

/// Where a request stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Part of the head is missing.
    Head,
    /// The head is there, part of the form is missing; `tell` the client that it may send it.
    Body {
        /// It waits to be told (RFC 9110 section 10.1.1).
        tell: bool,
    },
    /// All is there.
    Complete(Whole),
    /// It is answered at once.
    Refused(Refusal),
}

/// A complete request.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    /// What its head says.
    pub head: Head,
    form: Vec<u8>,
}

impl Whole {
    /// As tiny_http gets it.
    pub fn for_tiny_http(&self) -> Vec<u8> {
        let mut octets = self.head.for_tiny_http().into_bytes();
        octets.extend_from_slice(&self.form);
        octets
    }

    /// Octets held.
    pub fn held(&self) -> usize {
        self.form.capacity() + MAX_TARGET
    }
}

impl Incoming {
    /// Octets held.
    pub fn held(&self) -> usize {
        self.octets.capacity()
    }

    /// Nothing has come in yet.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty() && self.head.is_none()
    }

    /// The head, once it is there.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Takes what was read from the connection.
    pub fn take(&mut self, chunk: &[u8], peer: IpAddr, front: &Front) -> Progress {
        self.octets.extend_from_slice(chunk);
        let mut tell = false;
        if self.head.is_none() {
            let end = match self.find_end() {
                Ok(Some(end)) => end,
                Ok(None) => return Progress::Head,
                Err(refusal) => return Progress::Refused(refusal),
            };
            let head = match head::parse(&self.octets[..end], peer, front) {
                Ok(head) => head,
                Err(refusal) => return Progress::Refused(refusal),
            };
            self.octets.drain(..end);
            tell = head.waits && self.octets.is_empty();
            self.head = Some(head);
        }
        match self.head.take() {
            Some(head) if self.octets.len() >= head.body => {
                // What follows would be a second request; the connection is closed after the first.
                self.octets.truncate(head.body);
                let form = std::mem::take(&mut self.octets);
                Progress::Complete(Whole { head, form })
            }
            head => {
                self.head = head;
                Progress::Body { tell }
            }
        }
    }

    /// The end of the head, once it is there. Lines end with CR LF, neither stands alone, and no other control character
    /// but a tab stands anywhere.
    fn find_end(&mut self) -> Result<Option<usize>, Refusal> {
        while let Some(octet) = self.octets.get(self.scanned) {
            let at = self.scanned;
            if at >= MAX_HEAD || (at >= MAX_LINE && !self.has_line) {
                return Err(if self.has_line {
                    Refusal::HeadTooLarge
                } else {
                    Refusal::AddressTooLong
                });
            }
            let after_cr = at > 0 && self.octets[at - 1] == b'\r';
            let proper = match octet {
                b'\n' => after_cr,
                _ if after_cr => false,
                b'\r' | b'\t' => at > 0,
                octet if at == 0 => octet.is_ascii_alphabetic(),
                octet => !octet.is_ascii_control(),
            };
            if !proper {
                return Err(Refusal::Malformed);
            }
            self.scanned += 1;
            if *octet == b'\n' {
                self.has_line = true;
                if self.octets[..self.scanned].ends_with(b"\r\n\r\n") {
                    return Ok(Some(self.scanned));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const FORM: &[u8] =
        b"POST /c/AbCdEf0123456789-_ HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\naction=send";

    fn refused(octets: &[u8]) -> Option<Refusal> {
        match Incoming::default().take(octets, PEER, &Front::default()) {
            Progress::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    #[test]
    fn a_form_is_complete_with_its_last_octet_and_not_before() {
        let mut incoming = Incoming::default();
        let (last, others) = FORM.split_last().unwrap();
        for octet in others {
            let progress = incoming.take(&[*octet], PEER, &Front::default());
            assert!(matches!(
                progress,
                Progress::Head | Progress::Body { tell: false }
            ));
        }
        let Progress::Complete(whole) = incoming.take(&[*last], PEER, &Front::default()) else {
            panic!("not complete");
        };
        let sent = String::from_utf8(whole.for_tiny_http()).unwrap();
        assert!(sent.ends_with("\r\n\r\naction=send"), "{sent}");
    }

    #[test]
    fn what_follows_a_request_does_not_go_on() {
        let two = [FORM, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
        let Progress::Complete(whole) = Incoming::default().take(&two, PEER, &Front::default())
        else {
            panic!("not complete");
        };
        assert!(whole.for_tiny_http().ends_with(b"\r\n\r\naction=send"));
    }

    #[test]
    fn a_client_that_waits_is_told_once() {
        let head = b"POST /c/AbCdEf0123456789-_ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
        let mut incoming = Incoming::default();
        assert_eq!(
            incoming.take(head, PEER, &Front::default()),
            Progress::Body { tell: true }
        );
        assert_eq!(
            incoming.take(b"a", PEER, &Front::default()),
            Progress::Body { tell: false }
        );
        assert!(matches!(
            incoming.take(b"bc", PEER, &Front::default()),
            Progress::Complete(_)
        ));
    }

    #[test]
    fn what_is_no_head_is_refused_at_its_first_wrong_octet() {
        for octets in [
            &b"\x16\x03\x01"[..],
            b"\r\n",
            b" ",
            b"GET / HTTP/1.1\n",
            b"GET / HTTP/1.1\r\rH",
            b"GET / HTTP/1.1\r\nHost: x\nX",
            b"GET /\0",
            b"GET / HTTP/1.1\r\nX: \x7f",
            b"GET / HTTP/1.1\r\nX: a\x0bb",
        ] {
            assert_eq!(refused(octets), Some(Refusal::Malformed), "{octets:?}");
        }
        let long = [b"GET /".as_slice(), &[b'a'; 3000]].concat();
        assert_eq!(refused(&long), Some(Refusal::AddressTooLong));
        let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'a'; MAX_HEAD]].concat();
        assert_eq!(refused(&long), Some(Refusal::HeadTooLarge));
        assert_eq!(refused(&long[..MAX_HEAD]), None);
    }

    proptest! {
        #[test]
        fn octets_mean_the_same_in_any_pieces(
            octets in prop::collection::vec(prop::sample::select(b"GETPOS /c:1.\r\n\t\x00aH".to_vec()), 0..80),
            cut in 0usize..80,
        ) {
            for octets in [&octets[..], &[FORM, &octets].concat()] {
                let (first, rest) = octets.split_at(cut.min(octets.len()));
                let mut pieces = Incoming::default();
                let progress = match pieces.take(first, PEER, &Front::default()) {
                    ended @ (Progress::Complete(_) | Progress::Refused(_)) => ended,
                    _ => pieces.take(rest, PEER, &Front::default()),
                };
                prop_assert_eq!(progress, Incoming::default().take(octets, PEER, &Front::default()));
            }
        }
    }
}
