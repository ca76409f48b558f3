//! How often ladders acted: what limits, cool-downs and rates look at. The memory for it is bounded, and times are those
//! of the verdicts.

use std::collections::{BTreeMap, VecDeque};

use super::file::{Limit, words::MOST};

/// Entries that are kept of each kind; of more, the one that was touched longest ago is forgotten. More TDs than can be
/// tracked at a time.
const ENTRIES: usize = 4096;

/// A TD's number; none stands for verdicts that name no TD.
pub type Td = Option<u32>;

/// The last times of something.
#[derive(Clone, Debug, Default)]
struct Times(VecDeque<u64>);

impl Times {
    /// How many are within a limit's time.
    fn within(&self, limit: Limit, now_ns: u64) -> u32 {
        let per = u64::try_from(limit.per.as_nanos()).unwrap_or(u64::MAX);
        let recent = self.0.iter().rev().take_while(|then| now_ns.saturating_sub(**then) < per);
        u32::try_from(recent.count()).unwrap_or(u32::MAX)
    }

    fn push(&mut self, now_ns: u64) {
        if self.0.len() >= MOST as usize {
            self.0.pop_front();
        }
        // Verdicts of several CPUs come nearly in order; it must be kept.
        self.0.push_back(self.0.back().map_or(now_ns, |last| now_ns.max(*last)));
    }

    fn last(&self) -> u64 {
        self.0.back().copied().unwrap_or(0)
    }
}

fn entry<K: Ord + Copy, V: Default>(map: &mut BTreeMap<K, V>, key: K, touched: impl Fn(&V) -> u64) -> &mut V {
    if map.len() >= ENTRIES
        && !map.contains_key(&key)
        && let Some(oldest) = map.iter().min_by_key(|(_, value)| touched(value)).map(|(key, _)| *key)
    {
        map.remove(&oldest);
    }
    map.entry(key).or_default()
}

/// When ladders acted.
#[derive(Clone, Debug, Default)]
pub struct Acted {
    host: Times,
    tds: BTreeMap<Td, Times>,
    /// By TD and place of the rule.
    rules: BTreeMap<(Td, u32), u64>,
}

impl Acted {
    /// Takes a ladder in that acts.
    pub fn push(&mut self, td: Td, rule: u32, now_ns: u64) {
        self.host.push(now_ns);
        entry(&mut self.tds, td, Times::last).push(now_ns);
        *entry(&mut self.rules, (td, rule), |last| *last) = now_ns;
    }

    /// When the rule acted on the TD last.
    pub fn last(&self, td: Td, rule: u32) -> Option<u64> {
        self.rules.get(&(td, rule)).copied()
    }

    /// How often ladders may still act on the host.
    pub fn host_left(&self, limit: Limit, now_ns: u64) -> u32 {
        limit.count.saturating_sub(self.host.within(limit, now_ns))
    }

    /// How often they may still act on a TD.
    pub fn td_left(&self, td: Td, limit: Limit, now_ns: u64) -> u32 {
        limit.count.saturating_sub(self.tds.get(&td).map_or(0, |times| times.within(limit, now_ns)))
    }

    /// TDs that were acted on.
    pub fn tds(&self) -> impl Iterator<Item = Td> {
        self.tds.keys().copied()
    }

    /// Forgets a TD. What was done to it still counts for the host.
    pub fn forget(&mut self, td: u32) {
        self.tds.remove(&Some(td));
        self.rules.retain(|(of, _), _| *of != Some(td));
    }

    /// The same with rules at other places; one without a place is forgotten.
    pub fn moved(&self, place: impl Fn(u32) -> Option<u32>) -> Self {
        Self { host: self.host.clone(), tds: self.tds.clone(), rules: moved(&self.rules, place) }
    }
}

/// How often rules with a rate matched, by TD and place of the rule.
#[derive(Clone, Debug, Default)]
pub struct Rates(BTreeMap<(Td, u32), Times>);

impl Rates {
    /// Takes a verdict in. True: it is the so-many-th, or a later one, within the time.
    pub fn reached(&mut self, td: Td, rule: u32, rate: Limit, now_ns: u64) -> bool {
        let times = entry(&mut self.0, (td, rule), Times::last);
        times.push(now_ns);
        while times.0.len() > rate.count as usize {
            times.0.pop_front();
        }
        times.within(rate, now_ns) >= rate.count
    }

    /// Forgets a TD.
    pub fn forget(&mut self, td: u32) {
        self.0.retain(|(of, _), _| *of != Some(td));
    }

    /// The same with rules at other places; one without a place is forgotten.
    pub fn moved(&self, place: impl Fn(u32) -> Option<u32>) -> Self {
        Self(moved(&self.0, place))
    }
}

fn moved<V: Clone>(
    rules: &BTreeMap<(Td, u32), V>,
    place: impl Fn(u32) -> Option<u32>,
) -> BTreeMap<(Td, u32), V> {
    rules.iter().filter_map(|((td, rule), value)| Some(((*td, place(*rule)?), value.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TWICE: Limit = Limit { count: 2, per: Duration::from_nanos(100) };

    #[test]
    fn a_limit_is_for_any_span_of_its_time() {
        let mut acted = Acted::default();
        for (now, host, td) in [(0, 2, 2), (60, 1, 1), (99, 0, 0)] {
            assert_eq!(
                (acted.host_left(TWICE, now), acted.td_left(Some(1), TWICE, now)),
                (host, td),
                "{now}"
            );
            if host != 0 {
                acted.push(Some(1), 0, now);
            }
        }
        assert_eq!(acted.host_left(TWICE, 100), 1, "the first is 100 ns ago");
        assert_eq!(acted.td_left(Some(2), TWICE, 99), 2, "another TD");
        assert_eq!((acted.last(Some(1), 0), acted.last(Some(1), 1)), (Some(60), None));
        acted.forget(1);
        assert_eq!(acted.td_left(Some(1), TWICE, 99), 2);
        assert_eq!(acted.host_left(TWICE, 99), 0);
    }

    #[test]
    fn times_that_come_late_are_not_taken_for_old_ones() {
        let mut acted = Acted::default();
        acted.push(None, 0, 1000);
        acted.push(None, 0, 950);
        assert_eq!(acted.host_left(TWICE, 1080), 0);
    }

    #[test]
    fn a_rate_slides() {
        let mut rates = Rates::default();
        let rate = Limit { count: 3, per: Duration::from_nanos(10) };
        let reached: Vec<_> =
            [0, 5, 9, 12, 100, 101, 102].map(|now| rates.reached(Some(1), 0, rate, now)).into();
        assert_eq!(reached, [false, false, true, true, false, false, true]);
        assert!(!rates.reached(Some(2), 0, rate, 103));
    }

    #[test]
    fn memory_is_bounded() {
        let mut acted = Acted::default();
        let mut rates = Rates::default();
        for td in 0..20_000 {
            acted.push(Some(td), td % 7, u64::from(td));
            rates.reached(Some(td), 0, TWICE, u64::from(td));
        }
        assert_eq!((acted.tds.len(), acted.rules.len(), rates.0.len()), (ENTRIES, ENTRIES, ENTRIES));
        assert_eq!(acted.host.0.len(), MOST as usize);
        assert_eq!(acted.td_left(Some(19_999), TWICE, 20_000), 1);
    }
}
