//! System calls that our children never make, and whoever takes one of them over would like to: refused by seccomp.
//!
//! A list of what is refused, not of what is allowed: a C library that one day makes another call for the same purpose
//! must not end a service that mail waits for. What is refused fails with "operation not permitted".

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Does the process open files?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// No file can be opened, made, renamed or removed, and no socket made, connected, or sent from to an address.
    Closed,
    /// As far as users and Landlock let it.
    Open,
}

/// Programs, other processes, name spaces, kernel, and the ways around a filter (io_uring).
const NEVER: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_personality,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
];

#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[i64] = &[];

/// With [`Files::Closed`] only.
const FILES: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mknodat,
    libc::SYS_mkdirat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_inotify_add_watch,
    libc::SYS_mq_open,
    libc::SYS_shmget,
    libc::SYS_msgget,
    libc::SYS_semget,
];

/// With [`Files::Closed`] only: what a process could reach another one by that it has no socket to, such as a local one
/// that everybody may write to (/dev/log, D-Bus). A filter sees no address in memory, so the calls go that could name
/// one: `sendmsg` as well, as what we have can be written to.
const SOCKETS: &[i64] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
];

#[cfg(target_arch = "x86_64")]
const FILES_HERE: &[i64] = &[
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_mknod,
    libc::SYS_mkdir,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const FILES_HERE: &[i64] = &[];

/// A second table of the same calls, by another number (`__X32_SYSCALL_BIT`): some kernels have it. These are those of
/// ours that have a number of their own there: execve, ptrace, the two process_vm_ calls, execveat, and for
/// [`Files::Closed`] sendmsg and sendmmsg.
#[cfg(target_arch = "x86_64")]
const X32: (i64, &[i64], &[i64]) = (0x4000_0000, &[520, 521, 539, 540, 545], &[518, 538]);

/// Refuses them for good. `false` when this kernel or processor has no such filter.
pub(super) fn forbid(files: Files) -> io::Result<bool> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(false);
    };
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    // The C library then takes clone(2), whose flags can be seen.
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    for (rules, action) in [(clone3, unknown), (rules(files)?, refused)] {
        let filter =
            SeccompFilter::new(everywhere(rules, files), SeccompAction::Allow, action, arch);
        let program: BpfProgram = filter
            .and_then(BpfProgram::try_from)
            .map_err(io::Error::other)?;
        match seccompiler::apply_filter_all_threads(&program) {
            Ok(()) => {}
            Err(seccompiler::Error::Seccomp(error))
                if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(true)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// No condition means always.
fn rules(files: Files) -> io::Result<Rules> {
    let mut rules: Rules = BTreeMap::new();
    let always = NEVER.iter().chain(NEVER_HERE);
    rules.extend(always.map(|call| (*call, Vec::new())));
    match files {
        Files::Closed => {
            let calls = FILES.iter().chain(FILES_HERE).chain(SOCKETS);
            rules.extend(calls.map(|call| (*call, Vec::new())));
            // An address beside what is sent, and "connect while sending" without one (MSG_FASTOPEN).
            let addressed = SeccompCondition::new(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0);
            let fast = libc::MSG_FASTOPEN as u64;
            let fast = condition(3, SeccompCmpOp::MaskedEq(fast), fast);
            rules.insert(libc::SYS_sendto, vec![rule([addressed])?, rule([fast])?]);
        }
        Files::Open => {
            // Netlink: how the C library learns which addresses the host has.
            let families = [
                libc::AF_UNIX,
                libc::AF_INET,
                libc::AF_INET6,
                libc::AF_NETLINK,
            ];
            let others = families.iter().map(|family| unlike(0, *family as u64));
            rules.insert(libc::SYS_socket, vec![rule(others)?]);
        }
    }
    // Threads, yes; processes, no.
    let thread = libc::CLONE_THREAD as u64;
    let process = condition(0, SeccompCmpOp::MaskedEq(thread), 0);
    rules.insert(libc::SYS_clone, vec![rule([process])?]);
    // A process may end itself, and that by a signal.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![rule([unlike(0, own)])?]);
    // Neither may its end with its parent be called off, nor its memory be opened again.
    let ways_out = [libc::PR_SET_PDEATHSIG, libc::PR_SET_DUMPABLE];
    let ways_out = ways_out.map(|option| rule([condition(0, SeccompCmpOp::Eq, option as u64)]));
    let ways_out: Result<Vec<SeccompRule>, io::Error> = ways_out.into_iter().collect();
    rules.insert(libc::SYS_prctl, ways_out?);
    Ok(rules)
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

fn unlike(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    condition(argument, SeccompCmpOp::Ne, value)
}

/// Matches when all conditions hold.
fn rule(
    conditions: impl IntoIterator<Item = Result<SeccompCondition, seccompiler::BackendError>>,
) -> io::Result<SeccompRule> {
    let conditions: Result<Vec<_>, _> = conditions.into_iter().collect();
    conditions
        .and_then(SeccompRule::new)
        .map_err(io::Error::other)
}

#[cfg(target_arch = "x86_64")]
fn everywhere(mut rules: Rules, files: Files) -> Rules {
    let (bit, own, closed) = X32;
    let again: Vec<(i64, Vec<SeccompRule>)> = rules
        .iter()
        .map(|(call, rules)| (call | bit, rules.clone()))
        .collect();
    rules.extend(again);
    rules.extend(own.iter().map(|call| (call | bit, Vec::new())));
    if files == Files::Closed {
        rules.extend(closed.iter().map(|call| (call | bit, Vec::new())));
    }
    rules
}

#[cfg(not(target_arch = "x86_64"))]
fn everywhere(rules: Rules, _files: Files) -> Rules {
    rules
}
