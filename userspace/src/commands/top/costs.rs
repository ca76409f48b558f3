//! What septwatch itself costs: CPU time of this process and of the programs, memory, and what the CPU counted.

use std::{fs, os::fd::OwnedFd};

use perf_event::{Builder, Counter, events::Hardware};
use rustix::time::{ClockId, clock_gettime};

use crate::{source::kernel::Kernel, view::top::scene::Overhead};

/// Figures of this process, and of the programs.
pub struct Costs {
    /// As long as it is open, the kernel counts how long programs run.
    stats: Option<OwnedFd>,
    counters: Result<[Counter; 2], String>,
    then: Then,
}

/// Figures of then.
#[derive(Clone, Copy, Default)]
struct Then {
    time_ns: u64,
    agent_ns: u64,
    programs: Option<(u64, u64)>,
    counted: Option<[u64; 2]>,
}

impl Costs {
    /// Counts from now on, threads that are started later too. With `programs`, the kernel is asked to count how long
    /// programs run, which costs some ns for each run.
    pub fn begin(programs: bool) -> Self {
        let stats = programs.then(|| aya::sys::enable_stats(aya::sys::Stats::RunTime).ok()).flatten();
        Self { stats, counters: counters(), then: Then::default() }
    }

    /// What it cost since this was asked last; none the first time.
    pub fn since(&mut self, kernel: Option<&Kernel>) -> Option<Overhead> {
        let now = Then {
            time_ns: nanoseconds(ClockId::Monotonic),
            agent_ns: nanoseconds(ClockId::ProcessCPUTime),
            programs: self.stats.as_ref().and(kernel).and_then(|kernel| kernel.program_runs().ok()),
            counted: match &mut self.counters {
                Ok([cycles, instructions]) => {
                    cycles.read().ok().zip(instructions.read().ok()).map(Into::into)
                }
                Err(_) => None,
            },
        };
        let then = std::mem::replace(&mut self.then, now);
        let ns = now.time_ns.checked_sub(then.time_ns).filter(|ns| *ns != 0 && then.time_ns != 0)? as f64;
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 * 1e9 / ns;
        let programs = now.programs.zip(then.programs);
        let counted = now.counted.zip(then.counted);
        let counters = match &self.counters {
            Err(why) => Some(Err(why.clone())),
            Ok(_) => {
                counted.map(|(now, then)| Ok((per_second(now[0], then[0]), per_second(now[1], then[1]))))
            }
        };
        Some(Overhead {
            // ns a second are thousandths of a CPU times a million.
            agent: per_second(now.agent_ns, then.agent_ns) / 1e6,
            programs: programs.map(|(now, then)| per_second(now.0, then.0) / 1e6),
            runs: programs.map(|(now, then)| per_second(now.1, then.1)),
            rss: rss().unwrap_or(0),
            counters,
        })
    }
}

/// Cycles and instructions of this process, in the kernel too.
fn counters() -> Result<[Counter; 2], String> {
    let open = |event| {
        let mut builder = Builder::new().kind(event);
        builder.inherit(true).include_kernel();
        builder.build().and_then(|mut counter| counter.enable().map(|()| counter))
    };
    let [cycles, instructions] = [Hardware::CPU_CYCLES, Hardware::INSTRUCTIONS].map(open);
    match (cycles, instructions) {
        (Ok(cycles), Ok(instructions)) => Ok([cycles, instructions]),
        // ENOENT: the host has none, as in a virtual machine without a PMU.
        (Err(error), _) | (_, Err(error)) if error.raw_os_error() == Some(libc::ENOENT) => {
            Err("this host has none".to_owned())
        }
        (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.cast_unsigned().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.cast_unsigned())
}

/// Memory of this process, in bytes.
fn rss() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(rustix::param::page_size() as u64))
}
