//! The last events, kept so that those about one frame are found at once: what happened to it before a violation.
//!
//! Costs about 130 bytes an event, up to [`KEPT`] of them, and some tens of ns for each.

use std::hash::BuildHasher as _;

use foldhash::fast::FixedState;
use septwatch_common::{Leaf, Level, wire::ViolationEvent, zap::PFN_UNKNOWN};

use crate::source::event::Event;

/// Events that are kept.
pub const KEPT: usize = 1 << 18;

/// Chains that events are found by.
const CHAINS: usize = 1 << 17;

/// Links of a chain that are followed at most: a question must not take longer than an event lasts.
const FOLLOWED: usize = 4096;

/// No event.
const NONE: u64 = u64::MAX;

/// What an event is found by.
#[derive(Clone, Copy)]
enum Key {
    Frame(u64),
    /// TDR, first guest frame.
    Guest(u64, u64),
    /// BLOCKs and TRACKs of the TD with this TDR.
    Zaps(u64),
}

struct Kept {
    event: Event,
    /// Numbers of the events before it on its chains.
    before: [u64; 2],
}

/// The last events.
#[derive(Default)]
pub struct Stories {
    kept: Vec<Kept>,
    /// Number of the next event.
    next: u64,
    /// Number of the last event on each chain.
    chains: Vec<u64>,
}

impl Stories {
    /// Takes an event in.
    pub fn event(&mut self, event: &Event) {
        let keys = keys(event);
        if keys == [None, None] {
            return;
        }
        if self.chains.is_empty() {
            self.chains = vec![NONE; CHAINS];
        }
        let mut before = [NONE; 2];
        for (key, before) in keys.into_iter().zip(&mut before) {
            if let Some(chain) = key {
                *before = std::mem::replace(&mut self.chains[chain], self.next);
            }
        }
        let kept = Kept { event: event.clone(), before };
        let at = (self.next % KEPT as u64) as usize;
        match self.kept.get_mut(at) {
            Some(old) => *old = kept,
            None => self.kept.push(kept),
        }
        self.next += 1;
    }

    /// Events that may be about a violation's frame, in the order in which they happened. Some are about others.
    pub fn about(&self, violation: &ViolationEvent) -> Vec<&Event> {
        let mut numbers = Vec::new();
        let mut follow = |key: Key| {
            let chain = chain(key);
            let mut number = self.chains.get(chain).copied().unwrap_or(NONE);
            for _ in 0..FOLLOWED {
                let Some(kept) = self.get(number) else { break };
                numbers.push(number);
                let of = keys(&kept.event).iter().position(|key| *key == Some(chain));
                number = of.map_or(NONE, |of| kept.before[of]);
            }
        };
        if violation.pfn != PFN_UNKNOWN {
            follow(Key::Frame(violation.pfn));
        }
        if violation.td_id != 0 {
            for level in [Level::L4K, Level::L2M, Level::L1G] {
                follow(Key::Guest(violation.tdr, level.head(violation.gfn)));
            }
            follow(Key::Zaps(violation.tdr));
        }
        numbers.sort_unstable();
        numbers.dedup();
        let mut events: Vec<_> =
            numbers.into_iter().filter_map(|number| Some(&self.get(number)?.event)).collect();
        // Vital records and page records arrive one after the other.
        events.sort_by_key(|event| order(event));
        events
    }

    fn get(&self, number: u64) -> Option<&Kept> {
        let is_kept = number < self.next && self.next - number <= KEPT as u64;
        is_kept.then(|| self.kept.get((number % KEPT as u64) as usize)).flatten()
    }
}

/// Where an event stands among others: what a violation was found by comes before it.
pub fn order(event: &Event) -> (u64, bool) {
    (event.header().time_ns, matches!(event, Event::Violation(_)))
}

fn chain(key: Key) -> usize {
    const STATE: FixedState = FixedState::with_seed(0);
    let hash = match key {
        Key::Frame(pfn) => STATE.hash_one((0_u64, pfn)),
        Key::Guest(tdr, gfn) => STATE.hash_one((tdr, gfn)),
        Key::Zaps(tdr) => STATE.hash_one((tdr, u64::MAX)),
    };
    hash as usize % CHAINS
}

/// The chains that an event is on.
fn keys(event: &Event) -> [Option<usize>; 2] {
    let frame = |pfn| (pfn != PFN_UNKNOWN).then_some(Key::Frame(pfn));
    let keys = match event {
        Event::Call(call) => {
            let call = &call.call;
            let leaf = Leaf::from_number(u64::from(call.leaf));
            let level = Level::from_tdx(u64::from(call.level)).unwrap_or(Level::L4K);
            let guest = Key::Guest(call.tdr, level.head(call.gfn));
            match leaf {
                Some(Leaf::MemTrack) => [Some(Key::Zaps(call.tdr)), None],
                Some(Leaf::MngCreate) => [frame(call.tdr), None],
                Some(Leaf::MemRangeBlock) => [Some(Key::Zaps(call.tdr)), Some(guest)],
                Some(leaf) if leaf.names_gpa() => [frame(call.pfn), Some(guest)],
                _ => [frame(call.pfn), None],
            }
        }
        Event::Frame(event) => [frame(event.pfn), None],
        Event::Violation(event) => {
            let guest = (event.td_id != 0).then_some(Key::Guest(event.tdr, event.gfn));
            [frame(event.pfn), guest]
        }
        Event::Life(_) | Event::Vm(_) => [None, None],
    };
    keys.map(|key| key.map(chain))
}

#[cfg(test)]
pub(crate) mod tests {
    use septwatch_common::wire::{Header, Kind, SeamcallErr, VERSION};
    use zerocopy::FromZeros as _;

    use super::*;

    /// A SEAMCALL that succeeded, for the TD whose TDR is in frame 77.
    pub(crate) fn call(time_ns: u64, leaf: Leaf, gfn: u64, pfn: u64) -> Event {
        let mut call = SeamcallErr::new_zeroed();
        let kind = Kind::SeamcallOk as u8;
        call.call.header = Header { time_ns, seq: 0, tgid: 1, cpu: 0, kind, version: VERSION };
        (call.call.leaf, call.call.tdr, call.call.gfn, call.call.pfn) = (leaf as u8, 77, gfn, pfn);
        Event::Call(call)
    }

    fn violation(gfn: u64, pfn: u64) -> ViolationEvent {
        let mut event = ViolationEvent::new_zeroed();
        (event.td_id, event.tdr, event.gfn, event.pfn) = (1, 77, gfn, pfn);
        event
    }

    fn times(stories: &Stories, gfn: u64, pfn: u64) -> Vec<u64> {
        stories.about(&violation(gfn, pfn)).into_iter().map(|event| event.header().time_ns).collect()
    }

    #[test]
    fn a_frames_events_are_found_among_others() {
        let mut stories = Stories::default();
        for n in 0..1000 {
            stories.event(&call(n, Leaf::MemPageAug, n, 5000 + n));
        }
        stories.event(&call(1001, Leaf::MemRangeBlock, 7, PFN_UNKNOWN));
        stories.event(&call(1002, Leaf::MemTrack, 0, PFN_UNKNOWN));
        stories.event(&call(1003, Leaf::MemPageRemove, 7, PFN_UNKNOWN));
        stories.event(&call(1004, Leaf::PhymemPageWbinvd, 0, 5007));
        let found = times(&stories, 7, 5007);
        for time in [7, 1001, 1002, 1003, 1004] {
            assert!(found.contains(&time), "{found:?}");
        }
        assert!(found.len() < 20 && found.is_sorted(), "{found:?}");
    }

    #[test]
    fn what_is_older_than_what_is_kept_is_not_found() {
        let mut stories = Stories::default();
        stories.event(&call(1, Leaf::MemPageAug, 7, 5007));
        for n in 0..KEPT as u64 - 1 {
            stories.event(&call(2 + n, Leaf::MemPageAug, 1 << 30 | n, 1 << 40 | n));
        }
        assert!(times(&stories, 7, 5007).contains(&1));
        stories.event(&call(u64::MAX, Leaf::MemPageAug, 1 << 29, 1 << 39));
        assert!(!times(&stories, 7, 5007).contains(&1));
        assert_eq!(stories.kept.len(), KEPT);
    }
}
