//! The ledger on BPF maps.

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::generated::bpf_loop,
};
use septwatch_common::{
    Life, Line, PageKind, Suspect, Td,
    config::{CHUNK, MARKS_SHIFT, MAX_TDS, TD_PROBES},
    tracker::{Each, Store},
    zap::{Zap, ZapKey},
};

use crate::{
    atomic, config, emit, hand,
    maps::{Chunk, EMPTY_CHUNK, LAST_TD, LEDGER, MARKS, TD_BY_TDR, TDS, WINDOWS, control, counters, shared},
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

    /// The same, of one that is there now.
    #[inline(always)]
    fn living<'a>(&self, td: u64) -> Option<&'a mut Td> {
        let record = self.record_at(td as u16)?;
        let lives = record.life != Life::None as u8 && record.life != Life::Gone as u8;
        if lives { Some(record) } else { None }
    }
}

/// The frame of the TDR of the TD whose `struct tdx_td` is there. Of this CPU's last it is known without reading that.
#[inline(always)]
pub fn tdr_at(at: u64) -> Option<u64> {
    let last = LAST_TD.get_ptr(0)?;
    let numbered = numbered()?;
    // SAFETY: points into this CPU's value.
    let index = unsafe { *last };
    // A process' addresses are not unique.
    if !config::user_memory()
        && hand::is_of(index as u16, at, numbered)
        && let Some(record) = Maps.living(index)
    {
        return Some(record.tdr);
    }
    steps::find_tdr(at)
}

/// The TD that this CPU looked for last, if its TDR is this.
#[inline(always)]
fn last_with(tdr: u64) -> Option<u16> {
    // SAFETY: points into this CPU's value.
    let index = unsafe { *LAST_TD.get_ptr(0)? };
    let is_it = Maps.living(index).is_some_and(|record| record.tdr == tdr);
    if is_it { Some(index as u16) } else { None }
}

/// The same of another than the last, which it is from now on.
#[inline(always)]
pub fn find_tdr(at: u64) -> Option<u64> {
    // Before the page is read: whatever is numbered after that may have this address.
    let numbered = numbered()?;
    let tdr = read_tdr(at)?;
    if let Some(index) = Maps.td(tdr) {
        hand::belongs_to(index, at, numbered);
        // SAFETY: points into this CPU's value.
        unsafe { LAST_TD.get_ptr_mut(0)?.write(u64::from(index)) };
    }
    Some(tdr)
}

/// The same, read.
#[inline(always)]
pub fn read_tdr(at: u64) -> Option<u64> {
    let page = config::read_word(at.wrapping_add(config::tdr_page_offset()))?;
    // A VM whose TD is not made yet has none.
    if page == 0 { None } else { Some(config::pfn_of(page)) }
}

/// TDs that were numbered so far.
#[inline(always)]
fn numbered() -> Option<u64> {
    // SAFETY: points into a map value; volatile, because other CPUs write it.
    shared().map(|shared| unsafe { (&raw const (*shared).tds).read_volatile() })
}

/// The word of the filter in which a frame has its bit; `None` where it is beyond the filter.
#[inline(always)]
fn marks(pfn: u64) -> Option<*mut u64> {
    let word = pfn >> MARKS_SHIFT;
    if word > u64::from(u32::MAX) {
        return None;
    }
    MARKS.get_ptr_mut(word as u32)
}

/// The bit of a frame there.
#[inline(always)]
pub const fn mark_of(pfn: u64) -> u64 {
    1 << (pfn & ((1 << MARKS_SHIFT) - 1))
}

/// The bits of the frames around this one; all are set beyond the filter.
#[inline(always)]
pub fn marked(pfn: u64) -> u64 {
    // SAFETY: points into a map value; volatile, because other CPUs write it.
    marks(pfn).map_or(u64::MAX, |marks| unsafe { marks.read_volatile() })
}

/// Whether the line of this frame may be open.
#[inline(always)]
pub fn may_be_lent(pfn: u64) -> bool {
    marked(pfn) & mark_of(pfn) != 0
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
    fn mark(&mut self, pfn: u64, lent: bool) {
        let Some(marks) = marks(pfn) else { return };
        // SAFETY: points into a map value.
        unsafe { if lent { atomic::set(marks, mark_of(pfn)) } else { atomic::clear(marks, mark_of(pfn)) } };
    }

    #[inline(always)]
    fn is_marked(&mut self, pfn: u64) -> bool {
        may_be_lent(pfn)
    }

    #[inline(always)]
    fn premap_exempt(&self) -> bool {
        config::premap_exempt()
    }

    #[inline(always)]
    fn td(&mut self, tdr: u64) -> Option<u16> {
        if let Some(index) = last_with(tdr) {
            return Some(index);
        }
        // SAFETY: the value is copied at once; entries are preallocated.
        let index = *unsafe { TD_BY_TDR.get(tdr) }?;
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
    fn zap(&mut self, td: u16, key: ZapKey) -> Option<Zap> {
        hand::zap(td, key)
    }

    #[inline(always)]
    fn progress(&mut self, td: u16, key: ZapKey) -> u8 {
        hand::progress(td, key)
    }

    #[inline(always)]
    fn zap_or_new(&mut self, td: u16, key: ZapKey) -> Option<&mut Zap> {
        hand::take(td, key)
    }

    #[inline(always)]
    fn zap_of_closed(&mut self, td: u16, key: ZapKey) -> Option<&mut Zap> {
        hand::find(td, key)
    }

    #[inline(always)]
    fn drop_zap(&mut self, td: u16, key: ZapKey) {
        hand::drop(td, key);
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
        match last_with(tdr) {
            None => steps::td_of(tdr),
            known => known,
        }
    }

    #[inline(always)]
    fn lend_one(&mut self, td: u16, pfn: u64, new: Line) -> Line {
        steps::lend_one(td, pfn, new)
    }

    #[inline(always)]
    fn closed(&mut self, pfn: u64, line: Line, lent: bool) {
        steps::closed(pfn, line, lent);
    }

    #[inline(always)]
    fn doubts(&mut self, td: u16) -> Suspect {
        steps::doubts(td)
    }

    #[inline(always)]
    fn each<E: Each<Self>>(&mut self, frames: u64, each: &mut E) {
        // Nearly always; a loop costs more than its turn.
        if frames == 1 {
            return each.one(self, 0);
        }
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
    hand::empty(index as u16);
    // SAFETY: points into a map value, whose slot is ours.
    unsafe {
        (*record).life = Life::Created as u8;
        (*record).begun_ns = now_ns();
        (*record).cgroup = task::cgroup();
        (*record).zap_gfn = 0;
        (*record).zap_pfn = 0;
        (*record).zap_called = 0;
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
