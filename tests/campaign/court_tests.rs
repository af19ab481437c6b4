//! Does the court find what is wrong? A campaign whose verdict can't be "guilty" proves nothing.

use std::collections::{BTreeMap, BTreeSet};

use posttls::case::{Action, Outcome};
use posttls::sandbox::Instance;

use crate::evidence::{Evidence, Mail, Queued, Row};
use crate::ledger::{Click, Ledger, Sent, Victim};
use crate::verdict::Court;

const TO: &str = "w0a0-0@plain.test";
const NOW: i64 = 1_700_000_000_000;

fn mail(instance: &str, over_tls: bool) -> Mail {
    Mail {
        began: NOW,
        arrived: NOW + 500,
        over_tls,
        origin: (instance.to_owned(), "AAAAAA".to_owned()),
        raw: String::new(),
    }
}

fn released() -> Row {
    Row {
        queue_id: "AAAAAA".to_owned(),
        sender: "each1@sender.test".to_owned(),
        state: "released".to_owned(),
        decision: Some((Action::Send, "link".to_owned(), NOW)),
        kept: false,
        outcome: Some(Outcome::Released),
        copy: Some("BBBBBB".to_owned()),
        stuck_at: Some(NOW),
        may_send: true,
        judged_late: false,
    }
}

/// One recipient to whom its sender has decided to send. `change` makes of it what is to be found.
fn found(change: impl FnOnce(&mut Evidence, &Ledger)) -> (usize, usize) {
    let ledger = Ledger::default();
    ledger.sent(Sent {
        from: "each1@sender.test",
        to: vec![TO.to_owned()],
        queue_id: Some("AAAAAA".to_owned()),
    });
    let mut evidence = Evidence {
        mails: BTreeMap::from([(TO.to_owned(), vec![mail("may", false)])]),
        inbox: Vec::new(),
        queued: Vec::new(),
        rows: BTreeMap::from([(TO.to_owned(), vec![released()])]),
        ways: BTreeMap::from([(TO.to_owned(), BTreeSet::from(["BBBBBB".to_owned()]))]),
        active: BTreeMap::from([("BBBBBB".to_owned(), "each1@sender.test".to_owned())]),
        copies: BTreeSet::from(["BBBBBB".to_owned()]),
    };
    ledger.clicked(click(Action::Send, Some(Outcome::Released)));
    change(&mut evidence, &ledger);
    let verdict = Court::new(&ledger, &evidence).judge();
    (verdict.violations.len(), verdict.excused)
}

fn click(action: Action, answered: Option<Outcome>) -> Click {
    Click {
        sender: "each1@sender.test",
        asked: vec![(TO.to_owned(), action)],
        whole: None,
        bulk: None,
        answered: answered.map(|outcome| vec![(TO.to_owned(), outcome)]),
    }
}

fn mails(evidence: &mut Evidence) -> &mut Vec<Mail> {
    evidence.mails.get_mut(TO).expect("mails")
}

#[test]
fn the_court_finds_what_is_wrong_and_nothing_else() {
    let smtp = || Victim::Service(Instance::May, "smtp".to_owned());
    assert_eq!(found(|_, _| ()), (0, 0));
    // Lost, and returned to the queue.
    assert_eq!(found(|e, _| mails(e).clear()).0, 1);
    assert_eq!(found(|e, _| e.queued.push(waiting())).0, 1);
    // Doubled: by Postfix with nobody killed, by both instances, by a second copy.
    assert_eq!(found(|e, _| mails(e).push(mail("may", false))).0, 1);
    assert_eq!(found(|e, _| mails(e).push(mail("encrypt", true))).0, 1);
    let second = |e: &mut Evidence, _: &Ledger| {
        e.active
            .insert("CCCCCC".to_owned(), "each1@sender.test".to_owned());
    };
    assert_eq!(found(second).0, 1);
    // In plain text without a decision.
    assert!(found(|e, _| e.rows.clear()).0 > 0);
    let unasked = |e: &mut Evidence, ledger: &Ledger| {
        ledger.clicked(click(Action::Send, None));
        e.rows.get_mut(TO).expect("a row")[0].decision =
            Some((Action::Send, "consent".to_owned(), NOW));
    };
    assert_eq!(found(unasked).0, 1);
    // An answer that is not true.
    assert_eq!(
        found(|_, ledger| ledger.clicked(click(Action::Delete, Some(Outcome::Deleted)))).0,
        1
    );
    // The kill is now: so must the mail be.
    let excused = |victim: Victim| {
        found(|e, ledger| {
            ledger.killed(victim);
            let now = ledger.kills()[0].at;
            mails(e).push(mail("may", false));
            for mail in mails(e) {
                (mail.began, mail.arrived) = (now - 100, now + 100);
            }
        })
    };
    assert_eq!(excused(smtp()), (0, 1));
    assert_eq!(excused(Victim::Instance(Instance::May)), (0, 1));
    assert_eq!(excused(Victim::Instance(Instance::Encrypt)).0, 1);
    assert_eq!(excused(Victim::Mover).0, 1);
}

fn waiting() -> Queued {
    Queued {
        instance: Instance::Encrypt,
        queue: "deferred".to_owned(),
        id: "AAAAAA".to_owned(),
        mode: 0o700,
        pending: vec![TO.to_owned()],
    }
}
