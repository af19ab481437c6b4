//! Answers the web child's questions and the admin's: who asks, what the case is, what was decided, what came of it.
//!
//! What opens what: a link to a case, to a sender's messages (`inbox`) or to a remembered choice (`consent`). Forms
//! become choices in `choices`, and what the store has becomes what pages show in `views`.

mod choices;
mod consent;
mod inbox;
mod views;

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use log::{error, info, warn};

use super::allowance::Lines;
use super::engine::{Engine, Progress};
use super::{MoveError, ending, shown};
use crate::case::store::{self, MoveId, Remembered, Store, StoreError};
use crate::case::{Action, Actor, Case, CaseId, MoveStep, Outcome, Recipient, RecipientState};
use crate::config::Config;
use crate::link::{Keys, LinkError, Linked};
use crate::web::protocol::{Answer, Decision, Question, Refusal};

/// Where questions are answered. Shared by all threads that answer.
pub struct Desk {
    store: Arc<Store>,
    engine: Arc<Engine>,
    rules: RwLock<Rules>,
    refused: Lines,
    troubles: Lines,
}

/// Lines of one kind that requests can cause in a minute, however many there are.
const LINES: u64 = 20;

/// What a reload may change.
struct Rules {
    keys: Keys,
    /// How long a click waits for a delivery under way.
    wait: Duration,
    /// Days that a link outlives its message.
    valid_days: u16,
    /// The most days that a choice is remembered.
    remember_days: u16,
}

impl Rules {
    fn new(keys: Keys, config: &Config) -> Self {
        Self {
            keys,
            wait: Duration::from_secs(config.mover.delivery_wait_seconds),
            valid_days: config.link.valid_days,
            remember_days: config.remember.days,
        }
    }
}

/// What a decision did: recipient by recipient, in the order of the case.
pub struct Decided {
    /// The case as it stands now.
    pub case: Case,
    /// Each recipient, with the outcome for those that the decision named.
    pub recipients: Vec<(Recipient, Option<Outcome>)>,
    /// What was remembered of it.
    pub remembered: Vec<Remembered>,
}

/// Why a question has no proper answer.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The decision names somebody who is not in the case.
    #[error("PostTLS knows no recipient {0}")]
    Stranger(String),
    /// The decision names a case that is not the sender's.
    #[error("the sender has no case {0} to decide about")]
    StrangeCase(i64),
    /// The configuration does not let choices be remembered for so long.
    #[error("a choice can't be remembered for {0} days")]
    NotRemembered(u16),
}

impl Desk {
    /// A desk with these keys, and the rules of this configuration.
    pub fn new(store: Arc<Store>, engine: Arc<Engine>, keys: Keys, config: &Config) -> Self {
        engine.follow(&config.offer);
        Self {
            store,
            engine,
            rules: RwLock::new(Rules::new(keys, config)),
            refused: Lines::new(LINES, Duration::from_secs(60)),
            troubles: Lines::new(LINES, Duration::from_secs(60)),
        }
    }

    /// Takes other keys and rules, from the next question on.
    pub fn reload(&self, keys: Keys, config: &Config) {
        self.engine.follow(&config.offer);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Rules::new(keys, config);
    }

    fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many decisions are still to be carried out.
    ///
    /// # Errors
    /// When the store fails.
    pub fn unfinished(&self) -> Result<usize, StoreError> {
        self.store.unfinished_moves().map(|moves| moves.len())
    }

    /// Answers one question of the web child. Never fails: what goes wrong is logged, and the child hears "busy".
    pub fn answer(&self, question: Question) -> Answer {
        let result = match question {
            Question::Ready => Ok(Answer::Healthy),
            Question::Health => self
                .store
                .unfinished_moves()
                .map(|_| Answer::Healthy)
                .map_err(DeskError::from),
            Question::Show { token } => self.with_case(&token, |case| self.show(case)),
            Question::Decide {
                token,
                decision,
                client,
            } => self.with_case(&token, |case| {
                self.decide_view(case, &decision, &client.to_string())
            }),
            Question::ShowSender { token, page } => {
                self.with_sender(&token, |sender| self.show_inbox(sender, page))
            }
            Question::DecideSender {
                token,
                decision,
                client,
            } => self.with_sender(&token, |sender| {
                self.decide_inbox(sender, &decision, &client.to_string())
            }),
            Question::ShowConsent { token } => self.with_consent(&token, Ok),
            Question::EndConsent { token, client } => self.with_consent(&token, |consent| {
                self.end_consent(consent, &client.to_string())
            }),
        };
        let refused = match result {
            Ok(answer) => return answer,
            Err(DeskError::Store(error)) => {
                if let Some(more) = self.troubles.note() {
                    error!("{error}{more}");
                }
                return Answer::Busy;
            }
            Err(DeskError::Stranger(who)) => Refusal::NoSuchRecipient { who },
            Err(DeskError::StrangeCase(_)) => Refusal::NoSuchMessage,
            Err(DeskError::NotRemembered(_)) => Refusal::NotRemembered,
        };
        Answer::Refused { why: refused }
    }

    /// What a token opens; the answer when it opens nothing.
    fn opens<T: Linked>(&self, token: &str) -> Result<T, Answer> {
        let now = Timestamp::now().as_second();
        match self.rules().keys.verify(token, now) {
            Ok(id) => Ok(id),
            Err(LinkError::Expired(_)) => Err(Answer::Expired),
            Err(error) => {
                if let Some(more) = self.refused.note() {
                    info!("refused a link: {error}{more}");
                }
                Err(Answer::Unknown)
            }
        }
    }

    fn with_case(
        &self,
        token: &str,
        body: impl FnOnce(Case) -> Result<Answer, DeskError>,
    ) -> Result<Answer, DeskError> {
        let id = match self.opens(token) {
            Ok(id) => id,
            Err(answer) => return Ok(answer),
        };
        match self.store.case(id)? {
            // Nothing is left that could be shown.
            Some(case) if case.redacted_at.is_some() => Ok(Answer::Expired),
            Some(case) => body(case),
            None => Ok(Answer::Unknown),
        }
    }

    /// Changes nothing, not even in the store: what is seen in the queue is only shown.
    fn show(&self, case: Case) -> Result<Answer, DeskError> {
        let recipients = self.seen_now(&case)?;
        let recipients = recipients.into_iter().map(|recipient| (recipient, None));
        let shown = Decided {
            recipients: recipients.collect(),
            case,
            remembered: Vec::new(),
        };
        Ok(Answer::Case(Box::new(self.view(&shown)?)))
    }

    /// The recipients of a case that its sender may see as they stand, those that have left the queue by themselves included.
    fn seen_now(&self, case: &Case) -> Result<Vec<Recipient>, StoreError> {
        let seen = self.look(case)?;
        let mut recipients = self.store.recipients(case.id)?;
        recipients.retain(Recipient::is_senders);
        for recipient in &mut recipients {
            if let Some((_, state)) = seen.iter().find(|(id, _)| *id == recipient.id) {
                recipient.state = *state;
            }
        }
        Ok(recipients)
    }

    fn decide_view(
        &self,
        case: Case,
        decision: &Decision,
        client: &str,
    ) -> Result<Answer, DeskError> {
        let mut recipients = self.store.recipients(case.id)?;
        recipients.retain(Recipient::is_senders);
        let choices = choices::of_case(decision, &recipients)?;
        let (Decision::Same { remember, seen, .. } | Decision::Each { remember, seen, .. }) =
            decision;
        let decided = match remember {
            Some(wanted) => {
                self.decide_and_remember(case, &recipients, &choices, *wanted, client, *seen)?
            }
            None => self.decide(case, &choices, Actor::Link, client, Some(*seen))?,
        };
        Ok(Answer::Decided(Box::new(self.view(&decided)?)))
    }

    /// Records choices and carries them out as far as that can be done at once; `seen` as for [`Store::decide`].
    ///
    /// # Errors
    /// When the store fails; nothing was recorded then.
    pub fn decide(
        &self,
        case: Case,
        choices: &[(i64, Action)],
        actor: Actor,
        client: &str,
        seen: Option<i64>,
    ) -> Result<Decided, DeskError> {
        self.settle(&case)?;
        let decided = self.store.decide(case.id, choices, actor, client, seen)?;
        self.follow(case, decided, actor, client)
    }

    /// As [`Desk::decide`], by an admin who sends although a policy demands TLS.
    ///
    /// # Errors
    /// As [`Desk::decide`].
    pub fn overrule(
        &self,
        case: Case,
        choices: &[(i64, Action)],
        client: &str,
    ) -> Result<Decided, DeskError> {
        self.settle(&case)?;
        let queue_id = &case.key.queue_id;
        warn!("{queue_id}: policies that demand TLS are overridden by an admin, client={client}");
        let decided = self.store.overrule(case.id, choices, client)?;
        self.follow(case, decided, Actor::Admin, client)
    }

    /// Logs what was decided, and carries it out as far as that can be done at once.
    fn follow(
        &self,
        case: Case,
        decided: store::Decided,
        actor: Actor,
        client: &str,
    ) -> Result<Decided, DeskError> {
        for recipient in self.store.recipients(case.id)? {
            let changed = decided.changed.contains(&recipient.id);
            let outcome = decided.outcomes.iter().find(|(id, _)| *id == recipient.id);
            if let Some((_, outcome)) = outcome.filter(|_| changed) {
                let (id, to) = (&case.key.queue_id, &recipient.address);
                info!(
                    "{id}: to=<{to}>, decision {outcome}, state {}, by {actor}, client={client}",
                    recipient.state
                );
            }
        }
        let mut outcomes = decided.outcomes;
        let wait = self.rules().wait;
        if let Some(id) = decided.planned {
            let deadline = Instant::now() + wait;
            match self.engine.carry_out(id, case.id, deadline, deadline) {
                Ok(Progress::Ended) => {}
                Ok(Progress::Later(why)) => info!("{}, status=waiting: {why}", shown(&case.key)),
                Err(error) => {
                    error!("{error}; the decision is recorded and will be carried out later")
                }
            }
            let recorded = outcomes.iter();
            let recorded = recorded.filter(|(_, outcome)| *outcome == Outcome::Recorded);
            let recorded: Vec<i64> = recorded.map(|(id, _)| *id).collect();
            for (recipient, known) in self.came_of(id, case.id, &recorded)? {
                let entry = outcomes.iter_mut().find(|(id, _)| *id == recipient);
                if let Some((_, outcome)) = entry {
                    *outcome = known;
                }
            }
        }
        let case = self.store.case(case.id)?.unwrap_or(case);
        let recipients = self
            .store
            .recipients(case.id)?
            .into_iter()
            .map(|recipient| {
                let outcome = outcomes
                    .iter()
                    .find(|(id, _)| *id == recipient.id)
                    .map(|(_, outcome)| *outcome);
                (recipient, outcome)
            });
        Ok(Decided {
            recipients: recipients.collect(),
            case,
            remembered: Vec::new(),
        })
    }

    /// What is known by now of the recipients for whom a decision has planned this move.
    fn came_of(
        &self,
        id: MoveId,
        case: CaseId,
        recorded: &[i64],
    ) -> Result<Vec<(i64, Outcome)>, StoreError> {
        let Some(journal) = self.store.load_move(id)? else {
            return Ok(Vec::new());
        };
        let mut known = Vec::new();
        if journal.step == MoveStep::Done {
            let outcomes = journal.recipients.iter();
            known.extend(outcomes.filter_map(|one| Some((one.id, one.outcome?))));
        }
        if recorded.iter().all(|id| journal.names(*id)) {
            return Ok(known);
        }
        let recipients = self.store.recipients(case)?.into_iter();
        let others = recipients.filter(|one| recorded.contains(&one.id) && !journal.names(one.id));
        known.extend(others.filter_map(|one| Some((one.id, views::undone(&one)?))));
        Ok(known)
    }

    /// Which recipients that wait are no longer in the queue, as far as that can be seen now.
    fn look(&self, case: &Case) -> Result<Vec<(i64, RecipientState)>, StoreError> {
        match ending::look(&self.store, &self.engine, case) {
            Err(MoveError::Store(error)) => Err(error),
            Err(error) => {
                if let Some(more) = self.troubles.note() {
                    warn!("{error}{more}");
                }
                Ok(Vec::new())
            }
            Ok(seen) => Ok(seen),
        }
    }

    /// Records what has left the queue by itself, so that cases come to an end.
    fn settle(&self, case: &Case) -> Result<(), StoreError> {
        let seen = self.look(case)?;
        if seen.is_empty() {
            Ok(())
        } else {
            self.store.settle(case.id, &seen)
        }
    }

    /// A case with its recipients, as the store has them.
    ///
    /// # Errors
    /// When the store fails.
    pub fn case(&self, id: CaseId) -> Result<Option<(Case, Vec<Recipient>)>, StoreError> {
        let Some(case) = self.store.case(id)? else {
            return Ok(None);
        };
        Ok(Some((case, self.store.recipients(id)?)))
    }

    /// The cases whose messages have changed queues since this was asked last: one that was held may be free.
    pub(super) fn moved(&self) -> HashSet<CaseId> {
        self.engine.lookout().moved()
    }

    /// Tries a move again, in the background: waits for nothing.
    ///
    /// # Errors
    /// As [`Engine::carry_out`].
    pub fn retry(&self, id: MoveId, case: CaseId) -> Result<Progress, MoveError> {
        let now = Instant::now();
        self.engine.carry_out(id, case, now, now)
    }
}
