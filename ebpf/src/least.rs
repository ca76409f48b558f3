//! The least that could keep a ledger, for the object in which that is measured: what a map and a zap cannot do without,
//! instead of what the tracker does. The frame of a call, its line, the line anew, its bit in the filter; where a call names
//! no frame, the step is put down in its TD. Only success is told from all else. No order, no epoch, no level, no doubt,
//! nothing is counted, nothing is found.

use core::mem::offset_of;

use septwatch_common::{Leaf, Level, Line, PageKind, config::Shape, tracker::Store as _};

use crate::{
    maps::HANDS,
    point::At,
    seamcalls::{self, argument},
    store::{self, Maps},
};

/// Whether a leaf has such a step; the others are few.
pub const fn is_of(leaf: Leaf) -> bool {
    matches!(
        leaf,
        Leaf::MemPageAdd
            | Leaf::MemPageAug
            | Leaf::MemSeptAdd
            | Leaf::MemRangeBlock
            | Leaf::MemTrack
            | Leaf::MemPageRemove
            | Leaf::PhymemPageWbinvd
    )
}

#[inline(always)]
fn td(call: &impl At, leaf: Leaf) -> Option<u16> {
    Maps.td_of(store::tdr_at(argument(call, leaf, offset_of!(Shape, td))??)?)
}

#[inline(always)]
fn pfn(call: &impl At, leaf: Leaf) -> Option<u64> {
    Some(seamcalls::pfn(leaf, argument(call, leaf, offset_of!(Shape, page))??))
}

#[inline(always)]
pub fn step(leaf: Leaf, call: &impl At) -> Option<()> {
    if call.ret() != 0 {
        return None;
    }
    match leaf {
        Leaf::MemPageAdd | Leaf::MemPageAug | Leaf::MemSeptAdd => {
            let (td, pfn) = (td(call, leaf)?, pfn(call, leaf)?);
            let gfn = argument(call, leaf, offset_of!(Shape, gpa))?? >> 12;
            let slot = Maps.slot_or_new(pfn)?;
            Maps.mark(pfn, true);
            Maps.swap(slot, Line::open(PageKind::Leaf, td, Level::L4K, gfn));
        }
        Leaf::PhymemPageWbinvd => {
            let pfn = pfn(call, leaf)?;
            let slot = Maps.slot(pfn)?;
            Maps.swap(slot, Line::FREE);
            Maps.mark(pfn, false);
        }
        _ => {
            let hand = HANDS.get_ptr_mut(u32::from(td(call, leaf)?))?;
            // SAFETY: points into a map value.
            unsafe { (*hand).zap.progress = leaf as u8 };
        }
    }
    Some(())
}
