//! The ledger on BPF maps.

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::generated::bpf_loop,
};
use septwatch_common::{
    Life, Line, PageKind, Suspect, Td,
    config::{BLOCK_SHIFT, CHUNK, MAX_TDS, TD_PROBES},
    tracker::{Each, Store},
    zap::{Zap, ZapKey},
};

use crate::{
    atomic, config, emit,
    maps::{
        BLOCKS, Chunk, EMPTY_CHUNK, LAST_TD, LEDGER, TD_BY_TDR, TDS, WINDOWS, ZAPS, control, counters, shared,
    },
    steps,
    task::{self, Task, now_ns},
};

pub struct Maps;

impl Maps {
    /// The record of a TD, for as long as the program runs.
    #[inline(always)]
    pub fn record_at<'a>(&self, td: u16) -> Option<&'a mut Td> {
        if td == 0 {
            return None;
        }
        // SAFETY: points into a map value. Others write to it at the same time: single words, of which none is
        // relied on to agree with another.
        TDS.get_ptr_mut(u32::from(td)).map(|record| unsafe { &mut *record })
    }
}

/// How many lines are open in the block around a frame. Blocks share a count where the filter is smaller than the
/// range of frame numbers: that costs a look-up, never a miss.
#[inline(always)]
fn block(pfn: u64) -> Option<*mut u64> {
    BLOCKS.get_ptr_mut((pfn >> BLOCK_SHIFT & config::block_mask()) as u32)
}

/// Whether a line may be open around this frame.
#[inline(always)]
pub fn may_be_lent(pfn: u64) -> bool {
    // SAFETY: points into a map value; volatile, because other CPUs write it.
    block(pfn).is_some_and(|open| unsafe { open.read_volatile() } != 0)
}

#[inline(always)]
fn line_at(chunk: *mut Chunk, pfn: u64) -> Option<*mut u64> {
    // The verifier does not follow a modulus that the compiler made of a multiplication, and the compiler would drop
    // a comparison that it knows to hold: black_box keeps it.
    let line = black_box(pfn % CHUNK as u64);
    if line >= CHUNK as u64 {
        return None;
    }
    // SAFETY: within the chunk, as compared.
    Some(unsafe { chunk.cast::<u64>().add(line as usize) })
}

impl Store for Maps {
    type Slot = *mut u64;

    #[inline(always)]
    fn slot(&mut self, pfn: u64) -> Option<Self::Slot> {
        line_at(LEDGER.get_ptr_mut(pfn / CHUNK as u64)?, pfn)
    }

    #[inline(always)]
    fn slot_or_new(&mut self, pfn: u64) -> Option<Self::Slot> {
        let key = pfn / CHUNK as u64;
        if let Some(chunk) = LEDGER.get_ptr_mut(key) {
            return line_at(chunk, pfn);
        }
        // Two CPUs may come here at once: one of them finds the other's chunk below.
        let _ = LEDGER.insert(key, EMPTY_CHUNK.get(0)?, u64::from(BPF_NOEXIST));
        match LEDGER.get_ptr_mut(key) {
            Some(chunk) => line_at(chunk, pfn),
            None => {
                if let Some(counters) = counters() {
                    // SAFETY: points into this CPU's counters.
                    unsafe { atomic::fetch_add(&raw mut (*counters).outside, 1) };
                }
                None
            }
        }
    }

    #[inline(always)]
    fn read(&mut self, slot: Self::Slot) -> Line {
        // SAFETY: points into a map value; volatile, because other CPUs write it.
        Line(unsafe { slot.read_volatile() })
    }

    #[inline(always)]
    fn replace(&mut self, slot: Self::Slot, old: Line, new: Line) -> bool {
        // SAFETY: points into a map value.
        unsafe { atomic::replace(slot, old.0, new.0) }
    }

    #[inline(always)]
    fn swap(&mut self, slot: Self::Slot, new: Line) -> Line {
        // SAFETY: points into a map value.
        Line(unsafe { atomic::swap(slot, new.0) })
    }

    #[inline(always)]
    fn open_lines(&mut self, pfn: u64, more: bool) {
        if let Some(open) = block(pfn) {
            // SAFETY: points into a map value.
            unsafe { atomic::fetch_add(open, if more { 1 } else { u64::MAX }) };
        }
    }

    #[inline(always)]
    fn premap_exempt(&self) -> bool {
        config::premap_exempt()
    }

    #[inline(always)]
    fn td(&mut self, tdr: u64) -> Option<u16> {
        let last = LAST_TD.get_ptr_mut(0)?;
        // SAFETY: points into this CPU's value.
        let index = unsafe { last.read() };
        if let Some(record) = self.record_at(index as u16)
            && record.tdr == tdr
            && record.life != Life::None as u8
            && record.life != Life::Gone as u8
        {
            return Some(index as u16);
        }
        // SAFETY: the value is copied at once; entries are preallocated.
        let index = *unsafe { TD_BY_TDR.get(tdr) }?;
        // SAFETY: as above.
        unsafe { last.write(index) };
        Some(index as u16)
    }

    #[inline(always)]
    fn td_begin(&mut self, tdr: u64, hkid: u16, suspect: Suspect) -> Option<u16> {
        enter(tdr, hkid, suspect)
    }

    #[inline(always)]
    fn record(&mut self, td: u16) -> Option<&mut Td> {
        self.record_at(td)
    }

    #[inline(always)]
    fn count(&mut self, td: u16, kind: PageKind, more: bool) {
        if let Some(record) = self.record(td) {
            let frames = &raw mut record.frames[kind as usize];
            // SAFETY: points into a map value.
            unsafe { atomic::fetch_add(frames, if more { 1 } else { u64::MAX }) };
        }
    }

    #[inline(always)]
    fn life(&mut self, td: u16, life: Life) {
        steps::life(td, life);
    }

    #[inline(always)]
    fn zap(&mut self, key: ZapKey) -> Option<&mut Zap> {
        // SAFETY: points into a map value. An element that is dropped meanwhile may serve another zap: KVM's mmu_lock
        // keeps zaps of one leaf apart, so that this needs two bugs at once, and then costs a wrong reason.
        ZAPS.get_ptr_mut(key).map(|zap| unsafe { &mut *zap })
    }

    #[inline(always)]
    fn zap_or_new(&mut self, key: ZapKey) -> Option<&mut Zap> {
        if ZAPS.get_ptr_mut(key).is_none() {
            let _ = ZAPS.insert(key, Zap::default(), u64::from(BPF_NOEXIST));
        }
        self.zap(key)
    }

    #[inline(always)]
    fn drop_zap(&mut self, key: ZapKey) {
        let _ = ZAPS.remove(key);
    }

    #[inline(always)]
    fn window(&mut self, pfn: u64) -> u64 {
        // SAFETY: the value is copied at once.
        unsafe { WINDOWS.get(pfn) }.map_or(0, |released_ns| *released_ns)
    }

    #[inline(always)]
    fn open_window(&mut self, pfn: u64, now_ns: u64) {
        let _ = WINDOWS.insert(pfn, now_ns, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn close_window(&mut self, pfn: u64) {
        let _ = WINDOWS.remove(pfn);
    }

    #[inline(always)]
    fn suspect(&self) -> Suspect {
        // SAFETY: both point into map values; volatile, because others write them.
        let (ours, told) = unsafe {
            (
                shared().map_or(0, |shared| (&raw const (*shared).suspect).read_volatile()),
                control().map_or(0, |control| (&raw const (*control).suspect).read_volatile()),
            )
        };
        Suspect((ours | told) as u32)
    }

    #[inline(always)]
    fn doubt(&mut self, td: u16, reason: Suspect) {
        if let Some(record) = self.record(td) {
            record.suspect = record.suspect.and(reason);
        }
    }

    #[inline(always)]
    fn td_of(&mut self, tdr: u64) -> Option<u16> {
        steps::td_of(tdr)
    }

    #[inline(always)]
    fn lend_one(&mut self, td: u16, pfn: u64, new: Line) -> Line {
        steps::lend_one(td, pfn, new)
    }

    #[inline(always)]
    fn closed(&mut self, pfn: u64, line: Line) {
        steps::closed(pfn, line);
    }

    #[inline(always)]
    fn doubts(&mut self, td: u16) -> Suspect {
        steps::doubts(td)
    }

    #[inline(always)]
    fn each<E: Each<Self>>(&mut self, frames: u64, each: &mut E) {
        let callback = nth::<E> as *mut c_void;
        // SAFETY: `nth` has the signature that the helper asks for, and `each` outlives the loop.
        unsafe { bpf_loop(frames as u32, callback, core::ptr::from_mut(each).cast(), 0) };
    }
}

/// Callback of bpf_loop.
unsafe extern "C" fn nth<E: Each<Maps>>(n: u64, each: *mut c_void) -> i64 {
    // SAFETY: `Maps::each` passes an `E` that outlives the loop.
    unsafe { &mut *each.cast::<E>() }.one(&mut Maps, n);
    0
}

/// A TD reached this stage of its life.
#[inline(always)]
pub fn life(td: u16, life: u8) {
    let now_ns = now_ns();
    let Some(record) = Maps.record_at(td) else { return };
    record.life = life;
    if life == Life::Finalized as u8 {
        record.finalized = 1;
    }
    let tdr = record.tdr;
    emit::td_life(td, record, now_ns);
    if life == Life::Gone as u8 {
        let _ = TD_BY_TDR.remove(tdr);
    }
}

/// Looks for a slot for a TD.
struct Probe {
    tdr: u64,
    number: u64,
    /// Index of the slot that was found and is ours; 0: none yet.
    found: u64,
}

/// Callback of bpf_loop: a loop of the compiler's would be followed by the verifier turn by turn. 1 ends it.
unsafe extern "C" fn probe(n: u64, probe: *mut c_void) -> i64 {
    // SAFETY: `enter` passes a `Probe` that outlives the loop.
    let probe = unsafe { &mut *probe.cast::<Probe>() };
    let index = 1 + (probe.number + n) % u64::from(MAX_TDS - 1);
    let Some(record) = TDS.get_ptr_mut(index as u32) else { return 1 };
    // SAFETY: points into a map value; who replaces `tdr` has the slot.
    let ours = unsafe {
        let free = (*record).life == Life::None as u8
            || ((*record).life == Life::Gone as u8 && (*record).lent() == 0);
        let old = (*record).tdr;
        free && atomic::replace(&raw mut (*record).tdr, old, probe.tdr)
    };
    if ours {
        probe.found = index;
    }
    i64::from(ours)
}

/// Gives a TD a slot and a number.
#[inline(always)]
fn enter(tdr: u64, hkid: u16, suspect: Suspect) -> Option<u16> {
    let shared = shared()?;
    // SAFETY: points into a map value.
    let number = unsafe { atomic::fetch_add(&raw mut (*shared).tds, 1) };
    let mut slot = Probe { tdr, number, found: 0 };
    // SAFETY: `probe` has the signature that the helper asks for, and `slot` outlives the loop.
    unsafe { bpf_loop(TD_PROBES as u32, probe as *mut c_void, (&raw mut slot).cast(), 0) };
    let index = slot.found;
    if index == 0 {
        // SAFETY: points into a map value; a bit that is set twice stays set.
        unsafe { (*shared).suspect |= u64::from(Suspect::TDS_FULL.0) };
        return None;
    }
    let record = TDS.get_ptr_mut(index as u32)?;
    // SAFETY: points into a map value, whose slot is ours.
    unsafe {
        (*record).life = Life::Created as u8;
        (*record).begun_ns = now_ns();
        (*record).cgroup = task::cgroup();
        (*record).zap_gfn = 0;
        (*record).zap_pfn = 0;
        (*record).zap_called_ns = 0;
        (*record).invalidation_ns = 0;
        (*record).bugged_ns = 0;
        (*record).failed_ns = 0;
        (*record).failed_status = 0;
        (*record).failed_leaf = 0;
        (*record).frames = [0; 6];
        (*record).id = number as u32 + 1;
        (*record).epoch = 0;
        (*record).suspect = suspect;
        (*record).tgid = Task::current().tgid;
        (*record).hkid = hkid;
        (*record).finalized = 0;
        task::comm(&raw mut (*record).comm);
    }
    // Two vCPUs of a TD that is not known may come here at once: the second takes what the first entered.
    let late = !suspect.is_certain();
    let flags = if late { BPF_NOEXIST } else { BPF_ANY };
    if TD_BY_TDR.insert(tdr, index, u64::from(flags)).is_err() && late {
        // SAFETY: as above.
        unsafe { (*record).life = Life::None as u8 };
        return Maps.td(tdr);
    }
    Some(index as u16)
}
