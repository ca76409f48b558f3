//! A second pair of eyes on the page allocator: the tracepoint kmem:mm_page_free through tracefs, in an instance of
//! its own. No eBPF, no code of septwatch.

use std::{fs, io, path::PathBuf, process};

/// Where tracefs is mounted, or can be: Documentation/trace/ftrace.rst.
const TRACEFS: &str = "/sys/kernel/tracing";
/// Room for each CPU's records in KiB: a storm frees some ten thousand pages, at about 32 bytes a record.
const BUFFER_KIB: &str = "16384";

/// Pages given to the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed {
    /// The thread that was running.
    pub tid: u64,
    /// First frame.
    pub pfn: u64,
    /// 2^order frames.
    pub order: u32,
    /// When, in ns of CLOCK_MONOTONIC, rounded down to a microsecond.
    pub time_ns: u64,
}

impl Freed {
    /// Whether a frame is among them.
    pub fn has(&self, pfn: u64) -> bool {
        (self.pfn..self.pfn + (1 << self.order)).contains(&pfn)
    }
}

/// Records what threads free that this thread starts, and their children.
#[derive(Debug)]
pub struct Watch {
    instance: PathBuf,
}

impl Watch {
    /// Begins.
    ///
    /// # Errors
    /// What tracefs lacks here.
    pub fn begin() -> Result<Self, String> {
        let instance = PathBuf::from(format!("{TRACEFS}/instances/septwatch-test-{}", process::id()));
        match fs::create_dir(&instance) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("{}: {error}; is tracefs mounted there?", instance.display()));
            }
            _ => {}
        }
        let watch = Self { instance };
        watch.write("trace_clock", "mono")?;
        watch.write("buffer_size_kb", BUFFER_KIB)?;
        watch.write("options/event-fork", "1")?;
        watch.write("set_event_pid", &rustix::thread::gettid().as_raw_nonzero().to_string())?;
        watch.write("events/kmem/mm_page_free/enable", "1")?;
        Ok(watch)
    }

    fn write(&self, file: &str, text: &str) -> Result<(), String> {
        let path = self.instance.join(file);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn read(&self, file: &str) -> String {
        let path = self.instance.join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Ends, and returns everything that was freed, in the order of time.
    ///
    /// # Panics
    /// The kernel did not keep all of it, or its text is not understood.
    pub fn end(self) -> Vec<Freed> {
        self.write("events/kmem/mm_page_free/enable", "0").expect("it was switched on before");
        for cpu in fs::read_dir(self.instance.join("per_cpu")).expect("tracefs has it").flatten() {
            let cpu = cpu.file_name();
            let stats = self.read(&format!("per_cpu/{}/stats", cpu.display()));
            for loss in ["overrun: 0\n", "dropped events: 0\n"] {
                assert!(stats.contains(loss), "tracefs lost records on {}: {stats}", cpu.display());
            }
        }
        let text = self.read("trace");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| parse(line).unwrap_or_else(|| panic!("tracefs printed {line:?}"))).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Left on, it would cost the host; left behind, memory.
        let _ = self.write("events/kmem/mm_page_free/enable", "0");
        let _ = fs::remove_dir(&self.instance);
    }
}

/// A line: `  septwatch-demo-4881    [001] .....  4483.964268: mm_page_free: page=00000000ba8558f4 pfn=0x3a182e order=0`
fn parse(line: &str) -> Option<Freed> {
    let (before, event) = line.split_once(": mm_page_free: ")?;
    let (thread, rest) = before.split_once(" [")?;
    let (_, tid) = thread.trim_end().rsplit_once('-')?;
    let (seconds, micros) = rest.split_ascii_whitespace().last()?.split_once('.')?;
    let micros = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    let field = |name: &str| event.split_ascii_whitespace().find_map(|field| field.strip_prefix(name));
    Some(Freed {
        tid: tid.parse().ok()?,
        pfn: u64::from_str_radix(field("pfn=0x")?, 16).ok()?,
        order: field("order=")?.parse().ok()?,
        time_ns: micros * 1000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_tracefs_is_read() {
        let line = "  septwatch-demo-4881    [001] d..1.  4483.964268: mm_page_free: page=00000000ba8558f4 pfn=0x3a18 order=2";
        let freed = parse(line).expect("a line of tracefs");
        assert_eq!(freed, Freed { tid: 4881, pfn: 0x3a18, order: 2, time_ns: 4_483_964_268_000 });
        assert!(freed.has(0x3a1b) && !freed.has(0x3a1c) && !freed.has(0x3a17));
        assert_eq!(parse("CPU:1 [LOST 23 EVENTS]"), None);
    }
}
