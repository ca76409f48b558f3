//! What SEAMCALLs did, TD by TD: how they were answered, and what they moved. For views; the model itself needs none of
//! it.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use hdrhistogram::Histogram;
use septwatch_common::{
    Leaf, Level, Status,
    config::{Answers, SHAPES},
    wire::SeamcallErr,
    zap::PFN_UNKNOWN,
};

use super::histogram::Summary;
use crate::source::event::Event;

/// Answers of one leaf, none yet.
pub const UNANSWERED: Answers = Answers { ok: 0, busy: 0, error: 0 };

/// Statuses that are told apart for a TD, or the host: those that the module answers are some tens.
const STATUSES: usize = 256;

/// SEAMCALLs, counted.
#[derive(Clone, Debug)]
pub struct Calls {
    /// Answers by the number of the leaf.
    pub answers: [Answers; SHAPES],
    /// Statuses other than success, with how often they came, by the number of the leaf.
    statuses: BTreeMap<(u8, u64), u64>,
}

impl Default for Calls {
    fn default() -> Self {
        Self { answers: [UNANSWERED; SHAPES], statuses: BTreeMap::new() }
    }
}

impl Calls {
    /// Answers that somebody else counted.
    pub fn counted(answers: [Answers; SHAPES]) -> Self {
        Self { answers, statuses: BTreeMap::new() }
    }

    fn count(&mut self, call: &SeamcallErr) {
        let status = Status(call.status);
        let Some(answers) = self.answers.get_mut(usize::from(call.call.leaf)) else { return };
        if call.status == 0 {
            answers.ok += 1;
            return;
        }
        let counted = if status.is_busy() { &mut answers.busy } else { &mut answers.error };
        *counted += 1;
        let key = (call.call.leaf, status.without_operand().0);
        if self.statuses.len() < STATUSES || self.statuses.contains_key(&key) {
            *self.statuses.entry(key).or_default() += 1;
        }
    }

    /// Statuses of a leaf other than success, the most frequent first.
    pub fn statuses(&self, leaf: Leaf) -> Vec<(Status, u64)> {
        let of_leaf = self.statuses.range((leaf as u8, 0)..=(leaf as u8, u64::MAX));
        let mut statuses: Vec<_> = of_leaf.map(|((_, status), count)| (Status(*status), *count)).collect();
        statuses.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        statuses
    }

    /// How a leaf was answered.
    pub fn of(&self, leaf: Leaf) -> Answers {
        self.answers.get(leaf as usize).copied().unwrap_or(UNANSWERED)
    }
}

/// What the SEAMCALLs of a TD did.
#[derive(Clone, Debug, Default)]
pub struct OfTd {
    /// How they were answered.
    pub calls: Calls,
    /// Frames that were added before it ran (TDH.MEM.PAGE.ADD).
    pub added: u64,
    /// Frames that were added while it ran (TDH.MEM.PAGE.AUG).
    pub augmented: u64,
    /// Frames that were removed.
    pub removed: u64,
}

/// What SEAMCALLs did.
#[derive(Debug, Default)]
pub struct Activity {
    /// All of them.
    pub host: Calls,
    /// Of each TD, by the frame of its TDR.
    tds: HashMap<u64, OfTd, RandomState>,
    /// TDR of a vCPU, by the frame of its TDVPR.
    vcpus: HashMap<u64, u64, RandomState>,
    /// Latencies since they were taken last.
    recent: Option<Histogram<u64>>,
}

impl Activity {
    /// Takes an event in.
    pub fn event(&mut self, event: &Event) {
        let Event::Call(call) = event else { return };
        self.host.count(call);
        self.latency(call.call.took_ns);
        let leaf = Leaf::from_number(u64::from(call.call.leaf));
        let done = call.status == 0;
        let tdr = match leaf {
            Some(Leaf::VpAddcx) => self.vcpus.get(&call.call.tdr).copied().unwrap_or(PFN_UNKNOWN),
            _ => call.call.tdr,
        };
        if tdr == PFN_UNKNOWN {
            return;
        }
        match leaf {
            // A frame is another TD's TDR now.
            Some(Leaf::MngCreate) if done => drop(self.tds.remove(&tdr)),
            Some(Leaf::VpCreate) if done => drop(self.vcpus.insert(call.call.pfn, tdr)),
            _ => {}
        }
        let td = self.tds.entry(tdr).or_default();
        td.calls.count(call);
        let frames = Level::from_tdx(u64::from(call.call.level)).map_or(1, Level::frames);
        let moved = match leaf {
            Some(Leaf::MemPageAdd) => &mut td.added,
            Some(Leaf::MemPageAug) => &mut td.augmented,
            Some(Leaf::MemPageRemove) => &mut td.removed,
            _ => return,
        };
        if done {
            *moved = moved.saturating_add(frames);
        }
    }

    fn latency(&mut self, took_ns: u32) {
        if took_ns == 0 {
            return;
        }
        if self.recent.is_none() {
            self.recent = Histogram::new_with_bounds(1, u64::from(u32::MAX), 2).ok();
        }
        if let Some(recent) = &mut self.recent {
            recent.saturating_record(took_ns.into());
        }
    }

    /// The latencies since this was asked last; none: nothing was measured.
    pub fn take_latency(&mut self) -> Option<Summary> {
        let recent = self.recent.as_mut().filter(|recent| !recent.is_empty())?;
        let summary = Summary::of(recent);
        recent.reset();
        Some(summary)
    }

    /// What the SEAMCALLs of the TD with this TDR did.
    pub fn td(&self, tdr: u64) -> Option<&OfTd> {
        self.tds.get(&tdr)
    }

    /// Forgets TDs that nobody asks for any more.
    pub fn retain(&mut self, mut is_known: impl FnMut(u64) -> bool) {
        self.tds.retain(|tdr, _| is_known(*tdr));
        let tds = &self.tds;
        self.vcpus.retain(|_, tdr| tds.contains_key(tdr));
    }

    /// TDs that it knows of.
    pub fn len(&self) -> usize {
        self.tds.len()
    }

    /// Whether no TD was seen.
    pub fn is_empty(&self) -> bool {
        self.tds.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    fn call(leaf: Leaf, tdr: u64, pfn: u64, level: Level, status: u64) -> Event {
        let mut call = SeamcallErr::new_zeroed();
        (call.call.leaf, call.call.tdr, call.call.pfn, call.call.level) = (leaf as u8, tdr, pfn, level as u8);
        (call.status, call.call.took_ns) = (status, 500);
        Event::Call(call)
    }

    #[test]
    fn a_tds_calls_are_its_own_until_its_tdr_is_anothers() {
        let busy = 0x8000_0200_0000_0001;
        let mut activity = Activity::default();
        for event in [
            call(Leaf::MngCreate, 7, PFN_UNKNOWN, Level::L4K, 0),
            call(Leaf::VpCreate, 7, 99, Level::L4K, 0),
            call(Leaf::VpAddcx, 99, 100, Level::L4K, 0),
            call(Leaf::MemPageAug, 7, 4096, Level::L2M, 0),
            call(Leaf::MemPageAug, 8, 8192, Level::L4K, 0),
            call(Leaf::MemPageRemove, 7, PFN_UNKNOWN, Level::L4K, busy),
            call(Leaf::MemPageRemove, 7, PFN_UNKNOWN, Level::L4K, busy | 0xff),
            call(Leaf::MemPageRemove, 7, 4096, Level::L4K, 0),
            call(Leaf::PhymemPageWbinvd, PFN_UNKNOWN, 4096, Level::L4K, 0),
        ] {
            activity.event(&event);
        }
        let td = activity.td(7).cloned().unwrap_or_default();
        assert_eq!((td.added, td.augmented, td.removed), (0, 512, 1));
        assert_eq!(td.calls.of(Leaf::VpAddcx).ok, 1);
        let Answers { ok, busy, error } = td.calls.of(Leaf::MemPageRemove);
        assert_eq!((ok, busy, error), (1, 2, 0));
        let statuses = td.calls.statuses(Leaf::MemPageRemove);
        assert_eq!(statuses.iter().map(|(_, count)| count).sum::<u64>(), 2);
        assert_eq!(activity.host.of(Leaf::PhymemPageWbinvd).ok, 1);
        assert_eq!(activity.take_latency().map(|latency| latency.count), Some(9));
        assert_eq!(activity.take_latency(), None);
        activity.event(&call(Leaf::MngCreate, 7, PFN_UNKNOWN, Level::L4K, 0));
        assert_eq!(activity.td(7).map(|td| td.augmented), Some(0));
        activity.retain(|tdr| tdr == 8);
        assert_eq!((activity.len(), activity.td(8).is_some()), (1, true));
    }
}
