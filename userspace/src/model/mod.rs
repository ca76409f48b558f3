//! What is derived from events: TDs, verdicts, what was received and what was lost. The one place where state is made
//! of events; it knows neither terminal nor network, and asks the kernel nothing.

pub mod accounting;
pub mod activity;
pub mod census;
pub mod histogram;
pub mod latency;
pub mod rerun;
pub mod store;
pub mod stories;
pub mod verdict;
pub mod windows;

use std::collections::{BTreeMap, VecDeque};

use septwatch_common::{Life, Suspect, Td, Violation, wire::TdLife};

use crate::source::event::Event;
use accounting::Accounting;
use latency::Latencies;
use verdict::Verdict;
use windows::Windows;

/// TDs that are gone and still told of: a host has millions in its life, and a recording may have as many.
const GONE: usize = 4096;

/// A TD, as its events told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdState {
    /// Frame of its TDR.
    pub tdr: u64,
    /// Host key id; 0 where the TD began before septwatch.
    pub hkid: u16,
    /// How far its life has come.
    pub life: Life,
    /// When it was first seen, in ns of CLOCK_MONOTONIC.
    pub begun_ns: u64,
    /// Process that it was first seen with.
    pub tgid: u32,
    /// Name of that process' thread.
    pub comm: String,
    /// Frames lent at its last stage.
    pub lent: u64,
    /// Why its verdicts are suspect.
    pub suspect: Suspect,
    /// Violations of it.
    pub violations: u64,
}

/// Everything that events told so far.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// TDs by number: all that live, and the last 4096 that are gone.
    pub tds: BTreeMap<u32, TdState>,
    /// TDs that were seen so far.
    pub tds_seen: u64,
    /// Numbers of those that are gone, oldest first.
    gone: VecDeque<u32>,
    /// Violations by kind.
    pub violations: BTreeMap<Violation, u64>,
    /// Of them, those that are suspect.
    pub suspect: u64,
    /// Records by stream.
    pub accounting: Accounting,
    /// How long things stayed wrong.
    pub windows: Windows,
    /// How long SEAMCALLs took.
    pub latencies: Latencies,
}

impl Model {
    /// Takes an event in. A violation comes back as a verdict.
    pub fn apply(&mut self, event: &Event) -> Option<Verdict> {
        self.accounting.received(event);
        match event {
            Event::Life(life) => self.life(life),
            Event::Call(call) => self.latencies.call(&call.call),
            Event::Frame(_) => {}
            Event::Vm(vm) => self.windows.vm(vm),
            Event::Violation(event) => {
                let verdict = Verdict::of(event)?;
                self.windows.verdict(&verdict);
                *self.violations.entry(verdict.violation).or_default() += 1;
                self.suspect += u64::from(!verdict.suspect.is_certain());
                if let Some(td) = verdict.td.and_then(|td| self.tds.get_mut(&td)) {
                    td.violations += 1;
                }
                return Some(verdict);
            }
        }
        None
    }

    /// Takes a TD in that began before anybody here looked, from the ledger's own record.
    pub fn known(&mut self, td: &Td) {
        let known = self.tds.len();
        self.tds.entry(td.id).or_insert_with(|| TdState {
            tdr: td.tdr,
            hkid: td.hkid,
            life: Life::from_number(td.life).unwrap_or(Life::None),
            begun_ns: td.begun_ns,
            tgid: td.tgid,
            comm: text(&td.comm),
            lent: td.lent(),
            suspect: td.suspect,
            violations: 0,
        });
        self.tds_seen += (self.tds.len() - known) as u64;
    }

    fn life(&mut self, event: &TdLife) {
        let known = self.tds.len();
        let td = self.tds.entry(event.id).or_insert_with(|| TdState {
            tdr: event.tdr,
            hkid: event.hkid,
            life: Life::None,
            begun_ns: event.header.time_ns,
            tgid: event.header.tgid,
            comm: text(&event.comm),
            lent: 0,
            suspect: Suspect::default(),
            violations: 0,
        });
        td.life = Life::from_number(event.life).unwrap_or(td.life);
        td.lent = event.lent;
        td.suspect = Suspect(event.suspect);
        let is_gone = td.life == Life::Gone;
        self.tds_seen += (self.tds.len() - known) as u64;
        if is_gone {
            self.gone.push_back(event.id);
        }
        if self.gone.len() > GONE
            && let Some(oldest) = self.gone.pop_front()
        {
            self.tds.remove(&oldest);
            self.windows.forget(oldest);
        }
    }

    /// Violations of every kind.
    pub fn total(&self) -> u64 {
        self.violations.values().sum()
    }
}

/// A thread's name.
pub(crate) fn text(comm: &[u8; 16]) -> String {
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(&comm[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use septwatch_common::wire::{Header, Kind, VERSION};
    use zerocopy::FromZeros as _;

    use super::*;

    #[test]
    fn tds_that_are_gone_are_forgotten_in_time() {
        let mut model = Model::default();
        for id in 1..=10_000 {
            for life in [Life::Created, Life::Gone] {
                let mut event = TdLife::new_zeroed();
                let kind = Kind::TdLife as u8;
                event.header = Header { time_ns: 1, seq: 0, tgid: 1, cpu: 0, kind, version: VERSION };
                (event.id, event.life) = (id, life as u8);
                // The first lives on.
                if id != 1 || life == Life::Created {
                    model.apply(&Event::Life(event));
                }
            }
        }
        assert_eq!((model.tds.len(), model.tds_seen), (GONE + 1, 10_000));
        assert!(model.tds.contains_key(&1) && model.tds.contains_key(&10_000));
    }
}
