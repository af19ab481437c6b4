//! Who gets the mail, and the server that takes it: neither sees a link, and no word of theirs is more than text.

use posttls::sandbox::{Instance, Mail};

use crate::common::{Stage, header};

/// The notification goes to the envelope sender, whatever a header says, and nothing of it to a recipient.
#[test]
fn neither_recipients_nor_their_servers_get_hold_of_it() {
    let stage = Stage::new();
    the_link_reaches_nobody_but_the_envelope_sender(&stage);
    a_servers_words_are_text_and_nothing_else(&stage);
}

fn the_link_reaches_nobody_but_the_envelope_sender(stage: &Stage) {
    let message = "From: bob@plain.test\r\nSender: bob@plain.test\r\nReply-To: bob@plain.test\r\n\
        Errors-To: bob@plain.test\r\nReturn-Receipt-To: bob@plain.test\r\nReturn-Path: <bob@plain.test>\r\n\
        Disposition-Notification-To: bob@plain.test\r\nTo: bob@plain.test\r\nCc: bob@tls.test\r\n\
        Resent-From: bob@tls.test\r\nSubject: whose\r\nMessage-ID: <whose@sender.test>\r\n\r\nbody\r\n";
    let mail = Mail::new(
        "alice@sender.test",
        &["bob@plain.test", "bob@tls.test"],
        message,
    );
    let queue_id = stage
        .sandbox
        .submit_mail(Instance::Encrypt, &mail)
        .expect("taken");
    let notification = stage.notification(&queue_id);
    assert_eq!(
        header(&notification, "To").as_deref(),
        Some("alice@sender.test")
    );
    for name in ["Cc", "Bcc"] {
        assert_eq!(header(&notification, name), None, "{name}");
    }
    // Who is to be asked, by the configuration; whatever the message says of replies.
    assert_eq!(
        header(&notification, "Reply-To").as_deref(),
        Some("helpdesk@sender.test")
    );
    assert_eq!(stage.sandbox.inbox().len(), 1);
    let link = crate::common::link(&notification);
    assert_eq!(stage.post(&link, "action=send").status, 200);
    let token = link.rsplit('/').next().expect("a token");
    for recipient in ["bob@plain.test", "bob@tls.test"] {
        let arrived = stage.arrival(recipient);
        assert_eq!(stage.arrivals(recipient).len(), 1, "{recipient}");
        assert!(
            !arrived.contains(token) && !arrived.contains(stage.sandbox.http()),
            "{arrived}"
        );
    }
}

/// What a server said, as hostile as it gets, is one line of text on the page and in the admin's listing.
fn a_servers_words_are_text_and_nothing_else(stage: &Stage) {
    let (queue_id, link) = stage.stuck(&["bob@plain.test"], "words");
    let words = "refused</p><script>alert(1)</script><form action=\"http://evil.test\">\r\nSet-Cookie: a=b\r\n\
        \u{1b}[2J\u{202e}gnp.exe\u{0} {{ 7*7 }} {% include \"x\" %} https://evil.test/";
    let store = rusqlite::Connection::open(stage.config().store.path).expect("the store");
    let changed = store.execute(
        "UPDATE recipients SET detail = ?1, failure = 'refused' WHERE address = 'bob@plain.test' AND case_id =
         (SELECT max(id) FROM cases WHERE queue_id = ?2)",
        [words, &queue_id],
    );
    assert_eq!(changed.expect("changed"), 1);
    let page = stage.get(&link);
    assert_eq!(page.status, 200);
    assert!(page.body.contains("refused"), "{}", page.body);
    for forbidden in [
        "<script",
        "<form action=\"http",
        "href=\"https://evil",
        "\u{1b}",
        "\u{202e}",
        "\u{0}",
        "\nSet-Cookie",
        " 49 ",
    ] {
        assert!(
            !page.body.contains(forbidden),
            "{forbidden:?} in {}",
            page.body
        );
        assert!(!page.head.contains("Set-Cookie"));
    }
    for text in [
        stage.said(&["case", &queue_id]),
        stage.said(&["cases", "--all"]),
    ] {
        assert!(
            !text.contains(['\u{1b}', '\u{202e}', '\u{0}', '\r']),
            "{text:?}"
        );
        assert!(!text.contains("\nSet-Cookie"), "{text}");
    }
}
