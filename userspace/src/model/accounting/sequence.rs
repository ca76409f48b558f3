//! The numbers of one CPU's records in one stream: which arrived, which did not.

use std::ops::Range;

/// Holes that are remembered. Where more are open at once, the lowest is taken for final.
const HOLES: usize = 64;

/// Which numbers arrived, from the first to the highest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    first: u64,
    /// One more than the highest that arrived.
    next: u64,
    /// Numbers between them that have not arrived, lowest first.
    holes: Vec<Range<u64>>,
    /// Numbers in holes that were given up.
    given_up: u64,
    repeated: u64,
}

impl Sequence {
    /// Before any arrived: `first` is the lowest that is waited for.
    pub const fn beginning_at(first: u64) -> Self {
        Self { first, next: first, holes: Vec::new(), given_up: 0, repeated: 0 }
    }

    /// Takes a number in. True: it is the first after a gap.
    #[inline]
    pub fn received(&mut self, seq: u64) -> bool {
        if seq == self.next {
            self.next = seq.saturating_add(1);
            return false;
        }
        self.out_of_turn(seq)
    }

    #[cold]
    fn out_of_turn(&mut self, seq: u64) -> bool {
        if seq > self.next {
            self.hole(self.holes.len(), self.next..seq);
            self.next = seq.saturating_add(1);
            return true;
        }
        if seq < self.first {
            self.hole(0, seq + 1..self.first);
            self.first = seq;
            return false;
        }
        // An interrupt's record can be numbered after, and arrive before, the one that it interrupted: that comes late.
        let Some(at) = self.holes.iter().position(|hole| hole.contains(&seq)) else {
            self.repeated += 1;
            return false;
        };
        let hole = self.holes.remove(at);
        self.hole(at, seq + 1..hole.end);
        self.hole(at, hole.start..seq);
        false
    }

    /// Enters a hole before the one at `at`, if it is one.
    fn hole(&mut self, at: usize, hole: Range<u64>) {
        if hole.is_empty() {
            return;
        }
        self.holes.insert(at, hole);
        if self.holes.len() > HOLES {
            let lowest = self.holes.remove(0);
            self.given_up = self.given_up.saturating_add(lowest.end - lowest.start);
        }
    }

    /// The lowest number that arrived or, where it is known that none came before this process, 0.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// One more than the highest number that arrived.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Numbers from the first to the highest that never arrived: next - first - those that did.
    ///
    /// Exact unless a number comes so late that 64 holes above its own have opened since: it then counts as repeated,
    /// and stays missing.
    pub fn missing(&self) -> u64 {
        let open = self.holes.iter().map(|hole| hole.end - hole.start);
        open.fold(self.given_up, u64::saturating_add)
    }

    /// Records whose number had arrived before.
    pub const fn repeated(&self) -> u64 {
        self.repeated
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_inversion_is_neither_missing_nor_repeated() {
        let mut sequence = Sequence::beginning_at(0);
        // 1 is interrupted by 2 and 3.
        let gaps: u64 = [0, 2, 3, 1, 4].map(|seq| u64::from(sequence.received(seq))).iter().sum();
        assert_eq!((gaps, sequence.missing(), sequence.repeated(), sequence.next()), (1, 0, 0, 5));
        sequence.received(3);
        assert_eq!((sequence.missing(), sequence.repeated()), (0, 1));
    }

    #[test]
    fn a_hole_that_is_given_up_stays_missing() {
        let mut sequence = Sequence::beginning_at(0);
        let holes = HOLES as u64 + 1;
        for n in 0..holes {
            sequence.received(2 * n + 1);
        }
        assert_eq!(sequence.missing(), holes);
        sequence.received(0);
        assert_eq!((sequence.missing(), sequence.repeated()), (holes, 1));
        sequence.received(2);
        assert_eq!((sequence.missing(), sequence.repeated()), (holes - 1, 1));
    }

    proptest! {
        #[test]
        fn missing_is_what_never_arrived(first in 0u64..40, seqs in prop::collection::vec(0u64..60, 1..80)) {
            let mut sequence = Sequence::beginning_at(first);
            let mut arrived = BTreeSet::new();
            let mut repeated = 0;
            let (mut lowest, mut next) = (first, first);
            for seq in seqs {
                sequence.received(seq);
                repeated += u64::from(!arrived.insert(seq));
                (lowest, next) = (lowest.min(seq), next.max(seq + 1));
            }
            prop_assert_eq!((sequence.first(), sequence.next()), (lowest, next));
            prop_assert_eq!(sequence.missing(), next - lowest - arrived.len() as u64);
            prop_assert_eq!(sequence.repeated(), repeated);
        }
    }
}
