//! A small SMTP client: enough to submit any message with any MAIL and RCPT parameters, fast for many recipients.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::SandboxError;

/// RCPT commands sent before their replies are read. Bounded, so that neither side's buffers fill up and block both.
const PIPELINE: usize = 200;

/// A message with its envelope.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Envelope sender without angle brackets; empty for the null sender.
    pub from: String,
    /// MAIL parameters, for instance `BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x`.
    pub mail_params: String,
    /// Envelope recipients, each with its RCPT parameters, for instance `NOTIFY=NEVER`.
    pub to: Vec<(String, String)>,
    /// Header and body. Lone newlines become CRLF; nothing else is changed.
    pub data: Vec<u8>,
}

impl Mail {
    /// A message without parameters.
    pub fn new(from: &str, to: &[&str], data: impl Into<Vec<u8>>) -> Self {
        Self {
            from: from.to_owned(),
            mail_params: String::new(),
            to: to
                .iter()
                .map(|address| ((*address).to_owned(), String::new()))
                .collect(),
            data: data.into(),
        }
    }

    /// Sets the MAIL parameters.
    pub fn mail_params(mut self, params: &str) -> Self {
        self.mail_params = params.to_owned();
        self
    }

    /// Sets the RCPT parameters of every recipient.
    pub fn rcpt_params(mut self, params: &str) -> Self {
        for (_, of_recipient) in &mut self.to {
            params.clone_into(of_recipient);
        }
        self
    }
}

/// Submits `mail` to the server at 127.0.0.1:`port` and returns the queue ID from its reply.
///
/// # Errors
/// [`SandboxError::Refused`] with the server's reply when it takes the message or any recipient not.
pub fn submit(port: u16, mail: &Mail) -> Result<String, SandboxError> {
    let mut session = Session::open(port)?;
    session.command("EHLO client.test", "250")?;
    session.command(
        format!("MAIL FROM:<{}> {}", mail.from, mail.mail_params).trim_end(),
        "250",
    )?;
    for batch in mail.to.chunks(PIPELINE) {
        let commands: Vec<String> = batch
            .iter()
            .map(|(address, params)| {
                format!("RCPT TO:<{address}> {params}")
                    .trim_end()
                    .to_owned()
            })
            .collect();
        session.send(&(commands.join("\r\n") + "\r\n"))?;
        for command in &commands {
            session.expect(command, "250")?;
        }
    }
    session.command("DATA", "354")?;
    session
        .stream
        .write_all(&stuffed(&mail.data))
        .map_err(lost("message"))?;
    let reply = session.expect("message", "250")?;
    // The queue ID is the last word; the session ends without waiting for the reply to QUIT.
    session.send("QUIT\r\n").ok();
    Ok(reply
        .split_whitespace()
        .last()
        .unwrap_or_default()
        .to_owned())
}

struct Session {
    stream: TcpStream,
    replies: BufReader<TcpStream>,
}

impl Session {
    fn open(port: u16) -> Result<Self, SandboxError> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(lost("connection"))?;
        let prepared = stream
            .set_read_timeout(Some(Duration::from_secs(120)))
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| stream.try_clone());
        let mut session = Self {
            replies: BufReader::new(prepared.map_err(lost("connection"))?),
            stream,
        };
        session.expect("connection", "220")?;
        Ok(session)
    }

    fn send(&mut self, text: &str) -> Result<(), SandboxError> {
        self.stream.write_all(text.as_bytes()).map_err(lost(text))
    }

    fn command(&mut self, command: &str, wanted: &str) -> Result<String, SandboxError> {
        self.send(&format!("{command}\r\n"))?;
        self.expect(command, wanted)
    }

    /// Reads one reply, all its lines.
    fn expect(&mut self, command: &str, wanted: &str) -> Result<String, SandboxError> {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            let count = self.replies.read_line(&mut reply).map_err(lost(command))?;
            let line = &reply[start..];
            if count == 0 || line.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
        let reply = reply.replace('\r', "").trim_end().to_owned();
        if reply.starts_with(wanted) {
            return Ok(reply);
        }
        Err(SandboxError::Refused {
            command: command.to_owned(),
            reply,
        })
    }
}

fn lost(command: &str) -> impl FnOnce(std::io::Error) -> SandboxError + use<> {
    let command: String = command.chars().take(100).collect();
    |error| SandboxError::Refused {
        command,
        reply: error.to_string(),
    }
}

/// Lines end in CRLF, leading dots are doubled, and a lone dot ends it all (RFC 5321 section 4.5.2).
fn stuffed(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + data.len() / 32 + 8);
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::stuffed;

    #[test]
    fn dots_and_line_ends_are_made_fit_for_smtp() {
        assert_eq!(
            stuffed(b"a\n.b\r\n\n..\nc"),
            b"a\r\n..b\r\n\r\n...\r\nc\r\n.\r\n"
        );
        assert_eq!(stuffed(b""), b".\r\n");
    }
}
