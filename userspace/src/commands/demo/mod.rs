//! `septwatch demo`: real programs in the kernel watch a software TDX module in this process, with real memory and real
//! frees; and what they find is held against what the demo knows that it did.

mod oracle;
mod policed;
mod show;
pub mod stand_in;

use std::{
    io::Write,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use septwatch_common::Line;
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time};

use super::{BadInput, Interrupts, exit, recording, watching};
use crate::{
    hooks::lock::Lock,
    model::verdict::Verdict,
    recording::{
        State,
        files::{Files, Limits},
        header::{LedgerFacts, Note, Origin, What, Why},
        recorder::Recorder,
    },
    source::{
        demo::{
            module,
            scenarios::{self, SCENARIOS, Scenario, Stage},
            vmm::now_ns,
        },
        event::Event,
        open,
        session::{Session, Standing},
    },
    view::stack::{KernelSymbols, Places},
};
use oracle::{Caused, Comparison};
use policed::Policed;
use show::Show;
use stand_in::StandIn;

/// Without an argument: a guided tour.
const TOUR: [&str; 4] = ["clean", "zap-failed", "freed-while-mapped", "reused-while-mapped"];

/// With a policy, and without an argument: something that it can still prevent.
const POLICED: &str = "zap-failed-punch";

/// Shows septwatch at work on any Linux host: a software TDX module in this process makes the mistakes.
///
/// Exit code 0: everything that was caused was found, and nothing else; 1: a difference; 3: this host cannot.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to act out; without it, a guided tour through four of them.
    #[arg(value_parser = scenario_names(), hide_possible_values = true)]
    pub scenario: Option<String>,
    /// List the scenarios.
    #[arg(long, conflicts_with = "scenario")]
    pub list: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// Decides what a storm does; the same seed, the same storm.
    #[arg(long, default_value_t = 1, value_parser = seed)]
    pub seed: u64,
    /// The kernel whose functions the demo's are like: their arguments differ.
    #[arg(long, value_enum, default_value = "7.3")]
    pub shape: Shape,
    /// Cause one fault that is not announced, to see that the comparison can fail.
    #[arg(long)]
    pub one_more: bool,
    /// Record every SEAMCALL in a storm too.
    #[arg(long)]
    pub all_events: bool,
    /// Record everything into this file, as `septwatch record` does. A recording that is there is replaced, any other
    /// file is not.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Follow a policy, armed: the name of a shipped one, or a file. The VMM is a process of its own then, and what the
    /// policy does is done to that process; the scenario is zap-failed-punch if none is named. Audit log:
    /// /run/septwatch/demo-audit.
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "one_more")]
    pub policy: Option<String>,
    /// What watches.
    #[command(flatten)]
    pub watching: super::Watching,
}

/// A kernel that the demo can be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// Pages as `struct page *`, levels in the module's numbering.
    #[value(name = "7.1")]
    V7_1,
    /// Frame numbers, `enum pg_level`.
    #[value(name = "7.3")]
    V7_3,
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("not a whole number from 0 to {}", u64::MAX))
}

fn scenario_names() -> clap::builder::PossibleValuesParser {
    SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().into()
}

/// What came of one scenario.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Outcome {
    caused: Caused,
    /// Frames that the module owns at the end.
    owned: Vec<u64>,
}

/// Runs the command.
///
/// # Errors
/// This host cannot, or the demo cannot go on.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    if args.list {
        for scenario in SCENARIOS {
            writeln!(out, "{:<20} {}", scenario.name, scenario.summary)?;
        }
        return Ok(exit::OK);
    }
    let chosen: Vec<_> = match &args.scenario {
        Some(name) => scenarios::named(name).into_iter().collect(),
        None if args.policy.is_some() => scenarios::named(POLICED).into_iter().collect(),
        None => TOUR.into_iter().filter_map(scenarios::named).collect(),
    };
    open::check_capabilities()?;
    let _lock = Lock::take("demo")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shape = match args.shape {
        Shape::V7_1 => module::Shape::V7_1,
        Shape::V7_3 => module::Shape::V7_3,
    };
    let options = args.watching.options();
    let (mut kernel, config) = open::demo(shape, &options, None)?;
    let _rest_of_log = args.watching.logger(kernel.ebpf(), runtime.handle())?;
    let recorder = match &args.record {
        None => None,
        Some(path) => {
            let scenarios = chosen.iter().map(|scenario| scenario.name.to_owned()).collect();
            let origin = Origin::Demo { scenarios, seed: args.seed };
            let plan = recording::demo_hooks();
            let ledger = LedgerFacts::default();
            let header = recording::header(What::All, origin, &kernel, plan, &options, ledger);
            let files = Files::create(path, header, State::default(), Limits::default());
            let files = files.map_err(|error| recording::flag("--record", error))?;
            // Reading the symbols takes its time: not when a violation has happened.
            Some(Recording { recorder: Recorder::new(What::All, files)?, symbols: KernelSymbols::running() })
        }
    };
    let mut session = Session::new(kernel)?;
    session.rest_after(args.watching.rest());
    let policed = match &args.policy {
        None => None,
        Some(policy) => Some(Policed::begin(policy, &options, &mut session)?),
    };
    let mut demo = Demo { args, config, session, runtime, recording: recorder, policed };
    let mut all_equal = true;
    for (number, scenario) in chosen.iter().enumerate() {
        let last = number + 1 == chosen.len();
        all_equal &= demo.one(scenario, args.one_more && last, out)?;
        out.flush()?;
    }
    if let Some(policed) = &mut demo.policed {
        policed.end(&mut demo.session)?;
    }
    if let Some(Recording { recorder, .. }) = demo.recording {
        let written = recording::finish(recorder, &mut demo.session, Why::CommandEnded)?;
        eprintln!("septwatch: {}", recording::told(&written));
        if written.failed.is_some() || written.unwritten != 0 {
            return Ok(exit::HOST);
        }
    }
    Ok(if all_equal { exit::OK } else { exit::VIOLATION })
}

/// What the demo is recorded with.
struct Recording {
    recorder: Recorder,
    symbols: KernelSymbols,
}

struct Demo<'a> {
    args: &'a Args,
    config: module::Config,
    session: Session,
    runtime: tokio::runtime::Runtime,
    recording: Option<Recording>,
    policed: Option<Policed>,
}

impl Demo<'_> {
    /// Acts one scenario out, shows it, and says whether expected and found are equal.
    fn one(&mut self, scenario: &'static Scenario, one_more: bool, out: &mut dyn Write) -> Result<bool> {
        let Self { args, config, session, runtime, recording, policed } = self;
        session.kernel().record_pages(
            scenario.every_call || args.all_events || args.watching.latency || recording.is_some(),
        )?;
        let before = session.standing()?.counters.violations;
        let mut show = Show::new(args.json, scenario);
        let said = Arc::new(Mutex::new(Vec::new()));
        let alert = Arc::new(AtomicBool::new(false));
        let acted = Act { scenario, config: *config, seed: args.seed, one_more };
        let outcome = {
            let finished = match policed {
                None => {
                    let (saying, told) = (Arc::clone(&said), Arc::clone(&alert));
                    let (done, finished) = oneshot::channel();
                    thread::Builder::new().name("septwatch-demo".to_owned()).spawn(move || {
                        let say = |time_ns, text: &str| keep(&saying, time_ns, text);
                        // Nobody stops this VMM: it is a thread of the watcher.
                        let _ = done.send(act(&acted, &say, &told, &AtomicBool::new(false)));
                    })?;
                    finished
                }
                Some(policed) => {
                    let (stand_in, finished) = StandIn::start(&acted, Arc::clone(&said))?;
                    policed.act(stand_in);
                    finished
                }
            };
            let recording = recording.as_mut();
            let mut watched =
                Watched { show: &mut show, recording, policed: policed.as_mut(), said: &said, steps: 0 };
            runtime.block_on(watch(session, finished, &alert, &mut watched))?
        };
        let Some(outcome) = outcome else { return Err(anyhow!(super::Interrupted)) };
        let ledger_agrees = agrees(&session.kernel().open_lines()?, &outcome.owned);
        let standing = session.standing()?;
        let latencies = session.take_latencies();
        // A tour is one observation: what came before is not this scenario's.
        let mut counted = standing.counters.violations;
        counted.iter_mut().zip(before).for_each(|(counted, before)| *counted -= before);
        let comparison = oracle::compare(&outcome.caused, show.verdicts(), counted);
        let said = std::mem::take(&mut *said.lock().unwrap_or_else(PoisonError::into_inner));
        // The result is the last line for tools, and what was done about it the last for people.
        if let Some(policed) = policed.as_mut().filter(|_| args.json) {
            policed.print(true, out)?;
        }
        show.print(said, &comparison, &standing, &latencies, ledger_agrees, out)?;
        if let Some(policed) = policed.as_mut().filter(|_| !args.json) {
            policed.print(false, out)?;
        }
        Ok(comparison.is_equal() && ledger_agrees && is_accounted_for(&standing))
    }
}

fn is_accounted_for(standing: &Standing) -> bool {
    standing.vital.is_exact() && standing.pages.is_exact()
}

/// Whether the ledger's open lines are the pages that the module owns.
fn agrees(open: &[(u64, Line)], owned: &[u64]) -> bool {
    open.iter().map(|(pfn, _)| pfn).eq(owned)
}

type Said = Mutex<Vec<(u64, String)>>;

/// Keeps what was said, with its time in ns of CLOCK_MONOTONIC.
fn keep(said: &Said, time_ns: u64, text: &str) {
    said.lock().unwrap_or_else(PoisonError::into_inner).push((time_ns, text.to_owned()));
}

/// What is acted out, and how.
struct Act {
    scenario: &'static Scenario,
    config: module::Config,
    seed: u64,
    one_more: bool,
}

/// The actors' thread. `alert`: frames that come back are watched for. `mend`: the VMM was told what is wrong.
fn act(
    act: &Act,
    say: &(dyn Fn(u64, &str) + Sync),
    alert: &AtomicBool,
    mend: &AtomicBool,
) -> Result<Outcome> {
    let Act { scenario, config, seed, one_more } = *act;
    let host = scenario.host(config).context("the demo's host")?;
    let say = |text: &str| say(now_ns(), text);
    let told_to_mend = || mend.load(Ordering::Acquire);
    let pause = || {
        // As a VMM would be gone for 8 ms; on a busy machine the watcher may need longer to be woken.
        let mut waited = 0;
        while waited < 8 || (!alert.load(Ordering::Acquire) && waited < 1000) {
            thread::sleep(Duration::from_millis(1));
            waited += 1;
        }
    };
    let stage = Stage { host: &host, say: &say, pause: &pause, told_to_mend: &told_to_mend, seed };
    let acted = scenario.act(&stage).context("the scenario cannot be acted out")?;
    if one_more {
        scenarios::one_more(&stage).context("one more fault")?;
    }
    let owned = host.module().owned().into_iter().map(|owned| owned.pfn).collect();
    Ok(Outcome { caused: Caused::of(&acted), owned })
}

/// Takes events in until the actors are done and everything has arrived. None: interrupted.
async fn watch(
    session: &mut Session,
    mut finished: oneshot::Receiver<Result<Outcome>>,
    alert: &AtomicBool,
    watched: &mut Watched<'_>,
) -> Result<Option<Outcome>> {
    let ring = watching::readiness(session.kernel().wake_up()?)?;
    let mut interrupts = Interrupts::new()?;
    let mut tick = time::interval(Duration::from_millis(5));
    loop {
        let outcome = tokio::select! {
            ready = ring.readable() => {
                ready?.clear_ready();
                None
            }
            _ = tick.tick() => None,
            outcome = &mut finished => Some(outcome.context("the demo's thread died")??),
            () = interrupts.received() => return Ok(None),
        };
        session.pump(|event, verdict| watched.event(event, verdict))?;
        watched.pumped(session)?;
        alert.store(session.is_alert(), Ordering::Release);
        if outcome.is_some() {
            session.tend()?;
            return Ok(outcome);
        }
    }
}

/// Where what arrives goes: it is shown, and recorded.
struct Watched<'a> {
    show: &'a mut Show,
    recording: Option<&'a mut Recording>,
    policed: Option<&'a mut Policed>,
    said: &'a Said,
    /// Of what was said, how much is recorded.
    steps: usize,
}

impl Watched<'_> {
    fn event(&mut self, event: Event, verdict: Option<Verdict>) {
        if let Some(Recording { recorder, symbols }) = self.recording.as_deref_mut() {
            let places = verdict.as_ref().map(|verdict| Places::now(verdict, symbols));
            recording::event(recorder, &event, verdict.as_ref().zip(places.as_ref()));
        }
        if let Some(policed) = self.policed.as_deref_mut() {
            policed.saw(&event, verdict.as_ref());
        }
        self.show.event(event, verdict);
    }

    fn pumped(&mut self, session: &mut Session) -> Result<()> {
        if let Some(policed) = self.policed.as_deref_mut() {
            policed.turn(session)?;
        }
        let Some(Recording { recorder, .. }) = self.recording.as_deref_mut() else { return Ok(()) };
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for (time_ns, text) in said.iter().skip(self.steps) {
            recorder.note(&Note::Step { time_ns: *time_ns, text: text.clone() });
        }
        self.steps = said.len();
        drop(said);
        Ok(recording::pumped(recorder, session)?)
    }
}

/// An event as it is shown.
type Shown = (Event, Option<Verdict>);
