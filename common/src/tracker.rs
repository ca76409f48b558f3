//! What each SEAMCALL, release and allocation means for the ledger.
//!
//! Written against a [`Store`], so that the eBPF programs run it on BPF maps, and a replay on ordinary memory. Rules
//! about one frame are in [`crate::line`], about one zap in [`crate::zap`]; here is only who meets whom.

use crate::{
    Leaf, Level, Line, Op, PageKind, State, Suspect, Td, Violation, apply,
    td::Life,
    zap::{Answer, PFN_UNKNOWN, TdNow, Zap, ZapKey},
};

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
        frames: 1,
    };
}

const FLUSHVP_NOT_DONE: u64 = 0x8000_0824_0000_0000;

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
    /// One line more (or less) is open around this frame. Told before a line opens, and after one closes.
    fn open_lines(&mut self, pfn: u64, more: bool);

    /// Whether this kernel is exempt as told at [`TdNow::premap_exempt`].
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

    /// A zap under way.
    fn zap(&mut self, key: ZapKey) -> Option<&mut Zap>;
    /// The same, made if need be; `None` where the table is full.
    fn zap_or_new(&mut self, key: ZapKey) -> Option<&mut Zap>;
    /// A zap is over.
    fn drop_zap(&mut self, key: ZapKey);

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
pub fn seamcall<S: Store>(s: &mut S, leaf: Leaf, call: &Call, out: &mut Finding) -> bool {
    let ok = call.answer.status.is_success();
    match leaf {
        Leaf::MngCreate => {
            ok && s.td_begin(call.tdr, call.hkid, Suspect::default()).is_some_and(|td| {
                s.life(td, Life::Created);
                lend(s, td, call.tdr, call, PageKind::Tdr, out)
            })
        }
        Leaf::MngAddcx => {
            ok && td_of(s, call).is_some_and(|td| lend(s, td, call.pfn, call, PageKind::Tdcs, out))
        }
        Leaf::VpCreate => {
            ok && td_of(s, call).is_some_and(|td| lend(s, td, call.tdvpr, call, PageKind::Tdvpr, out))
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
            // tdx.c, tdx_mmu_release_hkid(): vCPUs that are not flushed yet are no failure, KVM comes again.
            if ok || call.answer.status.0 == FLUSHVP_NOT_DONE {
                return false;
            }
            let td = td_of(s, call).unwrap_or(0);
            leak(s, td, leaf, call, out)
        }
        Leaf::MngKeyFreeid => {
            if ok {
                return stage(s, true, call, Life::KeyFreed);
            }
            let td = td_of(s, call).unwrap_or(0);
            leak(s, td, leaf, call, out)
        }
        _ => false,
    }
}

/// The TD that a call names. One that is not known began before septwatch.
#[inline(always)]
fn td_of<S: Store>(s: &mut S, call: &Call) -> Option<u16> {
    if let Some(td) = s.td(call.tdr) {
        return Some(td);
    }
    let td = s.td_begin(call.tdr, 0, Suspect::LATE)?;
    if let Some(record) = s.record(td) {
        // Whether it can run is not known: it most likely does, and TRACK is only asked for if so.
        record.finalized = 1;
    }
    s.life(td, Life::Finalized);
    // Of all that was lent to it before, the TDR is known: its RECLAIM tells that the TD is gone.
    let first = Line::open(PageKind::Tdr, td, Level::L4K, 0);
    Lend { td, pfn: call.tdr, first, found: false, number: 0, line: Line::FREE, at: 0 }.one(s, 0);
    Some(td)
}

#[inline(always)]
fn stage<S: Store>(s: &mut S, ok: bool, call: &Call, life: Life) -> bool {
    if ok && let Some(td) = td_of(s, call) {
        s.life(td, life);
    }
    false
}

/// ADD, AUG or SEPT.ADD returned.
#[inline(always)]
fn map<S: Store>(s: &mut S, call: &Call, leaf: Leaf, kind: PageKind, out: &mut Finding) -> bool {
    let Some(td) = td_of(s, call) else { return false };
    let status = call.answer.status;
    if status.is_busy() {
        // tdx.c, tdx_mem_page_aug() and others: -EBUSY, and the fault is taken again.
        return false;
    }
    if !status.is_success() {
        answer_of(leaf, call, out);
        return found(s, Violation::MapFailed, td, out);
    }
    if !matches!(kind, PageKind::Leaf) {
        return lend(s, td, call.pfn, call, kind, out);
    }
    // That the module maps something there says that the zap there is over.
    let key = key(s, td, call.gfn, call.level);
    if let Some(zap) = s.zap(key) {
        if zap.progress & Zap::REMOVED != 0 {
            let (pfn, level) = (zap.pfn, zap.level);
            part(s, td, key, pfn, level);
        }
        let violation = lend(s, td, call.pfn, call, kind, out);
        s.drop_zap(key);
        return violation;
    }
    lend(s, td, call.pfn, call, kind, out)
}

/// The frames of a removed leaf part with their zap: that they are removed is written into their lines.
#[inline(always)]
fn part<S: Store>(s: &mut S, td: u16, key: ZapKey, pfn: u64, level: u8) {
    if pfn != 0
        && let Some(level) = Level::from_tdx(u64::from(level))
    {
        let first = Line::open(PageKind::Leaf, td, level, key.gfn);
        s.each(level.frames(), &mut Part { pfn, first });
    }
}

struct Part {
    pfn: u64,
    /// The line of the first frame, as it was lent.
    first: Line,
}

impl<S: Store> Each<S> for Part {
    #[inline(always)]
    fn one(&mut self, s: &mut S, n: u64) {
        if let Some((slot, line)) = open_line(s, self.pfn + n)
            && line.is_lending(self.first.nth(n))
        {
            change(s, slot, 0, Op::Remove { ordered: true });
        }
    }
}

/// The module took a frame, or all frames of a leaf.
#[inline(always)]
fn lend<S: Store>(s: &mut S, td: u16, pfn: u64, call: &Call, kind: PageKind, out: &mut Finding) -> bool {
    let frames = if matches!(kind, PageKind::Leaf) { call.level.frames() } else { 1 };
    let first = Line::open(kind, td, call.level, call.gfn);
    let mut lend = Lend { td, pfn, first, found: false, number: 0, line: Line::FREE, at: 0 };
    s.each(frames, &mut lend);
    match Violation::from_number(lend.number) {
        Some(violation) if lend.found => {
            out.line = lend.line;
            out.pfn = pfn + lend.at;
            out.gfn = call.gfn + lend.at;
            out.other = lend.line.owner();
            out.frames = frames;
            found(s, violation, td, out)
        }
        _ => false,
    }
}

struct Lend {
    td: u16,
    pfn: u64,
    /// The line of the first frame.
    first: Line,
    /// Whether a frame had a violation; of the first such its number, the line before, and which frame it is. (No
    /// sum: the kernel's verifier would follow it through every value.)
    found: bool,
    number: u8,
    line: Line,
    at: u64,
}

impl<S: Store> Each<S> for Lend {
    #[inline(always)]
    fn one(&mut self, s: &mut S, n: u64) {
        let pfn = self.pfn + n;
        let Some(slot) = s.slot_or_new(pfn) else {
            s.doubt(self.td, Suspect::OUTSIDE);
            return;
        };
        s.open_lines(pfn, true);
        let new = self.first.nth(n);
        let old = s.read(slot);
        let progress = if old.is_open() { progress(s, old) } else { 0 };
        let (before, violation) = change(s, slot, progress, Op::Lend(new));
        if before.is_open() {
            closed(s, pfn, old);
        }
        s.count(self.td, new.kind(), true);
        if let Some(violation) = violation
            && !self.found
        {
            self.found = true;
            self.number = violation as u8;
            self.line = before;
            self.at = n;
        }
    }
}

/// BLOCK, TRACK or REMOVE returned: see [`crate::zap`] for why no frame is needed here.
#[inline(always)]
fn zap_step<S: Store>(s: &mut S, leaf: Leaf, call: &Call, out: &mut Finding) -> bool {
    let Some(td) = td_of(s, call) else { return false };
    let premap_exempt = s.premap_exempt();
    let Some(record) = s.record(td) else { return false };
    let now = TdNow { epoch: record.epoch, finalized: record.finalized != 0, premap_exempt };
    let gfn = if matches!(leaf, Leaf::MemTrack) {
        if call.answer.status.is_success() {
            record.epoch = record.epoch.wrapping_add(1);
            let key = ZapKey { gfn: record.zap_gfn, td: record.id, zero: 0 };
            if let Some(zap) = s.zap(key) {
                zap.busy = 0;
                if zap.is_void() {
                    s.drop_zap(key);
                }
            }
            return false;
        }
        record.zap_gfn
    } else {
        call.level.head(call.gfn)
    };
    if matches!(leaf, Leaf::MemRangeBlock) {
        record.zap_gfn = gfn;
    }
    let key = ZapKey { gfn, td: record.id, zero: 0 };
    let Some(zap) = s.zap_or_new(key) else {
        s.doubt(td, Suspect::ZAPS_FULL);
        return false;
    };
    let violation = zap.step(leaf, &call.answer, now);
    let named = matches!(leaf, Leaf::MemPageRemove) && call.pfn != PFN_UNKNOWN;
    if named {
        zap.pfn = call.pfn;
        zap.level = call.level as u8;
    }
    out.zap = *zap;
    out.pfn = call.pfn;
    if zap.is_void() {
        s.drop_zap(key);
    }
    if named && !is_at(s, call.pfn, td, gfn) {
        part(s, td, key, call.pfn, call.level as u8);
        s.drop_zap(key);
    }
    match violation {
        Some(violation) => {
            out.gfn = gfn;
            found(s, violation, td, out)
        }
        None => false,
    }
}

/// Whether the frame is lent to this TD in the leaf that begins at `gfn`.
#[inline(always)]
fn is_at<S: Store>(s: &mut S, pfn: u64, td: u16, gfn: u64) -> bool {
    let Some((_, line)) = open_line(s, pfn) else { return false };
    let in_sept = matches!(line.state(), State::Mapped | State::Blocked);
    in_sept && line.owner() == td && line.level().head(line.gfn()) == gfn
}

/// WBINVD returned: the frame's line names the TD and the gfn, and so the zap.
#[inline(always)]
fn write_back<S: Store>(s: &mut S, call: &Call, out: &mut Finding) -> bool {
    let ok = call.answer.status.is_success();
    out.pfn = call.pfn;
    let Some((slot, line)) = open_line(s, call.pfn) else {
        // A frame that was lent before septwatch came: only a refusal says something.
        if !ok {
            answer_of(Leaf::PhymemPageWbinvd, call, out);
        }
        return !ok && found(s, Violation::ZapFailed, 0, out);
    };
    let td = line.owner();
    out.gfn = line.gfn();
    out.line = line;
    let key = zap_key(s, line);
    if !ok {
        let Some(key) = key else {
            answer_of(Leaf::PhymemPageWbinvd, call, out);
            out.gfn = line.gfn();
            return found(s, Violation::ZapFailed, td, out);
        };
        let now = TdNow { epoch: 0, finalized: true, premap_exempt: false };
        let Some(zap) = s.zap_or_new(key) else {
            s.doubt(td, Suspect::ZAPS_FULL);
            return false;
        };
        let violation = zap.step(Leaf::PhymemPageWbinvd, &call.answer, now);
        out.zap = *zap;
        return violation.is_some_and(|violation| found(s, violation, td, out));
    }
    if let Some(key) = key
        && let Some(zap) = s.zap(key)
    {
        out.zap = *zap;
    }
    let (before, violation) = change(s, slot, out.zap.progress, Op::Flush);
    out.line = before;
    if let Some(violation) = violation {
        return found(s, violation, td, out);
    }
    // The cache lines of an S-EPT or control page may be written back while it is owned: it stays so.
    if matches!(before.state(), State::Removed) {
        closed(s, call.pfn, line);
    }
    false
}

/// RECLAIM returned. A reclaimed leaf (its TD's HKID is free already) counts as removed.
#[inline(always)]
fn reclaim<S: Store>(s: &mut S, call: &Call, out: &mut Finding) -> bool {
    out.pfn = call.pfn;
    let open = open_line(s, call.pfn);
    if !call.answer.status.is_success() {
        let td = open.map_or(0, |(_, line)| line.owner());
        out.line = open.map_or(Line::FREE, |(_, line)| line);
        return leak(s, td, Leaf::PhymemPageReclaim, call, out);
    }
    let Some((_, line)) = open else { return false };
    let frames = if matches!(line.kind(), PageKind::Leaf) { line.level().frames() } else { 1 };
    s.each(frames, &mut Reclaim { pfn: call.pfn });
    if !matches!(line.kind(), PageKind::Tdr) {
        return false;
    }
    let td = line.owner();
    let left = s.record(td).map_or(0, |record| record.lent());
    out.line = line;
    out.frames = left;
    let violation = left != 0 && found(s, Violation::TeardownLeak, td, out);
    s.life(td, Life::Gone);
    violation
}

struct Reclaim {
    pfn: u64,
}

impl<S: Store> Each<S> for Reclaim {
    #[inline(always)]
    fn one(&mut self, s: &mut S, n: u64) {
        if let Some((slot, _)) = open_line(s, self.pfn + n) {
            let (before, _) = change(s, slot, 0, Op::Reclaim);
            closed(s, self.pfn + n, before);
        }
    }
}

/// A step of a TD's end failed: what it still holds is lost to the host.
#[inline(always)]
fn leak<S: Store>(s: &mut S, td: u16, leaf: Leaf, call: &Call, out: &mut Finding) -> bool {
    answer_of(leaf, call, out);
    out.frames = s.record(td).map_or(1, |record| record.lent());
    found(s, Violation::TeardownLeak, td, out)
}

/// The allocator received a frame. True: `out` holds a violation.
#[inline(always)]
pub fn release<S: Store>(s: &mut S, pfn: u64, batched: bool, now_ns: u64, out: &mut Finding) -> bool {
    frame(s, pfn, Op::Free { batched }, now_ns, out)
}

/// The allocator handed a frame out. True: `out` holds a violation.
#[inline(always)]
pub fn allocation<S: Store>(s: &mut S, pfn: u64, now_ns: u64, out: &mut Finding) -> bool {
    frame(s, pfn, Op::Alloc, now_ns, out)
}

#[inline(always)]
fn frame<S: Store>(s: &mut S, pfn: u64, op: Op, now_ns: u64, out: &mut Finding) -> bool {
    let Some((slot, line)) = open_line(s, pfn) else { return false };
    let td = line.owner();
    if let Some(key) = zap_key(s, line)
        && let Some(zap) = s.zap(key)
    {
        out.zap = *zap;
    }
    let (before, violation) = change(s, slot, out.zap.progress, op);
    let Some(violation) = violation else { return false };
    out.line = before;
    out.pfn = pfn;
    out.gfn = line.gfn();
    if matches!(violation, Violation::ReusedWhileMapped) {
        out.released_ns = s.window(pfn);
        s.close_window(pfn);
    } else {
        out.released_ns = now_ns;
        if matches!(violation, Violation::FreedUnflushed) {
            closed(s, pfn, line);
        } else {
            s.open_window(pfn, now_ns);
        }
    }
    found(s, violation, td, out)
}

#[inline(always)]
fn open_line<S: Store>(s: &mut S, pfn: u64) -> Option<(S::Slot, Line)> {
    let slot = s.slot(pfn)?;
    let line = s.read(slot);
    if line.is_open() { Some((slot, line)) } else { None }
}

/// Applies `op` to a line that others may change at the same time. The line comes back as it was, with what the zap
/// of its leaf knows, by the progress of that. Only what `op` changes is written: the rest stays the zap's to say.
#[inline(always)]
fn change<S: Store>(s: &mut S, slot: S::Slot, progress: u8, op: Op) -> (Line, Option<Violation>) {
    // KVM's locks keep two SEAMCALLs for one frame apart; a release that a bug lets run beside one can lose the race
    // once, not again and again.
    const TRIES: u32 = 4;
    let mut before = Line::FREE;
    let mut violation = None;
    let mut tries = 0;
    while tries < TRIES {
        let old = s.read(slot);
        before = Zap::fold(progress, old);
        let (mut after, judged) = apply(before, op);
        if after.state() as u8 == before.state() as u8 {
            after = after.with_state(old.state());
        }
        violation = judged;
        if after.0 == old.0 || s.replace(slot, old, after) {
            break;
        }
        tries += 1;
    }
    (before, violation)
}

/// A line is closed, or lent anew; `line` is what was written there. A leaf of which every frame went is over, and so
/// is its zap.
#[inline(always)]
fn closed<S: Store>(s: &mut S, pfn: u64, line: Line) {
    s.open_lines(pfn, false);
    s.count(line.owner(), line.kind(), false);
    if line.is_released() {
        s.close_window(pfn);
    }
    let Some(key) = zap_key(s, line) else { return };
    let mut over = false;
    if let Some(zap) = s.zap(key) {
        zap.closed = zap.closed.wrapping_add(1);
        over = u64::from(zap.closed) >= line.level().frames();
    }
    if over {
        s.drop_zap(key);
    }
}

/// The zap of a line's leaf, where it can have one.
#[inline(always)]
fn zap_key<S: Store>(s: &mut S, line: Line) -> Option<ZapKey> {
    match line.state() {
        State::Mapped | State::Blocked => Some(key(s, line.owner(), line.gfn(), line.level())),
        State::Free | State::Removed | State::Owned => None,
    }
}

/// How far that has come.
#[inline(always)]
fn progress<S: Store>(s: &mut S, line: Line) -> u8 {
    let Some(key) = zap_key(s, line) else { return 0 };
    s.zap(key).map_or(0, |zap| zap.progress)
}

#[inline(always)]
fn key<S: Store>(s: &mut S, td: u16, gfn: u64, level: Level) -> ZapKey {
    let id = s.record(td).map_or(0, |record| record.id);
    ZapKey { gfn: level.head(gfn), td: id, zero: 0 }
}

#[inline(always)]
fn answer_of(leaf: Leaf, call: &Call, out: &mut Finding) {
    out.pfn = call.pfn;
    out.gfn = call.gfn;
    out.zap.failed_ns = call.answer.now_ns;
    out.zap.failed_status = call.answer.status.0;
    out.zap.ext_err1 = call.answer.ext_err1;
    out.zap.ext_err2 = call.answer.ext_err2;
    out.zap.failed_leaf = leaf as u8;
}

#[inline(always)]
fn found<S: Store>(s: &mut S, violation: Violation, td: u16, out: &mut Finding) -> bool {
    out.violation = violation;
    out.td = td;
    let of_td = s.record(td).map_or(Suspect(0), |record| record.suspect);
    out.suspect = s.suspect().and(of_td);
    true
}
