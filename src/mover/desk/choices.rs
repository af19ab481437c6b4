//! From a form to choices for recipients of a case (pure).

use super::DeskError;
use crate::case::{Action, Recipient};
use crate::web::protocol::Decision;

/// Turns a form into choices for recipients of this case.
pub(super) fn of_case(
    decision: &Decision,
    recipients: &[Recipient],
) -> Result<Vec<(i64, Action)>, DeskError> {
    match decision {
        Decision::Same {
            action,
            recipients: named,
            ..
        } if named.is_empty() => {
            // Whoever comes too late for all of them is told what became of each. "All that are open" can't mean "send"
            // for one that must not go unencrypted.
            let any_open = recipients.iter().any(|one| one.state.is_open());
            let concerned = recipients.iter().filter(|one| match any_open {
                true => one.state.is_open() && (*action != Action::Send || one.may_send),
                false => one.state.has_left(),
            });
            Ok(concerned.map(|one| (one.id, *action)).collect())
        }
        Decision::Same {
            action,
            recipients: named,
            ..
        } => {
            let mut chosen = Vec::new();
            for name in named {
                let found = recipients
                    .iter()
                    .find(|recipient| recipient.address.as_str() == name);
                let id = found.ok_or_else(|| DeskError::Stranger(name.clone()))?.id;
                if !chosen.contains(&(id, *action)) {
                    chosen.push((id, *action));
                }
            }
            Ok(chosen)
        }
        Decision::Each { choices, .. } => {
            let mut chosen: Vec<(i64, Action)> = Vec::new();
            for (number, action) in choices {
                let id = numbered(*number, recipients)?.id;
                if !chosen.iter().any(|(known, _)| *known == id) {
                    chosen.push((id, *action));
                }
            }
            Ok(chosen)
        }
    }
}

/// The recipient that has this number in forms.
pub(super) fn numbered(number: i64, recipients: &[Recipient]) -> Result<&Recipient, DeskError> {
    recipients
        .iter()
        .find(|recipient| recipient.number == number)
        .ok_or_else(|| DeskError::Stranger(format!("number {number}")))
}
