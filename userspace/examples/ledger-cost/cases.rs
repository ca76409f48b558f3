//! What is measured.

use std::error::Error;

use crate::{
    frames::{DENSE, Frames, Host},
    loops::{Do, Loops, Run, TURNS},
    tell,
};

/// Frames that stay in the caches.
const FEW: u64 = 1 << 12;

/// CPUs that are at work at once: one, twice as many, and so on up to all.
fn cpus() -> Vec<usize> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let mut cpus: Vec<_> =
        std::iter::successors(Some(1), |cpus| Some(cpus * 2)).take_while(|cpus| *cpus < all).collect();
    cpus.push(all);
    cpus
}

const fn plural(cpus: usize) -> &'static str {
    if cpus == 1 { "CPU" } else { "CPUs at once" }
}

/// A look-up that is measured.
struct Case {
    name: &'static str,
    what: Do,
    frames: Frames,
    random: bool,
    /// Whether it finds an open line, or one that may be open.
    finds: bool,
}

fn measure(host: &Host, loops: &Loops, rounds: u64, cases: &[Case]) -> Result<(), Box<dyn Error>> {
    let mut seeds = fastrand::Rng::with_seed(host.tib);
    for case in cases {
        for cpus in cpus() {
            let mut values = Vec::new();
            for _ in 0..rounds {
                let seed = seeds.u64(1..=u64::MAX);
                let run = |what| {
                    loops.run_on(cpus, |cpu| Run {
                        what,
                        frames: case.frames,
                        turns: TURNS,
                        seed: if case.random { seed ^ cpu as u64 } else { 0 },
                        next: cpu as u64 * case.frames.count / cpus as u64,
                    })
                };
                let (with, alone) = (run(case.what)?, run(Do::Nothing)?);
                for ran in &with {
                    let expected = if case.finds { TURNS } else { 0 };
                    if ran.found != expected {
                        return Err(format!("{}: {} found, not {expected}", case.name, ran.found).into());
                    }
                }
                let each = with.iter().zip(&alone).map(|(with, alone)| with.ns - alone.ns);
                values.push(each.sum::<f64>() / cpus as f64);
            }
            tell(&format!("{}, {}, {cpus} {}", host.name(), case.name, plural(cpus)), "ns", &values, None);
        }
    }
    Ok(())
}

/// Releases on a host on which no line is open.
pub fn nothing_lent(host: &Host, loops: &Loops, rounds: u64) -> Result<(), Box<dyn Error>> {
    let all = Frames::dense(0, host.frames);
    let of = |name, frames| Case { name, what: Do::Read, frames, random: true, finds: false };
    let cases =
        [of("nothing lent, caches cold", all), of("nothing lent, caches warm", Frames::dense(0, FEW))];
    measure(host, loops, rounds, &cases)
}

/// Look-ups while a quarter of memory is lent.
pub fn a_quarter_lent(host: &Host, loops: &Loops, rounds: u64) -> Result<(), Box<dyn Error>> {
    let of = |name, what, frames, random, finds| Case { name, what, frames, random, finds };
    let (few, dense) = (Frames::dense(0, FEW), Frames::dense(0, DENSE));
    let cases = [
        of("foreign, far from lent frames, cold", Do::Read, host.foreign(), true, false),
        of("foreign, beside a lent frame, cold", Do::Read, host.lent().at(1), true, false),
        of("lent, cold", Do::Read, host.lent(), true, true),
        of("lent, one after the other", Do::Read, dense, false, true),
        of("lent, warm", Do::Read, few, true, true),
        of("lent, the filter alone, cold", Do::Filter, host.lent(), true, true),
        of("lent, the filter alone, warm", Do::Filter, few, true, true),
    ];
    measure(host, loops, rounds, &cases)
}

/// Opens a line at each of these frames, on all CPUs at once: each in a chunk that is not there yet, but for the dense ones.
pub fn lend(host: &Host, loops: &Loops, what: &str, frames: &[Frames]) -> Result<(), Box<dyn Error>> {
    let cpus = cpus().pop().unwrap_or(1) as u64;
    let (mut opened, outside) = (loops.open_lines()?, loops.outside()?);
    let mut times = Vec::new();
    for part in frames {
        for slice in 0..part.count.div_ceil(TURNS * cpus) {
            let rest = Frames {
                first: part.first + slice * TURNS * cpus * part.stride,
                count: (part.count - slice * TURNS * cpus).min(TURNS * cpus),
                ..*part
            };
            let ran = loops.run_on(cpus as usize, |cpu| {
                let frames = rest.part(cpus, cpu as u64, TURNS);
                Run { what: Do::Open, frames, turns: frames.count, seed: 0, next: 0 }
            })?;
            opened += rest.count;
            if part.stride != 1 {
                times.extend(ran.iter().map(|ran| ran.ns));
            }
        }
    }
    let (open, outside) = (loops.open_lines()?, loops.outside()? - outside);
    if open + outside < opened {
        return Err(format!("{open} lines are open and {outside} found no room, of {opened}").into());
    }
    let name = host.name();
    tell(&format!("{name}, {what}: a chunk is made, {cpus} {}", plural(cpus as usize)), "ns", &times, None);
    tell("  lines that found no room", "", &[outside as f64], Some(0.0));
    Ok(())
}

/// Lines are opened and closed in chunks that are there.
pub fn lines(host: &Host, loops: &Loops, rounds: u64) -> Result<(), Box<dyn Error>> {
    let caches = [("cold", host.lent().at(2), TURNS), ("warm", Frames::dense(DENSE, FEW * 16), FEW)];
    for (name, frames, most) in caches {
        for cpus in cpus() {
            let mut values = [Vec::new(), Vec::new()];
            for _ in 0..rounds {
                let run = |what| {
                    loops.run_on(cpus, |cpu| {
                        let frames = frames.part(cpus as u64, cpu as u64, most);
                        Run { what, frames, turns: frames.count, seed: 0, next: 0 }
                    })
                };
                for (values, what) in values.iter_mut().zip([Do::Open, Do::Close]) {
                    let (with, alone) = (run(what)?, run(Do::Nothing)?);
                    let each = with.iter().zip(&alone).map(|(with, alone)| with.ns - alone.ns);
                    values.push(each.sum::<f64>() / cpus as f64);
                }
            }
            for (what, values) in ["opened", "closed"].into_iter().zip(&values) {
                tell(
                    &format!("{}, a line is {what}, {name}, {cpus} {}", host.name(), plural(cpus)),
                    "ns",
                    values,
                    None,
                );
            }
        }
    }
    Ok(())
}
