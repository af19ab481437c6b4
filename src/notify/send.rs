//! Hands the notification to the configured server.
//!
//! The session is lettre's; only the message itself goes out by our own hand, because lettre writes the final dot in a
//! packet of its own, and then waits until the server's system acknowledges the one before: 40 ms on Linux.

use std::fmt;
use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{SmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension};

use super::{Letter, field};
use crate::address::Address;
use crate::config::{Notification, SmtpTls};

/// Why the server did not take the notification.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Connection, TLS, or a reply other than "yes".
    #[error("{server} did not take the notification for <{to}>: {}", chain(source))]
    Smtp {
        /// Host and port.
        server: String,
        /// The sender who should have been told.
        to: String,
        /// What happened.
        source: lettre::transport::smtp::Error,
    },
    /// The address needs an extension that the server does not offer (RFC 6531), and without it was refused.
    #[error(
        "{server} can't take a notification for <{to}>: it does not offer SMTPUTF8, and without it said: {}",
        chain(source)
    )]
    NoSmtputf8 {
        /// Host and port.
        server: String,
        /// The sender who should have been told.
        to: String,
        /// What it said to the address without the extension.
        source: lettre::transport::smtp::Error,
    },
    /// No session came about.
    #[error("{server} can't be used: {}", chain(source))]
    Session {
        /// Host and port.
        server: String,
        /// What happened.
        source: lettre::transport::smtp::Error,
    },
}

/// The library's errors say what failed; why stands in their sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

impl SendError {
    /// Has the server refused for good (a 5xx reply)? Everything else may be better later.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Smtp { source, .. }
            | Self::Session { source, .. }
            | Self::NoSmtputf8 { source, .. } => source.is_permanent(),
        }
    }

    /// Has the server answered? Then it may well take another mail; else it can't be reached at all.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Smtp { source, .. }
            | Self::Session { source, .. }
            | Self::NoSmtputf8 { source, .. } => source.is_permanent() || source.is_transient(),
        }
    }
}

/// Sends one letter and returns when the server has taken it.
///
/// # Errors
/// When it did not.
pub fn send(letter: &Letter, settings: &Notification) -> Result<(), SendError> {
    let server = format!("{}:{}", settings.smtp_host, settings.smtp_port);
    let to = letter.to.to_string();
    let mut session = connect(settings).map_err(|source| fault(&server, &to, source))?;
    let takes_utf8 = session
        .server_info()
        .supports_feature(Extension::SmtpUtfEight);
    let path = Path::of(&letter.to, takes_utf8);
    let refused = |source| match path.kind {
        PathKind::Bare => SendError::NoSmtputf8 {
            server: server.clone(),
            to: to.clone(),
            source,
        },
        PathKind::Ascii | PathKind::Utf8 => fault(&server, &to, source),
    };
    // The null sender: a notification that bounces must not come back to anyone (RFC 3834 section 3.3).
    let parameter = if path.kind == PathKind::Utf8 {
        " SMTPUTF8"
    } else {
        ""
    };
    session
        .command(format_args!("MAIL FROM:<>{parameter}\r\n"))
        .and_then(|_| session.command(format_args!("RCPT TO:<{}>\r\n", path.text)))
        .map_err(refused)?;
    session
        .command(Data)
        .map_err(|source| fault(&server, &to, source))?;
    // Should that fail, we are as patient as before.
    let _ = session.set_timeout(Some(last_patience(settings)));
    session
        .command(Content(&letter.content))
        .map_err(|source| fault(&server, &to, source))?;
    // It is taken: whatever the server says to QUIT changes nothing.
    let _ = session.quit();
    Ok(())
}

/// An address as RCPT has it. It is Postfix that has accepted it as a sender, so it goes out as it is, whatever a library
/// thinks of it ([`Address::is_writable`] has been asked).
struct Path {
    text: String,
    kind: PathKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PathKind {
    /// ASCII, of its own or with the domain's A-labels.
    Ascii,
    /// With SMTPUTF8 (RFC 6531).
    Utf8,
    /// The same without it: a Postfix with `smtputf8_enable = no` has taken the address from its sender like that.
    Bare,
}

impl Path {
    fn of(address: &Address, takes_utf8: bool) -> Self {
        let quoted = address.quoted();
        let (text, kind) = if quoted.is_ascii() {
            (quoted, PathKind::Ascii)
        } else if takes_utf8 {
            (quoted, PathKind::Utf8)
        } else {
            match field::with_ascii_domain(address) {
                Some(ascii) => (ascii, PathKind::Ascii),
                None => (quoted, PathKind::Bare),
            }
        };
        Self { text, kind }
    }
}

/// What a server says that was tried.
#[derive(Debug)]
pub struct Probed {
    /// The name by which we greet it.
    pub hello: String,
    /// Its words if it does not take mail for the address, and whether they are for good.
    pub refused: Option<(String, bool)>,
}

/// Opens a session as for a mail, with the same greeting, TLS, credentials and sender; asks whether the server takes
/// mail for an address, and ends it: nothing is sent.
///
/// # Errors
/// When no session comes about, or the server takes nothing from the null sender.
pub fn probe(settings: &Notification, to: Option<&Address>) -> Result<Probed, SendError> {
    let fault = |source| SendError::Session {
        server: format!("{}:{}", settings.smtp_host, settings.smtp_port),
        source,
    };
    let mut session = connect(settings).map_err(fault)?;
    let takes_utf8 = session
        .server_info()
        .supports_feature(Extension::SmtpUtfEight);
    let path = to.map(|address| Path::of(address, takes_utf8));
    let utf8 = path
        .as_ref()
        .is_some_and(|path| path.kind == PathKind::Utf8);
    let parameter = if utf8 { " SMTPUTF8" } else { "" };
    session
        .command(format_args!("MAIL FROM:<>{parameter}\r\n"))
        .map_err(fault)?;
    let mut refused = None;
    if let Some(path) = path
        && let Err(source) = session.command(format_args!("RCPT TO:<{}>\r\n", path.text))
    {
        if !source.is_permanent() && !source.is_transient() {
            return Err(fault(source));
        }
        refused = Some((chain(&source), source.is_permanent()));
    }
    // All that was to be learnt is learnt.
    let _ = session.command(Rset);
    let _ = session.quit();
    Ok(Probed {
        hello: ClientId::default().to_string(),
        refused,
    })
}

/// For the reply to the message as a whole: a server that is only slow has taken the mail by then, and to give up means
/// to send it twice (RFC 5321 section 4.5.3.2.6). The hook has 90 seconds for everything.
fn last_patience(settings: &Notification) -> Duration {
    let usual = Duration::from_secs(settings.smtp_timeout_seconds);
    usual.max((usual * 3).min(Duration::from_secs(60)))
}

fn fault(server: &str, to: &str, source: lettre::transport::smtp::Error) -> SendError {
    SendError::Smtp {
        server: server.to_owned(),
        to: to.to_owned(),
        source,
    }
}

fn connect(settings: &Notification) -> Result<SmtpConnection, lettre::transport::smtp::Error> {
    let host = settings.smtp_host.as_str();
    let timeout = Some(Duration::from_secs(settings.smtp_timeout_seconds));
    let hello = ClientId::default();
    let verified = || TlsParameters::new(host.to_owned());
    let wrapper = if settings.smtp_tls == SmtpTls::Wrapper {
        Some(verified()?)
    } else {
        None
    };
    let mut session = SmtpConnection::connect(
        (host, settings.smtp_port),
        timeout,
        &hello,
        wrapper.as_ref(),
        None,
    )?;
    match settings.smtp_tls {
        SmtpTls::Required => session.starttls(&verified()?, &hello)?,
        SmtpTls::Opportunistic if session.can_starttls() => {
            // Like smtp_tls_security_level = may: any certificate is better than none.
            let any = TlsParameters::builder(host.to_owned())
                .dangerous_accept_invalid_certs(true)
                .dangerous_accept_invalid_hostnames(true)
                .build()?;
            session.starttls(&any, &hello)?;
        }
        SmtpTls::Opportunistic | SmtpTls::Wrapper | SmtpTls::None => {}
    }
    if !settings.smtp_user.is_empty() {
        let credentials =
            Credentials::new(settings.smtp_user.clone(), settings.smtp_password.clone());
        session.auth(DEFAULT_MECHANISMS, &credentials)?;
    }
    Ok(session)
}

/// A message as DATA wants it: dots doubled at the start of lines, a lone dot at its end (RFC 5321 section 4.5.2).
struct Content<'a>(&'a [u8]);

impl fmt::Display for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All of it is encoded but an address that has no ASCII form, which is UTF-8.
        let text = String::from_utf8_lossy(self.0);
        let text = text.strip_suffix("\r\n").unwrap_or(&text);
        for line in text.split("\r\n") {
            let dot = if line.starts_with('.') { "." } else { "" };
            write!(f, "{dot}{line}\r\n")?;
        }
        f.write_str(".\r\n")
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Path, PathKind};

    #[test]
    fn an_address_goes_out_as_postfix_took_it() {
        for (address, takes_utf8, text, kind) in [
            ("root", false, "root", PathKind::Ascii),
            ("a b@x.test", true, "\"a b\"@x.test", PathKind::Ascii),
            ("a@müller.example", true, "a@müller.example", PathKind::Utf8),
            (
                "a@müller.example",
                false,
                "a@xn--mller-kva.example",
                PathKind::Ascii,
            ),
            ("ä@x.test", true, "ä@x.test", PathKind::Utf8),
            ("ä@x.test", false, "ä@x.test", PathKind::Bare),
        ] {
            let path = Path::of(&address.parse().unwrap(), takes_utf8);
            assert_eq!((path.text.as_str(), path.kind), (text, kind));
        }
    }

    #[test]
    fn a_message_ends_only_where_it_ends() {
        for (message, sent) in [
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            ("a\r\n.\r\n..b\r\n", "a\r\n..\r\n...b\r\n.\r\n"),
            (".\r\n", "..\r\n.\r\n"),
            ("a\r\n\r\n", "a\r\n\r\n.\r\n"),
        ] {
            assert_eq!(Content(message.as_bytes()).to_string(), sent);
        }
    }
}
