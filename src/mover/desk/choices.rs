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
            // "All that are open" can't mean "send" for one that must not go unencrypted.
            let open = recipients
                .iter()
                .filter(|recipient| recipient.state.is_open());
            Ok(open
                .filter(|recipient| *action != Action::Send || recipient.may_send)
                .map(|r| (r.id, *action))
                .collect())
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
