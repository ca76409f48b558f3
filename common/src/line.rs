//! The ledger line of one 4 KiB frame, and the one function that changes it.
//!
//! Pure: no clock, no maps, no TDs. What a line needs to know of a zap that carries no frame number comes from
//! [`crate::zap`]; who calls this, and when, is [`crate::tracker`].

use crate::{Level, Violation};

/// What the frame is lent as. TDX Module Base Architecture specification, "Physical Memory Management: Page Types".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PageKind {
    /// Guest memory: a leaf of the S-EPT (PT_REG).
    Leaf = 0,
    /// A page of the S-EPT itself (PT_EPT).
    Sept = 1,
    /// The TD's root page (PT_TDR).
    Tdr = 2,
    /// A page of the TD's control structure (PT_TDCX, `tdcs_pages` in KVM).
    Tdcs = 3,
    /// A vCPU's root page (PT_TDVPR).
    Tdvpr = 4,
    /// A page of the vCPU's state (PT_TDCX of a vCPU, `tdcx_pages` in KVM).
    Tdcx = 5,
}

impl PageKind {
    #[inline(always)]
    const fn from_bits(bits: u64) -> Self {
        match bits {
            0 => Self::Leaf,
            1 => Self::Sept,
            2 => Self::Tdr,
            3 => Self::Tdcs,
            4 => Self::Tdvpr,
            _ => Self::Tdcx,
        }
    }

    /// Name for people: `guest leaf`, `S-EPT page`, `TDR`, `TDCS`, `TDVPR`, `TDCX`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leaf => "guest leaf",
            Self::Sept => "S-EPT page",
            Self::Tdr => "TDR",
            Self::Tdcs => "TDCS",
            Self::Tdvpr => "TDVPR",
            Self::Tdcx => "TDCX",
        }
    }
}

/// What the TDX module holds of the frame, as far as its answers told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Nothing: the line is closed.
    Free = 0,
    /// A guest leaf that the S-EPT maps.
    Mapped = 1,
    /// A guest leaf whose entry is blocked.
    Blocked = 2,
    /// Out of the S-EPT, but cache lines with the TD's key may still be written to it.
    Removed = 3,
    /// An S-EPT or control page, until it is reclaimed.
    Owned = 4,
    /// The walk of a TD that began before septwatch is about to open the line: see [`crate::tracker::walk`]. Nothing is
    /// held against it yet, and it lasts for a moment.
    Tentative = 5,
}

impl State {
    #[inline(always)]
    const fn from_bits(bits: u64) -> Self {
        match bits {
            0 => Self::Free,
            1 => Self::Mapped,
            2 => Self::Blocked,
            3 => Self::Removed,
            4 => Self::Owned,
            _ => Self::Tentative,
        }
    }

    /// Name for people and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Mapped => "mapped",
            Self::Blocked => "blocked",
            Self::Removed => "removed",
            Self::Owned => "owned",
            Self::Tentative => "tentative",
        }
    }
}

/// One line of the ledger: eight bytes for one 4 KiB frame.
///
/// | bits | what |
/// |---|---|
/// | 2:0 | [`State`] |
/// | 3 | released: the allocator received the frame while the line was open |
/// | 4 | reused: the allocator handed it out after that |
/// | 7:5 | [`PageKind`] |
/// | 10:8 | [`Level`] of the leaf that the frame is part of, or of the S-EPT page |
/// | 23:11 | index of the owning TD, 1 to 8191 |
/// | 24 | walked: KVM's mirror page table told of it, not the SEAMCALL that lent it |
/// | 63:25 | guest frame number (a private gpa has at most 51 bits) |
///
/// Every frame of a 2M leaf has a line of its own, with its own gfn and level 2M: a look-up by frame is always one
/// load, and demoting or promoting a leaf changes a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Line(pub u64);

const _: () = assert!(size_of::<Line>() == 8);

const RELEASED: u64 = 1 << 3;
const REUSED: u64 = 1 << 4;
/// State, released and reused: all that the rules look at.
const LOW: u64 = (1 << LOW_BITS) - 1;
const LOW_BITS: u32 = 5;
const KIND_SHIFT: u32 = 5;
const LEVEL_SHIFT: u32 = 8;
const OWNER_SHIFT: u32 = 11;
const OWNER_BITS: u32 = 13;
const WALKED: u64 = 1 << 24;
const GFN_SHIFT: u32 = 25;

/// Largest index of a TD that a line can hold.
pub const MAX_OWNER: u16 = (1 << OWNER_BITS) - 1;

impl Line {
    /// The closed line.
    pub const FREE: Self = Self(0);

    /// A line just opened: a guest leaf is mapped, any other page owned.
    #[inline(always)]
    pub const fn open(kind: PageKind, owner: u16, level: Level, gfn: u64) -> Self {
        let state = match kind {
            PageKind::Leaf => State::Mapped,
            _ => State::Owned,
        };
        Self(
            state as u64
                | (kind as u64) << KIND_SHIFT
                | (level as u64) << LEVEL_SHIFT
                | ((owner & MAX_OWNER) as u64) << OWNER_SHIFT
                | gfn << GFN_SHIFT,
        )
    }

    /// What the module holds.
    #[inline(always)]
    pub const fn state(self) -> State {
        State::from_bits(self.0 & 7)
    }

    /// Whether the frame is lent.
    #[inline(always)]
    pub const fn is_open(self) -> bool {
        self.0 & 7 != 0
    }

    /// Whether it is a guest leaf that is in the S-EPT: mapped or blocked.
    #[inline(always)]
    pub const fn is_in_sept(self) -> bool {
        matches!(self.0 & 7, 1 | 2)
    }

    /// Whether the walk is about to open it: it is no lending yet.
    #[inline(always)]
    pub const fn is_tentative(self) -> bool {
        self.0 & 7 == State::Tentative as u64
    }

    /// Whether it is open, and a lending.
    #[inline(always)]
    pub const fn is_lent(self) -> bool {
        self.is_open() && !self.is_tentative()
    }

    /// Whether a zap can be under way for it: a guest leaf that is in the S-EPT, or about to be known to be.
    #[inline(always)]
    pub(crate) const fn has_zap(self) -> bool {
        self.is_in_sept() || self.is_tentative() && self.0 >> KIND_SHIFT & 7 == PageKind::Leaf as u64
    }

    /// Whether the allocator received the frame while the line was open.
    #[inline(always)]
    pub const fn is_released(self) -> bool {
        self.0 & RELEASED != 0
    }

    /// Whether the allocator handed it out after that.
    #[inline(always)]
    pub const fn is_reused(self) -> bool {
        self.0 & REUSED != 0
    }

    /// Whether every field holds a value that has a name: what was read from elsewhere may not.
    pub const fn is_well_formed(self) -> bool {
        self.0 & 7 <= State::Owned as u64
            && self.0 >> KIND_SHIFT & 7 <= PageKind::Tdcx as u64
            && Level::from_tdx(self.0 >> LEVEL_SHIFT & 7).is_some()
    }

    /// What it is lent as. Meaningless on a closed line.
    #[inline(always)]
    pub const fn kind(self) -> PageKind {
        PageKind::from_bits(self.0 >> KIND_SHIFT & 7)
    }

    /// Size of the leaf that the frame is part of. Meaningless on a closed line.
    #[inline(always)]
    pub const fn level(self) -> Level {
        match Level::from_tdx(self.0 >> LEVEL_SHIFT & 7) {
            Some(level) => level,
            None => Level::L4K,
        }
    }

    /// Index of the owning TD; 0 on a closed line.
    #[inline(always)]
    pub const fn owner(self) -> u16 {
        (self.0 >> OWNER_SHIFT) as u16 & MAX_OWNER
    }

    /// The guest frame.
    #[inline(always)]
    pub const fn gfn(self) -> u64 {
        self.0 >> GFN_SHIFT
    }

    /// The same line for the frame `n` further into the leaf.
    #[inline(always)]
    pub const fn nth(self, n: u64) -> Self {
        Self(self.0.wrapping_add(n << GFN_SHIFT))
    }

    /// Whether it is about the lending that `opened` began: the same TD, kind, level and gfn.
    #[inline(always)]
    pub const fn is_lending(self, opened: Self) -> bool {
        (self.0 ^ opened.0) & !WALKED & !LOW == 0
    }

    /// The same line as the walk enters it.
    #[inline(always)]
    #[must_use]
    pub const fn walked(self) -> Self {
        Self(self.0 | WALKED)
    }

    /// Whether KVM's mirror page table told of it: septwatch did not see it being lent.
    #[inline(always)]
    pub const fn is_walked(self) -> bool {
        self.0 & WALKED != 0
    }

    /// The same line in another state.
    #[inline(always)]
    #[must_use]
    pub const fn with_state(self, state: State) -> Self {
        Self(self.0 & !7 | state as u64)
    }

    /// Whether both are in the same state.
    #[inline(always)]
    pub const fn is_in_state_of(self, other: Self) -> bool {
        (self.0 ^ other.0) & 7 == 0
    }

    /// The same line in the state of `other`.
    #[inline(always)]
    #[must_use]
    pub const fn with_state_of(self, other: Self) -> Self {
        Self(self.0 & !7 | other.0 & 7)
    }

    #[inline(always)]
    const fn with(self, bits: u64) -> Self {
        Self(self.0 | bits)
    }
}

/// What happens to one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The module took the frame: the line opens as given.
    Lend(Line),
    /// Its leaf was blocked.
    Block,
    /// Its leaf was removed; `ordered` says that it had been blocked, and the TLB tracked, before.
    Remove {
        /// Whether BLOCK and TRACK came before, as far as the TD's epoch tells.
        ordered: bool,
    },
    /// Its cache lines were written back.
    Flush,
    /// The module gave the frame back.
    Reclaim,
    /// The allocator received it.
    Free {
        /// Told by `mm_page_free_batched`, which follows `mm_page_free` for the same release.
        batched: bool,
    },
    /// The allocator handed it out.
    Alloc,
    /// Its leaf was demoted or promoted to this size.
    Resize(Level),
}

/// The transition function: the line after `op`, and what is wrong with that, if anything. The rules are [`judge`]'s.
#[inline(always)]
pub fn apply(line: Line, op: Op) -> (Line, Option<Violation>) {
    let outcome = OUTCOMES[op.row()][(line.0 & LOW) as usize];
    let after = match op {
        Op::Lend(new) => new,
        Op::Resize(level) if line.is_in_sept() => {
            Line(line.0 & !(7 << LEVEL_SHIFT) | (level as u64) << LEVEL_SHIFT)
        }
        _ if outcome.low == 0 => Line::FREE,
        _ => Line(line.0 & !LOW | outcome.low as u64),
    };
    (after, outcome.violation)
}

/// What [`judge`] says of a line with these low bits.
#[derive(Clone, Copy)]
struct Outcome {
    low: u8,
    violation: Option<Violation>,
}

/// Every answer of [`judge`]. The kernel's verifier would follow each of its branches, at every call, and on from there;
/// this it sees as the load of a word that can be anything.
static OUTCOMES: [[Outcome; 1 << LOW_BITS]; ROWS.len()] = {
    let mut outcomes = [[Outcome { low: 0, violation: None }; 1 << LOW_BITS]; ROWS.len()];
    let mut row = 0;
    while row < ROWS.len() {
        let mut low = 0;
        while low < 1 << LOW_BITS {
            let (after, violation) = judge(Line(low), ROWS[row]);
            outcomes[row][low as usize] = Outcome { low: (after.0 & LOW) as u8, violation };
            low += 1;
        }
        row += 1;
    }
    outcomes
};

/// The operations, as far as the rules tell them apart.
const ROWS: [Op; 10] = [
    Op::Lend(Line::FREE),
    Op::Block,
    Op::Remove { ordered: false },
    Op::Remove { ordered: true },
    Op::Flush,
    Op::Reclaim,
    Op::Free { batched: false },
    Op::Free { batched: true },
    Op::Alloc,
    Op::Resize(Level::L4K),
];

impl Op {
    /// Place in [`ROWS`].
    #[inline(always)]
    const fn row(self) -> usize {
        match self {
            Self::Lend(_) => 0,
            Self::Block => 1,
            Self::Remove { ordered } => 2 + ordered as usize,
            Self::Flush => 4,
            Self::Reclaim => 5,
            Self::Free { batched } => 6 + batched as usize,
            Self::Alloc => 8,
            Self::Resize(_) => 9,
        }
    }
}

/// The rules. Of the line after, the low bits count: a line without any is closed.
///
/// Those that are not obvious:
/// - A line answers at most one `freed-…` and one `reused-while-mapped` for one lending. Everything after is the new
///   owners' life, of which the frame's counters tell enough.
/// - A second release of a frame that was released before means that somebody had it in between.
/// - A release of a removed, unflushed frame closes its line: the module does not hold it any more, so that no later
///   SEAMCALL would.
/// - Events on closed lines are no violations: most frames of a host were never lent.
/// - Nor are they on tentative ones, which are not lent as long as the walk has not made sure. Whatever says that the
///   frame is lent, or is not, has the last word: the walk finds another line than it left, and goes.
const fn judge(line: Line, op: Op) -> (Line, Option<Violation>) {
    use Violation::{
        DoubleMap, FreedUnflushed, FreedWhileBlocked, FreedWhileMapped, FreedWhileOwned, OutOfOrder,
    };
    let state = line.state();
    match op {
        Op::Lend(new) => match state {
            State::Free | State::Tentative => (new, None),
            State::Removed => (new, Some(OutOfOrder)),
            State::Mapped | State::Blocked | State::Owned => (new, Some(DoubleMap)),
        },
        Op::Block => match state {
            State::Mapped => (line.with_state(State::Blocked), None),
            _ => (line, None),
        },
        Op::Remove { ordered } => match state {
            State::Mapped => (line.with_state(State::Removed), Some(OutOfOrder)),
            State::Blocked => {
                (line.with_state(State::Removed), if ordered { None } else { Some(OutOfOrder) })
            }
            State::Tentative => (line.with_state(State::Removed), None),
            State::Free | State::Removed | State::Owned => (line, None),
        },
        Op::Flush => match state {
            State::Removed | State::Tentative => (Line::FREE, None),
            State::Mapped | State::Blocked => (line, Some(OutOfOrder)),
            State::Free | State::Owned => (line, None),
        },
        Op::Reclaim => (Line::FREE, None),
        Op::Free { batched } => {
            if line.is_released() {
                if batched || line.is_reused() {
                    return (line, None);
                }
                return (line.with(REUSED), Some(Violation::ReusedWhileMapped));
            }
            match state {
                State::Free => (line, None),
                State::Tentative => (Line::FREE, None),
                State::Mapped => (line.with(RELEASED), Some(FreedWhileMapped)),
                State::Blocked => (line.with(RELEASED), Some(FreedWhileBlocked)),
                State::Removed => (Line::FREE, Some(FreedUnflushed)),
                State::Owned => (line.with(RELEASED), Some(FreedWhileOwned)),
            }
        }
        Op::Alloc => match state {
            State::Free | State::Tentative => (line, None),
            State::Removed if !line.is_released() => (Line::FREE, Some(FreedUnflushed)),
            _ if line.is_reused() => (line, None),
            _ => (line.with(RELEASED | REUSED), Some(Violation::ReusedWhileMapped)),
        },
        Op::Resize(_) => (line, None),
    }
}

#[cfg(test)]
mod tests;
