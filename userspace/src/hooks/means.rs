//! Means: what this kernel lets reactions do, each with the reason where it does not.

use std::{fs, path::Path};

use serde::Serialize;

use super::{
    host::{Cgroup, Host, Probe},
    plan::Plan,
};

/// What reactions can count on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Means {
    /// fallocate on a guest_memfd can be refused: an LSM program at `file_permission`.
    pub refuse_fallocate: Probe,
    /// KVM_CREATE_VM can be refused: an LSM program at `file_ioctl`.
    pub refuse_create_vm: Probe,
    /// Programs can start the crash kernel: the kfunc `crash_kexec`, and CAP_SYS_BOOT.
    pub crash_kexec: Probe,
    /// A crash kernel is loaded.
    pub crash_kernel: Probe,
    /// Userspace can bring the host down: /proc/sysrq-trigger.
    pub sysrq: Probe,
    /// A frame can be taken offline: /sys/devices/system/memory/hard_offline_page.
    pub hard_offline: Probe,
    /// Processes can be frozen: cgroup v2.
    pub freezer: Probe,
    /// An inode can be pinned through /proc/PID/fd: CAP_SYS_PTRACE.
    pub pin_inodes: Probe,
}

/// Says what a crash kernel takes: `1` where one is loaded.
const CRASH_LOADED: &str = "/sys/kernel/kexec_crash_loaded";
const SYSRQ: &str = "/proc/sysrq-trigger";
const HARD_OFFLINE: &str = "/sys/devices/system/memory/hard_offline_page";

impl Means {
    /// On the kernel of this plan: what `host` says, or what can be assumed of one that is not running.
    pub fn of(plan: &Plan, host: Option<&Host>) -> Self {
        let targets = &plan.targets;
        let refused = |why: &str| Probe::Refused(why.to_owned());
        let held = |name: &str| {
            let of = |host: &Host| host.capabilities.iter().any(|one| one.name == name && one.held);
            host.is_none_or(of)
        };
        let security = |hook: Option<u32>| match (hook, host) {
            (None, _) => refused("the kernel has no security hooks for eBPF (CONFIG_BPF_LSM)"),
            (Some(_), None) => Probe::Assumed,
            (Some(_), Some(host)) => match (&host.security_modules, &host.allowed.lsm) {
                (_, Probe::Refused(why)) => Probe::Refused(format!("LSM programs: {why}")),
                (Some(active), _) if !active.iter().any(|module| module == "bpf") => refused(
                    "`bpf` is not among the active security modules (/sys/kernel/security/lsm): add it to lsm= on the kernel's command line",
                ),
                (_, probe) => probe.clone(),
            },
        };
        let refuse_fallocate = match security(targets.file_permission) {
            Probe::Refused(why) => Probe::Refused(why),
            _ if plan.offsets.gmem_kvm.is_none() => {
                refused("where a guest_memfd names its VM is not known: kvm has no BTF")
            }
            _ if host.is_some() && targets.gmem_fallocate.is_none() => {
                refused("the address of kvm_gmem_fallocate is not known: kallsyms does not show it")
            }
            probe => probe,
        };
        let crash_kexec = match (targets.crash_kexec, host) {
            (None, _) => refused("the kernel has no kfunc crash_kexec (CONFIG_CRASH_DUMP)"),
            _ if !held("CAP_SYS_BOOT") => refused("this process lacks CAP_SYS_BOOT"),
            (Some(_), Some(host)) => host.allowed.tp_btf.clone(),
            (Some(_), None) => Probe::Assumed,
        };
        let there = |path: &str, why: &str| match host {
            None => Probe::Assumed,
            Some(_) if Path::new(path).exists() => Probe::Works,
            Some(_) => Probe::Refused(format!("{path} is missing: {why}")),
        };
        let crash_kernel = match host.map(|_| fs::read_to_string(CRASH_LOADED)) {
            None => Probe::Assumed,
            Some(Ok(text)) if text.trim() == "1" => Probe::Works,
            Some(Ok(_)) => refused("no crash kernel is loaded: set up kdump"),
            Some(Err(error)) => {
                Probe::Refused(format!("{CRASH_LOADED}: {error}: the kernel has no CONFIG_CRASH_DUMP"))
            }
        };
        let freezer = match host.map(|host| host.cgroup) {
            None => Probe::Assumed,
            Some(Cgroup::V2 | Cgroup::Hybrid) => Probe::Works,
            Some(Cgroup::V1 | Cgroup::None) => refused("no cgroup v2 hierarchy is mounted"),
        };
        let pin_inodes = match held("CAP_SYS_PTRACE") {
            false => refused("this process lacks CAP_SYS_PTRACE, and may not look at what a VMM has open"),
            true if host.is_none() => Probe::Assumed,
            true => Probe::Works,
        };
        Self {
            refuse_fallocate,
            refuse_create_vm: security(targets.file_ioctl),
            crash_kexec,
            crash_kernel,
            sysrq: there(SYSRQ, "the kernel has no CONFIG_MAGIC_SYSRQ"),
            hard_offline: there(HARD_OFFLINE, "the kernel has no CONFIG_MEMORY_FAILURE"),
            freezer,
            pin_inodes,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::hooks::{
        btf::KernelBtf,
        host::Allowed,
        plan::{Targets, btf_names, plan},
    };

    fn planned(release: &str) -> Plan {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/btf").join(release);
        plan(&KernelBtf::read(&folder, &btf_names()).unwrap(), None, &Allowed::assumed()).unwrap()
    }

    #[test]
    fn a_kernel_that_does_not_run_is_assumed_to_let_what_it_has() {
        let mut plan = planned("7.3");
        let means = Means::of(&plan, None);
        assert_eq!(means.refuse_fallocate, Probe::Assumed);
        assert_eq!(means.crash_kexec, Probe::Assumed);
        plan.targets = Targets::default();
        let means = Means::of(&plan, None);
        assert!(matches!(&means.refuse_fallocate, Probe::Refused(why) if why.contains("CONFIG_BPF_LSM")));
        assert!(matches!(&means.refuse_create_vm, Probe::Refused(why) if why.contains("CONFIG_BPF_LSM")));
        assert!(matches!(&means.crash_kexec, Probe::Refused(why) if why.contains("CONFIG_CRASH_DUMP")));
        // Built without CONFIG_CRASH_DUMP.
        assert_eq!(planned("6.17").targets.crash_kexec, None);
    }
}
