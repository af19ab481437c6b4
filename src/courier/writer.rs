//! Writes one mail: claim it, compose it, hand it to the server, record what it told. Shared by the hook and the courier,
//! so that the two never tell a sender the same.

use std::borrow::Cow;

use log::{error, info, warn};

use super::rules::{self, NotNow};
use crate::address::Address;
use crate::case::store::{
    Alert, LetterClaim, LetterId, Owed, Receipt, Store, StoreError, Wanted, now_ms,
};
use crate::case::{Case, CaseId, LetterKind, News, Recipient, RecipientState, alert};
use crate::config::Config;
use crate::domain::Domain;
use crate::link::{KeyFileError, Keys};
use crate::notify::{
    self, About, ComposeError, ConsentLine, Draft, Letter, Line, Overrides, Reminder, SendError,
    TemplateError,
};

/// How long a case that a notice announced is left to the hook, in milliseconds: it is probably about to write.
pub const HOOK_MS: i64 = 5_000;
/// Days that the link to revoke a remembered choice outlives it, so that its page can say that it is over.
const CONSENT_LINK_DAYS: i64 = 30;
const DAY_SECONDS: i64 = 86_400;

/// Why a mail could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The link key can't be read.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A template of the admin's can't be read.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// It can't be composed.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The server did not take it.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl Trouble {
    /// Will it be no better by itself?
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Compose(_) => true,
            Self::Send(error) => error.is_permanent(),
            Self::Store(_) | Self::Key(_) | Self::Template(_) => false,
        }
    }

    /// Will it never be better, whatever the mail server does? Then it is said once, and not tried again.
    pub fn is_hopeless(&self) -> bool {
        matches!(self, Self::Compose(ComposeError::Address(_)))
    }

    /// Is it about this one mail, so that others may well be sent?
    pub fn is_about_one(&self) -> bool {
        match self {
            Self::Compose(_) => true,
            Self::Send(error) => error.is_answer(),
            Self::Store(_) | Self::Key(_) | Self::Template(_) => false,
        }
    }
}

/// What became of the wish to tell a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The server took the mail.
    Sent,
    /// There was nothing to tell.
    Nothing,
    /// Another process is at it.
    Elsewhere,
    /// The limits say: later.
    NotNow(NotNow),
}

/// What it takes to write.
pub struct Writer<'a> {
    /// What is owed, and to whom.
    pub store: &'a Store,
    /// Limits and texts.
    pub config: &'a Config,
    keys: Keys,
    overrides: Overrides,
}

/// A mail ready to go, and what it tells.
type Written<'d> = (Draft<'d>, Receipt);

impl<'a> Writer<'a> {
    /// Reads the link key and the admin's own templates.
    ///
    /// # Errors
    /// When that does not work.
    pub fn new(store: &'a Store, config: &'a Config) -> Result<Self, Trouble> {
        Ok(Self {
            store,
            config,
            keys: Keys::load(&config.link.key_file)?,
            overrides: notify::overrides(&config.notification.template_dir)?,
        })
    }

    /// The mail that somebody wants to write.
    pub fn wanted<'s>(
        &self,
        sender: &'s Address,
        kind: LetterKind,
        case: Option<CaseId>,
    ) -> Wanted<'s> {
        Wanted {
            sender,
            case,
            kind,
            period_ms: rules::window_ms(&self.config.limits),
            ceiling: self.config.limits.per_hour,
            hook_ms: HOOK_MS,
        }
    }

    /// Tells a sender that recipients of one message wait. `before_sending` is called when the mail is composed.
    ///
    /// # Errors
    /// When it could not be sent; then nothing was paid.
    pub fn tell(
        &self,
        sender: &Address,
        case: &Case,
        before_sending: impl FnOnce(),
    ) -> Result<Told, Trouble> {
        self.write(sender, LetterKind::Notification, Some(case), || {
            let paid = self.store.owed_about(case.id)?;
            let mut recipients = self.store.recipients(case.id)?;
            recipients.retain(Recipient::is_senders);
            if !recipients
                .iter()
                .any(|one| one.state == RecipientState::Open)
            {
                return Ok(None);
            }
            let draft = self.about_one(sender, case, &recipients, None)?;
            before_sending();
            let receipt = Receipt {
                paid,
                told: vec![(case.id, self.first_reminder(case))],
                ..Receipt::default()
            };
            Ok(Some((draft, receipt)))
        })
    }

    /// Tells a sender in one mail that recipients of several messages wait.
    ///
    /// # Errors
    /// When it could not be sent; then nothing was paid.
    pub fn tell_together(&self, sender: &Address) -> Result<Told, Trouble> {
        self.write(sender, LetterKind::Digest, None, || {
            // Read under the claim, which keeps hooks from writing: what one of them told before is no longer owed, and
            // what one of them is telling is left out.
            let mut owed = self.store.owed_to(sender, HOOK_MS)?;
            owed.retain(|one| one.news == News::Stuck);
            let mut messages: Vec<About> = Vec::new();
            let mut paid = Vec::with_capacity(owed.len());
            for one in &owed {
                paid.push((one.recipient, one.news));
                match messages
                    .iter_mut()
                    .rev()
                    .find(|about| about.case.id == one.case)
                {
                    Some(about) => about.waiting.push(one.written.name(&one.address)),
                    None => {
                        if let Some(case) = self.store.case(one.case)? {
                            let waiting = vec![one.written.name(&one.address)];
                            messages.push(About { case, waiting });
                        }
                    }
                }
            }
            if messages.is_empty() {
                return Ok(None);
            }
            let draft = self.about_many(sender, &messages, None)?;
            let told = messages
                .iter()
                .map(|about| (about.case.id, self.first_reminder(&about.case)))
                .collect();
            let receipt = Receipt {
                paid,
                told,
                ..Receipt::default()
            };
            Ok(Some((draft, receipt)))
        })
    }

    /// Reminds a sender of messages that still wait: each with when the reminder is due, and when the sender was told.
    ///
    /// # Errors
    /// When it could not be sent.
    pub fn remind(&self, sender: &Address, due: &[(Case, i64, i64)]) -> Result<Told, Trouble> {
        let only = match due {
            [(case, ..)] => Some(case),
            _ => None,
        };
        self.write(sender, LetterKind::Reminder, only, || {
            let now = now_ms();
            let next: Vec<(CaseId, Option<i64>)> = due
                .iter()
                .map(|(case, at, told)| {
                    let reminders = &self.config.reminders;
                    let after = now.max(*at);
                    (
                        case.id,
                        rules::next_reminder(reminders, *told, after, case.retry_until),
                    )
                })
                .collect();
            let reminder = Reminder {
                last: next.iter().all(|(_, next)| next.is_none()),
            };
            let mut messages = Vec::with_capacity(due.len());
            for (case, ..) in due {
                let mut recipients = self.store.recipients(case.id)?;
                recipients.retain(Recipient::is_senders);
                let waiting: Vec<String> = recipients
                    .iter()
                    .filter(|one| one.state == RecipientState::Open)
                    .map(Recipient::name)
                    .collect();
                if !waiting.is_empty() {
                    let case = case.clone();
                    messages.push((About { case, waiting }, recipients));
                }
            }
            let draft = match messages.as_slice() {
                [] => return Ok(None),
                [(about, recipients)] => {
                    self.about_one(sender, &about.case, recipients, Some(reminder))?
                }
                many => {
                    let many: Vec<About> = many.iter().map(|(about, _)| about.clone()).collect();
                    self.about_many(sender, &many, Some(reminder))?
                }
            };
            let receipt = Receipt {
                reminded: next,
                ..Receipt::default()
            };
            Ok(Some((draft, receipt)))
        })
    }

    /// Tells a sender what happened and leaves nothing to decide.
    ///
    /// # Errors
    /// When it could not be sent; then nothing was paid.
    pub fn inform(&self, sender: &Address, owed: &[Owed]) -> Result<Told, Trouble> {
        self.write(sender, LetterKind::Information, None, || {
            let mut lines = Vec::with_capacity(owed.len());
            for one in owed {
                lines.extend(self.line(one)?);
            }
            if lines.is_empty() {
                return Ok(None);
            }
            let to = lines
                .first()
                .map_or(sender, |one| as_spelt(&one.case, sender));
            let draft = Draft::information(to, &self.config.notification, &lines)?;
            let paid = owed.iter().map(|one| (one.recipient, one.news)).collect();
            let receipt = Receipt {
                paid,
                ..Receipt::default()
            };
            Ok(Some((draft, receipt)))
        })
    }

    /// Tells the admin. Mails to the admin are not counted by the limits.
    ///
    /// # Errors
    /// When it could not be sent.
    pub fn alert(&self, admin: &Address, alerts: &[Alert]) -> Result<(), Trouble> {
        let draft = Draft::alert(admin, &self.config.notification, alerts)?;
        let letter = self.compose(&draft, "mail to the admin")?;
        notify::send(&letter, &self.config.notification)?;
        self.store.alerts_told(alerts)?;
        Ok(())
    }

    /// Asks for a mail to the admin about a ceiling that holds mail to `sender` back.
    ///
    /// # Errors
    /// When the store fails.
    pub fn raise_ceiling(&self, sender: &Address, why: NotNow) -> Result<(), StoreError> {
        let cause = match why {
            NotNow::Gathering(_) => return Ok(()),
            NotNow::SenderCeiling(_) => alert::SENDER_CEILING,
            NotNow::Ceiling(_) => alert::CEILING,
        };
        self.store.raise_alert(cause, &format!("from=<{sender}>"))
    }

    /// The steps that all mails to senders have in common.
    fn write<'d>(
        &self,
        sender: &Address,
        kind: LetterKind,
        about: Option<&Case>,
        draft: impl FnOnce() -> Result<Option<Written<'d>>, Trouble>,
    ) -> Result<Told, Trouble> {
        let limits = &self.config.limits;
        let wanted = self.wanted(sender, kind, about.map(|case| case.id));
        let claim = self.store.claim_letter(&wanted, |history, now| {
            rules::may_write(kind, history, limits, now)
        })?;
        let letter = match claim {
            LetterClaim::Yours(letter) => letter,
            LetterClaim::NothingOwed => return Ok(Told::Nothing),
            LetterClaim::Elsewhere => return Ok(Told::Elsewhere),
            LetterClaim::NotNow(why) => return Ok(Told::NotNow(why)),
        };
        let result = self.send(sender, kind, about, letter, draft);
        match &result {
            Ok(Told::Sent) => {}
            Ok(_) => self.store.withdraw_letter(letter, None)?,
            Err(trouble) => {
                // What may be better soon is tried again soon, and would fill the history.
                let why = trouble.to_string();
                let event = about.filter(|_| trouble.is_permanent());
                let event = event.map(|case| (case.id, why.as_str()));
                self.store.withdraw_letter(letter, event)?;
                if trouble.is_permanent() {
                    let detail = format!("{}from=<{sender}>: {why}", prefix(about));
                    let cause = if trouble.is_hopeless() {
                        alert::UNWRITABLE
                    } else {
                        alert::REFUSED
                    };
                    self.store.raise_alert(cause, &detail)?;
                }
            }
        }
        result
    }

    fn send<'d>(
        &self,
        sender: &Address,
        kind: LetterKind,
        about: Option<&Case>,
        letter: LetterId,
        draft: impl FnOnce() -> Result<Option<Written<'d>>, Trouble>,
    ) -> Result<Told, Trouble> {
        let Some((draft, receipt)) = draft()? else {
            return Ok(Told::Nothing);
        };
        let prefix = prefix(about);
        let mail = self.compose(&draft, &prefix)?;
        let settings = &self.config.notification;
        notify::send(&mail, settings)?;
        let what = match kind {
            LetterKind::Notification => Cow::Borrowed("notified"),
            LetterKind::Digest => format!("notified of {} messages", receipt.told.len()).into(),
            LetterKind::Reminder => {
                format!("reminded of {} messages", receipt.reminded.len()).into()
            }
            LetterKind::Information => {
                format!("informed about {} recipients", receipt.paid.len()).into()
            }
        };
        info!(
            "{prefix}from=<{sender}>, {what}, relay={}:{}",
            settings.smtp_host, settings.smtp_port
        );
        // The sender has it: to try again because this fails would only write twice.
        if let Err(error) = self.store.letter_sent(letter, sender, &receipt) {
            warn!(
                "{prefix}from=<{sender}>: the mail was sent, but that could not be recorded: {error}"
            );
        }
        Ok(Told::Sent)
    }

    /// The sender must hear even when the admin's own template is broken.
    fn compose(&self, draft: &Draft<'_>, prefix: &str) -> Result<Letter, ComposeError> {
        draft.compose(&self.overrides).or_else(|error| {
            if !matches!(error, ComposeError::Template { .. }) {
                return Err(error);
            }
            error!("{prefix}{error}; using the built-in templates");
            draft.compose(&Overrides::new())
        })
    }

    fn first_reminder(&self, case: &Case) -> Option<i64> {
        let now = now_ms();
        rules::next_reminder(&self.config.reminders, now, now, case.retry_until)
    }

    fn about_one<'d>(
        &'d self,
        sender: &Address,
        case: &Case,
        recipients: &[Recipient],
        reminder: Option<Reminder>,
    ) -> Result<Draft<'d>, Trouble> {
        let expiry = case.link_expiry(self.config.link.valid_days);
        let url = self.config.case_url(&self.keys.sign(case.id, expiry));
        let settings = &self.config.notification;
        Ok(Draft::notification(
            as_spelt(case, sender),
            settings,
            case,
            recipients,
            &url,
            reminder,
        )?)
    }

    fn about_many<'d>(
        &'d self,
        sender: &Address,
        messages: &[About],
        reminder: Option<Reminder>,
    ) -> Result<Draft<'d>, Trouble> {
        let days = self.config.link.valid_days;
        let expiries = messages.iter().map(|about| about.case.link_expiry(days));
        let id = self.store.sender_id(sender)?;
        let token = self.keys.sign(id, expiries.max().unwrap_or_default());
        let url = self.config.sender_url(&token);
        let settings = &self.config.notification;
        let to = messages
            .first()
            .map_or(sender, |one| as_spelt(&one.case, sender));
        let draft = Draft::digest(to, settings, messages, messages.len(), &url, reminder)?;
        Ok(draft)
    }

    fn line(&self, owed: &Owed) -> Result<Option<Line>, Trouble> {
        let Some(case) = self.store.case(owed.case)? else {
            return Ok(None);
        };
        let domain = match Domain::of(&owed.address) {
            Some(domain) if owed.news == News::Mandatory => {
                // It may have been taken off the list since.
                let listed = self.store.mandatory_for(&domain)?;
                Some(listed.unwrap_or(domain).as_str().to_owned())
            }
            _ => None,
        };
        let consent = match owed.consent {
            Some(id) => self.store.consent(id)?.map(|consent| {
                let until = consent.expires_at / 1000;
                let token = self.keys.sign(id, until + CONSENT_LINK_DAYS * DAY_SECONDS);
                ConsentLine {
                    target: consent.target,
                    until,
                    url: self.config.consent_url(&token),
                }
            }),
            None => None,
        };
        Ok(Some(Line {
            news: owed.news,
            recipient: owed.written.name(&owed.address),
            case,
            domain,
            consent: consent.filter(|_| owed.news == News::Consent),
            said: owed.said.clone().filter(|said| {
                !said.is_empty() && matches!(owed.news, News::Returned | News::Waiting)
            }),
        }))
    }
}

/// The person, as a message of theirs spells it: our own spelling may be one that their mail server does not know.
fn as_spelt<'c>(case: &'c Case, person: &'c Address) -> &'c Address {
    case.key.sender.as_ref().unwrap_or(person)
}

/// Log lines about one message begin with its queue ID.
fn prefix(about: Option<&Case>) -> String {
    about.map_or_else(String::new, |case| format!("{}: ", case.key.queue_id))
}
