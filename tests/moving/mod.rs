//! Messages whose move is cut off at a named point, and what must be true before and after recovery.
#![allow(dead_code)] // Every test program uses a part of it.

use std::collections::BTreeMap;

use posttls::case::MoveStep;
use posttls::sandbox::Instance;

use crate::common::Stage;

/// A named point of the move, and what is on disk when the mover dies there.
pub struct Point {
    pub name: &'static str,
    /// What the journal says.
    pub step: MoveStep,
    /// Is the source on hold?
    pub source_held: bool,
    /// Is the copy on hold, if there is one?
    pub copy_held: bool,
}

const fn point(name: &'static str, step: MoveStep, source_held: bool, copy_held: bool) -> Point {
    Point {
        name,
        step,
        source_held,
        copy_held,
    }
}

/// In the order in which a move passes them.
pub const POINTS: [Point; 14] = [
    point("move::about-to-hold", MoveStep::Planned, false, false),
    point("move::held", MoveStep::Planned, true, false),
    point("move::copied", MoveStep::Planned, true, false),
    point("move::begun", MoveStep::Begun, true, false),
    point("move::published", MoveStep::Begun, true, true),
    point("move::sealed", MoveStep::Begun, true, true),
    point("move::written", MoveStep::Begun, true, true),
    point("move::synced", MoveStep::Begun, true, true),
    point("move::ready", MoveStep::Begun, true, true),
    point("move::marked-sealed", MoveStep::Marked, true, true),
    point("move::marked", MoveStep::Marked, true, true),
    point("move::requeued-unsaid", MoveStep::Marked, true, false),
    point("move::requeued", MoveStep::Requeued, true, false),
    point("move::finished-unsaid", MoveStep::Requeued, false, false),
];

impl Point {
    /// The environment in which `posttls-httpd` does this at the point.
    pub fn acts(&self, action: &str) -> (String, String) {
        ("FAILPOINTS".to_owned(), format!("{}={action}", self.name))
    }

    pub fn panic(&self) -> (String, String) {
        self.acts("panic")
    }

    /// A word for subjects and addresses.
    pub fn tag(&self) -> String {
        self.name.replace("move::", "")
    }

    /// Has the source the mode that hides it from Postfix and its tools?
    pub fn is_sealed(&self) -> bool {
        ["sealed", "written", "synced", "ready", "marked-sealed"].contains(&self.tag().as_str())
    }

    pub fn is_passed_by(&self, fates: &[Fate]) -> bool {
        self.name != "move::requeued-unsaid" || fates.contains(&Fate::Sent)
    }

    /// Is on disk what is on disk at this point?
    pub fn is_reached(&self, stage: &Stage, message: &Message) -> bool {
        let copies = usize::from(self.copy_held && message.fates().any(|fate| fate == Fate::Sent));
        let source = if self.source_held {
            vec![message.queue_id.clone()]
        } else {
            Vec::new()
        };
        let step = stage
            .store()
            .unfinished_moves()
            .expect("a journal")
            .first()
            .map(|(id, _)| {
                stage
                    .store()
                    .load_move(*id)
                    .expect("a journal")
                    .expect("a move")
                    .step
            });
        step == Some(self.step)
            && stage.sandbox.queue(Instance::Encrypt)["hold"] == source
            && stage.sandbox.queue(Instance::May)["hold"].len() == copies
    }
}

/// What the sender decides for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Sent,
    Deleted,
    /// Nothing is decided; its server has no TLS.
    Waits,
}

/// A message that is stuck, and what its sender is about to decide.
pub struct Message {
    pub queue_id: String,
    pub link: String,
    pub form: String,
    pub to: Vec<(String, Fate)>,
}

impl Message {
    pub fn send(stage: &Stage, tag: &str, fates: &[Fate]) -> Self {
        let to: Vec<(String, Fate)> = (1..)
            .zip(fates)
            .map(|(n, fate)| (format!("{tag}-{n}@plain.test"), *fate))
            .collect();
        let addresses: Vec<&str> = to.iter().map(|(address, _)| address.as_str()).collect();
        let (queue_id, link) = stage.stuck(&addresses, tag);
        let case = stage.case(&queue_id);
        let form = |recipient: &serde_json::Value| {
            let (_, fate) = to
                .iter()
                .find(|(address, _)| recipient["address"] == address.as_str())?;
            let number = &recipient["number"];
            match fate {
                Fate::Sent => Some(format!("choice-{number}=send")),
                Fate::Deleted => Some(format!("choice-{number}=delete")),
                Fate::Waits => None,
            }
        };
        let form: Vec<String> = case["recipients"]
            .as_array()
            .expect("recipients")
            .iter()
            .filter_map(form)
            .collect();
        Self {
            queue_id,
            link,
            form: form.join("&"),
            to,
        }
    }

    pub fn fates(&self) -> impl Iterator<Item = Fate> {
        self.to.iter().map(|(_, fate)| *fate)
    }

    fn with(&self, wanted: Fate) -> Vec<String> {
        self.to
            .iter()
            .filter(|(_, fate)| *fate == wanted)
            .map(|(address, _)| address.clone())
            .collect()
    }

    pub fn sent(&self) -> Vec<String> {
        self.with(Fate::Sent)
    }

    pub fn waiting(&self) -> Vec<String> {
        self.with(Fate::Waits)
    }

    /// Waits until everything is as the sender wanted it, and then checks that nothing is more than that.
    pub fn has_come_right(&self, stage: &Stage, when: &str) {
        recovered(stage, when);
        for recipient in self.sent() {
            stage.arrival(&recipient);
        }
        for (recipient, fate) in &self.to {
            let count = stage.sandbox.delivered(recipient).len();
            assert_eq!(
                count,
                usize::from(*fate == Fate::Sent),
                "{when}: mails for {recipient}\n{}",
                stage.log()
            );
        }
        if self.waiting().is_empty() {
            assert_eq!(
                stage.sandbox.queue_of(Instance::Encrypt, &self.queue_id),
                None,
                "{when}"
            );
        } else {
            stage.in_queue(&self.queue_id, "deferred");
            let mut pending = stage.pending(&self.queue_id);
            pending.sort();
            assert_eq!(pending, self.waiting(), "{when}");
        }
        for instance in [Instance::Encrypt, Instance::May] {
            assert!(
                stage.sandbox.queue(instance)["hold"].is_empty(),
                "{when}: {instance}"
            );
        }
        let wanted: BTreeMap<String, String> = self
            .to
            .iter()
            .map(|(address, fate)| {
                let state = match fate {
                    Fate::Sent => "released",
                    Fate::Deleted => "deleted",
                    Fate::Waits => "open",
                };
                (address.clone(), state.to_owned())
            })
            .collect();
        assert_eq!(stage.states(&self.queue_id), wanted, "{when}");
    }
}

/// Waits until the journal owes nothing, and the may instance has done all that it was given.
pub fn recovered(stage: &Stage, when: &str) {
    let store = stage.store();
    stage.wait(&format!("{when}: an empty journal"), || {
        store
            .unfinished_moves()
            .expect("a journal")
            .is_empty()
            .then_some(())
    });
    stage.wait(&format!("{when}: nothing under way in may"), || {
        let queues = stage.sandbox.queue(Instance::May);
        ["maildrop", "deferred", "incoming", "active"]
            .iter()
            .all(|queue| queues[queue].is_empty())
            .then_some(())
    });
}

/// Decides, and waits until the mover has died of it at this point.
pub fn die_at(stage: &Stage, point: &Point, message: &Message) {
    stage.sandbox.stop_httpd();
    stage
        .sandbox
        .start_httpd(&[point.panic()])
        .expect("it starts");
    stage.in_queue(&message.queue_id, "deferred");
    stage.post_into_the_dark(&message.link, &message.form);
    stage.wait(&format!("death at {}", point.name), || {
        stage.sandbox.httpd_pid().is_none().then_some(())
    });
    assert!(
        point.is_reached(stage, message),
        "{}: encrypt {:?}, may {:?}",
        point.name,
        stage.sandbox.queue(Instance::Encrypt),
        stage.sandbox.queue(Instance::May)
    );
}
