//! Following this host, for every command that does: attaching, what arrives, and when it ends.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::{
    process::Child,
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    time,
};

use super::{
    Interrupts, Policing, Watching,
    looks::{TICK, pause},
    policing::{Guard, Prepared},
    watching,
};
use crate::{
    confine::Kept,
    hooks::lock::Lock,
    model::verdict::Verdict,
    policy::{audit::Step, control::Asked, file::Policy, react::host::Host},
    recording::header::Why,
    source::{
        event::Event,
        open::{self, Opened, Options},
        session::Session,
        walk::{resync::Outcome, schedule::Schedule},
    },
    view::{
        lines,
        stack::{KernelSymbols, Places},
    },
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
    /// The policy that is followed, if one is.
    pub guard: Option<Guard>,
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

    /// A step of the policy was taken, or not.
    ///
    /// # Errors
    /// As for [`Self::event`].
    fn reaction(&mut self, step: &Step) -> Result<()>;

    /// A TD that ran already was taken over, or could not be.
    ///
    /// # Errors
    /// As for [`Self::event`].
    fn walked(&mut self, outcome: &Outcome) -> Result<()> {
        eprintln!("septwatch: {}", lines::walked(outcome));
        Ok(())
    }

    /// All that was there has been handed over; `guard` is the policy at work, if one is.
    ///
    /// # Errors
    /// As for [`Self::event`].
    fn pumped(&mut self, session: &mut Session, guard: Option<&mut Guard>) -> Result<()>;

    /// A hangup: the policy is about to be read again, and so may be what the command itself reads; see
    /// [`Until::reloads`].
    ///
    /// # Errors
    /// The command must end.
    fn reload(&mut self) -> Result<()> {
        Ok(())
    }

    /// It was read again.
    ///
    /// # Errors
    /// As for [`Self::reload`].
    fn reloaded(&mut self) -> Result<()> {
        Ok(())
    }
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
    /// Not when the terminal hangs up, even where no policy is followed.
    pub reloads: bool,
    /// When somebody in this process says so.
    pub told: Option<Arc<Notify>>,
    /// Signals, where they are caught already.
    pub signals: Option<Signals>,
}

/// What others end this process by, or have it read things again. Whoever says that he is ready catches them before: who
/// hears it may send one at once.
pub struct Signals {
    interrupts: Interrupts,
    hangups: Signal,
}

impl Signals {
    /// From now on they do nothing by themselves. Inside of a runtime.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn caught() -> Result<Self> {
        Ok(Self { interrupts: Interrupts::new()?, hangups: signal(SignalKind::hangup())? })
    }
}

impl Live {
    /// Attaches, or takes over what another process left. Page records come if `pages`, or if latencies are measured: they
    /// carry them.
    ///
    /// # Errors
    /// This host cannot be watched.
    pub fn begin(
        command: &str,
        watching: &Watching,
        policing: &Policing,
        options: &Options,
        pages: bool,
    ) -> Result<Self> {
        Self::begin_confined(command, watching, policing, options, pages, |_| Ok(None))
    }

    /// The same; `confine` gives up what is not needed with the policy, when all is attached and before anything else is
    /// started. Of other threads only one has more for a moment: where programs are taken over, it still reads symbols.
    ///
    /// # Errors
    /// As for [`Self::begin`], and those of `confine`.
    pub fn begin_confined(
        command: &str,
        watching: &Watching,
        policing: &Policing,
        options: &Options,
        pages: bool,
        confine: impl FnOnce(Option<&Policy>) -> Result<Option<Kept>>,
    ) -> Result<Self> {
        open::check_capabilities()?;
        let (prepared, plan) = policing.prepare(options)?.unzip();
        let needs = prepared.as_ref().map(Prepared::needs).unwrap_or_default();
        let options = &Options { reactions: needs, ..options.clone() };
        let lock = Lock::take(command)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let start = Instant::now();
        let (mut kernel, mut opened) = open::live(options, plan)?;
        let rest_of_log = watching.logger(kernel.ebpf(), runtime.handle())?;
        kernel.record_pages(pages || options.latency)?;
        say_opened(&opened, kernel.is_pinned(), options.latency);
        let mut session = Session::new(kernel)?;
        session.rest_after(watching.rest());
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
        let kept = confine(prepared.as_ref().map(Prepared::policy))?;
        let guard = match prepared {
            None => None,
            Some(_) if !opened.reactions.cover(needs) && !policing.allow_degraded => bail!(
                "the programs that run, or that the kernel let be attached, are not all that the policy needs; without --leave, the next start attaches all, and --allow-degraded follows the policy with what there is"
            ),
            Some(prepared) => {
                let _inside = runtime.enter();
                let guard = Guard::begin(prepared, opened.reactions, Host::default(), true, &mut session)?;
                let guard = guard.confined(kept);
                eprintln!("septwatch: {}", guard.told());
                Some(guard)
            }
        };
        if !watching.no_resync
            && let Err(error) = opened.walk.take().map_or_else(|| session.resynchronise(), Err)
        {
            eprintln!(
                "septwatch: what is lent to TDs that run already is not taken over, so that verdicts on them are suspect: {}",
                crate::commands::told(&error)
            );
        }
        let took = start.elapsed();
        Ok(Self { runtime, session, opened, took, guard, symbols, _rest_of_log: rest_of_log, _lock: lock })
    }

    /// Hands everything that arrives to `sink`, until it is over, and says why it is.
    ///
    /// # Errors
    /// The kernel side cannot be read, or the sink fails.
    pub fn follow(&mut self, until: &mut Until, sink: &mut dyn Sink) -> Result<Why> {
        let Self { runtime, session, symbols, guard, .. } = self;
        runtime.block_on(follow(session, symbols, guard.as_mut(), until, sink))
    }

    /// Ends: detaches everything, unless it is to be left, or something is held. Then the programs stay, and the next that
    /// watches takes them over.
    ///
    /// # Errors
    /// The audit log cannot be written.
    pub fn end(&mut self, leave: bool) -> Result<()> {
        let mut holds = false;
        if let Some(guard) = &mut self.guard {
            holds = guard.end(&mut self.session)?;
        }
        if holds && !leave {
            eprintln!(
                "septwatch: something is held or refused: the programs that do it stay; the next `septwatch watch` takes them over"
            );
        }
        if leave || holds {
            // They would only be lost while nobody reads them.
            self.session.kernel().record_pages(false)?;
            // Nobody is told of a TD that begins.
            self.session.kernel().needed().releases()?;
            self.session.kernel().leave();
        }
        Ok(())
    }
}

/// What ended a moment of waiting.
enum Woken {
    /// Something may have arrived.
    Again,
    /// It is over.
    Over(Why),
    /// Somebody asks for something.
    Asked(Asked),
    /// The policy is to be read again.
    Reload,
}

/// Hands everything that arrives in a session to `sink`, until it is over, and says why it is.
///
/// # Errors
/// The kernel side cannot be read, or the sink fails.
pub(super) async fn follow(
    session: &mut Session,
    symbols: &OnceLock<KernelSymbols>,
    mut guard: Option<&mut Guard>,
    until: &mut Until,
    sink: &mut dyn Sink,
) -> Result<Why> {
    let none = KernelSymbols::default();
    let ring = watching::readiness(session.kernel().wake_up()?)?;
    let Signals { mut interrupts, mut hangups } = match until.signals.take() {
        Some(signals) => signals,
        None => Signals::caught()?,
    };
    let mut looked = Instant::now();
    let mut due = looked;
    let end = until.duration.map(|duration| Instant::now() + duration);
    loop {
        let woken = tokio::select! {
            ready = ring.readable() => {
                ready?.clear_ready();
                Woken::Again
            }
            () = time::sleep_until(due.into()) => {
                due = Instant::now() + TICK;
                session.tend()?;
                let unwatched = session.began_unwatched();
                if unwatched != 0 {
                    eprintln!(
                        "septwatch: {unwatched} TDs began before releases were watched: what came back of them by then was not seen"
                    );
                }
                if let Some(guard) = guard.as_deref_mut() {
                    guard.tend(session)?;
                }
                let is_over = end.is_some_and(|end| Instant::now() >= end);
                if is_over { Woken::Over(Why::Duration) } else { Woken::Again }
            }
            asked = asked(guard.as_deref_mut()) => Woken::Asked(asked),
            // Without anything to read again, a hangup ends it.
            Some(()) = hangups.recv() => match guard.is_some() || until.reloads {
                true => Woken::Reload,
                false => Woken::Over(Why::Stopped),
            },
            () = told(until.told.as_deref()) => Woken::Over(Why::Stopped),
            () = ended(&mut until.command) => Woken::Over(Why::CommandEnded),
            () = interrupts.received() => Woken::Over(Why::Stopped),
        };
        let symbols = symbols.get().unwrap_or(&none);
        let (mut found, mut pages) = (false, 0);
        for vital in [true, false] {
            let mut handed = Ok(());
            session.pump_one(vital, |event, verdict| {
                if handed.is_err() {
                    return;
                }
                found |= verdict.is_some();
                pages += usize::from(!vital);
                if let Some(guard) = guard.as_deref_mut() {
                    guard.saw(&event, verdict.as_ref());
                }
                let places = verdict.as_ref().map(|verdict| Places::now(verdict, symbols));
                handed = sink.event(&event, verdict.as_ref().zip(places.as_ref()));
            })?;
            handed?;
            if let Some(guard) = guard.as_deref_mut() {
                guard.react(session, |step| sink.reaction(step))?;
            }
        }
        if let Some(resync) = session.resync() {
            let (outcomes, error) = resync.news();
            outcomes.iter().try_for_each(|outcome| sink.walked(outcome))?;
            if let Some(error) = error {
                eprintln!("septwatch: TDs that run already: {}", crate::commands::told(&error));
            }
        }
        for news in session.audits().map(Schedule::news).into_iter().flatten() {
            eprintln!("septwatch: {news}");
        }
        sink.pumped(session, guard.as_deref_mut())?;
        let now = Instant::now();
        due = due.min(now + pause(pages, now - looked));
        looked = now;
        let mut over = None;
        match (woken, guard.as_deref_mut()) {
            (Woken::Over(why), _) => over = Some(why),
            (Woken::Asked(asked), Some(guard)) => guard.answer(asked, session),
            (Woken::Reload, guard) => {
                sink.reload()?;
                guard.map_or(Ok(()), |guard| guard.reload(session))?;
                sink.reloaded()?;
            }
            _ => {}
        }
        if until.violation && found {
            over = Some(Why::Violation);
        }
        if let Some(why) = over {
            return Ok(why);
        }
    }
}

/// The next request to the agent; never where no policy is followed.
async fn asked(guard: Option<&mut Guard>) -> Asked {
    match guard {
        Some(guard) => guard.asked().await,
        None => std::future::pending().await,
    }
}

/// Returns when somebody says so; never where nobody can.
async fn told(told: Option<&Notify>) {
    match told {
        Some(told) => told.notified().await,
        None => std::future::pending().await,
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
