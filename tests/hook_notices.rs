//! posttls-pipe by itself, with notices that are odd, huge, cut off by its own death, or nobody's to answer.

mod hook_stage;

use std::fmt::Write as _;

use hook_stage::{Bench, End, NOTICE};
use posttls::case::{CaseState, RecipientState};

#[test]
fn what_is_no_notice_is_kept_for_the_admin_and_logged_with_its_queue_id() {
    let bench = Bench::new();
    let plain = NOTICE
        .split("MIME-Version")
        .next()
        .expect("a header")
        .to_owned()
        + "\nhello\n";
    let cut = NOTICE
        .split("Final-Recipient")
        .next()
        .expect("a header")
        .to_owned();
    let garbage: Vec<u8> = (0u32..20_000)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let odd: [&[u8]; 6] = [
        b"",
        b"\0\0\0",
        &garbage,
        plain.as_bytes(),
        cut.as_bytes(),
        &[b'\n'; 5000],
    ];
    for (count, notice) in (1..).zip(odd) {
        let run = bench.run(notice);
        assert_eq!(run.end, End::Done, "{run:?}");
        let kept = bench.store().odd_notices().expect("notices");
        assert_eq!(kept.len(), count);
        let (id, why) = &kept[count - 1];
        assert!(
            bench.log().lines().any(
                |line| line.contains(&format!("warning: {id}: not a notice"))
                    && line.contains(why.as_str())
            ),
            "{}",
            bench.log()
        );
    }
    assert!(bench.store().cases(None).expect("cases").is_empty());
    assert!(bench.server.mails().is_empty());
}

#[test]
fn twenty_mebibytes_are_read_in_bounded_memory() {
    // The hook runs with 96 MiB for its data: more, and it would be killed.
    let filler =
        "X-Filler: 0123456789012345678901234567890123456789012345678901234567890123456789\n"
            .repeat((20 << 20) / 81);
    let returned = NOTICE.replace(
        "Subject: not offered\n",
        &format!("{filler}Subject: far away\n"),
    );
    let human = NOTICE.replace(
        "<bob@plain.test>: TLS",
        &format!("{filler}<bob@plain.test>: TLS"),
    );
    let garbage = NOTICE
        .split("MIME-Version")
        .next()
        .expect("a header")
        .to_owned()
        + &filler;
    for (what, notice, cases) in [
        ("returned headers", returned, 1),
        ("human part", human, 0),
        ("header", garbage, 0),
    ] {
        assert!(notice.len() > 20 << 20);
        let bench = Bench::new();
        let run = bench.run(&notice);
        println!("20 MiB in the {what}: peak {} KiB", run.peak);
        assert_eq!(run.end, End::Done, "{what}: {run:?}");
        assert_eq!(
            bench.store().cases(None).expect("cases").len(),
            cases,
            "{what}"
        );
        assert_eq!(bench.server.mails().len(), cases, "{what}");
        assert_eq!(
            bench.store().odd_notices().expect("notices").len(),
            1 - cases,
            "{what}"
        );
        assert!(run.peak < 128 << 10, "{what}: {} KiB", run.peak);
    }
}

/// The notice with `count` recipients, each with the given status and diagnostic.
fn with_recipients(count: usize, status: &str, diagnostic: &str) -> String {
    let (start, rest) = NOTICE.split_once("Final-Recipient").expect("a recipient");
    let (_, end) = rest.split_once("(UTC)\n\n--").expect("an end");
    let mut text = start.to_owned();
    for n in 1..=count {
        write!(
            text,
            "Final-Recipient: rfc822; user{n}@plain.test\nOriginal-Recipient: rfc822;user{n}@plain.test\nAction: delayed\n\
             Status: {status}\nDiagnostic-Code: X-Postfix; {diagnostic}\nWill-Retry-Until: Fri, 27 Nov 2026 21:31:35 +0000 (UTC)\n\n"
        )
        .expect("a string");
    }
    text + "--" + end
}

#[test]
fn a_thousand_recipients_are_one_case_and_one_mail() {
    let bench = Bench::new();
    let run = bench.run(with_recipients(
        1000,
        "4.7.801",
        "TLS is required, but was not offered by host x",
    ));
    println!("1,000 recipients: peak {} KiB", run.peak);
    assert_eq!(run.end, End::Done, "{run:?}");
    let store = bench.store();
    let case = store.cases(None).expect("cases").remove(0);
    let recipients = store.recipients(case.id).expect("recipients");
    assert_eq!(recipients.len(), 1000);
    assert!(
        recipients
            .iter()
            .all(|recipient| recipient.state == RecipientState::Open)
    );
    assert_eq!(bench.server.mails().len(), 1);
    assert!(run.peak < 64 << 10, "{} KiB", run.peak);
}

#[test]
fn failures_that_have_nothing_to_do_with_tls_are_watched_in_silence() {
    let bench = Bench::new();
    let run = bench.run(with_recipients(
        3,
        "4.4.1",
        "connect to x[192.0.2.1]:25: Connection refused",
    ));
    assert_eq!(run.end, End::Done, "{run:?}");
    let case = bench.store().cases(None).expect("cases").remove(0);
    assert_eq!((case.state, case.notified_at), (CaseState::Watched, None));
    assert!(bench.server.mails().is_empty());
    assert!(bench.log().contains("nothing to ask yet, watched"));
}

#[test]
fn nobody_is_asked_about_mail_without_a_sender_or_about_postfixs_own() {
    let bench = Bench::new();
    let null = NOTICE.replace("ann@sender.test", "MAILER-DAEMON");
    let own = NOTICE.replace("ann@sender.test", "double-bounce@encrypt.posttls.test");
    for notice in [null, own] {
        let run = bench.run(notice);
        assert_eq!(run.end, End::Done, "{run:?}");
    }
    assert!(bench.server.mails().is_empty());
    assert!(bench.store().odd_notices().expect("notices").is_empty());
    assert!(
        bench.log().contains("from=<>, nobody to ask")
            && bench.log().contains("Postfix's own, nobody to ask"),
        "{}",
        bench.log()
    );
}

#[cfg(feature = "failpoints")]
#[test]
fn killed_at_any_point_it_writes_once_when_it_is_run_again() {
    for (point, patient) in [("hook::recorded", false), ("hook::claimed", true)] {
        let bench = Bench::new();
        let config = bench.path("posttls.toml");
        let arguments = [
            "--config",
            config.to_str().expect("UTF-8"),
            "--client",
            "",
            "--sender",
            "double-bounce@x.test",
            "--queue-id",
            "BB6049C803F",
        ];
        let run = bench.start(
            &arguments,
            &[("FAILPOINTS", &format!("{point}=panic"))],
            NOTICE.as_bytes(),
        );
        assert_eq!(run.end, End::Signal, "{run:?}");
        assert!(bench.server.mails().is_empty());
        if patient {
            // The claim of the dead one stands until it is too old; Postfix tries again until then.
            assert_eq!(bench.run(NOTICE).end, End::TryAgain);
            let store = rusqlite::Connection::open(bench.database()).expect("a store");
            store
                .execute("UPDATE letters SET claimed_at = claimed_at - 150001", [])
                .expect("a claim");
        }
        assert_eq!(bench.run(NOTICE).end, End::Done);
        assert_eq!(bench.run(NOTICE).end, End::Done);
        assert_eq!(bench.server.mails().len(), 1, "{point}");
        assert_eq!(bench.store().cases(None).expect("cases").len(), 1);
    }
}
