//! How long reactions take: from the violation to when they are done, by reaction and by who did it.

use std::collections::{BTreeMap, btree_map::Entry};

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use super::audit::{By, Step};
use crate::{
    model::histogram::{Octave, Summary, octaves},
    view::{histogram, lines::span},
};

/// Longest time that is told apart, in ns: an hour.
const LONGEST_NS: u64 = 3600 * 1_000_000_000;

/// The times of the reactions that were done.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    by: BTreeMap<(&'static str, By), Histogram<u64>>,
}

impl Latencies {
    /// Takes a step in, if it was done.
    pub fn step(&mut self, step: &Step) {
        let Some(latency_ns) = step.latency_ns else { return };
        let histogram = match self.by.entry((step.reaction, step.by)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                // Three digits: 1 in 1,000. A histogram of these bounds can always be made.
                let Ok(histogram) = Histogram::new_with_bounds(1, LONGEST_NS, 3) else { return };
                entry.insert(histogram)
            }
        };
        histogram.saturating_record(latency_ns);
    }

    /// The times of each reaction summed up, in the order of their names.
    pub fn summaries(&self) -> impl Iterator<Item = (&'static str, By, Summary)> {
        self.by.iter().map(|((reaction, by), histogram)| (*reaction, *by, Summary::of(histogram)))
    }

    /// The times of a reaction by powers of two.
    pub fn octaves(&self, reaction: &'static str, by: By) -> Vec<Octave> {
        self.by.get(&(reaction, by)).map(octaves).unwrap_or_default()
    }
}

/// One object: by the reaction's name and by who did it, a summary and the counts by powers of two.
impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Of {
            #[serde(flatten)]
            summary: Summary,
            /// From a power of two of ns on, and how many.
            octaves: Vec<(u64, u64)>,
        }
        let mut reactions = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (reaction, by, summary) in self.summaries() {
            let octaves = self.octaves(reaction, by);
            let octaves = octaves.iter().map(|octave| (octave.from_ns, octave.count)).collect();
            reactions.entry(reaction).or_default().insert(by, Of { summary, octaves });
        }
        reactions.serialize(serializer)
    }
}

/// For people: a line for each reaction and who did it, and under it its histogram.
pub fn rows(latencies: &Latencies) -> Vec<String> {
    let row = |(reaction, by, summary): (&'static str, By, Summary)| {
        let Summary { count, min_ns, p50_ns, p99_ns, max_ns } = summary;
        let [min, p50, p99, max] = [min_ns, p50_ns, p99_ns, max_ns].map(span);
        let head =
            format!("{reaction} by {}: {count}, min {min}, p50 {p50}, p99 {p99}, max {max}", by.name());
        let bars = histogram::rows(&latencies.octaves(reaction, by));
        std::iter::once(head).chain(bars)
    };
    latencies.summaries().flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::actor::tests::step, *};

    #[test]
    fn what_was_done_counts_under_its_name_and_by_whom() {
        let mut latencies = Latencies::default();
        let of = |by, latency_ns| Step { by, latency_ns, ..step("hold") };
        for step in [
            of(By::Kernel, Some(900)),
            of(By::Kernel, Some(0)),
            of(By::Agent, Some(2_000_000)),
            of(By::Agent, None),
            Step { latency_ns: Some(u64::MAX), ..step("stop") },
        ] {
            latencies.step(&step);
        }
        let json = serde_json::json!(latencies);
        assert_eq!(json["hold"]["kernel"]["count"], 2);
        assert_eq!(json["hold"]["agent"]["count"], 1);
        assert_eq!(json["hold"]["agent"]["octaves"], serde_json::json!([[1 << 20, 1]]));
        assert_eq!(json["stop"]["agent"]["count"], 1, "what is longer than an hour counts as an hour");
        let rows = rows(&latencies);
        assert!(
            rows.iter().any(|row| row.starts_with("hold by agent: 1, min 2.0 ms, p50 2.0 ms")),
            "{rows:?}"
        );
    }
}
