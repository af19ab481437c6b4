//! Two decisions about one message, and a mover that dies between them: an admin releases the message meanwhile, one of the
//! recipients gets it over TLS, and the message is put on hold again. Whatever comes first then, nobody gets it twice, and
//! the case says what is known.
#![cfg(feature = "failpoints")]

mod common;
mod moving;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Stage, came_over_tls};
use moving::{Fate, Message, POINTS, die_at};
use posttls::case::store::MoveId;
use posttls::case::{Action, Actor};
use posttls::mover::{Engine, Progress};
use posttls::postfix;
use posttls::sandbox::Instance;

/// Its server takes TLS from some moment on.
const X: &str = "xaver@plain.test";
/// Its server never does.
const Z: &str = "zoe@refuse.test";
/// Nor does its, and nothing is decided for it.
const Y: &str = "yves@refuse.test";

/// What happens, in this order, while no mover runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// An admin releases the message, and X gets it over TLS.
    Delivered,
    /// An admin puts the message on hold.
    AdminHolds,
    /// The file system of the may instance's queue is not there: no move that sends goes on.
    MayIsAway,
    /// It is there again.
    MayIsBack,
    /// Somebody goes on with X's move, which is half-way.
    MoveX,
    /// Somebody goes on with Z's move, which has not begun.
    MoveZ,
}

use Event::{AdminHolds, Delivered, MayIsAway, MayIsBack, MoveX, MoveZ};

struct Scene {
    stage: Stage,
    queue_id: String,
    moves: [MoveId; 2],
}

impl Scene {
    /// The mover has died of X's decision at this point, and Z's is recorded.
    fn new(point: &str, zoe_gets: Action) -> Self {
        let stage = Stage::new();
        let (queue_id, link) = stage.stuck(&[X, Y, Z], "two");
        stage.wait("all recipients", || {
            (stage.states(&queue_id).len() == 3).then_some(())
        });
        let message = Message {
            form: format!("choice-{}=send", stage.number(&queue_id, X)),
            to: vec![(X.to_owned(), Fate::Sent), (Y.to_owned(), Fate::Waits)],
            queue_id,
            link,
        };
        let found = POINTS.iter().find(|one| one.name == point);
        die_at(&stage, found.expect("a point"), &message);
        let store = stage.store();
        let first = store.unfinished_moves().expect("a journal")[0].0;
        let case = stage.known(&message.queue_id).id;
        let recipients = store.recipients(case).expect("recipients");
        let zoe = recipients
            .iter()
            .find(|one| one.address.as_str() == Z)
            .expect("a recipient");
        let decided = store.decide(case, &[(zoe.id, zoe_gets)], Actor::Link, "::1", None);
        let second = decided.expect("a decision").planned.expect("a move");
        Self {
            stage,
            queue_id: message.queue_id,
            moves: [first, second],
        }
    }

    fn postfix(&self, tool: &str, arguments: &[&str]) {
        self.stage
            .sandbox
            .run(tool, Instance::Encrypt, arguments)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// From now on the server of X takes TLS.
    fn offer_tls(&self) {
        let table = self.stage.sandbox.config_dir(Instance::Encrypt);
        let table = table.join("transport");
        let text = std::fs::read_to_string(&table).expect("a table");
        let line = |domain: &str| {
            let line = text.lines().find(|line| line.starts_with(domain));
            let line = line.expect("a line").split_once(' ');
            line.expect("two words").1.to_owned()
        };
        let text = text.replace(&line("plain.test "), &line("tls.test "));
        std::fs::write(&table, text).expect("a table");
        self.postfix("postfix", &["reload"]);
    }

    fn happens(&self, event: Event) {
        match event {
            Delivered => {
                self.offer_tls();
                self.postfix("postsuper", &["-H", &self.queue_id]);
                self.stage.wait("X to be delivered to", || {
                    self.postfix("postqueue", &["-f"]);
                    let there = !self.stage.sandbox.delivered(X).is_empty();
                    let waits = self
                        .stage
                        .sandbox
                        .queue_of(Instance::Encrypt, &self.queue_id);
                    (there && waits == Some("deferred")).then_some(())
                });
            }
            MayIsAway | MayIsBack => {
                let hold = self.stage.sandbox.queue_dir(Instance::May).join("hold");
                let away = hold.with_file_name("away");
                let (from, to) = match event {
                    MayIsAway => (hold, away),
                    _ => (away, hold),
                };
                std::fs::rename(from, to).expect("a directory");
            }
            AdminHolds => self.postfix("postsuper", &["-h", &self.queue_id, "deferred"]),
            MoveX => drop(self.carry_out(self.moves[0])),
            MoveZ => drop(self.carry_out(self.moves[1])),
        }
    }

    fn carry_out(&self, id: MoveId) -> Option<Progress> {
        let store = Arc::new(self.stage.store());
        let [encrypt, may] = [Instance::Encrypt, Instance::May].map(|which| {
            let directory = self.stage.sandbox.config_dir(which);
            postfix::Instance::load(&directory).expect("an instance")
        });
        let case = self.stage.known(&self.queue_id).id;
        let engine = Engine::new(store, encrypt, may, &["127.0.0.1".to_owned()]);
        let soon = Instant::now() + Duration::from_secs(3);
        engine.carry_out(id, case, soon, soon).ok()
    }

    fn count(&self, recipient: &str) -> usize {
        self.stage.sandbox.delivered(recipient).len()
    }

    fn in_mays_hold(&self) -> Vec<String> {
        self.stage.sandbox.queue(Instance::May)["hold"].clone()
    }
}

/// X got the message over TLS before its copy was ready: it must not get it again, and an admin is told.
fn x_is_not_sent_to_again(events: &[Event], zoe_gets: Action) {
    let scene = Scene::new("move::published", zoe_gets);
    let stage = &scene.stage;
    for event in events {
        scene.happens(*event);
    }
    stage.sandbox.start_httpd(&[]).expect("it starts again");
    let id = scene.queue_id.as_str();
    let stopped = || {
        stage
            .said(&["case", id])
            .contains("is stopped for you to look at")
    };
    stage.wait("a word for the admin", || stopped().then_some(()));
    // Long enough for the may instance, were it given anything.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(scene.count(X), 1, "{events:?}\n{}", stage.log());
    assert!(came_over_tls(&stage.arrival(X)), "{events:?}");
    let held = scene.in_mays_hold();
    assert_eq!(held.len(), 1, "{events:?}: its copy stays on hold");
    // The case and `posttls resolve` say what is known, and nobody says that X was released.
    assert_eq!(stage.states(id)[X], "releasing", "{events:?}");
    let shown = stage.said(&["resolve", id]);
    assert!(shown.contains(&format!("<{X}> was marked done")), "{shown}");
    assert!(shown.contains(&format!("-d {}", held[0])), "{shown}");
    // Zoe's decision waits for the admin, who does what is said.
    assert_eq!(scene.count(Z), 0, "{events:?}");
    assert_ne!(stage.states(id)[Z], "released", "{events:?}");
    let removed = stage
        .sandbox
        .run("postsuper", Instance::May, &["-d", &held[0]]);
    removed.unwrap_or_else(|error| panic!("{error}"));
    if events.contains(&AdminHolds) {
        scene.postfix("postsuper", &["-H", id]);
    }
    stage.said(&["resolve", id, "--settled"]);
    let (end, mails) = match zoe_gets {
        Action::Send => ("released", 1),
        _ => ("deleted", 0),
    };
    stage.wait("the end", || (stage.states(id)[Z] == end).then_some(()));
    if zoe_gets == Action::Send {
        stage.arrival(Z);
    }
    moving::recovered(stage, "at the end");
    assert_eq!((scene.count(X), scene.count(Z)), (1, mails), "{events:?}");
}

#[test]
fn the_other_move_comes_first_and_x_was_delivered_before() {
    x_is_not_sent_to_again(&[Delivered, MoveZ], Action::Send);
}

#[test]
fn the_other_move_comes_first_and_x_is_delivered_after() {
    let events = [MayIsAway, MoveZ, Delivered, AdminHolds, MayIsBack];
    x_is_not_sent_to_again(&events, Action::Delete);
}

#[test]
fn its_own_move_comes_first_and_finds_the_message_free() {
    x_is_not_sent_to_again(&[Delivered, MoveX, MoveZ], Action::Send);
}

#[test]
fn its_own_move_comes_first_and_finds_the_message_on_hold() {
    x_is_not_sent_to_again(&[Delivered, AdminHolds, MoveX, MoveZ], Action::Send);
}

/// From the first mark until the journal knows of them nobody can release the message, so it is all of our doing.
#[test]
fn half_marked_it_cannot_be_released_and_goes_on() {
    for point in ["move::written", "move::synced", "move::ready"] {
        let scene = Scene::new(point, Action::Send);
        let stage = &scene.stage;
        scene.offer_tls();
        for arguments in [
            ["-H", &scene.queue_id],
            ["-H", "ALL"],
            ["-r", &scene.queue_id],
        ] {
            scene.postfix("postsuper", &arguments);
        }
        scene.postfix("postqueue", &["-f"]);
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(scene.count(X), 0, "{point}");
        stage.sandbox.start_httpd(&[]).expect("it starts again");
        stage.arrival(X);
        stage.arrival(Z);
        moving::recovered(stage, point);
        assert_eq!((scene.count(X), scene.count(Z)), (1, 1), "{point}");
        let mail = stage.arrival(X);
        assert!(!came_over_tls(&mail), "{point}: by the may instance");
        assert!(
            !stage.log().contains("conflict: "),
            "{point}\n{}",
            stage.log()
        );
        for instance in [Instance::Encrypt, Instance::May] {
            stage.wait("empty queues", || {
                let queues = stage.sandbox.queue(instance);
                queues["hold"].is_empty().then_some(())
            });
        }
    }
}
