//! Where Postfix would take a recipient: transport and next hop, as trivial-rewrite(8) tells qmgr(8).
//! (Postfix src/global/resolve_clnt.c; attributes are names and values, each ended by a NUL, and an empty name ends them.)

use std::io::{self, Read, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::connect;
use crate::octets;

/// Octets of the longest reply.
const MOST: usize = 64 * 1024;

/// A look-up failed; Postfix defers the recipient. (resolve_clnt.h)
const FAILED: u32 = 1 << 3;
/// The recipient's domain is in mydestination, virtual_alias_domains, virtual_mailbox_domains or relay_domains.
const OURS: u32 = 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11;
const RELAY: u32 = 1 << 11;

/// What trivial-rewrite said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Name of a service of master.cf.
    pub transport: String,
    /// Next hop, as the delivery agent gets it.
    pub next_hop: String,
    flags: u32,
}

impl Resolved {
    /// Is the recipient's domain one of this system's own?
    pub fn is_own_domain(&self) -> bool {
        self.flags & OURS != 0
    }

    /// Is the recipient's domain in relay_domains?
    pub fn is_relay_domain(&self) -> bool {
        self.flags & RELAY != 0
    }
}

/// Asks the trivial-rewrite service whose socket is at `path`.
///
/// # Errors
/// When it does not answer in time, or could not look something up.
pub fn resolve(
    path: &Path,
    sender: &str,
    address: &str,
    patience: Duration,
) -> io::Result<Resolved> {
    let deadline = Instant::now() + patience;
    let mut stream = connect::within(path, patience)?;
    let mut request = Vec::new();
    for word in ["request", "resolve", "sender", sender, "address", address] {
        if word.contains('\0') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a NUL in an address",
            ));
        }
        request.extend(octets::of(word).iter());
        request.push(0);
    }
    request.push(0);
    stream.write_all(&request)?;
    let reply = read_reply(&mut stream, deadline)?;
    if reply.flags & FAILED != 0 {
        return Err(io::Error::other("a look-up failed; Postfix's log has more"));
    }
    Ok(reply)
}

fn read_reply(stream: &mut impl Read, deadline: Instant) -> io::Result<Resolved> {
    let mut said = Vec::new();
    loop {
        if let Some(reply) = parse(&said)? {
            return Ok(reply);
        }
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        said.extend_from_slice(&buffer[..count]);
        if said.len() > MOST {
            return Err(odd());
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

fn odd() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "trivial-rewrite's reply is not understood",
    )
}

/// The reply, when it is there to its end. From Postfix 3.6 on the name of the protocol comes before it.
fn parse(said: &[u8]) -> io::Result<Option<Resolved>> {
    let mut words = said.split(|octet| *octet == 0);
    let mut last = 0;
    let mut next = || -> Option<&[u8]> {
        let word = words.next()?;
        last += word.len() + 1;
        (last <= said.len()).then_some(word)
    };
    let mut pairs: Vec<(&[u8], &[u8])> = Vec::new();
    loop {
        let Some(name) = next() else { return Ok(None) };
        if name.is_empty() {
            if pairs.first().is_some_and(|(name, _)| *name == b"protocol") {
                pairs.clear();
                continue;
            }
            break;
        }
        let Some(value) = next() else { return Ok(None) };
        pairs.push((name, value));
    }
    let [
        (b"flags", _),
        (b"transport", transport),
        (b"nexthop", next_hop),
        (b"recipient", _),
        (b"flags", flags),
    ] = pairs[..]
    else {
        return Err(odd());
    };
    let transport = octets::text(transport);
    if transport.is_empty() {
        return Err(odd());
    }
    Ok(Some(Resolved {
        transport,
        next_hop: octets::text(next_hop),
        flags: octets::text(flags).parse().map_err(|_| odd())?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &[u8] = b"protocol\0trivial_rewrite_protocol\0\0flags\x000\0transport\0smtp\0nexthop\0[a]:25\0recipient\0b@c\0flags\x004096\0\0";

    #[test]
    fn a_reply_is_read_with_and_without_the_name_of_the_protocol_and_never_by_halves() {
        let whole = parse(REPLY).unwrap().unwrap();
        assert_eq!(
            (whole.transport.as_str(), whole.next_hop.as_str()),
            ("smtp", "[a]:25")
        );
        assert!(!whole.is_own_domain());
        assert_eq!(parse(&REPLY[35..]).unwrap().unwrap(), whole);
        for end in 0..REPLY.len() {
            assert_eq!(parse(&REPLY[..end]).unwrap(), None, "{end}");
        }
        for odd in [
            &b"transport\0smtp\0\0"[..],
            b"flags\x000\0transport\0\0nexthop\0\0recipient\0b@c\0flags\x004096\0\0",
            b"flags\x000\0transport\0smtp\0nexthop\0a\0recipient\0b@c\0flags\0x\0\0",
        ] {
            assert!(parse(odd).is_err(), "{odd:?}");
        }
    }
}
