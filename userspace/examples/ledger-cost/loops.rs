//! The programs that do to each of many frames what the ledger's programs do to one.

use std::{error::Error, sync::Barrier, thread};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use rustix::thread::{CpuSet, sched_setaffinity};
use septwatch::{
    here::thread_cpu_ns,
    hooks::load::{chunks, marks},
    source::counters::CountersPod,
};
use septwatch_common::config::CHUNK;

use crate::frames::{Frames, Host};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/septwatch-lookups"));

/// Most frames of one run: nothing else runs on its CPU meanwhile.
pub const TURNS: u64 = 1 << 17;

/// What is done to each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Do {
    Nothing,
    Filter,
    Read,
    Open,
    Close,
}

impl Do {
    const fn program(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Filter => "filter",
            Self::Read => "read",
            Self::Open => "open",
            Self::Close => "close",
        }
    }
}

/// A run over frames.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub what: Do,
    pub frames: Frames,
    /// Frames that are taken.
    pub turns: u64,
    /// The seed of their order; 0: one after the other.
    pub seed: u64,
    /// One after the other: which is the first.
    pub next: u64,
}

/// What a run was.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// CPU time for each frame.
    pub ns: f64,
    /// For how many frames the answer was yes.
    pub found: u64,
}

/// The programs and their maps.
pub struct Loops {
    ebpf: Ebpf,
}

impl Loops {
    /// Loads them, with maps in the size of a host.
    pub fn load(host: &Host) -> Result<Self, Box<dyn Error>> {
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries("LEDGER", u32::try_from(chunks(host.frames, None))?)
            .map_max_entries("MARKS", u32::try_from(marks(host.highest_pfn()))?);
        let mut ebpf = loader.load(OBJECT)?;
        for (_, program) in ebpf.programs_mut() {
            TryInto::<&mut RawTracePoint>::try_into(program)?.load()?;
        }
        Ok(Self { ebpf })
    }

    /// A map of theirs.
    pub fn map(&self, name: &str) -> Result<&Map, String> {
        self.ebpf.map(name).ok_or_else(|| format!("no map {name}"))
    }

    /// Frames that found no room.
    pub fn outside(&self) -> Result<u64, Box<dyn Error>> {
        let counters: PerCpuArray<&MapData, CountersPod> = PerCpuArray::try_from(self.map("COUNTERS")?)?;
        Ok(counters.get(&0, 0)?.iter().map(|counters| counters.0.outside).sum())
    }

    /// Chunks of the ledger that are there.
    pub fn chunks(&self) -> Result<u64, Box<dyn Error>> {
        let ledger: HashMap<&MapData, u64, [u64; CHUNK]> = HashMap::try_from(self.map("LEDGER")?)?;
        ledger.keys().try_fold(0, |chunks, key| Ok(key.map(|_| chunks + 1)?))
    }

    /// Lines that are open, as the filter says.
    pub fn open_lines(&self) -> Result<u64, Box<dyn Error>> {
        let marks: Array<&MapData, u64> = Array::try_from(self.map("MARKS")?)?;
        marks.iter().map(|marks| Ok(u64::from(marks?.count_ones()))).sum()
    }

    /// Runs on this thread, which stays on one CPU.
    fn run(&self, cpu: usize, run: Run) -> Result<Ran, String> {
        let name = run.what.program();
        let program = self.ebpf.program(name).ok_or_else(|| format!("no program {name}"))?;
        let program: &RawTracePoint = program.try_into().map_err(|_| format!("{name} is of another kind"))?;
        let Run { frames: Frames { first, stride, count }, turns, seed, next, .. } = run;
        let mut options = RawTracePointRunOptions::new();
        options.args[..6].copy_from_slice(&[turns, seed, first, stride, count, next]);
        let before = thread_cpu_ns();
        program.test_run(options).map_err(|error| format!("{name}: {error}"))?;
        let ns = (thread_cpu_ns() - before) as f64 / turns as f64;
        let map = self.map("FOUND")?;
        let found = PerCpuArray::<&MapData, u64>::try_from(map).and_then(|found| found.get(&0, 0));
        let found = found.map_err(|error| error.to_string())?.get(cpu).copied();
        Ok(Ran { ns, found: found.ok_or("an odd CPU")? })
    }

    /// Runs on several CPUs at once, on each what `run` says for it.
    pub fn run_on(&self, cpus: usize, run: impl Fn(usize) -> Run + Sync) -> Result<Vec<Ran>, String> {
        let together = Barrier::new(cpus);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..cpus)
                .map(|cpu| {
                    let (together, run) = (&together, &run);
                    scope.spawn(move || {
                        let mut set = CpuSet::new();
                        set.set(cpu);
                        let pinned = sched_setaffinity(None, &set);
                        together.wait();
                        pinned.map_err(|error| format!("CPU {cpu}: {error}"))?;
                        self.run(cpu, run(cpu))
                    })
                })
                .collect();
            let ran =
                threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread died".to_owned())?);
            ran.collect()
        })
    }
}
