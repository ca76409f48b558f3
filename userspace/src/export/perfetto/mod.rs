//! A trace for Perfetto: a group of tracks per TD, a track per CPU.
//!
//! | track | what is on it |
//! |---|---|
//! | a process per TD, `lifecycle` | a slice per stage; what KVM's functions tell of the VM, as instants |
//! | ... `SEAMCALLs` | those that are about the TD, as instants at their return: vCPUs make them at the same time |
//! | ... `violations` | an instant each, with all that is known of it |
//! | ... `lent frames` | a counter, by lifecycle and, at most once a millisecond, by the ledger |
//! | `CPU n` | a slice per SEAMCALL, from its entry where it was timed, else without length at its return; frames that the allocator received or handed out, as instants |
//! | `BUSY answers` | a counter of TDX_OPERAND_BUSY so far |
//! | `violations of no TD`, `recording` | what belongs nowhere else: steps, damage |

mod packets;
mod proto;
mod track;

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
};

use septwatch_common::{Leaf, Life, Status, kvm::VmStage, wire::SeamcallErr};

use super::{ExportError, Last, Now, Sink, rows::Row};
use crate::{
    model::verdict::hook,
    recording::{
        header::{Header, Note, What},
        replay::Step,
        tds::{Known, Tds},
    },
    source::event::Event,
};
use packets::{Entry, Packets};
use proto::{CounterDescriptor, EXPLICIT, ProcessDescriptor, TrackDescriptor};
use track::Track;

/// How often the frames that a TD has are looked at, in ns.
const SAMPLE_NS: u64 = 1_000_000;

// Tracks by number. Those of CPU n are CPU + n, those of TD n are TD + 8 * n and those after it.
const CPUS: u64 = 1;
const BUSY: u64 = 2;
const NO_TD: u64 = 3;
const RECORDING: u64 = 4;
const CPU: u64 = 1 << 20;
const TD: u64 = 1 << 32;

const fn process(td: u32) -> u64 {
    TD + 8 * td as u64
}

/// The tracks of a TD.
struct OfTd {
    lifecycle: Track,
    calls: Track,
    violations: Track,
    lent: u64,
    /// The stage that it is at, and since when.
    stage: Option<(Entry, u64)>,
    /// When its frames were told last, and how many they were.
    told: Option<(u64, u64)>,
}

impl OfTd {
    /// Tells how many frames are lent to it.
    fn lent(&mut self, time_ns: u64, frames: u64, out: &mut Packets) -> Result<(), ExportError> {
        let (last_ns, told) = self.told.map_or((0, None), |(ns, told)| (ns, Some(told)));
        if told == Some(frames) {
            return Ok(());
        }
        let time_ns = time_ns.max(last_ns);
        self.told = Some((time_ns, frames));
        out.counter(self.lent, time_ns, frames)
    }

    /// Ends the stage that it was at.
    fn leave(&mut self, time_ns: u64, out: &mut Packets) -> Result<(), ExportError> {
        match self.stage.take() {
            Some((entry, since)) => self.lifecycle.slice(since, time_ns.max(since), entry, out),
            None => Ok(()),
        }
    }
}

/// A trace that is being written.
pub struct Perfetto {
    out: Packets,
    cpus: BTreeMap<u16, Track>,
    tds: HashMap<u32, OfTd>,
    no_td: Track,
    recording: Track,
    busy: u64,
    /// Whether page records tell how many frames a TD has.
    has_pages: bool,
    sampled_ns: u64,
    last_ns: u64,
    /// When the counter of BUSY answers was told last.
    busy_ns: u64,
}

fn named(uuid: u64, name: impl Into<String>, parent: Option<u64>) -> TrackDescriptor {
    let name = Some(name.into());
    TrackDescriptor { uuid: Some(uuid), name, parent_uuid: parent, ..TrackDescriptor::default() }
}

fn counter(uuid: u64, name: &str, parent: Option<u64>, unit: &str) -> TrackDescriptor {
    let counter = Some(CounterDescriptor { unit_name: Some(unit.to_owned()) });
    TrackDescriptor { counter, ..named(uuid, name, parent) }
}

impl Perfetto {
    /// Begins a trace, with the tracks of all TDs.
    pub fn begin(out: Box<dyn Write + Send>, header: &Header, tds: &Tds) -> Result<Self, ExportError> {
        let mut out = Packets::begin(out, &header.clock)?;
        out.track(TrackDescriptor { child_ordering: Some(EXPLICIT), ..named(CPUS, "CPUs", None) })?;
        out.track(counter(BUSY, "BUSY answers", None, "answers"))?;
        out.track(named(NO_TD, "violations of no TD", None))?;
        out.track(named(RECORDING, "recording", None))?;
        let mut all: Vec<_> = tds.iter().collect();
        all.sort_unstable_by_key(|td| td.id);
        let mut of_tds = HashMap::new();
        for Known { id, tdr, tgid, comm, .. } in all {
            let uuid = process(*id);
            let process = ProcessDescriptor {
                // One process may run several TDs: what is shown as its id is the TD's number.
                pid: Some(*id as i32),
                process_name: Some(format!("TD {id}: {comm} (pid {tgid}), TDR {tdr:#x}")),
            };
            out.track(TrackDescriptor {
                uuid: Some(uuid),
                process: Some(process),
                ..TrackDescriptor::default()
            })?;
            for (at, name) in (1..).zip(["lifecycle", "SEAMCALLs", "violations"]) {
                out.track(named(uuid + at, name, Some(uuid)))?;
            }
            out.track(counter(uuid + 4, "lent frames", Some(uuid), "frames"))?;
            of_tds.insert(
                *id,
                OfTd {
                    lifecycle: Track::new(uuid + 1),
                    calls: Track::new(uuid + 2),
                    violations: Track::new(uuid + 3),
                    lent: uuid + 4,
                    stage: None,
                    told: None,
                },
            );
        }
        Ok(Self {
            out,
            cpus: BTreeMap::new(),
            tds: of_tds,
            no_td: Track::new(NO_TD),
            recording: Track::new(RECORDING),
            busy: 0,
            has_pages: header.what == What::All,
            sampled_ns: 0,
            last_ns: header.clock.monotonic_ns,
            busy_ns: 0,
        })
    }

    fn event(&mut self, step: &Step, now: &Now<'_>) -> Result<(), ExportError> {
        let Step::Event { event, found } = step else { return Ok(()) };
        let time_ns = event.header().time_ns;
        let row = || Row::of(event, found.as_deref().map(|(verdict, _)| verdict), now.td, &now.header.clock);
        let Self { out, tds, .. } = self;
        let td = now.td.and_then(|td| tds.get_mut(&td));
        match event {
            Event::Call(call) => self.call(call, row(), now),
            Event::Frame(frame) => {
                let entry = Entry::row(hook(frame.hook), row());
                Self::cpu(&mut self.cpus, frame.header.cpu, &mut self.out)?.instant(
                    time_ns,
                    entry,
                    &mut self.out,
                )
            }
            Event::Life(life) => {
                let Some(td) = td else { return Ok(()) };
                let name = Life::from_number(life.life).map_or("unknown", Life::name);
                td.leave(time_ns, out)?;
                if life.life == Life::Gone as u8 {
                    td.lifecycle.instant(time_ns, Entry::row(name, row()), out)?;
                } else {
                    td.stage = Some((Entry::row(name, row()), time_ns));
                }
                if self.has_pages { Ok(()) } else { td.lent(time_ns, life.lent, out) }
            }
            Event::Vm(vm) => {
                let Some(td) = td else { return Ok(()) };
                let name = VmStage::from_number(vm.stage).map_or("unknown", VmStage::name);
                td.lifecycle.instant(time_ns, Entry::row(name, row()), out)?;
                if self.has_pages { Ok(()) } else { td.lent(time_ns, vm.lent, out) }
            }
            Event::Violation(_) => {
                let name = found.as_deref().map_or("unknown", |(verdict, _)| verdict.violation.name());
                let mut entry = Entry::row(name, row());
                if let Some((_, places)) = found.as_deref() {
                    let stacks = [("kernel_stack", &places.kernel), ("user_stack", &places.user)];
                    entry.more.extend(stacks.map(|(name, stack)| (name, stack.join(" < "))));
                }
                td.map_or(&mut self.no_td, |td| &mut td.violations).instant(time_ns, entry, out)
            }
        }
    }

    /// The track of a CPU. One that is not there yet is made.
    fn cpu<'a>(
        cpus: &'a mut BTreeMap<u16, Track>,
        cpu: u16,
        out: &mut Packets,
    ) -> Result<&'a mut Track, ExportError> {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        Ok(match cpus.entry(cpu) {
            Occupied(track) => track.into_mut(),
            Vacant(none) => {
                let uuid = CPU + u64::from(cpu);
                let sibling_order_rank = Some(i32::from(cpu));
                let track = named(uuid, format!("CPU {cpu}"), Some(CPUS));
                out.track(TrackDescriptor { sibling_order_rank, ..track })?;
                none.insert(Track::new(uuid))
            }
        })
    }

    fn call(&mut self, event: &SeamcallErr, row: Row, now: &Now<'_>) -> Result<(), ExportError> {
        let call = &event.call;
        let name = Leaf::from_number(u64::from(call.leaf)).map_or("unknown", Leaf::name);
        let time_ns = call.header.time_ns;
        if let Some(td) = now.td.and_then(|td| self.tds.get_mut(&td)) {
            td.calls.instant(time_ns, Entry::row(name, row.clone()), &mut self.out)?;
        }
        let from_ns = time_ns.saturating_sub(u64::from(call.took_ns));
        Self::cpu(&mut self.cpus, call.header.cpu, &mut self.out)?.slice(
            from_ns,
            time_ns,
            Entry::row(name, row),
            &mut self.out,
        )?;
        if Status(event.status).is_busy() {
            self.busy += 1;
            self.busy_ns = self.busy_ns.max(time_ns);
            self.out.counter(BUSY, self.busy_ns, self.busy)?;
        }
        Ok(())
    }

    /// Tells the frames of all TDs, if it is time.
    fn sample(&mut self, time_ns: u64, now: &Now<'_>) -> Result<(), ExportError> {
        if !self.has_pages || time_ns < self.sampled_ns.saturating_add(SAMPLE_NS) {
            return Ok(());
        }
        self.sampled_ns = time_ns;
        for td in now.tds.iter().filter(|td| td.begun_ns <= time_ns) {
            // One look after its end, which says that all came back.
            if td.ended_ns.is_some_and(|end| end.saturating_add(2 * SAMPLE_NS) < time_ns) {
                continue;
            }
            let is_its_own = now.tds.at(td.tdr, time_ns).is_some_and(|at| at.id == td.id);
            let record = now.replay.ledger().td_at(td.tdr, time_ns).filter(|_| is_its_own);
            if let (Some(record), Some(tracks)) = (record, self.tds.get_mut(&td.id)) {
                tracks.lent(time_ns, record.lent(), &mut self.out)?;
            }
        }
        Ok(())
    }
}

impl Sink for Perfetto {
    fn step(&mut self, step: &Step, now: &Now<'_>) -> Result<(), ExportError> {
        match step {
            Step::Event { event, .. } => {
                let time_ns = event.header().time_ns;
                self.last_ns = self.last_ns.max(time_ns);
                self.event(step, now)?;
                if !event.is_vital() {
                    self.sample(time_ns, now)?;
                }
                Ok(())
            }
            Step::Note(Note::Step { time_ns, text }) => {
                self.recording.instant(*time_ns, Entry::named(text.clone()), &mut self.out)
            }
            Step::Note(Note::Unwritten { records, why }) => {
                let text = format!("{records} records could not be written: {why}");
                self.recording.instant(self.last_ns, Entry::named(text), &mut self.out)
            }
            Step::Damage(damage) => {
                let text = format!("damage: {damage}");
                self.recording.instant(self.last_ns, Entry::named(text), &mut self.out)
            }
            Step::Note(_) => Ok(()),
        }
    }

    fn end(&mut self, last: &Last<'_>) -> Result<(), ExportError> {
        let last_ns = self.last_ns;
        self.sampled_ns = 0;
        self.sample(last_ns, &last.now)?;
        let out = &mut self.out;
        for td in self.tds.values_mut() {
            td.leave(last_ns, out)?;
            for track in [&mut td.lifecycle, &mut td.calls, &mut td.violations] {
                track.flush(out)?;
            }
        }
        for track in self.cpus.values_mut().chain([&mut self.no_td, &mut self.recording]) {
            track.flush(out)?;
        }
        if let Some(end) = last.end {
            out.clock(&end.clock)?;
        }
        out.end()
    }
}
