//! A sandbox that is broken and repaired again and again, and what `posttls check` says about it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::SystemTime;

use posttls::sandbox::{Instance, UpOptions};
use serde_json::Value;

use crate::common::Stage;

/// What is not in order: name of the check, and its status.
pub type Found = BTreeMap<String, String>;

pub struct Clinic {
    pub stage: Stage,
    /// Files that a test may change, as they were.
    files: Vec<(PathBuf, Vec<u8>)>,
    /// When they were last changed: before the instances were started.
    settled: SystemTime,
    pub healthy: Found,
    /// Every check that was seen to complain.
    pub seen: BTreeSet<String>,
}

pub fn findings(output: &Output) -> Vec<Value> {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

pub fn not_ok(findings: &[Value]) -> Found {
    findings
        .iter()
        .filter(|finding| finding["status"] != "ok")
        .map(|finding| {
            let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            (text("id"), text("status"))
        })
        .collect()
}

/// Sets when a file was changed.
pub fn set_time(path: &Path, when: SystemTime) {
    let file = fs::File::options().append(true).open(path);
    file.and_then(|file| file.set_modified(when))
        .expect("a time");
}

impl Clinic {
    pub fn new() -> Self {
        // smtpd(8) reads its settings when it starts: each session has one of its own.
        let stage = Stage::with(|mut options: UpOptions| {
            let setting = (Instance::Encrypt, "max_use".to_owned(), "1".to_owned());
            options.main_cf.push(setting);
            options
        });
        let dir = stage.dir().to_owned();
        let names = [
            "posttls.toml",
            "key",
            "encrypt/main.cf",
            "encrypt/master.cf",
            "encrypt/posttls-bounce.cf",
            "encrypt/posttls-header-checks",
            "encrypt/transport",
            "may/main.cf",
            "may/master.cf",
        ];
        let files = names
            .iter()
            .map(|name| dir.join(name))
            .map(|path| (path.clone(), fs::read(&path).expect("a file")))
            .collect();
        let settled = fs::metadata(dir.join("encrypt/main.cf")).expect("a file");
        let settled = settled.modified().expect("a time");
        let output = stage.posttls(&["check", "--json"]);
        let all = findings(&output);
        let failed: Vec<&Value> = all.iter().filter(|f| f["status"] == "fail").collect();
        assert!(output.status.success(), "{failed:#?}");
        let healthy = not_ok(&all);
        // Whom systemd starts is tried where it runs: tests/systemd/run.
        let unseen: BTreeSet<String> = healthy
            .iter()
            .filter(|(id, status)| id.ends_with("-unit") && *status == "skip")
            .map(|(id, _)| id.clone())
            .collect();
        assert!(
            healthy
                .iter()
                .all(|(id, status)| status == "warn" || unseen.contains(id)),
            "{healthy:?}"
        );
        Self {
            stage,
            files,
            settled,
            healthy,
            seen: unseen,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.stage.dir().join(name)
    }

    /// `postconf -e`.
    pub fn set(&self, instance: Instance, setting: &str) {
        let run = self
            .stage
            .sandbox
            .run("postconf", instance, &["-e", setting]);
        run.unwrap_or_else(|error| panic!("{error}"));
    }

    /// In both instances: what is said of the way out must be alike.
    pub fn set_both(&self, setting: &str) {
        self.set(Instance::Encrypt, setting);
        self.set(Instance::May, setting);
    }

    /// `postconf -P`.
    pub fn set_service(&self, instance: Instance, setting: &str) {
        let run = self
            .stage
            .sandbox
            .run("postconf", instance, &["-P", setting]);
        run.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Replaces a text that must be there.
    pub fn replace(&self, file: &str, from: &str, to: &str) {
        let path = self.path(file);
        let text = fs::read_to_string(&path).expect("a file");
        assert!(text.contains(from), "{file} has no {from:?}");
        fs::write(path, text.replace(from, to)).expect("a file");
    }

    pub fn mode(&self, file: &str, mode: u32) {
        fs::set_permissions(self.path(file), Permissions::from_mode(mode)).expect("a mode");
    }

    pub fn sql(&self, file: &str, sql: &str) {
        let connection = rusqlite::Connection::open(self.path(file)).expect("a database");
        connection.execute_batch(sql).expect("SQL");
    }

    /// What `posttls check` finds now, beyond what a healthy installation has.
    pub fn check(&mut self, what: &str, expected: &[(&str, &str)]) {
        self.settle();
        self.look(what, expected);
    }

    /// The same, with the files as old as they are.
    pub fn look(&mut self, what: &str, expected: &[(&str, &str)]) {
        let output = self.stage.posttls(&["check", "--json"]);
        let all = findings(&output);
        let mut found = not_ok(&all);
        found.retain(|id, status| self.healthy.get(id) != Some(status));
        let wanted: Found = expected
            .iter()
            .map(|(id, status)| ((*id).to_owned(), (*status).to_owned()))
            .collect();
        assert_eq!(found, wanted, "{what}: {all:#?}");
        let failed = wanted.values().any(|status| status == "fail");
        assert_eq!(output.status.code(), Some(i32::from(failed)), "{what}");
        for finding in &all {
            let complains = finding["status"] == "warn" || finding["status"] == "fail";
            let todo = finding["todo"].as_str().unwrap_or_default();
            assert_eq!(complains, !todo.is_empty(), "{what}: {finding}");
        }
        self.seen.extend(wanted.into_keys());
    }

    /// As if the instances had been reloaded since: that takes longer, and Postfix waits until a file that has just
    /// changed is a second old.
    pub fn settle(&self) {
        for (path, _) in &self.files {
            set_time(path, self.settled);
        }
    }

    /// Puts the configuration back as it was.
    pub fn restore(&self) {
        for (path, content) in &self.files {
            fs::write(path, content).expect("a file");
        }
        self.settle();
    }

    /// Breaks the configuration, looks, and repairs it.
    pub fn broken(&mut self, what: &str, how: impl FnOnce(&Self), expected: &[(&str, &str)]) {
        how(self);
        self.check(what, expected);
        self.restore();
    }

    /// Breaks something else than the configuration.
    pub fn ill(
        &mut self,
        what: &str,
        how: impl FnOnce(&Self),
        expected: &[(&str, &str)],
        repair: impl FnOnce(&Self),
    ) {
        how(self);
        self.check(what, expected);
        repair(self);
    }
}
