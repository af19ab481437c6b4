//! The whole way of a sender in a real browser: from the link in the mail to the message in the recipient's mailbox.
//!
//! Needs Chromium (`CHROME`, or /usr/bin/chromium); POSTTLS_NO_BROWSER leaves these tests out. JavaScript is switched off
//! while pages are used. With `SCREENSHOTS` set to a directory, pictures of the pages are put there.

mod chromium;
mod common;

use std::path::PathBuf;
use std::sync::Arc;

use chromium::browser;
use common::Stage;
use headless_chrome::protocol::cdp::{DOM, Emulation, Page};
use headless_chrome::{Browser, Element, Tab};

/// A sender at a browser without JavaScript.
struct Sender {
    tab: Arc<Tab>,
    _browser: Browser,
    _profile: tempfile::TempDir,
}

impl Sender {
    fn new() -> Option<Self> {
        let profile = tempfile::tempdir().expect("a directory");
        let browser = browser(profile.path())?;
        let tab = browser.new_tab().expect("a tab");
        tab.set_default_timeout(common::PATIENCE);
        tab.call_method(Emulation::SetScriptExecutionDisabled { value: true })
            .expect("no JavaScript");
        tab.call_method(Emulation::SetFocusEmulationEnabled { enabled: true })
            .expect("the focus");
        Some(Self {
            tab,
            _browser: browser,
            _profile: profile,
        })
    }

    fn open(&self, url: &str) {
        self.tab
            .navigate_to(url)
            .and_then(Tab::wait_until_navigated)
            .expect("a page");
    }

    /// The HTML of an element. (The crate's own functions for it, as for clicks and the focus, need JavaScript.)
    fn reads(&self, selector: &str) -> String {
        let element = self.tab.wait_for_element(selector).expect(selector);
        let html = self.tab.call_method(DOM::GetOuterHTML {
            node_id: None,
            backend_node_id: Some(element.backend_node_id),
            object_id: None,
            include_shadow_dom: None,
        });
        html.expect("HTML").outer_html
    }

    fn finds(&self, selector: &str) -> Element<'_> {
        let element = self.tab.wait_for_element(selector).expect(selector);
        let scroll = DOM::ScrollIntoViewIfNeeded {
            node_id: None,
            backend_node_id: Some(element.backend_node_id),
            object_id: None,
            rect: None,
        };
        self.tab.call_method(scroll).expect("it can be seen");
        element
    }

    /// Clicks with the mouse, where the element is on the screen.
    fn clicks(&self, selector: &str) {
        let middle = self.finds(selector).get_midpoint().expect("a place");
        self.tab.click_point(middle).expect("a click");
    }

    /// Presses keys while an element has the focus.
    fn presses(&self, selector: &str, keys: &[&str]) {
        let element = self.finds(selector);
        let focus = DOM::Focus {
            node_id: None,
            backend_node_id: Some(element.backend_node_id),
            object_id: None,
        };
        self.tab.call_method(focus).expect("focus");
        for key in keys {
            self.tab.press_key(key).expect("a key");
        }
    }

    fn sees(&self, selector: &str) -> bool {
        self.tab.find_element(selector).is_ok()
    }

    fn photographs(&self, name: &str) {
        let Some(directory) = std::env::var_os("SCREENSHOTS").map(PathBuf::from) else {
            return;
        };
        let png = Page::CaptureScreenshotFormatOption::Png;
        let picture = self
            .tab
            .capture_screenshot(png, None, None, true)
            .expect("a picture");
        std::fs::write(directory.join(format!("sender-{name}.png")), picture).expect("a file");
    }
}

/// The links in the HTML part of a mail that preselect a choice.
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
    assert!(sender.sees("#all-send:checked") && !sender.sees("#all-delete:checked"));
    sender.photographs("1-chosen");
    // Looking is not deciding.
    assert_eq!(stage.states(&queue_id)["bob@plain.test"], "open");
    sender.clicks("form button[type=submit]");
    assert!(
        sender
            .reads(".recipients")
            .contains("Handed over for delivery"),
        "{}",
        sender.reads("main")
    );
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
    assert!(sender.sees("#all-delete:checked"));
    sender.clicks("form button[type=submit]");
    assert!(
        sender.reads(".recipients").contains("Deleted: "),
        "{}",
        sender.reads("main")
    );
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
