//! The hook plan against BTF of real kernels: five TDX-enabled ones as fixtures, the running one, and fixtures
//! damaged at random.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;
use septwatch::{
    hooks::{
        btf::{Btf, BtfError, KernelBtf, SYSFS},
        host::{Allowed, Probe},
        plan::{Binding, PageToPfn, Plan, btf_names, plan},
        shape::{LevelUnit, PageUnit, Role},
        symbols::Symbols,
        table::HOOKS,
    },
    source::walk::{WalkError, possible},
};

const RELEASES: [&str; 5] = ["6.17", "6.18", "6.19", "7.1", "7.3"];

fn fixture(release: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/btf").join(release)
}

fn planned(release: &str, allowed: &Allowed) -> Plan {
    plan(&KernelBtf::read(&fixture(release), &btf_names()).unwrap(), None, allowed).unwrap()
}

/// Each line of the plan is the one that was reviewed.
#[test]
fn plans_are_those_reviewed() {
    for release in RELEASES {
        let golden = fs::read_to_string(fixture(release).join("plan.txt")).unwrap();
        let expected: Vec<_> = golden.lines().filter(|line| !line.starts_with('#')).collect();
        let found = planned(release, &Allowed::assumed()).to_string();
        for (number, (found, expected)) in found.lines().zip(&expected).enumerate() {
            assert_eq!(found, *expected, "Linux {release}, line {number} of the plan");
        }
        assert_eq!(found.lines().count(), expected.len(), "Linux {release}");
    }
}

/// The two changes that would corrupt the ledger if they were taken from a release number, asserted in code as well.
#[test]
fn units_follow_the_prototype() {
    for release in RELEASES {
        let plan = planned(release, &Allowed::assumed());
        let shape = |name: &str| plan.hook(name).unwrap().bound().unwrap().shape.clone();
        let aug = shape("tdh_mem_page_aug");
        let sept_add = shape("tdh_mem_sept_add");
        let (level, page) = match release {
            "7.3" => (LevelUnit::PgLevel, PageUnit::Pfn),
            _ => (LevelUnit::Tdx, PageUnit::StructPage),
        };
        assert_eq!((aug.level(), aug.page()), (Some((2, level)), Some((3, page))), "Linux {release}");
        assert_eq!(sept_add.page(), Some((3, PageUnit::StructPage)), "Linux {release}");
        assert_eq!(shape("tdh_mem_page_remove").index(Role::Page), None, "Linux {release}");
        assert_eq!(plan.missing_required().count(), 0, "Linux {release}");
    }
}

#[test]
fn bindings_follow_what_the_host_allows() {
    let refused = || Probe::Refused("no".to_owned());
    let binding = |allowed: &Allowed, name: &str| {
        planned("7.3", allowed).hook(name).unwrap().bound().map(|bound| bound.binding)
    };
    let mut allowed = Allowed::assumed();
    assert_eq!(binding(&allowed, "tdh_mem_track"), Some(Binding::Fexit));
    allowed.fexit = refused();
    assert_eq!(binding(&allowed, "tdh_mem_track"), Some(Binding::Kprobe));
    allowed.kprobe = refused();
    assert_eq!(binding(&allowed, "tdh_mem_track"), None);
    assert_eq!(binding(&allowed, "mm_page_free"), Some(Binding::RawTp));
    allowed.raw_tp = refused();
    assert_eq!(binding(&allowed, "mm_page_free"), Some(Binding::TpBtf));
    allowed.tp_btf = refused();
    assert_eq!(binding(&allowed, "mm_page_free"), None);
    let required = HOOKS.iter().filter(|hook| hook.need == septwatch::hooks::table::Need::Required).count();
    assert_eq!(planned("7.3", &allowed).missing_required().count(), required);
}

/// A kprobe needs the symbol; fexit does not ask for it.
#[test]
fn kprobes_need_the_symbol() {
    let btf = KernelBtf::read(&fixture("7.3"), &btf_names()).unwrap();
    let allowed = Allowed { fexit: Probe::Refused("no".to_owned()), ..Allowed::assumed() };
    let found = plan(&btf, Some(&Symbols::default()), &allowed).unwrap();
    let missing = found.missing_required().find(|hook| hook.name == "tdh_mem_track").unwrap();
    assert!(format!("{:?}", missing.state).contains("no such symbol"));
    assert!(matches!(found.page_to_pfn, PageToPfn::Calibrate { .. }));
}

#[test]
fn every_hook_says_what_is_lost() {
    let names: BTreeSet<_> = HOOKS.iter().map(|hook| hook.name).collect();
    assert_eq!(names.len(), HOOKS.len(), "names are unique");
    for hook in HOOKS {
        assert!(!hook.purpose.is_empty());
        assert!(
            hook.need == septwatch::hooks::table::Need::Useful || !hook.lost.is_empty(),
            "{} is required, so something is lost without it",
            hook.name
        );
    }
}

/// The running kernel, whichever it is: the tracepoints are on every kernel with BTF, and a hook without a function
/// is missing, not a failure.
#[test]
fn the_running_kernel_has_a_plan() {
    let btf = match KernelBtf::read(Path::new(SYSFS), &btf_names()) {
        Ok(btf) => btf,
        Err(BtfError::Read { file, source }) => {
            eprintln!("skipped: {}: {source}", file.display());
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let plan = plan(&btf, None, &Allowed::assumed()).unwrap();
    let shape = &plan.hook("mm_page_free").unwrap().bound().unwrap().shape;
    assert_eq!((shape.page(), shape.index(Role::Order)), (Some((0, PageUnit::StructPage)), Some(1)));
    assert!(plan.offsets.struct_page_size.is_some_and(|size| size >= 32 && size % 8 == 0));
    if !fs::read_to_string("/proc/kallsyms").unwrap_or_default().contains(" tdh_mem_page_remove\n") {
        let missing = plan.missing_required().find(|hook| hook.name == "tdh_mem_page_remove").unwrap();
        assert!(format!("{:?}", missing.state).contains("NotInBtf"));
    }
}

/// Reads three damaged blobs as one kernel; what matters is that it ends, without a panic, with a plan or an error.
fn survive(vmlinux: Vec<u8>, kvm: Vec<u8>, kvm_intel: Vec<u8>) {
    let names = btf_names();
    let Ok(vmlinux) = Btf::parse(Path::new("vmlinux"), vmlinux, None, &names) else { return };
    let vmlinux = Arc::new(vmlinux);
    let module =
        |name: &str, data| Some(Btf::parse(Path::new(name), data, Some(Arc::clone(&vmlinux)), &names));
    let (kvm, kvm_intel) = (module("kvm", kvm), module("kvm_intel", kvm_intel));
    let kernel = KernelBtf { dir: PathBuf::new(), vmlinux, kvm, kvm_intel };
    if let Ok(plan) = plan(&kernel, None, &Allowed::assumed()) {
        for bound in plan.hooks.iter().filter_map(|hook| hook.bound()) {
            assert!(bound.shape.args.values().all(|index| *index < 6), "{bound}");
        }
    }
}

/// Some bytes changed, and perhaps the end cut off.
fn damaged(original: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let len = original.len();
    let changes = prop::collection::vec((0..len, any::<u8>()), 0..12);
    (changes, prop_oneof![3 => Just(len), 1 => 0..len]).prop_map(move |(changes, len)| {
        let mut data = original.clone();
        for (at, byte) in changes {
            data[at] = byte;
        }
        data.truncate(len);
        data
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_btf_never_panics(
        (vmlinux, kvm, kvm_intel) in prop::sample::select(&RELEASES[..]).prop_flat_map(|release| {
            let read = |name| damaged(fs::read(fixture(release).join(name)).unwrap());
            (read("vmlinux.btf"), read("kvm.btf"), read("kvm_intel.btf"))
        })
    ) {
        survive(vmlinux, kvm, kvm_intel);
    }
}

/// What walking a TD needs is there on each kernel, and a kernel that lacks a member is refused with that member's name.
#[test]
fn a_kernel_without_a_member_cannot_be_walked_and_says_which() {
    for release in RELEASES {
        let plan = planned(release, &Allowed::assumed());
        assert_eq!(plan.offsets.missing_for_walk(), [""; 0], "Linux {release}");
        // Without symbols: which file is a VM is not known of a kernel that does not run.
        assert!(matches!(possible(&plan), Err(WalkError::NoRelease)), "Linux {release}");
    }
    let mut plan = planned("7.3", &Allowed::assumed());
    plan.targets.kvm_vm_release = Some(1);
    possible(&plan).unwrap();
    plan.offsets.kvm_mmu_page_external_spt = None;
    plan.offsets.role_is_mirror = None;
    let refused = possible(&plan).unwrap_err().to_string();
    assert_eq!(
        refused,
        "the types of this kernel have no kvm_mmu_page.external_spt, no kvm_mmu_page_role.is_mirror"
    );
    // Everything else is as before.
    assert_eq!(plan.missing_required().count(), 0);
}

/// The bits of a table's role are where this kernel has them: one of them moved.
#[test]
fn bits_follow_the_structure() {
    let bits = |release| {
        let offsets = planned(release, &Allowed::assumed()).offsets;
        (offsets.role_level, offsets.role_is_mirror, offsets.role_invalid)
    };
    assert_eq!(bits("7.1"), (Some(0), Some(19), Some(11)));
    assert_eq!(bits("7.3"), (Some(0), Some(19), Some(12)));
}
