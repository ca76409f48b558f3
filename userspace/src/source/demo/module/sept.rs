//! The secure EPT of one TD: entries, their states, the walk and how an entry is reported.

use std::collections::HashMap;

use septwatch_common::Level;

use super::status::{self, Refusal, operand};

/// State of a present S-EPT entry; an absent one is FREE. The discriminants are the architectural states that come
/// in `ext_err2` (TDX Module ABI specification, "Secure EPT Entry State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryState {
    /// Not usable by the guest, TLBs may still hold it.
    Blocked = 1,
    /// Added by AUG, not yet accepted by the guest.
    Pending = 2,
    /// Blocked before the guest accepted it.
    PendingBlocked = 3,
    /// In use.
    Mapped = 4,
}

impl EntryState {
    /// BLOCKED or PENDING_BLOCKED.
    pub const fn is_blocked(self) -> bool {
        matches!(self, Self::Blocked | Self::PendingBlocked)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub pfn: u64,
    /// Points to a lower S-EPT page, and not to a guest page.
    pub table: bool,
    pub state: EntryState,
    /// TD epoch in which it was blocked.
    pub bepoch: u64,
}

/// The root's entries are on this level: four levels, 48 bits of guest physical address.
pub(super) const TOP: Level = Level::L512G;
/// The highest address bit of four levels says "shared": private addresses stay below.
const PRIVATE_GPAS: u64 = 1 << 47;

/// Where a walk ended.
pub(super) struct Walk {
    level: Level,
    pub entry: Option<Entry>,
}

impl Walk {
    /// A refusal that carries this entry, as `set_arch_septe_details` forms it in the real module.
    pub(super) fn refusal(&self, status: u64) -> Refusal {
        let (ext_err1, ext_err2) = self.details();
        Refusal { status: status | operand::RCX, ext_err1, ext_err2 }
    }

    /// The entry and its level and state as RCX and RDX report them: HPA only of a leaf, RWX only when usable.
    pub(super) fn details(&self) -> (u64, u64) {
        const RWX: u64 = 0b111;
        const WB_IPAT: u64 = (6 << 3) | (1 << 6);
        const LEAF: u64 = 1 << 7;
        const SUPPRESS_VE: u64 = 1 << 63;
        let Some(entry) = self.entry else { return (SUPPRESS_VE, self.level as u64) };
        let access = if entry.state == EntryState::Mapped { RWX } else { 0 };
        let value = match entry.table {
            true => access,
            false => access | WB_IPAT | LEAF | SUPPRESS_VE | (entry.pfn << 12),
        };
        (value, self.level as u64 | (entry.state as u64) << 8)
    }
}

#[derive(Debug, Default)]
pub(super) struct Sept {
    entries: HashMap<u64, Entry>,
}

/// First guest frame of the entry, with its level in three bits below it.
fn key(level: Level, gfn: u64) -> u64 {
    level.head(gfn) << 3 | level as u64
}

impl Sept {
    /// Checks the operand "GPA and level": OPERAND_INVALID unless aligned, private and on one of the levels.
    pub(super) fn check(gpa: u64, level: Option<Level>, levels: [Level; 2]) -> Result<(u64, Level), Refusal> {
        let valid = level.filter(|level| (levels[0]..=levels[1]).contains(level));
        let gfn = gpa >> 12;
        match valid {
            Some(level) if gpa & 0xFFF == 0 && gpa < PRIVATE_GPAS && level.head(gfn) == gfn => {
                Ok((gfn, level))
            }
            _ => status::refuse(status::OPERAND_INVALID | operand::RCX),
        }
    }

    /// Walks to the entry on `level`; EPT_WALK_FAILED with the entry it ended at if it does not get there.
    pub(super) fn walk(&self, gfn: u64, level: Level) -> Result<Walk, Refusal> {
        let end = self.walk_far(gfn, level);
        if end.level == level { Ok(end) } else { Err(end.refusal(status::EPT_WALK_FAILED)) }
    }

    /// Walks as far as it goes.
    pub(super) fn walk_far(&self, gfn: u64, level: Level) -> Walk {
        for at in [TOP, Level::L1G, Level::L2M] {
            if at == level {
                break;
            }
            let entry = self.get(gfn, at);
            if !entry.is_some_and(|entry| entry.table && entry.state == EntryState::Mapped) {
                return Walk { level: at, entry };
            }
        }
        Walk { level, entry: self.get(gfn, level) }
    }

    pub(super) fn get(&self, gfn: u64, level: Level) -> Option<Entry> {
        self.entries.get(&key(level, gfn)).copied()
    }

    pub(super) fn get_mut(&mut self, gfn: u64, level: Level) -> Option<&mut Entry> {
        self.entries.get_mut(&key(level, gfn))
    }

    pub(super) fn set(&mut self, gfn: u64, level: Level, entry: Entry) {
        self.entries.insert(key(level, gfn), entry);
    }

    pub(super) fn remove(&mut self, gfn: u64, level: Level) {
        self.entries.remove(&key(level, gfn));
    }

    /// Every leaf: level, first guest frame, entry.
    pub(super) fn leaves(&self) -> impl Iterator<Item = (Level, u64, Entry)> {
        self.entries
            .iter()
            .filter(|(_, entry)| !entry.table)
            .filter_map(|(key, entry)| Level::from_tdx(key & 7).map(|level| (level, key >> 3, *entry)))
    }
}
