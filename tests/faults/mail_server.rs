//! The server that takes the notifications takes its time for ever, refuses for now, and refuses for good. (That it is
//! down: tests/hook_postfix.rs.)

use std::sync::{Arc, Mutex};

use posttls::sandbox::Instance;
use rustix::process::Signal;

use crate::common::Stage;
use crate::hook_stage::Server;

#[test]
fn silent_busy_and_refusing() {
    let mood = Arc::new(Mutex::new(Some("")));
    let now = Arc::clone(&mood);
    let server = Server::start(move |command| {
        let mood = *now.lock().expect("no panic");
        mood.filter(|_| command == "RCPT")
    });
    let stage = Stage::with(|options| options.httpd(false));
    stage.configure("notification", "smtp_port", &server.port.to_string());
    stage.configure("notification", "smtp_timeout_seconds", "1");
    stage.configure("notification", "admin_address", "\"root@sender.test\"");
    stage.sandbox.start_httpd(&[]).expect("it starts");
    let told = |queue_id: &str| {
        let reference = format!("(Reference: {queue_id})");
        let mails = server.mails();
        mails
            .iter()
            .filter(|mail| mail.contains(&reference))
            .count()
    };

    let mut messages = Vec::new();
    for (subject, answer) in [("silent", ""), ("busy", "451 4.3.0 later")] {
        *mood.lock().expect("no panic") = Some(answer);
        let queue_id = stage.send(&[&format!("{subject}@plain.test")], subject);
        stage.known(&queue_id);
        // By the queue ID of the notice, which mailq has, too.
        stage.wait("the notice to be kept", || {
            let log = stage.log();
            let kept = log
                .matches("notice kept by Postfix for another try")
                .count();
            (kept > messages.len()).then_some(())
        });
        messages.push(queue_id);
    }
    let mailq = stage.run("postqueue", Instance::Encrypt, &["-p"]);
    assert!(mailq.contains("did not take the notification"), "{mailq}");
    *mood.lock().expect("no panic") = Some("550 5.7.1 never");
    let refused = stage.send(&["never@plain.test"], "refused");
    let line = stage.logged_about(&refused, "the sender can't be told");
    assert!(
        line.contains("from=<alice@sender.test>") && line.contains("never"),
        "{line}"
    );
    messages.push(refused);
    for queue_id in &messages {
        let shown = stage.said(&["case", queue_id]);
        assert!(shown.contains("not notified"), "{shown}");
        assert_eq!(told(queue_id), 0);
    }
    // An admin need not wait for the mail, and decides in the sender's place.
    stage.said(&["release", &messages[0]]);
    stage.arrival("silent@plain.test");

    *mood.lock().expect("no panic") = None;
    // What was refused for good is tried again at once by a courier that is new.
    stage.signal_mover(Signal::HUP);
    stage.flush_all();
    for queue_id in &messages[1..] {
        stage.wait("the sender to be told", || {
            (told(queue_id) > 0).then_some(())
        });
    }
    stage.wait("the notices to be done with", || {
        stage.flush_all();
        let waiting = &stage.sandbox.queue(Instance::Encrypt)["deferred"];
        waiting.iter().all(|id| messages.contains(id)).then_some(())
    });
    for queue_id in &messages[1..] {
        assert_eq!(told(queue_id), 1, "{}", stage.log());
    }
    assert_eq!(told(&messages[0]), 0, "there is nothing to decide any more");
    assert_eq!(stage.arrivals("silent@plain.test").len(), 1);
}
