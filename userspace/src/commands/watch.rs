//! `septwatch watch`: what the programs see on this host, line by line.

use std::{
    io::Write,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::json;
use tokio::time;

use super::{Interrupts, Watching, exit, watching};
use crate::{
    hooks::lock::Lock,
    source::{
        open::{self, Opened, Options},
        session::{Session, Standing},
    },
    view::{json, lines, stack::KernelSymbols},
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
    open::check_capabilities()?;
    let _lock = Lock::take("watch")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = Instant::now();
    let (mut kernel, opened) = open::live(&Options { kprobes: args.kprobes, ..args.watching.options() })?;
    let _rest_of_log = args.watching.logger(kernel.ebpf(), runtime.handle())?;
    let latency = args.watching.latency;
    kernel.record_pages(args.all_events || latency)?;
    say_opened(&opened, kernel.is_pinned(), latency);
    let mut session = Session::new(kernel)?;
    let Opened { hooks, attached, taken_over, .. } = opened;
    // There are hundreds of thousands. Who takes over has no time for them: records may be waiting, and go out with
    // addresses until they are read. Else they are there before it is said that all is watched.
    let symbols = Arc::new(OnceLock::new());
    let reader = std::thread::spawn({
        let symbols = Arc::clone(&symbols);
        move || symbols.set(KernelSymbols::running())
    });
    if !taken_over {
        // A reader that died leaves the addresses.
        let _ = reader.join();
    }
    if args.json {
        let start = json!({"type": "start", "hooks": hooks, "attached": attached, "taken_over": taken_over});
        writeln!(out, "{start}")?;
    } else {
        let ready = start.elapsed().as_millis();
        let how = if taken_over { "taken over" } else { "attached" };
        writeln!(out, "watching: {attached} of {hooks} hooks {how} after {ready} ms")?;
    }
    out.flush()?;
    let ended = runtime.block_on(follow(args, &mut session, &symbols, out));
    if args.leave {
        session.kernel().leave();
    }
    ended?;
    let standing = session.standing()?;
    let total =
        session.model().total().max(if taken_over { 0 } else { standing.counters.violations.iter().sum() });
    last_words(args, total, &session, &standing, out)?;
    Ok(if total == 0 { exit::OK } else { exit::VIOLATION })
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

async fn follow(
    args: &Args,
    session: &mut Session,
    symbols: &OnceLock<KernelSymbols>,
    out: &mut dyn Write,
) -> Result<()> {
    let none = KernelSymbols::default();
    let ring = watching::readiness(session.kernel().wake_up()?)?;
    let mut interrupts = Interrupts::new()?;
    let mut tick = time::interval(Duration::from_millis(100));
    let end = args.duration.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    loop {
        let stop = tokio::select! {
            ready = ring.readable() => {
                ready?.clear_ready();
                false
            }
            _ = tick.tick() => {
                session.tend()?;
                end.is_some_and(|end| Instant::now() >= end)
            }
            () = interrupts.received() => true,
        };
        let mut written = Ok(());
        let symbols = symbols.get().unwrap_or(&none);
        // A record leaves the ring when this returns: it must be out by then, for this process may be killed.
        session.pump(|event, verdict| {
            // With --latency, calls come only to be measured.
            if written.is_err() || !(args.all_events || event.is_vital()) {
                return;
            }
            let time_ns = event.header().time_ns;
            written = if let (true, Some(verdict)) = (args.json, &verdict) {
                writeln!(out, "{}", json::violation(verdict, symbols))
            } else if args.json {
                writeln!(out, "{}", json::event(&event, None))
            } else {
                let mut text = format!("{}.{:09} ", time_ns / 1_000_000_000, time_ns % 1_000_000_000);
                text.push_str(if verdict.is_some() { "! " } else { "  " });
                text.push_str(&lines::event(&event, verdict.as_ref()));
                for line in verdict.iter().flat_map(|verdict| lines::details(verdict, symbols)) {
                    text.push_str("\n      ");
                    text.push_str(&line);
                }
                writeln!(out, "{text}")
            };
            if written.is_ok() && event.is_vital() {
                written = out.flush();
            }
        })?;
        written?;
        out.flush()?;
        if stop {
            return Ok(());
        }
    }
}

fn last_words(
    args: &Args,
    total: u64,
    session: &Session,
    standing: &Standing,
    out: &mut dyn Write,
) -> Result<()> {
    let (windows, latencies) = (&session.model().windows, &session.model().latencies);
    if args.json {
        let mut end = json!({"type": "end", "violations": total, "windows": windows, "latencies": latencies});
        if let Some(end) = end.as_object_mut() {
            end.extend(json::standing(standing));
        }
        writeln!(out, "{end}")?;
    } else {
        let vital = standing.vital;
        writeln!(
            out,
            "{total} violations; vital records: {} produced = {} received + {} lost{}",
            vital.produced,
            vital.received,
            vital.lost,
            if vital.earlier == 0 { String::new() } else { format!(" + {} received before", vital.earlier) }
        )?;
        for line in lines::windows(windows).into_iter().chain(lines::latencies(latencies)) {
            writeln!(out, "{line}")?;
        }
        if standing.missed_releases != 0 {
            writeln!(out, "{} runs at page releases were dropped by the kernel", standing.missed_releases)?;
        }
    }
    out.flush()?;
    Ok(())
}
