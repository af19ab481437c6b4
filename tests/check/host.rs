//! What users, files, queues and file systems of the host can have wrong.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use posttls::postfix::user::lookup;
use posttls::sandbox::Instance;

use crate::clinic::{Clinic, findings, not_ok, set_time};

fn with<'a>(one: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [one, more].concat()
}

pub fn users_and_files(clinic: &mut Clinic) {
    let user = "user=nobody:nogroup";
    let master = "encrypt/master.cf";
    let secrets = [("configuration-access", "fail"), ("link-key", "fail")];
    let bad_user = [("pipe-user", "fail"), ("store-access", "fail")];
    // The standing socket was made for the other user.
    let unreached = [("pipe-rehearsal", "fail"), ("run-dir", "fail")];
    let unable = [("pipe-rehearsal", "fail")];
    clinic.broken(
        "a hook that is root",
        |c| c.replace(master, user, "user=root"),
        &with(&with(&bad_user, &secrets), &unable),
    );
    clinic.broken(
        "a hook that owns Postfix's queue",
        |c| c.replace(master, user, "user=postfix:nogroup"),
        &with(&bad_user, &unreached),
    );
    clinic.broken(
        "a hook that is the web child",
        |c| c.replace(master, user, "user=daemon:nogroup"),
        &with(&bad_user, &unreached),
    );
    clinic.broken(
        "a hook that nobody knows",
        |c| c.replace(master, user, "user=no-such-user"),
        &[
            ("configuration-access", "skip"),
            ("link-key", "skip"),
            ("log-target", "skip"),
            ("pipe-program", "skip"),
            ("pipe-rehearsal", "skip"),
            ("pipe-user", "fail"),
            ("run-dir", "skip"),
            ("store-access", "skip"),
        ],
    );
    // The ear is the same user, and can't work without the configuration.
    let deaf = [("may-ear", "warn")];
    for (file, check, ear) in [
        ("posttls.toml", "configuration-access", &deaf[..]),
        ("key", "link-key", &[]),
    ] {
        clinic.ill(
            "a secret that the hook can't read",
            |c| c.mode(file, 0o600),
            &with(&with(&[(check, "fail")], &unable), ear),
            |_| {},
        );
        clinic.ill(
            "a secret that everybody can read",
            |c| c.mode(file, 0o644),
            &[(check, "fail"), ("web-user", "fail")],
            |c| c.mode(file, 0o640),
        );
    }
    clinic.broken(
        "a key that is none",
        |c| fs::write(c.path("key"), "nonsense\n").expect("a file"),
        &[
            ("base-url", "skip"),
            ("link-key", "fail"),
            ("pipe-rehearsal", "fail"),
        ],
    );
    for name in ["\"root\"", "\"no-such-user\""] {
        clinic.broken(
            "a web user that will not do",
            |c| c.stage.configure("http", "web_user", name),
            &[("web-user", "fail")],
        );
    }
    clinic.ill(
        "a log that the hook can't write",
        |c| c.mode("posttls.log", 0o600),
        &[("log-target", "fail")],
        |c| c.mode("posttls.log", 0o666),
    );
    clinic.ill(
        "a store that others may read",
        |c| c.mode("state/posttls.db", 0o644),
        &[("store-access", "fail")],
        |c| c.mode("state/posttls.db", 0o600),
    );
    clinic.ill(
        "a run directory that others may enter",
        |c| c.mode("run", 0o755),
        &[("run-dir", "fail")],
        |c| c.mode("run", 0o711),
    );
}

pub fn instances_and_spools(clinic: &mut Clinic) {
    let postfix = lookup("postfix").expect("a user").uid;
    clinic.broken(
        "one data directory for both",
        |c| {
            let data = c.path("data/encrypt");
            c.set(Instance::May, &format!("data_directory={}", data.display()));
        },
        &[("spools-differ", "fail")],
    );
    clinic.ill(
        "a queue of another user",
        |c| chown(c.path("spool/encrypt/hold"), Some(0), None).expect("root"),
        &[("encrypt-spool", "fail")],
        |c| chown(c.path("spool/encrypt/hold"), Some(postfix), None).expect("root"),
    );
    let hold = clinic.path("spool/may/hold");
    let aside = clinic.path("spool/may/aside");
    fs::rename(&hold, &aside).expect("a directory");
    clinic.check(
        "a queue that is missing",
        &[
            ("hold-queues", "skip"),
            ("may-spool", "fail"),
            ("may-tmpfile", "skip"),
        ],
    );
    // A file system that has no files without names.
    symlink("/proc", &hold).expect("a link");
    clinic.check(
        "a queue on a file system that will not do",
        &[("may-spool", "fail"), ("may-tmpfile", "fail")],
    );
    fs::remove_file(&hold).expect("a link");
    fs::rename(&aside, &hold).expect("a directory");
    let stray = hold.join("4ABCDEF0");
    clinic.ill(
        "an unfinished file that no journal knows",
        |_| {
            fs::write(&stray, "").expect("a file");
            fs::set_permissions(&stray, Permissions::from_mode(0o600)).expect("a mode");
            chown(&stray, Some(postfix), None).expect("root");
            set_time(&stray, SystemTime::now() - Duration::from_secs(3600));
        },
        &[("hold-queues", "fail")],
        |_| fs::remove_file(&stray).expect("a file"),
    );
    clinic.broken(
        "a may instance that is not there",
        |c| c.stage.configure("may", "config_dir", "\"/nowhere\""),
        &[
            ("file-systems", "skip"),
            ("hold-queues", "skip"),
            ("may-backoff", "skip"),
            ("may-delay-warning-time", "skip"),
            ("may-ear", "skip"),
            ("may-enabled", "skip"),
            ("may-inet", "skip"),
            ("may-instance", "fail"),
            ("may-level", "skip"),
            ("may-policy-maps", "skip"),
            ("may-reload", "skip"),
            ("may-running", "skip"),
            ("may-services", "skip"),
            ("may-space", "skip"),
            ("may-spool", "skip"),
            ("may-tmpfile", "skip"),
            ("may-way-out", "skip"),
            ("may-warnings", "skip"),
            ("spools-differ", "skip"),
        ],
    );
    // Nearly everything is asked of the other one; that it is not there is what fails.
    clinic
        .stage
        .configure("encrypt", "config_dir", "\"/nowhere\"");
    let all = findings(&clinic.stage.posttls(&["check", "--json"]));
    let failed: Vec<&str> = all
        .iter()
        .filter(|finding| finding["status"] == "fail")
        .filter_map(|finding| finding["id"].as_str())
        .collect();
    assert!(failed.contains(&"encrypt-instance"), "{failed:?}");
    clinic.seen.insert("encrypt-instance".to_owned());
    clinic.restore();
    clinic.set(Instance::Encrypt, "smtp_tls_security_levle=encrypt");
    clinic.check(
        "a setting that nobody uses",
        &[("encrypt-warnings", "warn")],
    );
    clinic.restore();
    // The host's queue is on a file system of its own, in a name space of its own, which is full.
    for (directory, check) in [
        ("spool/encrypt", "encrypt-space"),
        ("spool/may", "may-space"),
        ("state", "store-space"),
    ] {
        let Some(output) = on_a_full_file_system(clinic, directory) else {
            println!("{check}: not tried, as this system allows no name space for mounts");
            clinic.seen.insert(check.to_owned());
            continue;
        };
        let all = findings(&output);
        let mut found = not_ok(&all);
        found.retain(|id, status| clinic.healthy.get(id) != Some(status));
        let warned = BTreeMap::from([(check.to_owned(), "warn".to_owned())]);
        assert_eq!(found, warned, "{all:#?}");
        clinic.seen.insert(check.to_owned());
        let apart = all
            .iter()
            .find(|finding| finding["id"] == "file-systems")
            .expect("a line");
        let different = apart["what"].to_string().contains("different");
        assert_eq!(different, directory != "state", "{apart}");
    }
}

/// Runs `posttls check` where a file system of 4 MB with the same files, all but full, is mounted on a directory. `None`
/// where nobody may mount without others seeing it: in a container without the privilege.
fn on_a_full_file_system(clinic: &Clinic, directory: &str) -> Option<Output> {
    let script = r#"
        set -eu
        mkdir -p "$1/original"
        mount --bind "$2" "$1/original"
        mount -t tmpfs -o size=4m,mode=755 tmpfs "$2"
        chown --reference="$1/original" "$2"
        chmod --reference="$1/original" "$2"
        for queue in active deferred hold incoming; do
            if test -d "$1/original/$queue"; then
                install -d -o postfix -m 0700 "$2/$queue"
            fi
        done
        for part in pid private public; do
            if test -d "$1/original/$part"; then
                mkdir "$2/$part"
                mount --bind "$1/original/$part" "$2/$part"
            fi
        done
        for file in "$1/original"/*.db*; do
            if test -f "$file"; then cp -a "$file" "$2/"; fi
        done
        # What SQLite frees when it closes the store is far less than what has to be free.
        dd if=/dev/zero of="$2/filler" bs=1k count=5000 2>/dev/null || true
        truncate -s -80k "$2/filler"
        exec "$3" --config "$1/posttls.toml" check --json
    "#;
    // In a chroot, whose root is no mount point, unshare(1) can't make it private; it need not if nothing is shared.
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    let mut ways = vec!["private"];
    if !mounts.contains(" shared:") {
        ways.push("unchanged");
    }
    ways.into_iter().find_map(|propagation| {
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", propagation, "--"])
            .args(["sh", "-c", script, "sh"])
            .arg(clinic.stage.dir())
            .arg(clinic.path(directory))
            .arg(clinic.stage.sandbox.program("posttls"))
            .output()
            .expect("unshare runs");
        (!output.stderr.starts_with(b"unshare:")).then_some(output)
    })
}
