//! Checks that nobody can write to the hook by SMTP, or in its name. The access lists of every smtpd(8) service are read,
//! as they may say something else to every client; and each service that takes mail from here is asked in a session, of
//! which its log keeps the refusal.

use super::context::{ADDRESS, Context, DOMAIN};
use super::session::{Envelope, Tried, attempt};
use super::{Outcome, Verdict};
use crate::postfix::instance::PostfixError;
use crate::postfix::settings::list;
use crate::postfix::{Service, Settings};

/// In the order in which smtpd(8) goes through them. A reject in any of them is one.
const LISTS: [&str; 5] = [
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_recipient_restrictions",
];

/// What a list does with the address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// It refuses it, whoever comes.
    Refused,
    /// It refuses it, unless what stands before lets the client by.
    Behind(String),
    /// It does not refuse it.
    Open,
}

impl Found {
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Refused, _) | (_, Self::Refused) => Self::Refused,
            (found @ Self::Behind(_), _) | (_, found @ Self::Behind(_)) => found,
            (Self::Open, Self::Open) => Self::Open,
        }
    }
}

/// Reads a list. What comes after something that permits does not count.
fn read(settings: &Settings, restrictions: &str, check: &str) -> Result<Found, PostfixError> {
    let refuses = |before: Option<String>| before.map_or(Found::Refused, Found::Behind);
    let words = list(restrictions);
    let mut words = words.iter();
    let mut before = None;
    while let Some(word) = words.next() {
        match *word {
            "reject" => return Ok(refuses(before)),
            // The next one is only logged.
            "warn_if_reject" => {
                let takes_table = words.next().is_some_and(|word| word.starts_with("check_"));
                words.by_ref().take(usize::from(takes_table)).for_each(drop);
            }
            word if word.starts_with("permit") => return Ok(Found::Open),
            word if word == check => {
                let Some(table) = words.next() else {
                    return Ok(Found::Open);
                };
                for key in [ADDRESS, DOMAIN] {
                    let Some(action) = settings.lookup(table, key)? else {
                        continue;
                    };
                    let action = action.to_ascii_uppercase();
                    if action.starts_with("REJECT") || action.starts_with(['4', '5']) {
                        return Ok(refuses(before));
                    }
                    if action == "OK" || action.starts_with("PERMIT") {
                        return Ok(Found::Open);
                    }
                }
            }
            // A table or a server that may say OK to some client.
            word if word.starts_with("check_") => {
                let table = words.next().copied().unwrap_or_default();
                before.get_or_insert_with(|| format!("{word} {table}"));
            }
            word if is_class(settings, word) => {
                before.get_or_insert_with(|| word.to_owned());
            }
            _ => {}
        }
    }
    Ok(Found::Open)
}

fn is_class(settings: &Settings, word: &str) -> bool {
    list(settings.get("smtpd_restriction_classes")).contains(&word)
}

/// What is asked about: in words, by which restriction it is refused, in which parameter, and as what envelope.
struct Question<'a> {
    who: &'a str,
    check: &'a str,
    parameter: &'a str,
    envelope: Envelope<'a>,
}

fn refused_everywhere(at: &Context<'_>, question: &Question<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let Question {
        who,
        check,
        parameter,
        envelope,
    } = question;
    let usual = &at.config.notification.from_address;
    let (mut open, mut behind, mut tried, mut only_read) = (vec![], vec![], vec![], vec![]);
    for service in settings.running("smtpd") {
        let mut found = Found::Open;
        for name in LISTS {
            match read(settings, settings.for_service(service, name), check) {
                Ok(of_list) => found = found.or(of_list),
                Err(error) => {
                    return Ok(Verdict::fail(
                        format!("{name} of {}: {error}", service.id()),
                        "correct the table",
                    ));
                }
            }
        }
        let id = Service::id(service);
        match (attempt(settings, service, usual, envelope), found) {
            (_, Found::Open) => open.push(id),
            (Tried::Taken, _) => open.push(format!("{id} (tried from this host)")),
            (_, Found::Behind(word)) => behind.push(format!("{id} ({word})")),
            (Tried::Refused, Found::Refused) => tried.push(id),
            (Tried::Not, Found::Refused) => only_read.push(id),
        }
    }
    let todo = format!(
        "begin {parameter} with {check} and the table of encrypt-main.cf, before everything that permits, also where \
         master.cf sets {parameter} for a service"
    );
    let what = format!("{who} in {DOMAIN}");
    Ok(if !open.is_empty() {
        let open = open.join(", ");
        Verdict::fail(
            format!("encrypt instance: smtpd does not refuse {what} at {open}"),
            todo,
        )
    } else if !behind.is_empty() {
        let behind = behind.join(", ");
        Verdict::warn(
            format!(
                "encrypt instance: smtpd refuses {what} only to whom it has not let by before, at {behind}"
            ),
            todo,
        )
    } else if tried.is_empty() && only_read.is_empty() {
        Verdict::ok(format!("encrypt instance: no smtpd, so no {what}"))
    } else {
        let mut how = Vec::new();
        if !tried.is_empty() {
            how.push(format!("tried: {}", tried.join(", ")));
        }
        if !only_read.is_empty() {
            how.push(format!(
                "read, not tried, as it takes no mail from here: {}",
                only_read.join(", ")
            ));
        }
        let how = how.join("; ");
        Verdict::ok(format!("encrypt instance: smtpd refuses {what} ({how})"))
    })
}

pub(super) fn recipients(at: &Context<'_>) -> Outcome {
    let question = Question {
        who: "recipients",
        check: "check_recipient_access",
        parameter: "smtpd_recipient_restrictions",
        envelope: Envelope {
            from: "",
            to: ADDRESS,
        },
    };
    refused_everywhere(at, &question)
}

pub(super) fn senders(at: &Context<'_>) -> Outcome {
    let to = at.config.notification.from_address.quoted();
    let question = Question {
        who: "senders",
        check: "check_sender_access",
        parameter: "smtpd_sender_restrictions",
        envelope: Envelope {
            from: ADDRESS,
            to: &to,
        },
    };
    refused_everywhere(at, &question)
}
