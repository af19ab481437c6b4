//! What main.cf and master.cf of both instances can have wrong.

use std::fs;
use std::process::{Command, Stdio};

use posttls::sandbox::Instance;

use crate::clinic::{Clinic, findings, not_ok};

const HOOKLESS: [(&str, &str); 11] = [
    ("configuration-access", "skip"),
    ("hook-recipient-limit", "skip"),
    ("hook-time-limit", "skip"),
    ("link-key", "skip"),
    ("log-target", "skip"),
    ("pipe-entry", "skip"),
    ("pipe-program", "skip"),
    ("pipe-user", "skip"),
    ("run-dir", "skip"),
    ("store-access", "skip"),
    ("transport", "fail"),
];

pub fn levels_and_times(clinic: &mut Clinic) {
    use Instance::{Encrypt, May};
    for (instance, setting, expected) in [
        (
            Encrypt,
            "smtp_tls_security_level=may",
            ("encrypt-level", "fail"),
        ),
        (
            Encrypt,
            "smtp_tls_security_level=verify",
            ("encrypt-level", "warn"),
        ),
        (
            Encrypt,
            "delay_warning_time=0",
            ("delay-warning-time", "fail"),
        ),
        (
            Encrypt,
            "delay_warning_time=1h",
            ("delay-warning-time", "fail"),
        ),
        (
            Encrypt,
            "confirm_delay_cleared=yes",
            ("confirm-delay-cleared", "fail"),
        ),
        (
            Encrypt,
            "smtp_delivery_status_filter=${tls_required_enable?{}}",
            ("status-filter", "fail"),
        ),
        (
            Encrypt,
            "smtp_delivery_status_filter=regexp:/nowhere ${tls_required_enable?{}}",
            ("status-filter", "fail"),
        ),
        (
            Encrypt,
            "posttls_destination_recipient_limit=50",
            ("hook-recipient-limit", "fail"),
        ),
        (
            Encrypt,
            "posttls_time_limit=10s",
            ("hook-time-limit", "warn"),
        ),
        (
            Encrypt,
            "smtpd_sender_restrictions=",
            ("smtpd-senders", "fail"),
        ),
        (
            May,
            "smtp_tls_security_level=encrypt",
            ("may-level", "fail"),
        ),
        (May, "smtp_tls_security_level=dane", ("may-level", "warn")),
        (
            May,
            "delay_warning_time=4h",
            ("may-delay-warning-time", "fail"),
        ),
        (May, "minimal_backoff_time=300s", ("may-backoff", "fail")),
        (
            May,
            "smtp_tls_policy_maps=inline:{{plain.test=encrypt}}",
            ("may-policy-maps", "warn"),
        ),
        (
            May,
            "smtp_tls_policy_maps=regexp:/nowhere",
            ("may-policy-maps", "warn"),
        ),
        (
            May,
            "smtp_discard_ehlo_keyword_address_maps=",
            ("may-ear", "warn"),
        ),
        (
            May,
            "smtp_connection_cache_on_demand=yes",
            ("may-ear", "warn"),
        ),
        (
            May,
            "smtp_reply_filter=socketmap:unix:private/posttls-ear:reply",
            ("may-ear", "fail"),
        ),
        // As an inline regexp table before Postfix 3.7: nothing but the question fails.
        (
            May,
            "smtp_reply_filter=pipemap:{regexp:/nowhere socketmap:unix:private/posttls-ear:reply}",
            ("may-ear", "fail"),
        ),
        (
            May,
            "smtp_delivery_status_filter=socketmap:unix:private/posttls-ear:status regexp:/nowhere",
            ("may-ear", "fail"),
        ),
    ] {
        clinic.broken(setting, |c| c.set(instance, setting), &[expected]);
    }
    clinic.broken(
        "Postfix 3.10",
        |c| {
            c.set(Encrypt, "mail_version=3.10.1");
            c.set(Encrypt, "tls_required_enable=yes");
        },
        &[("tls-required", "fail")],
    );
    clinic.broken(
        "Postfix 3.10, forbidden",
        |c| c.set(Encrypt, "mail_version=3.10.1"),
        &[],
    );
    for (instance, level, check) in [
        (Encrypt, "may", "encrypt-services"),
        (May, "encrypt", "may-services"),
    ] {
        let setting = format!("smtp/unix/smtp_tls_security_level={level}");
        clinic.broken(
            check,
            |c| c.set_service(instance, &setting),
            &[(check, "warn")],
        );
    }
    the_ear(clinic);
    // The sandbox's may instance listens, and what a real one does not may not be complained about.
    clinic.set(May, "master_service_disable=inet");
    let output = clinic.stage.posttls(&["check", "--json"]);
    assert_eq!(
        clinic.healthy.get("may-inet").map(String::as_str),
        Some("warn")
    );
    assert!(!not_ok(&findings(&output)).contains_key("may-inet"));
    clinic.seen.insert("may-inet".to_owned());
    clinic.restore();
}

fn the_ear(clinic: &mut Clinic) {
    let master = "may/master.cf";
    let text = fs::read_to_string(clinic.path(master)).expect("a file");
    let own = text
        .lines()
        .find(|line| line.contains("user="))
        .expect("a user")
        .to_owned();
    let (fail, warn) = ([("may-ear", "fail")], [("may-ear", "warn")]);
    for (what, from, to) in [
        (
            "no ear in master.cf",
            "posttls-ear unix",
            "posttls-rae unix",
        ),
        (
            "an ear that is not there",
            "/bin/posttls-ear",
            "/bin/nothing",
        ),
        ("an ear of another user", own.as_str(), "  user=daemon"),
        ("an ear of nobody", own.as_str(), "  user=no-such-user"),
        (
            "an ear with another configuration",
            "/posttls.toml",
            "/other.toml",
        ),
    ] {
        clinic.broken(what, |c| c.replace(master, from, to), &fail);
    }
    clinic.broken(
        "an ear that hears half",
        |c| c.set(Instance::May, "smtp_reply_filter="),
        &warn,
    );
    clinic.broken(
        "no ear",
        |c| {
            for name in [
                "smtp_reply_filter=",
                "smtp_discard_ehlo_keyword_address_maps=",
                "smtp_delivery_status_filter=",
            ] {
                c.set(Instance::May, name);
            }
        },
        &warn,
    );
    let socket = clinic
        .stage
        .sandbox
        .queue_dir(Instance::May)
        .join("private/posttls-ear");
    let aside = socket.with_extension("aside");
    clinic.ill(
        "an ear that does not answer",
        |_| fs::rename(&socket, &aside).expect("a socket"),
        &fail,
        |_| fs::rename(&aside, &socket).expect("a socket"),
    );
    let replies = clinic.path("may/posttls-ear-replies");
    let aside = replies.with_extension("aside");
    clinic.ill(
        "an ear without its table of replies",
        |_| fs::rename(&replies, &aside).expect("a file"),
        &fail,
        |_| fs::rename(&aside, &replies).expect("a file"),
    );
    // As Debian 13's unit has it: a /proc without the table of locks.
    let restart = |c: &Clinic, prepare: &str| {
        let may = c.path("may");
        let postfix = |verb: &str| format!("postfix -c {} {verb}", may.display());
        let script = format!("{} && {prepare} {}", postfix("stop"), postfix("start"));
        let status = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("unshare runs").success(), "{script}");
    };
    let hide = "mount --bind /dev/null /proc/locks &&";
    clinic.ill(
        "an ear that asks the mover",
        |c| restart(c, hide),
        &[],
        |_| (),
    );
    let socket = clinic.path("run/facts");
    let aside = socket.with_extension("aside");
    clinic.ill(
        "a deaf ear",
        |_| fs::rename(&socket, &aside).expect("a socket"),
        &warn,
        |c| {
            fs::rename(&aside, &socket).expect("a socket");
            restart(c, "");
        },
    );
}

pub fn the_way_of_notices(clinic: &mut Clinic) {
    let master = "encrypt/master.cf";
    clinic.broken(
        "a defer service without an option",
        |c| c.replace(master, "  -o notify_classes=delay\n", ""),
        &[("defer-service", "fail")],
    );
    clinic.broken(
        "a cleanup service that looks into bodies",
        |c| c.replace(master, "-o body_checks=\n", "-o body_checks=regexp:/x\n"),
        &[("cleanup-service", "fail")],
    );
    clinic.broken(
        "no cleanup service",
        |c| {
            c.replace(
                master,
                "cleanup_service_name=posttls-cleanup",
                "cleanup_service_name=nothing",
            )
        },
        &[("cleanup-service", "fail"), ("header-check", "skip")],
    );
    clinic.broken(
        "a header check without a rule",
        |c| fs::write(c.path("encrypt/posttls-header-checks"), "").expect("a file"),
        &[("header-check", "fail")],
    );
    clinic.broken(
        "a header check that discards everything",
        |c| {
            fs::write(
                c.path("encrypt/posttls-header-checks"),
                "/^Subject:/ DISCARD\n",
            )
            .expect("a file")
        },
        &[("header-check", "fail")],
    );
    clinic.broken(
        "subjects that do not agree",
        |c| {
            c.replace(
                "encrypt/posttls-bounce.cf",
                "\nSubject: PostTLS sender copy",
                "\nSubject: Delayed",
            )
        },
        &[("header-check", "fail")],
    );
    for (what, change) in [
        ("one subject", "\nPostmaster-Subject:"),
        ("another template", "\ndelay_template"),
    ] {
        clinic.broken(
            what,
            |c| c.replace("encrypt/posttls-bounce.cf", change, "\nx"),
            &[("bounce-template", "fail"), ("header-check", "skip")],
        );
    }
    clinic.broken(
        "no transport",
        |c| c.set(Instance::Encrypt, "transport_maps="),
        &HOOKLESS,
    );
    clinic.broken(
        "a transport that leads elsewhere",
        |c| {
            c.set(
                Instance::Encrypt,
                "transport_maps=inline:{posttls.invalid=smtp:}",
            )
        },
        &HOOKLESS,
    );
    clinic.broken(
        "a pipe entry without the client",
        |c| c.replace(master, " --client ${client_address}", ""),
        &[("pipe-entry", "fail")],
    );
    clinic.broken(
        "a pipe entry with another configuration",
        |c| c.replace(master, "/posttls.toml --client", "/other.toml --client"),
        &[("pipe-entry", "fail")],
    );
    clinic.broken(
        "a program that is not there",
        |c| c.replace(master, "/bin/posttls-pipe ", "/bin/nothing "),
        &[("pipe-program", "fail")],
    );
    let list = "check_recipient_access inline:{{posttls.invalid=REJECT}}";
    clinic.broken(
        "a list that permits before it refuses",
        |c| {
            c.set(
                Instance::Encrypt,
                &format!("smtpd_recipient_restrictions=permit_mynetworks, {list}"),
            )
        },
        &[("smtpd-recipients", "fail")],
    );
    clinic.broken(
        "a service with a list of its own",
        |c| {
            let port = c.stage.sandbox.smtp_port(Instance::Encrypt);
            let setting = format!("127.0.0.1:{port}/inet/smtpd_recipient_restrictions=permit");
            c.set_service(Instance::Encrypt, &setting);
        },
        &[("smtpd-recipients", "fail")],
    );
}
