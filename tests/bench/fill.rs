//! Fills the deferred queue and the store with as many messages as wanted: one was deferred by real Postfix and recorded
//! by the real hook, and its files and rows are copied under other queue IDs and addresses.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use posttls::postfix::{Instance, QueueId};
use posttls::sandbox;
use rusqlite::{Connection, params};

use crate::backlog::replaced;
use crate::common::Stage;
use crate::kept::{RECIPIENT, SENDER, numbered, owner};
use crate::stage::queue_id;

/// Milliseconds between two of the copies.
const APART: i64 = 20;

/// Makes `count` messages wait, in queue and store. `posttls-httpd` should not be running.
pub fn fill(stage: &Stage, count: u64) {
    let message = format!(
        "From: {SENDER}\r\nSubject: filling\r\n\r\n{}",
        "Hello.\r\n".repeat(50)
    );
    let sent = stage
        .sandbox
        .submit(SENDER, &[RECIPIENT], message.as_bytes());
    let original = sent.unwrap_or_else(|error| panic!("{error}"));
    let case = stage.known(&original).id;
    stage.wait("the end of the hook", || {
        stage.store().case(case).expect("a case")?.notified_at
    });
    stage.in_queue(&original, "deferred");
    let instance = Instance::load(&stage.sandbox.config_dir(sandbox::Instance::Encrypt));
    let instance = instance.expect("an instance");
    let ids: Vec<QueueId> = (1..count)
        .map(|number| {
            queue_id(number, original.len())
                .parse()
                .expect("a queue ID")
        })
        .collect();
    for queue in ["deferred", "defer"] {
        let template: QueueId = original.parse().expect("a queue ID");
        let from = instance.directory(queue, &template).join(&original);
        copy_files(&instance, queue, &from, &ids);
    }
    let database = stage.dir().join("state/posttls.db");
    let mut connection = Connection::open(&database).expect("the database");
    copy_rows(&mut connection, &original, &ids).expect("rows");
    rustix::fs::sync();
}

/// As the queue manager writes it when the next attempt is far away: it will leave them alone.
fn copy_files(instance: &Instance, queue: &str, from: &Path, ids: &[QueueId]) {
    let content = fs::read(from).expect("a file of the queue");
    let (user, group) = owner(from);
    let mode = fs::metadata(from).expect("a file").permissions().mode() & 0o777;
    let later = SystemTime::now() + Duration::from_secs(10 * 86_400);
    for (number, id) in (1..).zip(ids) {
        let sender = numbered(SENDER, number);
        let recipient = numbered(RECIPIENT, number);
        let content = replaced(&content, SENDER.as_bytes(), sender.as_bytes());
        let content = replaced(&content, RECIPIENT.as_bytes(), recipient.as_bytes());
        let directory = instance.directory(queue, id);
        if !directory.is_dir() {
            fs::create_dir(&directory).expect("a directory");
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("a mode");
            chown(&directory, Some(user), Some(group)).expect("an owner");
        }
        let path: PathBuf = directory.join(id.as_str());
        fs::write(&path, content).expect("a file");
        chown(&path, Some(user), Some(group)).expect("an owner");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        let file = fs::File::options()
            .append(true)
            .open(&path)
            .expect("a file");
        file.set_modified(later).expect("a time");
    }
}

/// All rows that the hook has written, once for each, with times further and further back.
fn copy_rows(connection: &mut Connection, original: &str, ids: &[QueueId]) -> rusqlite::Result<()> {
    let tx = connection.transaction()?;
    let case: i64 = tx.query_row(
        "SELECT id FROM cases WHERE queue_id = ?1",
        [original],
        |row| row.get(0),
    )?;
    for (number, id) in (1i64..).zip(ids) {
        let back = 7_200_000 + number * APART;
        let unsigned = number.unsigned_abs();
        let (sender, recipient) = (numbered(SENDER, unsigned), numbered(RECIPIENT, unsigned));
        tx.prepare_cached(
            "INSERT INTO cases (id, queue_id, sender, arrival, subject, message_id, retry_until, state, opened_at,
                                notified_at, source, asked, told_at, remind_at)
             SELECT abs(random() / 2), ?2, ?3, arrival, subject, message_id, retry_until, state, opened_at - ?4,
                    notified_at - ?4, source, asked, told_at - ?4, remind_at FROM cases WHERE id = ?1",
        )?
        .execute(params![case, id.as_str(), sender, back])?;
        let copy = tx.last_insert_rowid();
        tx.prepare_cached(
            "INSERT INTO recipients (case_id, number, address, failure, status, detail, may_send, state, domain, stuck_at)
             SELECT ?2, number, ?3, failure, status, detail, may_send, state, domain, stuck_at - ?4
             FROM recipients WHERE case_id = ?1",
        )?
        .execute(params![case, copy, recipient, back])?;
        tx.prepare_cached(
            "INSERT INTO events (at, case_id, queue_id, recipient, what, detail)
             SELECT at - ?4, ?2, ?3, recipient, what, detail FROM events WHERE case_id = ?1",
        )?
        .execute(params![case, copy, id.as_str(), back])?;
        tx.prepare_cached(
            "INSERT INTO letters (sender, case_id, kind, claimed_at, sent_at)
             SELECT ?3, ?2, kind, claimed_at - ?4, sent_at - ?4 FROM letters WHERE case_id = ?1",
        )?
        .execute(params![case, copy, sender, back])?;
    }
    tx.commit()
}
