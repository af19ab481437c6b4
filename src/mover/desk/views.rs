//! From what the store has to what pages show.

use super::{Decided, Desk, DeskError};
use crate::case::{Case, CaseState, Outcome, Recipient, RecipientState, policy};
use crate::domain::Domain;
use crate::web::protocol::{CaseView, Moment, RecipientView, RememberedView};

/// The days to choose from, as far as the configuration allows; what it allows at most is always one of them.
const DAYS: [u16; 6] = [1, 7, 30, 90, 180, 365];

/// The days for which a choice may be remembered.
pub(super) fn days_to_choose(most: u16) -> Vec<u16> {
    let shorter = DAYS.into_iter().filter(|days| *days < most);
    shorter.chain((most > 0).then_some(most)).collect()
}

impl Desk {
    /// May the choice to send to this recipient be remembered?
    pub(super) fn may_remember(
        &self,
        case: &Case,
        recipient: &Recipient,
    ) -> Result<bool, DeskError> {
        if self.rules().remember_days == 0
            || case.key.sender.is_none()
            || !recipient.may_send
            || !policy::may_go_unseen(recipient.failure)
        {
            return Ok(false);
        }
        let Some(domain) = Domain::of(&recipient.address) else {
            return Ok(false);
        };
        Ok(self.store.mandatory_for(&domain)?.is_none())
    }

    /// A case for its page.
    pub(super) fn view(&self, decided: &Decided) -> Result<CaseView, DeskError> {
        let case = &decided.case;
        let mut recipients = Vec::with_capacity(decided.recipients.len());
        let senders = || {
            decided
                .recipients
                .iter()
                .filter(|(one, _)| one.is_senders())
        };
        let waits = senders().any(|(one, _)| is_decided(one));
        let held = case.held_at.is_some() && case.state != CaseState::Closed;
        let hindered = waits
            && (self.store.hindrance(case.id)?.is_some()
                || !self.store.conflicts(case.id)?.is_empty());
        for (recipient, outcome) in senders() {
            let may_remember = recipient.state.is_open() && self.may_remember(case, recipient)?;
            let mut view = recipient_view(recipient, may_remember, *outcome);
            view.held = held && is_decided(recipient);
            view.hindered = hindered && !held && is_decided(recipient);
            recipients.push(view);
        }
        let remembered = decided.remembered.iter().map(|choice| RememberedView {
            scope: choice.scope,
            target: choice.target.clone(),
            until: Moment::local_ms(choice.expires_at),
        });
        let sender = case.key.sender.as_ref();
        Ok(CaseView {
            queue_id: case.key.queue_id.to_string(),
            sender: sender
                .map(|sender| sender.as_str().to_owned())
                .unwrap_or_default(),
            subject: case.subject.clone(),
            arrived: Moment::local(case.key.arrival),
            retry_until: case.retry_until.map(Moment::local),
            closed: case.closed_why.clone(),
            held,
            seen: seen(senders().map(|(one, _)| one)),
            recipients,
            remember: days_to_choose(self.rules().remember_days),
            remembered: remembered.collect(),
        })
    }

    /// A link to the page of a case, for a page of PostTLS: it lives as long as the one that was mailed.
    pub(super) fn case_token(&self, case: &Case) -> String {
        let rules = self.rules();
        rules.keys.sign(case.id, case.link_expiry(rules.valid_days))
    }
}

/// The last change that a page of these recipients knows of.
pub(super) fn seen<'a>(shown: impl Iterator<Item = &'a Recipient>) -> i64 {
    shown.map(|one| one.changed).max().unwrap_or(0)
}

/// A recipient for a page.
pub(super) fn recipient_view(
    recipient: &Recipient,
    may_remember: bool,
    outcome: Option<Outcome>,
) -> RecipientView {
    let domain = Domain::of(&recipient.address);
    RecipientView {
        number: recipient.number,
        address: recipient.address.as_str().to_owned(),
        name: recipient.name(),
        domain: domain.map(String::from).unwrap_or_default(),
        failure: recipient.failure,
        detail: recipient.detail.clone(),
        state: recipient.state,
        passage: recipient.passage,
        passage_detail: recipient.passage_detail.clone().unwrap_or_default(),
        open: recipient.state.is_open(),
        may_send: recipient.may_send,
        may_remember,
        hindered: false,
        held: false,
        outcome,
    }
}

/// What came of a recipient that was decided about and that no move is about any more: refused when it was to be sent, or
/// gone by itself. `None`: it waits in another move.
pub(super) fn undone(recipient: &Recipient) -> Option<Outcome> {
    use RecipientState::{Kept, NotOffered, Open};
    match recipient.state {
        // Its failure is another one, which whoever decided did not know.
        Open | Kept if recipient.may_send => Some(Outcome::Changed),
        Open | Kept | NotOffered => Some(Outcome::NotPossible),
        state if state.has_left() => Some(state.outcome_when_late()),
        _ => None,
    }
}

/// Is a decision recorded for it that is not carried out?
fn is_decided(recipient: &Recipient) -> bool {
    use RecipientState::{Deleting, Releasing};
    matches!(recipient.state, Deleting | Releasing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_days_than_configured() {
        assert!(days_to_choose(0).is_empty());
        assert_eq!(days_to_choose(1), [1]);
        assert_eq!(days_to_choose(7), [1, 7]);
        assert_eq!(days_to_choose(60), [1, 7, 30, 60]);
        assert_eq!(days_to_choose(365), [1, 7, 30, 90, 180, 365]);
    }
}
