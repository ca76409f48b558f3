//! What `septwatch doctor` makes of a kernel's BTF and of the running host.
#![expect(clippy::unwrap_used, reason = "a failed test")]

use std::{fs, path::Path};

use septwatch::{
    commands::{
        doctor::{Args, Comparison, DoctorError, Report, write_to},
        exit,
    },
    hooks::host::{Memory, Tdx},
};

fn fixture(release: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/btf").join(release)
}

#[test]
fn every_tdx_kernel_can_be_watched() {
    for release in ["6.17", "6.18", "6.19", "7.1", "7.3"] {
        let report = Report::of_btf(&fixture(release)).unwrap();
        assert!(report.verdict.can_watch, "Linux {release}: {}", report.verdict.line);
        let missing = report.plan.as_ref().unwrap().hooks.iter().filter(|hook| hook.bound().is_none());
        let names: Vec<_> = missing.map(|hook| hook.name).collect();
        match release {
            // guest_memfd can be mapped into a process from 6.18 on.
            "6.17" => assert_eq!(names, ["kvm_gmem_fault_user_mapping"]),
            _ => assert_eq!(names, [""; 0], "Linux {release}"),
        }
        assert_eq!(write_to(&Args { json: false, btf: vec![fixture(release)] }, &mut Vec::new()).unwrap(), 0);
    }
}

#[test]
fn the_loss_is_in_the_verdict() {
    let whole = Report::of_btf(&fixture("7.3")).unwrap().verdict.line;
    assert_eq!(whole, "TDs can be watched on this kernel: 29 of 29 hooks, no detection is lost");
    // A kernel in which one function has another name.
    let dir = tempfile::tempdir().unwrap();
    let mut btf = fs::read(fixture("7.3").join("vmlinux.btf")).unwrap();
    let name = b"\0tdh_mem_sept_add\0";
    let at = btf.windows(name.len()).position(|bytes| bytes == name).unwrap();
    btf[at + 1] = b'T';
    fs::write(dir.path().join("vmlinux"), btf).unwrap();
    for module in ["kvm.btf", "kvm_intel.btf"] {
        fs::copy(fixture("7.3").join(module), dir.path().join(module)).unwrap();
    }
    let line = Report::of_btf(dir.path()).unwrap().verdict.line;
    assert_eq!(
        line,
        "TDs can be watched on this kernel: 28 of 29 hooks, found less surely or not at all: freed-while-owned, \
         teardown-leak"
    );
}

/// Without the modules' BTF what KVM does is not seen; what the TDX module is asked still is.
#[test]
fn modules_may_be_absent() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(fixture("7.3").join("vmlinux.btf"), dir.path().join("vmlinux")).unwrap();
    let report = Report::of_btf(dir.path()).unwrap();
    assert!(report.verdict.can_watch);
    let text = report.to_string();
    assert!(text.contains("missing: not in the BTF of vmlinux (kvm has none here): not built, or inlined"));
    assert!(text.contains("lost: poisoned-while-mapped"));
}

/// A kernel in which a member of KVM's structures has another name: TDs can be watched, and those that run already not be
/// taken over, for want of that member.
#[test]
fn what_cannot_be_walked_is_said_with_the_member() {
    let text = Report::of_btf(&fixture("7.3")).unwrap().to_string();
    assert!(text.contains("can be taken over, and audited"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    for name in ["vmlinux.btf", "kvm_intel.btf"] {
        fs::copy(fixture("7.3").join(name), dir.path().join(name)).unwrap();
    }
    let mut btf = fs::read(fixture("7.3").join("kvm.btf")).unwrap();
    let name = b"\0external_spt\0";
    let at = btf.windows(name.len()).position(|bytes| bytes == name).unwrap();
    btf[at + 1] = b'E';
    fs::write(dir.path().join("kvm.btf"), btf).unwrap();
    let report = Report::of_btf(dir.path()).unwrap();
    assert!(report.verdict.can_watch, "{}", report.verdict.line);
    let why = "cannot be taken over: the types of this kernel have no kvm_mmu_page.external_spt";
    assert!(report.to_string().contains(why), "{report}");
}

/// A module of another kernel is told by the hooks that need it, or refused with the file's name.
#[test]
fn a_damaged_module_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["vmlinux.btf", "kvm.btf"] {
        fs::copy(fixture("7.3").join(name), dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("kvm_intel.btf"), "what").unwrap();
    let report = Report::of_btf(dir.path()).unwrap();
    let text = report.to_string();
    assert!(text.contains("kvm_intel.btf: offset 0x0: not BTF: starts with 0x6877"), "{text}");
}

#[test]
fn unusable_folders_are_input_errors() {
    let dir = tempfile::tempdir().unwrap();
    let of =
        |dir: &Path| write_to(&Args { json: true, btf: vec![dir.to_owned()] }, &mut Vec::new()).unwrap_err();
    let error = of(dir.path());
    assert!(matches!(error, DoctorError::Btf(_)));
    assert_eq!(error.to_string(), format!("--btf: {}/vmlinux: there is no such file", dir.path().display()));
    fs::write(dir.path().join("vmlinux"), "what").unwrap();
    assert!(of(dir.path()).to_string().contains("vmlinux: offset 0x0: not BTF"));
}

/// The running host: whatever it is, the report must agree with what can be read of it in another way.
#[test]
fn the_running_host_is_told_as_it_is() {
    let report = Report::of_host();
    let host = report.host.as_ref().unwrap();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(host.release, release.trim());
    if let Some(ledger) = report.ledger {
        // MemTotal leaves out what the kernel keeps for itself, which is System RAM as well.
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
        let total: u64 = meminfo.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(ledger.frames * 4 >= total, "{} frames, MemTotal {total} kB", ledger.frames);
        assert_eq!(ledger.bytes, 8 * ledger.frames);
        assert_eq!(host.memory.as_ref().map(Memory::frames).unwrap(), ledger.frames);
    }
    if host.tdx != Tdx::Enabled {
        assert!(!report.verdict.can_watch);
        assert!(report.verdict.problems.iter().all(|problem| !problem.help.is_empty()));
        let mut out = Vec::new();
        assert_eq!(write_to(&Args { json: true, btf: Vec::new() }, &mut out).unwrap(), exit::HOST);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
    }
    let json = serde_json::to_value(&report).unwrap();
    for key in ["verdict", "host", "btf", "plan"] {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert!(!json.to_string().contains("address\":"), "the report must not tell where the kernel lies");
}

/// What changed between the kernels is told where it changed, and nothing else is.
#[test]
fn several_kernels_are_compared() {
    let dirs: Vec<_> = ["6.17", "6.18", "6.19", "7.1", "7.3"].map(fixture).to_vec();
    let compared = Comparison::of(&dirs).unwrap();
    assert!(compared.can_watch());
    let variants = |name: &str| {
        let difference = compared.different.iter().find(|difference| difference.name == name).unwrap();
        difference.variants.iter().map(|variant| variant.kernels.len()).collect::<Vec<_>>()
    };
    assert_eq!(variants("tdh_mem_page_aug"), [4, 1], "a pfn and a pg_level in 7.3");
    assert_eq!(variants("tdx_sept_remove_private_spte"), [2, 2, 1], "a pfn, the mirror SPTE, both entries");
    assert!(compared.same.contains(&"tdh_mem_track") && compared.same.contains(&"mm_page_free"));
    let mut out = Vec::new();
    assert_eq!(write_to(&Args { json: false, btf: dirs }, &mut out).unwrap(), exit::OK);
    assert!(String::from_utf8(out).unwrap().contains("6.17 6.18 6.19 7.1"));
}
