//! KVM's TDX code (virt/kvm/kvm_main.c, arch/x86/kvm/vmx/tdx.c): a VM that is bugged, dead or destroyed, and the frame
//! of a zap before its SEAMCALLs.

use core::mem::MaybeUninit;

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use septwatch_common::{
    Level, Td,
    kvm::{Member, Point, REQ_VM_DEAD, SPTE_PRESENT, TDX_VM, VmStage, spte_to_pfn},
    tracker::{self, Store as _},
    wire::Hook,
};

use crate::{
    config, emit, point,
    point::At,
    store::{Maps, tdr_at},
    task::now_ns,
};

/// The frame of the TDR of the TD that a `struct kvm` runs; `None` for a VM of another type.
#[inline(always)]
pub fn tdr_of(kvm: u64) -> Option<u64> {
    let kind: u8 = config::read_kernel(config::member(kvm, Member::KvmVmType)?)?;
    if kind != TDX_VM {
        return None;
    }
    tdr_of_td(kvm)
}

/// The same where the VM runs a TD: in KVM's TDX code.
#[inline(always)]
fn tdr_of_td(kvm: u64) -> Option<u64> {
    tdr_at(config::member(kvm, Member::KvmTd)?)
}

#[inline(always)]
fn record_of<'a>(tdr: u64) -> Option<&'a mut Td> {
    let td = Maps.td(tdr)?;
    Maps.record_at(td)
}

/// The VM of a TD, where KVM gives it up: the request with which it kicks every vCPU out.
#[inline(always)]
fn given_up(call: &impl At) -> Option<u64> {
    // The number of the request is in the lowest byte, flags above.
    if call.arg(Point::MakeAllCpusRequest, 1)? & 0xff != REQ_VM_DEAD {
        return None;
    }
    call.arg(Point::MakeAllCpusRequest, 0)
}

/// `kvm_vm_bugged()` and `kvm_vm_dead()` are inlined everywhere; this is what both call, once they have set their flag.
#[inline(always)]
fn making_request(call: &impl At) -> Option<()> {
    let kvm = given_up(call)?;
    let tdr = tdr_of(kvm)?;
    let now_ns = now_ns();
    let bugged: u8 = config::read_kernel(config::member(kvm, Member::KvmVmBugged)?)?;
    if bugged == 0 {
        emit::vm_life(record_of(tdr)?, VmStage::Dead, now_ns);
        return Some(());
    }
    let mut finding = MaybeUninit::uninit();
    if tracker::vm_bugged(&mut Maps, tdr, now_ns, &mut finding) {
        // SAFETY: it was found, and so written.
        let finding = unsafe { finding.assume_init_ref() };
        emit::violation(call.ctx(), Hook::MakeAllCpusRequest as u8, finding, now_ns);
    }
    Some(())
}

/// It waits for the vCPUs (KVM_REQUEST_WAIT): when it returns, none is in the guest.
#[inline(always)]
fn made_request(call: &impl At) -> Option<()> {
    let tdr = tdr_of(given_up(call)?)?;
    emit::vm_life(record_of(tdr)?, VmStage::VcpusOut, now_ns());
    Some(())
}

#[inline(always)]
fn destroying(call: &impl At) -> Option<()> {
    let tdr = tdr_of(call.arg(Point::VmDestroy, 0)?)?;
    emit::vm_life(record_of(tdr)?, VmStage::Destroyed, now_ns());
    Some(())
}

/// The frame that KVM's zapping function is called for. Its arguments: the VM, gfn, the frame or the old entry of the
/// mirror page table, level.
#[inline(always)]
fn zaps(call: &impl At) -> Option<u64> {
    let what = call.arg(Point::Zap, 2)?;
    if config::zap_takes_pfn() {
        Some(what)
    } else if what & SPTE_PRESENT != 0 {
        Some(spte_to_pfn(what))
    } else {
        // The same function maps.
        None
    }
}

#[inline(always)]
fn zapping(call: &impl At) -> Option<()> {
    let pfn = zaps(call)?;
    let level = Level::from_pg_level(call.arg(Point::Zap, 3)? & 0xff)?;
    let tdr = tdr_of_td(call.arg(Point::Zap, 0)?)?;
    let gfn = call.arg(Point::Zap, 1)?;
    tracker::zap_called(&mut Maps, tdr, gfn, level, pfn);
    Some(())
}

#[inline(always)]
fn zapped(call: &impl At) -> Option<()> {
    zaps(call)?;
    let tdr = tdr_of_td(call.arg(Point::Zap, 0)?)?;
    let mut finding = MaybeUninit::uninit();
    if tracker::zap_returned(&mut Maps, tdr, now_ns, &mut finding) {
        // SAFETY: it was found, and so written.
        let finding = unsafe { finding.assume_init_ref() };
        emit::violation(call.ctx(), Hook::Zap as u8, finding, finding.zap.failed_ns);
    }
    Some(())
}

point!(MakeAllCpusRequest, entry making_request: making_request_fentry, making_request_kprobe);
point!(MakeAllCpusRequest, return made_request: made_request_fexit, made_request_entry, made_request_kretprobe);
point!(VmDestroy, entry destroying: destroying_fentry, destroying_kprobe);
point!(Zap, entry zapping: zapping_fentry, zapping_kprobe);
point!(Zap, return zapped: zapped_fexit, zapped_entry, zapped_kretprobe);
