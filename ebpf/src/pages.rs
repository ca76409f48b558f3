//! The page allocator's tracepoints: mm_page_free, mm_page_free_batched, mm_page_alloc (mm/page_alloc.c).
//!
//! Raw tracepoints, because their arguments are plain numbers: a `struct page *` from tp_btf is a typed pointer, from
//! which the verifier lets nobody compute a frame number.
//!
//! `mm_page_free` fires for every page that a host gives back. The filter in front of the ledger is all that a foreign
//! frame pays. `mm_page_free_batched` follows it for the same release: it sees what the kernel's recursion guard kept
//! from the first program.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{EbpfContext as _, macros::raw_tracepoint, programs::RawTracePointContext};
use septwatch_common::{
    config::MARKS_SHIFT,
    tracker::{Each, Store as _},
    wire::Hook,
};

use crate::{
    config, emit,
    maps::LET_GO,
    steps,
    store::{Maps, mark_of, marked, may_be_lent},
    task::now_ns,
};

struct Pages {
    ctx: *mut c_void,
    pfn: u64,
    hook: Hook,
}

#[inline(always)]
fn one(pages: &Pages, pfn: u64) {
    let Some(slot) = Maps.slot(pfn) else { return };
    if !Maps.read(slot).is_open() {
        return;
    }
    let now_ns = now_ns();
    emit::frame(pages.hook, pfn, now_ns);
    let mut finding = MaybeUninit::uninit();
    let found = match pages.hook {
        Hook::PageFree => steps::release(pfn, false, now_ns, &mut finding),
        Hook::PageFreeBatched => steps::release(pfn, true, now_ns, &mut finding),
        // Of this file's programs there is one more.
        _ => steps::allocation(pfn, now_ns, &mut finding),
    };
    if found {
        // SAFETY: it was found, and so written.
        emit::violation(pages.ctx, pages.hook as u8, unsafe { finding.assume_init_ref() }, now_ns);
        let _ = LET_GO.remove(pfn);
    }
}

impl Each<Maps> for Pages {
    #[inline(always)]
    fn one(&mut self, _: &mut Maps, n: u64) {
        let pfn = self.pfn + n;
        if may_be_lent(pfn) {
            one(self, pfn);
        }
    }
}

/// Whether one of 2^order frames may be lent. They are aligned: up to an order they lie in one word of the filter, above it
/// fill words.
#[inline(always)]
fn any(pfn: u64, order: u32) -> bool {
    if order > MARKS_SHIFT {
        let mut words = Words { pfn, any: false };
        Maps.each(1 << (order - MARKS_SHIFT), &mut words);
        return words.any;
    }
    let of_all = u64::MAX >> (64 - (1 << order));
    marked(pfn) & of_all.wrapping_mul(mark_of(pfn)) != 0
}

struct Words {
    pfn: u64,
    any: bool,
}

impl Each<Maps> for Words {
    #[inline(always)]
    fn one(&mut self, _: &mut Maps, n: u64) {
        self.any |= marked(self.pfn + (n << MARKS_SHIFT)) != 0;
    }
}

/// 2^order frames from the one of `page` on. `name` is for the log.
#[inline(always)]
fn all(ctx: &RawTracePointContext, page: u64, order: u32, hook: Hook, name: &'static str) {
    let mut pages = Pages { ctx: ctx.as_ptr(), pfn: config::pfn_of(page), hook };
    // Nearly every release ends here.
    if !any(pages.pfn, order & 31) {
        return;
    }
    // Not before: a busy host's releases would push everything else out of the log.
    debug!(ctx, "{} near lent frames", name);
    Maps.each(1 << (order & 31), &mut pages);
}

#[raw_tracepoint]
pub fn mm_page_free(ctx: RawTracePointContext) -> i32 {
    empty_ends!();
    all(&ctx, ctx.arg::<u64>(0), ctx.arg::<u32>(1), Hook::PageFree, "mm_page_free");
    0
}

#[raw_tracepoint]
pub fn mm_page_free_batched(ctx: RawTracePointContext) -> i32 {
    empty_ends!();
    all(&ctx, ctx.arg::<u64>(0), 0, Hook::PageFreeBatched, "mm_page_free_batched");
    0
}

#[raw_tracepoint]
pub fn mm_page_alloc(ctx: RawTracePointContext) -> i32 {
    empty_ends!();
    let page = ctx.arg::<u64>(0);
    // The tracepoint fires for failed allocations too, with no page.
    if page != 0 {
        all(&ctx, page, ctx.arg::<u32>(1), Hook::PageAlloc, "mm_page_alloc");
    }
    0
}
