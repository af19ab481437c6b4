//! Choices that are remembered: made with a decision on a case's page, shown and ended on a page of their own.
//!
//! The web child is not trusted with any of it: whether a choice may be remembered, for whom, and for how long is
//! checked here.

use log::info;

use super::{Decided, Desk, DeskError, views};
use crate::case::store::{Consent, Remember, now_ms};
use crate::case::{Action, Actor, Case, ConsentId, Failure, Recipient};
use crate::text;
use crate::web::protocol::{self, Answer, ConsentView, Moment};

const DAY_MS: i64 = 86_400_000;

impl Desk {
    /// As [`Desk::decide`], and remembers the choice to send as far as that is allowed. When the configuration does not
    /// allow what is asked for, nothing at all happens: the sender has seen another page than we would show.
    pub(super) fn decide_and_remember(
        &self,
        case: Case,
        recipients: &[Recipient],
        choices: &[(i64, Action)],
        wanted: protocol::Remember,
        client: &str,
        seen: i64,
    ) -> Result<Decided, DeskError> {
        let days = views::days_to_choose(self.rules().remember_days);
        let sender = case.key.sender.clone();
        let Some(sender) = sender.filter(|_| days.contains(&wanted.days)) else {
            return Err(DeskError::NotRemembered(wanted.days));
        };
        self.settle(&case)?;
        let mut allowed = Vec::new();
        for recipient in recipients {
            if self.may_remember(&case, recipient)? {
                allowed.push(recipient.id);
            }
        }
        let remember = Remember {
            sender: &sender,
            scope: wanted.scope,
            expires_at: now_ms() + i64::from(wanted.days) * DAY_MS,
            allowed: &allowed,
        };
        let (decided, remembered) = self
            .store
            .decide_and_remember(case.id, choices, client, seen, &remember)?;
        for choice in &remembered {
            let failures: Vec<&str> = choice
                .failures
                .iter()
                .map(|f| Failure::as_str(*f))
                .collect();
            info!(
                "{}: from=<{sender}>, choice remembered: send to {} {} when it fails with {}, for {} days, client={client}",
                case.key.queue_id,
                choice.scope,
                text::shown(&choice.target),
                failures.join(" or "),
                wanted.days
            );
        }
        let decided = self.follow(case, decided, Actor::Link, client)?;
        Ok(Decided {
            remembered,
            ..decided
        })
    }

    pub(super) fn with_consent(
        &self,
        token: &str,
        body: impl FnOnce(Consent) -> Result<Consent, DeskError>,
    ) -> Result<Answer, DeskError> {
        let id: ConsentId = match self.opens(token) {
            Ok(id) => id,
            Err(answer) => return Ok(answer),
        };
        match self.store.consent(id)? {
            Some(consent) => Ok(Answer::Consent(Box::new(view(&body(consent)?)))),
            None => Ok(Answer::Unknown),
        }
    }

    /// Ends a remembered choice; one that has ended already stays as it ended.
    pub(super) fn end_consent(&self, consent: Consent, client: &str) -> Result<Consent, DeskError> {
        let why = format!("revoked by link from {client}");
        if self.store.end_consent(consent.id, &why)? {
            info!(
                "from=<{}>, remembered choice for {} {} ended by link, client={client}",
                consent.sender,
                consent.scope,
                text::shown(&consent.target)
            );
        }
        Ok(self.store.consent(consent.id)?.unwrap_or(consent))
    }
}

fn view(consent: &Consent) -> ConsentView {
    ConsentView {
        sender: consent.sender.as_str().to_owned(),
        scope: consent.scope,
        target: consent.target.clone(),
        failures: consent.failures.clone(),
        granted: Moment::local_ms(consent.granted_at),
        expires: Moment::local_ms(consent.expires_at),
        ended: consent.ended_at.map(Moment::local_ms),
        in_force: consent.ended_at.is_none() && consent.expires_at > now_ms(),
        uses: consent.uses,
    }
}
