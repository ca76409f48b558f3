//! The mirror page table of a TD (arch/x86/kvm/mmu/tdp_mmu.c): down from its root to the table of leaves that maps a guest
//! frame, and through that.
//!
//! Of a table, the way to the next one is the frame in its entry; the `struct page` of that frame leads to its `struct
//! kvm_mmu_page`, which says its level, what it maps, its address, and its S-EPT page. All of that has to fit.

use core::{ffi::c_void, ptr::from_mut};

use aya_ebpf::{
    helpers::generated::{bpf_loop, bpf_probe_read_kernel},
    programs::RawTracePointContext,
};
use septwatch_common::{
    Level, Line, PageKind,
    kvm::{Member, SPTE_LEAF, SPTE_PRESENT, spte_to_pfn},
    walk::{Ended, STEP, TD_RUNNABLE},
};

use super::{Look, WALK_TABLE, begin, enter, told};
use crate::config::{self, member, member_value, read_kernel, word};

/// Roots that are looked at to find that of the mirror. There are two, and one more for each that is about to go.
const MAX_ROOTS: u32 = 64;
/// Levels of a table.
const MAX_LEVELS: u32 = 5;
/// Bits of a guest frame number that a level takes.
const LEVEL_BITS: u64 = 9;
/// A frame number has no more bits.
const PFN_BITS: u64 = 40;

/// Guest frames that an entry of a table at this level maps.
#[inline(always)]
fn covers(level: u64) -> u64 {
    1 << (level.wrapping_sub(1).wrapping_mul(LEVEL_BITS) & 63)
}

/// A table of the mirror.
struct Table {
    /// Its address; 0: there is none. (Not an `Option`: of one that is none, the compiler copies what was never written.)
    at: u64,
    level: u64,
    /// The first guest frame that it maps.
    gfn: u64,
    /// Address of its S-EPT page; 0 for the root.
    sept: u64,
}

impl Table {
    const NONE: Self = Self { at: 0, level: 0, gfn: 0, sept: 0 };
}

/// Reads what a `struct kvm_mmu_page` says, if it is that of a valid table of a mirror.
#[inline(always)]
fn table(page: u64, table: &mut Table) -> Option<()> {
    let role: u32 = read_kernel(member(page, Member::MmuPageRole)?)?;
    let bit = |of| Some(role >> (member_value(of)? & 31) & 1);
    if bit(Member::RoleIsMirror)? == 0 || bit(Member::RoleInvalid)? != 0 {
        return None;
    }
    let level = u64::from(role >> (member_value(Member::RoleLevel)? & 31) & 15);
    let at = word(page, Member::MmuPageSpt)?;
    table.level = level;
    table.gfn = word(page, Member::MmuPageGfn)?;
    table.sept = word(page, Member::MmuPageExternalSpt)?;
    if at & 0xfff == 0 {
        table.at = at;
    }
    Some(())
}

struct Roots {
    head: u64,
    at: u64,
    root: Table,
}

/// Callback of bpf_loop: 1 ends it.
unsafe extern "C" fn next_root(_: u64, roots: *mut c_void) -> i64 {
    // SAFETY: `root` passes `Roots` that outlive the loop.
    let roots = unsafe { &mut *roots.cast::<Roots>() };
    // `struct list_head::next` is its first word.
    let Some(next) = read_kernel::<u64>(roots.at) else { return 1 };
    if next == roots.head || next == 0 {
        return 1;
    }
    roots.at = next;
    let Some(link) = member(0, Member::MmuPageLink) else { return 1 };
    let _ = table(next.wrapping_sub(link), &mut roots.root);
    i64::from(roots.root.at != 0)
}

/// The root of the mirror.
#[inline(always)]
fn root(kvm: u64) -> Table {
    let Some(head) = member(kvm, Member::KvmRoots) else { return Table::NONE };
    let mut roots = Roots { head, at: head, root: Table::NONE };
    // SAFETY: `next_root` has the signature that the helper asks for, and `roots` outlives the loop.
    unsafe { bpf_loop(MAX_ROOTS, next_root as *mut c_void, from_mut(&mut roots).cast(), 0) };
    if !matches!(roots.root.level, 4 | 5) {
        roots.root.at = 0;
    }
    roots.root
}

/// The way down to what maps a guest frame.
pub struct Descent {
    look: Look,
    gfn: u64,
    /// Address and level of the table that was reached.
    table: u64,
    pub level: u64,
    /// The entry there that maps the guest frame: its address, and what was read.
    pub at: u64,
    pub entry: u64,
    /// How it ended, an [`Ended`]; a number, for the verifier.
    pub ended: u32,
    /// Tables that begin at the guest frame are entered, or compared.
    enters: bool,
    /// Frame of the S-EPT page of the table that was reached last, and the level of the entry that leads to it.
    pub sept: u64,
    pub sept_level: u64,
    /// Down to the table whose entry has this level.
    bottom: u64,
}

/// An entry that maps something, and no table.
#[inline(always)]
fn is_leaf(entry: u64, level: u64) -> bool {
    level == 1 || entry & SPTE_LEAF != 0
}

/// Callback of bpf_loop: one table further; 1 ends it.
unsafe extern "C" fn down(_: u64, descent: *mut c_void) -> i64 {
    // SAFETY: `descend` passes where one is that outlives the loop.
    let descent = unsafe { &mut **descent.cast::<*mut Descent>() };
    descent.ended = match one_down(descent) {
        Some(Ended::NotYet) => return 0,
        Some(ended) => ended as u32,
        None => Ended::Torn as u32,
    };
    1
}

#[inline(always)]
fn one_down(descent: &mut Descent) -> Option<Ended> {
    let (gfn, level) = (descent.gfn, descent.level);
    let index = (gfn / covers(level)) & (STEP - 1);
    descent.at = descent.table.wrapping_add(index * 8);
    let entry: u64 = read_kernel(descent.at)?;
    descent.entry = entry;
    if entry & SPTE_PRESENT == 0 {
        return Some(Ended::Absent);
    }
    if is_leaf(entry, level) {
        return Some(Ended::Done);
    }
    let pfn = spte_to_pfn(entry);
    let mut next = Table::NONE;
    table(word(config::page_of(pfn), Member::PagePrivate)?, &mut next)?;
    let first = gfn & !covers(level).wrapping_sub(1);
    if next.at == 0 || next.level.wrapping_add(1) != level || next.gfn != first {
        return None;
    }
    // Both are in the kernel's direct map, where addresses differ as frames do.
    let sept = next.sept.wrapping_sub(next.at).wrapping_add(pfn << 12);
    if next.sept == 0 || sept & 0xfff != 0 || sept >> 12 >> PFN_BITS != 0 {
        return None;
    }
    descent.sept = sept >> 12;
    descent.sept_level = level;
    if descent.enters && first == gfn {
        let open = Line::open(PageKind::Sept, descent.look.td, Level::from_pg_level(level)?, gfn).walked();
        enter::frame(&descent.look, sept >> 12, open, || read_kernel::<u64>(descent.at) == Some(entry));
        told()?.tables += 1;
    }
    if next.level == descent.bottom {
        descent.table = next.at;
        descent.level = next.level;
        return Some(Ended::Done);
    }
    descent.table = next.at;
    descent.level = next.level;
    Some(Ended::NotYet)
}

impl Descent {
    /// Goes down from the root to what maps a guest frame: a leaf above the lowest level, or a table at the level `bottom`,
    /// of which the entry is not read.
    #[inline(always)]
    pub fn new(look: &Look, gfn: u64, enters: bool, bottom: u64) -> Self {
        let mut descent = Self {
            look: *look,
            gfn,
            table: 0,
            level: 0,
            at: 0,
            entry: 0,
            ended: Ended::Torn as u32,
            enters,
            sept: 0,
            sept_level: 0,
            bottom,
        };
        step_walk_descend(&raw mut descent);
        descent
    }

    /// The address of the table that was reached, where that is one of leaves.
    #[inline(always)]
    pub fn leaves(&self) -> Option<u64> {
        if self.level == 1 && self.bottom == 1 { Some(self.table) } else { None }
    }
}

// As in crate::steps: it is verified once for all that go down.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_walk_descend(descent: *mut Descent) -> u32 {
    // SAFETY: null or `Descent::new`'s.
    if let Some(descent) = unsafe { descent.as_mut() } {
        descend(descent);
    }
    0
}

#[inline(always)]
fn descend(descent: &mut Descent) {
    let root = root(descent.look.kvm);
    if root.at == 0 {
        descent.ended = Ended::NoMirror as u32;
        return;
    }
    (descent.table, descent.level) = (root.at, root.level);
    if descent.gfn >= covers(root.level.wrapping_add(1)) {
        descent.ended = Ended::Last as u32;
        return;
    }
    // The helper takes nothing but what is on the stack.
    let mut at = from_mut(descent);
    // SAFETY: `down` has the signature that the helper asks for, and what it gets outlives the loop.
    unsafe { bpf_loop(MAX_LEVELS, down as *mut c_void, from_mut(&mut at).cast(), 0) };
}

/// The leaves of a step: those of a table, or a part of one large leaf.
struct Leaves<'a> {
    look: &'a Look,
    gfn: u64,
    level: Level,
    /// Address of the first entry, and bytes from one to the next.
    at: u64,
    stride: u64,
    /// Of one large leaf: its entry, and how far into it the first frame is.
    entry: u64,
    into: u64,
}

/// Callback of bpf_loop.
unsafe extern "C" fn leaf(n: u64, leaves: *mut c_void) -> i64 {
    // SAFETY: `leaves` passes what outlives the loop.
    let leaves = unsafe { &*leaves.cast::<Leaves<'_>>() };
    let entry = if leaves.stride == 0 {
        leaves.entry
    } else {
        let Some(copy) = WALK_TABLE.get_ptr(0) else { return 1 };
        // SAFETY: within the table: the index is masked.
        unsafe { copy.cast::<u64>().add((n & (STEP - 1)) as usize).read() }
    };
    if entry & SPTE_PRESENT == 0 {
        return 0;
    }
    let (first, at) = (spte_to_pfn(entry), leaves.at.wrapping_add(n.wrapping_mul(leaves.stride)));
    let pfn = if leaves.stride == 0 { first.wrapping_add(leaves.into).wrapping_add(n) } else { first };
    let open = Line::open(PageKind::Leaf, leaves.look.td, leaves.level, leaves.gfn.wrapping_add(n)).walked();
    enter::frame(leaves.look, pfn, open, || {
        read_kernel::<u64>(at).is_some_and(|again| again & SPTE_PRESENT != 0 && spte_to_pfn(again) == first)
    });
    0
}

/// Goes through the 512 guest frames from `gfn` on, a multiple of that.
#[inline(always)]
fn step(look: &Look, gfn: u64) -> Option<Ended> {
    if look.record().is_none() {
        return Some(Ended::Over);
    }
    // Up to Linux 6.18 the mirror of a TD that is being built says more than is lent: pages are only counted.
    if config::premap_exempt() && read_kernel::<u32>(member(look.kvm, Member::KvmTdxState)?)? < TD_RUNNABLE {
        return Some(Ended::NotYet);
    }
    let descent = Descent::new(look, gfn, true, 1);
    let mut leaves = Leaves { look, gfn, level: Level::L4K, at: 0, stride: 8, entry: 0, into: 0 };
    match Ended::from_number(descent.ended) {
        Ended::Done => {}
        Ended::Absent => {
            let next = (gfn | covers(descent.level).wrapping_sub(1)).wrapping_add(1);
            told()?.next = next;
            return Some(Ended::Absent);
        }
        ended => return Some(ended),
    }
    told()?.next = gfn.wrapping_add(STEP);
    if let Some(table) = descent.leaves() {
        leaves.at = table;
        let copy = WALK_TABLE.get_ptr_mut(0)?;
        // SAFETY: the copy has room for a table, and the helper checks the address.
        let failed = unsafe { bpf_probe_read_kernel(copy.cast(), STEP as u32 * 8, table as *const c_void) };
        if failed != 0 {
            return Some(Ended::Torn);
        }
    } else {
        leaves.level = Level::from_pg_level(descent.level)?;
        (leaves.at, leaves.entry, leaves.stride) = (descent.at, descent.entry, 0);
        leaves.into = gfn & covers(descent.level).wrapping_sub(1);
    }
    // SAFETY: `leaf` has the signature that the helper asks for, and `leaves` outlives the loop.
    unsafe { bpf_loop(STEP as u32, leaf as *mut c_void, from_mut(&mut leaves).cast(), 0) };
    Some(Ended::Done)
}

/// Arguments: `struct kvm *`, the TD, the mode, the first guest frame. Answers with an [`Ended`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
extern "C" fn walk_mirror(ctx: *mut c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let look = Look::new(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    let gfn: u64 = ctx.arg(3);
    if begin(gfn).is_none() {
        return Ended::Torn as i32;
    }
    step(&look, gfn).unwrap_or(Ended::Torn) as i32
}
