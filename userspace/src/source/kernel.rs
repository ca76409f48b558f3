//! The programs in the kernel as a source of events: rings, counters, the ledger itself.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Btf, Ebpf, Pod,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf},
    programs::raw_trace_point::RawTracePointLinkId,
};
use septwatch_common::{
    Line, Suspect,
    config::{Answers, CHUNK, Control, Counters, Produced},
};
use thiserror::Error;

use crate::{
    hooks::{
        attach::{self, AttachError},
        load::{self, LoadError, Settings},
    },
    source::event::{Event, WireError},
};

/// The tracepoint that is attached only while a window is open, or about to.
const ALLOC: &str = "mm_page_alloc";

/// The programs cannot be read.
#[derive(Debug, Error)]
pub enum KernelError {
    /// They cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// They cannot be attached or detached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A map cannot be read or written.
    #[error("map {name}")]
    Map {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// A record is not one of ours.
    #[error("a record from the kernel")]
    Wire(#[from] WireError),
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct CountersPod(Counters);
// SAFETY: numbers only, without padding.
unsafe impl Pod for CountersPod {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct ControlPod(Control);
// SAFETY: numbers only, without padding.
unsafe impl Pod for ControlPod {}

/// The loaded programs.
pub struct Kernel {
    ebpf: Ebpf,
    vital: RingBuf<MapData>,
    pages: RingBuf<MapData>,
    counters: PerCpuArray<MapData, CountersPod>,
    control_map: Array<MapData, ControlPod>,
    control: Control,
    ledger: HashMap<MapData, u64, [u64; CHUNK]>,
    windows: HashMap<MapData, u64, u64>,
    alloc: Option<RawTracePointLinkId>,
}

fn map_error(name: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { name, source }
}

fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, KernelError>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(LoadError::Missing(name))?;
    M::try_from(map).map_err(map_error(name))
}

impl Kernel {
    /// Creates the maps and prepares the programs; nothing is attached yet.
    ///
    /// # Errors
    /// The kernel refuses them.
    pub fn load(settings: &Settings, btf: Option<&Btf>) -> Result<Self, KernelError> {
        let mut ebpf = load::load(settings, btf)?;
        // Now, because it must be quick when a window opens.
        attach::load_tracepoint(&mut ebpf, ALLOC)?;
        Ok(Self {
            vital: take(&mut ebpf, "VITAL")?,
            pages: take(&mut ebpf, "PAGES")?,
            counters: take(&mut ebpf, "COUNTERS")?,
            control_map: take(&mut ebpf, "CONTROL")?,
            control: Control::default(),
            ledger: take(&mut ebpf, "LEDGER")?,
            windows: take(&mut ebpf, "WINDOWS")?,
            alloc: None,
            ebpf,
        })
    }

    /// The object, to attach programs.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Becomes readable when a vital record arrives.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn wake_up(&self) -> io::Result<OwnedFd> {
        self.vital.as_fd().try_clone_to_owned()
    }

    /// Attaches the programs that see frames come back: before anything that lends frames is attached.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn attach_releases(&mut self) -> Result<(), KernelError> {
        for tracepoint in ["mm_page_free", "mm_page_free_batched"] {
            attach::tracepoint(&mut self.ebpf, tracepoint)?;
        }
        Ok(())
    }

    /// Watches allocations from now on, or no more: on a host where nothing is wrong they cost nothing.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn watch_allocations(&mut self, on: bool) -> Result<(), KernelError> {
        match (on, self.alloc.take()) {
            (true, None) => self.alloc = Some(attach::attach_tracepoint(&mut self.ebpf, ALLOC)?),
            (false, Some(link)) => attach::detach_tracepoint(&mut self.ebpf, ALLOC, link)?,
            (_, link) => self.alloc = link,
        }
        Ok(())
    }

    /// Whether allocations are watched.
    pub fn watches_allocations(&self) -> bool {
        self.alloc.is_some()
    }

    /// Switches page records on or off.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn record_pages(&mut self, on: bool) -> Result<(), KernelError> {
        self.control.record_pages = u64::from(on);
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

    fn tell(&mut self) -> Result<(), KernelError> {
        self.control_map.set(0, ControlPod(self.control), 0).map_err(map_error("CONTROL"))
    }

    /// Hands over what is in the rings. Events of one ring come in their order; the two rings are read one after the
    /// other.
    ///
    /// # Errors
    /// A record is not one of ours.
    pub fn drain(&mut self, mut sink: impl FnMut(Event)) -> Result<(), KernelError> {
        for ring in [&mut self.vital, &mut self.pages] {
            while let Some(record) = ring.next() {
                sink(Event::parse(&record)?);
            }
        }
        Ok(())
    }

    /// What was counted, over all CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let each = self.counters.get(&0, 0).map_err(map_error("COUNTERS"))?;
        Ok(each.iter().fold(ZERO, |sum, CountersPod(one)| add(sum, one)))
    }

    /// Runs of SEAMCALL programs that the kernel's recursion guard dropped, and of release programs.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn missed_runs(&self) -> Result<attach::Missed, KernelError> {
        Ok(attach::missed_runs(&self.ebpf)?)
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
        let mut open = Vec::new();
        for chunk in self.ledger.iter() {
            let (key, lines) = chunk.map_err(map_error("LEDGER"))?;
            let first = key * CHUNK as u64;
            let lines = lines.iter().zip(first..).map(|(line, pfn)| (pfn, Line(*line)));
            open.extend(lines.filter(|(_, line)| line.is_open()));
        }
        open.sort_unstable_by_key(|(pfn, _)| *pfn);
        Ok(open)
    }
}

const ZERO: Counters = Counters {
    vital: Produced { produced: 0, lost: 0 },
    pages: Produced { produced: 0, lost: 0 },
    outside: 0,
    unread: 0,
    calls: [Answers { ok: 0, busy: 0, error: 0 }; septwatch_common::config::SHAPES],
    violations: [0; septwatch_common::Violation::ALL.len()],
};

fn add(mut sum: Counters, one: &Counters) -> Counters {
    sum.vital = both(sum.vital, one.vital);
    sum.pages = both(sum.pages, one.pages);
    sum.outside += one.outside;
    sum.unread += one.unread;
    for (sum, one) in sum.calls.iter_mut().zip(&one.calls) {
        *sum = Answers { ok: sum.ok + one.ok, busy: sum.busy + one.busy, error: sum.error + one.error };
    }
    for (sum, one) in sum.violations.iter_mut().zip(&one.violations) {
        *sum += one;
    }
    sum
}

fn both(a: Produced, b: Produced) -> Produced {
    Produced { produced: a.produced + b.produced, lost: a.lost + b.lost }
}
