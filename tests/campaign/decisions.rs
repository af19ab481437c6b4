//! Decisions against clicks: was each final decision made by somebody who may, and was each answer to a click true?

use posttls::case::{Action, Outcome};

use crate::evidence::Row;
use crate::ledger::{Click, tag_of};
use crate::plan::{self, Fate, MANDATORY, TRUSTED};
use crate::verdict::Court;

impl Court<'_> {
    /// Is a final decision one that somebody made who may?
    pub fn decision(
        &self,
        to: &str,
        row: &Row,
        action: Action,
        actor: &str,
        at: i64,
        wrong: &mut Vec<String>,
    ) {
        let domain = to.rsplit('@').next().unwrap_or_default();
        let is_fine = match actor {
            "link" => {
                let by_one = self.asked.contains(&(to.to_owned(), action))
                    || self.asked.contains(&(tag_of(to).to_owned(), action));
                let of_all = |click: &Click| {
                    let meant = |(what, of): &(Action, Option<String>)| {
                        *what == action && of.as_deref().is_none_or(|of| of == domain)
                    };
                    click.sender == row.sender && click.bulk.as_ref().is_some_and(meant)
                };
                by_one || self.clicks.iter().any(of_all)
            }
            "consent" => {
                action == Action::Send
                    && domain == TRUSTED
                    && row.sender.starts_with("trusts@")
                    && (self.turns.revoked == 0 || at <= self.turns.revoked)
            }
            "mandatory" => {
                action == Action::Delete
                    && domain == MANDATORY
                    && self.turns.listed.0 > 0
                    && at >= self.turns.listed.0
            }
            _ => false,
        };
        if !is_fine {
            wrong.push(format!("nobody who may has decided {action} ({actor})"));
        }
        if action == Action::Send {
            if plan::domain_of(to).fate == Fate::NeverSent {
                wrong.push("it must not be sent unencrypted".to_owned());
            }
            if domain == MANDATORY && self.turns.listed.1 > 0 && at > self.turns.listed.1 {
                wrong.push("its domain was mandatory by then".to_owned());
            }
        }
    }

    /// Every click that was answered is carried out as the answer says.
    pub fn answers(&mut self) {
        for click in &self.clicks {
            for (to, outcome) in click.answered.iter().flatten() {
                let row = self.evidence.rows.get(to).and_then(|rows| rows.first());
                let decided = row
                    .and_then(|row| row.decision.as_ref())
                    .map(|(action, ..)| *action);
                let asked = click
                    .asked
                    .iter()
                    .find(|(one, _)| one == to)
                    .map(|(_, action)| *action);
                let asked = asked
                    .or(click.whole.as_ref().map(|(_, action)| *action))
                    .or(click.bulk.as_ref().map(|(action, _)| *action));
                let is_true = match outcome {
                    Outcome::Released => decided == Some(Action::Send) && asked == decided,
                    Outcome::Deleted => decided == Some(Action::Delete) && asked == decided,
                    Outcome::Recorded => decided.is_some() && asked == decided,
                    Outcome::Kept => row.is_some_and(|row| row.kept) && asked == Some(Action::Keep),
                    Outcome::AlreadyDecided => decided.is_some(),
                    Outcome::AlreadyDelivered | Outcome::AlreadyGone => {
                        plan::domain_of(to).fate == Fate::Turns
                    }
                    // No server that the encrypt instance talks to over TLS in a campaign refuses for good later on.
                    Outcome::AlreadyReturned => false,
                    // The campaign's clicks say nothing of what their pages knew.
                    Outcome::Changed => {
                        row.is_none_or(|row| row.judged_late)
                            || plan::domain_of(to).fate == Fate::Turns
                    }
                    Outcome::NotPossible => {
                        row.is_none_or(|row| !row.may_send || row.judged_late)
                            || plan::domain_of(to).fate == Fate::Busy
                    }
                };
                if !is_true {
                    let what =
                        format!("{to}: {asked:?} was answered with {outcome}; store {row:?}");
                    self.verdict.violations.push(what);
                }
            }
        }
    }
}
