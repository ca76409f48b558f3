//! trace-cmd as what people would use instead: it records the same functions (entry with arguments, return with the
//! result, as uprobes) and the allocator's tracepoint.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};

use super::recording::{read_back, size};
use crate::run;
use crate::setup::packages;

const PROBES: &str = "/sys/kernel/tracing/uprobe_events";
const GROUP: &str = "septwatch_bench";

/// trace-cmd, ready to record.
pub struct Tracer {
    file: PathBuf,
    ftrace: PathBuf,
}

/// `trace-cmd record`, to which the rest is added. `ftrace` is a file that holds `1`.
///
/// It dies where it may not set the function tracer up, which it does not need here: some kernels refuse even to open
/// those files. In a namespace of its own it gets others in their place.
pub fn in_namespace(ftrace: &Path) -> Command {
    const SCRIPT: &str = "\
        mount --bind \"$0\" /proc/sys/kernel/ftrace_enabled
        for file in /sys/kernel/tracing/set_ftrace_* /sys/kernel/tracing/set_graph_*; do
            [ -e $file ] && mount --bind \"$0\" $file
        done
        exec trace-cmd record \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT]).arg(ftrace);
    command
}

/// What it recorded.
pub struct Traced {
    pub events: u64,
    pub lost: u64,
    pub bytes: u64,
    /// How long it takes to read that back as text.
    pub seconds: f64,
}

impl Tracer {
    /// Installs it, and makes uprobes at the demo's functions.
    ///
    /// # Errors
    /// It cannot be installed, or the kernel takes no uprobes.
    pub fn prepare(septwatch: &Path, folder: &Path) -> Result<Self> {
        packages::ensure("trace-cmd", &[("trace-cmd", "trace-cmd")])?;
        let binary = fs::read(septwatch).with_context(|| format!("cannot read {}", septwatch.display()))?;
        let parsed = object::File::parse(&*binary).context("septwatch is no ELF file")?;
        let mut probes = String::new();
        for symbol in parsed.symbols() {
            let Some(name) = symbol.name().ok().filter(|name| name.starts_with("tdh_")) else { continue };
            let segment = parsed.segments().find(|segment| {
                (segment.address()..segment.address() + segment.size()).contains(&symbol.address())
            });
            let segment = segment.with_context(|| format!("{name} lies in no segment"))?;
            let offset = symbol.address() - segment.address() + segment.file_range().0;
            let place = format!("{}:{offset:#x}", septwatch.display());
            probes.push_str(&format!("p:{GROUP}/{name} {place} %di %si %dx %cx %r8 %r9\n"));
            probes.push_str(&format!("r:{GROUP}/{name}_return {place} $retval\n"));
        }
        ensure!(!probes.is_empty(), "{} has no symbols tdh_*", septwatch.display());
        let tracer = Self { file: folder.join("trace.dat"), ftrace: folder.join("ftrace_enabled") };
        fs::write(&tracer.ftrace, "1\n").context("cannot write to the folder for recordings")?;
        // Of a run that was killed.
        tracer.remove_probes();
        for probe in probes.lines() {
            let added = fs::OpenOptions::new()
                .append(true)
                .open(PROBES)
                .and_then(|mut file| std::io::Write::write_all(&mut file, format!("{probe}\n").as_bytes()));
            added.with_context(|| format!("{PROBES} does not take `{probe}`"))?;
        }
        Ok(tracer)
    }

    /// The command under trace-cmd, which records as long as it runs.
    pub fn around(&self, command: &Command) -> Command {
        let mut around = in_namespace(&self.ftrace);
        around.arg("-o").arg(&self.file);
        around.args(["-q", "-e", GROUP, "-e", "kmem:mm_page_free"]);
        around.arg(command.get_program()).args(command.get_args());
        around
    }

    /// What the last recording holds.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn measure(&self) -> Result<Traced> {
        let report = || {
            let mut report = Command::new("trace-cmd");
            report.arg("report").arg("-i").arg(&self.file);
            report
        };
        let seconds = read_back(&mut report())?;
        let text = run::quiet(&mut report())?;
        let of_event = |line: &&str| line.contains(": tdh_") || line.contains(": mm_page_free:");
        let lost = text.lines().filter_map(|line| {
            line.split_once("EVENTS DROPPED]")
                .and_then(|(before, _)| before.rsplit(['[', ' ']).find_map(|n| n.parse::<u64>().ok()))
        });
        Ok(Traced {
            events: text.lines().filter(of_event).count() as u64,
            lost: lost.sum(),
            bytes: size(&self.file)?,
            seconds,
        })
    }

    fn remove_probes(&self) {
        let _ = fs::write("/sys/kernel/tracing/events/septwatch_bench/enable", "0");
        let listed = fs::read_to_string(PROBES).unwrap_or_default();
        for line in listed.lines().filter(|line| line.contains(&format!(":{GROUP}/"))) {
            let name = line.split(' ').next().and_then(|name| name.split_once(':')).map(|(_, name)| name);
            if let Some(name) = name
                && let Ok(mut file) = fs::OpenOptions::new().append(true).open(PROBES)
            {
                // What cannot be removed is named again when a probe of that name cannot be added.
                let _ = std::io::Write::write_all(&mut file, format!("-:{name}\n").as_bytes());
            }
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.remove_probes();
    }
}
