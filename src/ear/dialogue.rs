//! What smtp(8)'s questions say about its session with a server (pure).
//!
//! In one delivery smtp(8) asks, in this order: for a greeting `220`; for each line that offers STARTTLS `starttls`;
//! after the replies to an EHLO, by the server's address. With TLS there follow a `220` (the server is ready for the
//! handshake) and a second EHLO; then STARTTLS should not be offered any more (RFC 3207), and some servers do. When the handshake fails, smtp(8)
//! connects anew and goes on in plain text: that is one `220` more. What fits none of these is not guessed at.
//!
//! A process may be given the same message again, for recipients at another server: a question of a session after the
//! last word about a recipient belongs to a new one. Nothing may be concluded across that: the second server may have
//! the first one's address.

use crate::case::Passage;
use crate::text::readable;

/// Characters kept of a reply.
const MAX_REPLY: usize = 300;

/// A lookup of smtp(8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A reply with this code, the last line of it.
    Ready,
    /// A line that offers STARTTLS.
    OffersTls,
    /// An EHLO was answered by the server with this address.
    Hello(String),
    /// A recipient was delivered; the server's last reply, with a status code (RFC 3463) before it.
    Delivered(String),
    /// A recipient was not delivered.
    Failed,
}

impl Question {
    /// Reads a socketmap question. `None` for what says nothing here: tables that an admin made lead here by mistake.
    pub fn read(query: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(query);
        let (table, key) = text.split_once(' ')?;
        match (table, key) {
            ("reply", "220") => Some(Self::Ready),
            ("reply", "starttls") => Some(Self::OffersTls),
            ("ehlo", server) => Some(Self::Hello(server.to_owned())),
            ("status", status) if status.starts_with("2.") => {
                let reply = status.split_once(' ').map_or("", |(_, reply)| reply);
                Some(Self::Delivered(readable(reply, MAX_REPLY)))
            }
            ("status", _) => Some(Self::Failed),
            _ => None,
        }
    }

    /// smtp(8) asks it before it hands a message over, and not after.
    fn is_of_a_session(&self) -> bool {
        matches!(self, Self::Ready | Self::OffersTls | Self::Hello(_))
    }
}

/// What was heard of one recipient's delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// [`Passage::Encrypted`], [`Passage::Clear`], or [`Passage::Sent`] when it can't be told.
    pub passage: Passage,
    /// The server's last reply, on one line.
    pub reply: String,
}

/// An answered EHLO.
#[derive(Debug)]
struct Hello {
    server: String,
    offered_tls: bool,
    /// How many replies with 220 there were since the EHLO before.
    ready: u32,
}

/// One smtp(8) process's session, as far as its questions tell.
#[derive(Debug, Default)]
pub struct Dialogue {
    /// The message that it is about, by inode number.
    messages: Vec<u64>,
    ready: u32,
    offered_tls: bool,
    before: Option<Hello>,
    last: Option<Hello>,
    /// There was a last word about a recipient in this session.
    told: bool,
}

impl Dialogue {
    /// Takes a question, asked while the process was delivering `messages`: another message is another session, or
    /// one that was opened by another process and of which nothing is known.
    pub fn hear(&mut self, messages: &[u64], question: Question) -> Option<Heard> {
        let another = self.messages != messages;
        if another || (self.told && question.is_of_a_session()) {
            *self = Self {
                messages: messages.to_vec(),
                ..Self::default()
            };
        }
        match question {
            Question::Ready => self.ready = self.ready.saturating_add(1),
            Question::OffersTls => self.offered_tls = true,
            Question::Hello(server) => {
                self.before = self.last.replace(Hello {
                    server,
                    offered_tls: std::mem::take(&mut self.offered_tls),
                    ready: std::mem::take(&mut self.ready),
                });
            }
            Question::Failed => self.told = true,
            Question::Delivered(reply) => {
                self.told = true;
                let passage = self.passage();
                return Some(Heard { passage, reply });
            }
        }
        None
    }

    fn passage(&self) -> Passage {
        // A session in which no EHLO was answered, by now.
        if self.ready > 0 || self.offered_tls {
            return Passage::Sent;
        }
        match (&self.before, &self.last) {
            (_, None) => Passage::Sent,
            (Some(before), Some(last))
                if before.offered_tls && before.server == last.server && last.ready == 1 =>
            {
                if last.offered_tls {
                    // Within TLS against the rules, or by the same server anew, after it hung up at STARTTLS.
                    Passage::Sent
                } else {
                    Passage::Encrypted
                }
            }
            // Not within TLS: that begins after one 220 of the same server.
            (_, Some(last)) if last.offered_tls => Passage::Clear,
            (_, Some(last)) if last.ready > 0 => Passage::Clear,
            _ => Passage::Sent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `2` a 220, `s` an offer, `e` and `f` EHLOs of two servers, `d` a delivery, `x` a recipient that was not delivered,
    /// `n` the next message.
    fn heard(script: &str) -> Vec<&'static str> {
        let (mut dialogue, mut message) = (Dialogue::default(), 7);
        let mut found = Vec::new();
        for step in script.chars() {
            let question = match step {
                '2' => Question::Ready,
                's' => Question::OffersTls,
                'e' => Question::Hello("192.0.2.1".to_owned()),
                'f' => Question::Hello("192.0.2.2".to_owned()),
                'd' => Question::Delivered("250 Ok".to_owned()),
                'x' => Question::Failed,
                _ => {
                    message += 1;
                    continue;
                }
            };
            found.extend(
                dialogue
                    .hear(&[message], question)
                    .map(|heard| heard.passage.as_str()),
            );
        }
        found
    }

    #[test]
    fn each_way_to_deliver_is_told_from_the_others() {
        assert_eq!(heard("2ed"), ["clear"], "no STARTTLS");
        assert_eq!(heard("2sed"), ["clear"], "STARTTLS refused");
        assert_eq!(heard("2se2edd"), ["encrypted", "encrypted"]);
        assert_eq!(
            heard("2se22sed"),
            ["clear"],
            "handshake failed, connected anew"
        );
        assert_eq!(
            heard("2se22ed"),
            ["clear"],
            "the same, to a server that offers none"
        );
        assert_eq!(heard("2se2fd"), ["clear"], "the next server");
        assert_eq!(
            heard("2se2sfd"),
            ["clear"],
            "the next server, whose STARTTLS is refused"
        );
        assert_eq!(
            heard("2se2e2se2ed"),
            ["encrypted"],
            "the next server, over TLS, too"
        );
        assert_eq!(heard("2se2edn2ed"), ["encrypted", "clear"]);
        assert_eq!(heard("2se2exd"), ["encrypted"], "one was refused");
    }

    #[test]
    fn the_same_message_to_the_next_server_is_another_session() {
        assert_eq!(
            heard("2sed2ed"),
            ["clear", "clear"],
            "STARTTLS refused; then none offered, at the same address"
        );
        assert_eq!(heard("2sex2ed"), ["clear"], "the first was not delivered");
        assert_eq!(heard("2sex2se2ed"), ["encrypted"]);
        assert_eq!(
            heard("2se2ed2ed2se2ed"),
            ["encrypted", "clear", "encrypted"]
        );
    }

    #[test]
    fn what_does_not_fit_is_not_guessed_at() {
        assert_eq!(heard("d"), ["sent"], "a session of another process");
        assert_eq!(
            heard("2se2ednd"),
            ["encrypted", "sent"],
            "the same for the next message"
        );
        assert_eq!(
            heard("2se2sed"),
            ["sent"],
            "offered again within TLS; or hung up at STARTTLS and connected anew"
        );
        assert_eq!(heard("2d"), ["sent"], "HELO");
        assert_eq!(heard("2se2e2d"), ["sent"], "HELO after another server");
    }

    #[test]
    fn questions_are_read_and_others_passed_over() {
        let read = |text: &str| Question::read(text.as_bytes());
        assert_eq!(
            read("ehlo 2001:db8::1"),
            Some(Question::Hello("2001:db8::1".to_owned()))
        );
        let delivered = read("status 2.0.0 250 2.0.0 Ok: queued\x01 as A");
        assert_eq!(
            delivered,
            Some(Question::Delivered(readable(
                "250 2.0.0 Ok: queued\x01 as A",
                300
            )))
        );
        for text in ["status 4.7.5 Cannot start TLS", "status 5.1.1 no"] {
            assert_eq!(read(text), Some(Question::Failed), "{text}");
        }
        for text in ["reply 250", "other x", "reply", ""] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn encrypted_is_said_only_after_an_offer_and_a_220(script in "[2sefdxn]{0,30}") {
            // Of the last session only: what was said before it must not matter.
            let session = script.rsplit(['d', 'x', 'n']).next().unwrap_or_default();
            let said = heard(&format!("{script}d")).pop();
            if said == Some("encrypted") && !session.is_empty() {
                prop_assert!(session.contains('s') && session.contains('2'));
                prop_assert_eq!(heard(&format!("{session}d")), ["encrypted"]);
            }
            prop_assert!(Question::read(script.as_bytes()).is_none());
        }
    }
}
