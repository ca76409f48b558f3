//! What commands that load programs have in common: their flags, logging of the programs, being interrupted.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::{
    io::unix::AsyncFd,
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    commands::values::{Maybe, Time},
    hooks::{load::CHUNK_BYTES, reactions::Needs},
    source::open::Options,
};

/// A size in bytes: a number, or one with K, M or G.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || "not a size: bytes, or with K, M or G, as in 16M".to_owned();
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err(wrong()),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes != 0).ok_or_else(wrong)
}

/// A span of time up to a year: seconds, or a number with ms, s, m or h.
pub fn span(text: &str) -> Result<Duration, String> {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let ms = match &text[unit..] {
        "ms" => Some(1),
        "" | "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let number = text[..unit].parse::<u64>().ok();
    let span = number.zip(ms).and_then(|(number, ms)| number.checked_mul(ms)).map(Duration::from_millis);
    span.filter(|span| (Duration::from_millis(1)..=YEAR).contains(span)).ok_or_else(|| {
        "not a time of up to a year: seconds, or a number with ms, s, m or h, as in 90s".to_owned()
    })
}

/// Flags of the commands that load programs.
#[derive(Clone, Debug, clap::Args)]
pub struct Watching {
    /// Most memory that the ledger may take: bytes, or with K, M or G, as in 16M; 4K or more. Without it: what all of
    /// this host's memory would need, at most 0.2 % of it; it is taken as pages are lent.
    #[arg(long, value_name = "SIZE", value_parser = ledger_limit)]
    pub ledger_limit: Option<u64>,
    /// Log what the programs in the kernel do, on standard error.
    #[arg(long, value_name = "LEVEL")]
    pub bpf_log: Option<LogLevel>,
    /// Size of each ring buffer in bytes: a power of two, 4096 to 1 GiB.
    #[arg(long, value_name = "BYTES", value_parser = ring_bytes)]
    pub ring_bytes: Option<u32>,
    /// Measure how long each SEAMCALL takes: from the entry of the kernel's function to its return, which includes the
    /// function itself and a trampoline of the programs. `watch` and `demo` sum up at the end, leaf by leaf; a recording
    /// has it with each call. Costs a second program at each function.
    #[arg(long)]
    pub latency: bool,
    /// How long nothing must have been lent before nothing is attached to the page allocator any more, until a TD begins:
    /// seconds, or with ms, s, m or h; `none`: all is always attached.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub rest: Maybe<Time>,
    /// Turns of a loop between the two looks at a frame of a TD that is taken over: for tests.
    #[arg(long, value_name = "TURNS", hide = true, default_value_t = 0)]
    pub walk_delay: u32,
    /// Do not take over what is lent to TDs that run already.
    #[arg(long)]
    pub no_resync: bool,
}

/// How much the programs log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
    Trace = 5,
}

/// Whether a ring buffer can have so many bytes.
pub fn is_ring(bytes: u32) -> bool {
    bytes.is_power_of_two() && (4096..=1 << 30).contains(&bytes)
}

/// Whether a ledger may be limited to so many bytes: less has no room for a single frame.
pub fn is_ledger(bytes: u64) -> bool {
    bytes >= CHUNK_BYTES
}

fn ring_bytes(text: &str) -> Result<u32, String> {
    let bytes = text.parse().ok().filter(|bytes| is_ring(*bytes));
    bytes.ok_or_else(|| "not a power of two from 4096 to 1073741824".to_owned())
}

fn ledger_limit(text: &str) -> Result<u64, String> {
    size(text)
        .ok()
        .filter(|bytes| is_ledger(*bytes))
        .ok_or_else(|| "not a size of 4K or more: bytes, or with K, M or G, as in 16M".to_owned())
}

impl Watching {
    /// How long nothing must have been lent before releases are watched no more; `None`: they always are.
    pub fn rest(&self) -> Option<Duration> {
        self.rest.0.map(|Time(rest)| rest)
    }

    /// The same for the library.
    pub fn options(&self) -> Options {
        let default = Options::default();
        let mut rings = default.rings;
        if let Some(bytes) = self.ring_bytes {
            rings.vital = bytes;
            rings.pages = bytes;
        }
        Options {
            ledger_limit: self.ledger_limit,
            rings,
            log_level: self.bpf_log.map_or(0, |level| level as u8),
            kprobes: false,
            latency: self.latency,
            reactions: Needs::default(),
            walk_delay: self.walk_delay,
        }
    }

    /// Shows the log of the programs, if it was asked for: while the runtime runs, and the rest of it when what this
    /// returns is dropped.
    pub fn logger(&self, ebpf: Option<&mut Ebpf>, runtime: &Handle) -> Result<Option<RestOfLog>> {
        let Some(level) = self.bpf_log else { return Ok(None) };
        let Some(ebpf) = ebpf else {
            bail!(
                "--bpf-log: the programs that run were loaded by another process, and log nothing for this one"
            )
        };
        StderrLog::install(level)?;
        let logger = EbpfLogger::init(ebpf).context("the log of the programs in the kernel")?;
        let _entered = runtime.enter();
        let readiness = readiness(logger.as_fd().try_clone_to_owned()?)?;
        let rest = RestOfLog(Arc::new(Mutex::new(logger)));
        let logger = Arc::clone(&rest.0);
        runtime.spawn(async move {
            while let Ok(mut ready) = readiness.readable().await {
                ready.clear_ready();
                flush(&logger);
            }
        });
        Ok(Some(rest))
    }
}

/// The log of the programs. Dropping it shows what has not been shown: to be done after the programs are detached.
pub struct RestOfLog(Arc<Mutex<EbpfLogger<&'static dyn log::Log>>>);

impl Drop for RestOfLog {
    fn drop(&mut self) {
        flush(&self.0);
    }
}

fn flush(logger: &Mutex<EbpfLogger<&'static dyn log::Log>>) {
    logger.lock().unwrap_or_else(PoisonError::into_inner).flush();
}

/// Tells when a ring can be read.
///
/// # Errors
/// It cannot be polled.
pub fn readiness(ring: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, and so stays the same file until the AsyncFd is dropped.
    Ok(unsafe { AsyncFd::register(ring) }?)
}

/// Where the programs' log goes.
struct StderrLog;

impl StderrLog {
    fn install(level: LogLevel) -> Result<()> {
        static LOG: StderrLog = StderrLog;
        let filter = match level {
            LogLevel::Error => log::LevelFilter::Error,
            LogLevel::Warn => log::LevelFilter::Warn,
            LogLevel::Info => log::LevelFilter::Info,
            LogLevel::Debug => log::LevelFilter::Debug,
            LogLevel::Trace => log::LevelFilter::Trace,
        };
        log::set_max_level(filter);
        // Once for a process: a tour has several scenarios.
        let _ = log::set_logger(&LOG);
        Ok(())
    }
}

impl log::Log for StderrLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{} {}: {}", record.level(), record.target(), record.args());
    }

    fn flush(&self) {}
}

/// The command was asked to stop, and everything is detached.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted; every program is detached")]
pub struct Interrupted;

/// SIGINT and SIGTERM.
pub struct Interrupts {
    int: Signal,
    term: Signal,
}

impl Interrupts {
    /// From now on they do not end the process.
    pub fn new() -> Result<Self> {
        Ok(Self { int: signal(SignalKind::interrupt())?, term: signal(SignalKind::terminate())? })
    }

    /// Waits for one of them.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ledger_limit, size, span};

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        for (text, ms) in [("90", 90_000), ("90s", 90_000), ("5m", 300_000), ("1h", 3_600_000), ("15ms", 15)]
        {
            assert_eq!(span(text), Ok(Duration::from_millis(ms)));
        }
        for text in
            ["", "s", "0", "0ms", "-1s", "1.5s", "1 s", "1d", "8761h", "99999999999999999999", "\u{e9}s"]
        {
            assert!(span(text).is_err(), "{text}");
        }
        assert!(size("0").is_err());
        assert_eq!(size("1K"), Ok(1024));
    }

    #[test]
    fn a_size_has_a_unit_or_is_in_bytes() {
        for (text, bytes) in [("4096", 4096), ("4K", 4096), ("16M", 16 << 20), ("2G", 2 << 30)] {
            assert_eq!(ledger_limit(text), Ok(bytes));
        }
        for text in
            ["", "M", "4095", "0", "3K", "1k", "1.5M", "16MB", "4KK", "-4K", "99999999999G", "\u{e9}K"]
        {
            assert!(ledger_limit(text).is_err(), "{text}");
        }
    }
}
