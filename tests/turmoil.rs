//! Everything at once: decisions one by one and in bulk, remembered choices, a domain that becomes mandatory, reminders,
//! queue runs and holds by an admin, while the mover is killed again and again. Then every recipient is looked at.

mod common;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::{Stage, try_request};
use posttls::case::store::{NewConsent, now_ms};
use posttls::case::{Failure, Scope};
use posttls::sandbox::Instance;
use rustix::process::{Pid, Signal, kill_process};

const MESSAGES: usize = 60;
const DOMAINS: [&str; 5] = [
    "plain.test",
    "refuse.test",
    "tls.test",
    "bank.test",
    "broken.test",
];
/// Decides about all on one page.
const BULK: &str = "bulk@sender.test";
/// Decides about one message after the other.
const EACH: &str = "each@sender.test";
/// Has had a choice remembered for refuse.test.
const TRUSTS: &str = "trusts@sender.test";
/// Never decides.
const IDLE: &str = "idle@sender.test";

fn seen(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once("name=\"seen\" value=\"")?;
    rest.split('"').next()
}

fn kill(stage: &Stage) {
    let pid = stage.sandbox.httpd_pid().expect("it runs");
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    kill_process(pid, Signal::KILL).expect("it can be killed");
    stage.wait("its end", || {
        stage.sandbox.httpd_pid().is_none().then_some(())
    });
    stage.sandbox.start_httpd(&[]).expect("it starts again");
}

/// Differs from call to call, and needs to be no better than that.
fn next(of: u64) -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(88_172_645_463_325_252);
    let step = |mut x: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^ (x << 17)
    };
    let before = STATE
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |x| Some(step(x)))
        .expect("a number");
    step(before) % of
}

fn nap(least: u64, most: u64) {
    thread::sleep(Duration::from_millis(least + next(most - least)));
}

/// A recipient as the store has it, with the decision about it, if that was final.
struct Ended {
    sender: String,
    queue_id: String,
    address: String,
    state: String,
    /// What, in whose name, and when.
    decision: Option<(String, String, i64)>,
}

fn ended(stage: &Stage) -> Vec<Ended> {
    let store = rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a store");
    let mut statement = store
        .prepare(
            "SELECT c.sender, c.queue_id, r.address, r.state, d.action, d.actor, d.decided_at FROM cases c
             JOIN recipients r ON r.case_id = c.id
             LEFT JOIN decisions d ON d.recipient_id = r.id AND d.action <> 'keep'",
        )
        .expect("a query");
    let rows = statement.query_map([], |row| {
        let action: Option<String> = row.get(4)?;
        Ok(Ended {
            sender: row.get(0)?,
            queue_id: row.get(1)?,
            address: row.get(2)?,
            state: row.get(3)?,
            decision: match action {
                Some(action) => Some((action, row.get(5)?, row.get(6)?)),
                None => None,
            },
        })
    });
    let rows = rows.expect("recipients");
    rows.collect::<rusqlite::Result<_>>().expect("recipients")
}

#[test]
fn whatever_happens_at_once_everybody_gets_what_was_decided_once() {
    let stage = Stage::new();
    for (section, key, value) in [
        ("sweep", "seconds", "1"),
        ("sweep", "census_minutes", "1"),
        ("reminders", "after_hours", "[1]"),
        ("remember", "days", "30"),
        ("limits", "per_sender_hour", "1000"),
    ] {
        stage.configure(section, key, value);
    }
    stage.restart();
    stage.add_domain("bank.test", "plain.test");
    let consent = NewConsent {
        sender: TRUSTS.parse().expect("an address"),
        scope: Scope::Domain,
        target: "refuse.test".to_owned(),
        failures: vec![Failure::Refused],
        client: "192.0.2.7".to_owned(),
        expires_at: now_ms() + 86_400_000,
    };
    let consent = stage.store().add_consent(&consent).expect("a consent");
    let sent: Mutex<Vec<String>> = Mutex::default();
    let messages: Mutex<Vec<(&str, String)>> = Mutex::default();
    let over = AtomicBool::new(false);
    let is_over = || over.load(Ordering::SeqCst);
    let changed = AtomicBool::new(false);
    let (mut listed, mut revoked) = (0, 0);

    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for n in 0..MESSAGES {
                let from = [BULK, EACH, TRUSTS, IDLE][n % 4];
                let count = 1 + next(4) as usize;
                let first = next(5) as usize;
                let to: Vec<String> = (0..count)
                    .map(|k| format!("m{n}-{k}@{}", DOMAINS[(first + k) % DOMAINS.len()]))
                    .collect();
                let names: Vec<&str> = to.iter().map(String::as_str).collect();
                let text = format!("From: {from}\r\nSubject: m{n}\r\n\r\nbody of m{n}\r\n");
                let id = stage.sandbox.submit(from, &names, text.as_bytes());
                let id = id.unwrap_or_else(|error| panic!("{error}"));
                sent.lock().expect("a list").extend(to);
                messages.lock().expect("a list").push((from, id));
                nap(50, 350);
            }
        });
        let bulk = scope.spawn(|| {
            let link = stage.sender_link(BULK);
            while !is_over() {
                nap(500, 1500);
                let Ok(page) = try_request("GET", &link, "") else {
                    continue;
                };
                if let Some(seen) = seen(&page.body) {
                    let domain = ["", "&domain=plain.test", "&domain=bank.test"][next(3) as usize];
                    stage.post_into_the_dark(&link, &format!("action=send&seen={seen}{domain}"));
                }
            }
        });
        let each = scope.spawn(|| {
            while !is_over() {
                nap(20, 300);
                let own: Vec<String> = {
                    let all = messages.lock().expect("a list");
                    let own = all.iter().filter(|(from, _)| *from == EACH);
                    own.map(|(_, id)| id.clone()).collect()
                };
                let Some(id) = own.get(next(own.len().max(1) as u64) as usize) else {
                    continue;
                };
                let cases = stage.store().cases_of(&id.parse().expect("a queue ID"));
                let Some(case) = cases.expect("cases").pop() else {
                    continue;
                };
                let action = ["send", "delete", "keep", "send"][next(4) as usize];
                let number = 1 + next(3);
                let link = stage.page('c', &stage.token(case.id, 3600));
                stage.post_into_the_dark(&link, &format!("choice-{number}={action}"));
            }
        });
        let killing = scope.spawn(|| {
            while !is_over() {
                nap(100, 1600);
                kill(&stage);
            }
        });
        let meddling = scope.spawn(|| {
            while !is_over() {
                nap(300, 1200);
                stage.run("postqueue", Instance::Encrypt, &["-f"]);
                let all = messages.lock().expect("a list").clone();
                let idle: Vec<_> = all.iter().filter(|(from, _)| *from == IDLE).collect();
                if let Some((_, id)) = idle.get(next(idle.len().max(1) as u64) as usize) {
                    stage.run("postsuper", Instance::Encrypt, &["-h", id, "deferred"]);
                    nap(10, 300);
                    stage.run("postsuper", Instance::Encrypt, &["-H", id]);
                }
                stage.minutes_pass(20);
            }
        });
        while !writing.is_finished() {
            thread::sleep(Duration::from_millis(100));
            let so_far = messages.lock().expect("a list").len();
            if so_far > MESSAGES / 2 && !changed.swap(true, Ordering::SeqCst) {
                let output = stage.posttls(&["mandatory", "add", "bank.test"]);
                assert!(output.status.success(), "{output:?}");
                listed = now_ms();
                assert!(stage.store().end_consent(consent, "over").expect("an end"));
                revoked = now_ms();
            }
        }
        nap(3000, 3001);
        over.store(true, Ordering::SeqCst);
        for thread in [bulk, each, killing, meddling] {
            thread.join().expect("it did not panic");
        }
    });

    // What is decided is carried out, and the rest waits quietly.
    let store = stage.store();
    stage.wait("an empty journal", || {
        let owed = store.unfinished_moves().expect("a journal");
        owed.is_empty().then_some(())
    });
    stage.run("postqueue", Instance::Encrypt, &["-f"]);
    stage.wait("the deliveries", || {
        let busy = |instance: Instance, queues: &[&str]| {
            let now = stage.sandbox.queue(instance);
            queues.iter().any(|queue| !now[queue].is_empty())
        };
        let encrypt = busy(Instance::Encrypt, &["incoming", "active", "hold"]);
        let may = busy(
            Instance::May,
            &["incoming", "active", "deferred", "hold", "maildrop"],
        );
        (!encrypt && !may).then_some(())
    });
    let all = ended(&stage);
    let cases: BTreeSet<&str> = all.iter().map(|one| one.address.as_str()).collect();
    let mut decided = [0; 4];
    for one in &all {
        let got = stage.sandbox.delivered(&one.address).len();
        let decision = one
            .decision
            .as_ref()
            .map(|(action, actor, _)| (action.as_str(), actor.as_str()));
        let what = format!(
            "{} to {}: {} after {decision:?}, delivered {got} times\n{}",
            one.queue_id,
            one.address,
            one.state,
            stage.log()
        );
        let domain = one.address.rsplit('@').next().unwrap_or_default();
        let waits = stage
            .sandbox
            .queue_of(Instance::Encrypt, &one.queue_id)
            .is_some()
            && stage.pending(&one.queue_id).contains(&one.address);
        match (one.state.as_str(), decision) {
            ("released", Some(("send", actor))) => {
                assert!((got, waits) == (1, false), "{what}");
                decided[0] += 1;
                let (_, _, at) = one.decision.as_ref().expect("one");
                assert!(domain != "bank.test" || *at <= listed, "{what}");
                match actor {
                    "link" => assert!(one.sender == BULK || one.sender == EACH, "{what}"),
                    "consent" => {
                        decided[3] += 1;
                        let may = one.sender == TRUSTS && domain == "refuse.test";
                        assert!(may && *at <= revoked, "{what}");
                    }
                    _ => panic!("{what}"),
                }
            }
            ("deleted", Some(("delete", actor))) => {
                assert!((got, waits) == (0, false), "{what}");
                decided[1] += 1;
                match actor {
                    "link" => assert_eq!(one.sender, EACH, "{what}"),
                    "mandatory" => assert_eq!(domain, "bank.test", "{what}"),
                    _ => panic!("{what}"),
                }
            }
            ("open" | "kept", None) => {
                assert!((got, waits) == (0, true), "{what}");
                decided[2] += 1;
            }
            _ => panic!("{what}"),
        }
    }
    assert!(decided.iter().all(|count| *count > 0), "{decided:?}");
    // What had TLS went out, and nothing was forgotten.
    for to in sent.into_inner().expect("a list") {
        if to.ends_with("@tls.test") {
            assert!(!cases.contains(to.as_str()), "{to}");
            assert_eq!(stage.sandbox.delivered(&to).len(), 1, "{to}");
        } else {
            assert!(cases.contains(to.as_str()), "{to}\n{}", stage.log());
        }
    }
}
