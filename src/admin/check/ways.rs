//! Checks of what the mover asks when mail is stuck: policies that demand TLS, and hops of our own.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use super::context::Context;
use super::{Outcome, Verdict};
use crate::mover::{self, OwnHop, Ways};

/// How long a hop may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Octets of all that it may say.
const MOST: u64 = 64 * 1024;

/// Can every table of policies be asked, and does trivial-rewrite answer? Else nothing is offered to anybody.
pub(super) fn policies(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let what = "encrypt instance: policies that demand TLS";
    let todo =
        "mend it: until then nothing that waits can be judged, and nothing is offered for sending";
    let asked = match Ways::try_tables(settings) {
        Ok(asked) => asked,
        Err(why) => return Ok(Verdict::fail(format!("{what} can't be asked: {why}"), todo)),
    };
    if settings.is_running().unwrap_or(false)
        && let Err(why) = mover::route_of_anybody(settings)
    {
        return Ok(Verdict::fail(
            format!("encrypt instance: routes can't be asked: {why}"),
            todo,
        ));
    }
    let asked = if asked.is_empty() {
        "there are none".to_owned()
    } else {
        asked
    };
    Ok(Verdict::ok(format!("{what} can be asked: {asked}")))
}

/// Hops of our own that are reached with mandatory TLS: if one offers none, all mail through it is stuck, inbound mail, too.
pub(super) fn own_hops(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let what = "encrypt instance: hops of our own";
    // Whether it can be asked is another check.
    let anybody = settings
        .is_running()
        .unwrap_or(false)
        .then(|| mover::route_of_anybody(settings).ok())
        .flatten();
    let hops = mover::own_hops(settings, anybody.as_ref());
    let mut doubtful = Vec::new();
    for hop in &hops {
        match offers_tls(hop) {
            Ok(true) => {}
            Ok(false) => {
                return Ok(Verdict::fail(
                    format!(
                        "{what}: {} is reached with mandatory TLS, and offers none",
                        hop.setting
                    ),
                    format!("all mail through it is stuck; {}", hop.advice),
                ));
            }
            Err(why) => doubtful.push(format!("{}: {why}", hop.setting)),
        }
    }
    if doubtful.is_empty() {
        let count = hops.len();
        return Ok(Verdict::ok(format!(
            "{what} that are reached with mandatory TLS: {count}, all offer it"
        )));
    }
    Ok(Verdict::warn(
        format!(
            "{what}: not tried whether they offer TLS: {}",
            doubtful.join("; ")
        ),
        "if one of them offers none, all mail through it is stuck, and no sender can help that",
    ))
}

/// Does the server offer STARTTLS to who says EHLO?
fn offers_tls(hop: &OwnHop) -> Result<bool, String> {
    let Some(host) = &hop.host else {
        return Err("its host is found by DNS".to_owned());
    };
    let port = match hop.port.as_str() {
        "smtp" => Ok(25),
        "submission" => Ok(587),
        "smtps" | "submissions" => return Ok(true),
        port => port.parse::<u16>().map_err(|_| format!("port {port:?}")),
    }?;
    let talk = || -> io::Result<bool> {
        let address = (host.as_str(), port).to_socket_addrs()?.next();
        let address = address.ok_or(io::ErrorKind::NotFound)?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut from = BufReader::new(stream.try_clone()?).take(MOST);
        reply(&mut from)?;
        stream.write_all(b"EHLO posttls.invalid\r\n")?;
        let offers = reply(&mut from)?;
        stream.write_all(b"QUIT\r\n")?;
        let offered = |line: &String| {
            line.get(4..)
                .is_some_and(|word| word.eq_ignore_ascii_case("STARTTLS"))
        };
        Ok(offers.iter().any(offered))
    };
    talk().map_err(|error| error.to_string())
}

/// The lines of one reply (RFC 5321 section 4.2.1); an error unless it is positive.
fn reply(from: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_owned();
        if !line.starts_with('2') {
            return Err(io::Error::other(format!("it said {line}")));
        }
        let last = line.as_bytes().get(3) != Some(&b'-');
        lines.push(line);
        if last {
            return Ok(lines);
        }
    }
}
