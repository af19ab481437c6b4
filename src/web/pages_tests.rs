//! The pages with hostile and with ordinary cases. The built-in pages must never fail to render.

use proptest::prelude::*;

use super::*;
use crate::case::Failure;
use crate::web::protocol::{
    DetailView, DomainView, MessageView, Moment, Outcome, Passage, RecipientState, RecipientView,
    RememberedView, Scope,
};

const TOKEN: &str = "AbCdEf0123456789";
const EN: Language = Language::DEFAULT;

fn german() -> Language {
    Language::accepted(["de"])
}

pub(crate) fn moment(seconds: i64) -> Moment {
    Moment {
        seconds,
        offset: 3600,
        zone: "CET".to_owned(),
    }
}

/// A case with so many open recipients.
pub(crate) fn case(open: usize) -> CaseView {
    let recipient = |number: i64| RecipientView {
        number,
        address: format!("reader{number}@plain.test"),
        name: format!("reader{number}@plain.test"),
        failure: Failure::NotOffered,
        detail: "TLS is required, but was not offered by host mx.plain.test[192.0.2.7]".to_owned(),
        state: RecipientState::Open,
        open: true,
        domain: "plain.test".to_owned(),
        passage: None,
        passage_detail: String::new(),
        may_send: true,
        may_remember: true,
        hindered: false,
        held: false,
        outcome: None,
    };
    CaseView {
        queue_id: "4XyZ123".to_owned(),
        sender: "writer@sender.test".to_owned(),
        subject: "Minutes of Tuesday's meeting".to_owned(),
        arrived: moment(1_795_338_900),
        retry_until: Some(moment(1_795_770_900)),
        closed: None,
        held: false,
        seen: 0,
        recipients: (1..=open as i64).map(recipient).collect(),
        remember: Vec::new(),
        remembered: Vec::new(),
    }
}

fn settings(templates: &[(&str, &str)]) -> Settings {
    Settings {
        admin_contact: "helpdesk@sender.test".to_owned(),
        base_path: String::new(),
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
    assert!(page.contains("<html lang=\"en\">") || page.contains("<html lang=\"de\">"));
    assert!(page.contains("<title>"));
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
    let selects = page.split("<select ").skip(1);
    for input in page
        .split("<input ")
        .skip(1)
        .chain(selects)
        .map(|rest| rest.split('>').next().unwrap())
    {
        let hidden = input.contains("type=\"hidden\"");
        let label = labelled
            .iter()
            .any(|id| input.contains(&format!("id=\"{id}\"")));
        assert!(hidden || label, "without label: {input}");
    }
    assert_eq!(
        page.matches("<fieldset").count(),
        page.matches("<legend>").count()
    );
    for forbidden in ["<script", "<img", " style=\"", " src=\"", "http-equiv"] {
        assert!(!page.contains(forbidden), "{forbidden} in {page}");
    }
}

#[test]
fn an_ordinary_case() {
    let page = pages().case(EN, TOKEN, &case(1), Some(Action::Keep), false);
    assert_accessible(&page);
    insta::assert_snapshot!("case_with_one_recipient", page);
    let page = pages().case(EN, TOKEN, &case(3), None, false);
    assert_accessible(&page);
    insta::assert_snapshot!("case_with_three_recipients", page);
}

#[test]
fn no_link_and_no_form_chooses_anything() {
    for language in Language::all() {
        for action in [Action::Send, Action::Delete, Action::Keep] {
            for recipients in [1, 3] {
                let page = pages().case(language, TOKEN, &case(recipients), Some(action), true);
                assert_accessible(&page);
                assert!(!page.contains(" checked"), "{page}");
                assert_eq!(page.matches("choice suggested").count(), 1);
                assert_eq!(page.matches("role=\"alert\"").count(), 1);
            }
        }
        let page = pages().inbox(language, TOKEN, &inbox(3, 1), true);
        assert_accessible(&page);
        assert!(page.contains("role=\"alert\"") && !page.contains(" checked"));
    }
    // Sending is not suggested where it is not possible.
    let mut view = case(1);
    view.recipients[0].may_send = false;
    let page = pages().case(EN, TOKEN, &view, Some(Action::Send), false);
    assert!(!page.contains("You followed the link"), "{page}");
}

#[test]
fn every_state_failure_and_outcome_has_its_sentence() {
    for failure in Failure::ALL {
        for state in RecipientState::ALL {
            for outcome in Outcome::ALL {
                let mut view = case(2);
                let recipient = &mut view.recipients[1];
                recipient.failure = *failure;
                recipient.state = *state;
                recipient.open = matches!(state, RecipientState::Open | RecipientState::Kept);
                recipient.outcome = Some(*outcome);
                for page in [
                    pages().case(EN, TOKEN, &view, None, false),
                    pages().result(EN, TOKEN, &view),
                ] {
                    assert_accessible(&page);
                    assert!(page.contains("reader2@plain.test"));
                }
            }
        }
    }
    for fault in [
        Fault::BadForm(BadForm::Damaged),
        Fault::Refused(Refusal::NoSuchRecipient {
            who: "eve@plain.test".to_owned(),
        }),
        Fault::Refused(Refusal::NoSuchMessage),
        Fault::Refused(Refusal::NotRemembered),
        Fault::BadForm(BadForm::NothingToRemember),
        Fault::NotFound,
        Fault::WrongMethod,
        Fault::TooSlow,
        Fault::Expired,
        Fault::LengthRequired,
        Fault::TooLarge,
        Fault::AddressTooLong,
        Fault::TooManyGuesses,
        Fault::Internal,
        Fault::Unavailable,
    ] {
        for language in Language::all() {
            assert_accessible(&pages().error(language, &fault, Some("/c/AbCdEf0123456789")));
        }
    }
    assert_accessible(&pages().front(EN));
}

/// A page of a sender with so many messages, in every language.
fn inbox(messages: u64, page: u32) -> InboxView {
    let shown = (1..=messages.min(2) as i64).map(|number| {
        let mut recipients = case(2).recipients;
        recipients[1].may_send = number == 1;
        MessageView {
            token: TOKEN.to_owned(),
            case: 1000 + number,
            subject: format!("Offer <{number}>"),
            arrived: moment(1_795_338_900),
            retry_until: Some(moment(1_795_770_900)),
            held: false,
            seen: 0,
            recipients,
            more: number as u64 - 1,
        }
    });
    InboxView {
        sender: "writer@sender.test".to_owned(),
        messages,
        recipients: messages * 2,
        unsendable: messages / 2,
        seen: 1_795_338_900_123,
        page,
        pages: messages.div_ceil(50).max(1) as u32,
        domains: (0..messages.min(12))
            .map(|number| DomainView {
                domain: format!("d{number}.test"),
                recipients: 12 - number,
            })
            .collect(),
        more_domains: messages.saturating_sub(12),
        shown: shown.collect(),
    }
}

#[test]
fn the_page_of_a_sender() {
    for language in Language::all() {
        for (messages, page) in [(0, 1), (1, 1), (2, 1), (5000, 1), (5000, 50), (5000, 100)] {
            let html = pages().inbox(language, TOKEN, &inbox(messages, page), false);
            assert_accessible(&html);
            assert_eq!(html.contains("<form"), messages > 0);
            assert!(!html.contains("<3>") && !html.contains("49 messages"));
        }
    }
    let html = pages().inbox(EN, TOKEN, &inbox(5000, 50), false);
    assert!(html.contains("choice-1002-1") && html.contains("?page=51"));
    assert!(html.contains("There are 4988 more domains"));
    insta::assert_snapshot!(
        "sender_page_in_german",
        pages().inbox(german(), TOKEN, &inbox(120, 2), false)
    );
}

#[test]
fn what_became_of_many_decisions() {
    for language in Language::all() {
        for outcome in Outcome::ALL {
            let result = InboxResult {
                counts: vec![(*outcome, 4999), (Outcome::Recorded, 1)],
                excluded: 3,
                unrecorded: 1,
                details: vec![DetailView {
                    token: TOKEN.to_owned(),
                    subject: "<script>".to_owned(),
                    name: "\u{202E}a@plain.test".to_owned(),
                    outcome: *outcome,
                }],
                left: 7,
            };
            let html = pages().inbox_result(language, TOKEN, 3, &result);
            assert_accessible(&html);
            assert!(html.contains("4999") && html.contains("?page=3"));
        }
    }
}

#[test]
fn a_choice_is_remembered_only_where_that_is_offered() {
    let mut view = case(2);
    assert!(
        !pages()
            .case(EN, TOKEN, &view, None, false)
            .contains("remember")
    );
    view.remember = vec![1, 7];
    view.recipients[1].domain = "other.test".to_owned();
    for language in Language::all() {
        let html = pages().case(language, TOKEN, &view, None, false);
        assert_accessible(&html);
        // A form for all, and one for each.
        assert_eq!(html.matches("name=\"remember-days\"").count(), 2);
        assert!(html.contains("plain.test, other.test"));
        assert!(html.contains("value=\"none\" aria-describedby=\"all-remember-hint\" checked"));
    }
    view.recipients[0].may_remember = false;
    assert!(
        !pages()
            .case(EN, TOKEN, &view, None, false)
            .contains("plain.test, other.test")
    );
    view.recipients[1].open = false;
    assert!(
        !pages()
            .case(EN, TOKEN, &view, None, false)
            .contains("remember")
    );
    view.recipients[0].outcome = Some(Outcome::Released);
    view.remembered = vec![RememberedView {
        scope: Scope::Domain,
        target: "plain.test".to_owned(),
        until: moment(1_795_770_900),
    }];
    let html = pages().result(EN, TOKEN, &view);
    assert!(html.contains("everybody at plain.test") && html.contains("27 November 2026"));
}

#[test]
fn a_remembered_choice_can_be_ended_while_it_is_in_force() {
    let mut view = ConsentView {
        sender: "writer@sender.test".to_owned(),
        scope: Scope::Recipient,
        target: "<b>@plain.test".to_owned(),
        failures: vec![Failure::NotOffered, Failure::Refused],
        granted: moment(1_795_338_900),
        expires: moment(1_795_770_900),
        ended: None,
        in_force: true,
        uses: 2,
    };
    for language in Language::all() {
        let html = pages().consent(language, TOKEN, &view, false);
        assert_accessible(&html);
        assert!(html.contains("value=\"revoke\"") && !html.contains("<b>"));
    }
    view.in_force = false;
    assert!(!pages().consent(EN, TOKEN, &view, false).contains("<form"));
    assert!(
        pages()
            .consent(EN, TOKEN, &view, false)
            .contains("time was over")
    );
    view.ended = Some(moment(1_795_400_000));
    let html = pages().consent(EN, TOKEN, &view, false);
    assert!(
        html.contains("It ended on Monday, 23 November 2026"),
        "{html}"
    );
}

#[test]
fn the_page_says_how_it_ended() {
    for language in Language::all() {
        for passage in Passage::ALL {
            let mut view = case(1);
            let recipient = &mut view.recipients[0];
            recipient.state = RecipientState::Released;
            recipient.open = false;
            recipient.passage = Some(*passage);
            recipient.passage_detail = "550 no such <user>".to_owned();
            for closed in RecipientState::ALL
                .iter()
                .map(|state| state.as_str())
                .chain(["mixed"])
            {
                view.closed = Some(closed.to_owned());
                let html = pages().case(language, TOKEN, &view, None, false);
                assert_accessible(&html);
                assert!(html.contains("550 no such &lt;user&gt;"), "{html}");
            }
        }
    }
    let mut view = case(1);
    view.recipients[0].state = RecipientState::Released;
    view.recipients[0].open = false;
    view.recipients[0].passage = Some(Passage::Clear);
    view.closed = Some("released".to_owned());
    insta::assert_snapshot!(
        "closed_case_in_german",
        pages().case(german(), TOKEN, &view, None, false)
    );
    view.closed = Some("delivered".to_owned());
    assert!(
        pages()
            .case(EN, TOKEN, &view, None, false)
            .contains("delivered securely after all")
    );
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
    view.recipients[0].name = view.recipients[0].address.clone();
    view.recipients[0].detail =
        "554 <b>refused</b> &amp; \u{0}\u{1b}[31m javascript:alert(1)".to_owned();
    view.recipients[1].address = format!("{}@{}.test", "ü".repeat(60), "m".repeat(50));
    view.recipients[1].name = view.recipients[1].address.clone();
    view.queue_id = "<i>".to_owned();
    view.arrived.zone = "<u>now</u>".to_owned();
    view.retry_until = Some(Moment {
        zone: "{count}".to_owned(),
        ..moment(0)
    });
    let page = pages().case(EN, TOKEN, &view, None, false);
    assert_accessible(&page);
    assert!(!page.contains("49"), "a subject is no template");
    insta::assert_snapshot!("hostile_case", page);
    view.recipients[0].outcome = Some(Outcome::Recorded);
    insta::assert_snapshot!("hostile_result", pages().result(EN, TOKEN, &view));
}

#[test]
fn an_empty_subject_and_an_unknown_date_are_named() {
    let mut view = case(1);
    view.subject = " \u{200B}".to_owned();
    view.retry_until = None;
    let page = pages().case(EN, TOKEN, &view, None, false);
    assert!(page.contains("(no subject)") && page.contains("not known"));
    assert!(!page.contains("until ."));
}

#[test]
fn a_broken_override_is_replaced_by_the_built_in_template() {
    let front = pages().front(EN);
    for broken in [
        "{% if %}",
        "{{ nothing.at.all }}",
        "{% extends \"none.html\" %}",
    ] {
        assert_eq!(
            Pages::new(&settings(&[("front.html", broken)])).front(EN),
            front,
            "{broken}"
        );
    }
    let own = Pages::new(&settings(&[
        ("front.html", "<h1>{{ contact.text }}</h1>"),
        ("other.html", "x"),
        ("style.css", "h1{}"),
    ]));
    assert_eq!(own.front(EN), "<h1>helpdesk@sender.test</h1>");
    assert_eq!(own.style(), "h1{}");
    assert!(
        own.case(EN, TOKEN, &case(1), None, false)
            .contains("<fieldset>")
    );
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
        view.recipients[0].name = address.clone();
        view.recipients[0].detail = detail;
        view.recipients[0].outcome = Some(Outcome::Kept);
        let tags = |page: &str| page.matches('<').count();
        let plain = case(2);
        let page = pages().case(EN, &token, &view, None, false);
        prop_assert!(page.contains("</html>"));
        let without_detail = tags(&page) + 8 * usize::from(crate::text::readable(&view.recipients[0].detail, 9).is_empty());
        prop_assert_eq!(without_detail, tags(&pages().case(EN, &token, &plain, None, false)));
    }
}
