//! Signals to the processes of posttls-httpd: the web child is replaced, the mover ends cleanly, reloads, and refuses
//! to reload what is broken.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Stage, signal, try_request};
use rustix::process::Signal;

/// The children of a process, zombies not counted.
fn children(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        if ppid(&status) == Some(parent) && !status.contains("\nState:\tZ") {
            found.push(pid);
        }
    }
    found
}

fn ppid(status: &str) -> Option<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:\t"))?
        .parse()
        .ok()
}

fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/cmdline")).exists()
        && !fs::read(format!("/proc/{pid}/cmdline"))
            .unwrap_or_default()
            .is_empty()
}

impl Daemon<'_> {
    fn mover(&self) -> u32 {
        self.0.sandbox.httpd_pid().expect("the mover runs")
    }

    fn web(&self) -> u32 {
        self.child("posttls-httpd (web)")
    }

    fn child(&self, name: &str) -> u32 {
        let mover = self.mover();
        self.0.wait(name, || {
            children(mover).into_iter().find(|pid| {
                fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.starts_with(name.as_bytes()))
            })
        })
    }
}

/// The running posttls-httpd of a stage.
struct Daemon<'a>(&'a Stage);

#[test]
fn a_killed_web_child_is_replaced_at_once() {
    let stage = Stage::new();
    let daemon = Daemon(&stage);
    let (_, link) = stage.stuck(&["bob@plain.test"], "kill");
    let mover = daemon.mover();
    for _ in 0..3 {
        let web = daemon.web();
        signal(web, Signal::KILL);
        let killed = Instant::now();
        // The listening socket is the mover's: this request waits in the kernel, and is not refused.
        let answer = stage.wait("an answer", || {
            try_request("GET", &link, "")
                .ok()
                .filter(|answer| answer.status == 200)
        });
        assert!(answer.body.contains("bob@plain.test"), "{answer:?}");
        assert!(
            killed.elapsed() < Duration::from_secs(5),
            "{:?}",
            killed.elapsed()
        );
        assert_ne!(daemon.web(), web);
        assert_eq!(daemon.mover(), mover);
    }
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("bob@plain.test");
}

/// The file of a program may be another one by now, or none.
#[test]
fn after_an_upgrade_children_are_of_the_version_that_runs() {
    let stage = Stage::new();
    let daemon = Daemon(&stage);
    let (_, link) = stage.stuck(&["bob@plain.test"], "upgrade");
    let program = stage.sandbox.program("posttls-httpd");
    let file = |pid: u32| {
        let found = fs::metadata(format!("/proc/{pid}/exe")).expect("a program");
        (found.dev(), found.ino())
    };
    let running = file(daemon.mover());
    for removed in [false, true] {
        if removed {
            fs::remove_file(&program).expect("a removal");
        } else {
            let next = stage.dir().join("next");
            fs::write(&next, "#!/bin/sh\nexit 9\n").expect("a program");
            fs::set_permissions(&next, Permissions::from_mode(0o755)).expect("a mode");
            fs::rename(&next, &program).expect("a new version");
        }
        for name in ["posttls-httpd (web)", "posttls-httpd (courier)"] {
            let before = daemon.child(name);
            signal(before, Signal::KILL);
            let after = stage.wait("another child", || {
                Some(daemon.child(name)).filter(|pid| *pid != before)
            });
            assert_eq!(file(after), running, "{name}");
            // It gives itself its usual name, first of all.
            stage.wait("its name", || {
                let called = fs::read_to_string(format!("/proc/{after}/comm")).ok()?;
                (called == "posttls-httpd\n").then_some(())
            });
        }
        assert_eq!(stage.get(&link).status, 200);
    }
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("bob@plain.test");
}

#[test]
fn sigterm_ends_it_cleanly_and_soon() {
    for with_client in [false, true] {
        let stage = Stage::new();
        let daemon = Daemon(&stage);
        let (mover, web) = (daemon.mover(), daemon.web());
        // A browser that keeps its connection open must not keep the service up.
        let address = stage
            .sandbox
            .http()
            .strip_prefix("http://")
            .expect("a URL")
            .to_owned();
        let idle =
            with_client.then(|| std::net::TcpStream::connect(address).expect("a connection"));
        signal(mover, Signal::TERM);
        let asked = Instant::now();
        stage.wait("its end", || {
            stage.sandbox.httpd_pid().is_none().then_some(())
        });
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "{:?}",
            asked.elapsed()
        );
        assert!(!is_running(mover) && !is_running(web));
        assert!(
            stage.log().contains("ending on signal 15")
                && stage.log().trim_end().ends_with("ended"),
            "{}",
            stage.log()
        );
        assert!(try_request("GET", stage.sandbox.http(), "").is_err());
        drop(idle);
        stage
            .sandbox
            .start_httpd(&[])
            .expect("it starts again at once");
    }
}

#[test]
fn sighup_takes_new_templates_and_keeps_the_old_ones_when_the_configuration_is_broken() {
    let stage = Stage::new();
    let daemon = Daemon(&stage);
    let (_, link) = stage.stuck(&["bob@plain.test"], "hup");
    let front = stage.sandbox.http().to_owned() + "/";
    let mover = daemon.mover();
    assert!(stage.get(&front).body.contains("asks before mail goes out"));
    let templates = stage.dir().join("templates");
    fs::create_dir(&templates).expect("a directory");
    fs::write(templates.join("front.html"), "<p>our own front page</p>").expect("a template");
    stage.configure(
        "http",
        "template_dir",
        &format!("{:?}", templates.display().to_string()),
    );
    let web = daemon.web();
    signal(mover, Signal::HUP);
    stage.wait("the new page", || {
        try_request("GET", &front, "")
            .ok()?
            .body
            .contains("our own front page")
            .then_some(())
    });
    assert_ne!(
        daemon.web(),
        web,
        "a new child has read nothing of the old one's"
    );

    let good = fs::read_to_string(stage.sandbox.config_file()).expect("posttls.toml");
    for (broken, said) in [
        (
            good.replace("[store]", "[sotre]"),
            "did you mean \"store\"?",
        ),
        (good.replace("config_dir = ", "config_dir "), "posttls.toml"),
        (
            good.replace("/templates\"", "/nowhere\""),
            "/nowhere: cannot read templates",
        ),
    ] {
        fs::write(stage.sandbox.config_file(), broken).expect("posttls.toml");
        signal(mover, Signal::HUP);
        stage.wait(said, || {
            stage
                .log()
                .lines()
                .any(|line| {
                    line.contains("error: not reloaded, going on as before") && line.contains(said)
                })
                .then_some(())
        });
        assert!(stage.get(&front).body.contains("our own front page"));
        assert_eq!(stage.get(&link).status, 200);
    }
    fs::write(stage.sandbox.config_file(), good).expect("posttls.toml");
    // A template that is broken is reported, and the built-in one is used.
    fs::write(templates.join("front.html"), "{% if %}").expect("a template");
    signal(mover, Signal::HUP);
    stage.wait("the built-in page", || {
        try_request("GET", &front, "")
            .ok()?
            .body
            .contains("asks before mail goes out")
            .then_some(())
    });
    assert_eq!(daemon.mover(), mover);
    assert_eq!(stage.post(&link, "action=send").status, 200);
    stage.arrival("bob@plain.test");
}

/// Who has decided hears what came of it, even when the child that asked is being replaced, or the service ends.
#[cfg(feature = "failpoints")]
#[test]
fn a_decision_under_way_is_answered_before_its_web_child_ends() {
    let slow = |options: posttls::sandbox::UpOptions| {
        // Almost as long as a click waits for a delivery.
        options.httpd_env("FAILPOINTS", "move::copied=sleep(2800)")
    };
    let stage = Stage::with(slow);
    let daemon = Daemon(&stage);
    for (name, what) in [("hup", Signal::HUP), ("term", Signal::TERM)] {
        let address = format!("{name}@plain.test");
        let (queue_id, link) = stage.stuck(&[&address], name);
        let mover = daemon.mover();
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| stage.post(&link, "action=send"));
            stage.in_queue(&queue_id, "hold");
            signal(mover, what);
            let answer = answer.join().expect("an answer");
            assert_eq!(answer.status, 200, "{answer:?}");
        });
        stage.arrival(&address);
        assert_eq!(stage.sandbox.delivered(&address).len(), 1);
    }
    stage.wait("its end", || {
        stage.sandbox.httpd_pid().is_none().then_some(())
    });
}
