//! The programs that find and walk TDs, on the running kernel.
#![expect(clippy::unwrap_used, reason = "inside of a test, a panic is its failure")]

use aya::Btf;
use septwatch::{
    hooks::load::Settings,
    source::{kernel::Kernel, walk::At},
};
use septwatch_common::{
    kvm::MEMBERS,
    walk::{Ended, Found, Mode},
};

fn settings() -> Settings {
    Settings {
        // No program can leave anything out for want of a member.
        members: [8; MEMBERS],
        kvm_vm_release: 1,
        ..Settings::detached(1 << 16, (1 << 20) - 1)
    }
}

#[test]
fn the_kernel_takes_the_programs() {
    let btf = Btf::from_sys_fs().unwrap();
    let mut kernel = Kernel::load(&settings(), Some(&btf), None).unwrap();
    kernel.load_walk(&btf).unwrap();
    let mut walker = kernel.walker().unwrap();
    assert_eq!(walker.find(true).unwrap(), []);
    for at in [At::Mirror(0), At::Control(0), At::Lines(0)] {
        let (ended, told, differences) = walker.step(&Found::default(), Mode::Compare, at).unwrap();
        assert_eq!((ended, told.seen, differences.len()), (Ended::Over, 0, 0), "there is no such TD: {at:?}");
    }
}
