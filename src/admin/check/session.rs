//! SMTP sessions with the encrypt instance's own smtpd(8): would it take such a mail? Nothing is ever sent.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use crate::address::Address;
use crate::postfix::settings::list;
use crate::postfix::{Service, Settings};

const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of a whole session.
const MOST: u64 = 64 << 10;

/// An envelope that is asked about.
pub(super) struct Envelope<'a> {
    pub from: &'a str,
    pub to: &'a str,
}

/// What a service said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// It takes mail from here, but not this one.
    Refused,
    /// It would take it.
    Taken,
    /// It takes no mail from here at all, or can't be asked.
    Not,
}

/// Where a service listens, if a session in plain text can begin there: the name of master.cf's first column, or a port,
/// at an address of `inet_interfaces`.
fn address(settings: &Settings, service: &Service) -> Option<(String, u16)> {
    let wrapped = settings.for_service(service, "smtpd_tls_wrappermode") == "yes";
    if service.kind != "inet" || wrapped {
        return None;
    }
    let (host, port) = match service.name.rsplit_once(':') {
        Some((host, port)) => (host.trim_matches(['[', ']']), port),
        None => ("", service.name.as_str()),
    };
    let port = match port {
        "smtp" => 25,
        "submission" => 587,
        port => port.parse().ok()?,
    };
    let interfaces = list(settings.for_service(service, "inet_interfaces"));
    let host = match (host, interfaces.first().copied()) {
        ("", None | Some("all" | "loopback-only")) => "127.0.0.1",
        ("", Some(first)) => first.trim_matches(['[', ']']),
        (host, _) => host,
    };
    Some((host.to_owned(), port))
}

/// Asks about an envelope, after one to `usual` that must be taken: otherwise a refusal says nothing about this one.
pub(super) fn attempt(
    settings: &Settings,
    service: &Service,
    usual: &Address,
    envelope: &Envelope<'_>,
) -> Tried {
    let Some((host, port)) = address(settings, service) else {
        return Tried::Not;
    };
    let usual = usual.quoted();
    let control = Envelope {
        from: "",
        to: &usual,
    };
    let talk = || -> io::Result<Tried> {
        let to = (host.as_str(), port).to_socket_addrs()?.next();
        let to = to.ok_or(io::ErrorKind::NotFound)?;
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut session = Session {
            from: BufReader::new(stream.try_clone()?.take(MOST)),
            stream,
        };
        if session.reply()? != b'2' || session.say("EHLO localhost")? != b'2' {
            return Ok(Tried::Not);
        }
        if session.ask(&control)? != b'2' {
            return Ok(Tried::Not);
        }
        let answer = session.ask(envelope)?;
        // All that was to be learnt is learnt.
        let _ = session.say("QUIT");
        Ok(match answer {
            b'5' => Tried::Refused,
            b'2' => Tried::Taken,
            _ => Tried::Not,
        })
    };
    talk().unwrap_or(Tried::Not)
}

struct Session {
    from: BufReader<io::Take<TcpStream>>,
    stream: TcpStream,
}

impl Session {
    /// The first digit of the reply to an envelope, and the service has forgotten it.
    fn ask(&mut self, envelope: &Envelope<'_>) -> io::Result<u8> {
        let mut answer = self.say(&format!("MAIL FROM:<{}>", envelope.from))?;
        if answer == b'2' {
            answer = self.say(&format!("RCPT TO:<{}>", envelope.to))?;
        }
        self.say("RSET")?;
        Ok(answer)
    }

    fn say(&mut self, command: &str) -> io::Result<u8> {
        self.stream.write_all(format!("{command}\r\n").as_bytes())?;
        self.reply()
    }

    /// The first digit of a reply (RFC 5321 section 4.2.1).
    fn reply(&mut self) -> io::Result<u8> {
        loop {
            let mut line = Vec::new();
            self.from.read_until(b'\n', &mut line)?;
            match line.get(3) {
                Some(b'-') => {}
                Some(_) => return Ok(line[0]),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}
