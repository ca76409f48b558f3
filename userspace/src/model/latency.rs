//! How long SEAMCALLs take, leaf by leaf.
//!
//! What is measured begins at the entry of the kernel's function and ends at its return: the function that wraps the
//! SEAMCALL is part of it, and so is the way from and to the programs in the kernel (a trampoline; with probes, a
//! breakpoint).

use hdrhistogram::Histogram;
use septwatch_common::{Leaf, config::SHAPES, wire::SeamcallOk};
use serde::{Serialize, Serializer};

use super::histogram::{Buckets, Octave, Summary, octaves};

/// Longest latency that a record can tell, in ns; longer ones count as this.
const LONGEST_NS: u64 = u32::MAX as u64;

/// The latencies that were measured.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// By the number of the leaf; made when its first call comes.
    leaves: [Option<Box<Histogram<u64>>>; SHAPES],
}

impl Default for Latencies {
    fn default() -> Self {
        Self { leaves: [const { None }; SHAPES] }
    }
}

impl Latencies {
    /// Takes a call in, if it was measured.
    #[inline]
    pub fn call(&mut self, call: &SeamcallOk) {
        if call.took_ns == 0 {
            return;
        }
        let Some(leaf) = self.leaves.get_mut(usize::from(call.leaf)) else { return };
        if leaf.is_none() {
            // Three digits: 1 in 1,000. A histogram of these bounds can always be made.
            *leaf = Histogram::new_with_bounds(1, LONGEST_NS, 3).ok().map(Box::new);
        }
        if let Some(histogram) = leaf {
            histogram.saturating_record(call.took_ns.into());
        }
    }

    fn histograms(&self) -> impl Iterator<Item = (Leaf, &Histogram<u64>)> {
        let known = |(number, histogram)| Some((Leaf::from_number(number)?, histogram));
        (0..)
            .zip(&self.leaves)
            .filter_map(|(number, histogram)| Some((number, histogram.as_deref()?)))
            .filter_map(known)
    }

    /// The latencies of each leaf summed up, in the order of their numbers.
    pub fn summaries(&self) -> impl Iterator<Item = (Leaf, Summary)> {
        self.histograms().map(|(leaf, histogram)| (leaf, Summary::of(histogram)))
    }

    /// The latencies of each leaf between fixed bounds, in the order of their numbers.
    pub fn buckets(&self) -> impl Iterator<Item = (Leaf, Buckets)> {
        self.histograms().map(|(leaf, histogram)| (leaf, Buckets::of(histogram)))
    }

    /// The latencies of a leaf summed up.
    pub fn of(&self, leaf: Leaf) -> Option<Summary> {
        self.leaves.get(leaf as usize)?.as_deref().map(Summary::of)
    }

    /// The latencies of all leaves together.
    pub fn all(&self) -> Option<Summary> {
        let mut measured = self.leaves.iter().flatten();
        let mut all = (**measured.next()?).clone();
        for histogram in measured {
            // Their bounds are the same.
            let _ = all.add(histogram.as_ref());
        }
        Some(Summary::of(&all))
    }

    /// The latencies of a leaf by powers of two; none where it was not measured.
    pub fn octaves(&self, leaf: Leaf) -> Vec<Octave> {
        let histogram = self.leaves.get(leaf as usize).and_then(Option::as_deref);
        histogram.map(octaves).unwrap_or_default()
    }
}

/// One object: a summary by the leaf's name; leaves that were not measured are not there.
impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.summaries().map(|(leaf, summary)| (leaf.name(), summary)))
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    fn call(leaf: u8, took_ns: u32) -> SeamcallOk {
        let mut call = SeamcallOk::new_zeroed();
        (call.leaf, call.took_ns) = (leaf, took_ns);
        call
    }

    #[test]
    fn what_was_measured_counts_under_its_leaf() {
        let mut latencies = Latencies::default();
        let remove = Leaf::MemPageRemove as u8;
        for took_ns in [500, 0, 700, 600] {
            latencies.call(&call(remove, took_ns));
        }
        latencies.call(&call(Leaf::MemTrack as u8, u32::MAX));
        latencies.call(&call(Leaf::MngInit as u8, 0));
        // No leaf has this number.
        latencies.call(&call(0xff, 1));
        let found: Vec<_> = latencies.summaries().collect();
        let summary =
            |count, min_ns, p50_ns, max_ns| Summary { count, min_ns, p50_ns, p99_ns: max_ns, max_ns };
        assert_eq!(
            found,
            [
                (Leaf::MemPageRemove, summary(3, 500, 600, 700)),
                (
                    Leaf::MemTrack,
                    Summary { min_ns: found[1].1.min_ns, ..summary(1, 0, LONGEST_NS, LONGEST_NS) }
                ),
            ]
        );
        assert!(found[1].1.min_ns.abs_diff(LONGEST_NS) <= LONGEST_NS / 1000);
        assert_eq!(latencies.octaves(Leaf::MngInit), []);
        assert_eq!(latencies.octaves(Leaf::MemTrack), [Octave { from_ns: 1 << 31, count: 1 }]);
        let json = serde_json::json!(latencies);
        assert_eq!(json["TDH.MEM.PAGE.REMOVE"]["p50_ns"], 600);
        assert_eq!(json.as_object().map(serde_json::Map::len), Some(2));
    }
}
