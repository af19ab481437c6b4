//! One round: a fresh sandbox, everybody at once, rest, verdict.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use posttls::case::store::{NewConsent, now_ms};
use posttls::case::{Failure, Scope};
use posttls::sandbox::Instance;

use crate::common::Stage;
use crate::evidence;
use crate::ledger::Ledger;
use crate::plan::{self, Habit, SENDERS, TRUSTED};
use crate::verdict::{Court, Verdict};
use crate::{deciders, killers, load, rest};

/// How long a round is.
pub struct Size {
    messages: usize,
    /// Seconds that the senders go on after the last message at most.
    tail: u64,
}

impl Size {
    pub const SHORT: Self = Self {
        messages: 70,
        tail: 12,
    };
    pub const LONG: Self = Self {
        messages: 300,
        tail: 90,
    };
}

/// What a round has done, and found.
pub struct Report {
    pub messages: usize,
    pub decisions: BTreeMap<String, usize>,
    pub kills: BTreeMap<String, usize>,
    pub verdict: Verdict,
    /// The sandbox, when there is something to be studied in it.
    pub kept: Option<PathBuf>,
}

fn stage(seed: u64) -> Stage {
    let mut rng = plan::rng(seed, "stage");
    let (long_ids, hashed) = (rng.bool(), rng.bool());
    let stage = Stage::with(|options| {
        let mut options = options
            .httpd(false)
            .mx_dialogue(false)
            .long_queue_ids(Instance::Mx)
            .main_cf(
                Instance::Mx,
                "smtpd_authorized_xforward_hosts",
                "127.0.0.0/8",
            )
            .main_cf(
                Instance::Mx,
                "smtpd_recipient_restrictions",
                "check_recipient_access inline:{{gone.test = 550 5.1.1 no such user}, \
                 {goneplain.test = 550 5.1.1 no such user}, {busy.test = 450 4.2.0 mailbox busy}}",
            )
            // A message may have fifty recipients who are refused.
            .main_cf(Instance::Mx, "smtpd_soft_error_limit", "1000")
            .main_cf(Instance::Mx, "smtpd_hard_error_limit", "1000")
            .main_cf(Instance::Encrypt, "queue_run_delay", "10s")
            .main_cf(Instance::Encrypt, "minimal_backoff_time", "10s")
            .main_cf(Instance::Encrypt, "maximal_backoff_time", "60s");
        for instance in [Instance::Encrypt, Instance::May] {
            // So that the remote side's log says by which queue file a mail came.
            options = options
                .main_cf(instance, "smtp_send_xforward_command", "yes")
                .main_cf(instance, "service_throttle_time", "1s")
                .main_cf(instance, "transport_retry_time", "2s");
        }
        if long_ids {
            options = options.long_queue_ids(Instance::Encrypt);
        }
        if hashed {
            options = options.hash_queues("deferred, defer, hold, incoming", 2);
        }
        options
    });
    for (section, key, value) in [
        ("sweep", "seconds", "1"),
        ("sweep", "census_minutes", "1"),
        ("remember", "days", "30"),
        ("limits", "per_sender_hour", "10000"),
        ("limits", "per_hour", "100000"),
    ] {
        stage.configure(section, key, value);
    }
    load::prepare(&stage);
    stage.sandbox.start_httpd(&[]).expect("it starts");
    stage
}

/// Plays a round.
pub fn run(seed: u64, size: &Size) -> Report {
    let mut stage = stage(seed);
    let ledger = Ledger::default();
    let trouble = act(&stage, &ledger, seed, size);
    let rested = if trouble.is_empty() {
        rest::come(&stage)
    } else {
        Ok(())
    };
    let evidence = evidence::gather(&stage);
    let mut verdict = Court::new(&ledger, &evidence).judge();
    verdict.violations.extend(trouble);
    verdict.violations.extend(rested.err());
    let kept = (!verdict.violations.is_empty()).then(|| stage.keep());
    Report {
        messages: ledger.messages(),
        decisions: decisions(&stage),
        kills: ledger.kills_by_victim(),
        verdict,
        kept,
    }
}

/// Everybody at once, until all is sent and most is decided. What went wrong with the actors themselves.
fn act(stage: &Stage, ledger: &Ledger, seed: u64, size: &Size) -> Vec<String> {
    let consent = NewConsent {
        sender: "trusts@sender.test".parse().expect("an address"),
        scope: Scope::Domain,
        target: TRUSTED.to_owned(),
        failures: vec![Failure::Refused],
        client: "192.0.2.7".to_owned(),
        expires_at: now_ms() + 86_400_000,
    };
    let consent = stage.store().add_consent(&consent).expect("a consent");
    let mut trouble = Vec::new();
    thread::scope(|scope| {
        let writers: Vec<_> = (0..load::WRITERS)
            .map(|n| {
                let count = size.messages / load::WRITERS;
                scope.spawn(move || load::write(stage, ledger, seed, n, count))
            })
            .collect();
        let mut actors = Vec::new();
        for (sender, habit) in SENDERS {
            if habit != Habit::Never {
                actors.push(
                    scope.spawn(move || deciders::decide(stage, ledger, seed, sender, habit)),
                );
            }
        }
        actors.push(scope.spawn(move || killers::mover(stage, ledger, seed)));
        actors.push(scope.spawn(move || killers::postfix(stage, ledger, seed)));
        actors.push(scope.spawn(move || {
            killers::helpers(stage, ledger, seed);
            Ok(())
        }));
        actors.push(scope.spawn(move || {
            killers::admin(stage, ledger, seed);
            Ok(())
        }));
        let mut turned = false;
        let is_sending = || writers.iter().any(|writer| !writer.is_finished());
        // An actor that ends early has found something.
        let all_act = || actors.iter().all(|actor| !actor.is_finished());
        while is_sending() && all_act() {
            thread::sleep(Duration::from_millis(100));
            if !turned && ledger.messages() > size.messages / 2 {
                turned = true;
                load::turn(stage, ledger, consent);
            }
        }
        let tail = Instant::now() + Duration::from_secs(size.tail);
        while Instant::now() < tail && all_act() && is_undecided(stage) {
            thread::sleep(Duration::from_millis(500));
        }
        ledger.end();
        for actor in actors {
            match actor.join() {
                Ok(Ok(())) => {}
                Ok(Err(what)) => trouble.push(what),
                Err(_) => trouble.push("an actor panicked, see above".to_owned()),
            }
        }
    });
    // Whatever the last killer has left.
    if stage.sandbox.httpd_pid().is_none()
        && let Err(error) = stage.sandbox.start_httpd(&[])
    {
        trouble.push(format!("the mover does not come up at the end: {error}"));
    }
    trouble
}

/// Do more than a tenth of the recipients still wait for somebody who does decide?
fn is_undecided(stage: &Stage) -> bool {
    let waits = "c.sender NOT LIKE 'never%' AND c.id % 8 <> 0 AND r.state = 'open'";
    stage.number_of(&format!(
        "SELECT 10 * sum({waits}) > count(*) FROM cases c JOIN recipients r ON r.case_id = c.id"
    )) == 1
}

/// How many recipients were decided about, by what and whom; one that is only kept counts once.
fn decisions(stage: &Stage) -> BTreeMap<String, usize> {
    let store = rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a store");
    let mut statement = store
        .prepare(
            "SELECT action || ' by ' || actor, count(DISTINCT recipient_id) FROM decisions d
             WHERE action <> 'keep' OR NOT EXISTS
                 (SELECT 1 FROM decisions f WHERE f.recipient_id = d.recipient_id AND f.action <> 'keep')
             GROUP BY 1",
        )
        .expect("a query");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, u32>(1)? as usize)));
    rows.expect("decisions")
        .collect::<rusqlite::Result<_>>()
        .expect("decisions")
}
