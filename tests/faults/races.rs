//! An admin holds, releases, requeues or removes a message at the very moment of the click: no step is waited for, both
//! are started together, again and again. (Each step by name: tests/crash_meddling.rs.)

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use posttls::postfix::QueueFile;
use posttls::sandbox::Instance;

use crate::common::{Stage, request};

const ROUNDS: usize = 6;

/// Who waits in the queues of an instance, and how often.
fn waiting(stage: &Stage, instance: Instance) -> BTreeMap<String, usize> {
    let root = stage.sandbox.queue_dir(instance);
    let queues = ["maildrop", "incoming", "active", "deferred", "hold"];
    let mut found = BTreeMap::new();
    for path in stage.spool_files() {
        if !queues
            .iter()
            .any(|queue| path.starts_with(root.join(queue)))
        {
            continue;
        }
        // It may go on to the next queue in this moment; who asks, asks again.
        let Ok(content) = std::fs::File::open(&path).map(QueueFile::read) else {
            continue;
        };
        for recipient in content.iter().flat_map(QueueFile::pending) {
            let address = String::from_utf8_lossy(&recipient.bytes).into_owned();
            *found.entry(address).or_insert(0) += 1;
        }
    }
    found
}

/// One race: who was to be sent to, who waits, and what became of the queue ID.
struct Race {
    queue_id: String,
    sent: String,
    waits: String,
}

/// Runs all races of one verb, and waits until every move has come to an end or was stopped.
fn run(stage: &Stage, verb: &str) -> Vec<Race> {
    let races: Vec<Race> = (0..ROUNDS)
        .map(|round| {
            let name = format!("{}{round}", verb.trim_start_matches('-'));
            let (sent, waits) = (
                format!("s-{name}@plain.test"),
                format!("w-{name}@plain.test"),
            );
            let queue_id = stage.stuck_from("alice@sender.test", &[&sent, &waits], &name);
            Race {
                queue_id,
                sent,
                waits,
            }
        })
        .collect();
    for (round, race) in races.iter().enumerate() {
        let page = stage.case_link(&race.queue_id);
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                // From before the hold to after the end of a move.
                thread::sleep(Duration::from_millis(12) * u32::try_from(round).expect("few"));
                stage.run("postsuper", Instance::Encrypt, &[verb, &race.queue_id]);
                if verb == "-H" {
                    // It may have gone already.
                    let id = &race.queue_id;
                    stage
                        .sandbox
                        .run("postqueue", Instance::Encrypt, &["-i", id])
                        .ok();
                }
            });
            start.wait();
            let form = format!("action=send&recipient={}", race.sent.replace('@', "%40"));
            let answer = request("POST", &page, &form);
            assert_eq!(answer.status, 200, "{verb} {}: {answer:?}", race.queue_id);
        });
    }
    let unfinished = "SELECT count(*) FROM moves WHERE step NOT IN ('done', 'conflict')";
    stage.wait("the end of all moves", || {
        // What the admin was the first to hold waits for the admin.
        for race in races.iter().filter(|_| verb == "-h") {
            if stage.case(&race.queue_id)["held_at"].is_i64() {
                let id = &race.queue_id;
                stage.run("postsuper", Instance::Encrypt, &["-H", id]);
            }
        }
        // What was let go while a move had it locked, the queue manager has skipped for minimal_backoff_time.
        for race in races.iter().filter(|_| verb == "-H") {
            if stage.sandbox.queue_of(Instance::Encrypt, &race.queue_id) == Some("incoming") {
                let id = &race.queue_id;
                stage
                    .sandbox
                    .run("postqueue", Instance::Encrypt, &["-i", id])
                    .ok();
            }
        }
        (stage.number_of(unfinished) == 0).then_some(())
    });
    settle_conflicts(stage, &races);
    races
}

/// Does what the log says about each move that was stopped: looks who has the message, and sends the copy or removes it.
fn settle_conflicts(stage: &Stage, races: &[Race]) {
    for race in races {
        let shown = stage.said(&["case", &race.queue_id]);
        let Some((_, copy)) = shown.split_once("its copy for the may instance: ") else {
            continue;
        };
        let copy = copy.lines().next().unwrap_or_default();
        stage.logged_about(&race.queue_id, ", conflict: ");
        let held = &stage.sandbox.queue(Instance::May)["hold"];
        if held.iter().any(|id| id == copy) {
            let again = waiting(stage, Instance::Encrypt).contains_key(&race.sent);
            let verb = if again { "-d" } else { "-H" };
            stage.run("postsuper", Instance::May, &[verb, copy]);
        }
        stage.said(&["resolve", &race.queue_id, "--settled"]);
    }
}

/// Everybody waits in one place, or has the message: nobody both, nobody twice, nobody neither.
fn nobody_is_lost_or_doubled(stage: &Stage, races: &[Race]) {
    for race in races {
        stage.wait(&format!("{} in one place", race.queue_id), || {
            let (encrypt, may) = (
                waiting(stage, Instance::Encrypt),
                waiting(stage, Instance::May),
            );
            let places = |who: &String| {
                let waits = |queue: &BTreeMap<String, usize>| queue.get(who).copied().unwrap_or(0);
                waits(&encrypt) + waits(&may) + stage.arrivals(who).len()
            };
            (places(&race.sent) == 1 && places(&race.waits) == 1).then_some(())
        });
        assert_eq!(stage.attempts(&race.waits), 0, "unasked: {}", race.waits);
    }
}

/// Lets everything that waits go, as its senders' decisions; then each has one copy. (Of what was requeued Postfix leaves
/// the defer log under the old queue ID, so the spools are not looked at.)
fn all_go(stage: &Stage, races: &[Race]) {
    stage.wait("everything to be asked about and released", || {
        stage.run("postsuper", Instance::Encrypt, &["-H", "ALL"]);
        stage.flush_all();
        stage.said(&["census"]);
        for id in &stage.sandbox.queue(Instance::Encrypt)["deferred"] {
            // A notice has no case; a message that is active is released a moment later.
            stage.posttls(&["release", id]);
        }
        waiting(stage, Instance::Encrypt).is_empty().then_some(())
    });
    let everybody: Vec<&str> = races
        .iter()
        .flat_map(|race| [race.sent.as_str(), race.waits.as_str()])
        .collect();
    for recipient in &everybody {
        stage.arrival(recipient);
    }
    stage.queues_are_empty();
    for recipient in &everybody {
        assert_eq!(stage.arrivals(recipient).len(), 1, "{recipient}");
    }
}

#[test]
fn held_and_released() {
    let stage = Stage::new();
    let mut races = run(&stage, "-h");
    races.extend(run(&stage, "-H"));
    nobody_is_lost_or_doubled(&stage, &races);
    all_go(&stage, &races);
}

#[test]
fn requeued() {
    let stage = Stage::new();
    let races = run(&stage, "-r");
    nobody_is_lost_or_doubled(&stage, &races);
    all_go(&stage, &races);
}

#[test]
fn removed() {
    let stage = Stage::new();
    let races = run(&stage, "-d");
    for race in &races {
        let state = &stage.states(&race.queue_id)[&race.sent];
        // Who was removed first is gone; what was decided first is carried out.
        if state == "released" {
            stage.arrival(&race.sent);
        }
        assert_eq!(stage.attempts(&race.waits), 0, "unasked: {}", race.waits);
        // While a move marks recipients postsuper passes over the message, and says that it has deleted nothing.
        if stage
            .sandbox
            .queue_of(Instance::Encrypt, &race.queue_id)
            .is_some()
        {
            assert_eq!(state, "released", "{}", race.queue_id);
            stage.run("postsuper", Instance::Encrypt, &["-d", &race.queue_id]);
        }
    }
    stage.queues_are_empty();
    for race in &races {
        assert!(stage.arrivals(&race.sent).len() <= 1, "{}", race.sent);
        assert_eq!(stage.arrivals(&race.waits).len(), 0, "{}", race.waits);
    }
}
