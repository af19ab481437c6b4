//! What runs otherwise than the files say: an instance that was not reloaded, a hook that is none.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::{Duration, SystemTime};

use posttls::sandbox::Instance;

use crate::clinic::{Clinic, findings, set_time};

/// What a check says.
fn said(clinic: &Clinic, id: &str) -> String {
    let all = findings(&clinic.stage.posttls(&["check", "--json"]));
    let one = all.iter().find(|finding| finding["id"] == id);
    one.expect("a line")["what"].to_string()
}

pub fn what_was_not_reloaded(clinic: &mut Clinic) {
    for (instance, name, check) in [
        (Instance::Encrypt, "private/posttls", "encrypt-reload"),
        (
            Instance::Encrypt,
            "public/posttls-cleanup",
            "encrypt-reload",
        ),
        (Instance::May, "public/qmgr", "may-reload"),
    ] {
        let socket = clinic.stage.sandbox.queue_dir(instance).join(name);
        let aside = socket.with_extension("aside");
        // A queue directory that is not the one in which the service listens looks so.
        fs::rename(&socket, &aside).expect("a socket");
        clinic.check(name, &[(check, "fail")]);
        assert!(said(clinic, check).contains(name));
        fs::rename(&aside, &socket).expect("a socket");
    }
    for (file, check) in [
        ("encrypt/master.cf", "encrypt-reload"),
        ("may/master.cf", "may-reload"),
    ] {
        clinic.broken(
            "a service that master does not know yet",
            |c| c.replace(file, "discard   unix", "another   unix  -       -       n       -       -       discard\ndiscard   unix"),
            &[(check, "fail")],
        );
        let path = clinic.path(file);
        set_time(&path, SystemTime::now());
        clinic.look(
            "a file that is younger than the queue manager",
            &[(check, "fail")],
        );
        assert!(said(clinic, check).contains(file));
        clinic.restore();
    }
    set_time(&clinic.path("encrypt/main.cf"), SystemTime::now());
    clinic.look("main.cf was changed", &[("encrypt-reload", "fail")]);
    // The reload makes it good, with the file as young as it is.
    thread::sleep(Duration::from_secs(1));
    let reload = clinic
        .stage
        .sandbox
        .run("postfix", Instance::Encrypt, &["reload"]);
    reload.unwrap_or_else(|error| panic!("{error}"));
    clinic.stage.wait("a queue manager that is younger", || {
        said(clinic, "encrypt-reload")
            .contains("runs with these settings")
            .then_some(())
    });
    clinic.restore();
}

pub fn what_postfix_warns_of(clinic: &mut Clinic) {
    // Every command of Postfix warns of it, in whatever it is asked.
    let doubled = |c: &Clinic| {
        let path = c.path("encrypt/main.cf");
        let text = fs::read_to_string(&path).expect("a file");
        fs::write(path, text + "\nin_flow_delay = 1s\n").expect("a file");
    };
    doubled(clinic);
    clinic.check("a doubled line", &[("encrypt-warnings", "warn")]);
    let said = said(clinic, "encrypt-warnings");
    assert!(
        said.contains("encrypt/main.cf, line ") && said.contains("in_flow_delay"),
        "{said}"
    );
    assert_eq!(said.matches("overriding").count(), 1, "{said}");
    clinic.restore();
    clinic.broken(
        "a doubled line in the may instance",
        |c| {
            c.replace(
                "may/main.cf",
                "queue_run_delay = 3s\n",
                "queue_run_delay = 4s\nqueue_run_delay = 3s\n",
            )
        },
        &[("may-warnings", "warn")],
    );
    clinic.broken(
        "a doubled service",
        |c| {
            let line = "discard   unix  - - n -     - discard\n";
            c.replace("encrypt/master.cf", line, &line.repeat(2));
        },
        &[("encrypt-warnings", "warn")],
    );
}

pub fn a_hook_that_is_none(clinic: &mut Clinic) {
    let stub = clinic.path("bin/stub");
    for (what, script) in [
        ("a hook that says yes to everything", "exit 0"),
        ("a hook that says what it heard", "cat"),
        ("a hook that fails", "echo no >&2; exit 75"),
        (
            "a hook of another version",
            "echo posttls-pipe 0.0.1: would record 4ABC: from=\\<\\>",
        ),
    ] {
        fs::write(&stub, format!("#!/bin/sh\n{script}\n")).expect("a file");
        fs::set_permissions(&stub, Permissions::from_mode(0o755)).expect("a mode");
        clinic.broken(
            what,
            |c| c.replace("encrypt/master.cf", "/bin/posttls-pipe ", "/bin/stub "),
            &[("pipe-rehearsal", "fail")],
        );
    }
    let odd = clinic.stage.store().odd_notices().expect("a store");
    assert!(odd.is_empty(), "{odd:?}");
    assert_eq!(
        clinic
            .stage
            .json(&["cases", "--all", "--json"])
            .as_array()
            .map(Vec::len),
        Some(0)
    );
}

pub fn the_next_boot(clinic: &mut Clinic) {
    let set = |c: &Clinic, directory: &str, enabled: &str| {
        c.set(
            Instance::Encrypt,
            &format!("multi_instance_directories={directory}"),
        );
        c.set(Instance::May, &format!("multi_instance_enable={enabled}"));
    };
    let may = clinic.path("may").display().to_string();
    for (what, directory, enabled) in [
        (
            "a may instance that the first one does not know",
            "/nowhere",
            "yes",
        ),
        ("a may instance that is not enabled", may.as_str(), "no"),
    ] {
        clinic.broken(
            what,
            |c| set(c, directory, enabled),
            &[("may-enabled", "fail")],
        );
    }
    set(clinic, &may, "yes");
    clinic.settle();
    assert!(said(clinic, "may-enabled").contains("and it is enabled"));
    clinic.restore();
}
