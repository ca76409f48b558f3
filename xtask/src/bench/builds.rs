//! A whole workload: a compiler runs over many small files on all CPUs, as in the build of a kernel. Programs start and end
//! all the time, and every page of theirs is a release that septwatch sees.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;

use super::statistics::estimate;
use super::watchers::{Programs, Watcher};
use super::{Limit, Row};
use crate::setup;
use crate::step::note;

/// How it is measured.
#[derive(Args)]
pub struct Options {
    /// Rounds: in each, everything is measured once, in an order of its own.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=1000))]
    rounds: u32,
    /// Files that are compiled in each.
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    files: u32,
}

/// Who watches meanwhile.
const WATCHERS: [Watcher; 4] = [Watcher::Nobody, Watcher::Empty, Watcher::Septwatch, Watcher::Resting];
/// Functions of a file.
const FUNCTIONS: u32 = 60;
/// Most that it may be slower with septwatch than with empty programs, and where nothing is lent than with nothing attached,
/// in per cent.
const SLOWER: f64 = 0.5;

/// What a build took, in s.
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    /// User and system time of all of its programs.
    cpu: f64,
    wall: f64,
}

/// Measures everything.
///
/// # Errors
/// A program cannot be had, or does not begin.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    setup::for_building()?;
    setup::for_running()?;
    let folder = tempfile::tempdir().context("no folder for sources")?;
    let programs = Programs::ours(folder.path())?;
    let sources = sources(folder.path(), options.files)?;
    // The compiler and its headers come into memory.
    build(&sources)?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut order: Vec<_> = (0..WATCHERS.len()).collect();
    let mut took: Vec<[Took; WATCHERS.len()]> = Vec::new();
    for round in 0..options.rounds {
        note("builds", format_args!("round {} of {}", round + 1, options.rounds));
        random.shuffle(&mut order);
        let mut of_round = [Took::default(); WATCHERS.len()];
        for at in &order {
            let watching = programs.begin(WATCHERS[*at])?;
            of_round[*at] = build(&sources)?;
            watching.end()?;
        }
        took.push(of_round);
    }
    let mut rows = Vec::new();
    type Figure = fn(&Took) -> f64;
    let figures: [(&str, Figure); 2] = [("CPU time", |took| took.cpu), ("time", |took| took.wall)];
    for (name, figure) in figures {
        let alone: Vec<_> = took.iter().map(|round| figure(&round[0])).collect();
        let what = format!("{} files compiled, {name}, nothing attached", options.files);
        let [low, middle, high] = estimate(&alone, &mut random);
        rows.push(Row::new(what, middle, "s").between(low, high));
        // Each against another of its own round: what the machine does beside changes slowly.
        let mut slower = |what: String, with: usize, than: usize| {
            let each = took.iter().map(|round| (figure(&round[with]) / figure(&round[than]) - 1.0) * 100.0);
            let [low, middle, high] = estimate(&each.collect::<Vec<_>>(), &mut random);
            Row::new(what, middle, "% slower").between(low, high)
        };
        // Time itself is what the machine does beside, too.
        let held = |row: Row| if name == "CPU time" { row.limit(Limit::AtMost(SLOWER)) } else { row };
        for (at, watcher) in WATCHERS.into_iter().enumerate().skip(1) {
            let row = slower(format!("  {}", watcher.name()), at, 0);
            rows.push(if watcher == Watcher::Resting { held(row) } else { row });
        }
        rows.push(held(slower("  septwatch, than with empty programs".to_owned(), 2, 1)));
    }
    Ok(rows)
}

/// Writes the files that are compiled.
fn sources(folder: &Path, files: u32) -> Result<Vec<PathBuf>> {
    let each = (0..files).map(|file| {
        let path = folder.join(format!("{file}.c"));
        fs::write(&path, source(file)).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    });
    each.collect()
}

/// A file like many: some headers, some structures, some functions that call each other.
fn source(file: u32) -> String {
    let mut text =
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <errno.h>\n".to_owned();
    for n in 0..FUNCTIONS {
        // Infallible: a String.
        let _ = write!(
            text,
            "struct s{n} {{ int a[{size}]; struct s{n} *next; char name[32]; }};\n\
             int f{file}_{n}(struct s{n} *s, int n)\n{{\n\
             \tint sum = {n};\n\
             \tfor (int i = 0; i < n && s; i++, s = s->next) {{\n\
             \t\tif (strcmp(s->name, \"{file}\") == 0)\n\t\t\treturn -EINVAL;\n\
             \t\tsum += s->a[i % {size}] * (i ^ {file});\n\
             \t\tif (sum & {n})\n\t\t\tprintf(\"%d %s\\n\", sum, s->name);\n\
             \t}}\n\treturn sum;\n}}\n",
            size = n % 7 + 2,
        );
    }
    text
}

/// Compiles all files, on as many CPUs as there are.
fn build(sources: &[PathBuf]) -> Result<Took> {
    let next = AtomicUsize::new(0);
    let (begun, before) = (Instant::now(), children()?);
    let cpus = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cpus)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut cc = Command::new("cc");
                        cc.args(["-O2", "-c", "-o"]).arg(source.with_extension("o")).arg(source);
                        let status = cc.stdin(Stdio::null()).status().context("cc")?;
                        ensure!(status.success(), "cc: {status}");
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a thread died"))?)
    })?;
    let took = Took { cpu: (children()? - before).as_secs_f64(), wall: begun.elapsed().as_secs_f64() };
    Ok(took)
}

/// User and system time of all children, and theirs, that were waited for.
fn children() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    let ticks = waited_for(&stat).context("an odd /proc/self/stat")?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// proc_pid_stat(5): cutime and cstime, 16 and 17.
fn waited_for(stat: &str) -> Option<u64> {
    // The name may hold anything, and ends with the last bracket.
    let mut words = stat.rsplit_once(')')?.1.split_whitespace().skip(13);
    let mut ticks = || words.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_children_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 130 14 20 0";
        // utime, stime: 11 12; cutime, cstime: 130 14.
        assert_eq!(waited_for(stat), Some(144));
        assert_eq!(waited_for("7 (a"), None);
    }

    #[test]
    fn every_file_compiles() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let sources = sources(folder.path(), 2)?;
        let took = build(&sources)?;
        assert!(sources.iter().all(|source| source.with_extension("o").exists()), "{took:?}");
        Ok(())
    }
}
