//! The whole way of a sender in a real browser: from the link in the mail to the message in the recipient's mailbox.
//!
//! Needs Chromium (`CHROME`, or /usr/bin/chromium); NO_BROWSER leaves these tests out. JavaScript is switched off
//! while pages are used. With `SCREENSHOTS` set to a directory, pictures of the pages are put there.

mod chromium;
mod common;

use chromium::sender::Sender;
use common::Stage;

/// The links in the HTML part of a mail that name a choice.
fn button(mail: &str, choice: &str) -> String {
    let mail = mailparse::parse_mail(mail.as_bytes()).expect("a mail");
    let html = mail.subparts[1].get_body().expect("HTML");
    let hrefs = html
        .split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    hrefs
        .map(|href| href.replace("&#x2f;", "/").replace("&amp;", "&"))
        .find(|href| href.ends_with(&format!("?choice={choice}")))
        .expect("a button")
}

#[test]
fn a_sender_clicks_send_confirms_and_the_message_arrives() {
    let Some(sender) = Sender::new() else { return };
    let stage = Stage::new();
    let queue_id = stage.send(&["bob@plain.test"], "contract");
    let mail = stage.notification(&queue_id);
    sender.open(&button(&mail, "send"));
    assert!(sender.reads("h1").contains("waiting for your decision"));
    assert!(sender.reads("main").contains("bob@plain.test"));
    assert!(
        sender
            .reads("main")
            .contains("You followed the link for “Send unencrypted”")
    );
    assert!(sender.sees(".suggested #all-send") && !sender.sees(".suggested #all-delete"));
    assert!(
        !sender.sees("input:checked"),
        "nothing is chosen for the sender"
    );
    sender.photographs("0-suggested");
    sender.clicks("label[for=all-send]");
    sender
        .tab
        .wait_for_element("#all-send:checked")
        .expect("a choice");
    sender.photographs("1-chosen");
    // Looking is not deciding.
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
    sender.clicks("form button[type=submit]");
    sender.is_told("Handed over for delivery");
    assert!(sender.reads("h1").contains("handed over for sending"));
    sender.photographs("2-result");
    assert!(stage.arrival("bob@plain.test").contains("body of contract"));

    // Reloading the result, and the link once more, change nothing.
    sender.clicks("main a");
    assert!(sender.reads("h1").contains("nothing left to decide"));
    assert!(!sender.sees("form"));
    sender.photographs("3-later");
    stage.queues_are_empty();
    assert_eq!(stage.sandbox.delivered("bob@plain.test").len(), 1);
}

#[test]
fn a_sender_decides_recipient_by_recipient_by_keyboard() {
    let Some(sender) = Sender::new() else { return };
    let stage = Stage::new();
    let (queue_id, link) =
        stage.stuck(&["a@plain.test", "b@refuse.test", "c@broken.test"], "three");
    let case = stage.case(&queue_id);
    let number = |address: &str| {
        let recipients = case["recipients"].as_array().expect("recipients");
        recipients
            .iter()
            .find(|recipient| recipient["address"] == address)
            .expect("it")["number"]
            .clone()
    };
    sender.open(&link);
    assert!(
        !sender.sees("input:checked"),
        "nothing is chosen for the sender"
    );
    sender.photographs("4-three");
    // Space chooses what has the focus, an arrow the next, Enter sends the form.
    sender.presses(&format!("#r{}-send", number("a@plain.test")), &[" "]);
    sender.presses(
        &format!("#r{}-send", number("b@refuse.test")),
        &["ArrowDown"],
    );
    for chosen in [("a@plain.test", "send"), ("b@refuse.test", "delete")] {
        let selector = format!("#r{}-{}:checked", number(chosen.0), chosen.1);
        sender.tab.wait_for_element(&selector).expect(&selector);
    }
    sender.photographs("5-chosen-each");
    sender.presses(&format!("#r{}-delete", number("b@refuse.test")), &["Enter"]);
    sender.tab.wait_for_element(".mark").expect("a result");
    sender.photographs("6-result-each");
    stage.arrival("a@plain.test");
    let states = stage.states(&queue_id);
    assert_eq!(states["a@plain.test"], "released");
    assert_eq!(states["b@refuse.test"], "deleted");
    assert_eq!(states["c@broken.test"], "open");
    stage.in_queue(&queue_id, "deferred");
    assert_eq!(stage.pending(&queue_id), ["c@broken.test"]);

    // The page now asks about the one that is left.
    sender.open(&format!("{link}?choice=delete"));
    assert!(!sender.sees("input:checked"));
    sender.decides("delete");
    sender.is_told("Deleted: ");
    stage.queues_are_empty();
    assert!(
        stage.sandbox.delivered("b@refuse.test").is_empty()
            && stage.sandbox.delivered("c@broken.test").is_empty()
    );
}

#[test]
fn what_is_not_a_page_says_what_to_do() {
    let Some(sender) = Sender::new() else { return };
    let stage = Stage::new();
    sender.open(&format!("{}/c/AAAAAAAAAAAAAAAAAAAA", stage.sandbox.http()));
    assert!(sender.reads("h1").contains("no page at this address"));
    assert!(sender.reads("footer").contains("postmaster@sender.test"));
    sender.photographs("7-unknown");
}
