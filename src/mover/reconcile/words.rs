//! What lies where, and what to do, as logs, cases and `posttls resolve` say it.

use super::files::Unknown;
use super::{Here, Source};
use crate::postfix::{Instance, Queue, RecipientState};

/// Addresses named in one sentence.
const NAMED: usize = 10;

impl Here<'_> {
    pub(super) fn told(&self, copy: Option<&Unknown>) -> String {
        let encrypt = self.pair.encrypt.config_dir.display();
        let id = &self.file.id;
        let place = place(self.file.queue);
        let done = names(self.source, RecipientState::Done);
        let waiting = names(self.source, RecipientState::Pending);
        let marks = if done.is_empty() {
            String::new()
        } else {
            format!(", done with {done}")
        };
        let rest = if waiting.is_empty() {
            "for nobody else".to_owned()
        } else {
            format!("waiting for {waiting}")
        };
        let message = format!("the message is {place} in the encrypt instance{marks}, {rest}");
        let free = if waiting.is_empty() {
            format!("remove the message with postsuper -c {encrypt} -d {id}")
        } else {
            format!("let it go on with postsuper -c {encrypt} -H {id}")
        };
        let Some(copy) = copy else {
            return if self.file.unfinished {
                format!(
                    "{UNKNOWN}: {message}, sealed by a move whose copy is not there; compare the mail logs, then {free}"
                )
            } else {
                format!(
                    "{message}: by a delivery that nobody saw, or by a move that the journal does not know (was the \
                     store restored?). If you have not put it on hold, compare the mail logs, then {free}"
                )
            };
        };
        let may = self.pair.may;
        format!(
            "{UNKNOWN}: {message}; {}; then {free}",
            told_of_copy(may, copy)
        )
    }
}

pub(super) const UNKNOWN: &str = "in the queues is what a move has left that the journal does not know (was the store restored, or begun anew?)";

fn place(queue: Queue) -> String {
    match queue {
        Queue::Hold => "on hold".to_owned(),
        other => format!("in the {} queue", other.as_str()),
    }
}

/// Addresses of a queue file, as they are shown in logs.
fn names(source: &Source, state: RecipientState) -> String {
    let all = source.content.recipients.iter();
    let mut all = all.filter(|one| one.state == state);
    let shown: Vec<String> = all
        .by_ref()
        .take(NAMED)
        .map(|one| format!("<{}>", crate::text::shown(&crate::octets::text(&one.bytes))))
        .collect();
    match all.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

pub(super) fn told_of_copy(may: &Instance, copy: &Unknown) -> String {
    let (name, at) = (&copy.file.id, may.config_dir.display());
    let whom = names(&copy.source, RecipientState::Pending);
    let place = place(copy.file.queue);
    if copy.file.queue != Queue::Hold {
        return format!(
            "its copy {name} for {whom} is {place} in the may instance, which sends it"
        );
    }
    format!(
        "its copy {name} for {whom} is {place} in the may instance, and not sent: compare the mail logs, then send it with \
         postsuper -c {at} -H {name}, or remove it with postsuper -c {at} -d {name}"
    )
}
