//! The maps: the ledger, what it needs beside it, counters and rings.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use septwatch_common::{
    Td,
    config::{
        CHUNK, Control, Counters, MAX_ENTERED, MAX_GMEM_OPS, MAX_LET_GO, MAX_PROBED, MAX_TDS, MAX_WINDOWS,
        MAX_ZAPS, Shared,
    },
    react::{Cordon, Cordoned, CrashNote, Held, MAX_HELD, QUICK_RULES, QuickRule, TdRules},
    wire::{LetGo, SeamcallOk, ViolationEvent},
    zap::{Zap, ZapKey},
};

/// Lines of consecutive frames.
pub type Chunk = [u64; CHUNK];

/// The ledger: chunks by pfn / CHUNK, made when their first line opens. Userspace sets the number of entries from
/// the host's memory.
#[btf_map]
pub static LEDGER: HashMap<u64, Chunk, 1, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();
/// The chunk that a new one is copied from.
#[btf_map]
pub static EMPTY_CHUNK: Array<Chunk, 1> = Array::new();
/// The filter in front: a bit for each frame of the host's memory, set while its line is open. The release of a frame
/// without one goes no further.
#[btf_map]
pub static MARKS: Array<u64, 1> = Array::new();

/// TDs by index.
#[btf_map]
pub static TDS: Array<Td, { MAX_TDS as usize }> = Array::new();
/// Indexes by the frame of the TDR.
#[btf_map]
pub static TD_BY_TDR: HashMap<u64, u64, { MAX_TDS as usize }> = HashMap::new();
/// What is at hand of a TD: where it is, and its zap that a step was taken of last. KVM takes one zap of a TD after the
/// other, so that most begin and end here.
#[repr(C)]
pub struct Hand {
    /// Address of its `struct tdx_td`; 0 where it is not known.
    pub at: u64,
    /// TDs that had been numbered by then: the address may be another's since.
    pub numbered: u64,
    pub key: ZapKey,
    pub zap: Zap,
    /// Zaps of the TD in `ZAPS`.
    pub laid_by: u64,
}
#[btf_map]
pub static HANDS: Array<Hand, { MAX_TDS as usize }> = Array::new();
/// Other zaps of which something is known: failed ones, or of huge leaves whose frames have not all come back.
#[btf_map]
pub static ZAPS: HashMap<ZapKey, Zap, { MAX_ZAPS as usize }, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();
/// On each CPU, the index of the TD that was looked for last.
#[btf_map]
pub static LAST_TD: PerCpuArray<u64, 1> = PerCpuArray::new();
/// Open windows: frame, and when it was released.
#[btf_map]
pub static WINDOWS: HashMap<u64, u64, { MAX_WINDOWS as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// What threads are doing to a guest_memfd: the operation and the inode's number.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Doing {
    pub op: u64,
    pub inode: u64,
}
#[btf_map]
pub static GMEM_OPS: LruHashMap<u64, Doing, { MAX_GMEM_OPS as usize }> = LruHashMap::new();
/// How frames with open lines left their guest_memfd, until they are released.
#[btf_map]
pub static LET_GO: LruHashMap<u64, LetGo, { MAX_LET_GO as usize }> = LruHashMap::new();

#[btf_map]
pub static SHARED: Array<Shared, 1> = Array::new();
/// What userspace tells the programs while they run. It alone writes here: it can only replace the whole value.
#[btf_map]
pub static CONTROL: Array<Control, 1> = Array::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// Lifecycle and violations: these wake the reader at once.
#[btf_map]
pub static VITAL: RingBuf<ViolationEvent, { 1 << 22 }> = RingBuf::new();
/// Page records, for recordings: read on a timer.
#[btf_map]
pub static PAGES: RingBuf<SeamcallOk, { 1 << 22 }> = RingBuf::new();

/// A probed function that a thread is in.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Kept {
    pub args: [u64; 6],
    /// When it was entered; 0 where nobody asked for latencies.
    pub entered_ns: u64,
}
/// The probed functions that threads are in, where entry and return are probed apart; userspace leaves room for one where
/// they are not.
#[btf_map]
pub static CALLS: HashMap<u64, Kept, { MAX_PROBED as usize }> = HashMap::new();
/// The same of KVM's own functions, which call each other: by thread and point.
#[btf_map]
pub static POINT_CALLS: HashMap<[u64; 2], [u64; 6], { MAX_PROBED as usize }> = HashMap::new();

/// A function with fexit that a thread is in.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Entered {
    /// Address of the call's arguments on the thread's stack.
    pub frame: u64,
    pub entered_ns: u64,
}
/// The functions with fexit that threads are in. Userspace leaves room for one where nobody asked for latencies.
#[btf_map]
pub static ENTERED: HashMap<u64, Entered, { MAX_ENTERED as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// Rules that the programs follow.
#[btf_map]
pub static QUICK: Array<QuickRule, { QUICK_RULES as usize }> = Array::new();
/// By a TD's number: which of them it is chosen for.
#[btf_map]
pub static TD_RULES: HashMap<u64, TdRules, { MAX_TDS as usize }> = HashMap::new();
/// By a TD's number: those that are held.
#[btf_map]
pub static HELD: HashMap<u64, Held, { MAX_HELD as usize }> = HashMap::new();
/// Why the host is to go down.
#[btf_map]
pub static CRASH: Array<CrashNote, 1> = Array::new();
/// What `crash_kexec` may read as registers, `struct pt_regs`: nothing that it would need is known there.
#[btf_map]
pub static NO_REGISTERS: Array<[u64; 32], 1> = Array::new();
#[btf_map]
pub static CORDON: Array<Cordon, 1> = Array::new();
#[btf_map]
pub static CORDONED: Array<Cordoned, 1> = Array::new();

#[inline(always)]
pub fn counters() -> Option<*mut Counters> {
    COUNTERS.get_ptr_mut(0)
}

#[inline(always)]
pub fn shared() -> Option<*mut Shared> {
    SHARED.get_ptr_mut(0)
}

#[inline(always)]
pub fn control() -> Option<*const Control> {
    CONTROL.get_ptr(0)
}
