//! The notice parser and the origin check. A notice is the whole input, as pipe(8) hands it over.
#![no_main]

use libfuzzer_sys::fuzz_target;
use posttls::notice::{Delivery, Notice, NoticeRecipient, check, parse};
use posttls::postfix::QueueId;

const SENDER: &str = "double-bounce@mail.test";

fuzz_target!(|raw: &[u8]| {
    let parsed = parse(raw);
    if let Ok(notice) = &parsed {
        sound(notice);
    }
    if !raw.contains(&b'\r') {
        let crlf = String::from_utf8_lossy(raw).replace('\n', "\r\n");
        let lf = crlf.replace("\r\n", "\n");
        assert_eq!(
            parse(crlf.as_bytes()).ok(),
            parse(lf.as_bytes()).ok(),
            "the kind of line end decides"
        );
    }
    origin(raw);
});

/// What everything behind the parser relies on.
fn sound(notice: &Notice) {
    assert!(!notice.recipients.is_empty());
    assert!(notice.arrival > 0);
    one_line(&notice.reporting_mta, usize::MAX);
    let original = &notice.original;
    original.subject.iter().for_each(|text| one_line(text, 300));
    assert!(original.date.is_none_or(|date| date > 0));
    if let Some(id) = &original.message_id {
        assert!(id.len() <= 500 && id.bytes().all(|octet| octet.is_ascii_graphic()));
        assert!(id.starts_with('<') && id.ends_with('>') && id.len() > 2);
    }
    notice.recipients.iter().for_each(deferred);
    for skipped in &notice.skipped {
        one_line(&skipped.recipient, usize::MAX);
        one_line(&skipped.reason.to_string(), usize::MAX);
    }
}

fn deferred(recipient: &NoticeRecipient) {
    assert!(!recipient.address.as_str().is_empty());
    assert!(!recipient.address.as_str().chars().any(char::is_control));
    assert_eq!(recipient.action, "delayed");
    assert!(recipient.status.starts_with(['4', '5']) && recipient.status.len() <= 11);
    assert!(recipient.retry_until.is_none_or(|until| until > 0));
    recipient
        .reason
        .iter()
        .for_each(|text| one_line(text, 1000));
    if let Some(diagnostic) = &recipient.diagnostic {
        one_line(&diagnostic.kind, usize::MAX);
        one_line(&diagnostic.text, 1000);
    }
    let _ = recipient.failure();
}

fn one_line(text: &str, max: usize) {
    assert!(text.chars().count() <= max, "too long: {text:?}");
    let misleading = |c: char| c.is_control() || ('\u{202A}'..='\u{202E}').contains(&c);
    assert!(
        !text.chars().any(misleading),
        "not one plain line: {text:?}"
    );
}

/// A notice is believed only with the queue ID that it has itself, without a client, and from the right sender.
fn origin(raw: &[u8]) {
    let other: QueueId = "0F0F0F0F0F".parse().expect("a queue ID");
    let id = queue_id(raw).unwrap_or_else(|| other.clone());
    let delivery = Delivery {
        client: "",
        sender: SENDER,
        queue_id: &id,
        double_bounce: "double-bounce",
    };
    if check(raw, &delivery).is_err() {
        return;
    }
    assert!(
        raw.windows(id.as_str().len())
            .any(|octets| octets == id.as_str().as_bytes())
    );
    for wrong in [
        Delivery {
            client: "unknown",
            ..delivery
        },
        Delivery {
            sender: "ann@mail.test",
            ..delivery
        },
        Delivery {
            double_bounce: "",
            ..delivery
        },
        Delivery {
            queue_id: &other,
            ..delivery
        },
    ] {
        assert!(
            check(raw, &wrong).is_err()
                || (wrong.queue_id == &id
                    && wrong.sender == SENDER
                    && wrong.client.is_empty()
                    && !wrong.double_bounce.is_empty())
        );
    }
    let twice = [b"Received: from client.test by mail.test\n", raw].concat();
    assert!(
        check(&twice, &delivery).is_err(),
        "a forwarded notice is believed"
    );
}

/// The first thing that looks like the queue ID of a Received field.
fn queue_id(raw: &[u8]) -> Option<QueueId> {
    let text = String::from_utf8_lossy(&raw[..raw.len().min(8192)]);
    let ids = text.split("id ").skip(1);
    ids.filter_map(|rest| rest.split(';').next()?.parse().ok())
        .next()
}
