//! A host that produces records at a given rate: septwatch's own programs, left for whoever takes them over, and run here
//! by BPF_PROG_TEST_RUN on frames that came back too early long ago. Each run of `mm_page_free` finds 512 of them, and
//! writes a record for each, if records are wanted: no violation, for of those frames nothing new can be told. Or, where
//! violations are asked for, on frames that never came back.
//!
//! `cargo run --release --example event-host -- PRODUCERS`: threads, each on a CPU of its own. Prints `left` when somebody
//! can take over. Then reads lines `RATE SECONDS pages|violations`: all producers together are to make so many records a
//! second; 0: as many as they can. Prints for each a line of JSON. Ends with its input, and takes the programs away.

use std::{
    env,
    error::Error,
    io,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use rustix::thread::{CpuSet, sched_setaffinity};
use septwatch::{
    here::thread_cpu_ns,
    hooks::{
        load::Settings,
        lock::Lock,
        pins::{Note, Pins},
        reactions::Needs,
    },
    source::{counters::CountersPod, kernel::Kernel},
};
use septwatch_common::{
    Level, Line, Op, PageKind, apply,
    config::{CHUNK, MARKS_SHIFT, Produced},
};

type Failed = Box<dyn Error + Send + Sync>;

/// log2 of the frames of one run.
const ORDER: u32 = 9;
const FRAMES: u64 = 1 << ORDER;
/// Bytes of a `struct page`, as [`Settings::detached`] has it. The first is at address 0, so that no page that this host gives back is one of these.
const PAGE_STRUCT: u64 = 64;

/// What is produced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Pages,
    Violations,
}

fn main() -> Result<(), Failed> {
    let producers = env::args().nth(1).ok_or("arguments: PRODUCERS")?.parse::<u64>()?;
    let (pins, _) = Pins::fresh()?.ok_or("no bpffs on /sys/fs/bpf")?;
    let _left = Left;
    let mut kernel = {
        // Until it is left: who takes over takes the lock too.
        let _lock = Lock::take("event-host")?;
        let mut kernel = Kernel::load(&Settings::detached(1 << 20, (1 << 20) - 1), None, Some(pins))?;
        kernel.attach_releases()?;
        kernel.complete(&Note::new(0, 0, false, Needs::default(), Vec::new()))?;
        kernel.leave();
        kernel
    };
    let mut ledger = Ledger::left()?;
    let ebpf = kernel.ebpf().ok_or("the programs are another's")?;
    let mut words = first(0) >> MARKS_SHIFT..first(producers) >> MARKS_SHIFT;
    Array::<_, u64>::try_from(ebpf.map_mut("MARKS").ok_or("no filter")?)
        .and_then(|mut marks| words.try_for_each(|word| marks.set(word as u32, u64::MAX, 0)))?;
    println!("left");
    for line in io::stdin().lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        let mut word = || words.next().ok_or("lines: RATE SECONDS pages|violations");
        let (rate, seconds) = (word()?.parse::<f64>()?, word()?.parse::<f64>()?);
        let what = if word()? == "violations" { What::Violations } else { What::Pages };
        ledger.fill(producers, what)?;
        let before = ledger.produced(what)?;
        let begun = Instant::now();
        let made = produce(ebpf, producers, rate, Duration::from_secs_f64(seconds), what)?;
        let took = begun.elapsed().as_secs_f64();
        let after = ledger.produced(what)?;
        let told = serde_json::json!({
            "seconds": took,
            "releases": made.iter().map(|(releases, _)| releases).sum::<u64>(),
            "produced": after.produced - before.produced,
            "lost": after.lost - before.lost,
            "cpu_ns": made.iter().map(|(_, ns)| ns).sum::<u64>(),
        });
        println!("{told}");
    }
    Ok(())
}

/// Each thread's releases, and the CPU time that they took. Of violations there is one a frame: one run each.
fn produce(
    ebpf: &Ebpf,
    producers: u64,
    rate: f64,
    span: Duration,
    what: What,
) -> Result<Vec<(u64, u64)>, Failed> {
    let program: &RawTracePoint = ebpf.program("mm_page_free").ok_or("no program")?.try_into()?;
    let together = Barrier::new(producers as usize);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..producers)
            .map(|producer| {
                let together = &together;
                scope.spawn(move || {
                    let mut cpu = CpuSet::new();
                    cpu.set(producer as usize);
                    let pinned = sched_setaffinity(None, &cpu);
                    together.wait();
                    pinned?;
                    let mut options = RawTracePointRunOptions::new();
                    options.args[..2].copy_from_slice(&[first(producer) * PAGE_STRUCT, ORDER.into()]);
                    let (begun, mut releases, mut ns) = (Instant::now(), 0, 0);
                    while begun.elapsed() < span {
                        let due = releases as f64 * producers as f64 / rate;
                        let early = if rate == 0.0 { 0.0 } else { due - begun.elapsed().as_secs_f64() };
                        if early > 0.0 {
                            thread::sleep(Duration::from_secs_f64(early.min(span.as_secs_f64())));
                            continue;
                        }
                        let before = thread_cpu_ns();
                        program.test_run(RawTracePointRunOptions { args: options.args, cpu: None })?;
                        ns += thread_cpu_ns() - before;
                        releases += FRAMES;
                        if what == What::Violations {
                            break;
                        }
                    }
                    Ok((releases, ns))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a producer died")?).collect()
    })
}

/// A producer's first frame.
const fn first(producer: u64) -> u64 {
    (producer + 1) * FRAMES
}

/// The ledger, and what the programs count.
struct Ledger {
    lines: HashMap<MapData, u64, [u64; CHUNK]>,
    counters: PerCpuArray<MapData, CountersPod>,
}

impl Ledger {
    fn left() -> Result<Self, Failed> {
        let (pins, _) = Pins::left().ok_or("nothing was left")?;
        let map = |name| MapData::from_pin(pins.map_path(name)).and_then(Map::from_map_data);
        Ok(Self { lines: map("LEDGER")?.try_into()?, counters: map("COUNTERS")?.try_into()? })
    }

    /// Opens the lines of every producer's frames anew.
    fn fill(&mut self, producers: u64, what: What) -> Result<(), Failed> {
        for chunk in first(0) / CHUNK as u64..=first(producers) / CHUNK as u64 {
            let pfns = (chunk * CHUNK as u64)..;
            let mut lines = [0; CHUNK];
            for (line, pfn) in lines.iter_mut().zip(pfns) {
                let mut open = Line::open(PageKind::Leaf, 1, Level::L4K, pfn);
                if what == What::Pages {
                    // Released, and reused: nothing more is a violation.
                    for _ in 0..2 {
                        (open, _) = apply(open, Op::Free { batched: false });
                    }
                }
                *line = open.0;
            }
            self.lines.insert(chunk, lines, 0)?;
        }
        Ok(())
    }

    fn produced(&self, what: What) -> Result<Produced, Failed> {
        let mut sum = Produced { produced: 0, lost: 0 };
        for CountersPod(cpu) in self.counters.get(&0, 0)?.iter() {
            let of = if what == What::Pages { cpu.pages } else { cpu.vital };
            sum.produced += of.produced;
            sum.lost += of.lost;
        }
        Ok(sum)
    }
}

/// What is left in the kernel is gone with this.
struct Left;

impl Drop for Left {
    fn drop(&mut self) {
        if let Some((pins, _)) = Pins::left() {
            let _ = pins.remove();
        }
    }
}
