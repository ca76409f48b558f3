//! The `TDH.MEM.*` leaves: how guest pages and S-EPT pages come and go.
//!
//! The order of the checks is that of the real module (github.com/intel/tdx-module, `src/vmm_dispatcher/api_calls`):
//! it decides which of several reasons a caller is told.

use septwatch_common::{Leaf, Level};

use super::pamt::{Meta, PageKind};
use super::sept::{Entry, EntryState, Sept, TOP};
use super::status::{self, Refusal, operand};
use super::td::Td;
use super::{Given, Module, Registers, lock};

/// The operands that name a place in a TD's guest address space.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub tdr: Option<u64>,
    pub gpa: u64,
    pub level: Option<Level>,
}

impl Module {
    /// TDH.MEM.PAGE.ADD: an initial page, measured, at once MAPPED.
    pub(super) fn mem_page_add(
        &self,
        place: Place,
        pfn: Option<u64>,
        source: Option<u64>,
        how: Given,
    ) -> Registers {
        let place = Place { level: Some(Level::L4K), ..place };
        let shared = self.td(place.tdr, operand::RDX)?;
        let td = &mut *lock(&shared);
        td.check_state(Leaf::MemPageAdd)?;
        let (gfn, level) = Sept::check(how.gpa(place.gpa), place.level, [Level::L4K, Level::L4K])?;
        let source = source.ok_or(Refusal::new(status::OPERAND_INVALID | operand::R9));
        self.map(td, gfn, level, pfn, PageKind::Leaf, EntryState::Mapped, how, || source.map(|_| ()))
    }

    /// TDH.MEM.PAGE.AUG: a page added at run time, PENDING until the guest accepts it.
    pub(super) fn mem_page_aug(&self, place: Place, pfn: Option<u64>, how: Given) -> Registers {
        let shared = self.td(place.tdr, operand::RDX)?;
        let td = &mut *lock(&shared);
        td.check_state(Leaf::MemPageAug)?;
        let (gfn, level) = Sept::check(how.gpa(place.gpa), place.level, [Level::L4K, Level::L2M])?;
        self.map(td, gfn, level, pfn, PageKind::Leaf, EntryState::Pending, how, || Ok(()))
    }

    /// TDH.MEM.SEPT.ADD: a page of the S-EPT; `level` is that of the entry that will point to it.
    pub(super) fn mem_sept_add(&self, place: Place, pfn: Option<u64>, how: Given) -> Registers {
        let shared = self.td(place.tdr, operand::RDX)?;
        let td = &mut *lock(&shared);
        td.check_state(Leaf::MemSeptAdd)?;
        let (gfn, level) = Sept::check(how.gpa(place.gpa), place.level, [Level::L2M, TOP])?;
        self.map(td, gfn, level, pfn, PageKind::Sept, EntryState::Mapped, how, || Ok(()))
    }

    /// The common end of the three: a FREE entry takes a page that nobody owns.
    #[expect(
        clippy::too_many_arguments,
        reason = "the operands of three leaves; a struct would have one use"
    )]
    fn map(
        &self,
        td: &mut Td,
        gfn: u64,
        level: Level,
        pfn: Option<u64>,
        kind: PageKind,
        state: EntryState,
        how: Given,
        source: impl FnOnce() -> Result<(), Refusal>,
    ) -> Registers {
        let walk = td.sept.walk(gfn, level)?;
        if walk.entry.is_some() && !how.unchecked() {
            return Err(walk.refusal(status::EPT_ENTRY_STATE_INCORRECT));
        }
        source()?;
        let table = kind == PageKind::Sept;
        let size = if table { Level::L4K } else { level };
        let Some(pfn) = pfn.filter(|pfn| size.head(*pfn) == *pfn) else {
            return status::refuse(status::OPERAND_INVALID | operand::R8);
        };
        let meta = Meta { kind, owner: td.tdr, gfn: Some(gfn), size, entry: level, also: None };
        if how.unchecked() {
            self.pamt.seize(pfn, meta);
        } else if !self.pamt.claim(pfn, meta) {
            return status::refuse(status::PAGE_METADATA_INCORRECT | operand::R8);
        }
        td.sept.set(gfn, level, Entry { pfn, table, state, bepoch: 0 });
        td.children += size.frames();
        Ok((0, 0))
    }

    /// TDH.MEM.RANGE.BLOCK: no new translation of the range; old ones may still be in TLBs.
    pub(super) fn mem_range_block(&self, place: Place, how: Given) -> Registers {
        let shared = self.td(place.tdr, operand::RDX)?;
        let td = &mut *lock(&shared);
        td.check_state(Leaf::MemRangeBlock)?;
        let (gfn, level) = Sept::check(how.gpa(place.gpa), place.level, [Level::L4K, TOP])?;
        let walk = td.sept.walk(gfn, level)?;
        let epoch = td.epoch;
        let Some(entry) = td.sept.get_mut(gfn, level) else {
            return Err(walk.refusal(status::EPT_ENTRY_STATE_INCORRECT));
        };
        entry.state = match entry.state {
            EntryState::Mapped => EntryState::Blocked,
            EntryState::Pending => EntryState::PendingBlocked,
            EntryState::Blocked | EntryState::PendingBlocked => {
                return Err(walk.refusal(status::GPA_RANGE_ALREADY_BLOCKED));
            }
        };
        entry.bepoch = epoch;
        Ok((0, 0))
    }

    /// TDH.MEM.TRACK: a new TLB epoch. Translations of older ones are gone once no vCPU is in them.
    pub(super) fn mem_track(&self, tdr: Option<u64>) -> Registers {
        let shared = self.td(tdr, operand::RCX)?;
        let td = &mut *lock(&shared);
        td.check_state(Leaf::MemTrack)?;
        td.epoch += 1;
        Ok((0, 0))
    }

    /// TDH.MEM.PAGE.REMOVE: gives a leaf's page back. RCX is then its physical address.
    pub(super) fn mem_page_remove(&self, place: Place, how: Given) -> Registers {
        let shared = self.td(place.tdr, operand::RDX)?;
        let td = &mut *lock(&shared);
        td.check_state(Leaf::MemPageRemove)?;
        let (gfn, level) = Sept::check(how.gpa(place.gpa), place.level, [Level::L4K, Level::L1G])?;
        let walk = td.sept.walk(gfn, level)?;
        let Some(entry) = walk.entry.filter(|entry| !entry.table) else {
            return Err(walk.refusal(status::EPT_ENTRY_STATE_INCORRECT));
        };
        if td.must_track() && !how.unchecked() {
            if !entry.state.is_blocked() {
                return Err(walk.refusal(status::GPA_RANGE_NOT_BLOCKED));
            }
            if entry.bepoch >= td.epoch {
                return status::refuse(status::TLB_TRACKING_NOT_DONE | operand::RCX);
            }
        }
        td.sept.remove(gfn, level);
        td.children = td.children.saturating_sub(level.frames());
        self.pamt.release_unflushed(entry.pfn, td.hkid, td.tdr, gfn);
        Ok((entry.pfn << 12, 0))
    }

    /// What the guest does with TDG.MEM.PAGE.ACCEPT: PENDING becomes MAPPED. Returns whether it was PENDING.
    pub(super) fn guest_accept(&self, tdr: u64, gfn: u64, level: Level) -> bool {
        let Ok(td) = self.td(Some(tdr), operand::RDX) else { return false };
        match lock(&td).sept.get_mut(level.head(gfn), level) {
            Some(entry) if entry.state == EntryState::Pending => {
                entry.state = EntryState::Mapped;
                true
            }
            _ => false,
        }
    }
}
