//! Records produced, received, lost: exactly, whatever happens.
//!
//! The kernel side numbers every record before it asks for room, and counts those that found none. So
//! produced = received + lost for each stream, once nothing is under way; and a gap in a CPU's numbers is where the
//! loss happened.

mod sequence;

use septwatch_common::config::{Counters, Produced};
use serde::{Deserialize, Serialize};

use crate::source::event::Event;
pub use sequence::Sequence;

/// What came out of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stream {
    /// Records that arrived.
    pub received: u64,
    /// Gaps in their numbers.
    pub gaps: u64,
}

/// Both streams.
#[derive(Clone, Debug, Default)]
pub struct Accounting {
    /// Lifecycle and violations.
    pub vital: Stream,
    /// Page records.
    pub pages: Stream,
    /// The numbers that arrived, by CPU and stream. Grows up to the highest CPU seen, which is at most 65535.
    sequences: Vec<[Option<Sequence>; 2]>,
    /// By CPU and stream, what was numbered and lost before this process took over.
    before: Vec<[Produced; 2]>,
    /// Of the records that arrived, those that were numbered before.
    backlog: [u64; 2],
    /// See [`Self::gaps_are_meant`].
    gaps_are_meant: bool,
}

/// One stream, both ends held against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// Records that the kernel side numbered.
    pub produced: u64,
    /// Those that arrived here.
    pub received: u64,
    /// Those that arrived at processes before this one.
    pub earlier: u64,
    /// Those that found the ring buffer full.
    pub lost: u64,
}

impl Balance {
    /// Whether every record is accounted for.
    pub const fn is_exact(&self) -> bool {
        let others = self.earlier.checked_add(self.lost);
        match (self.produced.checked_sub(self.received), others) {
            (Some(not_here), Some(others)) => not_here == others,
            _ => false,
        }
    }
}

impl Accounting {
    /// Goes on where other processes ended: what was numbered by then and has not been lost nor is in the rings, they
    /// have received.
    pub fn resume(&mut self, before: &[[Produced; 2]]) {
        self.before = before.to_vec();
    }

    /// Records were left out on purpose: numbers that are missing tell no loss, and are not looked at.
    pub fn gaps_are_meant(&mut self) {
        self.gaps_are_meant = true;
    }

    /// Records that arrived, of both streams.
    pub fn records(&self) -> u64 {
        self.vital.received.saturating_add(self.pages.received)
    }

    fn before(&self, cpu: u16, stream: usize) -> u64 {
        self.before.get(usize::from(cpu)).map_or(0, |streams| streams[stream].produced)
    }

    /// Counts an event in.
    pub fn received(&mut self, event: &Event) {
        let vital = event.is_vital();
        let stream = if vital { &mut self.vital } else { &mut self.pages };
        stream.received += 1;
        if self.gaps_are_meant {
            return;
        }
        let header = event.header();
        let at = usize::from(!vital);
        self.backlog[at] += u64::from(header.seq < self.before(header.cpu, at));
        // Of a CPU's numbers before the first that arrives, another process knows.
        let first = if self.before.is_empty() { 0 } else { header.seq };
        let cpu = usize::from(header.cpu);
        if cpu >= self.sequences.len() {
            self.sequences.resize(cpu + 1, [const { None }; 2]);
        }
        let sequence = self.sequences[cpu][at].get_or_insert_with(|| Sequence::beginning_at(first));
        let stream = if vital { &mut self.vital } else { &mut self.pages };
        stream.gaps += u64::from(sequence.received(header.seq));
    }

    /// Numbers of the vital records that arrived, by CPU.
    pub fn vital_sequences(&self) -> impl Iterator<Item = (u16, &Sequence)> {
        self.sequences_of(0)
    }

    /// Numbers of the page records that arrived, by CPU.
    pub fn page_sequences(&self) -> impl Iterator<Item = (u16, &Sequence)> {
        self.sequences_of(1)
    }

    fn sequences_of(&self, stream: usize) -> impl Iterator<Item = (u16, &Sequence)> {
        (0..=u16::MAX)
            .zip(&self.sequences)
            .filter_map(move |(cpu, streams)| Some((cpu, streams[stream].as_ref()?)))
    }

    /// What [`Self::resume`] takes, for who goes on from here: by CPU and stream, what was numbered, and not received.
    pub fn so_far(&self) -> Vec<[Produced; 2]> {
        let cpus = self.sequences.len().max(self.before.len());
        let of = |cpu: usize, at: usize| {
            let before =
                self.before.get(cpu).map_or(Produced { produced: 0, lost: 0 }, |streams| streams[at]);
            let seen = self.sequences.get(cpu).and_then(|streams| streams[at].as_ref());
            seen.map_or(before, |seen| Produced {
                produced: seen.next().max(before.produced),
                lost: seen.missing().saturating_add(before.lost),
            })
        };
        (0..cpus).map(|cpu| [of(cpu, 0), of(cpu, 1)]).collect()
    }

    /// Vital and page records, against what the kernel side counted.
    pub fn balance(&self, counters: &Counters) -> [Balance; 2] {
        let balance = |at: usize, stream: &Stream, produced: &Produced| {
            let before = self.before.iter().map(|streams| streams[at]);
            let earlier = before
                .fold(0, |sum: u64, of_cpu| sum.saturating_add(of_cpu.produced.saturating_sub(of_cpu.lost)));
            Balance {
                produced: produced.produced,
                received: stream.received,
                earlier: earlier.saturating_sub(self.backlog[at]),
                lost: produced.lost,
            }
        };
        [balance(0, &self.vital, &counters.vital), balance(1, &self.pages, &counters.pages)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use septwatch_common::wire::{Frame, Header, Kind, VERSION};

    fn event(cpu: u16, seq: u64) -> Event {
        let header = Header { time_ns: 0, seq, tgid: 1, cpu, kind: Kind::Frame as u8, version: VERSION };
        Event::Frame(Frame { header, pfn: 0, tid: 1, hook: 0, zero: [0; 3] })
    }

    #[test]
    fn a_gap_is_seen_where_it_is() {
        let mut accounting = Accounting::default();
        for (cpu, seq) in [(0, 0), (1, 0), (0, 1), (0, 4), (1, 1)] {
            accounting.received(&event(cpu, seq));
        }
        assert_eq!(accounting.pages, Stream { received: 5, gaps: 1 });
        assert_eq!(accounting.vital, Stream::default());
        let missing: Vec<_> =
            accounting.page_sequences().map(|(cpu, sequence)| (cpu, sequence.missing())).collect();
        assert_eq!(missing, [(0, 2), (1, 0)]);
        assert_eq!(accounting.vital_sequences().count(), 0);
    }

    #[test]
    fn numbers_that_no_kernel_gives_are_counted_without_a_panic() {
        let mut accounting = Accounting::default();
        for (cpu, seq) in [(u16::MAX, u64::MAX), (u16::MAX, u64::MAX), (0, u64::MAX), (0, 0), (u16::MAX, 7)] {
            accounting.received(&event(cpu, seq));
        }
        assert_eq!(accounting.pages.received, 5);
        assert!(!Balance { produced: 1, received: 2, earlier: u64::MAX, lost: 1 }.is_exact());
    }

    #[test]
    fn what_others_received_counts_once() {
        let mut accounting = Accounting::default();
        let made = |produced, lost| [Produced { produced, lost }, Produced { produced, lost }];
        // CPU 0 made 10 of which 2 were lost and 3 still wait; CPU 1 made 4, all received by others.
        accounting.resume(&[made(10, 2), made(4, 0)]);
        for seq in [7, 8, 9, 10, 11] {
            accounting.received(&event(0, seq));
        }
        let mut counters = crate::source::counters::NOTHING;
        counters.pages = Produced { produced: 12 + 4, lost: 2 };
        let [_, pages] = accounting.balance(&counters);
        assert_eq!(pages, Balance { produced: 16, received: 5, earlier: 9, lost: 2 });
        assert!(pages.is_exact());
        assert_eq!(accounting.pages.gaps, 0);
    }

    #[test]
    fn gaps_that_are_meant_are_none() {
        let mut accounting = Accounting::default();
        accounting.gaps_are_meant();
        for seq in [7, 900, 20] {
            accounting.received(&event(0, seq));
        }
        assert_eq!(accounting.pages, Stream { received: 3, gaps: 0 });
        assert_eq!(accounting.page_sequences().count(), 0);
    }

    #[test]
    fn exact_means_that_nothing_is_missing() {
        assert!(Balance { produced: 5, received: 2, earlier: 1, lost: 2 }.is_exact());
        assert!(!Balance { produced: 5, received: 3, earlier: 0, lost: 1 }.is_exact());
    }
}
