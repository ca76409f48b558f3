//! What each SEAMCALL, release and allocation means for the ledger.
//!
//! Written against a [`Store`], so that the eBPF programs run it on BPF maps, and a replay on ordinary memory. Frame
//! numbers wrap around: a replay takes them from a file that may be damaged. Rules about one frame are in
//! [`crate::line`], about one zap in [`crate::zap`]; here is only who meets whom.

mod frames;
mod kvm;
mod lend;
pub mod walk;
mod zaps;

use core::mem::MaybeUninit;

use crate::{
    Leaf, Level, Line, PageKind, Suspect, Td, Violation,
    td::Life,
    zap::{Answer, PFN_UNKNOWN, Zap, ZapKey},
};

pub use frames::{allocation, closed, doubts, release};
pub use kvm::{struck, vm_bugged, zap_called, zap_returned};
use lend::{leak, lend, map, reclaim};
pub use lend::{lend_one, td_of};
use zaps::{write_back, zap_step};

/// A SEAMCALL that returned.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Frame of the TD's TDR; [`PFN_UNKNOWN`] where the call names no TD.
    pub tdr: u64,
    /// The frame that the call names, else [`PFN_UNKNOWN`]. For TDH.VP.ADDCX the page that is added; for a
    /// TDH.MEM.PAGE.REMOVE that succeeded the first frame of the leaf, where the answer names it.
    pub pfn: u64,
    /// Frame of the vCPU's TDVPR, for TDH.VP.ADDCX.
    pub tdvpr: u64,
    /// Guest frame number.
    pub gfn: u64,
    /// Size of the leaf, or level of the S-EPT page.
    pub level: Level,
    /// Host key id, for TDH.MNG.CREATE.
    pub hkid: u16,
    /// What it answered.
    pub answer: Answer,
}

/// A violation, with all that the ledger knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// Which.
    pub violation: Violation,
    /// Why it may be wrong.
    pub suspect: Suspect,
    /// Index of the TD; 0 where none is known.
    pub td: u16,
    /// Index of the other TD of a double map; else 0.
    pub other: u16,
    /// The frame; [`PFN_UNKNOWN`] where the SEAMCALL names none.
    pub pfn: u64,
    /// The guest frame.
    pub gfn: u64,
    /// Its line just before, with what the zap under way told; [`Line::FREE`] where there is no frame.
    pub line: Line,
    /// The zap of its leaf, or, for other SEAMCALLs that fail, their answer in the `failed_…` fields.
    pub zap: Zap,
    /// When the allocator received the frame, in ns of CLOCK_MONOTONIC; 0 where it did not, or where that is unknown.
    pub released_ns: u64,
    /// When the TD's invalidation began that is under way; 0 where none is.
    pub invalidation_ns: u64,
    /// Frames concerned: 1, or what a torn-down TD leaves behind.
    pub frames: u64,
}

impl Finding {
    /// To be filled in.
    pub const NONE: Self = Self {
        violation: Violation::OutOfOrder,
        suspect: Suspect(0),
        td: 0,
        other: 0,
        pfn: PFN_UNKNOWN,
        gfn: 0,
        line: Line::FREE,
        zap: Zap {
            begun_ns: 0,
            failed_ns: 0,
            failed_status: 0,
            ext_err1: 0,
            ext_err2: 0,
            pfn: 0,
            epoch: 0,
            closed: 0,
            failed_leaf: 0,
            progress: 0,
            busy: 0,
            busy_leaf: 0,
            level: 0,
            zero: [0; 3],
        },
        released_ns: 0,
        invalidation_ns: 0,
        frames: 1,
    };
}

/// Where a finding is written, should there be one: nearly always there is none, and filling one in takes longer than
/// finding that out.
pub trait Out {
    /// A finding to be filled in.
    fn begin(&mut self) -> &mut Finding;
}

impl Out for Finding {
    #[inline(always)]
    fn begin(&mut self) -> &mut Finding {
        *self = Self::NONE;
        self
    }
}

impl Out for MaybeUninit<Finding> {
    #[inline(always)]
    fn begin(&mut self) -> &mut Finding {
        self.write(Finding::NONE)
    }
}

/// What is to be done to each of several frames.
pub trait Each<S> {
    /// To the `n`-th.
    fn one(&mut self, s: &mut S, n: u64);
}

/// Where the ledger lives.
///
/// An index of a TD is what [`Line::owner`] holds; an index that was given out stays valid while lines name it.
pub trait Store {
    /// Access to one line.
    type Slot: Copy;

    /// The line of a frame, where one could be open.
    fn slot(&mut self, pfn: u64) -> Option<Self::Slot>;
    /// The line of a frame, made if need be; `None` where the frame is outside the ledger.
    fn slot_or_new(&mut self, pfn: u64) -> Option<Self::Slot>;
    /// Reads a line.
    fn read(&mut self, slot: Self::Slot) -> Line;
    /// Replaces a line if it is still `old`.
    fn replace(&mut self, slot: Self::Slot, old: Line, new: Line) -> bool;
    /// Replaces a line whatever it is, and says what it was.
    fn swap(&mut self, slot: Self::Slot, new: Line) -> Line;
    /// The filter in front of the ledger: whether a frame may be lent. Told that it is before its line opens, and that it
    /// is not after it closed.
    fn mark(&mut self, pfn: u64, lent: bool);
    /// Whether it is told to be lent.
    fn is_marked(&mut self, pfn: u64) -> bool;

    /// Whether this kernel is exempt as told at [`crate::zap::TdNow::premap_exempt`].
    fn premap_exempt(&self) -> bool;
    /// Index of the TD with this TDR, where it is known.
    fn td(&mut self, tdr: u64) -> Option<u16>;
    /// Gives a TD an index and an empty record; `None` where the table is full.
    fn td_begin(&mut self, tdr: u64, hkid: u16, suspect: Suspect) -> Option<u16>;
    /// The record of a TD.
    fn record(&mut self, td: u16) -> Option<&mut Td>;
    /// A TD's frames of this kind become more (or fewer).
    fn count(&mut self, td: u16, kind: PageKind, more: bool);
    /// A TD reached a stage of its life. With [`Life::Gone`] its TDR is nobody's again.
    fn life(&mut self, td: u16, life: Life);

    // Zaps under way, by key; `td` is the index of the same TD. A store may tell one that is void from none or not.

    /// What is known of a zap.
    fn zap(&mut self, td: u16, key: ZapKey) -> Option<Zap>;
    /// How far it has come.
    fn progress(&mut self, td: u16, key: ZapKey) -> u8 {
        self.zap(td, key).map_or(0, |zap| zap.progress)
    }
    /// To take a step of it, made if need be; `None` where the table is full. KVM takes one zap of a TD after the other.
    fn zap_or_new(&mut self, td: u16, key: ZapKey) -> Option<&mut Zap>;
    /// To count a frame of it as closed, where it is known.
    fn zap_of_closed(&mut self, td: u16, key: ZapKey) -> Option<&mut Zap>;
    /// A zap is over.
    fn drop_zap(&mut self, td: u16, key: ZapKey);

    /// When the frame was released with its line open; 0 where unknown.
    fn window(&mut self, pfn: u64) -> u64;
    /// A window opens.
    fn open_window(&mut self, pfn: u64, now_ns: u64);
    /// A window closes.
    fn close_window(&mut self, pfn: u64);

    /// Reasons for doubt that concern every TD.
    fn suspect(&self) -> Suspect;
    /// A reason for doubt that concerns this TD from now on.
    fn doubt(&mut self, td: u16, reason: Suspect);

    // Steps of the tracker that are taken in many places. What they do is not for a store to choose, only how they are
    // called: the kernel's verifier would follow them anew at every place.

    /// [`td_of`]
    fn td_of(&mut self, tdr: u64) -> Option<u16>
    where
        Self: Sized,
    {
        td_of(self, tdr)
    }
    /// [`lend_one`]
    fn lend_one(&mut self, td: u16, pfn: u64, new: Line) -> Line
    where
        Self: Sized,
    {
        lend_one(self, td, pfn, new)
    }
    /// [`closed`]
    fn closed(&mut self, pfn: u64, line: Line, lent: bool)
    where
        Self: Sized,
    {
        closed(self, pfn, line, lent);
    }
    /// [`doubts`]
    fn doubts(&mut self, td: u16) -> Suspect
    where
        Self: Sized,
    {
        doubts(self, td)
    }

    /// Does something to each of `frames` frames. The verifier of the kernel follows no loop of this length: there it
    /// is a helper's.
    fn each<E: Each<Self>>(&mut self, frames: u64, each: &mut E)
    where
        Self: Sized,
    {
        for n in 0..frames {
            each.one(self, n);
        }
    }
}

/// Takes one SEAMCALL into the ledger. True: `out` holds a violation.
#[inline(always)]
pub fn seamcall<S: Store>(s: &mut S, leaf: Leaf, call: &Call, out: &mut impl Out) -> bool {
    let ok = call.answer.status.is_success();
    match leaf {
        Leaf::MngCreate => {
            ok && s.td_begin(call.tdr, call.hkid, Suspect::default()).is_some_and(|td| {
                s.life(td, Life::Created);
                lend(s, td, call.tdr, call, PageKind::Tdr, out)
            })
        }
        Leaf::MngAddcx => {
            ok && s.td_of(call.tdr).is_some_and(|td| lend(s, td, call.pfn, call, PageKind::Tdcs, out))
        }
        Leaf::VpCreate => {
            ok && s.td_of(call.tdr).is_some_and(|td| lend(s, td, call.tdvpr, call, PageKind::Tdvpr, out))
        }
        Leaf::VpAddcx => {
            // The call names the vCPU; its TDVPR's line names the TD.
            let Some(slot) = s.slot(call.tdvpr) else { return false };
            let td = s.read(slot).owner();
            ok && td != 0 && lend(s, td, call.pfn, call, PageKind::Tdcx, out)
        }
        Leaf::MemSeptAdd => map(s, call, leaf, PageKind::Sept, out),
        Leaf::MemPageAdd | Leaf::MemPageAug => map(s, call, leaf, PageKind::Leaf, out),
        Leaf::MemRangeBlock | Leaf::MemTrack | Leaf::MemPageRemove => zap_step(s, leaf, call, out),
        Leaf::PhymemPageWbinvd => write_back(s, call, out),
        Leaf::PhymemPageReclaim => reclaim(s, call, out),
        Leaf::MngInit => stage(s, ok, call, Life::Initialized),
        Leaf::MrFinalize => stage(s, ok, call, Life::Finalized),
        Leaf::MngVpflushdone => {
            // tdx.c, tdx_mmu_release_hkid(): FLUSHVP_NOT_DONE, too, is the end, if a silent one. KVM comes once, when it
            // destroys the VM.
            if ok {
                return false;
            }
            let td = s.td_of(call.tdr).unwrap_or(0);
            leak(s, td, Line::FREE, leaf, call, out)
        }
        Leaf::MngKeyFreeid => {
            if ok {
                return stage(s, true, call, Life::KeyFreed);
            }
            let td = s.td_of(call.tdr).unwrap_or(0);
            leak(s, td, Line::FREE, leaf, call, out)
        }
        _ => false,
    }
}

#[inline(always)]
fn stage<S: Store>(s: &mut S, ok: bool, call: &Call, life: Life) -> bool {
    if ok && let Some(td) = s.td_of(call.tdr) {
        s.life(td, life);
    }
    false
}
