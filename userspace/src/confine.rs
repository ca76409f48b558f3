//! Giving up what a running agent no longer needs, once programs are attached: capabilities, new privileges, system calls.
//!
//! What is pinned and open works on without: maps are read and written through their descriptors, and a program that is
//! loaded is attached by its own (bpf(2): only BPF_PROG_LOAD, BPF_MAP_CREATE and BPF_BTF_LOAD ask for capabilities).

pub mod writes;

use std::collections::BTreeMap;

use rustix::{
    io::Errno,
    thread::{self, CapabilitySet, CapabilitySets},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use thiserror::Error;

use crate::policy::file::Policy;

/// The process could not be confined.
#[derive(Debug, Error)]
pub enum ConfineError {
    /// Capabilities could not be given up.
    #[error("capabilities cannot be given up: {0}")]
    Capabilities(#[source] Errno),
    /// `no_new_privs` could not be set.
    #[error("no_new_privs cannot be set: {0}")]
    NoNewPrivileges(#[source] Errno),
    /// System calls could not be filtered.
    #[error("system calls cannot be filtered: {0}")]
    Seccomp(String),
}

/// What somebody needs a capability for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The feature: `observe`, or the name of a reaction.
    pub feature: &'static str,
    /// The capability.
    pub name: &'static str,
    capability: CapabilitySet,
    /// What for.
    pub purpose: &'static str,
}

/// All needs of a running agent: a capability, the features that need it, and what for. Reactions that are not here need
/// none: `cordon` writes a map that is open, `panic` a file of root's that asks for nothing more (sysrq-trigger; /dev/kmsg
/// for writing), and what a `notify` runs gets no more than the agent has.
///
/// /proc/PID/fd has mode 0500 and its owner's, and what it links to is seen by who may trace (fs/proc/fd.c).
const NEEDS: [(&str, CapabilitySet, &[&str], &str); 8] = [
    (
        "CAP_SYS_PTRACE",
        CapabilitySet::SYS_PTRACE,
        &["observe"],
        "what VMMs of other users have mapped, for stacks",
    ),
    (
        "CAP_LINUX_IMMUTABLE",
        CapabilitySet::LINUX_IMMUTABLE,
        &["policy"],
        "the audit log can only be appended to",
    ),
    ("CAP_DAC_READ_SEARCH", CapabilitySet::DAC_READ_SEARCH, &["hold", "kill", "freeze"], FD),
    ("CAP_SYS_PTRACE", CapabilitySet::SYS_PTRACE, &["hold", "kill", "freeze"], FD),
    (
        "CAP_SYS_RESOURCE",
        CapabilitySet::SYS_RESOURCE,
        &["hold", "kill"],
        "a keeper of them that the OOM killer leaves alone",
    ),
    (
        "CAP_KILL",
        CapabilitySet::KILL,
        &["stop", "kill", "unsafe-kill"],
        "signals to processes of other users",
    ),
    (
        "CAP_DAC_OVERRIDE",
        CapabilitySet::DAC_OVERRIDE,
        &["freeze"],
        "cgroup.freeze of a cgroup that is another user's",
    ),
    ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN, &["quarantine"], "hard_offline_page (drivers/base/memory.c)"),
];

const FD: &str = "the guest_memfd of VMMs of other users, in /proc/PID/fd";

/// The capabilities that an agent needs while it runs, with this policy or none.
pub fn needed(policy: Option<&Policy>) -> Vec<Need> {
    let steps = policy.into_iter().flat_map(|policy| &policy.rules).flat_map(|rule| &rule.ladder);
    let mut features: Vec<_> = steps.map(|step| step.reaction.name()).collect();
    features.push("observe");
    features.extend(policy.map(|_| "policy"));
    let of = |(name, capability, needs, purpose): (_, _, &'static [&str], _)| {
        let wanted = needs.iter().filter(|feature| features.contains(feature));
        wanted.map(move |feature| Need { feature, name, capability, purpose })
    };
    NEEDS.into_iter().flat_map(of).collect()
}

/// What a process kept when it was confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept(CapabilitySet);

impl Kept {
    /// What of these needs was given up.
    pub fn lacks(self, needs: &[Need]) -> Vec<Need> {
        needs.iter().filter(|need| !self.0.contains(need.capability)).copied().collect()
    }

    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        let mut names: Vec<_> = NEEDS
            .iter()
            .filter(|(_, capability, ..)| self.0.contains(*capability))
            .map(|(name, ..)| *name)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// System calls that no agent needs once it runs, and that somebody who took it over would want.
const REFUSED: [libc::c_long; 41] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Commands of bpf(2) that make something new: uapi/linux/bpf.h.
const BPF_MAP_CREATE: u64 = 0;
const BPF_PROG_LOAD: u64 = 5;
const BPF_BTF_LOAD: u64 = 18;

/// Confines this process to these needs: for this thread and those that it starts, system calls for all.
///
/// # Errors
/// The kernel refuses: the process must not go on.
pub fn confine(needs: &[Need]) -> Result<Kept, ConfineError> {
    let held = thread::capabilities(None).map_err(ConfineError::Capabilities)?;
    let wanted = needs.iter().fold(CapabilitySet::empty(), |all, need| all | need.capability);
    let kept = held.permitted & wanted;
    bound(kept)?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    thread::set_capabilities(None, sets).map_err(ConfineError::Capabilities)?;
    thread::set_no_new_privs(true).map_err(ConfineError::NoNewPrivileges)?;
    let wrong = |why: &dyn std::fmt::Display| ConfineError::Seccomp(why.to_string());
    match seccompiler::apply_filter_all_threads(&filter().map_err(|why| wrong(&why))?) {
        // A kernel without CONFIG_SECCOMP_FILTER: the rest holds.
        Err(seccompiler::Error::Seccomp(why)) if without_seccomp(&why) => {
            eprintln!("septwatch: this kernel cannot filter system calls ({why}): it goes on without");
        }
        applied => applied.map_err(|why| wrong(&why))?,
    }
    Ok(Kept(kept))
}

fn without_seccomp(why: &std::io::Error) -> bool {
    matches!(why.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL))
}

/// No program that is started can have more than these.
fn bound(kept: CapabilitySet) -> Result<(), ConfineError> {
    for number in 0..u64::BITS {
        if kept.bits() & 1 << number != 0 {
            continue;
        }
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match thread::remove_capability_from_bounding_set(capability) {
            // The kernel has no more.
            Err(Errno::INVAL) => break,
            // Without CAP_SETPCAP nothing can be taken out; whoever has none has given it up before.
            Err(Errno::PERM) => break,
            done => done.map_err(ConfineError::Capabilities)?,
        }
    }
    Ok(())
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<_, Vec<SeccompRule>> =
        REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    for command in [BPF_MAP_CREATE, BPF_PROG_LOAD, BPF_BTF_LOAD] {
        let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, command)?;
        rules.entry(libc::SYS_bpf).or_default().push(SeccompRule::new(vec![is])?);
    }
    let refused = SeccompAction::Errno(Errno::PERM.raw_os_error() as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, refused, TargetArch::x86_64)?.try_into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use std::fs;

    use super::*;

    #[test]
    fn a_policy_needs_what_its_reactions_need() {
        let names = |needs: &[Need]| needs.iter().map(|need| need.name).collect::<Vec<_>>();
        assert_eq!(names(&needed(None)), ["CAP_SYS_PTRACE"]);
        let contain = Policy::find("contain").unwrap();
        let needs = names(&needed(Some(&contain)));
        assert!(needs.contains(&"CAP_KILL") && needs.contains(&"CAP_LINUX_IMMUTABLE"), "{needs:?}");
        let kept = Kept(CapabilitySet::SYS_PTRACE);
        assert_eq!(kept.lacks(&needed(None)), []);
        assert!(names(&kept.lacks(&needed(Some(&contain)))).contains(&"CAP_KILL"));
        assert_eq!(kept.names(), ["CAP_SYS_PTRACE"]);
    }

    /// Runs this in a process of its own, and says whether it was so there.
    fn child(tries: fn() -> bool) -> bool {
        // SAFETY: glibc makes its allocator whole in the child; nothing else of other threads is used there.
        match unsafe { libc::fork() } {
            0 => {
                let done = tries();
                // SAFETY: nothing of the parent's is flushed.
                unsafe { libc::_exit(i32::from(!done)) }
            }
            pid => {
                let mut status = 0;
                // SAFETY: a child of ours, and room for its status.
                assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
                libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
            }
        }
    }

    /// Asks for an array of one; the errno, if it is refused.
    fn map() -> Result<(), i32> {
        // union bpf_attr: BPF_MAP_TYPE_ARRAY, sizes of key and value, one entry.
        let attributes = [2_u32, 4, 4, 1];
        // SAFETY: the attributes are as long as is said; the map ends with the process.
        match unsafe {
            libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attributes.as_ptr(), size_of_val(&attributes))
        } {
            -1 => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
            _ => Ok(()),
        }
    }

    #[test]
    fn what_was_given_up_does_not_come_back() {
        assert!(!child(|| false), "what fails is seen");
        let given_up = || {
            // Anybody may ask for it.
            // SAFETY: it changes nothing.
            let personality = || unsafe { libc::personality(0xffff_ffff) };
            let before = personality() != -1;
            let confined = confine(&needed(None)).is_ok();
            let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
            let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let number = |name: &str| u64::from_str_radix(line(name)?, 16).ok();
            let ptrace = CapabilitySet::SYS_PTRACE.bits();
            before
                && confined
                && personality() == -1
                && line("NoNewPrivs:") == Some("1")
                && line("Seccomp:") == Some("2")
                && number("CapEff:").is_some_and(|set| set & !ptrace == 0)
                && number("CapPrm:").is_some_and(|set| set & !ptrace == 0)
                && number("CapInh:") == Some(0)
        };
        assert!(child(given_up));
    }

    #[test]
    fn who_may_load_programs_cannot_when_confined() {
        if !child(|| map().is_ok()) {
            eprintln!("skipped: it makes a BPF map, which needs CAP_BPF");
            return;
        }
        // With CAP_SYS_ADMIN, for quarantine: only the filter refuses.
        let admin = || {
            let (feature, capability) = ("quarantine", CapabilitySet::SYS_ADMIN);
            let need = Need { feature, name: "CAP_SYS_ADMIN", capability, purpose: "" };
            confine(&[need]).is_ok() && map() == Err(libc::EPERM)
        };
        assert!(child(admin));
    }
}
