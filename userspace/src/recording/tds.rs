//! The TDs of a recording, each with the time for which its TDR was its own: a frame can be the TDR of one TD after
//! the other.

use std::{collections::BTreeMap, path::Path};

use septwatch_common::{
    Leaf, Life,
    wire::{SeamcallErr, TdLife},
    zap::PFN_UNKNOWN,
};

use super::{
    State,
    reader::{Item, OpenError, Reader},
};
use crate::{
    model::{store::Ledger, text},
    source::event::Event,
};

/// A TD of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number.
    pub id: u32,
    /// Frame of its TDR.
    pub tdr: u64,
    /// When it was first seen, in ns of CLOCK_MONOTONIC.
    pub begun_ns: u64,
    /// When its TDR was given back; none where the recording does not tell.
    pub ended_ns: Option<u64>,
    /// Process that it was first seen with.
    pub tgid: u32,
    /// Name of that process' thread.
    pub comm: String,
}

/// All TDs of a recording: as much memory as there are TDs, whatever they do.
#[derive(Clone, Debug, Default)]
pub struct Tds {
    /// By TDR, in the order in which they began.
    by_tdr: BTreeMap<u64, Vec<Known>>,
}

impl Tds {
    /// Reads what a recording tells of its TDs. Damage is left to who reads the rest.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(path: &Path) -> Result<Self, OpenError> {
        let mut reader = Reader::open(path)?;
        let mut tds = Self::default();
        let mut created = Vec::new();
        while let Some(item) = reader.next() {
            if let Some(state) = reader.state() {
                tds.before(&state);
            }
            match item {
                Item::Event(Event::Life(life)) => tds.life(&life),
                Item::Event(Event::Call(SeamcallErr { call, status: 0, .. }))
                    if call.leaf == Leaf::MngCreate as u8 =>
                {
                    created.push((call.tdr, call.header.time_ns));
                }
                _ => {}
            }
        }
        tds.begun(&created);
        Ok(tds)
    }

    /// TDs began with TDH.MNG.CREATE, which returned a little before it was told as a stage of their lives.
    fn begun(&mut self, created: &[(u64, u64)]) {
        for (tdr, time_ns) in created {
            let of_tdr = self.by_tdr.get_mut(tdr).into_iter().flatten();
            if let Some(td) = of_tdr.filter(|td| td.begun_ns >= *time_ns).min_by_key(|td| td.begun_ns) {
                td.begun_ns = *time_ns;
            }
        }
    }

    fn before(&mut self, state: &State) {
        let of_ledger = state.ledger.iter().flat_map(|ledger| &ledger.tds);
        for kept in state.tds.iter().chain(of_ledger) {
            let td = &kept.record;
            let (id, tdr, begun_ns, tgid, comm) = (td.id, td.tdr, td.begun_ns, td.tgid, text(&td.comm));
            self.known(Known { id, tdr, begun_ns, ended_ns: None, tgid, comm });
        }
    }

    fn life(&mut self, life: &TdLife) {
        let TdLife { header, id, tdr, .. } = *life;
        let (begun_ns, comm) = (header.time_ns, text(&life.comm));
        self.known(Known { id, tdr, begun_ns, ended_ns: None, tgid: header.tgid, comm });
        if life.life == Life::Gone as u8
            && let Some(td) = self.by_tdr.get_mut(&tdr).and_then(|tds| tds.iter_mut().find(|td| td.id == id))
        {
            td.ended_ns = Some(header.time_ns);
        }
    }

    fn known(&mut self, new: Known) {
        let of_tdr = self.by_tdr.entry(new.tdr).or_default();
        match of_tdr.iter_mut().find(|td| td.id == new.id) {
            Some(td) => td.begun_ns = td.begun_ns.min(new.begun_ns),
            None => of_tdr.push(new),
        }
        of_tdr.sort_by_key(|td| td.begun_ns);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Known> {
        self.by_tdr.values().flatten()
    }

    /// The TD of this number.
    pub fn get(&self, id: u32) -> Option<&Known> {
        self.iter().find(|td| td.id == id)
    }

    /// The TD whose TDR this was at a time; of one that began before the recording, its first record tells when.
    pub fn at(&self, tdr: u64, time_ns: u64) -> Option<&Known> {
        let of_tdr = self.by_tdr.get(&tdr)?;
        of_tdr.iter().rev().find(|td| td.begun_ns <= time_ns).or(of_tdr.first())
    }

    /// The number of the TD that an event is about. `ledger` is as it was before the event: it tells whose a frame was
    /// where the event does not.
    pub fn of_event(&self, event: &Event, ledger: &Ledger) -> Option<u32> {
        let time_ns = event.header().time_ns;
        let owner = |pfn: u64| {
            let td = ledger.td(ledger.line(pfn).owner())?;
            self.at(td.tdr, time_ns)
        };
        let number = |id: u32| (id != 0).then_some(id);
        match event {
            Event::Life(life) => number(life.id),
            Event::Vm(vm) => number(vm.id),
            Event::Violation(violation) => number(violation.td_id),
            Event::Frame(frame) => owner(frame.pfn).map(|td| td.id),
            Event::Call(SeamcallErr { call, .. }) => {
                let of_vcpu = call.leaf == Leaf::VpAddcx as u8;
                let td = match (call.tdr, of_vcpu) {
                    (PFN_UNKNOWN, _) => owner(call.pfn),
                    (tdvpr, true) => owner(tdvpr),
                    (tdr, false) => self.at(tdr, time_ns),
                };
                td.map(|td| td.id)
            }
        }
    }
}
