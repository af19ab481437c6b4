//! What main.cf and master.cf of both instances can have wrong.

use std::fs;
use std::process::{Command, Stdio};

use posttls::sandbox::Instance;

use crate::clinic::{Clinic, findings, not_ok};

const HOOKLESS: [(&str, &str); 12] = [
    ("configuration-access", "skip"),
    ("hook-recipient-limit", "skip"),
    ("hook-time-limit", "skip"),
    ("link-key", "skip"),
    ("log-target", "skip"),
    ("pipe-entry", "skip"),
    ("pipe-program", "skip"),
    ("pipe-rehearsal", "skip"),
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
    clinic.broken(
        "a may instance that insists on TLS",
        |c| c.set_service(May, "smtp/unix/smtp_tls_security_level=encrypt"),
        &[("may-services", "warn")],
    );
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

/// Ways on which mail would leave without a question.
pub fn plain_text(clinic: &mut Clinic) {
    use Instance::Encrypt;
    let policies = "smtp_tls_policy_maps=";
    for (maps, status) in [
        ("static:may", "fail"),
        ("static:none", "fail"),
        ("regexp:{{/./ may}}", "fail"),
        ("inline:{{plain.test=may}}", "warn"),
        (
            "inline:{{plain.test=encrypt}}, inline:{{.test=none}}",
            "warn",
        ),
        ("inline:{{plain.test=dane}}", "warn"),
        ("regexp:{{/^plain/ encrypt}}", "warn"),
    ] {
        let setting = format!("{policies}{maps}");
        clinic.broken(
            maps,
            |c| c.set(Encrypt, &setting),
            &[("encrypt-policies", status)],
        );
    }
    for maps in ["", "inline:{{plain.test=secure match=plain.test}}"] {
        let setting = format!("{policies}{maps}");
        clinic.broken(maps, |c| c.set(Encrypt, &setting), &[]);
    }
    clinic.broken(
        "an older table",
        |c| {
            c.set(Encrypt, policies);
            c.set(Encrypt, "smtp_tls_per_site=static:MAY");
        },
        &[("encrypt-policies", "fail")],
    );
    clinic.broken(
        "policies of a service",
        |c| c.set_service(Encrypt, "smtp/unix/smtp_tls_policy_maps=static:may"),
        &[("encrypt-policies", "fail")],
    );
    let services = |status| [("encrypt-services", status)];
    let level = |c: &Clinic| c.set_service(Encrypt, "smtp/unix/smtp_tls_security_level=may");
    clinic.broken("plain text for all mail", level, &services("fail"));
    // A service that is not that of all mail; what leads there says how bad it is. In the may instance it has no level.
    let second = |c: &Clinic, level: &str| {
        for (file, option) in [
            (
                "encrypt/master.cf",
                format!("  -o smtp_tls_security_level={level}\n"),
            ),
            ("may/master.cf", String::new()),
        ] {
            let path = c.path(file);
            let text = fs::read_to_string(&path).expect("a file");
            let line = format!("second    unix  - - n -     - smtp\n{option}");
            fs::write(path, text + &line).expect("a file");
        }
    };
    // Postfix was not reloaded, of course.
    let only = [("encrypt-reload", "fail"), ("may-reload", "fail")];
    let with = |status| [only[0], ("encrypt-services", status), only[1]];
    for (setting, status) in [
        ("default_transport=second", "fail"),
        (
            "sender_dependent_default_transport_maps=static:second:",
            "fail",
        ),
        (
            "sender_dependent_default_transport_maps=inline:{{@a.test=second:}}",
            "warn",
        ),
        ("relay_transport=second", "warn"),
        ("content_filter=second:[192.0.2.1]:10024", "warn"),
    ] {
        clinic.broken(
            setting,
            |c| {
                second(c, "may");
                c.set_both(setting);
            },
            &with(status),
        );
    }
    for (setting, level) in [
        ("content_filter=second:[127.0.0.1]:10024", "may"),
        ("default_transport=second", "verify"),
        ("relay_domains=", "may"),
    ] {
        clinic.broken(
            setting,
            |c| {
                second(c, level);
                c.set_both(setting);
            },
            &only,
        );
    }
    clinic.broken(
        "plain text for mail that a table leads there",
        |c| {
            second(c, "none");
            let path = c.path("encrypt/transport");
            let text = fs::read_to_string(&path).expect("a file");
            fs::write(path, text + "other.test second:\n").expect("a file");
        },
        &with("warn"),
    );
    clinic.broken(
        "a table that nobody can list",
        |c| {
            second(c, "none");
            let maps = "inline:{posttls.invalid=posttls:}, regexp:{{/^x/ smtp:}}";
            c.set(Encrypt, &format!("transport_maps={maps}"));
        },
        &with("warn"),
    );
    clinic.broken(
        "a service with a status filter of its own",
        |c| c.set_service(Encrypt, "smtp/unix/smtp_delivery_status_filter="),
        &services("warn"),
    );
}

pub fn the_ear(clinic: &mut Clinic) {
    let master = "may/master.cf";
    let text = fs::read_to_string(clinic.path(master)).expect("a file");
    let own = text
        .lines()
        .find(|line| line.contains("user="))
        .expect("a user")
        .to_owned();
    let (fail, warn) = ([("may-ear", "fail")], [("may-ear", "warn")]);
    clinic.broken(
        "no ear in master.cf",
        |c| c.replace(master, "posttls-ear unix", "posttls-rae unix"),
        &[("may-ear", "fail"), ("may-reload", "fail")],
    );
    for (what, from, to) in [
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
        &[("may-ear", "fail"), ("may-reload", "fail")],
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
    let socket = clinic.path("run/standing");
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
        &[("pipe-entry", "fail"), ("pipe-rehearsal", "fail")],
    );
    clinic.broken(
        "a pipe entry with another configuration",
        |c| c.replace(master, "/posttls.toml --client", "/other.toml --client"),
        &[("pipe-entry", "fail"), ("pipe-rehearsal", "fail")],
    );
    clinic.broken(
        "a program that is not there",
        |c| c.replace(master, "/bin/posttls-pipe ", "/bin/nothing "),
        &[("pipe-program", "fail"), ("pipe-rehearsal", "fail")],
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
    let ours = "inline:{{posttls.invalid=REJECT}}";
    for (what, before, status) in [
        ("nothing that matters", "reject_non_fqdn_recipient", None),
        (
            "a table that lets others by",
            "check_client_access inline:{{192.0.2.1=OK}}",
            Some("warn"),
        ),
        (
            "a word that makes it count for nothing",
            "warn_if_reject",
            Some("fail"),
        ),
    ] {
        clinic.broken(
            what,
            |c| {
                let list = format!("{before}, check_recipient_access {ours}");
                c.set(
                    Instance::Encrypt,
                    &format!("smtpd_recipient_restrictions={list}"),
                );
            },
            &status
                .map(|status| ("smtpd-recipients", status))
                .into_iter()
                .collect::<Vec<_>>(),
        );
    }
    // Only a session shows what a table says of this host.
    clinic.broken(
        "a table that lets this host by",
        |c| {
            let list = format!(
                "check_client_access inline:{{{{127.0.0.1=OK}}}}, check_recipient_access {ours}"
            );
            c.set(
                Instance::Encrypt,
                &format!("smtpd_recipient_restrictions={list}"),
            );
        },
        &[("smtpd-recipients", "fail")],
    );
    clinic.broken(
        "a flag by which notices look forwarded",
        |c| c.replace(master, "flags=Rq", "flags=DRq"),
        &[("pipe-rehearsal", "fail")],
    );
    clinic.broken(
        "another double_bounce_sender",
        |c| c.set(Instance::Encrypt, "double_bounce_sender=twice"),
        &[],
    );
    clinic.broken(
        "a bounce template that Postfix does not take",
        |c| {
            c.replace(
                "encrypt/posttls-bounce.cf",
                "Subject: PostTLS sender copy",
                "Nonsense: PostTLS sender copy",
            )
        },
        &[("bounce-template", "fail"), ("header-check", "skip")],
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
