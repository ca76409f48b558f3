//! The ledger's own code in a loop, to measure what looking up, opening and closing lines costs: nothing of it is written
//! again here. Nobody attaches these programs: BPF_PROG_TEST_RUN runs them, on frames that its arguments choose.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(missing_docs, reason = "the attribute of a program drops its documentation")]
#![expect(internal_features, reason = "the bpf target has no atomics but through core::intrinsics")]
#![expect(dead_code, reason = "modules are shared with the main object, which uses all of them")]

#[path = "../atomic.rs"]
mod atomic;
#[path = "../config.rs"]
mod config;
#[path = "../emit.rs"]
mod emit;
#[path = "../hand.rs"]
mod hand;
#[path = "../maps.rs"]
mod maps;
#[path = "../react.rs"]
mod react;
#[path = "../steps.rs"]
mod steps;
#[path = "../store.rs"]
mod store;
#[path = "../task.rs"]
mod task;

use core::marker::PhantomData;

use aya_ebpf::{
    btf_maps::PerCpuArray,
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use septwatch_common::{
    Leaf, Level, Line, PageKind, Status,
    tracker::{self, Call, Each, Finding, Store as _},
    zap::{Answer, PFN_UNKNOWN},
};
use store::Maps;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// For how many frames of the last run on this CPU the answer was yes.
#[btf_map]
static FOUND: PerCpuArray<u64, 1> = PerCpuArray::new();

/// log2 of the frames in one piece of memory; a hole of the same size follows each: 64 GiB.
const PIECE: u32 = 24;
/// Whose lines are opened.
const TD: u16 = 1;

/// What is done to each frame. Each has a loop of its own, so that none pays for a choice.
trait Does {
    fn to(maps: &mut Maps, pfn: u64) -> bool;
}

/// Nothing: what the loop costs by itself.
struct Nothing;

impl Does for Nothing {
    #[inline(always)]
    fn to(_: &mut Maps, pfn: u64) -> bool {
        pfn & 1 != 0
    }
}

/// It is asked whether its line may be open: all that most releases of a host do.
struct Filter;

impl Does for Filter {
    #[inline(always)]
    fn to(_: &mut Maps, pfn: u64) -> bool {
        store::may_be_lent(pfn)
    }
}

/// And its line is read, where one may be open.
struct Read;

impl Does for Read {
    #[inline(always)]
    fn to(maps: &mut Maps, pfn: u64) -> bool {
        store::may_be_lent(pfn) && maps.slot(pfn).is_some_and(|slot| maps.read(slot).is_open())
    }
}

/// Its line is opened, as for a guest's page.
struct Open;

impl Does for Open {
    #[inline(always)]
    fn to(_: &mut Maps, pfn: u64) -> bool {
        !steps::lend_one(TD, pfn, Line::open(PageKind::Leaf, TD, Level::L4K, pfn)).is_open()
    }
}

/// Its line is closed, as by RECLAIM.
struct Close;

impl Does for Close {
    #[inline(always)]
    fn to(maps: &mut Maps, pfn: u64) -> bool {
        let answer = Answer { status: Status(0), ext_err1: 0, ext_err2: 0, now_ns: 0 };
        let (tdr, tdvpr, gfn) = (PFN_UNKNOWN, PFN_UNKNOWN, PFN_UNKNOWN);
        let call = Call { tdr, pfn, tdvpr, gfn, level: Level::L4K, hkid: 0, answer };
        let mut finding = Finding::NONE;
        !tracker::seamcall(maps, Leaf::PhymemPageReclaim, &call, &mut finding)
    }
}

/// Frames, one after the other or in no order, of which something is counted.
struct Turn<D> {
    does: PhantomData<D>,
    /// State of the generator of random numbers; 0: one after the other.
    random: u64,
    /// The first frame, counted over all memory without the holes.
    first: u64,
    /// From one of the frames to the next.
    stride: u64,
    /// How many there are, fewer than 2^32.
    count: u64,
    /// Which of them is the first, where it is one after the other.
    next: u64,
    found: u64,
}

impl<D> Turn<D> {
    #[inline(always)]
    fn pfn(&mut self, n: u64) -> u64 {
        let nth = if self.random == 0 {
            // No more turns than frames.
            let nth = self.next + n;
            if nth < self.count { nth } else { nth - self.count }
        } else {
            // Marsaglia's xorshift, 13-7-17.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            ((self.random >> 32) * self.count) >> 32
        };
        let frame = self.first + nth * self.stride;
        frame + ((frame >> PIECE) << PIECE)
    }
}

impl<D: Does> Each<Maps> for Turn<D> {
    #[inline(always)]
    fn one(&mut self, maps: &mut Maps, n: u64) {
        let pfn = self.pfn(n);
        self.found += u64::from(D::to(maps, pfn));
    }
}

/// Arguments: turns, seed or 0, first frame, stride, frames, which of them is the first, 0. The verifier must not know the
/// last: it would follow the sum through every value.
#[inline(always)]
fn run<D: Does>(ctx: &RawTracePointContext) {
    let mut turn = Turn::<D> {
        does: PhantomData,
        random: ctx.arg(1),
        first: ctx.arg(2),
        stride: ctx.arg(3),
        count: ctx.arg(4),
        next: ctx.arg(5),
        found: ctx.arg(6),
    };
    Maps.each(ctx.arg(0), &mut turn);
    if let Some(found) = FOUND.get_ptr_mut(0) {
        // SAFETY: points into this CPU's value.
        unsafe { *found = turn.found };
    }
}

#[raw_tracepoint]
pub fn nothing(ctx: RawTracePointContext) -> i32 {
    run::<Nothing>(&ctx);
    0
}

#[raw_tracepoint]
pub fn filter(ctx: RawTracePointContext) -> i32 {
    run::<Filter>(&ctx);
    0
}

#[raw_tracepoint]
pub fn read(ctx: RawTracePointContext) -> i32 {
    run::<Read>(&ctx);
    0
}

#[raw_tracepoint]
pub fn open(ctx: RawTracePointContext) -> i32 {
    run::<Open>(&ctx);
    0
}

#[raw_tracepoint]
pub fn close(ctx: RawTracePointContext) -> i32 {
    run::<Close>(&ctx);
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
