//! `septwatch watch`: what the programs see on this host, line by line.

use std::{io::Write, time::Duration};

use anyhow::Result;
use serde_json::json;

use super::{
    Policing, Watching, exit,
    live::{Live, Sink, Until},
    policing::Guard,
};
use crate::{
    model::verdict::Verdict,
    policy::audit::Step,
    source::{
        event::Event,
        open::{Opened, Options},
        session::Session,
        walk::resync::Outcome,
    },
    view::{print::Printer, stack::Places},
};

/// Watches the TDs of this host and prints violations as they happen, until it is interrupted.
///
/// Exit code 0: nothing wrong was seen; 1: a violation was found; 3: this host cannot be watched.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// Print every SEAMCALL, not only lifecycle and violations.
    #[arg(long)]
    pub all_events: bool,
    /// Stop after this many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = duration)]
    pub duration: Option<u64>,
    /// At the end, leave the programs running: the next `septwatch watch` takes them over, with all that they found
    /// meanwhile. Without this everything is detached.
    #[arg(long)]
    pub leave: bool,
    /// Attach to the kernel's functions by kprobes even where fexit works: slower, for kernels on which fexit does harm,
    /// and to compare the two.
    #[arg(long)]
    pub kprobes: bool,
    /// What is done about violations.
    #[command(flatten)]
    pub policing: Policing,
    /// What watches.
    #[command(flatten)]
    pub watching: Watching,
}

fn duration(text: &str) -> Result<u64, String> {
    const YEAR: u64 = 365 * 24 * 60 * 60;
    let seconds = text.parse().ok().filter(|seconds| (1..=YEAR).contains(seconds));
    seconds.ok_or_else(|| format!("not a whole number of seconds from 1 to {YEAR}"))
}

/// Runs the command.
///
/// # Errors
/// This host cannot be watched, or the output cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let options = Options { kprobes: args.kprobes, ..args.watching.options() };
    let mut live = Live::begin("watch", &args.watching, &args.policing, &options, args.all_events)?;
    say_start(args.json, &live, "watching", out)?;
    let mut until = Until { duration: args.duration.map(Duration::from_secs), ..Until::default() };
    let printing = &mut Printing { printer: Printer { json: args.json }, every_call: args.all_events, out };
    let ended = live.follow(&mut until, printing);
    live.end(args.leave)?;
    ended?;
    if let Some(guard) = &mut live.guard {
        let (lines, came_to) = guard.came_to(&mut live.session)?;
        if args.json {
            writeln!(out, "{came_to}")?;
        } else {
            lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
    }
    let session = &live.session;
    let standing = session.standing()?;
    let counted = if live.opened.taken_over { 0 } else { standing.counters.violations.iter().sum() };
    let total = session.model().total().max(counted);
    Printer { json: args.json }.end(total, session.model(), &standing, out)?;
    Ok(if total == 0 { exit::OK } else { exit::VIOLATION })
}

/// Says that all is watched.
pub(super) fn say_start(json: bool, live: &Live, doing: &str, out: &mut dyn Write) -> Result<()> {
    let Opened { hooks, attached, taken_over, .. } = live.opened;
    if json {
        let start = json!({"type": "start", "hooks": hooks, "attached": attached, "taken_over": taken_over});
        writeln!(out, "{start}")?;
    } else {
        let ready = live.took.as_millis();
        let how = if taken_over { "taken over" } else { "attached" };
        writeln!(out, "{doing}: {attached} of {hooks} hooks {how} after {ready} ms")?;
    }
    Ok(out.flush()?)
}

/// Prints everything that arrives.
struct Printing<'a> {
    printer: Printer,
    /// With --latency, calls come only to be measured.
    every_call: bool,
    out: &'a mut dyn Write,
}

impl Sink for Printing<'_> {
    fn event(&mut self, event: &Event, found: Option<(&Verdict, &Places)>) -> Result<()> {
        if self.every_call || event.is_vital() {
            self.printer.event(event, found, self.out)?;
        }
        if event.is_vital() {
            self.out.flush()?;
        }
        Ok(())
    }

    fn reaction(&mut self, step: &Step) -> Result<()> {
        self.printer.reaction(step, self.out)?;
        Ok(self.out.flush()?)
    }

    fn walked(&mut self, outcome: &Outcome) -> Result<()> {
        self.printer.walked(outcome, self.out)?;
        Ok(self.out.flush()?)
    }

    fn pumped(&mut self, _: &mut Session, _: Option<&mut Guard>) -> Result<()> {
        Ok(self.out.flush()?)
    }
}
