//! The programs in the kernel as a source of events: rings, counters, the ledger itself.

mod attaching;
mod error;
mod lines;
mod needed;
mod switch;

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use crate::{
    hooks::{
        ahead,
        attach::{self, AttachError, Attached},
        bpf,
        load::{self, LoadError, Settings},
        pins::Pins,
        relocated::{self, Relocated},
    },
    source::{
        counters::{self, CountersPod, SharedPod},
        event::Event,
        reactions::Reactions,
        walk::{
            self, WalkError, Walker,
            maps::{ASKED, DIFFERENCES, FOUND, TOLD},
        },
    },
};
use aya::{
    Btf, Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use septwatch_common::{
    Life, Line, Suspect, Td,
    config::{CHUNK, Control, Counters, MAX_TDS, Produced, TD_PROBES},
    react::{Held, QuickRule},
};

use lines::open_lines;
use switch::{ALLOCATIONS, RELEASES, Switch};

pub use error::KernelError;
pub(in crate::source) use error::{map_error, typed};
pub use lines::LedgerReader;
pub use needed::Needed;

/// Maps that userspace reads.
const MAPS: [&str; 18] = [
    "VITAL",
    "PAGES",
    "COUNTERS",
    "CONTROL",
    "SHARED",
    "LEDGER",
    "WINDOWS",
    "TDS",
    "QUICK",
    "TD_RULES",
    "HELD",
    "CRASH",
    "CORDON",
    "CORDONED",
    ASKED,
    FOUND,
    TOLD,
    DIFFERENCES,
];

#[derive(Clone, Copy)]
#[repr(transparent)]
struct ControlPod(Control);
// SAFETY: numbers only, without padding.
unsafe impl Pod for ControlPod {}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct TdPod(pub(super) Td);
// SAFETY: numbers only, without padding; a Suspect is a number.
unsafe impl Pod for TdPod {}

/// The loaded programs.
pub struct Kernel {
    attached: Attached,
    /// None where another process has loaded them.
    ebpf: Option<Ebpf>,
    /// Until KVM's functions are attached.
    relocated: Option<Relocated>,
    /// What was numbered and lost, by CPU and stream, before this process began to read.
    before: Vec<[Produced; 2]>,
    vital: RingBuf<MapData>,
    pages: RingBuf<MapData>,
    counters: PerCpuArray<MapData, CountersPod>,
    control_map: Array<MapData, ControlPod>,
    control: Control,
    ledger: HashMap<MapData, u64, [u64; CHUNK]>,
    /// The same map: aya's has no way to its descriptor.
    ledger_fd: OwnedFd,
    windows: HashMap<MapData, u64, u64>,
    /// Read by one call for all. The programs know it by its descriptor, until they are loaded.
    tds: Map,
    /// Maps of the programs that walk TDs.
    walk: walk::Maps,
    shared: Array<MapData, SharedPod>,
    allocations: Switch,
    releases: Switch,
    reactions: Reactions,
}

impl Kernel {
    /// Creates the maps and prepares the programs; nothing is attached yet. With `pins`, they outlive this process.
    ///
    /// # Errors
    /// The kernel refuses them.
    pub fn load(settings: &Settings, btf: Option<&Btf>, pins: Option<Pins>) -> Result<Self, KernelError> {
        let mut ebpf = load::load(settings, btf)?;
        if let Some(pins) = &pins {
            // The others live for as long as the programs that use them.
            for name in MAPS {
                let map = ebpf.map(name).ok_or(LoadError::Missing(name))?;
                pins.map(name, relocated::descriptor(map)).map_err(AttachError::from)?;
            }
        }
        let mut attached = Attached::new(pins);
        // Now, because it must be quick when a window opens, or a TD begins.
        let tracepoints = [ALLOCATIONS, RELEASES].concat();
        ahead::load(&mut ebpf, &tracepoints, None);
        for name in tracepoints {
            attached.load_tracepoint(&mut ebpf, name)?;
        }
        let relocated = Relocated::against(&ebpf)?;
        let mut kernel = Self::of(attached, |name| ebpf.take_map(name))?;
        kernel.ebpf = Some(ebpf);
        kernel.relocated = Some(relocated);
        Ok(kernel)
    }

    /// Takes over what another process has left running.
    ///
    /// # Errors
    /// A pin cannot be opened.
    pub fn take_over(pins: Pins) -> Result<Self, KernelError> {
        let attached = Attached::left(pins)?;
        let open = |name: &str| {
            let data = MapData::from_pin(attached.pins()?.map_path(name)).ok()?;
            Map::from_map_data(data).ok()
        };
        let maps: Vec<_> = MAPS.iter().map(|name| (*name, open(name))).collect();
        let mut maps = std::collections::HashMap::<_, _>::from_iter(maps);
        let mut kernel = Self::of(attached, |name| maps.remove(name).flatten())?;
        kernel.control = kernel.control_map.get(&0, 0).map_err(map_error("CONTROL"))?.0;
        let each = kernel.counters.get(&0, 0).map_err(map_error("COUNTERS"))?;
        kernel.before = each.iter().map(|CountersPod(one)| [one.vital, one.pages]).collect();
        // An open window's end must not be missed; the link of the process before goes with its pin.
        if kernel.has_open_window()? {
            kernel.needed().allocations(true)?;
        }
        if kernel.control.releases != 0 {
            kernel.releases.take_over(&kernel.attached);
        }
        // Whatever the other found needed: this process has seen nothing yet.
        kernel.needed().releases()?;
        Ok(kernel)
    }

    fn of(attached: Attached, mut map: impl FnMut(&str) -> Option<Map>) -> Result<Self, KernelError> {
        let ledger = map("LEDGER").ok_or(LoadError::Missing("LEDGER"))?;
        let ledger_fd = relocated::descriptor(&ledger).try_clone_to_owned();
        let tds = map("TDS").ok_or(LoadError::Missing("TDS"))?;
        let mut walk = walk::Maps::of(&mut map)?;
        walk.add(walk::LEDGER, &ledger)?;
        walk.add(walk::TDS, &tds)?;
        Ok(Self {
            attached,
            ebpf: None,
            relocated: None,
            before: Vec::new(),
            vital: typed("VITAL", map("VITAL"))?,
            pages: typed("PAGES", map("PAGES"))?,
            counters: typed("COUNTERS", map("COUNTERS"))?,
            control_map: typed("CONTROL", map("CONTROL"))?,
            control: Control::default(),
            ledger: typed("LEDGER", Some(ledger))?,
            ledger_fd: ledger_fd.map_err(MapError::IoError).map_err(map_error("LEDGER"))?,
            windows: typed("WINDOWS", map("WINDOWS"))?,
            tds,
            walk,
            shared: typed("SHARED", map("SHARED"))?,
            allocations: Switch::of(ALLOCATIONS),
            releases: Switch::of(RELEASES),
            reactions: Reactions::of(&mut map)?,
        })
    }

    /// The object, to log what its programs do; none where another process has loaded it.
    pub fn ebpf(&mut self) -> Option<&mut Ebpf> {
        self.ebpf.as_mut()
    }

    /// What was numbered and lost, by CPU and stream (vital, pages), before this process began to read.
    pub fn before(&self) -> &[[Produced; 2]] {
        &self.before
    }

    /// Leaves the programs attached when this goes, where they are pinned.
    pub fn leave(&mut self) {
        self.attached.leave();
    }

    /// Whether the programs outlive this process if it is killed.
    pub fn is_pinned(&self) -> bool {
        self.attached.pins().is_some()
    }

    /// Number of the ledger, which this boot never had before: the id of its map.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn ledger_id(&self) -> Result<u32, KernelError> {
        let map = self.ledger_fd.try_clone().map_err(MapError::IoError).and_then(MapData::from_fd);
        map.and_then(|map| map.info()).map(|info| info.id()).map_err(map_error("LEDGER"))
    }

    /// Becomes readable when a vital record arrives.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn wake_up(&self) -> io::Result<OwnedFd> {
        self.vital.as_fd().try_clone_to_owned()
    }

    /// Switches page records on or off.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn record_pages(&mut self, on: bool) -> Result<(), KernelError> {
        self.control.record_pages = u64::from(on);
        self.tell()
    }

    /// Every hook is attached: from now on SEAMCALLs are looked at.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn begin(&mut self) -> Result<(), KernelError> {
        self.control.begun = 1;
        self.tell()
    }

    /// Adds a reason for doubt about every TD.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn doubt(&mut self, reason: Suspect) -> Result<(), KernelError> {
        self.control.suspect |= u64::from(reason.0);
        self.tell()
    }

    /// What the kernel side does by itself about violations.
    pub fn reactions(&mut self) -> &mut Reactions {
        &mut self.reactions
    }

    /// Tells the programs how many rules they have to follow, and whether userspace may have held a TD.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn follow(&mut self, rules: &[QuickRule], holds: bool) -> Result<(), KernelError> {
        // None while they change: half of one policy and half of another is neither.
        self.control.quick_rules = 0;
        self.tell()?;
        self.reactions.forget_crash()?;
        let rules = self.reactions.rules(rules)?;
        self.control.quick_rules = rules;
        self.control.holds = u64::from(holds);
        self.tell()
    }

    /// Holds a TD, if it is not held already: its guest_memfd are asked after from now on.
    ///
    /// # Errors
    /// A map cannot be written, or is full.
    pub fn hold(&mut self, td: u32, held: Held) -> Result<(), KernelError> {
        self.reactions.hold(td, held)?;
        self.control.holds = 1;
        self.tell()
    }

    fn tell(&mut self) -> Result<(), KernelError> {
        self.control_map.set(0, ControlPod(self.control), 0).map_err(map_error("CONTROL"))
    }

    /// Hands over what is in the ring of vital records, or in that of page records, in their order.
    ///
    /// # Errors
    /// A record is not one of ours, or the sink fails.
    pub fn drain(
        &mut self,
        vital: bool,
        mut sink: impl FnMut(Event, &mut Needed<'_>) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let (ring, mut needed) = self.ring_and_needed(vital);
        while let Some(record) = ring.next() {
            sink(Event::parse(&record)?, &mut needed)?;
        }
        Ok(())
    }

    /// What each CPU counted.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters_by_cpu(&self) -> Result<Vec<Counters>, KernelError> {
        let each = self.counters.get(&0, 0).map_err(map_error("COUNTERS"))?;
        Ok(each.iter().map(|CountersPod(one)| *one).collect())
    }

    /// What was counted, over all CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        Ok(self.counters_by_cpu()?.iter().fold(counters::NOTHING, counters::add))
    }

    /// Since when the programs run, in ns of CLOCK_BOOTTIME: what they count began then.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn loaded_ns(&self) -> Result<u64, KernelError> {
        Ok(self.attached.loaded_ns()?)
    }

    /// Runs of SEAMCALL programs that the kernel's recursion guard dropped, and of release programs. TDs that began before
    /// releases were watched count as one of those each.
    ///
    /// # Errors
    /// /proc or the map cannot be read.
    pub fn runs(&self) -> Result<attach::Runs, KernelError> {
        let mut runs = self.attached.runs()?;
        runs.missed_pages += self.unwatched()?;
        Ok(runs)
    }

    /// The TDs that the ledger knows and that are not gone.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn tds(&self) -> Result<Vec<Td>, KernelError> {
        let records = self.records()?.into_iter().map(|(_, record)| record);
        Ok(records.filter(|record| record.life != Life::Gone as u8).collect())
    }

    /// The records of all TDs that the ledger knows, also of those that are gone, by their index.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn records(&self) -> Result<Vec<(u16, Td)>, KernelError> {
        // Indexes are given out in turn.
        let indexes = (self.shared()?.tds + TD_PROBES + 1).min(MAX_TDS.into()) as u32;
        let source = |source| KernelError::Values { name: "TDS", source };
        let records = bpf::values(relocated::descriptor(&self.tds), indexes).map_err(source)?.into_iter();
        let known =
            records.map(|TdPod(record)| record).enumerate().map(|(index, record)| (index as u16, record));
        Ok(known.filter(|(_, record)| record.life != Life::None as u8).collect())
    }

    /// Reads the ledger beside this, on a thread of its own as it may be: of a large host that takes its time.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn ledger_reader(&self) -> Result<LedgerReader, KernelError> {
        let map = self.ledger_fd.try_clone().map_err(MapError::IoError).and_then(MapData::from_fd);
        let map = map.and_then(Map::from_map_data).map_err(map_error("LEDGER"))?;
        Ok(LedgerReader { ledger: typed("LEDGER", Some(map))? })
    }

    /// What walks TDs, on a thread of its own as it may be.
    ///
    /// # Errors
    /// The programs are not there, or no more descriptors.
    pub fn walker(&self) -> Result<Walker, WalkError> {
        Walker::of(&self.attached, &self.walk)
    }

    /// Whether a frame was released with its line open, and nobody is known to have it since.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn has_open_window(&self) -> Result<bool, KernelError> {
        let first = self.windows.keys().next().transpose();
        Ok(first.map_err(map_error("WINDOWS"))?.is_some())
    }

    /// Every open line, by frame.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn open_lines(&self) -> Result<Vec<(u64, Line)>, KernelError> {
        let mut open =
            open_lines(&self.ledger).collect::<Result<Vec<_>, _>>().map_err(map_error("LEDGER"))?;
        open.sort_unstable_by_key(|(pfn, _)| *pfn);
        Ok(open)
    }
}
