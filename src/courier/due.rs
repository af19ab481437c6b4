//! One round of the courier: who is owed what now, and what is tried again when. Pauses are in memory only: a courier
//! that was just started tries everything at once. They are counted by a clock that nobody can set: a step back of the
//! host's must not silence the courier for as long.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Instant;

use log::{error, info, warn};

use super::rules::{self, HOUR_MS, MINUTE_MS, NotNow};
use super::writer::{HOOK_MS, Told, Trouble, Writer};
use crate::address::Address;
use crate::case::store::{Alert, Owed, now_ms};
use crate::case::{CaseId, LetterKind, News, alert};

const SECOND_MS: i64 = 1_000;
/// What has to wait for the limits is looked at again after this at the latest.
const LOOK_AGAIN_MS: i64 = 5 * SECOND_MS;
/// Informations that could not be sent for so long are given up: the server refuses them, or there is none.
const GIVE_UP_MS: i64 = 7 * 24 * HOUR_MS;

/// Shortest and longest pause after a failure, in milliseconds.
const SERVER_PAUSE: (i64, i64) = (SECOND_MS, MINUTE_MS);
const SENDER_PAUSE: (i64, i64) = (2 * SECOND_MS, 10 * MINUTE_MS);
const REFUSED_PAUSE: (i64, i64) = (MINUTE_MS, HOUR_MS);
/// Of a sender in whose mail the server fell silent: longer than the server's own, so that the others have their turn.
const SILENT_PAUSE: (i64, i64) = (2 * SERVER_PAUSE.0, 2 * SERVER_PAUSE.1);

/// Milliseconds since this process first asked, plus one.
pub(super) fn ticks() -> i64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    1 + i64::try_from(START.elapsed().as_millis()).unwrap_or(i64::MAX - 1)
}

/// When something is tried again by [`ticks`], and how long it was put off the last time.
#[derive(Debug, Default, Clone, Copy)]
struct Pause {
    until: i64,
    length: i64,
}

impl Pause {
    /// Puts off, longer from time to time. The new length, in milliseconds.
    fn grow(&mut self, now: i64, (least, most): (i64, i64)) -> i64 {
        self.length = (self.length * 2).clamp(least, most);
        self.until = now + self.length;
        self.length
    }
}

/// What waits on its own: a sender's messages need not wait for what is wrong with the informations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Class {
    Stuck,
    Reminder,
    Information,
}

/// What the courier remembers from round to round.
pub(super) struct Rounds<'a> {
    writer: Writer<'a>,
    pauses: HashMap<(String, Class), Pause>,
    server: Pause,
    admin: Pause,
    /// Ceilings of which the admin has been told, and until when by [`ticks`] that is enough.
    ceilings: HashMap<String, i64>,
    cleaned_at: Option<i64>,
    /// When released mail that still waits was last looked for, by [`ticks`].
    looked_at: Option<i64>,
    ended: &'a AtomicBool,
    /// Since when a mail is being written, by [`ticks`]; 0 for none. For who watches that it does not hang.
    busy_since: &'a AtomicI64,
}

impl<'a> Rounds<'a> {
    pub(super) fn new(
        writer: Writer<'a>,
        ended: &'a AtomicBool,
        busy_since: &'a AtomicI64,
    ) -> Self {
        Self {
            writer,
            pauses: HashMap::new(),
            server: Pause::default(),
            admin: Pause::default(),
            ceilings: HashMap::new(),
            cleaned_at: None,
            looked_at: None,
            ended,
            busy_since,
        }
    }

    /// Pays what is due. What the mail server does not take is tried again in a later round.
    ///
    /// # Errors
    /// When the store fails: SQLite found its files unusable when it opened them, and would never look again.
    pub(super) fn tick(&mut self) -> Result<(), Trouble> {
        if ticks() < self.server.until {
            return Ok(());
        }
        match self.round() {
            Ok(()) => self.server = Pause::default(),
            Err(trouble @ Trouble::Store(_)) => return Err(trouble),
            Err(trouble) => {
                let pause = self.server.grow(ticks(), SERVER_PAUSE);
                error!(
                    "mail to senders waits: {trouble}; next try in {} s",
                    pause / SECOND_MS
                );
            }
        }
        Ok(())
    }

    fn round(&mut self) -> Result<(), Trouble> {
        let now = ticks();
        self.pauses.retain(|_, pause| pause.until + HOUR_MS > now);
        self.ceilings.retain(|_, until| *until > now);
        self.waiting()?;
        for sender in self.writer.store.senders_owed()? {
            self.news(&sender)?;
        }
        for sender in self.writer.store.senders_to_remind(now_ms())? {
            self.reminders(&sender)?;
        }
        self.alerts()?;
        if self.cleaned_at.is_none_or(|at| now - at > HOUR_MS) {
            self.writer.store.forget_letters()?;
            self.cleaned_at = Some(now);
        }
        Ok(())
    }

    /// Owes it to senders that what they released still waits, once a minute.
    fn waiting(&mut self) -> Result<(), Trouble> {
        let hours = self.writer.config.notification.tell_waiting_hours;
        let now = ticks();
        if hours == 0 || self.looked_at.is_some_and(|at| now - at < MINUTE_MS) {
            return Ok(());
        }
        loop {
            let some = self.writer.store.owe_waiting(hours)?;
            if some.is_empty() {
                break;
            }
            for one in some {
                warn!(
                    "{}: to=<{}>, decided to be sent, and not delivered after {hours} h: {}",
                    one.queue_id,
                    one.address,
                    one.said.as_deref().unwrap_or("not tried yet")
                );
            }
        }
        self.looked_at = Some(now);
        Ok(())
    }

    fn may_go_on(&self, sender: &Address, class: Class) -> bool {
        let pause = self.pauses.get(&(sender.as_str().to_owned(), class));
        !self.ended.load(Ordering::SeqCst) && pause.is_none_or(|pause| pause.until <= ticks())
    }

    /// Writes one mail.
    fn busy<T>(&self, write: impl FnOnce(&Writer<'a>) -> T) -> T {
        self.busy_since.store(ticks(), Ordering::SeqCst);
        let result = write(&self.writer);
        self.busy_since.store(0, Ordering::SeqCst);
        result
    }

    fn news(&mut self, sender: &Address) -> Result<(), Trouble> {
        let (stuck, information) = (
            self.may_go_on(sender, Class::Stuck),
            self.may_go_on(sender, Class::Information),
        );
        if !stuck && !information {
            return Ok(());
        }
        let owed = self.writer.store.owed_to(sender, HOOK_MS)?;
        let (waiting, done): (Vec<Owed>, Vec<Owed>) =
            owed.into_iter().partition(|one| one.news == News::Stuck);
        if stuck && !waiting.is_empty() {
            self.stuck(sender, &waiting)?;
        }
        if information && !done.is_empty() {
            self.information(sender, &done)?;
        }
        Ok(())
    }

    fn stuck(&mut self, sender: &Address, owed: &[Owed]) -> Result<(), Trouble> {
        let limits = &self.writer.config.limits;
        let wanted = self.writer.wanted(sender, LetterKind::Digest, None);
        let history = self.writer.store.letter_history(&wanted)?;
        let now = now_ms();
        if let Err(why) = rules::may_write(LetterKind::Digest, &history, limits, now) {
            return self.note(sender, Class::Stuck, Ok(Told::NotNow(why)));
        }
        let mut known = HashSet::new();
        let mut cases: Vec<CaseId> = owed.iter().map(|one| one.case).collect();
        cases.retain(|id| known.insert(*id));
        if !rules::one_by_one(cases.len(), &history, limits, now) && cases.len() > 1 {
            let told = self.busy(|writer| writer.tell_together(sender));
            return self.note(sender, Class::Stuck, told);
        }
        for id in cases {
            let Some(case) = self.writer.store.case(id)? else {
                continue;
            };
            let told = self.busy(|writer| writer.tell(sender, &case, || {}));
            if matches!(told, Ok(Told::Nothing)) {
                let stale: Vec<&Owed> = owed.iter().filter(|one| one.case == id).collect();
                self.writer.store.drop_news(&stale, "")?;
            }
            self.note(sender, Class::Stuck, told)?;
            if !self.may_go_on(sender, Class::Stuck) {
                break;
            }
        }
        Ok(())
    }

    fn information(&mut self, sender: &Address, owed: &[Owed]) -> Result<(), Trouble> {
        let store = self.writer.store;
        let unwanted = |one: &&Owed| {
            one.news == News::Delivered && !self.writer.config.notification.tell_delivered
        };
        // Without a failure it is the clock that has made a leap, and the mail can be sent.
        let tried = self
            .pauses
            .get(&(sender.as_str().to_owned(), Class::Information));
        let failed = tried.is_some_and(|pause| pause.length > 0);
        let old = |one: &&Owed| failed && one.since < now_ms() - GIVE_UP_MS;
        let useless: Vec<&Owed> = owed.iter().filter(unwanted).collect();
        store.drop_news(&useless, "")?;
        let given_up: Vec<&Owed> = owed
            .iter()
            .filter(|one| old(one) && !unwanted(one))
            .collect();
        if !given_up.is_empty() {
            error!(
                "from=<{sender}>: {} informations could not be mailed for seven days and are given up",
                given_up.len()
            );
            store.drop_news(&given_up, "could not be mailed for seven days")?;
        }
        let rest: Vec<Owed> = owed
            .iter()
            .filter(|one| !unwanted(one) && !old(one))
            .cloned()
            .collect();
        if rest.is_empty() {
            return Ok(());
        }
        let told = self.busy(|writer| writer.inform(sender, &rest));
        self.note(sender, Class::Information, told)
    }

    fn reminders(&mut self, sender: &Address) -> Result<(), Trouble> {
        if !self.may_go_on(sender, Class::Reminder) {
            return Ok(());
        }
        // What would be due within the window goes into the same mail.
        let until = now_ms() + rules::window_ms(&self.writer.config.limits);
        let due = self.writer.store.cases_to_remind(sender, until)?;
        if due.is_empty() {
            return Ok(());
        }
        let told = self.busy(|writer| writer.remind(sender, &due));
        self.note(sender, Class::Reminder, told)
    }

    /// Draws the conclusion for the next rounds. An error is passed on when it concerns more than this mail.
    fn note(
        &mut self,
        sender: &Address,
        class: Class,
        told: Result<Told, Trouble>,
    ) -> Result<(), Trouble> {
        let now = ticks();
        let key = (sender.as_str().to_owned(), class);
        match told {
            Ok(Told::Sent) => {
                self.pauses.remove(&key);
                Ok(())
            }
            Ok(Told::Nothing) => Ok(()),
            Ok(Told::Elsewhere) => {
                self.look_again(key, now + LOOK_AGAIN_MS);
                Ok(())
            }
            Ok(Told::NotNow(why)) => {
                let wait = (why.until() - now_ms()).min(LOOK_AGAIN_MS);
                self.look_again(key, now + wait);
                self.ceiling(sender, why)
            }
            Err(trouble) if trouble.is_hopeless() => self.give_up(sender, &trouble),
            Err(trouble) if trouble.is_about_one() => {
                let range = if trouble.is_permanent() {
                    REFUSED_PAUSE
                } else {
                    SENDER_PAUSE
                };
                let pause = self.pauses.entry(key).or_default().grow(now, range);
                warn!(
                    "from=<{sender}>: cannot be told now: {trouble}; next try in {} s",
                    pause / SECOND_MS
                );
                Ok(())
            }
            Err(trouble) => {
                // It may be this mail that the server can't cope with.
                let pause = self.pauses.entry(key).or_default();
                pause.grow(now, SILENT_PAUSE);
                Err(trouble)
            }
        }
    }

    /// Nothing that the sender is owed can ever be mailed.
    fn give_up(&self, sender: &Address, trouble: &Trouble) -> Result<(), Trouble> {
        error!("from=<{sender}>: can't be told, and is not tried again: {trouble}");
        let store = self.writer.store;
        let owed = store.owed_to(sender, 0)?;
        store.drop_news(&owed.iter().collect::<Vec<_>>(), "could not be written")?;
        Ok(())
    }

    fn look_again(&mut self, key: (String, Class), until: i64) {
        self.pauses.insert(key, Pause { until, length: 0 });
    }

    /// Once an hour the admin hears that a ceiling holds mail back.
    fn ceiling(&mut self, sender: &Address, why: NotNow) -> Result<(), Trouble> {
        let key = match why {
            NotNow::Gathering(_) => return Ok(()),
            NotNow::SenderCeiling(_) => sender.as_str().to_owned(),
            NotNow::Ceiling(_) => String::new(),
        };
        let now = ticks();
        if self.ceilings.get(&key).is_none_or(|until| *until <= now) {
            self.ceilings.insert(key, now + HOUR_MS);
            warn!("from=<{sender}>: mail waits: {why}");
            self.writer.raise_ceiling(sender, why)?;
        }
        Ok(())
    }

    fn alerts(&mut self) -> Result<(), Trouble> {
        let now = ticks();
        if now < self.admin.until || self.ended.load(Ordering::SeqCst) {
            return Ok(());
        }
        let due = self.writer.store.alerts_due()?;
        if due.is_empty() {
            return Ok(());
        }
        let Some(admin) = self.writer.config.notification.admin_address.clone() else {
            self.writer.store.alerts_told(&due)?;
            due.iter().for_each(complain);
            return Ok(());
        };
        match self.busy(|writer| writer.alert(&admin, &due)) {
            Ok(()) => {
                due.iter().for_each(complain);
                info!("to=<{admin}>, the admin was told of {} matters", due.len());
                // However many causes come up one after the other, that is one mail a minute.
                self.admin = Pause {
                    until: now + MINUTE_MS,
                    length: 0,
                };
                Ok(())
            }
            Err(trouble) if trouble.is_about_one() => {
                let pause = self.admin.grow(now, REFUSED_PAUSE);
                let refused = due.iter().filter(|one| one.cause == alert::REFUSED);
                refused.for_each(complain);
                error!(
                    "to=<{admin}>: the admin can't be told: {trouble}; next try in {} s",
                    pause / SECOND_MS
                );
                Ok(())
            }
            Err(trouble) => Err(trouble),
        }
    }
}

fn complain(about: &Alert) {
    let Alert {
        cause,
        detail,
        count,
        ..
    } = about;
    error!("{cause}: {count} times, for example {detail}");
}
