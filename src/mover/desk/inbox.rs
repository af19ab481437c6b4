//! The page of a sender: all messages of which something waits, and decisions about many of them at once.
//!
//! However many there are, a click is answered within seconds: decisions are recorded first, in parts; the first moves
//! are carried out at once, and the background has the rest. Only cases whose envelope sender is this one, its
//! domain in whatever spelling, and about which the sender is asked, are ever touched.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::{error, info};

use super::{Desk, DeskError, choices, views};
use crate::address::Address;
use crate::case::store::{Bulk, BulkDecided, BulkMark, CaseChoices, MoveId};
use crate::case::{
    Action, Actor, Asked, Case, CaseId, CaseState, Outcome, Recipient, RecipientState, SenderId,
};
use crate::domain::Domain;
use crate::web::facts::{PAGE_DOMAINS, PAGE_MESSAGES, PAGE_RECIPIENTS};
use crate::web::protocol::{
    Answer, DetailView, DomainView, InboxDecision, InboxResult, InboxView, MessageView, Moment,
};

/// For so long decisions are recorded; the web child waits ten seconds for all.
const RECORDING: Duration = Duration::from_secs(5);
/// For so long they are carried out before the sender gets an answer.
const AT_ONCE: Duration = Duration::from_millis(1500);
/// Lines of the result that tell what came of one recipient.
const DETAILS: usize = PAGE_MESSAGES;

impl Desk {
    pub(super) fn with_sender(
        &self,
        token: &str,
        body: impl FnOnce(&Address) -> Result<Answer, DeskError>,
    ) -> Result<Answer, DeskError> {
        let id: SenderId = match self.opens(token) {
            Ok(id) => id,
            Err(answer) => return Ok(answer),
        };
        match self.store.sender(id)? {
            Some(sender) => body(&sender),
            None => Ok(Answer::Unknown),
        }
    }

    /// Changes nothing. A page beyond the last one shows the last one.
    pub(super) fn show_inbox(&self, sender: &Address, page: u32) -> Result<Answer, DeskError> {
        let summary = self.store.inbox_summary(sender)?;
        let per_page = PAGE_MESSAGES as u64;
        let pages = u32::try_from(summary.messages.div_ceil(per_page)).unwrap_or(u32::MAX);
        let pages = pages.max(1);
        let page = page.clamp(1, pages);
        let offset = (page as usize - 1) * PAGE_MESSAGES;
        let mut shown = Vec::new();
        for case in self.store.inbox_cases(sender, PAGE_MESSAGES, offset)? {
            shown.push(self.message_view(&case)?);
        }
        // As the person spells it, and not as we do.
        let spelt = self.store.inbox_cases(sender, 1, 0)?.pop();
        let spelt = spelt.and_then(|case| case.key.sender);
        let domains = self.store.inbox_domains(sender, PAGE_DOMAINS)?;
        Ok(Answer::Inbox(Box::new(InboxView {
            sender: spelt.as_ref().unwrap_or(sender).as_str().to_owned(),
            messages: summary.messages,
            recipients: summary.recipients,
            unsendable: summary.recipients.saturating_sub(summary.sendable),
            seen: summary.latest,
            page,
            pages,
            more_domains: summary.domains.saturating_sub(domains.len() as u64),
            domains: domains
                .into_iter()
                .map(|(domain, recipients)| DomainView { domain, recipients })
                .collect(),
            shown,
        })))
    }

    fn message_view(&self, case: &Case) -> Result<MessageView, DeskError> {
        let open = self.store.recipients(case.id)?;
        let open = open
            .into_iter()
            .filter(|recipient| recipient.state.is_open() && recipient.is_senders());
        let open: BTreeMap<i64, i64> = open
            .map(|recipient| (recipient.number, recipient.id))
            .collect();
        let mut recipients = self.seen_now(case)?;
        recipients.retain(|recipient| open.contains_key(&recipient.number));
        let more = recipients.len().saturating_sub(PAGE_RECIPIENTS);
        recipients.truncate(PAGE_RECIPIENTS);
        let seen = views::seen(recipients.iter());
        let recipients = recipients
            .iter()
            .map(|recipient| views::recipient_view(recipient, false, None));
        Ok(MessageView {
            token: self.case_token(case),
            case: case.id.0,
            subject: case.subject.clone(),
            arrived: Moment::local(case.key.arrival),
            retry_until: case.retry_until.map(Moment::local),
            held: case.held_at.is_some(),
            seen,
            recipients: recipients.collect(),
            more: more as u64,
        })
    }

    pub(super) fn decide_inbox(
        &self,
        sender: &Address,
        decision: &InboxDecision,
        client: &str,
    ) -> Result<Answer, DeskError> {
        let mut result = InboxResult {
            counts: Vec::new(),
            excluded: 0,
            unrecorded: 0,
            details: Vec::new(),
            left: 0,
        };
        let mut decided = match decision {
            InboxDecision::Each { choices, seen } => {
                let chosen = self.chosen(sender, choices, seen)?;
                let decided = self.store.decide_several(&chosen, client)?;
                let actions = chosen.iter().flat_map(|chosen| &chosen.choices);
                for (one, (_, _, action)) in decided.iter().zip(actions) {
                    log_decision(one, *action, client);
                }
                decided
            }
            InboxDecision::All {
                action,
                seen,
                domain,
            } => {
                let domain = match domain {
                    Some(name) => match name.parse::<Domain>() {
                        Ok(domain) => Some(domain),
                        Err(_) => return self.answered(sender, result),
                    },
                    None => None,
                };
                let bulk = Bulk {
                    sender,
                    action: *action,
                    domain: domain.as_ref(),
                    seen: *seen,
                    client,
                };
                if *action == Action::Send {
                    result.excluded = self.store.count_unsendable(&bulk)?;
                }
                let (decided, unrecorded) = self.record(&bulk)?;
                result.unrecorded = unrecorded;
                decided
            }
        };
        self.begin(&mut decided)?;
        result.counts = counted(&decided);
        result.details = self.details(&decided)?;
        self.answered(sender, result)
    }

    fn answered(&self, sender: &Address, mut result: InboxResult) -> Result<Answer, DeskError> {
        result.left = self.store.inbox_summary(sender)?.messages;
        Ok(Answer::InboxDecided(Box::new(result)))
    }

    /// Records a decision in bulk. Also: for how many recipients there was no time.
    fn record(&self, bulk: &Bulk<'_>) -> Result<(Vec<BulkDecided>, u64), DeskError> {
        let deadline = Instant::now() + RECORDING;
        let mut all = Vec::new();
        let mut mark = BulkMark::START;
        loop {
            let (decided, next) = match self.store.decide_bulk(bulk, mark) {
                Ok(part) => part,
                // What was recorded before stands, and the sender has to hear of it.
                Err(why) if !all.is_empty() => {
                    error!("{why}; {} decisions before it are recorded", all.len());
                    return Ok((all, self.store.count_bulk(bulk, mark)?));
                }
                Err(why) => return Err(why.into()),
            };
            for one in &decided {
                log_decision(one, bulk.action, bulk.client);
            }
            all.extend(decided);
            match next {
                None => return Ok((all, 0)),
                Some(next) if Instant::now() >= deadline => {
                    return Ok((all, self.store.count_bulk(bulk, next)?));
                }
                Some(next) => mark = next,
            }
        }
    }

    /// Finds what a form names, and refuses all of it when a part is not this sender's.
    fn chosen(
        &self,
        sender: &Address,
        choices: &[(i64, i64, Action)],
        seen: &[(i64, i64)],
    ) -> Result<Vec<CaseChoices>, DeskError> {
        let mut by_case: BTreeMap<i64, Vec<(i64, Action)>> = BTreeMap::new();
        for (case, number, action) in choices {
            by_case.entry(*case).or_default().push((*number, *action));
        }
        let mut chosen = Vec::new();
        for (id, choices) in by_case {
            let case = self.store.case(CaseId(id))?;
            let own = |case: &Case| {
                case.key.sender.as_ref().map(Domain::canonical).as_ref()
                    == Some(&Domain::canonical(sender))
                    && case.asked == Asked::Sender
            };
            let case = case.filter(own).ok_or(DeskError::StrangeCase(id))?;
            if case.state == CaseState::Open {
                self.settle(&case)?;
            }
            let mut recipients = self.store.recipients(case.id)?;
            recipients.retain(Recipient::is_senders);
            let mut wanted = Vec::new();
            for (number, action) in choices {
                let recipient = choices::numbered(number, &recipients)?;
                if recipient.state != RecipientState::NotOffered {
                    wanted.push((recipient.id, recipient.address.clone(), action));
                }
            }
            let seen = seen.iter().find(|(case, _)| *case == id);
            chosen.push(CaseChoices {
                case,
                choices: wanted,
                seen: seen.map_or(0, |(_, seen)| *seen),
            });
        }
        Ok(chosen)
    }

    /// Carries the first moves out, waiting for no delivery; the background has what is left.
    fn begin(&self, decided: &mut [BulkDecided]) -> Result<(), DeskError> {
        let deadline = Instant::now() + AT_ONCE;
        let mut last: Option<MoveId> = None;
        let moves: Vec<(MoveId, CaseId)> = decided
            .iter()
            .filter_map(|one| Some((one.planned?, one.case)))
            .filter(|(id, _)| last.replace(*id) != Some(*id))
            .collect();
        let mut done = BTreeMap::new();
        for (id, case) in moves {
            if Instant::now() >= deadline {
                break;
            }
            // The background may be at it: then the sender is told what it has done.
            if let Err(why) = self.engine.carry_out(id, case, deadline, Instant::now()) {
                error!("{why}; the decision is recorded and will be carried out later");
            }
            let own = decided.iter().filter(|one| one.planned == Some(id));
            let recorded = own.filter(|one| one.outcome == Outcome::Recorded);
            let recorded: Vec<i64> = recorded.map(|one| one.recipient).collect();
            done.extend(self.came_of(id, case, &recorded)?);
        }
        for one in decided {
            if let Some(outcome) = done.get(&one.recipient) {
                one.outcome = *outcome;
            }
        }
        Ok(())
    }

    fn details(&self, decided: &[BulkDecided]) -> Result<Vec<DetailView>, DeskError> {
        let mut order: Vec<&BulkDecided> = decided.iter().collect();
        order.sort_by_key(|one| match one.outcome {
            Outcome::Recorded => 1,
            Outcome::Released | Outcome::Deleted | Outcome::Kept => 2,
            _ => 0,
        });
        let mut details = Vec::new();
        for one in order.into_iter().take(DETAILS) {
            if let Some(case) = self.store.case(one.case)? {
                let recipients = self.store.recipients(case.id)?;
                let found = recipients.iter().find(|known| known.id == one.recipient);
                details.push(DetailView {
                    token: self.case_token(&case),
                    subject: case.subject,
                    name: found.map_or_else(|| one.address.as_str().to_owned(), Recipient::name),
                    outcome: one.outcome,
                });
            }
        }
        Ok(details)
    }
}

fn log_decision(one: &BulkDecided, action: Action, client: &str) {
    if one.changed {
        info!(
            "{}: to=<{}>, decision {}, {action}, by {}, client={client}",
            one.queue_id,
            one.address,
            one.outcome,
            Actor::Link
        );
    }
}

fn counted(decided: &[BulkDecided]) -> Vec<(Outcome, u64)> {
    let mut counts: BTreeMap<Outcome, u64> = BTreeMap::new();
    for one in decided {
        *counts.entry(one.outcome).or_default() += 1;
    }
    counts.into_iter().collect()
}
