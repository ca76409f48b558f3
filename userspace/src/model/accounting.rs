//! Records produced, received, lost: exactly, whatever happens.
//!
//! The kernel side numbers every record before it asks for room, and counts those that found none. So
//! produced = received + lost for each stream, once nothing is under way; and a gap in a CPU's numbers is where the
//! loss happened.

use std::collections::HashMap;

use septwatch_common::config::{Counters, Produced};
use serde::Serialize;

use crate::source::event::Event;

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
    /// Records that arrived of each CPU, by whether they are vital: as many of the kernel's numbers are accounted for.
    next: HashMap<(u16, bool), u64>,
}

/// One stream, both ends held against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Records that the kernel side numbered.
    pub produced: u64,
    /// Those that arrived.
    pub received: u64,
    /// Those that found the ring buffer full.
    pub lost: u64,
}

impl Balance {
    /// Whether every record is accounted for.
    pub const fn is_exact(&self) -> bool {
        self.produced == self.received + self.lost
    }
}

impl Accounting {
    /// Counts an event in.
    pub fn received(&mut self, event: &Event) {
        let vital = event.is_vital();
        let stream = if vital { &mut self.vital } else { &mut self.pages };
        stream.received += 1;
        let header = event.header();
        let next = self.next.entry((header.cpu, vital)).or_default();
        // An interrupt's record can be numbered after, and arrive before, the one that it interrupted.
        if header.seq > *next {
            stream.gaps += 1;
        }
        *next = (*next).max(header.seq + 1);
    }

    /// Vital and page records, against what the kernel side counted.
    pub fn balance(&self, counters: &Counters) -> [Balance; 2] {
        let balance = |stream: &Stream, produced: &Produced| Balance {
            produced: produced.produced,
            received: stream.received,
            lost: produced.lost,
        };
        [balance(&self.vital, &counters.vital), balance(&self.pages, &counters.pages)]
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
    }

    #[test]
    fn exact_means_that_nothing_is_missing() {
        assert!(Balance { produced: 5, received: 3, lost: 2 }.is_exact());
        assert!(!Balance { produced: 5, received: 3, lost: 1 }.is_exact());
    }
}
