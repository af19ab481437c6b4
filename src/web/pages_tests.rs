//! The pages with hostile and with ordinary cases. The built-in pages must never fail to render.

use proptest::prelude::*;

use super::*;
use crate::case::Failure;
use crate::web::protocol::{Outcome, RecipientState, RecipientView};

const TOKEN: &str = "AbCdEf0123456789";
const STATES: [RecipientState; 9] = [
    RecipientState::Open,
    RecipientState::Kept,
    RecipientState::Releasing,
    RecipientState::Released,
    RecipientState::Deleting,
    RecipientState::Deleted,
    RecipientState::Delivered,
    RecipientState::Gone,
    RecipientState::NotOffered,
];
const OUTCOMES: [Outcome; 8] = [
    Outcome::Released,
    Outcome::Deleted,
    Outcome::Kept,
    Outcome::Recorded,
    Outcome::AlreadyDelivered,
    Outcome::AlreadyGone,
    Outcome::AlreadyDecided,
    Outcome::NotPossible,
];

/// A case with so many open recipients.
pub(crate) fn case(open: usize) -> CaseView {
    let recipient = |number: i64| RecipientView {
        number,
        address: format!("reader{number}@plain.test"),
        failure: Failure::NotOffered,
        detail: "TLS is required, but was not offered by host mx.plain.test[192.0.2.7]".to_owned(),
        state: RecipientState::Open,
        open: true,

        may_send: true,
        outcome: None,
    };
    CaseView {
        queue_id: "4XyZ123".to_owned(),
        sender: "writer@sender.test".to_owned(),
        subject: "Minutes of Tuesday's meeting".to_owned(),
        arrived: "Sunday, 22 November 2026, 10:15 (UTC+1)".to_owned(),
        retry_until: "Friday, 27 November 2026, 10:15 (UTC+1)".to_owned(),
        recipients: (1..=open as i64).map(recipient).collect(),
    }
}

fn settings(templates: &[(&str, &str)]) -> Settings {
    Settings {
        admin_contact: "helpdesk@sender.test".to_owned(),
        trusted_proxies: Vec::new(),
        templates: templates
            .iter()
            .map(|(n, s)| ((*n).to_owned(), (*s).to_owned()))
            .collect(),
    }
}

fn pages() -> Pages {
    Pages::new(&settings(&[]))
}

/// One h1, a language, a title; every control has a label, every reference a target, no identifier stands twice.
fn assert_accessible(page: &str) {
    let values = |attribute: &str| -> Vec<String> {
        let start = format!(" {attribute}=\"");
        page.split(start.as_str())
            .skip(1)
            .filter_map(|rest| rest.split_once('"').map(|(value, _)| value.to_owned()))
            .collect()
    };
    assert_eq!(page.matches("<h1>").count(), 1, "{page}");
    assert!(page.contains("<html lang=\"en\">") && page.contains("<title>"));
    assert_eq!(page.matches("<main>").count(), 1);
    let identifiers = values("id");
    let mut unique = identifiers.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(
        identifiers.len(),
        unique.len(),
        "an id stands twice: {page}"
    );
    for attribute in ["for", "aria-describedby", "aria-labelledby"] {
        for target in values(attribute) {
            assert!(
                unique.contains(&target),
                "{attribute}={target} leads nowhere: {page}"
            );
        }
    }
    let labelled = values("for");
    for input in page
        .split("<input ")
        .skip(1)
        .map(|rest| rest.split('>').next().unwrap())
    {
        let hidden = input.contains("type=\"hidden\"");
        let label = labelled
            .iter()
            .any(|id| input.contains(&format!("id=\"{id}\"")));
        assert!(hidden || label, "without label: {input}");
    }
    assert_eq!(
        page.matches("<fieldset>").count(),
        page.matches("<legend>").count()
    );
    for forbidden in ["<script", "<img", " style=\"", " src=\"", "http-equiv"] {
        assert!(!page.contains(forbidden), "{forbidden} in {page}");
    }
}

#[test]
fn an_ordinary_case() {
    let page = pages().case(TOKEN, &case(1), Some(Action::Keep));
    assert_accessible(&page);
    insta::assert_snapshot!("case_with_one_recipient", page);
    let page = pages().case(TOKEN, &case(3), None);
    assert_accessible(&page);
    insta::assert_snapshot!("case_with_three_recipients", page);
}

#[test]
fn every_state_failure_and_outcome_has_its_sentence() {
    for failure in Failure::ALL {
        for state in STATES {
            for outcome in OUTCOMES {
                let mut view = case(2);
                let recipient = &mut view.recipients[1];
                recipient.failure = *failure;
                recipient.state = state;
                recipient.open = matches!(state, RecipientState::Open | RecipientState::Kept);
                recipient.outcome = Some(outcome);
                for page in [
                    pages().case(TOKEN, &view, None),
                    pages().result(TOKEN, &view),
                ] {
                    assert_accessible(&page);
                    assert!(page.contains("reader2@plain.test"));
                }
            }
        }
    }
    for fault in [
        Fault::BadForm(BadForm::Damaged),
        Fault::BadForm(BadForm::NothingChosen),
        Fault::Refused("This recipient is not on the list.".to_owned()),
        Fault::NotFound,
        Fault::WrongMethod,
        Fault::TooSlow,
        Fault::Expired,
        Fault::LengthRequired,
        Fault::TooLarge,
        Fault::AddressTooLong,
        Fault::Internal,
        Fault::Unavailable,
    ] {
        assert_accessible(&pages().error(&fault, Some(TOKEN)));
    }
    assert_accessible(&pages().front());
}

#[test]
fn hostile_text_is_inert() {
    let mut view = case(2);
    view.subject =
        "</title><script>alert(1)</script>\u{202E}evil\r\nSet-Cookie: a=b {{ 7*7 }} {date}"
            .to_owned();
    view.sender = "\"><img src=x onerror=alert(1)>@sender.test".to_owned();
    view.recipients[0].address =
        "a\u{202E}moc.elpmaxe@b\"' onfocus=alert(1) x=\"@plain.test".to_owned();
    view.recipients[0].detail =
        "554 <b>refused</b> &amp; \u{0}\u{1b}[31m javascript:alert(1)".to_owned();
    view.recipients[1].address = format!("{}@{}.test", "ü".repeat(60), "m".repeat(50));
    view.queue_id = "<i>".to_owned();
    view.arrived = "<u>now</u>".to_owned();
    view.retry_until = "{count}".to_owned();
    let page = pages().case(TOKEN, &view, None);
    assert_accessible(&page);
    assert!(!page.contains("49"), "a subject is no template");
    insta::assert_snapshot!("hostile_case", page);
    view.recipients[0].outcome = Some(Outcome::Recorded);
    insta::assert_snapshot!("hostile_result", pages().result(TOKEN, &view));
}

#[test]
fn an_empty_subject_and_an_unknown_date_are_named() {
    let mut view = case(1);
    view.subject = " \u{200B}".to_owned();
    view.retry_until = String::new();
    let page = pages().case(TOKEN, &view, None);
    assert!(page.contains("(no subject)") && page.contains("not known"));
    assert!(!page.contains("until ."));
}

#[test]
fn a_broken_override_is_replaced_by_the_built_in_template() {
    let front = pages().front();
    for broken in [
        "{% if %}",
        "{{ nothing.at.all }}",
        "{% extends \"none.html\" %}",
    ] {
        assert_eq!(
            Pages::new(&settings(&[("front.html", broken)])).front(),
            front,
            "{broken}"
        );
    }
    let own = Pages::new(&settings(&[
        ("front.html", "<h1>{{ contact.text }}</h1>"),
        ("other.html", "x"),
        ("style.css", "h1{}"),
    ]));
    assert_eq!(own.front(), "<h1>helpdesk@sender.test</h1>");
    assert_eq!(own.style(), "h1{}");
    assert!(own.case(TOKEN, &case(1), None).contains("<fieldset>"));
}

#[test]
fn only_a_plain_address_becomes_a_link() {
    let href = |text| {
        contact(text)
            .get_attr("href")
            .unwrap()
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(
        href("it@sender.test").as_deref(),
        Some("mailto:it@sender.test")
    );
    assert_eq!(
        href("https://help.test/x").as_deref(),
        Some("https://help.test/x")
    );
    for text in [
        "javascript:alert(1)",
        "IT, room 7",
        "it@sender.test?cc=x",
        "https://x\"y",
    ] {
        assert_eq!(href(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn whatever_a_case_holds_the_page_keeps_its_shape(
        subject in any::<String>(), address in ".{1,60}", detail in any::<String>(), token in "[A-Za-z0-9_-]{10,20}"
    ) {
        let mut view = case(2);
        view.subject = subject;
        view.recipients[0].address = address.clone();
        view.recipients[0].detail = detail;
        view.recipients[0].outcome = Some(Outcome::Kept);
        let tags = |page: &str| page.matches('<').count();
        let plain = case(2);
        let page = pages().case(&token, &view, None);
        prop_assert!(page.contains("</html>"));
        let without_detail = tags(&page) + 8 * usize::from(crate::text::readable(&view.recipients[0].detail, 9).is_empty());
        prop_assert_eq!(without_detail, tags(&pages().case(&token, &plain, None)));
    }
}
