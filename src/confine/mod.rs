//! What our processes give up for good before they listen to strangers, so that it holds without systemd, too.
//!
//! Apart because web child, courier and hook give up different things by the same means. Everything here is to be called
//! while the process has one thread: it holds for the calling thread and those that it starts. What a kernel does not
//! have (Landlock before Linux 5.13, or switched off) is left out and said so: the other fences stand by themselves.

mod calls;

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};

use calls::Files;

/// How far the kernel goes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Achieved {
    /// Are system calls filtered?
    pub calls: bool,
    /// What of the file system and the network is closed by Landlock.
    pub landlock: Closed,
}

/// What Landlock closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// All that was asked for.
    All,
    /// What this kernel knows of.
    Partly,
    /// Nothing: the kernel does not have it, or a container's filter refuses it.
    Nothing,
}

impl std::fmt::Display for Achieved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let calls = if self.calls {
            "filtered"
        } else {
            "not filtered (not on this kernel)"
        };
        let landlock = match self.landlock {
            Closed::All => "in force",
            Closed::Partly => "in force as far as this kernel has it",
            Closed::Nothing => "not available here",
        };
        write!(f, "system calls {calls}, Landlock {landlock}")
    }
}

/// Keeps what is in memory (mail, links, keys) out of core files, and other processes of the same user from looking in.
///
/// # Errors
/// When the system refuses.
pub fn keep_memory_private() -> io::Result<()> {
    limit(Resource::Core, 0)?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Gives up every capability, those that a container's PID 1 hands down to all that it starts among them (inheritable and
/// ambient ones). Not for the mover.
///
/// # Errors
/// When the system refuses.
pub fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    let none = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    if capabilities(None)? == none {
        return Ok(());
    }
    // What is neither permitted nor inheritable is not ambient, either.
    Ok(set_capabilities(None, none)?)
}

/// Confines a process that Postfix starts for us: no capability, no privilege by a set-user-ID program, memory
/// closed to others.
///
/// # Errors
/// When the system refuses.
pub fn gain_nothing() -> io::Result<()> {
    drop_capabilities()?;
    set_no_new_privs(true)?;
    keep_memory_private()
}

/// Sets a limit that this process can never raise again; a lower one that it has stays.
///
/// # Errors
/// When the system refuses.
pub fn limit(resource: Resource, wanted: u64) -> io::Result<()> {
    let maximum = getrlimit(resource).maximum;
    let wanted = Some(maximum.map_or(wanted, |maximum| maximum.min(wanted)));
    let limit = Rlimit {
        current: wanted,
        maximum: wanted,
    };
    Ok(setrlimit(resource, limit)?)
}

/// Closes every descriptor of this thread's table but standard input, output and error: whoever started the mover may
/// have left some open. Nothing of ours may be open in it yet.
///
/// # Errors
/// When they can't be listed.
pub fn close_inherited() -> io::Result<()> {
    let mut open: Vec<i32> = Vec::new();
    for entry in std::fs::read_dir("/proc/thread-self/fd")? {
        let name = entry?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // An error means that it is closed already: the listing itself was one of them.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}

/// Ends this process when the one that started it ends, however that ends.
///
/// # Errors
/// When the system refuses.
pub fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// When memory runs out, the kernel ends this process rather than the mover. Before [`keep_memory_private`].
pub fn go_first() {
    // Not worth ending for.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
}

/// Closes the whole file system and the network for good: what is open stays open, and new connections come in by the
/// listening socket, but no file can be opened, no program run, no connection made.
///
/// # Errors
/// When the kernel could do it and does not.
pub fn close_everything() -> io::Result<Achieved> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V6))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(ABI::V6)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    let status = ruleset.restrict_self().map_err(io::Error::other)?;
    Ok(Achieved {
        landlock: closed(status.ruleset),
        calls: calls::forbid(Files::Closed)?,
    })
}

/// Leaves the file system readable as far as it was, and writable below `writable` only. No program can be run.
///
/// # Errors
/// When the kernel could do it and does not.
pub fn write_only_below(writable: &[&Path]) -> io::Result<Achieved> {
    let all = AccessFs::from_all(ABI::V5);
    let readable = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|ruleset| ruleset.scope(Scope::Signal))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    let root = PathFd::new("/").map_err(io::Error::other)?;
    ruleset = ruleset
        .add_rule(PathBeneath::new(root, readable))
        .map_err(io::Error::other)?;
    for path in writable {
        // One that does not exist, or can't be entered, needs no permission.
        if let Ok(path) = PathFd::new(path) {
            ruleset = ruleset
                .add_rule(PathBeneath::new(path, all & !AccessFs::Execute))
                .map_err(io::Error::other)?;
        }
    }
    let status = ruleset.restrict_self().map_err(io::Error::other)?;
    Ok(Achieved {
        landlock: closed(status.ruleset),
        calls: calls::forbid(Files::Open)?,
    })
}

fn closed(status: RulesetStatus) -> Closed {
    match status {
        RulesetStatus::FullyEnforced => Closed::All,
        RulesetStatus::PartiallyEnforced => Closed::Partly,
        RulesetStatus::NotEnforced => Closed::Nothing,
    }
}
