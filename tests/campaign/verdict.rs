//! The comparison, recipient by recipient: what was sent and clicked, against mailboxes, queues and store.
//!
//! The only excuse is Postfix's own: smtp(8) was killed between the reply to the final dot and its mark in the queue
//! file, and the message was delivered again. Both copies came then from the same queue file, and the kill lies between
//! the begin of the first transaction and its end. A doubling of ours would be two queue files: that both instances
//! delivered, or that the may instance had a queue file that is not the one of the journal.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use posttls::case::{Action, Outcome};
use posttls::sandbox::Instance;

use crate::evidence::{Evidence, Mail};
use crate::ledger::{Click, Kill, Ledger, Sent, Turns, Victim};
use crate::news;
use crate::plan::{self, Fate};

/// What a round has come to.
#[derive(Debug, Default)]
pub struct Verdict {
    pub violations: Vec<String>,
    /// How many recipients ended how.
    pub ends: BTreeMap<&'static str, usize>,
    /// Doubled by Postfix alone.
    pub excused: usize,
}

pub struct Court<'a> {
    pub evidence: &'a Evidence,
    pub kills: Vec<Kill>,
    pub clicks: Vec<Click>,
    pub turns: Turns,
    sent: Vec<Sent>,
    /// What was asked for, one by one and by message.
    pub asked: HashSet<(String, Action)>,
    pub verdict: Verdict,
}

/// Kills and mails are dated by clocks that tick differently; and a killed smtp(8) may not have got as far as its mark
/// when the mail is in the mailbox already.
const SLACK_MS: i64 = 4_000;

impl<'a> Court<'a> {
    pub fn new(ledger: &Ledger, evidence: &'a Evidence) -> Self {
        let clicks = ledger.clicks();
        let mut asked = HashSet::new();
        for click in &clicks {
            asked.extend(click.asked.iter().cloned());
            asked.extend(click.whole.iter().cloned());
        }
        Self {
            evidence,
            kills: ledger.kills(),
            clicks,
            turns: ledger.turns(),
            sent: ledger.all_sent(),
            asked,
            verdict: Verdict::default(),
        }
    }

    pub fn judge(mut self) -> Verdict {
        let pending: BTreeMap<&str, Vec<&str>> = self.pending();
        let mut known = BTreeSet::new();
        for message in self.sent.clone() {
            let taken = message.queue_id.is_some();
            for to in &message.to {
                known.insert(to.clone());
                self.recipient(to, taken, pending.get(to.as_str()).map_or(&[], |ids| ids));
            }
        }
        let strangers = self.evidence.mails.keys().chain(self.evidence.rows.keys());
        for address in strangers {
            if !known.contains(address) {
                self.verdict
                    .violations
                    .push(format!("{address}: nobody sent to it"));
            }
        }
        let nobodys = |one: &&crate::evidence::Queued| {
            let waits = !one.pending.is_empty() && one.pending.iter().all(|to| known.contains(to));
            one.instance == Instance::May || one.queue == "hold" || !waits
        };
        let evidence = self.evidence;
        for one in evidence
            .queued
            .iter()
            .filter(nobodys)
            .filter(|one| one.mode & 0o100 != 0 || one.queue == "hold")
        {
            let what = format!("{one:?}: nobody answers for it");
            self.verdict.violations.push(what);
        }
        for (id, from) in &evidence.active {
            if plan::SENDERS.iter().any(|(sender, _)| sender == from)
                && !evidence.copies.contains(id)
            {
                let what =
                    format!("{id} from {from} went out by the may instance, and no journal has it");
                self.verdict.violations.push(what);
            }
        }
        self.answers();
        news::judge(&self)
            .into_iter()
            .for_each(|what| self.verdict.violations.push(what));
        self.verdict
    }

    fn pending(&self) -> BTreeMap<&'a str, Vec<&'a str>> {
        let mut pending: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for one in &self.evidence.queued {
            for to in &one.pending {
                pending.entry(to).or_default().push(&one.id);
            }
        }
        pending
    }

    /// The one recipient: all that is known of it must fit together.
    fn recipient(&mut self, to: &str, taken: bool, pending: &[&str]) {
        let evidence = self.evidence;
        let none = Vec::new();
        let mails = evidence.mails.get(to).unwrap_or(&none);
        let rows = evidence.rows.get(to).map_or(&[][..], |rows| rows);
        let fate = plan::domain_of(to).fate;
        let bounces = bounces(evidence, to);
        let mut wrong: Vec<String> = Vec::new();
        let mut excused = 0;
        if rows.len() > 1 {
            wrong.push("it has more than one row in the store".to_owned());
        }
        let row = rows.first();
        let origins: BTreeSet<&(String, String)> = mails.iter().map(|mail| &mail.origin).collect();
        if origins.len() > 1 {
            wrong.push("it got the mail from both instances".to_owned());
        }
        for pair in mails.windows(2) {
            if self.is_postfix_alone(&pair[0]) {
                excused += 1;
            } else {
                wrong.push("it got the mail twice, and no kill of smtp(8) explains it".to_owned());
            }
        }
        if bounces.len() > 1
            && !bounces[..bounces.len() - 1]
                .iter()
                .all(|mail| self.is_reported_anew(mail))
        {
            wrong.push("it was returned twice, and no kill explains it".to_owned());
        }
        let once = usize::from(!mails.is_empty());
        let by_tls = mails
            .iter()
            .all(|mail| mail.over_tls && mail.origin.0 == "encrypt");
        let end = match row.and_then(|row| row.decision.as_ref().map(|decision| (row, decision))) {
            Some((row, (action, actor, at))) => {
                self.decision(to, row, *action, actor, *at, &mut wrong);
                match row.outcome {
                    Some(Outcome::Released) => {
                        let copy = row.copy.as_deref().unwrap_or_default();
                        if row.state != "released" || *action != Action::Send {
                            wrong.push("its decision and its state differ".to_owned());
                        }
                        let by_copy = |id: &String| id == copy;
                        if mails.iter().any(|mail| mail.origin.0 != "may")
                            || !evidence
                                .ways
                                .get(to)
                                .is_none_or(|ids| ids.iter().all(by_copy))
                        {
                            wrong.push(format!(
                                "it was to get the mail by {copy} of the may instance, and not by {:?}",
                                evidence.ways.get(to)
                            ));
                        }
                        let wanted = (usize::from(fate != Fate::StuckThenRefused), pending.len());
                        let reported = bounces.is_empty() != (fate == Fate::StuckThenRefused);
                        if (once, 0) != wanted || !reported {
                            wrong.push("it was to be sent".to_owned());
                        }
                        "sent"
                    }
                    Some(Outcome::Deleted) => {
                        if row.state != "deleted"
                            || *action != Action::Delete
                            || (once, pending.len(), bounces.len()) != (0, 0, 0)
                        {
                            wrong.push("it was to be deleted".to_owned());
                        }
                        "deleted"
                    }
                    Some(Outcome::AlreadyDelivered | Outcome::AlreadyGone)
                        if fate == Fate::Turns =>
                    {
                        if (once, by_tls, pending.len()) != (1, true, 0) {
                            wrong.push("it was to have been delivered already".to_owned());
                        }
                        "delivered before the decision was carried out"
                    }
                    _ => {
                        wrong.push("its decision was not carried out".to_owned());
                        "?"
                    }
                }
            }
            None if once + pending.len() + bounces.len() == 0 && !taken => "never taken",
            None => {
                let fits = match fate {
                    Fate::Tls => (once, by_tls, pending.len(), bounces.len()) == (1, true, 0, 0),
                    Fate::Refused => (once, pending.len()) == (0, 0) && !bounces.is_empty(),
                    Fate::Busy => (once, pending.len(), bounces.len()) == (0, 1, 0),
                    Fate::Turns => (once, by_tls, pending.len(), bounces.len()) == (1, true, 0, 0),
                    Fate::Stuck | Fate::NeverSent | Fate::Mandatory | Fate::StuckThenRefused => {
                        let waits =
                            row.is_some_and(|row| row.state == "open" || row.state == "kept");
                        waits && (once, pending.len(), bounces.len()) == (0, 1, 0)
                    }
                };
                if !fits {
                    wrong
                        .push("nobody decided, and this is not what becomes of it then".to_owned());
                }
                match fate {
                    Fate::Tls | Fate::Turns => "delivered over TLS",
                    Fate::Refused => "refused and returned",
                    Fate::Busy => "tried further",
                    _ if row.is_some_and(|row| row.kept) => "kept",
                    _ => "waiting",
                }
            }
        };
        if mails.iter().any(|mail| !mail.over_tls)
            && row.is_none_or(|row| !matches!(row.decision, Some((Action::Send, ..))))
        {
            wrong.push("it got the mail in plain text, and nobody decided so".to_owned());
        }
        *self.verdict.ends.entry(end).or_default() += 1;
        self.verdict.excused += excused;
        if !wrong.is_empty() {
            let ways: Vec<_> = mails
                .iter()
                .map(|mail| (&mail.origin, mail.began, mail.arrived))
                .collect();
            let what = format!(
                "{to}: {}; mails {ways:?}, pending in {pending:?}, {} bounces, store {row:?}",
                wrong.join("; "),
                bounces.len()
            );
            self.verdict.violations.push(what);
        }
    }

    /// Was smtp(8) killed while it delivered this mail?
    fn is_postfix_alone(&self, mail: &Mail) -> bool {
        self.kills.iter().any(|kill| {
            let smtp = match &kill.victim {
                Victim::Instance(instance) => instance.as_str() == mail.origin.0,
                Victim::Service(instance, name) => {
                    instance.as_str() == mail.origin.0 && name == "smtp"
                }
                _ => false,
            };
            smtp && kill.at >= mail.began - SLACK_MS && kill.at <= mail.arrived + SLACK_MS
        })
    }

    /// Was the instance that made this report killed about then? Postfix reports at least once.
    fn is_reported_anew(&self, mail: &Mail) -> bool {
        self.kills.iter().any(|kill| {
            let from = match &kill.victim {
                Victim::Instance(instance) | Victim::Service(instance, _) => instance.as_str(),
                _ => return false,
            };
            from == mail.origin.0
                && kill.at >= mail.began - 10_000
                && kill.at <= mail.arrived + SLACK_MS
        })
    }

    /// Was somebody killed between the claim on this mail to a sender and the record that it was sent: who writes it,
    /// or who takes it?
    pub fn is_unrecorded(&self, composed: i64) -> bool {
        self.kills.iter().any(|kill| {
            let concerns = match &kill.victim {
                Victim::Mover | Victim::Point(_) | Victim::Hook => true,
                Victim::Helper(name) => name == "courier",
                Victim::Instance(instance) | Victim::Service(instance, _) => {
                    *instance == Instance::May
                }
            };
            concerns && kill.at >= composed - 2_000 && kill.at <= composed + 8_000
        })
    }
}

/// Postfix's own reports that a recipient was refused.
fn bounces<'a>(evidence: &'a Evidence, to: &str) -> Vec<&'a Mail> {
    let line = format!("Final-Recipient: rfc822; {to}\n");
    let reports = evidence
        .inbox
        .iter()
        .filter(|mail| mail.raw.contains(&line) && mail.raw.contains("Action: failed"));
    reports.collect()
}
