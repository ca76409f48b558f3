//! What commands that load programs have in common: their flags, logging of the programs, being interrupted.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::{
    io::unix::AsyncFd,
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::source::open::Options;

/// Flags of the commands that load programs.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Watching {
    /// Most memory that the ledger may take, in MiB. Without it: what all of this host's memory would need, at most
    /// 0.2 % of it; it is taken as pages are lent.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    pub ledger_limit: Option<u64>,
    /// Log what the programs in the kernel do, on standard error.
    #[arg(long, value_name = "LEVEL")]
    pub bpf_log: Option<LogLevel>,
    /// Size of each ring buffer in bytes: a power of two, 4096 to 1 GiB.
    #[arg(long, value_name = "BYTES", value_parser = ring_bytes)]
    pub ring_bytes: Option<u32>,
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

fn ring_bytes(text: &str) -> Result<u32, String> {
    let bytes: u32 = text.parse().map_err(|_| "not a number of bytes".to_owned())?;
    if bytes.is_power_of_two() && (4096..=1 << 30).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("must be a power of two from 4096 to 1073741824".to_owned())
    }
}

impl Watching {
    /// The same for the library.
    pub fn options(&self) -> Options {
        let default = Options::default();
        let mut rings = default.rings;
        if let Some(bytes) = self.ring_bytes {
            rings.vital = bytes;
            rings.pages = bytes;
        }
        Options {
            ledger_limit: self.ledger_limit.map(|mib| mib << 20),
            rings,
            log_level: self.bpf_log.map_or(0, |level| level as u8),
        }
    }

    /// Shows the log of the programs, if it was asked for, while the runtime runs.
    pub fn logger(&self, ebpf: &mut Ebpf, runtime: &Handle) -> Result<()> {
        let Some(level) = self.bpf_log else { return Ok(()) };
        StderrLog::install(level)?;
        let logger = EbpfLogger::init(ebpf).context("the log of the programs in the kernel")?;
        let _entered = runtime.enter();
        let readiness = readiness(logger.as_fd().try_clone_to_owned()?)?;
        runtime.spawn(async move {
            let mut logger = logger;
            while let Ok(mut ready) = readiness.readable().await {
                ready.clear_ready();
                logger.flush();
            }
        });
        Ok(())
    }
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
