//! `septwatch record`: everything that is seen on this host, into a file.

use std::{io::Write, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use super::{
    BadInput, Policing, Watching, exit,
    live::{Live, Sink, Until},
    policing::Guard,
    recording, watch,
    watching::{size, span},
};
use crate::{
    model::verdict::Verdict,
    policy::audit::Step,
    recording::{
        State,
        files::{Files, Limits, Ring},
        header::{Note, Origin, What, Why},
        recorder::Recorder,
    },
    source::{event::Event, open::Options, session::Session},
    view::{lines, print::Printer, stack::Places},
};

/// What a ring takes at most, if nobody says otherwise.
const RING_BYTES: u64 = 256 << 20;

/// Records what is seen on this host into a file, for `replay`, `check`, `diff`, `report` and `export`.
///
/// Until it is interrupted, or COMMAND has ended. Exit code 0: no violation was found; 1: one was; that of COMMAND where
/// one was given; 3: this host cannot be watched, or the file could not be written to its end.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The file. A recording that is there is replaced, any other file is not.
    #[arg(short, long, value_name = "FILE", default_value = "septwatch.swt")]
    pub output: PathBuf,
    /// Which events: every SEAMCALL and frame; lifecycle and violations; violations.
    #[arg(long, value_enum, default_value = "all")]
    pub events: What,
    /// Stop after this time, such as 90, 90s, 5m or 1h.
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub duration: Option<Duration>,
    /// Stop after a violation.
    #[arg(long, conflicts_with = "last")]
    pub until_violation: bool,
    /// Keep what happened in this time in memory, and write it to a file of its own when a violation happens.
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub last: Option<Duration>,
    /// Most memory that --last may take, packed: bytes, or with K, M or G. [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "last")]
    pub memory: Option<u64>,
    /// With --last or --until-violation: how long to go on after a violation.
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "2s")]
    pub after: Duration,
    /// Begin a new file when one has this size: bytes, or with K, M or G. Files are then named FILE with a number.
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "last")]
    pub rotate_size: Option<u64>,
    /// Begin a new file when one is this old.
    #[arg(long, value_name = "TIME", value_parser = span, conflicts_with = "last")]
    pub rotate_age: Option<Duration>,
    /// Remove the oldest files as long as all of them take more than this. Needs --rotate-size, --rotate-age or --last.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub disk_limit: Option<u64>,
    /// Print what `watch` prints, as JSON, one object a line, on standard output. Without it, violations are printed on
    /// standard error.
    #[arg(long)]
    pub json: bool,
    /// Attach to the kernel's functions by kprobes even where fexit works.
    #[arg(long)]
    pub kprobes: bool,
    /// What is done about violations.
    #[command(flatten)]
    pub policing: Policing,
    /// What watches.
    #[command(flatten)]
    pub watching: Watching,
    /// Record while this command runs, from before it starts until it has ended, and pass its exit code on.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
}

/// Runs the command.
///
/// # Errors
/// This host cannot be watched, or the output cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let limits =
        Limits { file_bytes: args.rotate_size, file_age: args.rotate_age, disk_bytes: args.disk_limit };
    if args.disk_limit.is_some() && args.last.is_none() && !limits.rotates() {
        return Err(BadInput(
            "--disk-limit needs several files: --rotate-size, --rotate-age or --last".to_owned(),
        )
        .into());
    }
    if args.watching.latency && args.events != What::All {
        let why = "--latency is recorded with each SEAMCALL: it needs --events all";
        return Err(BadInput(why.to_owned()).into());
    }
    let options = Options { kprobes: args.kprobes, ..args.watching.options() };
    let mut live = Live::begin("record", &args.watching, &args.policing, &options, args.events == What::All)?;
    let (plan, ledger) = recording::of_opened(&live.opened);
    let header = recording::header(args.events, Origin::Live, live.session.kernel(), plan, &options, ledger);
    let state = State::of_tds(live.session.kernel().tds()?);
    let files = match args.last {
        None => Files::create(&args.output, header, state, limits),
        Some(last) => {
            let ring = Ring { last, bytes: args.memory.unwrap_or(RING_BYTES), after: args.after };
            Files::on_violation(&args.output, header, state, limits, ring)
        }
    };
    let files = files.map_err(|error| recording::flag("--output", error))?;
    let mut recording = Recording {
        recorder: Recorder::new(args.events, files)?,
        printer: Printer { json: args.json },
        every_call: args.events == What::All,
        out,
        said_failed: false,
        violations: 0,
    };
    let how = format!("recording to {}", args.output.display());
    let mut stderr = std::io::stderr();
    watch::say_start(args.json, &live, &how, if args.json { recording.out } else { &mut stderr })?;
    let command = match args.command.split_first() {
        None => None,
        Some((program, arguments)) => {
            let _entered = live.runtime.enter();
            let child = Command::new(program).args(arguments).stdin(Stdio::inherit()).spawn();
            let name = program.to_string_lossy().into_owned();
            Some(child.map_err(|error| BadInput(format!("COMMAND {name}: {error}")))?)
        }
    };
    let mut until =
        Until { duration: args.duration, violation: args.until_violation, command, ..Until::default() };
    let mut why = live.follow(&mut until, &mut recording)?;
    if why == Why::Violation {
        // What it leads to belongs to it.
        let mut rest =
            Until { duration: Some(args.after), command: until.command.take(), ..Until::default() };
        why = match live.follow(&mut rest, &mut recording)? {
            Why::Duration => Why::Violation,
            sooner => sooner,
        };
        until.command = rest.command;
    }
    let code = match &mut until.command {
        None => None,
        Some(child) => {
            if why != Why::CommandEnded {
                stop(child);
            }
            let status = live.runtime.block_on(child.wait()).context("COMMAND")?;
            Some(exit::of(status))
        }
    };
    let Recording { recorder, violations, printer, out, .. } = recording;
    let written = recording::finish(recorder, &mut live.session, why)?;
    live.end(false)?;
    if printer.json {
        printer.end(violations, live.session.model(), &live.session.standing()?, out)?;
    }
    eprintln!("septwatch: {}", recording::told(&written));
    let found = if violations == 0 { exit::OK } else { exit::VIOLATION };
    Ok(match code {
        _ if written.unwritten != 0 || written.failed.is_some() => exit::HOST,
        Some(code) => code,
        None => found,
    })
}

/// Asks a command that still runs to end.
fn stop(child: &tokio::process::Child) {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(pid) = pid {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// Records everything that arrives.
struct Recording<'a> {
    recorder: Recorder,
    printer: Printer,
    every_call: bool,
    out: &'a mut dyn Write,
    said_failed: bool,
    violations: u64,
}

impl Sink for Recording<'_> {
    fn event(&mut self, event: &Event, found: Option<(&Verdict, &Places)>) -> Result<()> {
        recording::event(&mut self.recorder, event, found);
        self.violations += u64::from(found.is_some());
        if self.printer.json && (self.every_call || event.is_vital()) {
            self.printer.event(event, found, self.out)?;
        } else if !self.printer.json && found.is_some() {
            self.printer.event(event, found, &mut std::io::stderr())?;
        }
        Ok(())
    }

    fn reaction(&mut self, step: &Step) -> Result<()> {
        let time_ns = step.done_ns.unwrap_or(step.asked_ns);
        self.recorder.note(&Note::Step { time_ns, text: lines::reaction(step) });
        Ok(())
    }

    fn pumped(&mut self, session: &mut Session, _: Option<&mut Guard>) -> Result<()> {
        recording::pumped(&mut self.recorder, session)?;
        if self.recorder.has_failed() && !self.said_failed {
            self.said_failed = true;
            eprintln!(
                "septwatch: the recording cannot be written any more; what is seen from now on is only counted"
            );
        }
        Ok(self.out.flush()?)
    }
}
