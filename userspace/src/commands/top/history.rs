//! The host over time, step by step.

use std::sync::Arc;

use septwatch_common::{
    Leaf,
    config::{Answers, Counters, SHAPES},
};

use crate::view::top::scene::{Rates, Sample};

/// Samples of a host that is watched: ten minutes of a second each.
const LIVE: usize = 600;
/// Samples of a recording at most: two become one when they are more.
const WHOLE: usize = 1200;
/// The first step of a recording, in ns.
const FIRST_STEP_NS: u64 = 10_000;

/// What happened so far, in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// SEAMCALLs.
    pub calls: u64,
    /// ADD and AUG that succeeded.
    pub maps: u64,
    /// REMOVE that succeeded.
    pub zaps: u64,
    /// BUSY.
    pub busy: u64,
    /// Other errors.
    pub errors: u64,
    /// Records that arrived.
    pub records: u64,
    /// Violations.
    pub violations: u64,
    /// Records that were lost.
    pub lost: u64,
}

impl Totals {
    /// Of answers by leaf.
    pub fn of(answers: &[Answers; SHAPES]) -> Self {
        let sum = |figure: fn(&Answers) -> u64| answers.iter().map(figure).fold(0, u64::saturating_add);
        let ok = |leaf: Leaf| answers[leaf as usize].ok;
        let (busy, errors) = (sum(|answers| answers.busy), sum(|answers| answers.error));
        Self {
            calls: sum(|answers| answers.ok).saturating_add(busy).saturating_add(errors),
            maps: ok(Leaf::MemPageAdd).saturating_add(ok(Leaf::MemPageAug)),
            zaps: ok(Leaf::MemPageRemove),
            busy,
            errors,
            ..Self::default()
        }
    }

    /// Of what the kernel side counted.
    pub fn counted(counters: &Counters) -> Self {
        Self {
            violations: counters.violations.iter().fold(0, |sum, count| sum.saturating_add(*count)),
            lost: counters.vital.lost.saturating_add(counters.pages.lost),
            ..Self::of(&counters.calls)
        }
    }

    /// What happened per second, from `before` to this, in so many ns.
    pub fn rates(&self, before: &Self, ns: u64) -> Rates {
        let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 * 1e9 / ns.max(1) as f64;
        Rates {
            calls: per_second(self.calls, before.calls),
            maps: per_second(self.maps, before.maps),
            zaps: per_second(self.zaps, before.zaps),
            busy: per_second(self.busy, before.busy),
            errors: per_second(self.errors, before.errors),
            records: per_second(self.records, before.records),
        }
    }
}

/// The host over time.
#[derive(Debug)]
pub struct History {
    samples: Arc<Vec<Sample>>,
    /// Length of a step, in ns.
    step_ns: u64,
    /// It is of a recording, and no sample is dropped.
    whole: bool,
    /// When the step that is under way began, and what had happened then.
    begun_ns: u64,
    before: Totals,
}

impl History {
    /// Of a host that is watched from now on.
    pub fn live(now_ns: u64, before: Totals) -> Self {
        Self { samples: Arc::default(), step_ns: 1_000_000_000, whole: false, begun_ns: now_ns, before }
    }

    /// Of a recording that begins then.
    pub fn whole(begin_ns: u64) -> Self {
        let before = Totals::default();
        Self { samples: Arc::default(), step_ns: FIRST_STEP_NS, whole: true, begun_ns: begin_ns, before }
    }

    /// When the step that is under way ends.
    pub fn due_ns(&self) -> u64 {
        self.begun_ns.saturating_add(self.step_ns)
    }

    /// All samples, oldest first.
    pub fn samples(&self) -> Arc<Vec<Sample>> {
        Arc::clone(&self.samples)
    }

    /// The sample of a moment: the last that ended by then.
    pub fn at(&self, time_ns: u64) -> Sample {
        let after = self.samples.partition_point(|sample| sample.time_ns <= time_ns);
        after.checked_sub(1).and_then(|at| self.samples.get(at)).copied().unwrap_or_default()
    }

    /// Ends the step that is under way, if it is due. `sample` has what is not counted in `totals`.
    pub fn end_step(&mut self, now_ns: u64, totals: Totals, mut sample: Sample) {
        if now_ns < self.due_ns() {
            return;
        }
        // Steps in which nothing happened are one.
        let steps = (now_ns - self.begun_ns) / self.step_ns.max(1);
        let end_ns = if self.whole { self.begun_ns + steps * self.step_ns } else { now_ns };
        sample.time_ns = end_ns;
        sample.rates = totals.rates(&self.before, end_ns - self.begun_ns);
        sample.violations = totals.violations.saturating_sub(self.before.violations);
        sample.lost = totals.lost.saturating_sub(self.before.lost);
        self.push(sample);
        (self.begun_ns, self.before) = (end_ns, totals);
    }

    /// Ends a recording: its last step may be short.
    pub fn finish(&mut self, now_ns: u64, totals: Totals, sample: Sample) {
        if now_ns > self.begun_ns && totals != self.before {
            let step_ns = std::mem::replace(&mut self.step_ns, now_ns - self.begun_ns);
            self.end_step(now_ns, totals, sample);
            self.step_ns = step_ns;
        }
    }

    fn push(&mut self, sample: Sample) {
        let begun_ns = self.begun_ns;
        let samples = Arc::make_mut(&mut self.samples);
        samples.push(sample);
        if !self.whole && samples.len() > LIVE {
            samples.remove(0);
        }
        if self.whole && samples.len() > WHOLE {
            let first_ns = samples.first().map_or(0, |first| first.time_ns.saturating_sub(self.step_ns));
            *samples = halved(samples, first_ns.min(begun_ns));
            self.step_ns = self.step_ns.saturating_mul(2);
        }
    }
}

/// Every two samples as one; the first step began at `begin_ns`.
fn halved(samples: &[Sample], begin_ns: u64) -> Vec<Sample> {
    let mut begun_ns = begin_ns;
    let mut halved = Vec::with_capacity(samples.len() / 2 + 1);
    for pair in samples.chunks(2) {
        let [one, .., other] = pair else {
            halved.extend_from_slice(pair);
            continue;
        };
        let (first, second) = (one.time_ns - begun_ns, other.time_ns - one.time_ns);
        let mean = |one: f64, other: f64| {
            (one * first as f64 + other * second as f64) / (first + second).max(1) as f64
        };
        halved.push(Sample {
            time_ns: other.time_ns,
            rates: Rates {
                calls: mean(one.rates.calls, other.rates.calls),
                maps: mean(one.rates.maps, other.rates.maps),
                zaps: mean(one.rates.zaps, other.rates.zaps),
                busy: mean(one.rates.busy, other.rates.busy),
                errors: mean(one.rates.errors, other.rates.errors),
                records: mean(one.rates.records, other.rates.records),
            },
            lent: other.lent,
            violations: one.violations.saturating_add(other.violations),
            lost: one.lost.saturating_add(other.lost),
            p50_ns: one.p50_ns.max(other.p50_ns),
            p99_ns: one.p99_ns.max(other.p99_ns),
        });
        begun_ns = other.time_ns;
    }
    halved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(calls: u64, violations: u64) -> Totals {
        Totals { calls, maps: calls / 2, violations, ..Totals::default() }
    }

    #[test]
    fn a_recordings_samples_are_halved_and_none_is_lost() {
        let mut history = History::whole(1_000);
        for n in 1..=10_000_u64 {
            history.end_step(1_000 + n * FIRST_STEP_NS, totals(n * 3, n), Sample::default());
        }
        history.finish(1_000 + 10_000 * FIRST_STEP_NS + 5, totals(30_001, 10_001), Sample::default());
        let samples = history.samples();
        assert!((WHOLE / 2..=WHOLE).contains(&samples.len()), "{}", samples.len());
        assert_eq!(samples.iter().map(|sample| sample.violations).sum::<u64>(), 10_001);
        assert!(samples.is_sorted_by(|one, other| one.time_ns < other.time_ns));
        // Three calls in each 10 us.
        let rates: Vec<_> = samples.iter().map(|sample| sample.rates.calls).collect();
        assert!(rates[..rates.len() - 2].iter().all(|rate| (rate - 300_000.0).abs() < 1.0), "{rates:?}");
    }

    #[test]
    fn a_gap_is_one_step() {
        let mut history = History::whole(0);
        history.end_step(FIRST_STEP_NS * 1_000_000 + 7, totals(100, 1), Sample::default());
        let samples = history.samples();
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].time_ns, FIRST_STEP_NS * 1_000_000);
        assert_eq!(history.at(FIRST_STEP_NS), Sample::default());
        assert_eq!(history.at(u64::MAX), samples[0]);
    }

    #[test]
    fn a_watched_host_has_its_last_minutes() {
        let mut history = History::live(0, totals(50, 0));
        for second in 1..=700_u64 {
            let now_ns = second * 1_000_000_000;
            history.end_step(now_ns - 1, totals(0, 0), Sample::default());
            history.end_step(now_ns, totals(50 + second * 8, 0), Sample::default());
        }
        let samples = history.samples();
        assert_eq!((samples.len(), samples[0].time_ns), (LIVE, 101_000_000_000));
        assert_eq!(samples[0].rates.calls, 8.0);
        assert_eq!(samples[0].rates.maps, 4.0);
    }
}
