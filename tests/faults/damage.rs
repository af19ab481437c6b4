//! The store is damaged, emptied, removed, replaced, or of a newer PostTLS. Nothing is decided by it then, and nothing is
//! lost: the message waits in Postfix's queue, and its notice, too.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use posttls::sandbox::Instance;

use crate::common::Stage;
use crate::kit::{database, give_to_hook};

fn beside(stage: &Stage, suffix: &str) -> PathBuf {
    stage.dir().join(format!("state/posttls.db{suffix}"))
}

/// A backup, made while all runs.
fn back_up(stage: &Stage) -> PathBuf {
    let backup = stage.dir().join("backup.db");
    fs::remove_file(&backup).ok();
    let store = rusqlite::Connection::open(database(stage)).expect("a store");
    store
        .execute("VACUUM INTO ?1", [backup.to_str().expect("UTF-8")])
        .expect("a backup");
    backup
}

/// As the README says: PostTLS is stopped, and the backup takes the place of all three files.
fn restore(stage: &Stage, backup: &Path) {
    stage.sandbox.stop_httpd();
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(beside(stage, suffix)).ok();
    }
    fs::copy(backup, database(stage)).expect("a copy");
    give_to_hook(&database(stage));
    stage.sandbox.start_httpd(&[]).expect("it starts");
}

fn overwrite(path: &Path, from: u64, to: u64) {
    let file = fs::File::options().write(true).open(path).expect("a file");
    let nonsense = vec![0xff; usize::try_from(to - from).expect("a size")];
    file.write_all_at(&nonsense, from).expect("a file");
}

/// Damages the store while all runs, looks, and restores it.
fn restored(stage: &Stage, name: &str, says: &str, damage: impl FnOnce(&Path)) {
    let (recipient, late) = (
        format!("{name}@plain.test"),
        format!("{name}-late@plain.test"),
    );
    let (queue_id, page) = stage.stuck(&[&recipient], name);
    stage.in_queue(&queue_id, "deferred");
    let backup = back_up(stage);
    // So that what is damaged is all there is.
    rusqlite::Connection::open(database(stage))
        .and_then(|store| store.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
        .expect("a checkpoint");
    damage(&database(stage));
    let second = stage.send(&[&late], &format!("{name}-late"));
    stage.notice_waits(&[&queue_id, &second]);
    let mailq = stage.run("postqueue", Instance::Encrypt, &["-p"]);
    assert!(mailq.contains(says), "{name}: {mailq}");
    let said = stage.check_says("store") + &stage.check_says("store-integrity");
    assert!(said.contains("fail: "), "{name}: {said}");
    // The mover has it open, and may not have noticed yet; it must not fall, nor do anything else.
    for answer in [stage.get(&page), stage.post(&page, "action=send")] {
        assert!([200, 503].contains(&answer.status), "{name}: {answer:?}");
    }
    assert!(stage.sandbox.httpd_pid().is_some(), "{name}");
    restore(stage, &backup);
    assert!(stage.check_says("store").starts_with("ok"));
    assert_eq!(stage.post(&page, "action=send").status, 200);
    stage.arrival(&recipient);
    stage.flush_all();
    let link = crate::common::link(&stage.notification(&second));
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.ends_well(&[&recipient, &late]);
    assert_eq!(
        (stage.told(&queue_id), stage.told(&second)),
        (1, 1),
        "{name}"
    );
}

#[test]
fn damaged_emptied_and_of_a_newer_version() {
    let stage = Stage::new();
    restored(&stage, "header", "restore it", |db| overwrite(db, 0, 100));
    restored(&stage, "pages", "restore it", |db| {
        let size = fs::metadata(db).expect("a file").len();
        overwrite(db, 4096, size);
    });
    restored(&stage, "truncated", "restore it", |db| {
        let file = fs::File::options().write(true).open(db).expect("a file");
        file.set_len(4096).expect("a file");
    });
    restored(&stage, "emptied", "the database is empty", |db| {
        fs::remove_file(db).expect("a file");
        fs::write(db, "").expect("a file");
        give_to_hook(db);
    });
    restored(&stage, "newer", "a newer one has used it", |db| {
        rusqlite::Connection::open(db)
            .and_then(|store| store.pragma_update(None, "user_version", 99))
            .expect("a store");
    });
    let panics = fs::read_to_string(stage.dir().join("httpd.out")).expect("its output");
    assert!(!panics.contains("panicked"), "{panics}");
}

#[test]
fn removed_replaced_and_without_its_log_the_mover_goes_on_by_itself() {
    let stage = Stage::new();
    let mover = stage.sandbox.httpd_pid();
    // Removed, and put back.
    let (first, page) = stage.stuck(&["bob@plain.test"], "removed");
    let aside = stage.dir().join("aside.db");
    fs::rename(database(&stage), &aside).expect("a file");
    assert_eq!(stage.get(&page).status, 503);
    let answer = stage.post(&page, "action=send");
    assert_eq!(answer.status, 503, "{answer:?}");
    stage.logged("the database has been removed");
    let late = stage.send(&["late@plain.test"], "late");
    stage.notice_waits(&[&first, &late]);
    std::thread::sleep(std::time::Duration::from_secs(3));
    let complaints = stage.log().matches("no decision is carried out").count();
    assert_eq!(complaints, 1, "once, and not each second: {}", stage.log());
    fs::rename(&aside, database(&stage)).expect("a file");
    stage.logged("the store can be read again");
    stage.flush_all();
    stage.notification(&late);
    assert_eq!(stage.post(&page, "action=send").status, 200);
    stage.arrival("bob@plain.test");

    // Without its write-ahead log, in which the last decisions may be.
    let (second, page) = stage.stuck(&["eve@plain.test", "ann@plain.test"], "log");
    stage.in_queue(&second, "deferred");
    assert_eq!(
        stage
            .post(&page, "action=delete&recipient=ann%40plain.test")
            .status,
        200
    );
    assert!(fs::metadata(beside(&stage, "-wal")).expect("a log").len() > 0);
    fs::remove_file(beside(&stage, "-wal")).expect("a log");
    stage.logged("what was in it is saved");
    assert_eq!(stage.states(&second)["ann@plain.test"], "deleted");
    assert_eq!(stage.post(&page, "action=send").status, 200);
    stage.arrival("eve@plain.test");

    // Replaced by a backup, with all that runs still having the old one.
    let (third, page) = stage.stuck(&["joe@plain.test"], "replaced");
    stage.in_queue(&third, "deferred");
    let backup = back_up(&stage);
    give_to_hook(&backup);
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(beside(&stage, suffix)).expect("a file");
    }
    fs::rename(&backup, database(&stage)).expect("a file");
    stage.logged("the database was replaced while PostTLS was using it");
    assert_eq!(stage.post(&page, "action=send").status, 200);
    stage.arrival("joe@plain.test");
    stage.becomes(&third, "joe@plain.test", "released");

    assert_eq!(
        stage.sandbox.httpd_pid(),
        mover,
        "it is the same all the time"
    );
    stage.said(&["release", &late]);
    stage.ends_well(&[
        "bob@plain.test",
        "eve@plain.test",
        "joe@plain.test",
        "late@plain.test",
    ]);
    assert_eq!(stage.attempts("ann@plain.test"), 0);
    assert!(stage.check_says("store-integrity").starts_with("ok"));
}
