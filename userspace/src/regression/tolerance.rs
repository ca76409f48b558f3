//! What may change between two runs of the same workload without anybody having to look.

/// What a change is measured with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Calls of a leaf: by what part of those before, in both directions. 0.1 is a tenth.
    pub calls_change: f64,
    /// BUSY per 1,000 calls of a leaf: to how many times as much.
    pub busy_factor: f64,
    /// Errors per 1,000 calls of a leaf, each status by itself: to how many times as much.
    pub error_factor: f64,
    /// Latencies of a leaf: to how many times as long.
    pub latency_factor: f64,
    /// Windows: to how many times as long.
    pub window_factor: f64,
    /// Violations of a kind: by what part of those before, in both directions.
    pub violations_change: f64,
    /// Shorter windows are noise, in ns: a task that is preempted within one makes it as long.
    pub min_window_ns: u64,
    /// Fewer are noise: of two counts the larger must be so large, and a histogram must have so many for its median to be
    /// judged, and a hundred times as many for its p99.
    pub min_count: u64,
    /// Records that may be missing of a recording.
    pub max_loss: u64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self {
            calls_change: 0.1,
            busy_factor: 1.5,
            error_factor: 1.5,
            latency_factor: 1.5,
            window_factor: 2.0,
            violations_change: 0.0,
            min_window_ns: 1_000_000,
            min_count: 10,
            max_loss: 0,
        }
    }
}

/// How many standard deviations are more than chance: of a thousand figures that did not change, 3 are beyond.
const DEVIATIONS: f64 = 3.0;

impl Tolerance {
    /// Whether two counts differ by more than chance, had each of `of` things the same small chance to be counted.
    pub fn differs(&self, counts: [u64; 2], of: [u64; 2]) -> bool {
        let [a, b] = counts.map(|count| count as f64);
        let [of_a, of_b] = of.map(|of| of as f64);
        let share = of_b / (of_a + of_b);
        // Nothing to be counted on either side says nothing.
        if counts[0].max(counts[1]) < self.min_count || !(share > 0.0 && share < 1.0) {
            return false;
        }
        let all = a + b;
        (b - all * share).abs() >= DEVIATIONS * (all * share * (1.0 - share)).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_counts_are_noise() {
        let tolerance = Tolerance::default();
        let differs = |a, b| tolerance.differs([a, b], [1000, 1000]);
        assert!(!differs(2, 5) && !differs(0, 9) && !differs(12, 20));
        assert!(differs(0, 10) && differs(20, 60) && differs(100, 150) && differs(150, 100));
        // Twice the calls, twice the answers.
        assert!(!tolerance.differs([100, 200], [1000, 2000]));
        assert!(tolerance.differs([100, 200], [1000, 1000]));
        assert!(!tolerance.differs([100, 0], [1000, 0]) && !tolerance.differs([0, 0], [0, 0]));
    }
}
