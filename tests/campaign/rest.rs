//! Coming to rest: nobody kills or clicks any more, and everything that is owed is done. What does not come to rest is a
//! finding in itself.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::{Duration, Instant};

use posttls::sandbox::Instance;

use crate::common::Stage;
use crate::evidence::{self, Queued};
use crate::plan::{self, Fate};
use crate::process;

/// How long all may take that was under way, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(180);
/// A claim on a mail this old is that of a process that was killed: nobody that lives needs so long by now.
const DEAD_CLAIM_MS: i64 = 8_000;

/// Waits until nothing is under way.
pub fn come(stage: &Stage) -> Result<(), String> {
    for instance in [Instance::Encrypt, Instance::May] {
        if process::master(stage, instance).is_none() {
            return Err(format!("Postfix {instance} does not run"));
        }
    }
    let begun = Instant::now();
    let mut looks = 0;
    loop {
        let Some(reason) = unrest(stage) else {
            // No retry moves a queue file while all are read.
            stage.run("postfix", Instance::Encrypt, &["stop"]);
            return Ok(());
        };
        if begun.elapsed() > PATIENCE {
            return Err(format!("no rest after {} s: {reason}", PATIENCE.as_secs()));
        }
        if looks % 16 == 0 {
            stage
                .sandbox
                .run("postqueue", Instance::Encrypt, &["-f"])
                .ok();
            stage.sandbox.run("postqueue", Instance::May, &["-f"]).ok();
            // After 150 s they would be taken for dead anyhow; and informations would be gathered for ten minutes.
            stage.sql(&format!(
                "BEGIN IMMEDIATE;
                 UPDATE letters SET claimed_at = claimed_at - 200000 WHERE sent_at IS NULL
                 AND claimed_at < unixepoch('subsec') * 1000 - {DEAD_CLAIM_MS}
                 AND claimed_at > unixepoch('subsec') * 1000 - 150000;
                 UPDATE letters SET claimed_at = claimed_at - 600000, sent_at = sent_at - 600000
                 WHERE sent_at > unixepoch('subsec') * 1000 - 600000;
                 COMMIT"
            ));
        }
        // What no notice has told of is found by a census.
        if looks % 32 == 12 {
            stage.posttls(&["census"]);
        }
        looks += 1;
        thread::sleep(Duration::from_millis(500));
    }
}

/// What is still under way, if anything.
fn unrest(stage: &Stage) -> Option<String> {
    let unfinished =
        stage.number_of("SELECT count(*) FROM moves WHERE step NOT IN ('done', 'conflict')");
    if unfinished > 0 {
        return Some(format!("{unfinished} moves in the journal are not done"));
    }
    if let Some(master) = process::master(stage, Instance::Encrypt)
        && !process::hooks(master).is_empty()
    {
        return Some("posttls-pipe runs".to_owned());
    }
    for one in evidence::queued(stage) {
        let what = format!("{} is in {} of {}", one.id, one.queue, one.instance);
        if one.mode & 0o100 == 0 && one.queue != "hold" {
            // Left by a cleanup(8) that was killed: Postfix knows that it is not complete, and removes it in time.
            continue;
        }
        // Postfix goes on trying over TLS: a message that waits may be anywhere but on hold.
        if one.instance == Instance::May || one.queue == "hold" {
            return Some(what);
        }
        if one.pending.is_empty() || one.pending.iter().any(|to| !may_wait(to)) {
            return Some(format!("{what}: {:?}", one.pending));
        }
        if let Some(to) = one.pending.iter().find(|to| !is_known(stage, &one, to)) {
            return Some(format!("{what}, and nobody is asked about {to}"));
        }
    }
    let owed = stage.number_of("SELECT count(*) FROM owed");
    (owed > 0).then(|| format!("{owed} news are still to be told"))
}

/// May a recipient be in the queue of the encrypt instance when all is at rest?
fn may_wait(address: &str) -> bool {
    let known = address
        .rsplit('@')
        .next()
        .and_then(|name| plan::DOMAINS.iter().find(|domain| domain.name == name));
    known.is_some_and(|domain| !matches!(domain.fate, Fate::Tls | Fate::Turns | Fate::Refused))
}

fn is_known(stage: &Stage, one: &Queued, address: &str) -> bool {
    if plan::domain_of(address).fate == Fate::Busy {
        return true;
    }
    let query = format!(
        "SELECT count(*) FROM recipients r JOIN cases c ON c.id = r.case_id
         WHERE c.queue_id = '{}' AND r.address = '{address}' AND r.state IN ('open', 'kept')",
        one.id
    );
    stage.number_of(&query) == 1
}

/// The mode of a file, 0 when it is gone.
pub fn mode(path: &std::path::Path) -> u32 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o7777)
}
