//! What kind of failure a deferral is. The tables are the documentation: what stands in none of them is no TLS failure.
//!
//! Three things speak, and are not trusted alike. The *status* is our own when the shipped
//! `smtp_delivery_status_filter` gave it. Postfix's *own words* (diagnostic of kind `X-Postfix`, and the reason in the
//! human-readable part and the defer log) decide where the filter did not act: it is not installed, or qmgr deferred
//! the message itself because the destination is suspended. The *words of others* (kind `smtp` for a server, `x-unix` for
//! a command, anything else) are never believed.

use super::Diagnostic;
use crate::case::Failure;
use crate::postfix::Deferral;

/// The kind of a diagnostic in Postfix's own words, whatever `mail_name` the admin chose ([`super::parse`] maps it).
pub const POSTFIX: &str = "X-Postfix";

/// What qmgr puts before the reason for which it suspended the destination (src/qmgr/qmgr_deliver.c).
const SUSPENDED: &str = "delivery temporarily suspended: ";

/// Enhanced status codes that the shipped delivery status filter gives, and no Postfix or registry (RFC 5248) does.
const STATUSES: [(&str, Failure); 5] = [
    ("4.7.801", Failure::NotOffered),
    ("4.7.802", Failure::Refused),
    ("4.7.803", Failure::HandshakeFailed),
    ("4.7.804", Failure::Certificate),
    ("4.7.805", Failure::LocalFault),
];

/// How Postfix's own reasons begin, and the word that must follow (empty = none). The first that fits decides.
///
/// Not here on purpose (both 4.4.2, tried in tests/handshakes.rs): `lost connection with … while receiving the STARTTLS
/// response`. It may be the network, and plain text would not help: Postfix sends STARTTLS at level `may` too, and does not
/// fall back after it. And `… while performing the EHLO handshake` (or `sending MAIL FROM`, and so on): after the TLS
/// handshake plain text would help, but the words are the same without any TLS.
///
/// A server that hangs up within the handshake makes a handshake failure, as does whatever is wrong with it on our side;
/// that these are told apart only by their number is up to the intake.
const PROSE: [(&str, &str, Failure); 18] = [
    // src/smtp/smtp_proto.c, Postfix 3.11: 5.7.10 and 5.7.30, for a message sent with REQUIRETLS (RFC 8689).
    ("REQUIRETLS Failure: ", "", Failure::RequireTls),
    ("Sender requested REQUIRETLS", "", Failure::RequireTls),
    // src/smtp/smtp_connect.c, 3.11: 4.7.10. The table smtp_requiretls_policy is ours.
    (
        "REQUIRETLS policy configuration error",
        "",
        Failure::LocalFault,
    ),
    // src/smtp/smtp_proto.c, smtp_helo(): 4.7.4; the server's own status; 4.7.5; 4.7.0.
    (
        "TLS is required, but was not offered by host ",
        "",
        Failure::NotOffered,
    ),
    (
        "TLS is required, but host ",
        " refused to start TLS: ",
        Failure::Refused,
    ),
    (
        "TLS is required, but our TLS engine is unavailable",
        "",
        Failure::LocalFault,
    ),
    ("TLS is required, but unavailable", "", Failure::LocalFault),
    // smtp_start_tls(): 4.7.5. "not verified" is all that Postfix 3.7 to 3.11 say; "not trusted" is older.
    (
        "Cannot start TLS: handshake failure",
        "",
        Failure::HandshakeFailed,
    ),
    ("Server certificate not trusted", "", Failure::Certificate),
    ("Server certificate not verified", "", Failure::Certificate),
    // src/smtp/smtp_tls_policy.c, 4.7.5. The destination gives nothing to verify it by (level dane-only).
    ("non DNSSEC destination", "", Failure::Certificate),
    ("no TLSA records found", "", Failure::Certificate),
    ("TLSA records unusable", "", Failure::Certificate),
    (
        "Verification not possible, MX RRset is insecure",
        "",
        Failure::Certificate,
    ),
    // The same file: our own settings or our own DNS.
    ("client TLS configuration problem", "", Failure::LocalFault),
    ("TLSA lookup error for ", "", Failure::LocalFault),
    // 4.3.0: a table of smtp_tls_per_site cannot be asked.
    ("Temporary lookup error", "", Failure::LocalFault),
    // src/smtp/smtp_connect.c, 4.3.0. Since 3.10 all that is said when no MX host fits the MTA-STS policy of the domain; but
    // it is also an excuse of Postfix's for want of any other error, so the policy itself decides.
    (
        "server unavailable or unable to receive mail",
        "",
        Failure::Policy,
    ),
];

/// The kind of failure, from what the machine-readable part of a notice says of a recipient.
///
/// A throttled destination whose server *refused* STARTTLS cannot be told this way, as its diagnostic is the server's:
/// use [`classify_with_reason`] where the reason is known.
pub fn classify(status: &str, diagnostic: Option<&Diagnostic>) -> Failure {
    classify_with_reason(status, diagnostic, None)
}

/// As [`classify`], with the reason that Postfix logged. Postfix's SMTP client writes every reason itself and quotes the
/// server, if at all, after words of its own, so the beginning of its reasons can be trusted.
pub fn classify_with_reason(
    status: &str,
    diagnostic: Option<&Diagnostic>,
    reason: Option<&str>,
) -> Failure {
    let from_server = diagnostic.is_some_and(|d| d.kind.eq_ignore_ascii_case("smtp"));
    let own = diagnostic.filter(|d| d.kind == POSTFIX);
    // What a command prints is its whole reason, word by word (src/global/pipe_command.c).
    let reason = reason.filter(|_| diagnostic.is_none() || own.is_some() || from_server);
    let prose = reason
        .and_then(by_prose)
        .or_else(|| own.and_then(|own| by_prose(&own.text)));
    // REQUIRETLS is the sender's own demand and beats everything; 30 is its detail number whatever the class, and to
    // believe a server here only makes us careful.
    if prose == Some(Failure::RequireTls) || status.ends_with(".7.30") {
        return Failure::RequireTls;
    }
    let others_words = diagnostic.is_some() && own.is_none();
    // The one of our statuses with which a server is quoted; Postfix's own words come before it.
    let quotes =
        from_server && reason.is_none_or(|reason| by_prose(reason) == Some(Failure::Refused));
    STATUSES
        .iter()
        .find(|(known, _)| *known == status)
        .map(|(_, failure)| *failure)
        // On any other of our statuses, words of a server, a command or somebody whom we can't tell would mean that
        // these wrote the status as well.
        .filter(|failure| !others_words || quotes && *failure == Failure::Refused)
        .or(prose)
        .unwrap_or(Failure::NotTls)
}

/// As [`classify_with_reason`], of a record of the defer log.
pub fn classify_deferral(deferral: &Deferral) -> Failure {
    let (kind, text) = deferral
        .diagnostic
        .clone()
        .unwrap_or_else(|| (POSTFIX.to_owned(), deferral.reason.clone()));
    let diagnostic = Diagnostic { kind, text };
    classify_with_reason(&deferral.status, Some(&diagnostic), Some(&deferral.reason))
}

fn by_prose(reason: &str) -> Option<Failure> {
    let reason = reason.strip_prefix(SUSPENDED).unwrap_or(reason);
    PROSE
        .iter()
        .find(|(beginning, then, _)| {
            reason
                .strip_prefix(beginning)
                .is_some_and(|rest| then.is_empty() || follows_host(rest, then))
        })
        .map(|(_, _, failure)| *failure)
}

/// `then` right behind `name[address]`, which has no blank in it.
fn follows_host(rest: &str, then: &str) -> bool {
    rest.find(' ')
        .is_some_and(|blank| blank > 0 && rest[blank..].starts_with(then))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn diagnostic(kind: &str, text: &str) -> Diagnostic {
        Diagnostic {
            kind: kind.into(),
            text: text.into(),
        }
    }

    #[test]
    fn postfix_words_decide_without_the_filter() {
        for (status, text, failure) in [
            (
                "4.7.4",
                "TLS is required, but was not offered by host mx.test[192.0.2.1]",
                Failure::NotOffered,
            ),
            (
                "4.7.0",
                "TLS is required, but host mx.test[192.0.2.1] refused to start TLS: 454 no",
                Failure::Refused,
            ),
            (
                "4.7.5",
                "Cannot start TLS: handshake failure",
                Failure::HandshakeFailed,
            ),
            (
                "4.7.5",
                "Server certificate not trusted",
                Failure::Certificate,
            ),
            (
                "4.7.5",
                "Server certificate not verified",
                Failure::Certificate,
            ),
            ("4.7.5", "no TLSA records found", Failure::Certificate),
            (
                "4.7.5",
                "client TLS configuration problem",
                Failure::LocalFault,
            ),
            (
                "4.7.5",
                "TLSA lookup error for mx.test:25",
                Failure::LocalFault,
            ),
            (
                "4.7.5",
                "TLS is required, but our TLS engine is unavailable",
                Failure::LocalFault,
            ),
            ("4.3.0", "Temporary lookup error", Failure::LocalFault),
            (
                "4.7.10",
                "REQUIRETLS policy configuration error. The last attempted server was mx.test",
                Failure::LocalFault,
            ),
            (
                "4.3.0",
                "server unavailable or unable to receive mail",
                Failure::Policy,
            ),
            (
                "5.7.10",
                "REQUIRETLS Failure: sender requested REQUIRETLS, but host mx refused to start TLS: 454",
                Failure::RequireTls,
            ),
            (
                "4.4.1",
                "connect to mx.test[192.0.2.1]:25: Connection refused",
                Failure::NotTls,
            ),
            (
                "4.4.2",
                "lost connection with mx.test[192.0.2.1] while receiving the STARTTLS response",
                Failure::NotTls,
            ),
            (
                "4.7.0",
                "host mx.test[192.0.2.1] said: 450 Cannot start TLS: handshake failure",
                Failure::NotTls,
            ),
            (
                "4.7.0",
                "TLS is required, but host mx said that refused to start TLS: no",
                Failure::NotTls,
            ),
            ("4.7.0", "", Failure::NotTls),
        ] {
            let own = diagnostic(POSTFIX, text);
            assert_eq!(classify(status, Some(&own)), failure, "{text}");
            let suspended = diagnostic(POSTFIX, &format!("{SUSPENDED}{text}"));
            assert_eq!(
                classify(status, Some(&suspended)),
                failure,
                "suspended: {text}"
            );
            let servers = diagnostic("smtp", text);
            assert_eq!(
                classify(status, Some(&servers)),
                Failure::NotTls,
                "server: {text}"
            );
            assert_eq!(
                classify_with_reason(status, None, Some(text)),
                failure,
                "reason: {text}"
            );
        }
    }

    #[test]
    fn our_own_statuses_decide() {
        let own = diagnostic(POSTFIX, "anything");
        let servers = diagnostic("smtp", "454 anything");
        for (status, failure) in STATUSES {
            assert_eq!(classify(status, Some(&own)), failure);
            assert_eq!(classify(status, None), failure);
            let believed = if failure == Failure::Refused {
                failure
            } else {
                Failure::NotTls
            };
            assert_eq!(classify(status, Some(&servers)), believed);
        }
        for status in ["4.7.8010", "5.7.801", "4.7.80", ""] {
            assert_eq!(classify(status, None), Failure::NotTls);
        }
    }

    /// What a command prints, a server writes or nobody can tell is no status of ours.
    #[test]
    fn our_statuses_from_others_are_not_ours() {
        let said = "host mx.test[192.0.2.1] said: 450 4.7.802 TLS is required, but host x refused to start TLS: y";
        for (status, _) in STATUSES {
            for kind in ["x-unix", "X-UNIX", "", "lmtp", "x-postfix"] {
                let words = diagnostic(kind, "TLS is required, but was not offered by host x");
                let reason = Some(words.text.as_str());
                for reason in [None, reason] {
                    let failure = classify_with_reason(status, Some(&words), reason);
                    assert_eq!(failure, Failure::NotTls, "{kind}");
                }
            }
            let servers = diagnostic("smtp", "450 4.7.802 y");
            let failure = classify_with_reason(status, Some(&servers), Some(said));
            assert_eq!(failure, Failure::NotTls, "{status}");
        }
        let log = b"recipient=a@b\nstatus=4.7.801\ndiag_type=x-unix\ndiag_text=x\nreason=Command said: x\n\n\
            recipient=a@b\nstatus=4.7.801\ndiag_type=smtp\ndiag_text=\xff\nreason=host x said: x\n\n";
        let failures: Vec<_> = crate::postfix::deferrals(log)
            .map(|deferral| classify_deferral(&deferral))
            .collect();
        assert_eq!(failures, [Failure::NotTls, Failure::NotTls]);
    }

    #[test]
    fn a_suspended_refusal_is_told_by_its_reason() {
        let servers = diagnostic("smtp", "454 4.7.0 not now");
        let reason = format!(
            "{SUSPENDED}TLS is required, but host mx.test[192.0.2.1] refused to start TLS: 454 4.7.0 not now"
        );
        assert_eq!(
            classify_with_reason("4.7.0", Some(&servers), Some(&reason)),
            Failure::Refused
        );
    }

    #[test]
    fn the_defer_log_is_judged_alike() {
        let log = b"recipient=a@b\nstatus=4.7.0\ndiag_type=smtp\ndiag_text=454 no\n\
            reason=TLS is required, but host mx[192.0.2.1] refused to start TLS: 454 no\n\n\
            recipient=a@b\nstatus=4.7.5\nreason=Cannot start TLS: handshake failure\n\n\
            recipient=a@b\nstatus=4.7.803\ndiag_type=smtp\ndiag_text=x\nreason=host mx said: x\n\n";
        let failures: Vec<_> = crate::postfix::deferrals(log)
            .map(|deferral| classify_deferral(&deferral))
            .collect();
        assert_eq!(
            failures,
            [Failure::Refused, Failure::HandshakeFailed, Failure::NotTls]
        );
    }

    #[test]
    fn requiretls_beats_every_status() {
        let own = diagnostic(
            POSTFIX,
            "REQUIRETLS Failure: sender requested REQUIRETLS, but …",
        );
        assert_eq!(classify("4.7.801", Some(&own)), Failure::RequireTls);
        for status in ["4.7.30", "5.7.30"] {
            assert_eq!(classify(status, None), Failure::RequireTls);
        }
    }

    proptest! {
        #[test]
        fn a_server_s_words_never_make_a_tls_failure(
            status in "[45]\\.[0-9]\\.(0|4|5|10)", text in any::<String>()
        ) {
            prop_assert_eq!(classify(&status, Some(&diagnostic("smtp", &text))), Failure::NotTls);
        }
    }
}
