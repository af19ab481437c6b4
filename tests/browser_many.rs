//! The page of a sender with many messages, and remembered choices, in a real browser without JavaScript: in English and
//! in German, on a phone, with mouse and keyboard.
//!
//! Needs Chromium (`CHROME`, or /usr/bin/chromium); NO_BROWSER leaves these tests out. With `SCREENSHOTS` set to a
//! directory, pictures of the pages are put there.

mod chromium;
mod common;

use chromium::sender::Sender;
use common::Stage;

const ALICE: &str = "alice@sender.test";

/// Takes a picture as wide as a phone and one as wide as a screen; neither may have to be scrolled sideways.
fn looks(sender: &Sender, name: &str) {
    for width in [320, 1000] {
        sender.is_wide(width);
        let overflow = sender.overflow();
        assert!(
            overflow <= 0.0,
            "{name} at {width} px is {overflow} px too wide"
        );
        sender.is_high(width);
        sender.photographs(&format!("{name}-{width}"));
    }
    sender.is_wide(900);
}

#[test]
fn a_sender_of_several_messages_decides_by_domain_and_for_each() {
    let stage = Stage::new();
    let long = format!(
        "sales-department-of-the-northern-branch-office@{}.test",
        "m".repeat(50)
    );
    stage.add_domain(long.rsplit_once('@').expect("an address").1, "plain.test");
    let first = stage.stuck_from(
        ALICE,
        &["bob@plain.test", "eve@cert.test"],
        "Offer for the new roof",
    );
    let second = stage.stuck_from(
        ALICE,
        &["carol@refuse.test"],
        "Minutes of Tuesday's meeting",
    );
    let third = stage.stuck_from(ALICE, &[&long, "dan@plain.test"], "Re: Re: Invoice 4711");
    // Not sooner: a browser with nothing to do for long loses its connection on a busy machine.
    let Some(sender) = Sender::new() else { return };
    sender.open(&stage.sender_link(ALICE));
    assert!(
        sender
            .reads("h1")
            .contains("3 of your messages are waiting")
    );
    assert!(
        !sender.sees("input:checked"),
        "nothing is chosen for the sender"
    );
    looks(&sender, "many-en-1-page");

    // A domain, by keyboard: the first in the list is the one with the most recipients.
    sender.presses("#domain-name", &["ArrowDown"]);
    sender.presses("#domain-keep", &[" "]);
    sender
        .tab
        .wait_for_element("#domain-keep:checked")
        .expect("chosen");
    sender.presses("#domain-keep", &["ArrowUp"]);
    sender
        .tab
        .wait_for_element("#domain-delete:checked")
        .expect("chosen");
    sender.presses("#domain-delete", &["ArrowUp"]);
    sender
        .tab
        .wait_for_element("#domain-send:checked")
        .expect("chosen");
    sender.presses("#domain-send", &["Enter"]);
    sender.tab.wait_for_element(".mark").expect("a result");
    let result = sender.reads("main");
    assert!(
        result.contains("2 recipients: Handed over"),
        "{result}\n{}",
        stage.log()
    );
    looks(&sender, "many-en-2-result");
    stage.arrival("bob@plain.test");
    stage.arrival("dan@plain.test");
    assert_eq!(stage.states(&first)["eve@cert.test"], "open");

    // Each, by mouse; nothing chosen changes nothing.
    sender.clicks("main > p a");
    sender
        .tab
        .wait_for_element("article")
        .expect("the page again");
    sender.clicks("label[for=m2-1-delete]");
    sender.clicks("#each ~ form button[type=submit]");
    sender.tab.wait_for_element(".mark").expect("a result");
    assert_eq!(stage.states(&second)["carol@refuse.test"], "deleted");
    assert_eq!(stage.states(&third)[&long], "open");
    assert!(sender.reads("main").contains("2 messages still wait"));
}

#[test]
fn the_same_page_in_german() {
    let stage = Stage::new();
    for number in 1..=3 {
        let to = format!("r{number}@plain.test");
        stage.stuck_from(
            ALICE,
            &[&to, "x@cert.test"],
            &format!("Angebot Nr. {number}"),
        );
    }
    let Some(sender) = Sender::speaking("de-AT,de;q=0.9,en;q=0.8") else {
        return;
    };
    sender.open(&stage.sender_link(ALICE));
    assert!(
        sender
            .reads("h1")
            .contains("3 Ihrer Nachrichten warten auf Ihre Entscheidung")
    );
    assert!(sender.sees("html[lang=de]"));
    looks(&sender, "many-de-1-page");
    sender.clicks("label[for=all-send]");
    sender.clicks("#all ~ form button");
    sender.tab.wait_for_element(".mark").expect("a result");
    let result = sender.reads("main");
    assert!(
        result.contains("3 Empfänger: Zum Versand übergeben"),
        "{result}"
    );
    assert!(
        result.contains("3 Empfänger: Unverschlüsselter Versand ist hier nicht erlaubt"),
        "{result}"
    );
    looks(&sender, "many-de-2-result");
    for number in 1..=3 {
        stage.arrival(&format!("r{number}@plain.test"));
    }
}

/// Ticks the choice to be remembered for a week, and ends it again; the words are those of the language.
fn remembers(languages: &str, name: &str, remembered: &str, ended: &str) {
    let stage = Stage::new();
    stage.configure("remember", "days", "90");
    stage.restart();
    let queue_id = stage.stuck_from(ALICE, &["bob@plain.test"], "Contract");
    let Some(sender) = Sender::speaking(languages) else {
        return;
    };
    sender.open(&stage.case_link(&queue_id));
    assert!(
        sender.sees("#all-remember-none:checked"),
        "off unless ticked"
    );
    sender.clicks("label[for=all-send]");
    sender.clicks("label[for=all-remember-domain]");
    sender.presses("#all-remember-days", &["ArrowDown"]);
    looks(&sender, &format!("{name}-1-tick"));
    sender.clicks("form button[type=submit]");
    sender.tab.wait_for_element(".mark").expect("a result");
    assert!(
        sender.reads("main").contains(remembered),
        "{}",
        sender.reads("main")
    );
    looks(&sender, &format!("{name}-2-result"));
    stage.arrival("bob@plain.test");
    let consents = stage.store().consents(false).expect("consents");
    assert_eq!(consents.len(), 1);
    let days = (consents[0].expires_at - consents[0].granted_at + 43_200_000) / 86_400_000;
    assert_eq!((consents[0].target.as_str(), days), ("plain.test", 7));

    sender.open(&stage.consent_link(consents[0].id));
    looks(&sender, &format!("{name}-3-revoke"));
    sender.clicks("label[for=revoke]");
    sender.clicks("form button[type=submit]");
    stage.wait("the end of the choice", || {
        stage
            .store()
            .consents(false)
            .expect("consents")
            .is_empty()
            .then_some(())
    });
    stage.wait("the page that says so", || {
        sender.reads("h1").contains(ended).then_some(())
    });
    looks(&sender, &format!("{name}-4-ended"));
    sender.open(&stage.case_link(&queue_id));
    looks(&sender, &format!("{name}-5-closed"));
}

#[test]
fn a_sender_has_a_choice_remembered_and_ends_it() {
    remembers(
        "en",
        "remember-en",
        "everybody at plain.test",
        "We ask you again",
    );
}

#[test]
fn a_sender_has_a_choice_remembered_and_ends_it_in_german() {
    remembers(
        "de",
        "remember-de",
        "an alle bei plain.test",
        "Wir fragen Sie wieder",
    );
}
