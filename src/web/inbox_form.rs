//! The forms of a sender's page, read as strictly as those of a case. Pure.
//!
//! `action=send|delete|keep` with `seen=` of the page is about all that wait, with `domain=` about those of one domain;
//! `choice-CASE-NUMBER=send|delete|keep|none` is about one recipient, with `seen-CASE=` of its message. A form is one or the other: here a mixture would be
//! about thousands of messages, so it is none at all.

use std::collections::BTreeMap;

use crate::domain::Domain;
use crate::web::form::{BadForm, Once, action, choose, is_well_encoded, number};
use crate::web::protocol::{Action, InboxDecision};

/// Reads the body of a POST.
///
/// # Errors
/// When it is not exactly one decision.
pub fn parse(body: &[u8]) -> Result<InboxDecision, BadForm> {
    if !is_well_encoded(body) {
        return Err(BadForm::Damaged);
    }
    let mut chosen = Once::default();
    let mut seen = Once::default();
    let mut domain = Once::default();
    let mut choices: BTreeMap<(i64, i64), Option<Action>> = BTreeMap::new();
    let mut known: BTreeMap<i64, Once<i64>> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        match name.as_ref() {
            "action" => chosen.take(action(&value).ok_or(BadForm::UnknownValue)?)?,
            "seen" => seen.take(number::<i64>(&value).ok_or(BadForm::UnknownValue)?)?,
            "domain" if value.is_empty() => return Err(BadForm::NothingChosen),
            "domain" => domain.take(domain_of(&value).ok_or(BadForm::UnknownValue)?)?,
            other if other.starts_with("seen-") => {
                let case = other.strip_prefix("seen-").and_then(number::<i64>);
                let of = known.entry(case.ok_or(BadForm::UnknownField)?).or_default();
                of.take(number(&value).ok_or(BadForm::UnknownValue)?)?;
            }
            other => {
                let key = other.strip_prefix("choice-").and_then(recipient);
                let key = key.ok_or(BadForm::UnknownField)?;
                choose(&mut choices, key, &value)?;
            }
        }
    }
    if !choices.is_empty() {
        if chosen.0.is_some() || domain.0.is_some() {
            return Err(BadForm::Contradiction);
        }
        let choices: Vec<(i64, i64, Action)> = choices
            .into_iter()
            .filter_map(|((case, number), choice)| Some((case, number, choice?)))
            .collect();
        return if choices.is_empty() {
            Err(BadForm::NothingChosen)
        } else {
            let seen = known.into_iter();
            let seen = seen.filter_map(|(case, seen)| Some((case, seen.0?)));
            Ok(InboxDecision::Each {
                choices,
                seen: seen.collect(),
            })
        };
    }
    Ok(InboxDecision::All {
        action: chosen.0.ok_or(BadForm::NothingChosen)?,
        // Without it nobody could tell what the sender had seen.
        seen: seen.0.ok_or(BadForm::UnknownValue)?,
        domain: domain.0,
    })
}

/// `CASE-NUMBER`.
fn recipient(text: &str) -> Option<(i64, i64)> {
    let (case, recipient) = text.split_once('-')?;
    Some((number(case)?, number(recipient)?))
}

/// As the page has it: the ASCII form and nothing else.
fn domain_of(text: &str) -> Option<String> {
    let domain: Domain = text.parse().ok()?;
    (domain.as_str() == text).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_or_one_domain_or_each() {
        let all = |domain: Option<&str>| InboxDecision::All {
            action: Action::Send,
            seen: 17,
            domain: domain.map(str::to_owned),
        };
        assert_eq!(parse(b"action=send&seen=17"), Ok(all(None)));
        assert_eq!(
            parse(b"seen=17&domain=xn--mller-kva.test&action=send&action=send"),
            Ok(all(Some("xn--mller-kva.test")))
        );
        assert_eq!(
            parse(b"choice-9-2=delete&choice-7-1=keep&choice-7-2=none"),
            Ok(InboxDecision::Each {
                choices: vec![(7, 1, Action::Keep), (9, 2, Action::Delete)],
                seen: Vec::new(),
            })
        );
        assert_eq!(
            parse(b"seen-9=4&choice-9-2=send&seen-7=0"),
            Ok(InboxDecision::Each {
                choices: vec![(9, 2, Action::Send)],
                seen: vec![(7, 0), (9, 4)],
            })
        );
    }

    #[test]
    fn what_is_not_exactly_a_decision_is_none() {
        for (body, why) in [
            (&b""[..], BadForm::NothingChosen),
            (b"seen=17", BadForm::NothingChosen),
            (b"action=send", BadForm::UnknownValue),
            (b"action=send&seen=", BadForm::UnknownValue),
            (b"action=send&seen=-1", BadForm::UnknownValue),
            (b"action=all&seen=1", BadForm::UnknownValue),
            (b"action=send&seen=1&domain=", BadForm::NothingChosen),
            (b"action=send&seen=1&domain=a@b", BadForm::UnknownValue),
            (
                b"action=send&seen=1&domain=PLAIN.test",
                BadForm::UnknownValue,
            ),
            (
                b"action=send&seen=1&domain=a.test&domain=b.test",
                BadForm::Contradiction,
            ),
            (b"action=send&seen=1&action=keep", BadForm::Contradiction),
            (
                b"action=send&seen=1&choice-1-1=keep",
                BadForm::Contradiction,
            ),
            (b"choice-1-1=keep&choice-1-01=send", BadForm::Contradiction),
            (b"choice-1-1=none", BadForm::NothingChosen),
            (b"choice-1-1=send&seen-1=", BadForm::UnknownValue),
            (b"choice-1-1=send&seen-=1", BadForm::UnknownField),
            (
                b"choice-1-1=send&seen-1=1&seen-01=2",
                BadForm::Contradiction,
            ),
            (b"seen-1=1", BadForm::NothingChosen),
            (b"choice-1=send", BadForm::UnknownField),
            (b"choice-1-=send", BadForm::UnknownField),
            (b"choice--1-1=send", BadForm::UnknownField),
            (b"recipient=a%40b.test&action=send", BadForm::UnknownField),
            (b"action=send&seen=1&x", BadForm::UnknownField),
            (b"action=send&seen=1%f", BadForm::Damaged),
        ] {
            assert_eq!(parse(body), Err(why), "{}", String::from_utf8_lossy(body));
        }
    }

    proptest! {
        #[test]
        fn nothing_is_decided_that_the_form_does_not_say(
            body in "((action|seen|domain|choice-[0-9]{1,3}(-[0-9]{1,20})?|x)(=(send|delete|keep|none|[0-9]{1,20}|a\\.test))?&?){0,6}"
        ) {
            match parse(body.as_bytes()) {
                Ok(InboxDecision::All { action, seen, .. }) => {
                    let word = format!("action={action}");
                    prop_assert!(body.contains(&word) && body.contains("seen=") && seen >= 0);
                }
                Ok(InboxDecision::Each { choices, .. }) => for (_, number, action) in choices {
                    let word = format!("{number}={action}");
                    prop_assert!(body.contains(&word), "{} {}", word, body);
                },
                Err(_) => {}
            }
        }
    }
}
