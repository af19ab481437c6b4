//! The check that the hook can do its work: its program is run as pipe(8) would run it, as its user, with a notice that
//! is a check's (see [`crate::notice::rehearsal`]), and must say what it would record. It records nothing.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use super::context::{ADDRESS, Context, HookUser};
use super::{Outcome, Verdict};
use crate::notice::rehearsal::{CHECK_DOMAIN, Rehearsed};
use crate::postfix::command::answer;
use crate::postfix::instance::PROGRAM_PATH;
use crate::postfix::settings::list;
use crate::postfix::{QueueId, Settings};
use crate::text;

const PATIENCE: Duration = Duration::from_secs(15);
const SENDER: &str = "sender@check.posttls.invalid";
const RECIPIENT: &str = "recipient@check.posttls.invalid";

/// A queue ID of Postfix's form that nobody can guess: whoever does not read the notice can't answer it.
fn queue_id() -> Result<QueueId, String> {
    let mut random = [0u8; 5];
    getrandom::fill(&mut random).map_err(|error| format!("no random numbers: {error}"))?;
    let digits: String = random.iter().map(|octet| format!("{octet:02X}")).collect();
    digits
        .parse()
        .map_err(|_| "a made-up queue ID is none".to_owned())
}

const DATE: &str = "Thu, 1 Jan 2026 00:00:00 +0000 (UTC)";

/// What pipe(8) puts before a message by these `flags=`.
fn before(flags: &str) -> String {
    let lines = [
        ('F', format!("From {SENDER}  Thu Jan  1 00:00:00 2026\n")),
        ('R', "Return-Path: <>\n".to_owned()),
        ('O', format!("X-Original-To: {ADDRESS}\n")),
        ('D', format!("Delivered-To: {ADDRESS}\n")),
    ];
    let wanted = lines.into_iter().filter(|(flag, _)| flags.contains(*flag));
    wanted.map(|(_, line)| line).collect()
}

/// A notice as the defer service writes it.
fn notice(own: &QueueId, about: &QueueId) -> String {
    format!(
        "Received: by {CHECK_DOMAIN} (Postfix)\n\tid {own}; {DATE}\n\
         Date: {DATE}\n\
         From: MAILER-DAEMON@{CHECK_DOMAIN} (Mail Delivery System)\n\
         Subject: PostTLS check\n\
         To: notice@posttls.invalid\n\
         Auto-Submitted: auto-generated\n\
         MIME-Version: 1.0\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"check\"\n\
         \n\
         --check\n\
         Content-Type: text/plain\n\
         \n\
         This is a check.\n\
         --check\n\
         Content-Description: Delivery report\n\
         Content-Type: message/delivery-status\n\
         \n\
         Reporting-MTA: dns; {CHECK_DOMAIN}\n\
         X-Postfix-Queue-ID: {about}\n\
         X-Postfix-Sender: rfc822; {SENDER}\n\
         Arrival-Date: {DATE}\n\
         \n\
         Final-Recipient: rfc822; {RECIPIENT}\n\
         Original-Recipient: rfc822;{RECIPIENT}\n\
         Action: delayed\n\
         Status: 4.7.801\n\
         Diagnostic-Code: X-Postfix; TLS is required, but was not offered by host {CHECK_DOMAIN}[192.0.2.1]\n\
         \n\
         --check\n\
         Content-Type: text/rfc822-headers\n\
         \n\
         Received: by {CHECK_DOMAIN} (Postfix)\n\tid {about}; {DATE}\n\
         From: {SENDER}\n\
         To: {RECIPIENT}\n\
         Subject: check\n\
         \n\
         --check--\n"
    )
}

/// The command line of pipe(8), with its macros replaced as for that notice.
fn command(argv: &[&str], settings: &Settings, own: &QueueId, user: &HookUser) -> Command {
    let sender = format!("{}@{CHECK_DOMAIN}", settings.get("double_bounce_sender"));
    let words = argv.iter().map(|word| {
        word.replace("${client_address}", "")
            .replace("${sender}", &sender)
            .replace("${queue_id}", own.as_str())
    });
    let words: Vec<String> = words.collect();
    let mut command = Command::new(words.first().map_or("", String::as_str));
    command
        .args(words.get(1..).unwrap_or_default())
        .arg("--check")
        .env_clear()
        .env("PATH", PROGRAM_PATH)
        .current_dir(settings.get("queue_directory"));
    for word in list(settings.get("export_environment")) {
        let word = word.trim_matches(['{', '}']).trim();
        match word.split_once('=') {
            Some((name, value)) => drop(command.env(name.trim(), value.trim())),
            None => {
                if let Some(value) = std::env::var_os(word) {
                    command.env(word, value);
                }
            }
        }
    }
    // As root this leaves no other group.
    command.uid(user.user.uid).gid(user.group);
    command
}

pub(super) fn hook(at: &Context<'_>) -> Outcome {
    let settings = at.encrypt()?;
    let user = at.good_hook_user()?;
    let program = at.program()?;
    let what = format!("hook {}, run as user {}", program.display(), user.user.name);
    let todo = "install the posttls-pipe of this version there, and correct what it says: notices wait in the queue, or are \
                bounced, and no sender is asked";
    let (own, about) = match (queue_id(), queue_id()) {
        (Ok(own), Ok(about)) => (own, about),
        (Err(error), _) | (_, Err(error)) => return Ok(Verdict::fail(error, "see to the system")),
    };
    let service = at.hook()?;
    let argv = service.argv().unwrap_or_default();
    let mut command = command(&argv, settings, &own, &user);
    if let Some(directory) = service.attribute("directory") {
        command.current_dir(directory);
    }
    let flags = service.attribute("flags").unwrap_or_default();
    let raw = before(flags) + &notice(&own, &about);
    let output = answer(&mut command, raw.as_bytes(), PATIENCE);
    let output = match output {
        Ok(output) => output,
        Err(error) => return Ok(Verdict::fail(format!("{what}: {error}"), todo)),
    };
    let wanted = Rehearsed {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        queue_id: about,
        sender: SENDER.to_owned(),
        recipients: vec![(RECIPIENT.to_owned(), "not-offered".to_owned())],
    };
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && said.trim_end() == wanted.to_string() {
        return Ok(Verdict::ok(format!(
            "{what}: it understands a notice, and can record it"
        )));
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = if complaint.trim().is_empty() {
        &said
    } else {
        &complaint
    };
    Ok(Verdict::fail(
        format!(
            "{what} does not take a notice ({}): {}",
            output.status,
            text::readable(complaint, 200)
        ),
        todo,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::{Delivery, check, parse};

    #[test]
    fn the_notice_is_one_as_postfix_makes_it() {
        let (own, about) = (queue_id().unwrap(), queue_id().unwrap());
        let raw = before("FRO") + &notice(&own, &about);
        let sender = format!("double-bounce@{CHECK_DOMAIN}");
        let delivery = Delivery {
            client: "",
            sender: &sender,
            queue_id: &own,
            double_bounce: "double-bounce",
        };
        assert_eq!(check(raw.as_bytes(), &delivery), Ok(()));
        let parsed = parse(raw.as_bytes()).unwrap();
        assert_eq!(parsed.queue_id, about);
        assert_eq!(parsed.recipients[0].failure().to_string(), "not-offered");
        // It must fit into a pipe at once.
        assert!(raw.len() < 4096);
    }
}
