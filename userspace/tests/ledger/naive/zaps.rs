//! Zaps: what BLOCK, TRACK, REMOVE and WBINVD do to frames.

use septwatch_common::{Leaf, State, Violation, tracker::Call, zap::PFN_UNKNOWN};

use super::{Attempt, Expected, LeafOf, Naive, head, is_busy};

impl Naive {
    pub(super) fn block(&mut self, call: &Call) -> Option<Expected> {
        let number = self.td(call.tdr);
        let leaf = (number, head(call.gfn, call.level));
        let td = self.tds.get_mut(&number).unwrap();
        td.blocked_last = leaf.1;
        if call.answer.status.0 != 0 {
            let only_premapped = self.premap_exempt
                && !td.finalized
                && call.answer.status.0 == 0xC000_0B0D_0000_0001
                && call.answer.ext_err1 & 7 == 0;
            if only_premapped {
                self.busy_no_more(leaf);
                return None;
            }
            return self.refused(Leaf::MemRangeBlock, leaf, call);
        }
        let blocked_at = Some(td.tracked);
        self.attempts.insert(leaf, Attempt { blocked_at, ..Attempt::default() });
        for pfn in self.at(leaf) {
            let lent = self.frames.get_mut(&pfn).unwrap();
            (lent.blocked, lent.removed) = (true, false);
        }
        None
    }

    pub(super) fn track(&mut self, call: &Call) -> Option<Expected> {
        let number = self.td(call.tdr);
        let td = self.tds.get_mut(&number).unwrap();
        let leaf = (number, td.blocked_last);
        if call.answer.status.0 != 0 {
            return self.refused(Leaf::MemTrack, leaf, call);
        }
        td.tracked += 1;
        self.busy_no_more(leaf);
        None
    }

    /// A row of BUSY answers ended; where nothing but it was known, nothing is.
    fn busy_no_more(&mut self, leaf: LeafOf) {
        let Some(attempt) = self.attempts.get_mut(&leaf) else { return };
        attempt.busy = None;
        if attempt.blocked_at.is_none() && !attempt.removed && attempt.failed.is_none() {
            self.forget(leaf);
        }
    }

    pub(super) fn remove(&mut self, call: &Call) -> Option<Expected> {
        let number = self.td(call.tdr);
        let leaf = (number, head(call.gfn, call.level));
        if call.answer.status.0 != 0 {
            return self.refused(Leaf::MemPageRemove, leaf, call);
        }
        let td = &self.tds[&number];
        let named = (call.pfn != PFN_UNKNOWN).then_some((call.pfn, call.level));
        let attempt = self.attempts.entry(leaf).or_default();
        let tracked_since_block = attempt.blocked_at.is_some_and(|tracked| tracked != td.tracked);
        // Its BLOCK may have been before the first hook.
        let unseen = td.late && attempt.blocked_at.is_none();
        let ordered = !td.finalized || tracked_since_block || unseen;
        (attempt.removed, attempt.busy) = (true, None);
        attempt.named = named.or(attempt.named);
        let failed = attempt.failed;
        for pfn in self.at(leaf) {
            self.frames.get_mut(&pfn).unwrap().removed = true;
        }
        // A frame that is not in the ledger at this place: nothing will ever end this zap but this.
        if let Some((named, _)) = named
            && !self.at(leaf).contains(&named)
        {
            self.replace(leaf);
            self.forget(leaf);
        }
        let expected = self.says(Violation::OutOfOrder, Some(number), call.pfn, leaf.1);
        (!ordered).then_some(Expected { failed, ..expected })
    }

    /// A step of a zap did not succeed: a failure, once for one zap, unless KVM tries again.
    fn refused(&mut self, step: Leaf, leaf: LeafOf, call: &Call) -> Option<Expected> {
        let status = call.answer.status.0;
        let attempt = self.attempts.entry(leaf).or_default();
        if !is_busy(status) {
            attempt.busy = None;
        } else if step != Leaf::PhymemPageWbinvd {
            let row = match attempt.busy {
                Some((busy, row)) if busy == step => row + 1,
                _ => 1,
            };
            attempt.busy = Some((step, row));
            if row == 1 {
                return None;
            }
        }
        if attempt.failed.is_some() {
            return None;
        }
        attempt.failed = Some((step, status));
        let failed = attempt.failed;
        let expected = self.says(Violation::ZapFailed, Some(leaf.0), call.pfn, leaf.1);
        Some(Expected { failed, ..expected })
    }

    pub(super) fn write_back(&mut self, call: &Call) -> Option<Expected> {
        let step = Leaf::PhymemPageWbinvd;
        let failed = Some((step, call.answer.status.0));
        let ok = call.answer.status.0 == 0;
        let Some(lent) = self.frames.get(&call.pfn).cloned() else {
            let expected = self.says(Violation::ZapFailed, None, call.pfn, call.gfn);
            return (!ok).then_some(Expected { failed, ..expected });
        };
        if !ok {
            let Some(leaf) = lent.leaf() else {
                let expected = self.says(Violation::ZapFailed, Some(lent.td), call.pfn, lent.gfn);
                return Some(Expected { failed, ..expected });
            };
            return self.refused(step, leaf, call).map(|expected| Expected { gfn: lent.gfn, ..expected });
        }
        let failed = lent.leaf().and_then(|leaf| self.attempts.get(&leaf)?.failed);
        match lent.state() {
            State::Removed => {
                self.close(call.pfn);
                None
            }
            State::Mapped | State::Blocked => {
                let expected = self.says(Violation::OutOfOrder, Some(lent.td), call.pfn, lent.gfn);
                Some(Expected { failed, ..expected })
            }
            State::Owned | State::Free | State::Tentative => None,
        }
    }
}
