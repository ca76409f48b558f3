//! How pages leave a TD: zap, punch hole, and the ways in which that goes wrong.

use septwatch_common::{Leaf, Level};

use super::{Failed, Outcome, Slot, Td, VmmError, What, done, now_ns};
use crate::source::demo::module::{
    Frame, PageKind, tdh_mem_page_remove, tdh_mem_range_block, tdh_mem_track, tdh_phymem_page_wbinvd_hkid,
};

/// The steps of a zap. Leaving one out is the VMM's fault, not the module's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// TDH.MEM.RANGE.BLOCK.
    pub block: bool,
    /// TDH.MEM.TRACK; never done before the TD is finalized.
    pub track: bool,
    /// TDH.MEM.PAGE.REMOVE.
    pub remove: bool,
    /// TDH.PHYMEM.PAGE.WBINVD.
    pub wbinvd: bool,
}

impl Steps {
    /// As KVM does it.
    pub const ALL: Self = Self { block: true, track: true, remove: true, wbinvd: true };
    /// No zap at all.
    pub const NONE: Self = Self { block: false, track: false, remove: false, wbinvd: false };
    /// Stops before REMOVE.
    pub const UNTIL_TRACK: Self = Self { block: true, track: true, remove: false, wbinvd: false };
    /// Stops before the write-back.
    pub const UNTIL_REMOVE: Self = Self { block: true, track: true, remove: true, wbinvd: false };
}

impl Td<'_> {
    /// Zaps every mapped page of a range and keeps the pages: a conversion to shared
    /// (KVM_SET_MEMORY_ATTRIBUTES) or the deletion of a memslot. Returns how many zaps did not get to the end.
    pub fn zap(&mut self, first: u64, count: u64, steps: Steps) -> Result<u64, VmmError> {
        let mut failures = 0;
        for gfn in first..first + count {
            let index = self.index(gfn)?;
            let (Slot::Mapped(pfn) | Slot::Alias(pfn)) = self.slots[index] else { continue };
            let alias = self.slots[index] == Slot::Alias(pfn);
            let failed = self.zap_leaf(gfn, pfn, steps);
            let complete = failed.is_none() && (steps == Steps::ALL || alias);
            failures += u64::from(failed.is_some());
            self.slots[index] = match (alias, complete) {
                (true, _) => Slot::Empty,
                (false, true) => Slot::Present(pfn),
                (false, false) => Slot::Stranded(pfn, failed),
            };
        }
        Ok(failures)
    }

    /// Frees every page of a range (FALLOC_FL_PUNCH_HOLE on the guest_memfd): KVM zaps what is mapped, then the
    /// pages go, all in one system call, whatever became of the zaps. Returns how many zaps failed.
    pub fn punch(&mut self, first: u64, count: u64, steps: Steps) -> Result<u64, VmmError> {
        let failures = self.zap(first, count, steps)?;
        let range = self.index(first)?;
        let freed = self.leaving(range, count as usize)?;
        let at_ns = now_ns();
        self.memory.punch(range, count as usize)?;
        self.left(at_ns, freed);
        self.slots[range..range + count as usize].fill(Slot::Empty);
        Ok(failures)
    }

    /// The truths of the pages of a range that are about to be freed.
    pub(super) fn leaving(&self, first: usize, count: usize) -> Result<Vec<What>, VmmError> {
        let mut freed = Vec::new();
        for index in first..first + count {
            let (pfn, after_failed) = match self.slots[index] {
                Slot::Present(pfn) | Slot::Mapped(pfn) => (pfn, None),
                Slot::Stranded(pfn, failed) => (pfn, failed),
                Slot::Empty | Slot::Alias(_) => continue,
            };
            self.memory.verify(index, pfn)?;
            freed.push(What::Freed {
                pfn,
                kind: PageKind::Leaf,
                gfn: Some(super::FIRST_GFN + index as u64),
                state: self.host.module.frame(pfn),
                after_failed,
                done_ns: 0,
            });
        }
        Ok(freed)
    }

    /// Records those truths, now that it has happened.
    pub(super) fn left(&mut self, at_ns: u64, freed: Vec<What>) {
        let now = now_ns();
        for mut what in freed {
            if let What::Freed { pfn, gfn: Some(gfn), state, done_ns, .. } = &mut what {
                *done_ns = now;
                if *state != Frame::Free {
                    self.abroad.push((*gfn, *pfn));
                }
            }
            self.record(at_ns, what);
        }
    }

    /// One leaf, as `tdx_sept_remove_private_spte` does it: the mirror is cleared already, a failing step ends it,
    /// except TRACK, after which KVM goes on. Returns the first failure.
    fn zap_leaf(&mut self, gfn: u64, pfn: u64, steps: Steps) -> Option<Failed> {
        if steps.block
            && let Err(failed) = self.block(gfn)
        {
            return Some(self.zap_failed(gfn, pfn, failed));
        }
        let mut first = None;
        if steps.track
            && self.finalized
            && let Err(failed) = self.track()
        {
            first = Some(self.zap_failed(gfn, pfn, failed));
        }
        if steps.remove {
            let outcome = self.remove(gfn);
            let missing = match steps {
                _ if !self.finalized => None,
                Steps { block: false, .. } => Some(Leaf::MemRangeBlock),
                Steps { track: false, .. } => Some(Leaf::MemTrack),
                _ => None,
            };
            if let Some(missing) = missing {
                let status = outcome.err().map_or(0, |failed| failed.status);
                let leaf = Leaf::MemPageRemove;
                self.record(now_ns(), What::OutOfOrder { gfn, pfn, leaf, missing, status });
            }
            if let Err(failed) = outcome {
                let failed = self.zap_failed(gfn, pfn, failed);
                return first.or(Some(failed));
            }
        }
        if steps.wbinvd
            && let Err(failed) = self.wbinvd(pfn)
        {
            let failed = self.zap_failed(gfn, pfn, failed);
            return first.or(Some(failed));
        }
        first
    }

    fn zap_failed(&mut self, gfn: u64, pfn: u64, failed: Failed) -> Failed {
        self.record(failed.at_ns, What::ZapFailed { gfn, level: Level::L4K, pfn, failed });
        self.bug(failed);
        failed
    }

    /// Has the module properly give up every leaf that the stand-in lost: those whose zap did not get to the end,
    /// and those that were freed too early. Their frames may be anyone's by now. Whatever the module still misses
    /// is done, and must succeed.
    pub fn repair(&mut self) -> Result<(), VmmError> {
        for index in 0..self.slots.len() {
            if let Slot::Stranded(pfn, _) = self.slots[index] {
                self.give_up(super::FIRST_GFN + index as u64, pfn)?;
                self.slots[index] = Slot::Present(pfn);
            }
        }
        self.repair_freed()
    }

    /// As [`Td::repair`], only for pages that were freed.
    pub fn repair_freed(&mut self) -> Result<(), VmmError> {
        while let Some((gfn, pfn)) = self.abroad.pop() {
            self.give_up(gfn, pfn)?;
        }
        Ok(())
    }

    fn give_up(&mut self, gfn: u64, pfn: u64) -> Result<(), VmmError> {
        let refused = |failed: Failed| VmmError::Refused { leaf: failed.leaf, status: failed.status };
        let frame = self.host.module.frame(pfn);
        match frame {
            Frame::Owned(owned) if owned.td == self.id.tdr => {
                if !owned.state.is_some_and(|state| state.is_blocked()) {
                    self.block(gfn).map_err(refused)?;
                }
                if self.finalized {
                    self.track().map_err(refused)?;
                }
                self.remove(gfn).map_err(refused)?;
            }
            Frame::Unflushed { td, .. } if td == self.id.tdr => {}
            _ => return Ok(()),
        }
        self.wbinvd(pfn).map_err(refused)
    }

    fn block(&mut self, gfn: u64) -> Outcome {
        let (td, level) = (self.pointer(), self.config().level_operand(Level::L4K));
        let (mut e1, mut e2) = (0, 0);
        // SAFETY: the TD's structure and two locals.
        self.host.once_more(Leaf::MemRangeBlock, || unsafe {
            tdh_mem_range_block(td, gfn << 12, level, &raw mut e1, &raw mut e2)
        })
    }

    fn track(&mut self) -> Outcome {
        let td = self.pointer();
        // SAFETY: the TD's structure.
        self.host.once_more(Leaf::MemTrack, || unsafe { tdh_mem_track(td) })
    }

    fn remove(&mut self, gfn: u64) -> Outcome {
        let (td, level) = (self.pointer(), self.config().level_operand(Level::L4K).unsigned_abs().into());
        let (mut e1, mut e2) = (0, 0);
        // SAFETY: the TD's structure and two locals.
        self.host.once_more(Leaf::MemPageRemove, || unsafe {
            tdh_mem_page_remove(td, gfn << 12, level, &raw mut e1, &raw mut e2)
        })
    }

    /// KVM does not repeat this one.
    fn wbinvd(&self, pfn: u64) -> Outcome {
        // SAFETY: no pointers.
        let status =
            unsafe { tdh_phymem_page_wbinvd_hkid(self.hkid.into(), self.config().leaf_operand(pfn)) };
        done(Leaf::PhymemPageWbinvd, status)
    }
}
