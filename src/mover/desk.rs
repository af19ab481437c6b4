//! Answers the web child's questions and the admin's: who asks, what the case is, what was decided, what came of it.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use log::{error, info, warn};

use super::engine::{Engine, Progress};
use super::source;
use super::{MoveError, Sighting, shown};
use crate::case::store::{Store, StoreError};
use crate::case::{Action, Actor, Case, CaseId, CaseState, Outcome, Recipient, RecipientState};
use crate::link::{Keys, LinkError};
use crate::text;
use crate::web::protocol::{Answer, CaseView, Decision, Question, RecipientView};

/// Where questions are answered. Shared by all threads that answer.
pub struct Desk {
    store: Arc<Store>,
    engine: Arc<Engine>,
    rules: RwLock<Rules>,
}

/// What a reload may change.
struct Rules {
    keys: Keys,
    wait: Duration,
}

/// What a decision did: recipient by recipient, in the order of the case.
pub struct Decided {
    /// The case as it stands now.
    pub case: Case,
    /// Each recipient, with the outcome for those that the decision named.
    pub recipients: Vec<(Recipient, Option<Outcome>)>,
}

/// Why a question has no proper answer.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The decision names somebody who is not in the case.
    #[error("the message has no recipient {0} to decide about")]
    Stranger(String),
}

impl Desk {
    /// A desk that waits at most `wait` for a delivery under way before it says that a decision will be carried out
    /// later.
    pub fn new(store: Arc<Store>, engine: Arc<Engine>, keys: Keys, wait: Duration) -> Self {
        Self {
            store,
            engine,
            rules: RwLock::new(Rules { keys, wait }),
        }
    }

    /// Takes other keys and another time to wait, from the next question on.
    pub fn reload(&self, keys: Keys, wait: Duration) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Rules { keys, wait };
    }

    fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
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
            } => self.with_case(&token, |case| self.decide_view(case, &decision, &client)),
        };
        match result {
            Ok(answer) => answer,
            Err(DeskError::Stranger(who)) => Answer::Refused {
                why: format!(
                    "This message has no recipient {} to decide about.",
                    text::shown(&who)
                ),
            },
            Err(error @ DeskError::Store(_)) => {
                error!("{error}");
                Answer::Busy
            }
        }
    }

    fn with_case(
        &self,
        token: &str,
        body: impl FnOnce(Case) -> Result<Answer, DeskError>,
    ) -> Result<Answer, DeskError> {
        let verified = self
            .rules()
            .keys
            .verify(token, Timestamp::now().as_second());
        let id = match verified {
            Ok(id) => id,
            Err(LinkError::Expired(_)) => return Ok(Answer::Expired),
            Err(error) => {
                info!("refused a link: {error}");
                return Ok(Answer::Unknown);
            }
        };
        match self.store.case(id)? {
            Some(case) => body(case),
            None => Ok(Answer::Unknown),
        }
    }

    /// Changes nothing, not even in the store: what is seen in the queue is only shown.
    fn show(&self, case: Case) -> Result<Answer, DeskError> {
        let seen = self.look(&case)?;
        let recipients = self
            .store
            .recipients(case.id)?
            .into_iter()
            .map(|mut recipient| {
                if let Some((_, state)) = seen.iter().find(|(id, _)| *id == recipient.id) {
                    recipient.state = *state;
                }
                (recipient, None)
            });
        let recipients = recipients.collect();
        Ok(Answer::Case(Box::new(view(&Decided { case, recipients }))))
    }

    fn decide_view(
        &self,
        case: Case,
        decision: &Decision,
        client: &str,
    ) -> Result<Answer, DeskError> {
        let recipients = self.store.recipients(case.id)?;
        let choices = choices(decision, &recipients)?;
        let decided = self.decide(case, &choices, Actor::Link, client)?;
        Ok(Answer::Decided(Box::new(view(&decided))))
    }

    /// Records choices and carries them out as far as that can be done at once.
    ///
    /// # Errors
    /// When the store fails; nothing was recorded then.
    pub fn decide(
        &self,
        case: Case,
        choices: &[(i64, Action)],
        actor: Actor,
        client: &str,
    ) -> Result<Decided, DeskError> {
        self.settle(&case)?;
        let decided = self.store.decide(case.id, choices, actor, client)?;
        for recipient in self.store.recipients(case.id)? {
            let outcome = decided.outcomes.iter().find(|(id, _)| *id == recipient.id);
            if let Some((_, outcome @ (Outcome::Recorded | Outcome::Kept))) = outcome {
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
            match self.engine.carry_out(id, case.id, Instant::now() + wait) {
                Ok(Progress::Ended) => {}
                Ok(Progress::Later(why)) => info!("{}, status=waiting: {why}", shown(&case.key)),
                Err(error) => {
                    error!("{error}; the decision is recorded and will be carried out later")
                }
            }
            if let Some(journal) = self.store.load_move(id)?
                && journal.step == crate::case::MoveStep::Done
            {
                for recipient in &journal.recipients {
                    let entry = outcomes.iter_mut().find(|(id, _)| *id == recipient.id);
                    if let (Some(entry), Some(outcome)) = (entry, recipient.outcome) {
                        entry.1 = outcome;
                    }
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
        })
    }

    /// Which recipients that wait for a decision are no longer in the queue, as far as that can be seen now.
    fn look(&self, case: &Case) -> Result<Vec<(i64, RecipientState)>, StoreError> {
        if case.state == CaseState::Closed {
            return Ok(Vec::new());
        }
        let mut open = self.store.recipients(case.id)?;
        open.retain(|recipient| recipient.state.is_open());
        if open.is_empty() {
            return Ok(Vec::new());
        }
        let seen = self
            .engine
            .pair()
            .map_err(MoveError::from)
            .and_then(|pair| source::sight(&pair.encrypt, &case.key));
        let found = match seen {
            Ok((Sighting::Gone, _)) => open
                .iter()
                .map(|recipient| (recipient.id, RecipientState::Gone))
                .collect(),
            Ok((Sighting::Queued(_), source)) => {
                source.map_or_else(Vec::new, |source| settled(&source, &open))
            }
            Err(error) => {
                warn!("{error}");
                Vec::new()
            }
        };
        if found.is_empty() {
            return Ok(found);
        }
        // The lookout may have seen how it came to this: what it records counts.
        self.engine.lookout().pump();
        let now = self.store.recipients(case.id)?;
        let still_open = |id: i64| now.iter().any(|one| one.id == id && one.state.is_open());
        Ok(found
            .into_iter()
            .filter(|(id, _)| still_open(*id))
            .collect())
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

    /// Settles every open case: one look at one file each, whatever else is queued.
    ///
    /// # Errors
    /// When the store fails.
    pub fn sweep(&self) -> Result<(), StoreError> {
        self.store
            .cases(Some(CaseState::Open))?
            .iter()
            .try_for_each(|case| self.settle(case))
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

    /// Tries a move again, in the background: waits for nothing.
    ///
    /// # Errors
    /// As [`Engine::carry_out`].
    pub fn retry(
        &self,
        id: crate::case::store::MoveId,
        case: CaseId,
    ) -> Result<Progress, MoveError> {
        self.engine.carry_out(id, case, Instant::now())
    }
}

/// Those of `open` for which the queue file says that they no longer wait.
fn settled(source: &source::Source, open: &[Recipient]) -> Vec<(i64, RecipientState)> {
    let judged = open
        .iter()
        .filter_map(|recipient| match source.records_of(&recipient.address) {
            (pending, _) if !pending.is_empty() => None,
            (_, true) => Some((recipient.id, RecipientState::Delivered)),
            _ => Some((recipient.id, RecipientState::Gone)),
        });
    judged.collect()
}

/// Turns a form into choices for recipients of this case.
fn choices(decision: &Decision, recipients: &[Recipient]) -> Result<Vec<(i64, Action)>, DeskError> {
    match decision {
        Decision::Same {
            action,
            recipients: named,
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
        Decision::Each { choices } => {
            let mut chosen: Vec<(i64, Action)> = Vec::new();
            for (number, action) in choices {
                let found = recipients
                    .iter()
                    .find(|recipient| recipient.number == *number);
                let id = found
                    .ok_or_else(|| DeskError::Stranger(format!("number {number}")))?
                    .id;
                if !chosen.iter().any(|(known, _)| *known == id) {
                    chosen.push((id, *action));
                }
            }
            Ok(chosen)
        }
    }
}

fn view(decided: &Decided) -> CaseView {
    let case = &decided.case;
    CaseView {
        queue_id: case.key.queue_id.to_string(),
        sender: case
            .key
            .sender
            .as_ref()
            .map(|sender| sender.as_str().to_owned())
            .unwrap_or_default(),
        subject: case.subject.clone(),
        arrived: text::moment(case.key.arrival),
        retry_until: case.retry_until.map(text::moment).unwrap_or_default(),
        recipients: decided
            .recipients
            .iter()
            .map(|(recipient, outcome)| RecipientView {
                number: recipient.number,
                address: recipient.address.as_str().to_owned(),
                failure: recipient.failure,
                detail: recipient.detail.clone(),
                state: recipient.state,
                open: recipient.state.is_open(),
                may_send: recipient.may_send,
                outcome: *outcome,
            })
            .collect(),
    }
}
