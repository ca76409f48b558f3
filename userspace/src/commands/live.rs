//! Following this host, for every command that does: attaching, what arrives, and when it ends.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::{process::Child, runtime::Runtime, time};

use super::{Interrupts, Watching, watching};
use crate::{
    hooks::lock::Lock,
    model::verdict::Verdict,
    recording::header::Why,
    source::{
        event::Event,
        open::{self, Opened, Options},
        session::Session,
    },
    view::stack::{KernelSymbols, Places},
};

/// A running observation of this host.
pub struct Live {
    /// What runs the rest.
    pub runtime: Runtime,
    /// The kernel side, and the model of it.
    pub session: Session,
    /// How it came to be.
    pub opened: Opened,
    /// How long that took.
    pub took: Duration,
    symbols: Arc<OnceLock<KernelSymbols>>,
    _rest_of_log: Option<watching::RestOfLog>,
    _lock: Lock,
}

/// What a command does with what arrives.
pub trait Sink {
    /// An event; with `found`, a violation and the places in its stacks. A record leaves the kernel's ring buffer when
    /// this returns: it must be out by then, for this process may be killed.
    ///
    /// # Errors
    /// It cannot be passed on.
    fn event(&mut self, event: &Event, found: Option<(&Verdict, &Places)>) -> Result<()>;

    /// All that was there has been handed over.
    ///
    /// # Errors
    /// As for [`Self::event`].
    fn pumped(&mut self, session: &mut Session) -> Result<()>;
}

/// When following ends, beside an interrupt.
#[derive(Default)]
pub struct Until {
    /// After this time.
    pub duration: Option<Duration>,
    /// When a violation was found.
    pub violation: bool,
    /// When this command has ended.
    pub command: Option<Child>,
}

impl Live {
    /// Attaches, or takes over what another process left.
    ///
    /// # Errors
    /// This host cannot be watched.
    pub fn begin(command: &str, watching: &Watching, options: &Options, pages: bool) -> Result<Self> {
        open::check_capabilities()?;
        let lock = Lock::take(command)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let start = Instant::now();
        let (mut kernel, opened) = open::live(options)?;
        let rest_of_log = watching.logger(kernel.ebpf(), runtime.handle())?;
        kernel.record_pages(pages || options.latency)?;
        say_opened(&opened, kernel.is_pinned(), options.latency);
        let session = Session::new(kernel)?;
        // There are hundreds of thousands. Who takes over has no time for them: records may be waiting, and go out with
        // addresses until they are read. Else they are there before it is said that all is watched.
        let symbols = Arc::new(OnceLock::new());
        let reader = std::thread::spawn({
            let symbols = Arc::clone(&symbols);
            move || symbols.set(KernelSymbols::running())
        });
        if !opened.taken_over {
            // A reader that died leaves the addresses.
            let _ = reader.join();
        }
        let took = start.elapsed();
        Ok(Self { runtime, session, opened, took, symbols, _rest_of_log: rest_of_log, _lock: lock })
    }

    /// Hands everything that arrives to `sink`, until it is over, and says why it is.
    ///
    /// # Errors
    /// The kernel side cannot be read, or the sink fails.
    pub fn follow(&mut self, until: &mut Until, sink: &mut dyn Sink) -> Result<Why> {
        let Self { runtime, session, symbols, .. } = self;
        runtime.block_on(follow(session, symbols, until, sink))
    }
}

async fn follow(
    session: &mut Session,
    symbols: &OnceLock<KernelSymbols>,
    until: &mut Until,
    sink: &mut dyn Sink,
) -> Result<Why> {
    let none = KernelSymbols::default();
    let ring = watching::readiness(session.kernel().wake_up()?)?;
    let mut interrupts = Interrupts::new()?;
    let mut tick = time::interval(Duration::from_millis(100));
    let end = until.duration.map(|duration| Instant::now() + duration);
    loop {
        let mut over = tokio::select! {
            ready = ring.readable() => {
                ready?.clear_ready();
                None
            }
            _ = tick.tick() => {
                session.tend()?;
                end.filter(|end| Instant::now() >= *end).map(|_| Why::Duration)
            }
            () = ended(&mut until.command) => Some(Why::CommandEnded),
            () = interrupts.received() => Some(Why::Stopped),
        };
        let symbols = symbols.get().unwrap_or(&none);
        let mut handed = Ok(());
        session.pump(|event, verdict| {
            if handed.is_err() {
                return;
            }
            if until.violation && verdict.is_some() {
                over = Some(Why::Violation);
            }
            let places = verdict.as_ref().map(|verdict| Places::now(verdict, symbols));
            handed = sink.event(&event, verdict.as_ref().zip(places.as_ref()));
        })?;
        handed?;
        sink.pumped(session)?;
        if let Some(why) = over {
            return Ok(why);
        }
    }
}

/// Returns when the command has ended; never where there is none.
async fn ended(command: &mut Option<Child>) {
    match command {
        // That it cannot be waited for is an end as well: its exit code is asked for later.
        Some(child) => drop(child.wait().await),
        None => std::future::pending().await,
    }
}

/// What somebody should know of how the programs came to run, on standard error.
fn say_opened(opened: &Opened, pinned: bool, latency: bool) {
    for (hook, error) in &opened.not_attached {
        eprintln!("septwatch: without {hook}: {}", crate::commands::told(error));
    }
    if opened.replaced {
        eprintln!(
            "septwatch: a ledger that this version cannot take over was running, and was removed: TDs that run already are not in the new one"
        );
    }
    if latency && !opened.latency {
        eprintln!(
            "septwatch: --latency: the programs that run were attached by another process without it, and measure nothing: there are no latencies"
        );
    }
    if !pinned {
        eprintln!("septwatch: no bpffs on /sys/fs/bpf: if this process is killed, detection ends with it");
    }
}
