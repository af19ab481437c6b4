//! While the mover is dead, an admin who knows nothing of it releases or removes the held message. PostTLS then never
//! doubles a delivery: where it can't know, it stops, says so, and leaves the copy on hold.
#![cfg(feature = "failpoints")]

mod common;
mod moving;

use common::Stage;
use moving::{Fate, Message, POINTS, Point, die_at, recovered};
use posttls::case::MoveStep;
use posttls::sandbox::Instance;

/// What recovery makes of a message that the admin has touched at this point.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// As if nobody had touched it.
    Done,
    /// Nothing was done yet, and nothing is done any more.
    Undone,
    /// Stopped, with the copy on hold.
    Conflict,
}

struct Downtime {
    stage: Stage,
    message: Message,
    point: &'static str,
}

impl Downtime {
    fn recover(&self) -> End {
        self.stage
            .sandbox
            .start_httpd(&[])
            .expect("it starts again");
        recovered(&self.stage, self.point);
        let id = self.message.queue_id.as_str();
        let shown = String::from_utf8(self.stage.posttls(&["case", id]).stdout).expect("text");
        let said = shown.contains("is stopped for you to look at");
        assert_eq!(
            said,
            self.stage.log().contains(", conflict: "),
            "{}: {shown}",
            self.point
        );
        if said {
            let copy = self.copy().unwrap_or_default();
            let named = format!("its copy for the may instance: {copy}");
            assert!(shown.contains(&named), "{shown}");
            // The log says what can be done with a copy, and only when it is there.
            let advice = format!(
                "postsuper -c {} -H ",
                self.stage.sandbox.config_dir(Instance::May).display()
            );
            assert_eq!(
                self.stage.log().contains(&advice),
                !copy.is_empty(),
                "{}",
                self.stage.log()
            );
            return End::Conflict;
        }
        assert_eq!(self.copy(), None, "{}", self.point);
        let state = &self.stage.states(id)[&self.message.sent()[0]];
        match state.as_str() {
            "released" => End::Done,
            "gone" | "delivered" => End::Undone,
            _ => panic!("{}: {state}", self.point),
        }
    }

    fn copy(&self) -> Option<String> {
        self.stage.sandbox.queue(Instance::May)["hold"]
            .first()
            .cloned()
    }

    /// How often the recipient that was to be sent to, and the one that waits, got the message so far.
    fn counts(&self) -> (usize, usize) {
        let count = |recipient: &str| self.stage.sandbox.delivered(recipient).len();
        (
            count(&self.message.sent()[0]),
            count(&self.message.waiting()[0]),
        )
    }

    fn postfix(&self, tool: &str, instance: Instance, arguments: &[&str]) {
        self.stage
            .sandbox
            .run(tool, instance, arguments)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until an instance has nothing under way.
    fn quiet(&self, instance: Instance) {
        self.stage
            .wait(&format!("{}: {instance} quiet", self.point), || {
                let queues = self.stage.sandbox.queue(instance);
                // What may has deferred is about to go; in encrypt it waits for its sender.
                let waits = if instance == Instance::May {
                    "deferred"
                } else {
                    "maildrop"
                };
                [waits, "incoming", "active"]
                    .iter()
                    .all(|queue| queues[queue].is_empty())
                    .then_some(())
            });
    }

    fn all_quiet(&self) {
        self.quiet(Instance::Encrypt);
        self.quiet(Instance::May);
    }

    /// Does with the copy what the conflict's message says.
    fn resolve(&self, verb: &str) {
        let copy = self.copy().expect("a copy");
        self.postfix("postsuper", Instance::May, &[verb, &copy]);
        // It may end by SIGPIPE: pickup reads only the first of the two octets that it writes.
        self.stage.wake_pickup(Instance::May);
        self.stage.arrival(&self.message.sent()[0]);
    }
}

fn at_every_point(meddle: impl Fn(&Downtime), after: impl Fn(&Downtime, &Point)) {
    // At these two the disk looks as at their neighbours.
    let alike = ["move::held", "move::written"];
    for point in POINTS.iter().filter(|point| !alike.contains(&point.name)) {
        let stage = Stage::new();
        let message = Message::send(&stage, &point.tag(), &[Fate::Sent, Fate::Waits]);
        die_at(&stage, point, &message);
        let downtime = Downtime {
            stage,
            message,
            point: point.name,
        };
        meddle(&downtime);
        after(&downtime, point);
    }
}

#[test]
fn the_source_is_released_and_fails_again() {
    at_every_point(
        |downtime| {
            downtime.postfix(
                "postsuper",
                Instance::Encrypt,
                &["-H", &downtime.message.queue_id],
            );
            downtime.postfix("postqueue", Instance::Encrypt, &["-f"]);
            downtime.quiet(Instance::Encrypt);
        },
        |downtime, point| {
            assert_eq!(downtime.recover(), End::Done, "{}", point.name);
            downtime.stage.arrival(&downtime.message.sent()[0]);
            downtime.all_quiet();
            assert_eq!(downtime.counts(), (1, 0), "{}", point.name);
            downtime
                .stage
                .in_queue(&downtime.message.queue_id, "deferred");
            assert_eq!(
                downtime.stage.pending(&downtime.message.queue_id),
                downtime.message.waiting()
            );
        },
    );
}

#[test]
fn the_source_is_released_and_goes_out_over_tls() {
    at_every_point(
        |downtime| {
            let sandbox = &downtime.stage.sandbox;
            let table = sandbox.config_dir(Instance::Encrypt).join("transport");
            let text = std::fs::read_to_string(&table).expect("a table");
            let line = |domain: &str| {
                let line = text
                    .lines()
                    .find(|line| line.starts_with(domain))
                    .expect("a line");
                line.split_once(' ').expect("two words").1.to_owned()
            };
            let text = text.replace(&line("plain.test "), &line("tls.test "));
            std::fs::write(&table, text).expect("a table");
            downtime.postfix("postfix", Instance::Encrypt, &["reload"]);
            downtime.postfix(
                "postsuper",
                Instance::Encrypt,
                &["-H", &downtime.message.queue_id],
            );
            let gone = || {
                sandbox
                    .queue_of(Instance::Encrypt, &downtime.message.queue_id)
                    .is_none()
            };
            let flush = || downtime.postfix("postqueue", Instance::Encrypt, &["-f"]);
            if POINTS
                .iter()
                .any(|one| one.name == downtime.point && one.is_sealed())
            {
                // Nobody releases or delivers it: it is as if the admin had come before us.
                flush();
                downtime.quiet(Instance::Encrypt);
                return assert_eq!(downtime.counts(), (0, 0), "{}", downtime.point);
            }
            downtime.stage.wait("the end of the source", || {
                flush();
                gone().then_some(())
            });
        },
        |downtime, point| {
            let (wanted, already) = match point.step {
                _ if point.is_sealed() => (End::Done, 0),
                MoveStep::Begun if point.copy_held => (End::Conflict, 1),
                MoveStep::Planned | MoveStep::Begun => (End::Undone, 1),
                _ => (
                    End::Done,
                    usize::from(!point.copy_held && point.name == "move::finished-unsaid"),
                ),
            };
            assert_eq!(downtime.recover(), wanted, "{}", point.name);
            if wanted == End::Done {
                downtime.stage.arrival(&downtime.message.sent()[0]);
            } else {
                assert_eq!(downtime.counts(), (already, 1), "{}", point.name);
            }
            if wanted == End::Conflict {
                downtime.resolve("-d");
            }
            downtime.stage.wait("the one who waits", || {
                downtime.postfix("postqueue", Instance::Encrypt, &["-f"]);
                (downtime.counts().1 == 1).then_some(())
            });
            downtime.all_quiet();
            assert_eq!(downtime.counts(), (1, 1), "{}", point.name);
        },
    );
}

#[test]
fn the_source_is_removed() {
    at_every_point(
        |downtime| {
            downtime.postfix(
                "postsuper",
                Instance::Encrypt,
                &["-d", &downtime.message.queue_id],
            );
        },
        |downtime, point| {
            let wanted = match point.step {
                // `postsuper` with a queue ID passes over it.
                _ if point.is_sealed() => End::Done,
                MoveStep::Begun if point.copy_held => End::Conflict,
                MoveStep::Planned | MoveStep::Begun => End::Undone,
                _ => End::Done,
            };
            assert_eq!(downtime.recover(), wanted, "{}", point.name);
            downtime.all_quiet();
            if wanted == End::Done {
                downtime.stage.arrival(&downtime.message.sent()[0]);
            }
            // Nobody who waits gets what was removed, and a decision that was carried out stands.
            assert_eq!(
                downtime.counts(),
                (usize::from(wanted == End::Done), 0),
                "{}",
                point.name
            );
        },
    );
}

/// All held mail of the may instance is released, submitted anew or removed.
fn the_copy_is_touched(verb: &str) {
    at_every_point(
        |downtime| {
            downtime.postfix("postsuper", Instance::May, &[verb, "ALL", "hold"]);
            downtime.postfix("postqueue", Instance::May, &["-f"]);
            downtime.stage.wake_pickup(Instance::May);
            // What is ready goes out now; what is not stays, so there is nothing to wait for.
            std::thread::sleep(std::time::Duration::from_millis(500));
        },
        |downtime, point| {
            let end = downtime.recover();
            // Ready, and the journal does not know it yet: who has the copy can't be told.
            let unclear =
                point.name == "move::ready" || (verb == "-d" && point.name == "move::synced");
            assert_eq!(end == End::Conflict, unclear, "{}: {end:?}", point.name);
            let removed =
                verb == "-d" && (unclear || point.step == MoveStep::Marked && point.copy_held);
            if !removed {
                downtime.stage.arrival(&downtime.message.sent()[0]);
            }
            downtime.quiet(Instance::May);
            let wanted = (usize::from(!removed), 0);
            assert_eq!(downtime.counts(), wanted, "{}", point.name);
            let pending = downtime.stage.pending(&downtime.message.queue_id);
            assert_eq!(pending, downtime.message.waiting(), "{}", point.name);
        },
    );
}

#[test]
fn the_copy_is_released() {
    the_copy_is_touched("-H");
}

#[test]
fn the_copy_is_submitted_anew() {
    the_copy_is_touched("-r");
}

#[test]
fn the_copy_is_removed() {
    the_copy_is_touched("-d");
}
