//! The demo with a policy: the stand-in for the VMM is a process of its own, to which the policy's reactions are really done.

use std::{
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::json;

use super::{BadInput, stand_in::StandIn};
use crate::{
    commands::{Policing, policing::Guard},
    hooks::{lock::RUN, reactions::Needs},
    model::verdict::Verdict,
    policy::{
        actor::Released,
        audit::{Done, Step},
        react::host::Host,
    },
    source::{event::Event, open::Options, session::Session},
    view::{lines, print::Printer},
};

/// What the demo does to its own process. The others concern the host, or end what the demo is about.
const CARRIED_OUT: [&str; 4] = ["log", "notify", "hold", "stop"];

/// How long the stand-in stays stopped: what was to follow its failed zap would have followed by then.
const STILL: Duration = Duration::from_millis(500);

/// A policy at work on the demo's own process.
pub struct Policed {
    guard: Guard,
    /// In a scenario.
    stand_in: Option<StandIn>,
    steps: Vec<Step>,
    /// Frames that the allocator received while a TD had them.
    freed: u64,
    stopped: Option<Instant>,
    alerted: bool,
    still: Option<Still>,
}

/// What was seen while the stand-in was stopped.
struct Still {
    for_ms: u128,
    freed: u64,
    released: Option<Released>,
}

impl Policed {
    /// Reads the policy, and follows it: armed, for the demo can only harm itself.
    ///
    /// # Errors
    /// The policy is wrong, or has reactions that the demo does not carry out.
    pub fn begin(policy: &str, options: &Options, session: &mut Session) -> Result<Self> {
        let audit = Path::new(RUN).join("demo-audit");
        let flags = Policing { policy: Some(policy.to_owned()), arm: true, allow_degraded: true, audit };
        let Some((prepared, _)) = flags.prepare(options)? else {
            bail!("there is no policy to follow");
        };
        if let Some((rule, reaction)) = prepared.other_than(&CARRIED_OUT) {
            return Err(BadInput(format!(
                "--policy {policy}: rule {rule:?} has `{reaction}`, and the demo carries out {} only; `septwatch policy explain` and `policy test` say what the others would do",
                CARRIED_OUT.join(", ")
            ))
            .into());
        }
        let host = Host { demo: true, ..Host::default() };
        let guard = Guard::begin(prepared, Needs::default(), host, false, session)?;
        eprintln!("septwatch: {}", guard.told());
        let (stand_in, steps, stopped) = (None, Vec::new(), None);
        Ok(Self { guard, stand_in, steps, freed: 0, stopped, alerted: false, still: None })
    }

    /// A scenario begins.
    pub fn act(&mut self, stand_in: StandIn) {
        self.stand_in = Some(stand_in);
        self.steps.clear();
        (self.freed, self.stopped, self.alerted, self.still) = (0, None, false, None);
    }

    /// Takes note of what arrived.
    pub fn saw(&mut self, event: &Event, verdict: Option<&Verdict>) {
        self.guard.saw(event, verdict);
        self.freed += verdict.filter(|verdict| verdict.cause.is_some()).map_or(0, |verdict| verdict.frames);
    }

    /// Reacts to what arrived; a stand-in that was stopped stays so for a while, and is then told to mend things.
    ///
    /// # Errors
    /// The kernel side cannot be read, or the stand-in is gone.
    pub fn turn(&mut self, session: &mut Session) -> Result<()> {
        let steps = &mut self.steps;
        self.guard.react(session, |step| {
            steps.push(step.clone());
            Ok(())
        })?;
        let is_stop = |step: &&Step| step.reaction == "stop" && step.result == Some(Done::Done);
        let stop = self.steps.iter().find(is_stop);
        let Some(stand_in) = &mut self.stand_in else { return Ok(()) };
        match (stop, self.stopped) {
            (None, _) => {
                if session.is_alert() && !self.alerted {
                    self.alerted = true;
                    stand_in.alert()?;
                }
            }
            (Some(_), None) => self.stopped = Some(Instant::now()),
            (Some(stop), Some(since)) => {
                if self.still.is_none() && since.elapsed() >= STILL {
                    let held = |step: &Step| step.reaction == "hold" && step.result == Some(Done::Done);
                    let released = match stop.td.filter(|_| self.steps.iter().any(held)) {
                        Some(td) => Some(self.guard.release(td, session)?),
                        None => None,
                    };
                    let for_ms = since.elapsed().as_millis();
                    self.still = Some(Still { for_ms, freed: self.freed, released });
                    stand_in.mend()?;
                }
            }
        }
        Ok(())
    }

    /// Prints what was done in this scenario.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn print(&mut self, as_json: bool, out: &mut dyn Write) -> io::Result<()> {
        self.stand_in = None;
        for step in &self.steps {
            if as_json {
                Printer { json: true }.reaction(step, out)?;
            } else {
                writeln!(out, "   {}", lines::reaction(step))?;
            }
        }
        let Some(Still { for_ms, freed, released }) = &self.still else { return Ok(()) };
        if as_json {
            let still = json!({"type": "stopped", "for_ms": for_ms, "freed": freed, "released": released});
            return writeln!(out, "{still}");
        }
        write!(
            out,
            "   the VMM's stand-in was stopped for {for_ms} ms: {freed} of the TD's frames were freed"
        )?;
        match released {
            Some(Released { frames, inodes, .. }) => writeln!(
                out,
                "; then {inodes} pinned guest_memfd ({frames} frames lent) were released, and it went on\n"
            ),
            None => writeln!(out, "; then it went on\n"),
        }
    }

    /// Ends.
    ///
    /// # Errors
    /// The audit log cannot be written.
    pub fn end(&mut self, session: &mut Session) -> Result<()> {
        self.guard.end(session).map(drop)
    }
}
