//! VMs that run TDs: an iterator over the open files of all processes (kernel/bpf/task_iter.c). It holds a reference on each
//! file while the program runs, and so on its VM: nothing of a TD is torn down meanwhile.

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::{helpers::generated::bpf_probe_read_kernel, programs::RawTracePointContext};
use septwatch_common::{
    Level, Life, Line, PageKind, Suspect, Td,
    kvm::{Member, TDX_VM},
    tracker::Store as _,
    walk::{Found, MAX_FOUND, TD_INITIALIZED, TD_RUNNABLE},
};

use super::{Look, WALK_ASKED, WALK_FOUND};
use crate::{
    atomic,
    config::{self, member, read_kernel, word},
    emit, steps,
    store::{Maps, read_tdr},
    task::now_ns,
};

/// What has been found of a VM.
struct Vm {
    kvm: u64,
    tdr: u64,
    state: u32,
    hkid: u32,
    /// `struct task_struct *` of the process.
    task: u64,
}

/// The file of this turn: that of a VM that runs a TD.
#[inline(always)]
fn vm(ctx: u64) -> Option<Vm> {
    // `struct bpf_iter__task_file`: meta, task, fd, file. Read like any memory: loaded, they would be typed pointers, with
    // which nobody may compute.
    let file: u64 = read_kernel(ctx + 24)?;
    if file == 0 {
        return None;
    }
    let release = word(word(file, Member::FileFOp)?, Member::FopRelease)?;
    if release == 0 || release != config::kvm_vm_release() {
        return None;
    }
    let kvm = word(file, Member::FilePrivateData)?;
    let kind: u8 = read_kernel(member(kvm, Member::KvmVmType)?)?;
    if kind != TDX_VM {
        return None;
    }
    Some(Vm {
        kvm,
        tdr: read_tdr(member(kvm, Member::KvmTd)?).unwrap_or(0),
        state: read_kernel(member(kvm, Member::KvmTdxState)?)?,
        hkid: read_kernel(member(kvm, Member::KvmTdxHkid)?)?,
        task: read_kernel(ctx + 8)?,
    })
}

/// A TD that is not known gets a record, as of one that began before septwatch.
#[inline(always)]
fn enter(vm: &Vm) -> u16 {
    let td = step_walk_begin(vm.tdr, vm.hkid) as u16;
    let Some(record) = Maps.record_at(td) else { return 0 };
    who(vm.task, record);
    stage(vm.kvm, record);
    let life = record.life;
    emit::td_found(td, record, now_ns());
    if life < Life::KeyFreed as u8 {
        steps::lend_one(td, vm.tdr, Line::open(PageKind::Tdr, td, Level::L4K, 0).walked());
    }
    td
}

// As in crate::steps; 0: none.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_walk_td(tdr: u64) -> u32 {
    Maps.td(tdr).map_or(0, u32::from)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_walk_begin(tdr: u64, hkid: u32) -> u32 {
    Maps.td_begin(tdr, hkid as u16, Suspect::LATE.and(Suspect::WALK)).map_or(0, u32::from)
}

/// Whose it is: not ours, who look for it.
#[inline(always)]
fn who(task: u64, record: &mut Td) -> Option<()> {
    record.tgid = read_kernel(member(task, Member::TaskTgid)?)?;
    if let Some(comm) = member(task, Member::TaskComm) {
        // SAFETY: there is room for as much, and the helper checks the address.
        unsafe { bpf_probe_read_kernel((&raw mut record.comm).cast(), 16, comm as *const c_void) };
        record.comm[15] = 0;
    }
    record.cgroup = 0;
    let group = word(word(task, Member::TaskCgroups)?, Member::CssSetDflCgrp)?;
    record.cgroup = word(word(group, Member::CgroupKn)?, Member::KernfsId)?;
    Some(())
}

/// How far it has come. Its SEAMCALLs say so as well, and may do it now: nothing is taken back.
#[inline(always)]
fn stage(kvm: u64, record: &mut Td) -> Option<()> {
    let state: u32 = read_kernel(member(kvm, Member::KvmTdxState)?)?;
    if state >= TD_INITIALIZED && record.life == Life::Created as u8 {
        record.life = Life::Initialized as u8;
    }
    if state >= TD_RUNNABLE {
        record.finalized = 1;
        if record.life < Life::Finalized as u8 {
            record.life = Life::Finalized as u8;
        }
    }
    Some(())
}

#[inline(always)]
fn find(ctx: u64) -> Option<()> {
    let vm = vm(ctx)?;
    let asked = WALK_ASKED.get_ptr_mut(0)?;
    let mut td = step_walk_td(vm.tdr) as u16;
    // SAFETY: points into a map value; volatile, because userspace writes it.
    let enters = unsafe { (&raw const (*asked).enter).read_volatile() } != 0;
    // Before, what it gets is all seen; it has no key any more when it ends.
    let can_be = vm.tdr != 0 && vm.state >= TD_INITIALIZED && vm.hkid as i32 > 0;
    if td == 0 && enters && can_be {
        td = enter(&vm);
    }
    let (mut id, mut suspect) = (0, 0);
    if let Some(record) = Maps.record_at(td) {
        (id, suspect) = (record.id, record.suspect.0);
    }
    let bugged: u8 = read_kernel(member(vm.kvm, Member::KvmVmBugged)?)?;
    // SAFETY: points into a map value, and there is one walk at a time.
    let at = black_box(unsafe { atomic::fetch_add(&raw mut (*asked).found, 1) });
    let found = WALK_FOUND.get_ptr_mut(at.min(u64::from(MAX_FOUND)) as u32)?;
    let found_now = Found {
        kvm: vm.kvm,
        tdr: vm.tdr,
        id,
        td: u32::from(td),
        tgid: read_kernel(member(vm.task, Member::TaskTgid)?)?,
        state: vm.state,
        suspect,
        bugged: u32::from(bugged),
    };
    // SAFETY: as above.
    unsafe { found.write(found_now) };
    Some(())
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn walk_find(ctx: *mut c_void) -> i32 {
    let _ = find(ctx as u64);
    0
}

/// Arguments: `struct kvm *`, the TD, nothing, and reasons for doubt that go, with those that come above them. Answers
/// with 1 where the TD is there.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
extern "C" fn walk_mark(ctx: *mut c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let look = Look::new(ctx.arg(0), ctx.arg(1), 0);
    let reasons: u64 = ctx.arg(3);
    let Some(record) = look.record() else { return 0 };
    let _ = stage(look.kvm, record);
    // SAFETY: points into a map value. Others add reasons by writing the whole: what they read before, they write again,
    // and a reason that went can come back so; none is lost.
    unsafe {
        let suspect = (&raw mut record.suspect).cast::<u32>();
        atomic::clear(suspect, reasons as u32);
        atomic::set(suspect, (reasons >> 32) as u32);
    }
    emit::td_found(look.td, record, now_ns());
    1
}
