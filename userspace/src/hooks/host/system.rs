//! What the host says of itself in /proc and /sys. A file that is not there is a value, not an error.

use std::{fs, path::Path};

use rustix::thread::CapabilitySet;
use serde::Serialize;

use super::{Allowed, Memory};
use crate::hooks::btf::Btf;

/// The host, as far as hooks and the ledger depend on it.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// `uname -r`, for people: nothing is decided by it.
    pub release: String,
    /// Kernel lockdown.
    pub lockdown: Lockdown,
    /// Active security modules, None where securityfs is not mounted.
    pub security_modules: Option<Vec<String>>,
    /// What this process may do, by right.
    pub capabilities: Vec<Capability>,
    /// What this process can do, as tried.
    pub allowed: Allowed,
    /// File systems that septwatch uses.
    pub mounts: Mounts,
    /// Version of the cgroup hierarchy.
    pub cgroup: Cgroup,
    /// Limit of locked memory in bytes, None for none. Counts only where the ring buffer is refused: kernels
    /// charge eBPF maps to the memory cgroup.
    pub memlock_limit: Option<u64>,
    /// System RAM, or why it is not known.
    #[serde(serialize_with = "known_or_not")]
    pub memory: Result<Memory, String>,
    /// Whether KVM runs TDs here.
    pub tdx: Tdx,
}

/// State of kernel lockdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lockdown {
    /// Off.
    None,
    /// The kernel protects itself from changes; tracing works.
    Integrity,
    /// The kernel also hides its memory: programs cannot read it.
    Confidentiality,
    /// securityfs is not mounted, or the kernel has no lockdown.
    Unknown,
}

/// A capability, what it is for, and whether this process has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capability {
    /// Its name.
    pub name: &'static str,
    /// What septwatch needs it for.
    pub purpose: &'static str,
    /// Whether it is in the effective set.
    pub held: bool,
    /// Whether there is no watching without it.
    pub required: bool,
}

/// Where file systems are mounted, None where they are not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mounts {
    /// For pins, `/sys/fs/bpf`.
    pub bpffs: Option<String>,
    /// `/sys/kernel/tracing`
    pub tracefs: Option<String>,
    /// `/sys/kernel/security`
    pub securityfs: Option<String>,
}

/// Which cgroup hierarchy processes are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cgroup {
    /// Version 2 only.
    V2,
    /// Version 1, with an unused or name-only version 2 beside it: events name that of version 2.
    Hybrid,
    /// Version 1 only: events name no cgroup.
    V1,
    /// Not mounted.
    None,
}

/// TDX on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tdx {
    /// kvm_intel says Y.
    Enabled,
    /// kvm_intel says N: not asked for, or the platform has none.
    Disabled,
    /// kvm_intel is loaded and does not know TDX.
    NotBuilt,
    /// kvm_intel is not loaded.
    NoKvmIntel,
}

impl Host {
    /// Looks at the running host; `vmlinux` is its kernel's BTF, if it has any.
    pub fn running(vmlinux: Option<&Btf>) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            lockdown: lockdown(fs::read_to_string("/sys/kernel/security/lockdown").ok().as_deref()),
            security_modules: fs::read_to_string("/sys/kernel/security/lsm")
                .ok()
                .map(|list| list.trim().split(',').map(str::to_owned).collect()),
            capabilities: capabilities(),
            allowed: Allowed::probe(vmlinux),
            mounts: self::mounts(&mounts),
            cgroup: cgroup(&mounts),
            memlock_limit: rustix::process::getrlimit(rustix::process::Resource::Memlock).current,
            memory: Memory::running().map_err(|error| error.to_string()),
            tdx: tdx(Path::new("/sys/module/kvm_intel")),
        }
    }
}

/// The memory itself, or `{"unknown": why}`.
fn known_or_not<S: serde::Serializer>(
    memory: &Result<Memory, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match memory {
        Ok(memory) => memory.serialize(serializer),
        Err(why) => serializer.collect_map([("unknown", why)]),
    }
}

/// `none [integrity] confidentiality`: the active one is in brackets.
fn lockdown(text: Option<&str>) -> Lockdown {
    let active = text.and_then(|text| text.split_once('[')?.1.split_once(']')).map(|(active, _)| active);
    match active {
        Some("none") => Lockdown::None,
        Some("integrity") => Lockdown::Integrity,
        Some("confidentiality") => Lockdown::Confidentiality,
        _ => Lockdown::Unknown,
    }
}

/// Names of the capabilities that nothing works without, and that this process lacks.
pub fn missing_capabilities() -> Vec<&'static str> {
    let lacking = |capability: &Capability| capability.required && !capability.held;
    capabilities().into_iter().filter(lacking).map(|capability| capability.name).collect()
}

fn capabilities() -> Vec<Capability> {
    // An error means that the kernel does not answer for this process: it is shown as having none.
    let held =
        rustix::thread::capabilities(None).map(|sets| sets.effective).unwrap_or(CapabilitySet::empty());
    // CAP_SYS_ADMIN includes what CAP_BPF and CAP_PERFMON were split from (include/linux/capability.h, bpf_capable).
    let admin = held.contains(CapabilitySet::SYS_ADMIN);
    let row = |name, capability, required, purpose| {
        let in_admin = matches!(name, "CAP_BPF" | "CAP_PERFMON") && admin;
        Capability { name, purpose, held: held.contains(capability) || in_admin, required }
    };
    vec![
        row("CAP_BPF", CapabilitySet::BPF, true, "load programs, create maps"),
        row("CAP_PERFMON", CapabilitySet::PERFMON, true, "tracing programs, reading kernel memory in them"),
        row(
            "CAP_SYS_ADMIN",
            CapabilitySet::SYS_ADMIN,
            true,
            "hooks in modules, System RAM from /proc/iomem, frames from pagemap, mounting bpffs",
        ),
        row(
            "CAP_SYSLOG",
            CapabilitySet::SYSLOG,
            false,
            "addresses of symbols: page to pfn without calibration",
        ),
        row("CAP_SYS_PTRACE", CapabilitySet::SYS_PTRACE, false, "what a process with a guest_memfd has open"),
        row("CAP_SYS_BOOT", CapabilitySet::SYS_BOOT, false, "the reaction `panic` from within the kernel"),
        row("CAP_SYS_RESOURCE", CapabilitySet::SYS_RESOURCE, false, "lifting the limit of locked memory"),
    ]
}

fn mounts(text: &str) -> Mounts {
    let of = |wanted: &str| {
        text.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (place, kind) = (words.next()?, words.next()?);
            (kind == wanted).then(|| place.to_owned())
        })
    };
    Mounts { bpffs: of("bpf"), tracefs: of("tracefs"), securityfs: of("securityfs") }
}

fn cgroup(mounts: &str) -> Cgroup {
    let has = |wanted| mounts.lines().any(|line| line.split(' ').nth(2) == Some(wanted));
    match (has("cgroup2"), has("cgroup")) {
        (true, false) => Cgroup::V2,
        (true, true) => Cgroup::Hybrid,
        (false, true) => Cgroup::V1,
        (false, false) => Cgroup::None,
    }
}

fn tdx(kvm_intel: &Path) -> Tdx {
    if !kvm_intel.exists() {
        return Tdx::NoKvmIntel;
    }
    match fs::read_to_string(kvm_intel.join("parameters/tdx")).as_deref().map(str::trim) {
        Ok("Y" | "1") => Tdx::Enabled,
        Ok(_) => Tdx::Disabled,
        Err(_) => Tdx::NotBuilt,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test")]
mod tests {
    use super::*;

    #[test]
    fn the_bracketed_lockdown_counts() {
        assert_eq!(lockdown(Some("none [integrity] confidentiality\n")), Lockdown::Integrity);
        assert_eq!(lockdown(Some("[none] integrity confidentiality\n")), Lockdown::None);
        assert_eq!(lockdown(Some("none integrity [confidentiality]\n")), Lockdown::Confidentiality);
        assert_eq!(lockdown(Some("what")), Lockdown::Unknown);
        assert_eq!(lockdown(None), Lockdown::Unknown);
    }

    #[test]
    fn mounts_are_told_apart_by_type() {
        let text = "bpf /sys/fs/bpf bpf rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n";
        assert_eq!(mounts(text).bpffs.as_deref(), Some("/sys/fs/bpf"));
        assert_eq!(mounts(text).tracefs, None);
        assert_eq!(cgroup(text), Cgroup::V1);
        assert_eq!(cgroup("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"), Cgroup::V2);
        assert_eq!(cgroup(&format!("{text}none /x cgroup2 rw 0 0\n")), Cgroup::Hybrid);
        assert_eq!(cgroup(""), Cgroup::None);
    }

    #[test]
    fn tdx_is_what_kvm_intel_says() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(tdx(&dir.path().join("none")), Tdx::NoKvmIntel);
        assert_eq!(tdx(dir.path()), Tdx::NotBuilt);
        let parameters = dir.path().join("parameters");
        fs::create_dir(&parameters).unwrap();
        for (value, expected) in [("Y\n", Tdx::Enabled), ("N\n", Tdx::Disabled)] {
            fs::write(parameters.join("tdx"), value).unwrap();
            assert_eq!(tdx(dir.path()), expected);
        }
    }
}
