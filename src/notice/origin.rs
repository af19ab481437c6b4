//! Did Postfix itself make this notice? A forged one would make PostTLS write to strangers, or ask about mail that
//! is not there.
//!
//! The proof is the topmost `Received` field, which Postfix writes before anything of the message's own
//! (src/global/post_mail.c): `by HOST (NAME)` and `id QUEUE-ID`. Mail by SMTP or QMQP has `from` there, mail of a local
//! user `(NAME, from userid N)`. Should a site remove `Received` fields, a forger's own would come to be first; but he
//! cannot know the queue ID that his message will get, which pipe(8) tells us.

use super::fields::fields;
use crate::postfix::QueueId;
use crate::text::readable;

/// More than the header of any notice: only the first octets are looked at.
const MAX_HEADER: usize = 64 << 10;

/// What pipe(8) says of the delivery.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// `${client_address}`: empty for mail that Postfix made itself, and also for mail of a local user. The client's
    /// address for mail by SMTP; `unknown` when Postfix could not tell it.
    pub client: &'a str,
    /// `${sender}`.
    pub sender: &'a str,
    /// `${queue_id}` of the notice itself.
    pub queue_id: &'a QueueId,
    /// The parameter `double_bounce_sender`, by default `double-bounce`.
    pub double_bounce: &'a str,
}

/// Why a message is no notice by Postfix itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forged {
    /// It came over the network.
    #[error("it came from the client {0:?}; Postfix's own notices come from none")]
    Client(String),
    /// Postfix sends the postmaster's copy as `double_bounce_sender`.
    #[error("its envelope sender is {sender:?}, not {expected:?} at some domain")]
    Sender {
        /// Who sent it.
        sender: String,
        /// The expected local part.
        expected: String,
    },
    /// Something removed it: a `header_checks` on the way, most likely.
    #[error("it has no Received field")]
    NoReceived,
    /// It has been delivered before, and was forwarded to the hook.
    #[error("it was forwarded: it has more than one Received field, or a Delivered-To")]
    Forwarded,
    /// A local user, or the mail owner after `postsuper -r` on the notice.
    #[error(
        "it was submitted by the local user with the ID {0}, or put back into the queue with postsuper -r"
    )]
    Submitted(String),
    /// Another form than Postfix's own.
    #[error("its first Received field is not that of mail which Postfix makes itself: {0:?}")]
    Received(String),
    /// The field is not of this delivery.
    #[error("its first Received field has the queue ID {found:?}, but the notice has {expected}")]
    QueueId {
        /// In the field.
        found: String,
        /// Of the delivery.
        expected: QueueId,
    },
}

/// Checks that Postfix made the message `raw` itself.
///
/// # Errors
/// [`Forged`] with the first reason found against it.
pub fn check(raw: &[u8], delivery: &Delivery<'_>) -> Result<(), Forged> {
    if !delivery.client.is_empty() {
        return Err(Forged::Client(readable(delivery.client, 80)));
    }
    let local = delivery
        .sender
        .rsplit_once('@')
        .map_or(delivery.sender, |(local, _)| local);
    if delivery.double_bounce.is_empty() || local != delivery.double_bounce {
        return Err(Forged::Sender {
            sender: readable(delivery.sender, 80),
            expected: delivery.double_bounce.to_owned(),
        });
    }
    let (header, _) = fields(&raw[..raw.len().min(MAX_HEADER)]);
    let mut all = header.iter().filter(|field| field.is("Received"));
    let received = all.next().ok_or(Forged::NoReceived)?;
    let received = received.lossy_text();
    let (name, id) =
        own_received(&received).ok_or_else(|| Forged::Received(readable(&received, 200)))?;
    if let Some((_, user)) = name.rsplit_once(", from userid ") {
        return Err(Forged::Submitted(readable(user, 20)));
    }
    if id != delivery.queue_id.as_str() {
        return Err(Forged::QueueId {
            found: readable(id, 80),
            expected: delivery.queue_id.clone(),
        });
    }
    // local(8) forwards mail by a .forward file under a new Received field of Postfix's own, without a client. What it
    // forwards has a Received field of its own below that one, and a Delivered-To; a notice has neither.
    if all.next().is_some() || header.iter().any(|field| field.is("Delivered-To")) {
        return Err(Forged::Forwarded);
    }
    Ok(())
}

/// `by HOST (NAME) id ID; DATE`: NAME and ID. NAME is the parameter `mail_name`, any text.
fn own_received(field: &str) -> Option<(&str, &str)> {
    let (host, rest) = field.strip_prefix("by ")?.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") id ")?;
    let (id, _date) = rest.split_once(';')?;
    (!host.is_empty() && !host.contains(' ')).then_some((name, id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DATE: &str = "Fri, 21 Aug 2026 10:00:00 +0000 (UTC)";

    fn judge(received: &str, client: &str, sender: &str) -> Result<(), Forged> {
        let raw = format!(
            "From double-bounce@mail.test  Fri Aug 21 10:00:00 2026\nReturn-Path: <x>\n\
             Received: {received}\nSubject: x\n\nReceived: by mail.test (Postfix)\n\tid 4ABCDEF; {DATE}\n"
        );
        let queue_id = "4ABCDEF".parse().unwrap();
        let delivery = Delivery {
            client,
            sender,
            queue_id: &queue_id,
            double_bounce: "double-bounce",
        };
        let verdict = check(raw.as_bytes(), &delivery);
        assert_eq!(
            verdict,
            check(raw.replace('\n', "\r\n").as_bytes(), &delivery)
        );
        verdict
    }

    #[test]
    fn postfix_itself_is_believed() {
        for name in ["Postfix", "Our (old) Mailer", "Postfix) id 4ABCDEF (really"] {
            let received = format!("by mail.test ({name})\n\tid 4ABCDEF; {DATE}");
            assert_eq!(judge(&received, "", "double-bounce@mail.test"), Ok(()));
        }
        let received = format!("by mail.test (Postfix)\n\tid 4ABCDEF; {DATE}");
        assert_eq!(judge(&received, "", "double-bounce"), Ok(()));
    }

    #[test]
    fn everyone_else_is_not() {
        let own = format!("by mail.test (Postfix)\n\tid 4ABCDEF; {DATE}");
        for client in ["192.0.2.1", "unknown", "::1", " "] {
            assert!(matches!(
                judge(&own, client, "double-bounce@mail.test"),
                Err(Forged::Client(_))
            ));
        }
        for sender in [
            "",
            "root@mail.test",
            "double-bounce@x@y",
            "Double-Bounce@mail.test",
        ] {
            assert!(
                matches!(judge(&own, "", sender), Err(Forged::Sender { .. })),
                "{sender}"
            );
        }
        let user = format!("by mail.test (Postfix, from userid 1000)\n\tid 4ABCDEF; {DATE}");
        assert_eq!(
            judge(&user, "", "double-bounce@mail.test"),
            Err(Forged::Submitted("1000".into()))
        );
        for received in [
            format!(
                "from mail.test (mail.test [192.0.2.1])\n\tby mail.test (Postfix) with ESMTP id 4ABCDEF; {DATE}"
            ),
            format!("by mail.test (Postfix) with QMQP id 4ABCDEF; {DATE}"),
            format!("by mail.test x (Postfix)\n\tid 4ABCDEF; {DATE}"),
            "by mail.test (Postfix)\n\tid 4ABCDEF".to_owned(),
            String::new(),
        ] {
            assert!(
                matches!(
                    judge(&received, "", "double-bounce@mail.test"),
                    Err(Forged::Received(_))
                ),
                "{received}"
            );
        }
        let other = format!("by mail.test (Postfix)\n\tid 5ABCDEF; {DATE}");
        assert!(matches!(
            judge(&other, "", "double-bounce@mail.test"),
            Err(Forged::QueueId { .. })
        ));
    }

    #[test]
    fn forwarded_mail_is_not_believed() {
        let own = format!("by mail.test (Postfix)\n\tid 4ABCDEF; {DATE}");
        let below = format!("by mail.test (Postfix, from userid 1000)\n\tid 5ABCDEF; {DATE}");
        for more in [
            format!("Received: {below}"),
            "Delivered-To: eve@mail.test".to_owned(),
        ] {
            let received = format!("{own}\n{more}");
            assert_eq!(
                judge(&received, "", "double-bounce@mail.test"),
                Err(Forged::Forwarded),
                "{more}"
            );
        }
    }

    #[test]
    fn received_in_the_body_is_none() {
        let raw = format!("Subject: x\n\nReceived: by mail.test (Postfix)\n\tid 4ABCDEF; {DATE}\n");
        let queue_id = "4ABCDEF".parse().unwrap();
        let delivery = Delivery {
            client: "",
            sender: "double-bounce",
            queue_id: &queue_id,
            double_bounce: "double-bounce",
        };
        assert_eq!(check(raw.as_bytes(), &delivery), Err(Forged::NoReceived));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(raw in proptest::collection::vec(any::<u8>(), 0..300)) {
            let queue_id = "4ABCDEF".parse().unwrap();
            let delivery = Delivery { client: "", sender: "double-bounce", queue_id: &queue_id, double_bounce: "double-bounce" };
            prop_assert!(check(&raw, &delivery).is_err());
        }
    }
}
