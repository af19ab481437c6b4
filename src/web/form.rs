//! The submitted form, read strictly: what is not exactly a decision is none. Pure.
//!
//! A sender can't take back a delete or an unencrypted delivery, so a damaged, cut-off or ambiguous form changes
//! nothing. Fields: `action=send|delete|keep` once, with any number of `recipient=`; or `choice-N=send|delete|keep|none`
//! for recipient number N. As soon as one `choice-N` is there, only those count. With a "send" among them,
//! `remember=recipient|domain` and `remember-days=N` have that choice remembered; `remember=none` is as good as nothing.
//! `seen=N` says what the page knew; without it a form is taken for one that knew of no change.

use std::collections::BTreeMap;

use crate::web::protocol::{Action, Decision, Remember, Scope};

/// Why a form is no decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadForm {
    /// Not `application/x-www-form-urlencoded`, or bad escapes, or not UTF-8.
    #[error("the form is damaged")]
    Damaged,
    /// A field that no page of ours has.
    #[error("the form has a field that is not known here")]
    UnknownField,
    /// A value that the field can't have.
    #[error("the form has a value that is not known here")]
    UnknownValue,
    /// One field with two values.
    #[error("the form says two different things")]
    Contradiction,
    /// Well-formed, and nothing in it is chosen.
    #[error("nothing is chosen")]
    NothingChosen,
    /// Something else than sending is to be remembered.
    #[error("only the choice to send can be remembered")]
    NothingToRemember,
}

/// Is this `Content-Type` the one that a form has?
pub fn is_form(content_type: Option<&str>) -> bool {
    content_type.is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

/// Reads the body of a POST.
///
/// # Errors
/// When it is not exactly one decision.
pub fn parse(body: &[u8]) -> Result<Decision, BadForm> {
    if !is_well_encoded(body) {
        return Err(BadForm::Damaged);
    }
    let mut actions = Vec::new();
    let mut recipients = Vec::new();
    let mut choices: BTreeMap<i64, Option<Action>> = BTreeMap::new();
    let (mut scope, mut days) = (Once::default(), Once::default());
    let mut seen = Once::default();
    for (name, value) in url::form_urlencoded::parse(body) {
        match name.as_ref() {
            "action" => actions.push(action(&value).ok_or(BadForm::UnknownValue)?),
            "recipient" if value.is_empty() || value.chars().any(char::is_control) => {
                return Err(BadForm::UnknownValue);
            }
            "recipient" => recipients.push(value.into_owned()),
            "remember" if value == "none" => scope.take(None)?,
            "remember" => scope.take(Some(
                value.parse::<Scope>().map_err(|_| BadForm::UnknownValue)?,
            ))?,
            "seen" => seen.take(number(&value).ok_or(BadForm::UnknownValue)?)?,
            "remember-days" => days.take(number(&value).ok_or(BadForm::UnknownValue)?)?,
            other => {
                let number = other.strip_prefix("choice-").and_then(number);
                let number = number.ok_or(BadForm::UnknownField)?;
                choose(&mut choices, number, &value)?;
            }
        }
    }
    let remember = match (scope.0.flatten(), days.0) {
        (None, _) => None,
        (Some(scope), Some(days)) => Some(Remember { scope, days }),
        (Some(_), None) => return Err(BadForm::UnknownValue),
    };
    let seen = seen.0.unwrap_or(0);
    let decision = if choices.is_empty() {
        let action = *actions.first().ok_or(BadForm::NothingChosen)?;
        if actions.iter().any(|other| *other != action) {
            return Err(BadForm::Contradiction);
        }
        Decision::Same {
            action,
            recipients,
            remember,
            seen,
        }
    } else {
        each(choices, remember, seen)?
    };
    let sends = match &decision {
        Decision::Same { action, .. } => *action == Action::Send,
        Decision::Each { choices, .. } => choices.iter().any(|(_, action)| *action == Action::Send),
    };
    if remember.is_some() && !sends {
        return Err(BadForm::NothingToRemember);
    }
    Ok(decision)
}

/// Notes what a `choice-…` field says; `none` is a choice that was not made.
pub(super) fn choose<K: Ord>(
    choices: &mut BTreeMap<K, Option<Action>>,
    key: K,
    value: &str,
) -> Result<(), BadForm> {
    let choice = match value {
        "none" => None,
        value => Some(action(value).ok_or(BadForm::UnknownValue)?),
    };
    match choices.insert(key, choice) {
        Some(before) if before != choice => Err(BadForm::Contradiction),
        _ => Ok(()),
    }
}

/// Is this the one form that the page of a remembered choice has, `action=revoke`?
///
/// # Errors
/// When it is any other.
pub fn parse_revoke(body: &[u8]) -> Result<(), BadForm> {
    if !is_well_encoded(body) {
        return Err(BadForm::Damaged);
    }
    let mut revokes = false;
    for (name, value) in url::form_urlencoded::parse(body) {
        match (name.as_ref(), value.as_ref()) {
            ("action", "revoke") => revokes = true,
            ("action", _) => return Err(BadForm::UnknownValue),
            _ => return Err(BadForm::UnknownField),
        }
    }
    revokes.then_some(()).ok_or(BadForm::NothingChosen)
}

/// A field that may stand more than once, but not with two values.
pub(super) struct Once<T>(pub(super) Option<T>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: PartialEq> Once<T> {
    pub(super) fn take(&mut self, value: T) -> Result<(), BadForm> {
        match &self.0 {
            Some(before) if *before != value => Err(BadForm::Contradiction),
            _ => {
                self.0 = Some(value);
                Ok(())
            }
        }
    }
}

fn each(
    choices: BTreeMap<i64, Option<Action>>,
    remember: Option<Remember>,
    seen: i64,
) -> Result<Decision, BadForm> {
    let choices: Vec<(i64, Action)> = choices
        .into_iter()
        .filter_map(|(number, choice)| choice.map(|action| (number, action)))
        .collect();
    if choices.is_empty() {
        return Err(BadForm::NothingChosen);
    }
    Ok(Decision::Each {
        choices,
        remember,
        seen,
    })
}

/// The action of this name.
pub fn action(name: &str) -> Option<Action> {
    match name {
        "send" => Some(Action::Send),
        "delete" => Some(Action::Delete),
        "keep" => Some(Action::Keep),
        _ => None,
    }
}

/// Digits only: no sign, no blank.
pub(super) fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// `form_urlencoded` mends what it does not understand; here nothing is mended.
pub(super) fn is_well_encoded(body: &[u8]) -> bool {
    let mut decoded = Vec::with_capacity(body.len());
    let mut octets = body.iter().copied();
    while let Some(octet) = octets.next() {
        if octet != b'%' {
            decoded.push(octet);
            continue;
        }
        let mut digit = || char::from(octets.next()?).to_digit(16);
        match (digit(), digit()) {
            (Some(high), Some(low)) => decoded.push((high * 16 + low) as u8),
            _ => return false,
        }
    }
    std::str::from_utf8(&decoded).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same(action: Action, recipients: &[&str]) -> Result<Decision, BadForm> {
        let recipients = recipients.iter().map(|r| (*r).to_owned()).collect();
        Ok(Decision::Same {
            action,
            recipients,
            remember: None,
            seen: 0,
        })
    }

    #[test]
    fn one_action_for_all_or_for_those_named() {
        assert_eq!(parse(b"action=send"), same(Action::Send, &[]));
        assert_eq!(
            parse(b"action=delete&recipient=a%40b.test&recipient=%22x+y%22%40b.test"),
            same(Action::Delete, &["a@b.test", "\"x y\"@b.test"])
        );
        assert_eq!(parse(b"action=keep&action=keep&"), same(Action::Keep, &[]));
        assert_eq!(
            parse("action=keep&recipient=jürgen@müller.test".as_bytes()),
            same(Action::Keep, &["jürgen@müller.test"])
        );
    }

    #[test]
    fn a_choice_for_each_skips_those_without() {
        assert_eq!(
            parse(b"choice-7=send&choice-2=none&choice-3=delete&choice-3=delete"),
            Ok(Decision::Each {
                choices: vec![(3, Action::Delete), (7, Action::Send)],
                remember: None,
                seen: 0,
            })
        );
        assert_eq!(
            parse(b"action=delete&recipient=a%40b.test&choice-1=keep"),
            Ok(Decision::Each {
                choices: vec![(1, Action::Keep)],
                remember: None,
                seen: 0,
            }),
            "as soon as one choice-N is there, only those count"
        );
    }

    #[test]
    fn a_form_says_what_its_page_knew() {
        let seen = |body: &str| match parse(body.as_bytes()) {
            Ok(Decision::Same { seen, .. } | Decision::Each { seen, .. }) => seen,
            Err(why) => panic!("{body}: {why}"),
        };
        assert_eq!(seen("action=send&seen=17"), 17);
        assert_eq!(seen("choice-1=send&seen=4&choice-2=none"), 4);
        assert_eq!(seen("choice-1=send"), 0);
    }

    #[test]
    fn what_is_not_exactly_a_decision_is_none() {
        for (body, why) in [
            (&b""[..], BadForm::NothingChosen),
            (b"recipient=a%40b.test", BadForm::NothingChosen),
            (b"choice-1=none&choice-2=none", BadForm::NothingChosen),
            (b"action=none", BadForm::UnknownValue),
            (b"action=", BadForm::UnknownValue),
            (b"action=Send", BadForm::UnknownValue),
            (b"action=send%00", BadForm::UnknownValue),
            (b"action=send;action=delete", BadForm::UnknownValue),
            (b"action=send&recipient=", BadForm::UnknownValue),
            (b"action=send&recipient=a%0d%0ab", BadForm::UnknownValue),
            (b"action=send&action=delete", BadForm::Contradiction),
            (b"choice-1=send&choice-01=keep", BadForm::Contradiction),
            (b"choice-1=send&choice-1=none", BadForm::Contradiction),
            (b"action=send&seen=", BadForm::UnknownValue),
            (b"action=send&seen=-1", BadForm::UnknownValue),
            (b"action=send&seen=1&seen=2", BadForm::Contradiction),
            (b"choice-=send", BadForm::UnknownField),
            (b"choice--1=send", BadForm::UnknownField),
            (b"choice-+1=send", BadForm::UnknownField),
            (b"choice-9223372036854775808=send", BadForm::UnknownField),
            (b"ACTION=send", BadForm::UnknownField),
            (b"{\"action\":\"send\"}", BadForm::UnknownField),
            (b"action=send&recipient=%4", BadForm::Damaged),
            (b"action=send&recipient=%zz", BadForm::Damaged),
            (b"action=send&recipient=%ff", BadForm::Damaged),
            (b"action=send\xff", BadForm::Damaged),
        ] {
            assert_eq!(parse(body), Err(why), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn only_sending_is_remembered_and_only_for_a_time() {
        let remember = |scope, days| Some(Remember { scope, days });
        for (body, expected) in [
            ("action=send&remember=none&remember-days=7", Ok(None)),
            ("action=delete&remember-days=7", Ok(None)),
            (
                "action=send&remember=recipient&remember-days=7",
                Ok(remember(Scope::Recipient, 7)),
            ),
            (
                "choice-1=keep&choice-2=send&remember=domain&remember-days=30",
                Ok(remember(Scope::Domain, 30)),
            ),
            (
                "action=keep&remember=domain&remember-days=7",
                Err(BadForm::NothingToRemember),
            ),
            (
                "choice-1=keep&remember=domain&remember-days=7",
                Err(BadForm::NothingToRemember),
            ),
            ("action=send&remember=domain", Err(BadForm::UnknownValue)),
            ("action=send&remember=", Err(BadForm::UnknownValue)),
            (
                "action=send&remember=all&remember-days=7",
                Err(BadForm::UnknownValue),
            ),
            (
                "action=send&remember=domain&remember-days=-1",
                Err(BadForm::UnknownValue),
            ),
            (
                "action=send&remember=domain&remember-days=70000",
                Err(BadForm::UnknownValue),
            ),
            (
                "action=send&remember=domain&remember=none&remember-days=7",
                Err(BadForm::Contradiction),
            ),
            (
                "action=send&remember=domain&remember-days=7&remember-days=8",
                Err(BadForm::Contradiction),
            ),
        ] {
            let read = parse(body.as_bytes()).map(|decision| match decision {
                Decision::Same { remember, .. } | Decision::Each { remember, .. } => remember,
            });
            assert_eq!(read, expected, "{body}");
        }
    }

    #[test]
    fn revoking_is_said_in_one_way() {
        assert_eq!(parse_revoke(b"action=revoke"), Ok(()));
        for (body, why) in [
            (&b""[..], BadForm::NothingChosen),
            (b"action=send", BadForm::UnknownValue),
            (b"action=revoke&action=keep", BadForm::UnknownValue),
            (b"action=revoke&x=1", BadForm::UnknownField),
            (b"action=revoke%4", BadForm::Damaged),
        ] {
            assert_eq!(parse_revoke(body), Err(why));
        }
    }

    #[test]
    fn only_the_type_of_forms_is_a_form() {
        for yes in [
            "application/x-www-form-urlencoded",
            "Application/X-WWW-Form-urlencoded; charset=utf-8",
        ] {
            assert!(is_form(Some(yes)));
        }
        for no in [
            None,
            Some(""),
            Some("text/plain"),
            Some("multipart/form-data; boundary=x"),
        ] {
            assert!(!is_form(no));
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_a_decision_only_with_a_field_that_says_so(body in prop::collection::vec(any::<u8>(), 0..300)) {
            if parse(&body).is_ok() {
                let text = String::from_utf8_lossy(&body).into_owned();
                prop_assert!(["send", "delete", "keep", "%"].iter().any(|word| text.contains(word)), "{}", text);
            }
        }

        #[test]
        fn near_forms_never_panic_and_never_decide_what_they_do_not_say(
            body in "((action|choice-[0-9]{1,20}|recipient|x)(=(send|delete|keep|none|%[0-9a-fg]{1,2}|[a@.]{0,4}))?[&;]?){0,6}"
        ) {
            match parse(body.as_bytes()) {
                Ok(Decision::Same { action, .. }) => {
                    let word = format!("action={}", name(action));
                    let each = body.split('&').any(|field| field.starts_with("choice-"));
                    prop_assert!(body.contains(&word) && !each, "{}", body);
                }
                Ok(Decision::Each { choices, .. }) => for (number, action) in choices {
                    let word = format!("{number}={}", name(action));
                    prop_assert!(body.contains(&word), "{} {}", word, body);
                },
                Err(_) => {}
            }
        }

        #[test]
        fn what_a_browser_encodes_is_read_back(recipients in prop::collection::vec("[^\\p{Cc}]{1,40}", 0..5)) {
            let body = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("action", "send")
                .extend_pairs(recipients.iter().map(|r| ("recipient", r)))
                .finish();
            prop_assert_eq!(parse(body.as_bytes()), Ok(Decision::Same { action: Action::Send, recipients, remember: None, seen: 0 }));
        }
    }

    fn name(action: Action) -> &'static str {
        match action {
            Action::Send => "send",
            Action::Delete => "delete",
            Action::Keep => "keep",
        }
    }
}
