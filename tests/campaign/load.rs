//! The senders' mail: submitted while everything around it is killed, and what changes midway.

use std::time::Duration;

use posttls::case::store::now_ms;
use posttls::sandbox::Instance;

use crate::common::Stage;
use crate::ledger::{Ledger, Sent};
use crate::plan::{self, DOMAINS, MANDATORY, TURNING};

/// Threads that submit.
pub const WRITERS: usize = 2;

/// Puts a domain's own line into the transport tables of these instances, before what was there.
fn route(stage: &Stage, domain: &str, like: &str, instances: &[Instance]) {
    let server = stage.sandbox.description()["domains"][like]["smtp"]
        .as_str()
        .expect("a domain of the sandbox")
        .replace("127.0.0.1", "[127.0.0.1]");
    for instance in instances {
        let path = stage.sandbox.config_dir(*instance).join("transport");
        let table = std::fs::read_to_string(&path).expect("a transport table");
        let others = table
            .lines()
            .filter(|line| !line.starts_with(&format!("{domain} ")));
        let mut new = format!("{domain} smtp:{server}\n");
        for line in others {
            new.push_str(line);
            new.push('\n');
        }
        // Renamed: an instance that starts meanwhile reads the one or the other.
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, new).expect("a transport table");
        std::fs::rename(&fresh, &path).expect("a transport table");
    }
}

/// Gives the domains that the sandbox does not have their servers.
pub fn prepare(stage: &Stage) {
    for domain in DOMAINS.iter().filter(|domain| domain.name != domain.server) {
        let both = [Instance::Encrypt, Instance::May];
        route(stage, domain.name, domain.server, &both);
    }
    stage.reload(Instance::Encrypt);
    stage.reload(Instance::May);
}

/// Submits so many messages.
pub fn write(stage: &Stage, ledger: &Ledger, seed: u64, writer: usize, count: usize) {
    let mut rng = plan::rng(seed, &format!("writer {writer}"));
    let mut done = 0;
    let mut attempt = 0;
    while done < count && !ledger.is_over() {
        // A fresh name for each attempt: of one whose connection broke nobody knows whether it was taken.
        let message = plan::message(&mut rng, &format!("w{writer}a{attempt}"));
        attempt += 1;
        let names: Vec<&str> = message.to.iter().map(String::as_str).collect();
        let result = stage
            .sandbox
            .submit_at_once(message.from, &names, &message.text);
        let taken = result.is_ok();
        ledger.sent(Sent {
            from: message.from,
            to: message.to,
            queue_id: result.ok(),
        });
        if taken {
            done += 1;
            ledger.nap(&mut rng, 10, 250);
        } else {
            std::thread::sleep(Duration::from_millis(400));
        }
    }
}

/// Midway: a domain becomes mandatory, a remembered choice ends, and another domain gets TLS.
pub fn turn(stage: &Stage, ledger: &Ledger, consent: posttls::case::ConsentId) {
    let before = now_ms();
    let listed = stage.posttls(&["mandatory", "add", MANDATORY]);
    assert!(listed.status.success(), "{listed:?}");
    let after = now_ms();
    let ended = stage.store().end_consent(consent, "over");
    assert!(ended.expect("an end"), "the remembered choice was in force");
    let mut turns = ledger.turns.lock().expect("the moments");
    turns.listed = (before, after);
    turns.revoked = now_ms();
    drop(turns);
    // Both instances know the server with TLS from now on. Either may be down: it reads the table when it starts.
    route(
        stage,
        TURNING,
        "tls.test",
        &[Instance::Encrypt, Instance::May],
    );
    for instance in [Instance::Encrypt, Instance::May] {
        stage.sandbox.run("postfix", instance, &["reload"]).ok();
    }
}
