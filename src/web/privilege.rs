//! The proof that there is nothing in the web child worth taking over, and the end of what it could still gain. Both come
//! before everything else.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getegid, geteuid, getgid, getgroups, getuid};
use rustix::thread::{capabilities, set_no_new_privs};

use crate::confine::{self, Achieved};
use crate::web::child::WebError;

/// Open files: one for each connection that the gate takes, six for each to tiny_http, and some more.
const MAX_FILES: u64 = 4096;
/// Octets of private memory, thread stacks in full among them (see [`THREAD_STACK`]).
const MAX_MEMORY: u64 = 2 * 1024 * 1024 * 1024;
/// Octets of stack that a thread of the web child gets: some two hundred of them, at tiny_http's places, would else take
/// a fifth of `MAX_MEMORY`.
pub const THREAD_STACK: usize = 512 * 1024;

/// Ends in an error unless this process is an ordinary user without groups and capabilities that can open none of
/// `forbidden` (the store and the key); capabilities that it has inherited it gives up first. Then gives up for good what it could still gain. To be called while the process
/// has one thread: `no_new_privs` holds for the calling thread and those that it starts.
///
/// # Errors
/// When the process holds privilege, or a limit can't be set.
pub fn prove_unprivileged(forbidden: &[PathBuf]) -> Result<(), WebError> {
    let privileged = |what: String| Err(WebError::Privileged(what));
    if getuid().is_root() || geteuid().is_root() {
        return privileged("it runs as root".to_owned());
    }
    if getgid().is_root() || getegid().is_root() {
        return privileged("its group is root".to_owned());
    }
    let groups = getgroups().map_err(|e| WebError::Limit(e.into()))?;
    if let Some(group) = groups.iter().find(|group| **group != getgid()) {
        return privileged(format!("it is in group {}", group.as_raw()));
    }
    confine::drop_capabilities().map_err(WebError::Limit)?;
    let sets = capabilities(None).map_err(|e| WebError::Limit(e.into()))?;
    if !(sets.permitted | sets.effective | sets.inheritable).is_empty() {
        return privileged(format!("it has {:?}", sets.permitted));
    }
    if let Some(path) = forbidden.iter().find(|path| can_open(path)) {
        return privileged(format!("it can open {}", path.display()));
    }
    set_no_new_privs(true).map_err(|e| WebError::Limit(e.into()))?;
    confine::limit(Resource::Nofile, MAX_FILES)
        .and_then(|()| confine::keep_memory_private())
        .map_err(WebError::Limit)
}

/// Shuts the web child in for good: to be called after [`prove_unprivileged`], which looks at files.
///
/// There is no limit for the number of its processes: it can't make any, and its threads are limited by their stacks.
///
/// # Errors
/// When a limit can't be set.
pub fn shut_in() -> Result<Achieved, WebError> {
    [
        (Resource::Data, MAX_MEMORY),
        (Resource::Fsize, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ]
    .into_iter()
    .try_for_each(|(resource, most)| confine::limit(resource, most))
    .and_then(|()| confine::die_with_parent())
    .and_then(|()| confine::close_everything())
    .map_err(WebError::Limit)
}

/// Only a clear no counts as one.
fn can_open(path: &Path) -> bool {
    let refused = |result: std::io::Result<_>| {
        result.is_err_and(|error| {
            matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::NotFound | ErrorKind::IsADirectory
            )
        })
    };
    !refused(OpenOptions::new().read(true).open(path))
        || !refused(OpenOptions::new().append(true).open(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getrlimit;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    const AS_NOBODY: &str = "POSTTLS_TEST_AS_NOBODY";

    /// Runs in a process of its own: what it gives up can't be taken back.
    #[test]
    fn as_nobody() {
        let Some(path) = std::env::var_os(AS_NOBODY) else {
            return;
        };
        prove_unprivileged(&[path.into(), "/nonexistent/key".into()]).unwrap();
        assert!(rustix::thread::no_new_privs().unwrap());
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let sets = status.lines().filter(|line| {
            ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"]
                .iter()
                .any(|name| line.starts_with(name))
        });
        for set in sets {
            assert!(set.ends_with("\t0000000000000000"), "{set}");
        }
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
        assert!(getrlimit(Resource::Nofile).maximum.unwrap() <= MAX_FILES);
    }

    /// `program` is a copy of this one where anybody can reach it; the build directory may be closed to others.
    fn succeeds(program: &Path, secret: &Path, user: u32, group: u32) -> bool {
        let output = Command::new(program)
            .args(["--exact", "web::privilege::tests::as_nobody", "--nocapture"])
            .env(AS_NOBODY, secret)
            .current_dir("/")
            .uid(user)
            .gid(group)
            .output()
            .unwrap();
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        output.status.success()
    }

    #[test]
    fn privilege_is_found() {
        if !geteuid().is_root() {
            return;
        }
        assert!(matches!(
            prove_unprivileged(&[]),
            Err(WebError::Privileged(_))
        ));
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let program = directory.path().join("program");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let secret = directory.path().join("key");
        std::fs::write(&secret, "secret").unwrap();
        std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        assert!(succeeds(&program, &secret, 65534, 65534));
        // As all have it that the PID 1 of some containers starts.
        let inherited = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["--inh-caps=+chown,+kill", "--ambient-caps=+kill"])
            .arg(&program)
            .args(["--exact", "web::privilege::tests::as_nobody", "--nocapture"])
            .env(AS_NOBODY, &secret)
            .current_dir("/")
            .output()
            .unwrap();
        assert!(
            inherited.status.success(),
            "{}",
            String::from_utf8_lossy(&inherited.stdout)
        );
        assert!(!succeeds(&program, &secret, 65534, 0), "group root");
        assert!(!succeeds(&program, &secret, 0, 65534), "root");
        assert!(
            !succeeds(&program, Path::new("/etc/passwd"), 65534, 65534),
            "a readable secret"
        );
    }
}
