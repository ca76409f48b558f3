//! The rows of tables, and what is shown of the TD that is open.

use std::{collections::HashMap, sync::Arc};

use septwatch_common::{Leaf, Life, Td, Violation, kvm::VmStage};

use super::{Facts, Stage, Totals};
use crate::{
    model::{
        Model, TdState,
        activity::{self, Calls},
        census::States,
        latency::Latencies,
    },
    policy::subject::Subject,
    source::event::Event,
    view::top::scene::{LeafRow, Rates, TdDetail, TdRow},
};

/// Points of a TD's memory over time.
const POINTS: usize = 240;
/// TDs that are gone and still shown.
const GONE: usize = 256;

/// How a TD is called.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// Its name.
    pub name: Option<Arc<str>>,
    /// cgroup v2 path of its VMM.
    pub cgroup: Option<Arc<str>>,
}

/// Names of TDs.
#[derive(Debug, Default)]
pub struct Names {
    /// They are asked of the processes that run here.
    here: bool,
    known: HashMap<u32, Named>,
}

impl Names {
    /// Of TDs of this host.
    pub fn here() -> Self {
        Self { here: true, ..Self::default() }
    }

    /// The name of a TD. Its process is looked at once.
    pub fn of(&mut self, id: u32, td: &TdState) -> Named {
        if !self.here {
            return Named::default();
        }
        let known = self.known.entry(id).or_insert_with(|| {
            let subject = Subject::of_process(id, td.tgid, td.begun_ns);
            Named { name: subject.name.map(Arc::from), cgroup: subject.cgroup.map(Arc::from) }
        });
        known.clone()
    }
}

/// What of a TD no record has.
#[derive(Clone, Debug, Default)]
pub struct OfTd {
    /// Zaps that failed.
    pub failed_zaps: u64,
    /// When KVM called its VM bugged.
    pub bugged_ns: Option<u64>,
    /// When its HKID was freed, and how many frames were lent to it then.
    pub key_freed: Option<(u64, u64)>,
    /// When its VM was destroyed.
    pub destroyed_ns: Option<u64>,
    /// When its last vCPU was out after it was bugged.
    pub vcpus_out_ns: Option<u64>,
    comm: Arc<str>,
    states: Vec<States>,
    /// Its calls of a step ago, and when that was.
    before: (u64, Totals),
    rates: Rates,
}

impl OfTd {
    /// Takes an event about it in.
    pub fn event(&mut self, event: &Event) {
        let time_ns = event.header().time_ns;
        match event {
            Event::Life(life) if life.life == Life::KeyFreed as u8 => {
                self.key_freed = Some((time_ns, life.lent));
            }
            Event::Vm(vm) => match VmStage::from_number(vm.stage) {
                Some(VmStage::VcpusOut) if vm.bugged_ns != 0 => self.vcpus_out_ns = Some(time_ns),
                Some(VmStage::Destroyed) => self.destroyed_ns = Some(time_ns),
                _ => {}
            },
            Event::Violation(violation) => match Violation::from_number(violation.violation) {
                Some(Violation::ZapFailed) => self.failed_zaps += 1,
                Some(Violation::VmBugged) => self.bugged_ns = Some(time_ns),
                _ => {}
            },
            _ => {}
        }
    }

    /// A recording begins anew: what was seen over time stays.
    pub fn again(&mut self) {
        *self = Self { states: std::mem::take(&mut self.states), ..Self::default() };
    }

    fn remember(&mut self, states: States) {
        // Who goes back in a recording looks at earlier moments.
        let at = self.states.partition_point(|known| known.time_ns < states.time_ns);
        if self.states.get(at).is_some_and(|known| known.time_ns == states.time_ns) {
            return;
        }
        self.states.insert(at, states);
        if self.states.len() > POINTS {
            // Every other: the older half of time has half of the points.
            let mut nth = 0;
            self.states.retain(|_| {
                nth += 1;
                nth % 2 == 0
            });
        }
    }
}

impl Stage {
    /// Makes the rows anew: once in a step is enough.
    pub fn rows(&mut self, facts: &Facts<'_>) {
        let now_ns = facts.now_ns;
        let calls = facts.counted.as_ref().unwrap_or(&self.activity.host);
        let statuses = &self.activity.host;
        let (then_ns, before) = &self.before;
        let before = Some((before, now_ns.saturating_sub(*then_ns)));
        let rows = leaves(calls, statuses, before, Some(&facts.model.latencies));
        let calls = calls.clone();
        self.scene.leaves = Arc::new(rows);
        if now_ns > self.before.0 {
            self.before = (now_ns, calls);
        }
        self.remember(facts);
        self.td_rows(facts);
        self.scene.td = self.wanted.and_then(|id| self.detail(id, facts)).map(Arc::new);
        self.wanted_before = self.wanted.and_then(|id| {
            let did = self.activity.td(facts.model.tds.get(&id)?.tdr)?;
            Some((id, now_ns, did.calls.clone()))
        });
    }

    /// Keeps how many frames of each TD are in which state.
    pub fn remember(&mut self, facts: &Facts<'_>) {
        let Some(census) = &facts.census else { return };
        for (id, state) in &facts.model.tds {
            let states = facts.records.at(state.tdr).map(|(index, _)| census.states(*index));
            if let Some(states) = states.filter(|states| *states != States::default()) {
                self.tds.entry(*id).or_default().remember(states);
            }
        }
    }

    fn td_rows(&mut self, facts: &Facts<'_>) {
        // The last TD at a TDR is the one whose record and calls they are.
        let last: HashMap<u64, u32> = facts.model.tds.iter().map(|(id, td)| (td.tdr, *id)).collect();
        let mut living = Vec::new();
        let mut gone = Vec::new();
        let mut lent = [0_u64; 6];
        for (id, state) in &facts.model.tds {
            let is_gone = state.life == Life::Gone;
            let is_last = last.get(&state.tdr) == Some(id);
            let record = facts.records.at(state.tdr).filter(|_| is_last);
            let frames = record.map_or([0; 6], |(_, record)| record.frames);
            lent.iter_mut().zip(frames).for_each(|(sum, frames)| *sum = sum.saturating_add(frames));
            let of_td = self.tds.entry(*id).or_default();
            if *of_td.comm != *state.comm {
                of_td.comm = Arc::from(state.comm.as_str());
            }
            let did = self.activity.td(state.tdr).filter(|_| is_last);
            let totals = did.map(|did| Totals::of(&did.calls.answers)).unwrap_or_default();
            let (then_ns, before) = of_td.before;
            if facts.now_ns > then_ns {
                let first = then_ns == 0;
                of_td.rates = match first {
                    true => Rates::default(),
                    false => totals.rates(&before, facts.now_ns - then_ns),
                };
                of_td.before = (facts.now_ns, totals);
            }
            let named = self.names.of(*id, state);
            let row = TdRow {
                id: *id,
                name: named.name,
                cgroup: named.cgroup,
                tgid: state.tgid,
                comm: Arc::clone(&of_td.comm),
                tdr: state.tdr,
                hkid: state.hkid,
                life: state.life,
                suspect: record.map_or(state.suspect, |(_, record)| record.suspect),
                begun_ns: state.begun_ns,
                frames,
                rates: of_td.rates,
                failed_zaps: of_td.failed_zaps,
                violations: state.violations,
                held: facts.held.get(id).copied(),
                bugged_ns: of_td
                    .bugged_ns
                    .or_else(|| record.map(|(_, td)| td.bugged_ns).filter(|bugged| *bugged != 0)),
            };
            if is_gone { gone.push(row) } else { living.push(row) }
        }
        let skipped = gone.len().saturating_sub(GONE);
        living.extend(gone.into_iter().skip(skipped));
        self.scene.tds = Arc::new(living);
        self.scene.host.lent = lent;
        self.tds.retain(|id, _| facts.model.tds.contains_key(id));
        self.names.known.retain(|id, _| facts.model.tds.contains_key(id));
        if self.activity.len() > 2 * last.len() + 1024 {
            self.activity.retain(|tdr| last.contains_key(&tdr));
        }
    }

    fn detail(&self, id: u32, facts: &Facts<'_>) -> Option<TdDetail> {
        let state = facts.model.tds.get(&id)?;
        let of_td = self.tds.get(&id)?;
        let did = self.activity.td(state.tdr).cloned().unwrap_or_default();
        let index = facts.records.at(state.tdr).map(|(index, _)| *index);
        let census = facts.census.as_ref().filter(|census| index.is_some() && census.wanted == index);
        let before = self.wanted_before.as_ref().filter(|(then, ..)| *then == id);
        let before = before.map(|(_, then_ns, calls)| (calls, facts.now_ns.saturating_sub(*then_ns)));
        let (key_freed_ns, lent_at_key_free) = of_td.key_freed.unzip();
        let until = of_td.states.partition_point(|states| states.time_ns <= facts.now_ns);
        Some(TdDetail {
            id,
            grid: census.map(|census| census.grid.clone()).unwrap_or_default(),
            states: of_td.states[..until].to_vec(),
            leaves: leaves(&did.calls, &did.calls, before, None),
            added: did.added,
            to_private: did.augmented,
            to_shared: did.removed,
            lent_at_key_free: lent_at_key_free.unwrap_or(0),
            key_freed_ns,
            destroyed_ns: of_td.destroyed_ns,
            vcpus_out_ns: of_td.vcpus_out_ns,
        })
    }

    /// The index by which the census knows the TD that is wanted.
    pub fn wanted_index(&self, model: &Model, records: &Records) -> Option<u16> {
        let state = model.tds.get(&self.wanted?)?;
        records.at(state.tdr).map(|(index, _)| *index)
    }
}

/// What a ledger has of its TDs.
#[derive(Debug, Default)]
pub struct Records {
    /// Frames that are lent to all of them.
    pub lent: u64,
    /// By TDR, with their index: of several at one TDR the last.
    by_tdr: HashMap<u64, (u16, Td)>,
}

impl Records {
    /// Of records by their index.
    pub fn of(records: impl IntoIterator<Item = (u16, Td)>) -> Self {
        let mut all = Self::default();
        for (index, record) in records {
            all.lent = all.lent.saturating_add(record.lent());
            let known = all.by_tdr.entry(record.tdr).or_insert((index, record));
            if known.1.begun_ns <= record.begun_ns {
                *known = (index, record);
            }
        }
        all
    }

    fn at(&self, tdr: u64) -> Option<&(u16, Td)> {
        self.by_tdr.get(&tdr)
    }
}

/// Rows of the leaves that were called. `before`: calls of so many ns ago, to tell rates.
fn leaves(
    calls: &Calls,
    statuses: &Calls,
    before: Option<(&Calls, u64)>,
    latencies: Option<&Latencies>,
) -> Vec<LeafRow> {
    let row = |leaf: Leaf| {
        let answers = calls.of(leaf);
        if answers == activity::UNANSWERED {
            return None;
        }
        let per_second = |now: u64, then: u64, ns: u64| now.saturating_sub(then) as f64 * 1e9 / ns as f64;
        let sum = |leaf: &Calls, of| {
            let answers = leaf.of(of);
            answers.ok.saturating_add(answers.busy).saturating_add(answers.error)
        };
        let before = before.filter(|(_, ns)| *ns != 0);
        Some(LeafRow {
            leaf,
            ok: answers.ok,
            busy: answers.busy,
            errors: answers.error,
            rate: before.map_or(0.0, |(then, ns)| per_second(sum(calls, leaf), sum(then, leaf), ns)),
            busy_rate: before.map_or(0.0, |(then, ns)| per_second(answers.busy, then.of(leaf).busy, ns)),
            statuses: statuses.statuses(leaf),
            latency: latencies.and_then(|latencies| latencies.of(leaf)),
            octaves: latencies.map(|latencies| latencies.octaves(leaf)).unwrap_or_default(),
        })
    };
    Leaf::ALL.into_iter().filter_map(row).collect()
}
