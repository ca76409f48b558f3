//! `septwatch replay`: a recording, as if it happened now.

use std::{
    io::Write,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::json;

use super::{exit, recording, watching::span};
use crate::{
    recording::{
        header::{Header, Note},
        reader::Got,
        replay::Replay,
    },
    view::{json, lines, print::Printer},
};

/// Replays a recording: the same model and the same verdicts, in the same order, as when it was made.
///
/// Exit code 0: it has no violation; 1: it has one; 2: it cannot be read, or not to its end.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The recording.
    pub file: PathBuf,
    /// How fast: 1 as it happened, 10 ten times as fast, 0.1 a tenth, `max` as fast as it can be read.
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = speed)]
    pub speed: Speed,
    /// Begin at this time after the recording's begin, such as 90s or 1500ms, with what was known by then.
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub at: Option<Duration>,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// Print every SEAMCALL, not only lifecycle and violations.
    #[arg(long)]
    pub all_events: bool,
}

/// How fast a recording is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times as fast as it happened.
    Times(f64),
    /// As fast as it can be read.
    Max,
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    let factor = text.parse().ok().filter(|factor: &f64| (0.001..=1e6).contains(factor));
    factor.map(Speed::Times).ok_or_else(|| "not `max`, nor a number from 0.001 to 1000000".to_owned())
}

/// Waits until an event's time has come.
struct Pace {
    speed: Speed,
    /// When the first event was replayed, and when it happened.
    from: Option<(Instant, u64)>,
}

impl Pace {
    fn wait(&mut self, time_ns: u64, out: &mut dyn Write) -> Result<()> {
        let Speed::Times(factor) = self.speed else { return Ok(()) };
        let (start, first_ns) = *self.from.get_or_insert_with(|| (Instant::now(), time_ns));
        let due = Duration::from_nanos((time_ns.saturating_sub(first_ns) as f64 / factor) as u64);
        if let Some(wait) = due.checked_sub(start.elapsed()).filter(|wait| wait.as_millis() > 0) {
            out.flush()?;
            thread::sleep(wait);
        }
        Ok(())
    }
}

/// Runs the command.
///
/// # Errors
/// The file is no recording, or the output cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let mut replay = Replay::open(&args.file).map_err(recording::unreadable)?;
    let printer = Printer { json: args.json };
    say_header(args.json, replay.header(), out)?;
    let begin_ns = replay.header().clock.monotonic_ns;
    let from_ns = args.at.map(|at| begin_ns.saturating_add(at.as_nanos() as u64));
    let mut pace = Pace { speed: args.speed, from: None };
    let mut shown = from_ns.is_none();
    let start = Instant::now();
    while let Some(got) = replay.advance() {
        match got {
            Got::Event => {
                let event = replay.event();
                let time_ns = event.header().time_ns;
                if !shown && from_ns.is_some_and(|from_ns| time_ns >= from_ns) {
                    shown = true;
                    say_state(args.json, time_ns - begin_ns.min(time_ns), &replay, out)?;
                }
                if shown && (event.is_vital() || args.all_events) {
                    pace.wait(time_ns, out)?;
                    printer.event(event, replay.found(), out)?;
                }
            }
            Got::Note(note) => match *note {
                Note::Step { time_ns, text } if shown => say_step(args.json, time_ns, &text, out)?,
                Note::Unwritten { records, why } => {
                    eprintln!("septwatch: here {records} records could not be written: {why}");
                }
                _ => {}
            },
            Got::Damage(damage) => eprintln!("septwatch: {}: {damage}", args.file.display()),
        }
    }
    if !shown {
        eprintln!("septwatch: --at: the recording ends before that time");
        say_state(args.json, from_ns.unwrap_or(begin_ns) - begin_ns, &replay, out)?;
    }
    let took = start.elapsed();
    let total = replay.model().total();
    printer.end(total, replay.model(), &replay.standing(), out)?;
    if args.speed == Speed::Max {
        let events = replay.model().accounting.records();
        let rate = events as f64 / took.as_secs_f64().max(1e-9) / 1e6;
        eprintln!(
            "septwatch: replayed {events} events in {}: {rate:.2} million a second",
            lines::span(took.as_nanos() as u64)
        );
    }
    Ok(match (replay.damages(), total) {
        (1.., _) => exit::USAGE,
        (0, 0) => exit::OK,
        (0, _) => exit::VIOLATION,
    })
}

fn say_header(json: bool, header: &Header, out: &mut dyn Write) -> Result<()> {
    if json {
        writeln!(out, "{}", json::recording(header))?;
    } else {
        writeln!(out, "{}", recording::what_it_is(header))?;
    }
    Ok(())
}

fn say_step(json: bool, time_ns: u64, text: &str, out: &mut dyn Write) -> Result<()> {
    if json {
        writeln!(out, "{}", json!({"type": "step", "time_ns": time_ns, "text": text}))?;
    } else {
        writeln!(out, "{}.{:09} # {text}", time_ns / 1_000_000_000, time_ns % 1_000_000_000)?;
    }
    Ok(())
}

/// What is known at a moment, for who begins there.
fn say_state<R: std::io::Read>(
    json: bool,
    after_ns: u64,
    replay: &Replay<R>,
    out: &mut dyn Write,
) -> Result<()> {
    let model = replay.model();
    if json {
        let tds: Vec<_> = model
            .tds
            .iter()
            .map(|(id, td)| {
                json!({
                    "td": id,
                    "tdr_pfn": td.tdr,
                    "hkid": td.hkid,
                    "life": td.life.name(),
                    "lent_frames": td.lent,
                    "violations": td.violations,
                    "pid": td.tgid,
                    "comm": td.comm,
                })
            })
            .collect();
        writeln!(
            out,
            "{}",
            json!({"type": "state", "after_ns": after_ns, "violations": model.total(), "tds": tds})
        )?;
        return Ok(());
    }
    writeln!(out, "{} after the begin: {} violations so far", lines::span(after_ns), model.total())?;
    for (id, td) in &model.tds {
        let (life, lent, comm, pid) = (td.life.name(), td.lent, &td.comm, td.tgid);
        writeln!(
            out,
            "  TD {id} {life}: {lent} frames lent at that stage, {} violations, by {comm} ({pid})",
            td.violations
        )?;
    }
    Ok(())
}
