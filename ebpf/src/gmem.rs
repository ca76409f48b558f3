//! guest_memfd (virt/kvm/guest_memfd.c): which file, and which operation on it, gives a frame back, whether an
//! invalidation is under way, and what the host does to frames that a TD maps.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::bpf_get_current_pid_tgid,
    macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use septwatch_common::{
    Violation,
    config::NO_ARGUMENT,
    kvm::{GmemOp, Member, Point},
    tracker::{self, Store as _},
    wire::{Hook, LetGo},
};

use crate::{
    config::{self, word},
    emit,
    kvm::tdr_of,
    maps::{Doing, GMEM_OPS, LET_GO},
    point,
    point::At,
    store::{Maps, may_be_lent},
    task::{Task, now_ns},
};

/// include/uapi/linux/falloc.h
const FALLOC_FL_PUNCH_HOLE: u64 = 2;

/// `VM_FAULT_LOCKED` (include/linux/mm_types.h): the fault has its page.
const VM_FAULT_LOCKED: u64 = 0x200;

#[inline(always)]
fn begins(op: GmemOp, inode: u64) -> Option<()> {
    let inode = word(inode, Member::InodeIno)?;
    let doing = Doing { op: op as u64, inode };
    let _ = GMEM_OPS.insert(bpf_get_current_pid_tgid(), doing, u64::from(BPF_ANY));
    Some(())
}

/// Arguments: file, mode.
#[inline(always)]
fn allocating(call: &impl At) -> Option<()> {
    if call.arg(Point::Fallocate, 1)? & FALLOC_FL_PUNCH_HOLE == 0 {
        return None;
    }
    begins(GmemOp::Punch, word(call.arg(Point::Fallocate, 0)?, Member::FileInode)?)
}

#[inline(always)]
fn allocated(_: &impl At) -> Option<()> {
    let _ = GMEM_OPS.remove(bpf_get_current_pid_tgid());
    Some(())
}

/// The last file of an inode is closed. Its frames go after this function, when the inode is evicted: in the same task,
/// unless somebody else holds the inode.
#[inline(always)]
fn releasing(call: &impl At) -> Option<()> {
    begins(GmemOp::Close, call.arg(Point::Release, 0)?)
}

/// Argument: what binds the guest_memfd to a VM.
#[inline(always)]
fn mark_invalidation(call: &impl At, began_ns: u64) -> Option<()> {
    let kvm = word(call.arg(Point::Invalidate, 0)?, Member::GmemKvm)?;
    let td = Maps.td(tdr_of(kvm)?)?;
    Maps.record_at(td)?.invalidation_ns = began_ns;
    Some(())
}

#[inline(always)]
fn invalidating(call: &impl At) -> Option<()> {
    mark_invalidation(call, now_ns())
}

#[inline(always)]
fn invalidated(call: &impl At) -> Option<()> {
    mark_invalidation(call, 0)
}

#[inline(always)]
fn struck(call: &impl At, page: u64, violation: Violation, hook: Hook) {
    let pfn = config::pfn_of(page);
    let mut finding = MaybeUninit::uninit();
    if may_be_lent(pfn) && tracker::struck(&mut Maps, pfn, violation, &mut finding) {
        // SAFETY: it was found, and so written.
        emit::violation(call.ctx(), hook as u8, unsafe { finding.assume_init_ref() }, now_ns());
    }
}

/// Argument: folio. KVM has zapped it by now: a TD that still maps it will read what the memory no longer holds.
#[inline(always)]
fn failed(call: &impl At) -> Option<()> {
    struck(call, call.arg(Point::ErrorFolio, 0)?, Violation::PoisonedWhileMapped, Hook::ErrorFolio);
    Some(())
}

/// Argument: the fault, which names the page that is mapped into the process.
#[inline(always)]
fn faulted(call: &impl At) -> Option<()> {
    if call.ret() & VM_FAULT_LOCKED == 0 {
        return None;
    }
    let page = word(call.arg(Point::FaultUserMapping, 0)?, Member::VmFaultPage)?;
    struck(call, page, Violation::HostAccessWhileMapped, Hook::FaultUserMapping);
    Some(())
}

/// Argument: the folio that is moved away. guest_memfd refuses (-EINVAL) on every kernel known.
#[inline(always)]
fn migrated(call: &impl At) -> Option<()> {
    if call.ret() as u32 != 0 {
        return None;
    }
    struck(call, call.arg(Point::MigrateFolio, 0)?, Violation::MigratedWhileMapped, Hook::MigrateFolio);
    Some(())
}

/// A folio leaves its file (mm/filemap.c). It still knows file and index; when the allocator receives it, it does not.
#[inline(always)]
fn deleted(folio: u64) -> Option<()> {
    let pfn = config::pfn_of(folio);
    if !may_be_lent(pfn) {
        return None;
    }
    let slot = Maps.slot(pfn)?;
    if !Maps.read(slot).is_open() {
        return None;
    }
    let inode = word(word(word(folio, Member::FolioMapping)?, Member::MappingHost)?, Member::InodeIno)?;
    let task = Task::current();
    // Without the hooks at guest_memfd's own functions nothing tells what it was asked for.
    let blind = config::point_arg(Point::Fallocate, 0) == NO_ARGUMENT;
    let unknown = if blind { GmemOp::None } else { GmemOp::Evict };
    // SAFETY: the value is copied at once.
    let doing = unsafe { GMEM_OPS.get(bpf_get_current_pid_tgid()) }.filter(|doing| doing.inode == inode);
    let let_go = LetGo {
        time_ns: now_ns(),
        inode,
        index: word(folio, Member::FolioIndex)?,
        references: config::read_kernel(config::member(folio, Member::FolioRefcount)?)?,
        tid: task.tid,
        op: doing.map_or(unknown as u8, |doing| doing.op as u8),
        zero: [0; 7],
    };
    let _ = LET_GO.insert(pfn, let_go, u64::from(BPF_ANY));
    Some(())
}

#[raw_tracepoint]
pub fn mm_filemap_delete_from_page_cache(ctx: RawTracePointContext) -> i32 {
    empty_ends!();
    deleted(ctx.arg::<u64>(0));
    0
}

point!(Fallocate, entry allocating: allocating_fentry, allocating_kprobe);
point!(Fallocate, return allocated: allocated_fexit, allocated_entry, allocated_kretprobe);
point!(Release, entry releasing: releasing_fentry, releasing_kprobe);
point!(Invalidate, entry invalidating: invalidating_fentry, invalidating_kprobe);
point!(Invalidate, return invalidated: invalidated_fexit, invalidated_entry, invalidated_kretprobe);
point!(ErrorFolio, return failed: failed_fexit, failed_entry, failed_kretprobe);
point!(FaultUserMapping, return faulted: faulted_fexit, faulted_entry, faulted_kretprobe);
point!(MigrateFolio, return migrated: migrated_fexit, migrated_entry, migrated_kretprobe);
