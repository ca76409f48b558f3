//! Control pages (arch/x86/kvm/vmx/tdx.c): TDR and TDCS of a TD, TDVPR and TDCX of its vCPUs.
//!
//! They are lent until the TD is torn down: reclaimed after TDH.MNG.KEY.FREEID only, by whose hook the record says so. That
//! is what makes sure here, instead of an entry that is read twice.

use core::{ffi::c_void, ptr::from_mut};

use aya_ebpf::{helpers::generated::bpf_loop, programs::RawTracePointContext};
use septwatch_common::{
    Level, Line, PageKind,
    kvm::Member,
    walk::{Ended, MAX_CONTROL, TD_INITIALIZED, VCPU_INITIALIZED},
};

use super::{Look, begin, enter, told};
use crate::config::{self, member, member_value, read_kernel, word};

/// Levels of an xarray of vCPUs.
const MAX_NODES: u32 = 4;

/// The page whose `struct page` is in the word at `at`.
#[inline(always)]
fn page(look: &Look, at: u64, kind: PageKind) -> Option<()> {
    let page: u64 = read_kernel(at)?;
    if page != 0 {
        let open = Line::open(kind, look.td, Level::L4K, 0).walked();
        enter::frame(look, config::pfn_of(page), open, || {
            look.record().is_some() && read_kernel::<u64>(at) == Some(page)
        });
    }
    Some(())
}

struct Pages<'a> {
    look: &'a Look,
    at: u64,
    tdcs: bool,
}

/// Callback of bpf_loop: 1 ends it.
unsafe extern "C" fn one(n: u64, pages: *mut c_void) -> i64 {
    // SAFETY: `pages` passes what outlives the loop.
    let pages = unsafe { &*pages.cast::<Pages<'_>>() };
    let kind = if pages.tdcs { PageKind::Tdcs } else { PageKind::Tdcx };
    i64::from(page(pages.look, pages.at.wrapping_add(n * 8), kind).is_none())
}

/// So many pages, whose `struct page`s are in an array.
#[inline(always)]
fn pages(look: &Look, at: u64, count: u32, tdcs: bool) -> Option<Ended> {
    if u64::from(count) > MAX_CONTROL || at == 0 {
        return None;
    }
    let mut pages = Pages { look, at, tdcs };
    // SAFETY: `one` has the signature that the helper asks for, and `pages` outlives the loop.
    let done = unsafe { bpf_loop(count, one as *mut c_void, from_mut(&mut pages).cast(), 0) };
    if done == i64::from(count) { Some(Ended::Done) } else { None }
}

/// Those of the TD itself.
#[inline(always)]
fn of_td(look: &Look) -> Option<Ended> {
    let state: u32 = read_kernel(member(look.kvm, Member::KvmTdxState)?)?;
    if state < TD_INITIALIZED {
        return Some(Ended::NotYet);
    }
    let td = member(look.kvm, Member::KvmTd)?;
    page(look, td.wrapping_add(config::tdr_page_offset()), PageKind::Tdr)?;
    let count: u32 = read_kernel(member(td, Member::TdTdcsCount)?)?;
    pages(look, word(td, Member::TdTdcsPages)?, count, true)
}

struct Node {
    index: u64,
    entry: u64,
    top: bool,
}

/// Callback of bpf_loop: one node of an xarray further; 1 ends it (include/linux/xarray.h, `xa_is_node`).
unsafe extern "C" fn into_node(_: u64, node: *mut c_void) -> i64 {
    // SAFETY: `vcpu` passes what outlives the loop.
    let node = unsafe { &mut *node.cast::<Node>() };
    if node.entry & 3 != 2 || node.entry <= 4096 {
        return 1;
    }
    node.entry = slot(node).unwrap_or(0);
    node.top = false;
    0
}

#[inline(always)]
fn slot(node: &Node) -> Option<u64> {
    let at = node.entry.wrapping_sub(2);
    let shift: u8 = read_kernel(member(at, Member::XaNodeShift)?)?;
    let slots = u64::from(member_value(Member::XaNodeCount)?);
    let index = node.index >> (shift & 63);
    if node.top && index >= slots {
        return None;
    }
    read_kernel(member(at, Member::XaNodeSlots)?.wrapping_add((index & slots.wrapping_sub(1)) * 8))
}

/// The vCPU of this index; 0: there is none.
#[inline(always)]
fn vcpu(kvm: u64, index: u64) -> Option<u64> {
    let mut node = Node { index, entry: word(kvm, Member::KvmVcpus)?, top: true };
    // SAFETY: `into_node` has the signature that the helper asks for, and `node` outlives the loop.
    unsafe { bpf_loop(MAX_NODES, into_node as *mut c_void, from_mut(&mut node).cast(), 0) };
    // A single one is the head itself.
    if node.top && index != 0 {
        return Some(0);
    }
    Some(if node.entry & 3 == 0 { node.entry } else { 0 })
}

#[inline(always)]
fn of_vcpu(look: &Look, index: u64) -> Option<Ended> {
    let vcpu = vcpu(look.kvm, index)?;
    if vcpu == 0 {
        return Some(Ended::Last);
    }
    let vp = member(vcpu, Member::VcpuVp)?;
    let tdvpr = vp.wrapping_add(config::tdvpr_page_offset());
    let state: u32 = read_kernel(member(vcpu, Member::VcpuState)?)?;
    if state != VCPU_INITIALIZED {
        // Before the first SEAMCALL of a vCPU there is nothing, and then all of them are hooked. In between is neither.
        return Some(if read_kernel::<u64>(tdvpr)? == 0 { Ended::Absent } else { Ended::NotYet });
    }
    page(look, tdvpr, PageKind::Tdvpr)?;
    let td = member(look.kvm, Member::KvmTd)?;
    let count: u32 = read_kernel(member(td, Member::TdTdcxCount)?)?;
    pages(look, word(vp, Member::VpTdcxPages)?, count, false)
}

/// Arguments: `struct kvm *`, the TD, the mode, and 0 for the TD itself, else a vCPU's index and 1. Answers with an
/// [`Ended`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
extern "C" fn walk_control(ctx: *mut c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let look = Look::new(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    let which: u64 = ctx.arg(3);
    if begin(which.wrapping_add(1)).is_none() || told().is_none() {
        return Ended::Torn as i32;
    }
    if look.record().is_none() {
        return Ended::Over as i32;
    }
    let ended = match which {
        0 => of_td(&look),
        n => of_vcpu(&look, n.wrapping_sub(1)),
    };
    ended.unwrap_or(Ended::Torn) as i32
}
