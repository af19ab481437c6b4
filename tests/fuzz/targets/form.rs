//! The forms: of a case, of a sender's page, and of a remembered choice. A body is the whole input.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use posttls::web::form::{self, is_form};
use posttls::web::inbox_form;
use posttls::web::protocol::{Action, Decision, InboxDecision, Remember};
use url::form_urlencoded::{Serializer, parse};

type Form = Serializer<'static, String>;

fuzz_target!(|body: &[u8]| {
    if let Ok(decision) = form::parse(body) {
        let (actions, form) = case_form(&decision);
        said(body, &actions);
        assert_eq!(form::parse(form.as_bytes()), Ok(decision));
    }
    if let Ok(decision) = inbox_form::parse(body) {
        let (actions, form) = inbox(&decision);
        said(body, &actions);
        assert_eq!(inbox_form::parse(form.as_bytes()), Ok(decision));
    }
    if form::parse_revoke(body).is_ok() {
        assert!(form::parse(body).is_err() && inbox_form::parse(body).is_err());
        assert!(parse(body).any(|(name, value)| name == "action" && value == "revoke"));
    }
    let _ = is_form(std::str::from_utf8(body).ok());
});

/// Nothing is done that does not stand in the form, word for word.
fn said(body: &[u8], actions: &[Action]) {
    assert!(!actions.is_empty());
    let values: HashSet<String> = parse(body).map(|(_, value)| value.into_owned()).collect();
    assert!(
        actions
            .iter()
            .all(|action| values.contains(action.as_str()))
    );
}

/// The actions of a decision, and the form that says the same.
fn case_form(decision: &Decision) -> (Vec<Action>, String) {
    let mut form = Form::new(String::new());
    match decision {
        Decision::Same {
            action,
            recipients,
            remember,
            seen,
        } => {
            form.append_pair("seen", &seen.to_string());
            form.append_pair("action", action.as_str());
            for recipient in recipients {
                assert!(!recipient.is_empty() && !recipient.chars().any(char::is_control));
                form.append_pair("recipient", recipient);
            }
            remembered(&mut form, *remember, &[*action]);
            (vec![*action], form.finish())
        }
        Decision::Each {
            choices,
            remember,
            seen,
        } => {
            form.append_pair("seen", &seen.to_string());
            let actions: Vec<Action> = choices.iter().map(|(_, action)| *action).collect();
            let numbers: HashSet<i64> = choices.iter().map(|(number, _)| *number).collect();
            assert_eq!(
                numbers.len(),
                choices.len(),
                "two choices for one recipient"
            );
            for (number, action) in choices {
                form.append_pair(&format!("choice-{number}"), action.as_str());
            }
            remembered(&mut form, *remember, &actions);
            (actions, form.finish())
        }
    }
}

fn remembered(form: &mut Form, remember: Option<Remember>, actions: &[Action]) {
    let Some(Remember { scope, days }) = remember else {
        return;
    };
    assert!(
        actions.contains(&Action::Send),
        "something else than sending is remembered"
    );
    form.append_pair("remember", scope.as_str());
    form.append_pair("remember-days", &days.to_string());
}

fn inbox(decision: &InboxDecision) -> (Vec<Action>, String) {
    let mut form = Form::new(String::new());
    match decision {
        InboxDecision::All {
            action,
            seen,
            domain,
        } => {
            form.append_pair("action", action.as_str());
            form.append_pair("seen", &seen.to_string());
            if let Some(domain) = domain {
                assert!(domain.is_ascii() && !domain.is_empty());
                form.append_pair("domain", domain);
            }
            (vec![*action], form.finish())
        }
        InboxDecision::Each { choices, seen } => {
            for (case, seen) in seen {
                form.append_pair(&format!("seen-{case}"), &seen.to_string());
            }
            for (case, number, action) in choices {
                form.append_pair(&format!("choice-{case}-{number}"), action.as_str());
            }
            (
                choices.iter().map(|(_, _, action)| *action).collect(),
                form.finish(),
            )
        }
    }
}
