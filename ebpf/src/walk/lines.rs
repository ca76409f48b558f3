//! The other way round: lines of the ledger that KVM's mirror page table should have, a chunk at a time.

use core::{ffi::c_void, ptr::from_mut};

use aya_ebpf::{helpers::generated::bpf_loop, programs::RawTracePointContext};
use septwatch_common::{
    Line, PageKind,
    config::CHUNK,
    kvm::{SPTE_PRESENT, spte_to_pfn},
    walk::{Difference, Ended, STEP},
};

use super::{Look, begin, differs, enter::line_of, mirror::Descent, told};
use crate::config::read_kernel;

struct Lines<'a> {
    look: &'a Look,
    /// Frame of the first line.
    pfn: u64,
    /// The table of leaves that was asked for last: its first guest frame, and its address. 0: none.
    gfn: u64,
    table: u64,
    torn: bool,
}

/// Callback of bpf_loop.
unsafe extern "C" fn one(n: u64, lines: *mut c_void) -> i64 {
    // SAFETY: `walk_lines` passes what outlives the loop.
    let lines = unsafe { &mut *lines.cast::<Lines<'_>>() };
    let pfn = lines.pfn.wrapping_add(n);
    let line = line_of(pfn);
    if !line.is_lent() || line.owner() != lines.look.td {
        return 0;
    }
    let instead = match line.kind() {
        PageKind::Leaf => leaf(lines, line, pfn),
        PageKind::Sept => sept(lines, line, pfn),
        // They are looked at from KVM's side.
        _ => return 0,
    };
    let Some(told) = told() else { return 1 };
    told.seen = told.seen.wrapping_add(1);
    match instead {
        None => lines.torn = true,
        Some(frame) if frame == pfn => told.known = told.known.wrapping_add(1),
        // An event has come in between.
        Some(_) if line_of(pfn) != line => {}
        Some(instead) => differs(Difference { pfn, line: line.0, kvm: 0, instead }),
    }
    0
}

/// The frame that the mirror has at the line's guest frame, at its level; 0: none. `pfn` where it has this one.
#[inline(always)]
fn leaf(lines: &mut Lines<'_>, line: Line, pfn: u64) -> Option<u64> {
    let first = line.gfn() & !(STEP - 1);
    if lines.table == 0 || lines.gfn != first {
        let descent = Descent::new(lines.look, first, false, 1);
        match Ended::from_number(descent.ended) {
            Ended::Done => {}
            Ended::Absent => return Some(0),
            _ => return None,
        }
        let Some(table) = descent.leaves() else {
            // A large leaf.
            let into = line.gfn() & line.level().frames().wrapping_sub(1);
            let frame = spte_to_pfn(descent.entry).wrapping_add(into);
            let is_same = frame == pfn && descent.level == line.level() as u64 + 1;
            return Some(if is_same { pfn } else { frame });
        };
        (lines.gfn, lines.table) = (first, table);
    }
    let entry: u64 = read_kernel(lines.table.wrapping_add((line.gfn() & (STEP - 1)) * 8))?;
    Some(if entry & SPTE_PRESENT == 0 { 0 } else { spte_to_pfn(entry) })
}

/// The same of an S-EPT page.
#[inline(always)]
fn sept(lines: &Lines<'_>, line: Line, pfn: u64) -> Option<u64> {
    // The table that it belongs to is one level below the entry that leads there.
    let bottom = line.level() as u64;
    let descent = Descent::new(lines.look, line.gfn(), false, bottom);
    match Ended::from_number(descent.ended) {
        Ended::Done if descent.sept_level == bottom.wrapping_add(1) => Some(descent.sept),
        Ended::Done | Ended::Absent => Some(0),
        _ => None,
    }
    .map(|frame| if frame == pfn { pfn } else { frame })
}

/// Arguments: `struct kvm *`, the TD, nothing, the key of the chunk. Answers with an [`Ended`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
extern "C" fn walk_lines(ctx: *mut c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let look = Look::new(ctx.arg(0), ctx.arg(1), 0);
    let key: u64 = ctx.arg(3);
    if begin(key.wrapping_add(1)).is_none() {
        return Ended::Torn as i32;
    }
    if look.record().is_none() {
        return Ended::Over as i32;
    }
    let mut lines = Lines { look: &look, pfn: key.wrapping_mul(CHUNK as u64), gfn: 0, table: 0, torn: false };
    // SAFETY: `one` has the signature that the helper asks for, and `lines` outlives the loop.
    unsafe { bpf_loop(CHUNK as u32, one as *mut c_void, from_mut(&mut lines).cast(), 0) };
    let ended = if lines.torn { Ended::Torn } else { Ended::Done };
    ended as i32
}
