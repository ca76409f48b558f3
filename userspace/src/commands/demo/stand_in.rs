//! The demo's VMM as a process of its own, so that a policy can stop it: the same actors, which tell what they did
//! on standard output and are told things on standard input, in JSON lines.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Act, Outcome, Said, act, keep};
use crate::{
    commands::exit,
    source::demo::{module, scenarios},
};

/// What the stand-in is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    /// To begin.
    Begin {
        /// With this.
        scenario: String,
        /// Decides what a storm does.
        seed: u64,
        /// How the module reads its operands.
        config: module::Config,
    },
    /// Frames that come back are watched for.
    Alert,
    /// A zap has failed: things are to be left as they are.
    Mend,
}

/// What it tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tells {
    /// What happens next.
    Said {
        /// In ns of CLOCK_MONOTONIC.
        time_ns: u64,
        /// In words.
        text: String,
    },
    /// It is over.
    Done(Outcome),
    /// It cannot go on.
    Failed(String),
}

fn tell(what: &Tells) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, what)?;
    Ok(out.write_all(b"\n").and_then(|()| out.flush())?)
}

/// Runs as the stand-in: for the demo alone.
///
/// # Errors
/// What is told is not understood.
pub fn run() -> Result<u8> {
    let mut told = BufReader::new(io::stdin()).lines();
    let first = told.next().context("the stand-in was told nothing")??;
    let Told::Begin { scenario, seed, config } = serde_json::from_str(&first)? else {
        bail!("the stand-in was not told to begin")
    };
    let scenario = scenarios::named(&scenario).with_context(|| format!("no scenario {scenario}"))?;
    let (alert, mend) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    thread::spawn({
        let (alert, mend) = (Arc::clone(&alert), Arc::clone(&mend));
        move || {
            for line in told.map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(Told::Alert) => alert.store(true, Ordering::Release),
                    Ok(Told::Mend) => mend.store(true, Ordering::Release),
                    _ => eprintln!("septwatch demo: the stand-in does not understand `{line}`"),
                }
            }
        }
    });
    let say = |time_ns, text: &str| {
        // Who does not listen any more ends the process soon.
        let _ = tell(&Tells::Said { time_ns, text: text.to_owned() });
    };
    let acted = Act { scenario, config, seed, one_more: false };
    match act(&acted, &say, &alert, &mend) {
        Ok(outcome) => tell(&Tells::Done(outcome))?,
        Err(error) => tell(&Tells::Failed(format!("{error:#}")))?,
    }
    Ok(exit::OK)
}

/// The stand-in, from the watcher's side. It ends with this.
pub struct StandIn {
    child: Child,
    told: ChildStdin,
}

impl StandIn {
    /// Starts it. What it says goes to `said`; what came of it comes out of what is returned beside.
    ///
    /// # Errors
    /// No process can be made.
    pub(super) fn start(acts: &Act, said: Arc<Said>) -> Result<(Self, oneshot::Receiver<Result<Outcome>>)> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("demo-stand-in").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("the demo's stand-in cannot be started")?;
        let told = child.stdin.take().context("the stand-in has no standard input")?;
        let tells = child.stdout.take().context("the stand-in has no standard output")?;
        let mut stand_in = Self { child, told };
        let (scenario, seed, config) = (acts.scenario.name.to_owned(), acts.seed, acts.config);
        stand_in.tell(&Told::Begin { scenario, seed, config })?;
        let (done, finished) = oneshot::channel();
        thread::Builder::new().name("septwatch-demo".to_owned()).spawn(move || {
            let mut outcome = Err(anyhow::anyhow!("the demo's stand-in ended before its time"));
            for line in BufReader::new(tells).lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(Tells::Said { time_ns, text }) => keep(&said, time_ns, &text),
                    Ok(Tells::Done(done)) => outcome = Ok(done),
                    Ok(Tells::Failed(why)) => outcome = Err(anyhow::anyhow!("the demo's stand-in: {why}")),
                    Err(error) => outcome = Err(error.into()),
                }
            }
            // Nobody waits for it where the demo was interrupted.
            let _ = done.send(outcome);
        })?;
        Ok((stand_in, finished))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says that frames that come back are watched for.
    ///
    /// # Errors
    /// It is gone.
    pub fn alert(&mut self) -> Result<()> {
        self.tell(&Told::Alert)
    }

    /// Lets it go on after it was stopped, and leave things as they are.
    ///
    /// # Errors
    /// It is gone.
    pub fn mend(&mut self) -> Result<()> {
        // In this order: it goes on once it is alert.
        self.tell(&Told::Mend)?;
        self.tell(&Told::Alert)?;
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::CONT).context("the stand-in cannot be continued")
    }

    fn tell(&mut self, what: &Told) -> Result<()> {
        let line = serde_json::to_string(what)?;
        writeln!(self.told, "{line}").and_then(|()| self.told.flush()).context("the stand-in does not listen")
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // It is ours, and not needed any more; stopped or not.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
