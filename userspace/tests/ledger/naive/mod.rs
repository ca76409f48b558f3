//! The ledger's rules once more, in the most obvious way: every frame has all its facts in the clear, the S-EPT is a
//! map from guest frame to frames, and a step of a zap changes the frames that it concerns at once. Shares no code
//! with the ledger but its words.

mod zaps;

use std::collections::{BTreeMap, BTreeSet};

use septwatch_common::{Leaf, Level, Life, PageKind, State, Violation, tracker::Call};

/// A TD's number, and the first gfn of a leaf.
pub type LeafOf = (u32, u64);

/// A frame that the TDX module has.
#[derive(Clone, Debug)]
pub struct Lent {
    pub td: u32,
    pub kind: PageKind,
    pub gfn: u64,
    pub level: Level,
    pub blocked: bool,
    pub removed: bool,
    /// Its guest frame was mapped again: nothing that happens there concerns it any more.
    pub replaced: bool,
    pub released: bool,
    pub reused: bool,
}

impl Lent {
    fn leaf(&self) -> Option<LeafOf> {
        (self.kind == PageKind::Leaf && !self.replaced).then(|| (self.td, head(self.gfn, self.level)))
    }

    pub fn state(&self) -> State {
        match self.kind {
            PageKind::Leaf if self.removed => State::Removed,
            PageKind::Leaf if self.blocked => State::Blocked,
            PageKind::Leaf => State::Mapped,
            _ => State::Owned,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct NaiveTd {
    pub tdr: u64,
    pub life: Option<Life>,
    pub finalized: bool,
    pub late: bool,
    /// How often TRACK succeeded.
    pub tracked: u32,
    /// Leaf of the last BLOCK.
    pub blocked_last: u64,
}

/// What was tried at one leaf.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    /// `tracked` of the TD when BLOCK succeeded.
    pub blocked_at: Option<u32>,
    pub removed: bool,
    /// The frame that REMOVE said, and the size of its leaf.
    pub named: Option<(u64, Level)>,
    pub failed: Option<(Leaf, u64)>,
    /// Frames of the leaf that are not lent any more.
    pub closed: u64,
    busy: Option<(Leaf, u32)>,
}

/// What the ledger has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub violation: Violation,
    pub pfn: u64,
    pub gfn: u64,
    pub td: Option<u32>,
    pub other: Option<u32>,
    pub released_ns: u64,
    pub frames: u64,
    pub suspect: bool,
    /// Step and status of the failure behind it.
    pub failed: Option<(Leaf, u64)>,
}

#[derive(Clone, Debug, Default)]
pub struct Naive {
    pub premap_exempt: bool,
    pub frames: BTreeMap<u64, Lent>,
    pub leaves: BTreeMap<LeafOf, BTreeSet<u64>>,
    pub tds: BTreeMap<u32, NaiveTd>,
    pub by_tdr: BTreeMap<u64, u32>,
    pub attempts: BTreeMap<LeafOf, Attempt>,
    pub windows: BTreeMap<u64, u64>,
}

pub fn frames_of(level: Level) -> u64 {
    match level {
        Level::L4K => 1,
        Level::L2M => 512,
        Level::L1G => 512 * 512,
        Level::L512G | Level::L256T => unreachable!("no leaf is so large"),
    }
}

pub fn head(gfn: u64, level: Level) -> u64 {
    gfn / frames_of(level) * frames_of(level)
}

fn is_busy(status: u64) -> bool {
    status >> 32 == 0x8000_0200
}

impl Naive {
    pub fn lent_to(&self, td: u32) -> u64 {
        self.frames.values().filter(|lent| lent.td == td).count() as u64
    }

    /// The frames at a leaf.
    pub fn at(&self, leaf: LeafOf) -> Vec<u64> {
        self.leaves.get(&leaf).map_or_else(Vec::new, |frames| frames.iter().copied().collect())
    }

    fn says(&self, violation: Violation, td: Option<u32>, pfn: u64, gfn: u64) -> Expected {
        // Without a TD the frame is in no ledger, which so is known not to be whole.
        let suspect = td.is_none_or(|td| self.tds[&td].late);
        Expected { violation, pfn, gfn, td, other: None, released_ns: 0, frames: 1, suspect, failed: None }
    }

    fn begin(&mut self, tdr: u64, late: bool) -> u32 {
        let number = self.tds.len() as u32 + 1;
        let life = if late { Life::Finalized } else { Life::Created };
        let td = NaiveTd { tdr, life: Some(life), finalized: late, late, ..NaiveTd::default() };
        self.tds.insert(number, td);
        self.by_tdr.insert(tdr, number);
        number
    }

    /// Who is named by a TDR that nobody created began before us; its TDR is lent.
    fn td(&mut self, tdr: u64) -> u32 {
        if let Some(td) = self.by_tdr.get(&tdr) {
            return *td;
        }
        let td = self.begin(tdr, true);
        self.close(tdr);
        self.open(td, tdr, PageKind::Tdr, 0, Level::L4K);
        td
    }

    fn open(&mut self, td: u32, pfn: u64, kind: PageKind, gfn: u64, level: Level) {
        let lent = Lent {
            td,
            kind,
            gfn,
            level,
            blocked: false,
            removed: false,
            replaced: false,
            released: false,
            reused: false,
        };
        if let Some(leaf) = lent.leaf() {
            self.leaves.entry(leaf).or_default().insert(pfn);
        }
        self.frames.insert(pfn, lent);
    }

    /// The frame is not lent any more. A leaf of n frames of which n are closed is over, and so is its zap.
    fn close(&mut self, pfn: u64) -> Option<Lent> {
        let lent = self.frames.remove(&pfn)?;
        self.windows.remove(&pfn);
        let Some(leaf) = lent.leaf() else { return Some(lent) };
        if let Some(frames) = self.leaves.get_mut(&leaf) {
            frames.remove(&pfn);
        }
        if let Some(attempt) = self.attempts.get_mut(&leaf) {
            attempt.closed += 1;
            if attempt.closed >= frames_of(lent.level) {
                self.forget(leaf);
            }
        }
        Some(lent)
    }

    /// Nothing is known any more of zaps at a leaf: what is still lent there counts as mapped.
    fn forget(&mut self, leaf: LeafOf) {
        self.attempts.remove(&leaf);
        for pfn in self.at(leaf) {
            let lent = self.frames.get_mut(&pfn).unwrap();
            (lent.blocked, lent.removed) = (false, false);
        }
    }

    /// Removed frames that REMOVE named leave the leaf: what comes there later is not theirs.
    fn replace(&mut self, leaf: LeafOf) {
        let Some((named, level)) = self.attempts.get(&leaf).and_then(|attempt| attempt.named) else { return };
        for pfn in self.at(leaf) {
            let lent = self.frames.get_mut(&pfn).unwrap();
            if lent.removed && lent.level == level && pfn.wrapping_sub(named) == lent.gfn - leaf.1 {
                lent.replaced = true;
                self.leaves.get_mut(&leaf).unwrap().remove(&pfn);
            }
        }
    }

    fn lend(&mut self, td: u32, pfn: u64, kind: PageKind, call: &Call) -> Option<Expected> {
        let frames = if kind == PageKind::Leaf { frames_of(call.level) } else { 1 };
        let mut first = None;
        for n in 0..frames {
            let old = self.close(pfn + n);
            self.open(td, pfn + n, kind, call.gfn + n, call.level);
            if let (Some(old), None) = (old, &first) {
                let violation =
                    if old.state() == State::Removed { Violation::OutOfOrder } else { Violation::DoubleMap };
                let expected = self.says(violation, Some(td), pfn + n, call.gfn + n);
                first = Some(Expected { other: Some(old.td), frames, ..expected });
            }
        }
        first
    }

    pub fn seamcall(&mut self, leaf: Leaf, call: &Call) -> Option<Expected> {
        let status = call.answer.status.0;
        let ok = status == 0;
        match leaf {
            Leaf::MngCreate if ok => {
                let td = self.begin(call.tdr, false);
                self.lend(td, call.tdr, PageKind::Tdr, call)
            }
            Leaf::MngAddcx if ok => {
                let td = self.td(call.tdr);
                self.lend(td, call.pfn, PageKind::Tdcs, call)
            }
            Leaf::VpCreate if ok => {
                let td = self.td(call.tdr);
                self.lend(td, call.tdvpr, PageKind::Tdvpr, call)
            }
            Leaf::VpAddcx if ok => {
                let td = self.frames.get(&call.tdvpr)?.td;
                self.lend(td, call.pfn, PageKind::Tdcx, call)
            }
            Leaf::MemSeptAdd => self.map(leaf, PageKind::Sept, call),
            Leaf::MemPageAdd | Leaf::MemPageAug => self.map(leaf, PageKind::Leaf, call),
            Leaf::MemRangeBlock => self.block(call),
            Leaf::MemTrack => self.track(call),
            Leaf::MemPageRemove => self.remove(call),
            Leaf::PhymemPageWbinvd => self.write_back(call),
            Leaf::PhymemPageReclaim => self.reclaim(call),
            Leaf::MngInit | Leaf::MrFinalize | Leaf::MngKeyFreeid if ok => {
                let td = self.td(call.tdr);
                let td = self.tds.get_mut(&td).unwrap();
                td.life = Some(match leaf {
                    Leaf::MngInit => Life::Initialized,
                    Leaf::MrFinalize => Life::Finalized,
                    _ => Life::KeyFreed,
                });
                td.finalized |= leaf == Leaf::MrFinalize;
                None
            }
            Leaf::MngVpflushdone if ok => None,
            Leaf::MngKeyFreeid | Leaf::MngVpflushdone => {
                let td = self.td(call.tdr);
                let expected = self.says(Violation::TeardownLeak, Some(td), call.pfn, call.gfn);
                Some(Expected { frames: self.lent_to(td), failed: Some((leaf, status)), ..expected })
            }
            _ => None,
        }
    }

    fn map(&mut self, leaf: Leaf, kind: PageKind, call: &Call) -> Option<Expected> {
        let td = self.td(call.tdr);
        let status = call.answer.status.0;
        if is_busy(status) {
            return None;
        }
        if status != 0 {
            let expected = self.says(Violation::MapFailed, Some(td), call.pfn, call.gfn);
            return Some(Expected { failed: Some((leaf, status)), ..expected });
        }
        if kind != PageKind::Leaf {
            return self.lend(td, call.pfn, kind, call);
        }
        let at = (td, head(call.gfn, call.level));
        self.replace(at);
        let expected = self.lend(td, call.pfn, kind, call);
        self.forget(at);
        expected
    }

    fn reclaim(&mut self, call: &Call) -> Option<Expected> {
        let lent = self.frames.get(&call.pfn).cloned();
        let td = lent.as_ref().map(|lent| lent.td);
        let status = call.answer.status.0;
        if status != 0 {
            let expected = self.says(Violation::TeardownLeak, td, call.pfn, call.gfn);
            let frames = td.map_or(1, |td| self.lent_to(td));
            return Some(Expected { frames, failed: Some((Leaf::PhymemPageReclaim, status)), ..expected });
        }
        let lent = lent?;
        let frames = if lent.kind == PageKind::Leaf { frames_of(lent.level) } else { 1 };
        for n in 0..frames {
            self.close(call.pfn + n);
        }
        if lent.kind != PageKind::Tdr {
            return None;
        }
        let left = self.lent_to(lent.td);
        let td = self.tds.get_mut(&lent.td).unwrap();
        td.life = Some(Life::Gone);
        let tdr = td.tdr;
        self.by_tdr.remove(&tdr);
        let expected = self.says(Violation::TeardownLeak, td_of(&lent), call.pfn, 0);
        (left != 0).then_some(Expected { frames: left, ..expected })
    }

    pub fn release(&mut self, pfn: u64, batched: bool, now_ns: u64) -> Option<Expected> {
        let lent = self.frames.get_mut(&pfn)?;
        if lent.released {
            // Told twice of one release, or released again: somebody had it in between.
            if batched || lent.reused {
                return None;
            }
            return self.reused(pfn);
        }
        lent.released = true;
        let state = lent.state();
        self.released(pfn, state, now_ns)
    }

    pub fn allocation(&mut self, pfn: u64, now_ns: u64) -> Option<Expected> {
        let lent = self.frames.get_mut(&pfn)?;
        if lent.reused {
            return None;
        }
        if lent.state() == State::Removed && !lent.released {
            return self.released(pfn, State::Removed, now_ns);
        }
        lent.released = true;
        self.reused(pfn)
    }

    fn released(&mut self, pfn: u64, state: State, now_ns: u64) -> Option<Expected> {
        let lent = self.frames[&pfn].clone();
        let failed = lent.leaf().and_then(|leaf| self.attempts.get(&leaf)?.failed);
        let violation = match state {
            State::Mapped => Violation::FreedWhileMapped,
            State::Blocked => Violation::FreedWhileBlocked,
            State::Owned => Violation::FreedWhileOwned,
            State::Removed | State::Free | State::Tentative => Violation::FreedUnflushed,
        };
        if state == State::Removed {
            self.close(pfn);
        } else {
            self.windows.insert(pfn, now_ns);
        }
        let expected = self.says(violation, td_of(&lent), pfn, lent.gfn);
        Some(Expected { released_ns: now_ns, failed, ..expected })
    }

    fn reused(&mut self, pfn: u64) -> Option<Expected> {
        let lent = self.frames.get_mut(&pfn)?;
        lent.reused = true;
        let lent = lent.clone();
        let failed = lent.leaf().and_then(|leaf| self.attempts.get(&leaf)?.failed);
        let released_ns = self.windows.remove(&pfn).unwrap_or(0);
        let expected = self.says(Violation::ReusedWhileMapped, td_of(&lent), pfn, lent.gfn);
        Some(Expected { released_ns, failed, ..expected })
    }
}

fn td_of(lent: &Lent) -> Option<u32> {
    Some(lent.td)
}
