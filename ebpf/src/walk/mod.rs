//! TDs that ran before the hooks were attached: found by the open files of all processes, and walked step by step.
//!
//! Userspace runs each program when it wants to (BPF_PROG_TEST_RUN, and an iterator's file), one at a time. A run is one
//! `rcu_read_lock()`: what it reaches from the `struct kvm` of a TD that is not being torn down stays until the run ends.
//! KVM frees tables by `call_rcu()`, and waits for that with `rcu_barrier()` before the VM goes; both come after
//! TDH.MNG.KEY.FREEID, whose hook marks the TD's record. So each run looks at the record first, then at memory; even so it
//! takes what it reads for no more than what it proves to be.

// aya's macro for a raw tracepoint's program drops what that answers: these have none.

mod control;
mod enter;
mod find;
mod lines;
mod mirror;

use core::hint::black_box;

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use septwatch_common::{
    Td,
    walk::{Difference, Found, MAX_DIFFERENCES, MAX_FOUND, Mode, STEP, Told, is_there},
};

use crate::store::Maps;

/// What the programs are told beside their arguments, and how many files were found.
#[repr(C)]
pub struct Asked {
    /// 1: TDs that are found and not known are entered.
    pub enter: u64,
    pub found: u64,
}
#[btf_map]
static WALK_ASKED: Array<Asked, 1> = Array::new();
#[btf_map]
static WALK_FOUND: Array<Found, { MAX_FOUND as usize }> = Array::new();
#[btf_map]
static WALK_TOLD: Array<Told, 1> = Array::new();
#[btf_map]
static WALK_DIFFERENCES: Array<[Difference; MAX_DIFFERENCES], 1> = Array::new();
/// The table that is being gone through.
#[btf_map]
static WALK_TABLE: Array<[u64; STEP as usize], 1> = Array::new();

/// What a run looks at.
#[derive(Clone, Copy)]
pub struct Look {
    pub kvm: u64,
    pub td: u16,
    /// Its number: an index can be another TD's later.
    pub id: u32,
    pub compare: bool,
}

impl Look {
    /// From a program's arguments: the VM, the TD's index and above it its number, and the mode.
    #[inline(always)]
    fn new(kvm: u64, td: u64, mode: u64) -> Self {
        let compare = mode == Mode::Compare as u64;
        Self { kvm, td: td as u16, id: (td >> 32) as u32, compare }
    }

    /// The TD's record, as long as nothing of the TD has been given back.
    #[inline(always)]
    fn record(&self) -> Option<&'static mut Td> {
        Maps.record_at(self.td).filter(|record| is_there(record, self.id))
    }
}

#[inline(always)]
fn told() -> Option<&'static mut Told> {
    // SAFETY: points into a map value, and there is one walk at a time.
    WALK_TOLD.get_ptr_mut(0).map(|told| unsafe { &mut *told })
}

/// Begins a run.
#[inline(always)]
fn begin(next: u64) -> Option<()> {
    *told()? = Told { next, ..Told::default() };
    Some(())
}

/// Writes a difference down.
#[inline(always)]
fn differs(difference: Difference) {
    let (Some(told), Some(all)) = (told(), WALK_DIFFERENCES.get_ptr_mut(0)) else { return };
    // The verifier must see the comparison.
    let at = black_box(told.differ as usize);
    if at >= MAX_DIFFERENCES {
        return;
    }
    // SAFETY: within the array, as compared.
    unsafe { all.cast::<Difference>().add(at).write(difference) };
    told.differ = told.differ.wrapping_add(1);
}
