//! Spans of time, many of them: what a histogram says of them in a few figures, or in a few bars.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Spans summed up, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// Shortest.
    pub min_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// 99 of 100 are at most this.
    pub p99_ns: u64,
    /// Longest.
    pub max_ns: u64,
}

impl Summary {
    /// Of the spans in a histogram of ns.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            min_ns: histogram.min(),
            p50_ns: histogram.value_at_quantile(0.5),
            p99_ns: histogram.value_at_quantile(0.99),
            max_ns: histogram.max(),
        }
    }
}

/// Spans of time as they come.
#[derive(Clone, Debug, Default)]
pub struct Spans(Option<Histogram<u64>>);

impl Spans {
    /// Longest that is told apart from longer ones, in ns: an hour.
    const LONGEST_NS: u64 = 3_600_000_000_000;

    /// One more, of so many ns; 0 counts as 1.
    pub fn record(&mut self, ns: u64) {
        // To 1 in 1,000. A histogram of these bounds can always be made, and takes its memory when there is something in it.
        if self.0.is_none() {
            self.0 = Histogram::new_with_bounds(1, Self::LONGEST_NS, 3).ok();
        }
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(ns.max(1));
        }
    }

    /// Summed up; none: there are none.
    pub fn summary(&self) -> Option<Summary> {
        self.0.as_ref().map(Summary::of)
    }

    /// Between fixed bounds; none: there are none.
    pub fn buckets(&self) -> Option<Buckets> {
        self.0.as_ref().map(Buckets::of)
    }
}

/// Spans counted between fixed bounds, as a time series has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    /// How many.
    pub count: u64,
    /// All of them together, in seconds, to three digits.
    pub sum_s: f64,
    /// How many are at most so long, in seconds, and longer than the bound before; the last bound is infinity.
    pub counts: Vec<(f64, u64)>,
}

impl Buckets {
    /// Bounds: powers of four from 2^10 ns, about a microsecond, to 2^36 ns, about a minute.
    const EXPONENTS: std::ops::RangeInclusive<u32> = 10..=36;

    /// Of the spans in a histogram of ns.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let bounds = Self::EXPONENTS.step_by(2).map(|exponent| (1_u64 << exponent) as f64 / 1e9);
        let mut counts: Vec<_> = bounds.chain([f64::INFINITY]).map(|bound| (bound, 0)).collect();
        for octave in octaves(histogram) {
            // From 2^n to just below 2^(n + 1): at most the next bound.
            let above = (octave.from_ns.ilog2() + 1).saturating_sub(*Self::EXPONENTS.start()).div_ceil(2);
            let last = counts.len() - 1;
            counts[last.min(above as usize)].1 += octave.count;
        }
        Self { count: histogram.len(), sum_s: histogram.mean() * histogram.len() as f64 / 1e9, counts }
    }
}

/// Spans from a power of two to just below the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Octave {
    /// The power of two, in ns.
    pub from_ns: u64,
    /// How many.
    pub count: u64,
}

/// The spans of a histogram of ns by powers of two, from the first that has any to the last.
pub fn octaves(histogram: &Histogram<u64>) -> Vec<Octave> {
    let mut octaves = Vec::<Octave>::new();
    // What the histogram cannot tell apart never reaches over a power of two.
    for recorded in histogram.iter_recorded() {
        let from_ns = 1 << recorded.value_iterated_to().max(1).ilog2();
        let count = recorded.count_at_value();
        while octaves.last().is_some_and(|last| last.from_ns < from_ns / 2) {
            let from_ns = octaves.last().map_or(from_ns, |last| last.from_ns * 2);
            octaves.push(Octave { from_ns, count: 0 });
        }
        match octaves.last_mut() {
            Some(last) if last.from_ns == from_ns => last.count += count,
            _ => octaves.push(Octave { from_ns, count }),
        }
    }
    octaves
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn each_span_is_counted_once_below_its_bound() {
        let mut histogram = Histogram::new_with_bounds(1, 1 << 40, 3).unwrap();
        assert_eq!(Buckets::of(&histogram).counts.len(), 15);
        for exponent in 0..40 {
            histogram += 1_u64 << exponent;
            histogram += (1_u64 << exponent) * 3 / 2;
        }
        let found = Buckets::of(&histogram);
        let counts: Vec<_> = found.counts.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [20, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 8]);
        assert_eq!(found.count, 80);
        let sum = (1..40).fold(1.0, |sum, exponent| sum + (1_u64 << exponent) as f64 * 2.5) + 1.0;
        assert!((found.sum_s - sum / 1e9).abs() < sum / 1e9 / 500.0, "{found:?}");
    }

    #[test]
    fn octaves_begin_and_end_where_there_is_something() {
        let mut histogram = Histogram::new_with_bounds(1, 1 << 40, 3).unwrap();
        assert_eq!(octaves(&histogram), []);
        let spans = [1_024, 1_500, 2_047, 2_048, 16_384, (1 << 32) - 1];
        histogram += spans[0];
        assert_eq!(octaves(&histogram), [Octave { from_ns: 1_024, count: 1 }]);
        for span in &spans[1..] {
            histogram += *span;
        }
        let found = octaves(&histogram);
        assert_eq!(found.len(), 22);
        assert!(found.iter().zip(10..).all(|(octave, exponent)| octave.from_ns == 1 << exponent));
        let filled: Vec<_> = found.iter().filter(|octave| octave.count != 0).copied().collect();
        let octave = |from_ns, count| Octave { from_ns, count };
        assert_eq!(filled, [octave(1_024, 3), octave(2_048, 1), octave(16_384, 1), octave(1 << 31, 1)]);
    }
}
