//! `posttls check`: is this installation as it must be? One line a check, each with what to do.
//!
//! Every check is a function of its own that looks and changes nothing. What several of them need is asked once, before
//! (see [`context`]); then all run at the same time, as some wait for a network.

mod access;
mod context;
mod ear;
mod hook;
mod instances;
mod network;
mod notices;
mod smtpd;
mod spools;
mod store;
mod way_out;
mod ways;

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
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Skip => "skip",
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
    ("encrypt-level", instances::encrypt_level),
    ("encrypt-services", instances::encrypt_services),
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
    ("smtpd-recipients", smtpd::recipients),
    ("smtpd-senders", smtpd::senders),
    ("relay-rules", way_out::relay_rules),
    ("relay-domains", way_out::relay_domains),
    ("may-instance", instances::may_instance),
    ("may-running", instances::may_running),
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
    ("decisions", store::decisions),
    ("odd-notices", store::odd_notices),
    ("clock", store::clock),
    ("run-dir", access::run_dir),
    ("mover", network::mover),
    ("web-server", network::web_server),
    ("base-url", network::base_url),
    ("notification-server", network::notification_server),
    ("notification-route", network::notification_route),
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
        print(&report(&findings))?;
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
    findings
}

fn report(findings: &[Finding]) -> String {
    let mut out = String::new();
    let count = |status| findings.iter().filter(|f| f.status == status).count();
    // One line that says why must not be lost among fifty that follow from it.
    let alone = count(Status::Skip) + 1 == findings.len();
    for finding in findings {
        if alone && finding.status == Status::Skip {
            continue;
        }
        let todo = if finding.todo.is_empty() {
            String::new()
        } else {
            format!(" - {}", finding.todo)
        };
        out += &format!("{:4}  {}{todo}\n", finding.status.as_str(), finding.what);
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
        let mut ids: Vec<&str> = CHECKS.iter().map(|(id, _)| *id).collect();
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
            report(&findings),
            "ok    y\nFAIL  x is 3 - set it to 1\nskip  b: not checked, as a failed\n3 checks: 1 failed, 0 with a warning, 1 not made.\n"
        );
        assert_eq!(
            report(&findings[1..]),
            "FAIL  x is 3 - set it to 1\n2 checks: 1 failed, 0 with a warning, 1 not made.\n"
        );
    }
}
