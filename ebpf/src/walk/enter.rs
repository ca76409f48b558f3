//! One frame: entered into the ledger, or compared with it.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::bpf_loop;
use septwatch_common::{
    Line,
    tracker::{
        Store as _,
        walk::{self, Claim},
    },
    walk::Difference,
};

use super::{Look, differs, told};
use crate::{config, store::Maps};

/// The frame should have this line. `still` looks at its source a second time: where that says something else by now, an
/// event has come, and nothing is left to be done for this frame at this place. Its hooks have seen it.
#[inline(always)]
pub fn frame(look: &Look, pfn: u64, open: Line, still: impl Fn() -> bool) {
    let Some(told) = told() else { return };
    told.seen = told.seen.wrapping_add(1);
    if look.compare {
        let line = line_of(pfn);
        if line.is_lending(open) && line.is_in_state_of(open) {
            told.known = told.known.wrapping_add(1);
        } else if still() {
            differs(Difference { pfn, line: line.0, kvm: open.0, instead: 0 });
        }
        return;
    }
    match Claim::from_number(step_walk_claim(pfn, open.0)) {
        Claim::Made => {
            step_walk_wait();
            let says_so = still();
            if step_walk_settle(pfn, open.0, u32::from(says_so)) != 0 {
                told.entered = told.entered.wrapping_add(1);
            } else if says_so && still() {
                told.raced = told.raced.wrapping_add(1);
            }
        }
        Claim::Known => told.known = told.known.wrapping_add(1),
        Claim::Outside => told.outside = told.outside.wrapping_add(1),
        Claim::Raced if still() => told.raced = told.raced.wrapping_add(1),
        Claim::Other if still() => {
            differs(Difference { pfn, line: line_of(pfn).0, kvm: open.0, instead: 0 });
        }
        Claim::Raced | Claim::Other => {}
    }
}

/// What the ledger says of a frame.
#[inline(always)]
pub fn line_of(pfn: u64) -> Line {
    match Maps.slot(pfn) {
        Some(slot) => Maps.read(slot),
        None => Line::FREE,
    }
}

// As in crate::steps: each is verified once.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_walk_claim(pfn: u64, open: u64) -> u32 {
    walk::claim(&mut Maps, pfn, Line(open)) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_walk_settle(pfn: u64, open: u64, still: u32) -> u32 {
    u32::from(walk::settle(&mut Maps, pfn, Line(open), still != 0))
}

/// Does nothing, as often as a test asks for: what can come in between then does.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_walk_wait() -> u32 {
    let turns = config::walk_delay();
    if turns != 0 {
        // SAFETY: `turn` has the signature that the helper asks for, and takes nothing.
        unsafe { bpf_loop(turns, turn as *mut c_void, ptr::null_mut(), 0) };
    }
    0
}

unsafe extern "C" fn turn(_: u64, _: *mut c_void) -> i64 {
    0
}
