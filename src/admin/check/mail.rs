//! Checks of the mail that PostTLS writes: its server, the addresses that it names, and whether anybody still waits for it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::context::Context;
use super::network::PATIENCE;
use super::{Outcome, Status, Verdict};
use crate::address::Address;
use crate::admin::cases::clock;
use crate::config::Notification;
use crate::notify::{self, Probed, SendError};

/// A session as for a mail to this address, up to DATA.
fn probe(settings: &Notification, to: Option<&Address>) -> Result<Probed, SendError> {
    let mut settings = settings.clone();
    settings.smtp_timeout_seconds = settings.smtp_timeout_seconds.min(PATIENCE.as_secs());
    notify::probe(&settings, to)
}

fn server_of(settings: &Notification) -> String {
    format!("{}:{}", settings.smtp_host, settings.smtp_port)
}

pub(super) fn server(context: &Context<'_>) -> Outcome {
    let settings = &context.config.notification;
    Ok(match probe(settings, None) {
        Ok(probed) => Verdict::ok(format!(
            "notifications: {} takes mail from here, as EHLO {} and from <>",
            server_of(settings),
            probed.hello
        )),
        Err(error) => Verdict::fail(
            format!("notifications: {error}"),
            "correct smtp_host, smtp_port, smtp_tls, smtp_user and smtp_password in posttls.toml, or start that server; \
             it must take mail from the null sender (<>) from this host",
        ),
    })
}

/// Does a server refuse an address because it is not one of its own, and it does not relay for us? There is no status of
/// its own for that, but all say it in these words.
fn is_about_relaying(words: &str, address: &Address) -> bool {
    let words = words.to_ascii_lowercase();
    let words = words.replace(&address.quoted().to_ascii_lowercase(), "");
    ["relay", "rcpthosts"]
        .iter()
        .any(|word| words.contains(word))
}

/// Does the server take mail for an address that is in the configuration under `key`? So it was `probed`.
fn taken(
    settings: &Notification,
    key: &str,
    address: &Address,
    probed: Result<Probed, SendError>,
) -> Verdict {
    let what = format!("{key} <{address}>");
    match probed {
        Err(error) => Verdict::fail(
            format!("{what}: not tried: {error}"),
            "mend what check notification-server says",
        ),
        Ok(Probed { hello, refused }) => match refused {
            None => Verdict::ok(format!("{what}: {} takes mail for it", server_of(settings))),
            Some((words, true)) => Verdict::fail(
                format!(
                    "{what}: {} refuses mail for it from EHLO {hello} and <>: {words}",
                    server_of(settings)
                ),
                format!(
                    "give {key} an address with a mailbox that somebody reads, or have that server take mail for it"
                ),
            ),
            Some((words, false)) => Verdict::warn(
                format!(
                    "{what}: {} does not take mail for it just now: {words}",
                    server_of(settings)
                ),
                "run check again in some minutes; if it stays so, read the log of that server",
            ),
        },
    }
}

pub(super) fn reply_to(at: &Context<'_>) -> Outcome {
    let settings = &at.config.notification;
    Ok(match &settings.reply_to {
        Some(address) => match probe(settings, Some(address)) {
            // What senders reply does not go this way, but by their own server.
            Ok(Probed {
                refused: Some((words, _)),
                ..
            }) if is_about_relaying(&words, address) => Verdict::new(
                Status::Skip,
                format!(
                    "notification.reply_to <{address}>: not tried whether it has a mailbox, as {} does not relay mail to \
                     it: {words}",
                    server_of(settings)
                ),
                "",
            ),
            probed => taken(settings, "notification.reply_to", address, probed),
        },
        None => Verdict::warn(
            format!(
                "notification.reply_to is not set: what senders reply goes to <{}>",
                settings.from_address
            ),
            "set it in posttls.toml to an address that somebody reads",
        ),
    })
}

pub(super) fn admin_address(at: &Context<'_>) -> Outcome {
    let settings = &at.config.notification;
    Ok(match &settings.admin_address {
        Some(address) => taken(
            settings,
            "notification.admin_address",
            address,
            probe(settings, Some(address)),
        ),
        None => Verdict::ok("notification.admin_address is not set: PostTLS writes to no admin"),
    })
}

/// Senders who wait to be told of a message.
pub(super) fn untold(at: &Context<'_>) -> Outcome {
    let Some((count, since)) = at.store()?.untold else {
        return Ok(Verdict::ok("no sender waits to be told of a message"));
    };
    let window = i64::from(at.config.limits.window_minutes) * 60_000;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let waits = i64::try_from(now.as_millis()).unwrap_or(i64::MAX) - since;
    let what = format!(
        "cases of which the sender has not been told yet: {count}, the oldest since {}",
        clock(since)
    );
    // The courier looks once a minute or so when the window is over.
    const COURIER: i64 = 120_000;
    Ok(if waits <= window + COURIER {
        Verdict::ok(format!("{what}; limits.window_minutes lets them wait"))
    } else {
        Verdict::warn(
            what,
            "a ceiling (limits), or a mail server that fails: the log of posttls says which; `posttls cases` names them",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_relay_says_nothing_about_the_mailbox() {
        let address: Address = "relay@example.org".parse().unwrap();
        for words in [
            "permanent error (554): 5.7.1 <relay@example.org>: Relay access denied",
            "transient error (454): 4.7.1 <relay@example.org>: Relay access denied",
            "550 relay not permitted",
            "550 5.7.1 <relay@example.org>... Relaying denied",
            "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
        ] {
            assert!(is_about_relaying(words, &address), "{words}");
        }
        let unknown = "550 5.1.1 <relay@example.org>: Recipient address rejected: User unknown";
        assert!(!is_about_relaying(unknown, &address));
    }
}
