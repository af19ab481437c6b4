//! An ordinary user who is logged in on the mail host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use posttls::case::store::Store;
use posttls::postfix::user::{Access, User};
use posttls::sandbox::Instance;

use crate::common::Stage;
use crate::{STRANGER, pid_after, runs};

fn stranger(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").args(arguments);
    command.uid(STRANGER).gid(STRANGER);
    command
}

/// Runs a program as the stranger with this input.
fn run(mut command: Command, input: &str) -> Output {
    use std::io::Write as _;
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("it runs");
    // It may not read it all.
    let _ = child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(input.as_bytes());
    child.wait_with_output().expect("an end")
}

#[test]
fn nothing_is_open_to_another_user() {
    let stage = Stage::new();
    let (queue_id, _) = stage.stuck(&["bob@plain.test"], "private");
    stage.in_queue(&queue_id, "deferred");
    files_and_sockets_are_closed(&stage, &queue_id);
    running_the_programs_by_hand_changes_nothing(&stage, &queue_id);
    our_processes_are_neither_signalled_nor_looked_into(&stage);
}

fn files_and_sockets_are_closed(stage: &Stage, queue_id: &str) {
    let config = stage.config();
    let state = config.store.path.parent().expect("a directory").to_owned();
    let user = User {
        name: "stranger".to_owned(),
        uid: STRANGER,
        gid: STRANGER,
    };
    let queue = stage.sandbox.queue_dir(Instance::Encrypt);
    let mut closed: Vec<PathBuf> = vec![
        state.clone(),
        config.store.path.clone(),
        config.link.key_file.clone(),
        stage.sandbox.config_file(),
        config.mover.run_dir.clone(),
        config.mover.run_dir.join("control"),
        config.mover.run_dir.join("standing"),
        queue.join("deferred"),
        stage.sandbox.queue_dir(Instance::May).join("hold"),
        crate::deferred(stage, queue_id),
    ];
    closed.extend(
        fs::read_dir(&state)
            .expect("a directory")
            .map(|entry| entry.expect("a file").path()),
    );
    for path in &closed {
        assert!(path.exists(), "{}", path.display());
        for access in [Access::Read, Access::Write] {
            assert!(
                !user.may(access, path).expect("an answer"),
                "{access:?} {}",
                path.display()
            );
        }
    }
    // What is run as somebody else, or says who that is, is not for others to change.
    let mut fixed = vec![stage.dir().to_owned()];
    for name in ["posttls", "posttls-pipe", "posttls-httpd", "posttls-ear"] {
        fixed.push(stage.sandbox.program(name));
    }
    for instance in [Instance::Encrypt, Instance::May] {
        fixed.push(stage.sandbox.config_dir(instance));
        fixed.push(stage.sandbox.config_dir(instance).join("main.cf"));
        fixed.push(stage.sandbox.config_dir(instance).join("master.cf"));
    }
    for path in &fixed {
        assert!(
            !user.may(Access::Write, path).expect("an answer"),
            "{}",
            path.display()
        );
    }
}

/// The programs give nobody more than they have: none is set-user-ID, and each opens its files as whoever runs it.
fn running_the_programs_by_hand_changes_nothing(stage: &Stage, queue_id: &str) {
    let before = stage.case(queue_id);
    let config = stage.sandbox.config_file();
    // With the real configuration, and with one of one's own that names the real store, key and sockets.
    let own = stage.dir().join("own.toml");
    fs::copy(&config, &own).expect("a copy");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o644)).expect("a mode");
    let notice = include_str!("../corpus/notices/not-offered.eml");
    let id = "BB6049C803F";
    for file in [&config, &own] {
        let file = file.to_str().expect("a path");
        let arguments = [
            "--config",
            file,
            "--client",
            "",
            "--sender",
            "double-bounce@encrypt.host.test",
            "--queue-id",
            id,
        ];
        let hook = run(
            stranger(&stage.sandbox.program("posttls-pipe"), &arguments),
            notice,
        );
        assert_eq!(hook.status.code(), Some(75), "{hook:?}");
        for arguments in [
            vec!["release", queue_id],
            vec!["delete", queue_id],
            vec!["mandatory", "add", "plain.test"],
            vec!["cases"],
        ] {
            let arguments = [&["--config", file], &arguments[..]].concat();
            let output = run(stranger(&stage.sandbox.program("posttls"), &arguments), "");
            assert!(!output.status.success(), "{arguments:?}: {output:?}");
            assert!(
                !String::from_utf8_lossy(&output.stdout).contains("bob@"),
                "{output:?}"
            );
        }
        for part in [&[][..], &["--courier"], &["--web-child"]] {
            let arguments = [&["--config", file], part].concat();
            let output = run(
                stranger(&stage.sandbox.program("posttls-httpd"), &arguments),
                "",
            );
            assert!(!output.status.success(), "{arguments:?}: {output:?}");
        }
        run(
            stranger(&stage.sandbox.program("posttls-ear"), &["--config", file]),
            "",
        );
    }
    for name in ["posttls", "posttls-pipe", "posttls-httpd", "posttls-ear"] {
        let mode = fs::metadata(stage.sandbox.program(name))
            .expect("a program")
            .permissions()
            .mode();
        assert_eq!(mode & 0o6000, 0, "{name}");
    }
    assert_eq!(stage.case(queue_id), before);
    assert_eq!(stage.store().cases(None).expect("cases").len(), 1);
    assert!(stage.store().odd_notices().expect("notices").is_empty());
    assert!(
        stage
            .store()
            .mandatory_domains()
            .expect("domains")
            .is_empty()
    );
}

fn our_processes_are_neither_signalled_nor_looked_into(stage: &Stage) {
    let log = stage.log();
    let mover = stage.sandbox.httpd_pid().expect("a mover");
    let web = pid_after(&log, "web child ");
    stage.wait("the courier's fence", || {
        stage.log().matches("shut in: ").nth(1).map(|_| ())
    });
    let courier = pid_after(&stage.log(), "courier ");
    let owner = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let line = status
            .lines()
            .find(|line| line.starts_with("Uid:"))
            .expect("a line")
            .to_owned();
        line.split_whitespace()
            .nth(1)
            .and_then(|word| word.parse::<u32>().ok())
            .expect("a number")
    };
    for pid in [mover, web, courier] {
        for name in ["mem", "maps", "environ", "fd/0"] {
            let path = format!("/proc/{pid}/{name}");
            // Not even by what else runs as the same user: they are not "dumpable".
            for uid in [STRANGER, owner(pid)] {
                if uid == 0 {
                    continue;
                }
                let output = Command::new("/bin/cat")
                    .arg(&path)
                    .uid(uid)
                    .gid(uid)
                    .output();
                assert!(!output.expect("cat").status.success(), "{path} as {uid}");
            }
        }
        let output = stranger(Path::new("/bin/kill"), &["-KILL", &pid.to_string()]).output();
        assert!(!output.expect("kill").status.success());
        assert!(runs(pid));
    }
}

/// The mover opens the store as root, in a directory of the hook's user.
#[test]
fn a_store_that_is_a_link_is_not_opened() {
    let directory = tempfile::tempdir().expect("a directory");
    let real = directory.path().join("real.db");
    drop(Store::open(&real, true).expect("a store"));
    let link = directory.path().join("posttls.db");
    std::os::unix::fs::symlink(&real, &link).expect("a link");
    assert!(Store::open(&link, false).is_err());
    let nowhere = directory.path().join("nowhere.db");
    std::os::unix::fs::symlink(directory.path().join("made"), &nowhere).expect("a link");
    assert!(Store::open(&nowhere, true).is_err());
    assert!(!directory.path().join("made").exists());
}
