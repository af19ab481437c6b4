//! Queue files of messages that wait, damaged by the hundred: each is refused, which its case and its sender's page say,
//! or goes to exactly the same people. What was refused is moved once it is mended, by itself.
//!
//! Every octet of such files is damaged beside the code (`mover::steps::damage_tests`); here it is done under a running
//! mover, and by a decision about all of them at once.

#[path = "../common/mod.rs"]
mod common;
mod damage;

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use common::Stage;
use damage::{Damage, plan};
use posttls::postfix::{self, Queue};
use posttls::sandbox::Instance;

const ALICE: &str = "alice@sender.test";

/// What was tried in vain for long is tried once a minute, and all that may take its time on a busy machine.
const LAST_TRY: Duration = Duration::from_secs(120);

/// Gives a file other octets. Its time stays: it tells the queue manager when to try again.
fn put(path: &Path, octets: &[u8]) -> std::io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let time = file.metadata()?.modified()?;
    file.set_len(octets.len() as u64)?;
    file.write_all_at(octets, 0)?;
    file.set_times(FileTimes::new().set_modified(time))
}

/// A message with a damaged file.
struct Damaged {
    queue_id: String,
    number: usize,
    damage: Damage,
    good: Vec<u8>,
    bad: Vec<u8>,
}

impl Damaged {
    fn bob(&self) -> String {
        format!("bob{}@plain.test", self.number)
    }

    /// The file, wherever it is; it may be on hold for a moment.
    fn everywhere(&self, instance: &postfix::Instance) -> [std::path::PathBuf; 2] {
        let id = self.queue_id.parse().expect("a queue ID");
        [Queue::Deferred, Queue::Hold].map(|queue| instance.path(queue, &id))
    }

    fn now(&self, stage: &Stage, instance: &postfix::Instance) -> Vec<u8> {
        stage.wait("the file", || {
            let mut paths = self.everywhere(instance).into_iter();
            paths.find_map(|path| fs::read(path).ok())
        })
    }
}

/// Messages that wait for bob and ann, and that ted has.
fn waiting(stage: &Stage, plan: &[Damage]) -> Vec<Damaged> {
    let numbers: Vec<usize> = (0..plan.len()).collect();
    let sent: Vec<(usize, String)> = thread::scope(|scope| {
        let lanes = numbers.chunks(plan.len().div_ceil(4)).map(|lane| {
            scope.spawn(move || {
                let send = |number: &usize| {
                    let names = [("bob", "plain"), ("ann", "refuse"), ("ted", "tls")];
                    let to = names.map(|(name, domain)| format!("{name}{number}@{domain}.test"));
                    let to: Vec<&str> = to.iter().map(String::as_str).collect();
                    (*number, stage.send(&to, &format!("damaged{number}")))
                };
                lane.iter().map(send).collect::<Vec<_>>()
            })
        });
        let lanes: Vec<_> = lanes.collect();
        let lanes = lanes
            .into_iter()
            .flat_map(|lane| lane.join().expect("a lane"));
        lanes.collect()
    });
    stage.wait("a case of each message, all of them deferred", || {
        let cases = stage.number_of("SELECT count(*) FROM cases");
        let queues = stage.sandbox.queue(Instance::Encrypt);
        let all =
            usize::try_from(cases) == Ok(plan.len()) && queues["deferred"].len() == plan.len();
        (all && queues["active"].is_empty() && queues["incoming"].is_empty()).then_some(())
    });
    let instance = encrypt(stage);
    let damaged = sent.into_iter().map(|(number, queue_id)| {
        let path = instance.path(Queue::Deferred, &queue_id.parse().expect("a queue ID"));
        let good = fs::read(&path).expect("a queue file");
        let bad = plan[number].applied(&good);
        put(&path, &bad).expect("a queue file");
        Damaged {
            queue_id,
            number,
            damage: plan[number],
            good,
            bad,
        }
    });
    damaged.collect()
}

fn encrypt(stage: &Stage) -> postfix::Instance {
    let directory = stage.sandbox.config_dir(Instance::Encrypt);
    postfix::Instance::load(&directory).expect("an instance")
}

/// The state of each recipient, by address.
fn states(stage: &Stage) -> BTreeMap<String, String> {
    let store = rusqlite::Connection::open(stage.dir().join("state/posttls.db")).expect("a store");
    let mut rows = store
        .prepare("SELECT address, state FROM recipients")
        .expect("SQL");
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.expect("rows").map(|row| row.expect("a row")).collect()
}

#[test]
fn whatever_is_damaged_it_is_refused_or_goes_to_the_same_people() {
    let stage = Stage::configured(&[("limits", "first", "1")]);
    let plan = plan();
    let messages = waiting(&stage, &plan);
    let instance = encrypt(&stage);
    let page = stage.sender_link(ALICE);
    let body = stage.get(&page).body;
    let (_, seen) = body.split_once("name=\"seen\" value=\"").expect("a mark");
    let seen = seen.split('"').next().expect("a mark");
    let form = format!("action=send&domain=plain.test&seen={seen}");
    assert_eq!(stage.post(&page, &form).status, 200);
    stage.wait("an end of each, or a reason", || {
        let done = stage.number_of(
            "SELECT count(*) FROM recipients r WHERE address LIKE 'bob%' AND (state NOT IN ('open', 'releasing') OR
             EXISTS (SELECT 1 FROM events e WHERE e.case_id = r.case_id AND what = 'hindered'))",
        );
        (usize::try_from(done) == Ok(plan.len())).then_some(())
    });

    let states_now = states(&stage);
    let (mut refused, mut moved, mut left) = (Vec::new(), Vec::new(), 0);
    for message in &messages {
        let state = states_now[&message.bob()].as_str();
        match state {
            "releasing" => refused.push(message),
            "released" => moved.push(message),
            // Another message by its sender or arrival, or one that has been delivered by its marks.
            "gone" | "delivered" => left += 1,
            _ => panic!("{:?}: {state}", message.damage),
        }
        if state != "released" {
            assert_eq!(
                message.now(&stage, &instance),
                message.bad,
                "{:?}",
                message.damage
            );
        }
    }
    println!(
        "{} refused, {} moved, {left} taken for something else",
        refused.len(),
        moved.len()
    );
    assert!(refused.len() > plan.len() / 2 && !moved.is_empty() && left > 0);
    is_told(&stage, refused[0]);
    for name in mailboxes(&stage) {
        let expected = moved.iter().any(|message| message.bob() == name);
        assert!(expected || name.starts_with("ted"), "{name}");
    }

    for message in &refused {
        stage.wait("its file", || {
            let paths = message.everywhere(&instance);
            paths
                .iter()
                .any(|path| put(path, &message.good).is_ok())
                .then_some(())
        });
    }
    let mended = stage.sandbox.wait_for("the mended ones", LAST_TRY, || {
        let states = states(&stage);
        let released = |one: &&Damaged| states[&one.bob()] == "released";
        refused.iter().all(released).then_some(())
    });
    mended.unwrap_or_else(|error| panic!("{error}\n{}", stage.log()));
    moved.extend(&refused);
    for message in &moved {
        stage.arrival(&message.bob());
    }
    nobody_else(&stage, &moved);
    let said = stage.said(&["case", &refused[0].queue_id]);
    assert!(
        said.contains("hindered: ") && !said.contains("NOT CARRIED OUT"),
        "{said}"
    );
}

/// Each bob of these messages has one mail, and nobody else but ted has any.
fn nobody_else(stage: &Stage, moved: &[&Damaged]) {
    stage.wait("an empty queue of the may instance", || {
        stage.has_nothing(Instance::May).then_some(())
    });
    let mut have = mailboxes(stage);
    have.retain(|name| !name.starts_with("ted"));
    let mut should: Vec<String> = moved.iter().map(|message| message.bob()).collect();
    have.sort();
    should.sort();
    assert_eq!(have, should);
    for name in have {
        assert_eq!(stage.sandbox.delivered(&name).len(), 1, "{name}");
    }
}

/// Whoever has mail, by address.
fn mailboxes(stage: &Stage) -> Vec<String> {
    let names = fs::read_dir(stage.dir().join("delivered")).expect("mailboxes");
    names
        .flatten()
        .map(|entry| entry.file_name().into_string().expect("a name"))
        .collect()
}

/// The case says why and what to do, and the sender's page that it takes a repair.
fn is_told(stage: &Stage, message: &Damaged) {
    let id = &message.queue_id;
    let why = stage.case(id)["hindered"]
        .as_str()
        .expect("a reason")
        .to_owned();
    for part in [
        id.as_str(),
        "look at it with postcat",
        "postcat -c ",
        "postsuper -c ",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let said = stage.said(&["case", id]);
    assert!(
        said.contains(&format!("NOT CARRIED OUT YET: {why}")),
        "{said}"
    );
    assert_eq!(said.matches(" hindered: ").count(), 1, "{said}");
    let page = stage.get(&stage.case_link(id)).body;
    assert!(
        page.contains("recorded, but could not be carried out yet"),
        "{page}"
    );
    assert!(!page.contains("queue file"), "{page}");
}

#[test]
fn the_case_tells_of_a_damage_before_anybody_decides() {
    let stage = Stage::with(|options| options.posttls_toml("[sweep]\nseconds = 1\n"));
    let (queue_id, page) = stage.stuck(&["bob@plain.test"], "open");
    stage.in_queue(&queue_id, "deferred");
    let path = encrypt(&stage).path(Queue::Deferred, &queue_id.parse().expect("a queue ID"));
    let good = fs::read(&path).expect("a queue file");
    put(&path, &good[..good.len() - 1]).expect("a queue file");
    stage.wait("word of it", || {
        stage
            .said(&["case", &queue_id])
            .contains(" hindered: ")
            .then_some(())
    });
    let answer = stage.post(&page, "action=send");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer
            .body
            .contains("Your decision is recorded, but could not be carried out yet"),
        "{}",
        answer.body
    );
    put(&path, &good).expect("a queue file");
    stage.arrival("bob@plain.test");
    stage.becomes(&queue_id, "bob@plain.test", "released");
    let page = stage.get(&page).body;
    assert!(!page.contains("could not be carried out"), "{page}");
}
