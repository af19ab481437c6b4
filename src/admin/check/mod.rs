//! `posttls check`: is this installation as it must be? One line a check, each with what to do.
//!
//! Every check is a function of its own that looks and changes nothing. What several of them need is asked once, before
//! (see [`context`]); then all run at the same time, as some wait for a network.

mod access;
mod boot;
mod context;
mod ear;
mod handshake;
mod holds;
mod hook;
mod instances;
mod listeners;
mod mail;
mod network;
mod notices;
mod plain;
mod rehearsal;
mod reload;
mod session;
mod smtpd;
mod spools;
mod store;
mod way_out;
mod ways;

use std::io::IsTerminal as _;
use std::path::Path;
use std::thread;

use clap::Args;
use serde::Serialize;

use super::{AdminError, Done, print, print_json};
use crate::config::Config;
use crate::exit::Exit;
use crate::text;
use context::Context;

#[derive(Debug, Args)]
pub(super) struct CheckOptions {
    /// Print JSON: an array of {"id", "status", "what", "todo"}; status is "ok", "warn", "fail" or "skip".
    #[arg(long)]
    json: bool,
    /// Print failures and warnings only; nothing when there are none.
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
    /// Could not be checked, as another check failed.
    Skip,
}

impl Status {
    /// In the order in which people read them.
    const ALL: [Self; 4] = [Self::Fail, Self::Warn, Self::Skip, Self::Ok];

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Skip => "skip",
        }
    }

    fn is_problem(self) -> bool {
        matches!(self, Self::Fail | Self::Warn)
    }

    /// The word in four columns, in colour on a terminal (ECMA-48: bold red, yellow, green).
    fn shown(self, colour: bool) -> String {
        let word = format!("{:4}", self.as_str());
        let code = match self {
            Self::Fail => "1;31",
            Self::Warn => "33",
            Self::Ok => "32",
            Self::Skip => "2",
        };
        if colour {
            format!("\x1b[{code}m{word}\x1b[0m")
        } else {
            word
        }
    }
}

/// What a check says: what it found, and what to do about it.
#[derive(Debug)]
struct Verdict {
    status: Status,
    what: String,
    todo: String,
}

impl Verdict {
    fn new(status: Status, what: impl Into<String>, todo: impl Into<String>) -> Self {
        let (what, todo) = (what.into(), todo.into());
        Self { status, what, todo }
    }

    fn ok(what: impl Into<String>) -> Self {
        Self::new(Status::Ok, what, "")
    }

    /// Nothing was tried: the setting is as it should be, and what comes of it is not known.
    fn read(what: impl Into<String>) -> Self {
        Self::ok(format!("{} (read, not tried)", what.into()))
    }

    fn warn(what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::new(Status::Warn, what, todo)
    }

    fn fail(what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::new(Status::Fail, what, todo)
    }
}

/// Why a check could not be made. The check that says what is wrong is another one.
struct Skip(&'static str);

type Outcome = Result<Verdict, Skip>;

/// A check, or why it has nothing to check.
type Check = fn(&Context<'_>) -> Outcome;

/// Every check by its name, in the order in which they are shown. The first one, `configuration`, is the file itself.
const CHECKS: &[(&str, Check)] = &[
    ("configuration-access", access::configuration),
    ("link-key", access::link_key),
    ("log-target", access::log_target),
    ("web-user", access::web_user),
    ("encrypt-instance", instances::encrypt_instance),
    ("encrypt-running", instances::encrypt_running),
    ("encrypt-reload", reload::encrypt),
    ("encrypt-level", instances::encrypt_level),
    ("encrypt-services", plain::services),
    ("encrypt-policies", plain::policies),
    ("encrypt-handshake", handshake::own_side),
    ("tls-required", instances::tls_required),
    ("tls-policies", ways::policies),
    ("own-hops", ways::own_hops),
    ("delay-warning-time", notices::delay_warning_time),
    ("confirm-delay-cleared", notices::confirm_delay_cleared),
    ("defer-service", notices::defer_service),
    ("bounce-template", notices::bounce_template),
    ("cleanup-service", notices::cleanup_service),
    ("header-check", notices::header_check),
    ("status-filter", hook::status_filter),
    ("transport", hook::transport),
    ("hook-recipient-limit", hook::recipient_limit),
    ("hook-time-limit", hook::time_limit),
    ("pipe-entry", hook::pipe_entry),
    ("pipe-program", access::pipe_program),
    ("pipe-user", access::pipe_user),
    ("pipe-rehearsal", rehearsal::hook),
    ("smtpd-recipients", smtpd::recipients),
    ("smtpd-senders", smtpd::senders),
    ("relay-rules", way_out::relay_rules),
    ("relay-domains", way_out::relay_domains),
    ("may-instance", instances::may_instance),
    ("may-running", instances::may_running),
    ("may-reload", reload::may),
    ("may-enabled", boot::may_enabled),
    ("may-unit", boot::may_unit),
    ("may-level", instances::may_level),
    ("may-services", instances::may_services),
    ("may-policy-maps", instances::may_policy_maps),
    ("may-delay-warning-time", instances::may_delay_warning_time),
    ("may-backoff", instances::may_backoff),
    ("may-inet", instances::may_inet),
    ("may-way-out", way_out::alike),
    ("may-ear", ear::ear),
    ("encrypt-spool", spools::encrypt),
    ("may-spool", spools::may),
    ("spools-differ", spools::differ),
    ("may-tmpfile", spools::tmpfile),
    ("encrypt-space", spools::encrypt_space),
    ("may-space", spools::may_space),
    ("store-space", spools::store_space),
    ("file-systems", spools::file_systems),
    ("store-access", access::store),
    ("store", store::opens),
    ("store-integrity", store::integrity),
    ("conflicts", store::conflicts),
    ("hold-queues", holds::holds),
    ("decisions", store::decisions),
    ("odd-notices", store::odd_notices),
    ("clock", store::clock),
    ("run-dir", access::run_dir),
    ("mover", network::mover),
    ("httpd-unit", boot::httpd_unit),
    ("web-server", network::web_server),
    ("base-url", network::base_url),
    ("notification-server", mail::server),
    ("reply-to", mail::reply_to),
    ("admin-address", mail::admin_address),
    ("untold", mail::untold),
    ("notification-route", network::notification_route),
];

/// What the others bring to light: made after them.
const LAST: &[(&str, Check)] = &[
    ("encrypt-warnings", instances::encrypt_warnings),
    ("may-warnings", instances::may_warnings),
];

/// A line of the result.
#[derive(Debug, Serialize)]
struct Finding {
    id: &'static str,
    status: Status,
    what: String,
    todo: String,
}

impl Finding {
    fn new(id: &'static str, outcome: Outcome) -> Self {
        let verdict = outcome.unwrap_or_else(|Skip(why)| {
            Verdict::new(Status::Skip, format!("{id}: not checked, as {why}"), "")
        });
        Self {
            id,
            status: verdict.status,
            what: text::readable(&verdict.what, 400),
            todo: text::readable(&verdict.todo, 400),
        }
    }
}

pub(super) fn run(options: &CheckOptions, config_path: &Path) -> Done {
    if !rustix::process::geteuid().is_root() {
        return Err(AdminError::new(
            Exit::Usage,
            "check must be run as root: it tries what other users may do with private files",
        ));
    }
    let findings = match Config::load(config_path) {
        Ok(config) => all(&Context::gather(config_path, &config)),
        Err(error) => {
            let todo = "correct it; everything else is checked when it can be read";
            let broken = Verdict::fail(error.to_string(), todo);
            let skipped = CHECKS
                .iter()
                .chain(LAST)
                .map(|(id, _)| Finding::new(id, Err(Skip("the configuration can't be read"))));
            let first = Finding::new("configuration", Ok(broken));
            std::iter::once(first).chain(skipped).collect()
        }
    };
    let failed = findings
        .iter()
        .any(|finding| finding.status == Status::Fail);
    if options.json {
        print_json(&findings)?;
    } else {
        // https://no-color.org: any value but an empty one.
        let colour = std::io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        print(&report(&findings, options.quiet, colour))?;
    }
    Ok(if failed { Exit::Failure } else { Exit::Ok })
}

fn all(context: &Context<'_>) -> Vec<Finding> {
    let read = format!("configuration {}", context.config_path.display());
    let mut findings = vec![Finding::new("configuration", Ok(Verdict::ok(read)))];
    thread::scope(|scope| {
        let running: Vec<_> = CHECKS
            .iter()
            .map(|(id, check)| (id, scope.spawn(move || check(context))))
            .collect();
        for (id, check) in running {
            let outcome = check.join().expect("a check does not panic");
            findings.push(Finding::new(id, outcome));
        }
    });
    let last = LAST.iter();
    findings.extend(last.map(|(id, check)| Finding::new(id, check(context))));
    findings
}

/// The lines for people, problems first; with `quiet` these alone.
fn report(findings: &[Finding], quiet: bool, colour: bool) -> String {
    let mut out = String::new();
    let count = |status| findings.iter().filter(|f| f.status == status).count();
    // One line that says why must not be lost among fifty that follow from it.
    let alone = count(Status::Skip) + 1 == findings.len();
    for status in Status::ALL {
        let hidden = quiet && !status.is_problem() || alone && status == Status::Skip;
        for finding in findings.iter().filter(|f| f.status == status && !hidden) {
            let todo = if finding.todo.is_empty() {
                String::new()
            } else {
                format!(" - {}", finding.todo)
            };
            out += &format!("{}  {}{todo}\n", status.shown(colour), finding.what);
        }
    }
    if quiet {
        return out;
    }
    let (failed, warned, skipped) = (
        count(Status::Fail),
        count(Status::Warn),
        count(Status::Skip),
    );
    out + &format!(
        "{} checks: {failed} failed, {warned} with a warning, {skipped} not made.\n",
        findings.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_in_kebab_case() {
        let mut ids: Vec<&str> = CHECKS.iter().chain(LAST).map(|(id, _)| *id).collect();
        assert!(
            ids.iter()
                .all(|id| id.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        );
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn a_line_says_what_to_do() {
        let findings = [
            Finding::new("c", Ok(Verdict::ok("y"))),
            Finding::new("a", Ok(Verdict::fail("x is 3", "set it to 1"))),
            Finding::new("b", Err(Skip("a failed"))),
        ];
        assert_eq!(
            report(&findings, false, false),
            "FAIL  x is 3 - set it to 1\nskip  b: not checked, as a failed\nok    y\n3 checks: 1 failed, 0 with a warning, 1 not made.\n"
        );
        assert_eq!(
            report(&findings[1..], false, false),
            "FAIL  x is 3 - set it to 1\n2 checks: 1 failed, 0 with a warning, 1 not made.\n"
        );
        assert_eq!(
            report(&findings, true, false),
            "FAIL  x is 3 - set it to 1\n"
        );
        assert_eq!(report(&findings[..1], true, true), "");
        assert_eq!(
            report(&findings, true, true),
            "\x1b[1;31mFAIL\x1b[0m  x is 3 - set it to 1\n"
        );
    }
}
