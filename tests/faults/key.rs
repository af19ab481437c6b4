//! The key for links is missing, of the wrong length, or another one: at the start, at a reload, and while all runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use posttls::postfix::user::lookup;
use posttls::sandbox::Instance;
use rustix::process::Signal;

use crate::common::{Stage, link};

/// Readable by root and the hook only, or the daemon refuses to start.
fn write(key: &Path, text: &str) {
    fs::write(key, text).expect("a key");
    let nobody = lookup("nobody").expect("a user");
    chown(key, Some(nobody.uid), None).expect("an owner");
    fs::set_permissions(key, Permissions::from_mode(0o600)).expect("a mode");
}

#[test]
fn missing_damaged_and_replaced() {
    let stage = Stage::new();
    let key = stage.dir().join("key");
    let good = fs::read_to_string(&key).expect("a key");
    let (first, page) = stage.stuck(&["bob@plain.test"], "first");
    let reload = |line: &str| {
        let before = stage.log().matches(line).count();
        stage.signal_mover(Signal::HUP);
        stage.wait(line, || {
            (stage.log().matches(line).count() > before).then_some(())
        });
    };

    // While all runs: the hook needs it for each notification, the mover has it.
    fs::remove_file(&key).expect("a key");
    let second = stage.send(&["eve@plain.test"], "second");
    stage.notice_waits(&[&first, &second]);
    let mailq = stage.run("postqueue", Instance::Encrypt, &["-p"]);
    assert!(mailq.contains("cannot read the link key"), "{mailq}");
    assert!(stage.check_says("link-key").starts_with("fail"));
    assert_eq!(stage.get(&page).status, 200);
    // At a reload.
    for broken in [None, Some("1 abcdef\n"), Some("")] {
        if let Some(text) = broken {
            write(&key, text);
        }
        reload("not reloaded, going on as before");
    }
    assert_eq!(stage.get(&page).status, 200);
    // At the start.
    stage.sandbox.stop_httpd();
    let refused = stage.sandbox.start_httpd(&[]).expect_err("no key");
    assert!(refused.to_string().contains("posttls init"), "{refused}");
    write(&key, "1 abcdef\n");
    let refused = stage.sandbox.start_httpd(&[]).expect_err("no key");
    assert!(
        refused.to_string().contains("hexadecimal digits"),
        "{refused}"
    );
    write(&key, &good);
    stage.sandbox.start_httpd(&[]).expect("it starts");
    stage.flush_all();
    stage.notification(&second);

    // Another key: what it signs opens nothing before the reload, and what the old one signed nothing after it.
    write(&key, &format!("1 {}\n", "ab".repeat(32)));
    let third = stage.send(&["ann@plain.test"], "third");
    let new = link(&stage.notification(&third));
    assert_eq!(stage.get(&new).status, 404);
    assert!(stage.check_says("base-url").starts_with("fail"));
    stage.logged("refused a link: token with a wrong signature");
    reload("reloaded");
    assert_eq!(
        (stage.get(&new).status, stage.get(&page).status),
        (200, 404)
    );
    // Both, as the README says it.
    write(&key, &format!("2 {}\n{good}", "ab".repeat(32)));
    reload("reloaded");
    assert_eq!(stage.post(&page, "action=send").status, 200);
    stage.arrival("bob@plain.test");
    for queue_id in [&second, &third] {
        stage.said(&["release", queue_id]);
    }
    stage.ends_well(&["bob@plain.test", "eve@plain.test", "ann@plain.test"]);
    for queue_id in [&first, &second, &third] {
        assert_eq!(stage.told(queue_id), 1);
    }
}
