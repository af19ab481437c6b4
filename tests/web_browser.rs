//! The pages in a real browser: nothing to scroll sideways on a phone, and forms that decide what they say.
//!
//! Needs Chromium (`CHROME`, or /usr/bin/chromium); NO_BROWSER leaves these tests out. With `SCREENSHOTS`
//! set to a directory, pictures of the pages are put there.

mod chromium;
mod web_stage;

use std::path::PathBuf;
use std::time::Duration;

use chromium::{browser, resize};
use headless_chrome::Tab;
use headless_chrome::protocol::cdp::{Emulation, Page};
use posttls::case::Failure;
use posttls::web::protocol::*;
use web_stage::{Stage, case, open_case, recipient};

fn set_size(tab: &Tab, width: u32, height: u32, dark: bool) {
    resize(tab, width, height);
    let scheme = if dark { "dark" } else { "light" };
    let name = "prefers-color-scheme".to_owned();
    tab.call_method(Emulation::SetEmulatedMedia {
        media: None,
        features: Some(vec![Emulation::MediaFeature {
            name,
            value: scheme.to_owned(),
        }]),
    })
    .unwrap();
}

fn number(tab: &Tab, expression: &str) -> f64 {
    let value = tab.evaluate(expression, false).unwrap().value.unwrap();
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{expression} is {value}"))
}

/// Four recipients that want a decision, with addresses as long as they come, and one in every other state.
fn mixed() -> CaseView {
    use RecipientState::*;
    let long = format!(
        "{}@{}.test",
        "sales-department-of-the-northern-branch-office",
        "m".repeat(50)
    );
    let mut view = case(vec![
        recipient(1, "reader@plain.test", Failure::NotOffered, Open),
        recipient(2, &long, Failure::Certificate, Open),
        recipient(3, "jürgen.müller@refuse.test", Failure::Refused, Kept),
        recipient(4, "broken@broken.test", Failure::HandshakeFailed, Open),
        recipient(5, "fine@tls.test", Failure::NotOffered, Delivered),
        recipient(6, "sent@plain.test", Failure::NotOffered, Released),
        recipient(7, "soon@plain.test", Failure::NotOffered, Releasing),
        recipient(8, "deleted@plain.test", Failure::NotOffered, Deleted),
        recipient(9, "slow@down.test", Failure::NotTls, NotOffered),
        recipient(10, "secret@plain.test", Failure::RequireTls, NotOffered),
    ]);
    view.recipients[8].detail =
        "connect to mx.down.test[192.0.2.9]:25: Connection refused".to_owned();
    view
}

fn result() -> CaseView {
    use Outcome::*;
    let mut view = mixed();
    for (n, outcome) in [
        (0, Released),
        (1, Deleted),
        (2, Kept),
        (3, Recorded),
        (4, AlreadyDelivered),
        (8, Changed),
        (9, NotPossible),
    ] {
        view.recipients[n].outcome = Some(outcome);
    }
    view
}

#[test]
fn pages_fit_on_a_phone_and_look_as_they_should() {
    let profile = tempfile::tempdir().unwrap();
    let Some(browser) = browser(profile.path()) else {
        return;
    };
    let pictures = std::env::var_os("SCREENSHOTS").map(PathBuf::from);
    let tab = browser.new_tab().unwrap();
    let script = |view: CaseView| Stage::with(move |_| Some(Answer::Case(Box::new(view.clone()))));
    let decided = Stage::with(|question| match question {
        Question::Decide { .. } => Some(Answer::Decided(Box::new(result()))),
        _ => Some(Answer::Case(Box::new(open_case(&["reader@plain.test"])))),
    });
    let expired = Stage::with(|_| Some(Answer::Expired));
    let (one, four) = (script(open_case(&["reader@plain.test"])), script(mixed()));
    let closed = script({
        let mut view = mixed();
        view.recipients.drain(..4);
        view
    });
    for (name, stage) in [
        ("one", &one),
        ("four", &four),
        ("closed", &closed),
        ("result", &decided),
        ("error", &expired),
    ] {
        tab.navigate_to(&format!("{}?choice=keep", stage.url()))
            .unwrap()
            .wait_until_navigated()
            .unwrap();
        if name == "result" {
            let label = tab.find_element("label[for=all-keep]").unwrap();
            label.click().unwrap();
            tab.find_element("button").unwrap().click().unwrap();
            tab.wait_for_element(".mark").unwrap();
        }
        for (width, dark) in [
            (320, false),
            (360, false),
            (360, true),
            (1200, false),
            (1200, true),
        ] {
            set_size(&tab, width, 800, dark);
            let overflow = number(
                &tab,
                "document.documentElement.scrollWidth - window.innerWidth",
            );
            assert!(
                overflow <= 0.0,
                "{name} at {width} px is {overflow} px too wide"
            );
            let height = number(
                &tab,
                "document.querySelector('footer').getBoundingClientRect().bottom + window.scrollY",
            );
            if let Some(directory) = &pictures {
                set_size(&tab, width, height as u32, dark);
                let clip = Page::Viewport {
                    x: 0.0,
                    y: 0.0,
                    width: width.into(),
                    height,
                    scale: 1.0,
                };
                let png = Page::CaptureScreenshotFormatOption::Png;
                let picture = tab.capture_screenshot(png, None, Some(clip), true).unwrap();
                let scheme = if dark { "dark" } else { "light" };
                std::fs::write(
                    directory.join(format!("{name}-{width}-{scheme}.png")),
                    picture,
                )
                .unwrap();
            }
        }
    }
}

#[test]
fn a_browser_decides_what_its_page_says() {
    let profile = tempfile::tempdir().unwrap();
    let Some(browser) = browser(profile.path()) else {
        return;
    };
    let odd = "\"a&b\" + c%41@plain.test";
    let stage = Stage::usual(open_case(&[odd, "ü@plain.test"]));
    let tab = browser.new_tab().unwrap();
    let open = |query: &str| {
        tab.navigate_to(&format!("{}{query}", stage.url()))
            .unwrap()
            .wait_until_navigated()
            .unwrap();
    };
    // Nothing chosen: the browser does not send the form. Then by keyboard alone.
    open("");
    tab.find_element("form button").unwrap().click().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(stage.decisions().is_empty());
    tab.find_element("#all-send").unwrap().focus().unwrap();
    tab.press_key("ArrowDown")
        .unwrap()
        .press_key("Enter")
        .unwrap();
    tab.wait_for_element(".mark").unwrap();
    // One by one, by clicking the labels.
    open("?choice=send");
    tab.find_element("label[for=r2-keep]")
        .unwrap()
        .click()
        .unwrap();
    tab.find_element("#each ~ form button")
        .unwrap()
        .click()
        .unwrap();
    tab.wait_for_element(".mark").unwrap();
    let recipients = vec![odd.to_owned(), "ü@plain.test".to_owned()];
    assert_eq!(
        stage.decisions(),
        [
            Decision::Same {
                action: Action::Delete,
                recipients,
                remember: None,
                seen: 17
            },
            Decision::Each {
                choices: vec![(2, Action::Keep)],
                remember: None,
                seen: 17
            }
        ]
    );
}
