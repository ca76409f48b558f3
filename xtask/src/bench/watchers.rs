//! What can watch pages come back: nothing, a program that does nothing, septwatch, and what people would use instead.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{acts, trace_cmd};
use crate::run::Killed;
use crate::setup::packages;
use crate::{build, run};

/// How long something may take until it watches, or has ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether it does.
const LOOK: Duration = Duration::from_millis(10);
const FREE: &str = "kmem:mm_page_free";
/// See [`trace_cmd::in_namespace`].
const FTRACE: &str = "ftrace_enabled";
const SCRIPT: &str = include_str!("pages.bt");

/// Something that watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watcher {
    /// Nobody.
    Nobody,
    /// septwatch with programs that do nothing.
    Empty,
    /// septwatch, with TDs of its demo that do next to nothing.
    Septwatch,
    /// septwatch, on whose host nothing is lent.
    Resting,
    Bpftrace,
    Perf,
    TraceCmd,
}

impl Watcher {
    pub const ALL: [Self; 7] = [
        Self::Nobody,
        Self::Empty,
        Self::Septwatch,
        Self::Resting,
        Self::Bpftrace,
        Self::Perf,
        Self::TraceCmd,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nothing attached",
            Self::Empty => "empty programs at septwatch's hooks",
            Self::Septwatch => "septwatch, TDs run",
            Self::Resting => "septwatch, nothing is lent",
            Self::Bpftrace => "bpftrace, a map of lent frames",
            Self::Perf => "perf record, all CPUs",
            Self::TraceCmd => "trace-cmd record, all CPUs",
        }
    }
}

/// Installs what is missing of what people would use instead.
///
/// # Errors
/// A program cannot be had.
pub fn install() -> Result<()> {
    let programs = [("bpftrace", "bpftrace"), ("perf", "linux-perf"), ("trace-cmd", "trace-cmd")];
    packages::ensure("watchers", &programs)
}

/// What is needed to begin any of them.
pub struct Programs {
    septwatch: PathBuf,
    empty: PathBuf,
    folder: PathBuf,
}

/// One at work.
pub struct Watching(Option<Killed>);

impl Programs {
    /// Installs and builds what is missing; what others write goes into the folder.
    ///
    /// # Errors
    /// Something cannot be had.
    pub fn prepare(folder: &Path) -> Result<Self> {
        install()?;
        Self::ours(folder)
    }

    /// The same without those that are not septwatch.
    ///
    /// # Errors
    /// Something cannot be built.
    pub fn ours(folder: &Path) -> Result<Self> {
        let empty = build::with_programs("empty")?;
        let septwatch = build::septwatch()?;
        for (name, text) in [("pages.bt", SCRIPT), (FTRACE, "1\n")] {
            fs::write(folder.join(name), text).context("cannot write to the folder for recordings")?;
        }
        Ok(Self { septwatch, empty, folder: folder.to_owned() })
    }

    /// Begins one, and returns when it watches.
    ///
    /// # Errors
    /// It cannot be run, or ends early.
    pub fn begin(&self, watcher: Watcher) -> Result<Watching> {
        let mut command = match watcher {
            Watcher::Nobody => return Ok(Watching(None)),
            Watcher::Empty | Watcher::Septwatch | Watcher::Resting => {
                let program = if watcher == Watcher::Empty { &self.empty } else { &self.septwatch };
                let mut command = Command::new(program);
                command.args(["agent", "--demo", "--pace", "1", "--metrics-listen", "none"]);
                if watcher == Watcher::Resting {
                    command.args(["--tds", "0", "--rest", "1ms"]);
                }
                command
            }
            Watcher::Bpftrace => {
                let mut command = Command::new("bpftrace");
                command.arg(self.folder.join("pages.bt"));
                command
            }
            Watcher::Perf => {
                let mut command = Command::new("perf");
                command.args(["record", "-a", "-e", FREE, "-o"]).arg(self.folder.join("perf.data"));
                command
            }
            Watcher::TraceCmd => {
                let mut command = trace_cmd::in_namespace(&self.folder.join(FTRACE));
                command.arg("-o").arg(self.folder.join("trace.dat")).args(["-q", "-e", FREE]);
                command
            }
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot run `{}`", run::line(&command)))?;
        let mut watching = Watching(Some(Killed(child)));
        watching.until_it_watches(watcher)?;
        Ok(watching)
    }
}

/// Whether a process has a program at the release of pages.
fn sees_releases(pid: u32) -> Result<bool> {
    let folder = format!("/proc/{pid}/fdinfo");
    let infos = fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?.flatten();
    let mut infos = infos.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    Ok(infos.any(|info| info.contains("tp_name:\tmm_page_free")))
}

impl Watching {
    fn until_it_watches(&mut self, watcher: Watcher) -> Result<()> {
        let Some(Killed(child)) = &mut self.0 else { return Ok(()) };
        if watcher == Watcher::Bpftrace {
            let output = child.stdout.take().context("a pipe")?;
            for line in BufReader::new(output).lines() {
                if line?.trim() == "attached" {
                    return Ok(());
                }
            }
            bail!("{} ended before it watched", watcher.name());
        }
        let begun = Instant::now();
        loop {
            let ready = match watcher {
                Watcher::Empty | Watcher::Septwatch => acts(child.id()),
                Watcher::Resting => acts(child.id()) && !sees_releases(child.id())?,
                Watcher::TraceCmd => {
                    let on = fs::read_to_string("/sys/kernel/tracing/events/kmem/mm_page_free/enable");
                    on.is_ok_and(|on| on.trim() == "1")
                }
                // It does not tell.
                _ => begun.elapsed() > Duration::from_secs(1),
            };
            if ready {
                return Ok(());
            }
            if let Some(status) = child.try_wait()? {
                bail!("{}: {status}", watcher.name());
            }
            ensure!(begun.elapsed() < PATIENCE, "{} does not begin", watcher.name());
            thread::sleep(LOOK);
        }
    }

    /// Ends it as a person would, and waits until it is gone.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(mut self) -> Result<()> {
        let Some(Killed(child)) = &mut self.0 else { return Ok(()) };
        drop(child.stdin.take());
        let begun = Instant::now();
        // One whose input has ended may be gone already.
        let _ = kill_process(Pid::from_child(child), Signal::INT);
        while child.try_wait()?.is_none() {
            ensure!(begun.elapsed() < PATIENCE, "something that watched does not end");
            thread::sleep(LOOK);
        }
        Ok(())
    }
}
