//! `septwatch audit`: whether the ledger and KVM's own structures say the same of the TDs that run.

use std::{collections::BTreeMap, io::Write};

use anyhow::Result;
use septwatch_common::{Line, walk::Difference};
use serde_json::{Value, json};

use super::{BadInput, exit};
use crate::{
    source::{
        open,
        walk::{
            WalkError, Walker,
            audit::{self, Audit, Audited, Compared},
            pace::Pace,
        },
    },
    view::lines::plural,
};

/// Compares the ledger that runs on this host with KVM's mirror page tables, TD by TD, from both sides, and lists what
/// differs: a frame that KVM believes unmapped while its line is open is what no event shows.
///
/// Exit code 0: they say the same; 1: something differs; 2: there is no such TD; 3: they cannot be compared here.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only the TD of this number, as `watch` tells it.
    #[arg(long, value_name = "TD")]
    pub td: Option<u32>,
    /// Most that it may take of one CPU, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub percent: u32,
    /// Print every open line of the ledger as well.
    #[arg(long)]
    pub lines: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// They cannot be compared here, or the output cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    open::check_capabilities()?;
    let mut walker = Walker::left().map_err(why_not)?;
    let audit = audit::audit(&mut walker, args.td, &mut Pace::new(args.percent, None))?;
    if let Some(td) = args.td
        && audit.tds.is_empty()
    {
        return Err(BadInput(format!("--td {td}: no TD of this number runs")).into());
    }
    let lines = if args.lines { lines(&walker) } else { Vec::new() };
    if args.json {
        let mut all = json(&audit);
        if args.lines {
            let of_frame = |(pfn, line): &(u64, Line)| {
                let mut told = line_json(*line);
                told["pfn"] = json!(pfn);
                told
            };
            all["lines"] = lines.iter().map(of_frame).collect();
        }
        writeln!(out, "{all}")?;
    } else {
        audit.tds.iter().try_for_each(|td| print(td, out))?;
        if audit.tds.is_empty() {
            writeln!(out, "no TD runs")?;
        }
        for (pfn, line) in lines {
            writeln!(
                out,
                "line pfn={pfn:#x} owner={} kind={:?} level={} gfn={:#x} state={} walked={}",
                line.owner(),
                line.kind(),
                line.level() as u8,
                line.gfn(),
                line.state().name(),
                line.is_walked(),
            )?;
        }
    }
    Ok(code(&audit))
}

/// What is missing, where the programs that run do not say.
fn why_not(error: WalkError) -> WalkError {
    let WalkError::NotLoaded = error else { return error };
    let planned = open::plan_for(&open::Options::default()).ok();
    planned.and_then(|plan| crate::source::walk::possible(&plan).err()).unwrap_or(WalkError::NotLoaded)
}

fn code(audit: &Audit) -> u8 {
    let compared = |td: &Audited| matches!(td.compared, Compared::Whole | Compared::Over);
    if audit.differences() != 0 {
        exit::VIOLATION
    } else if audit.tds.iter().all(compared) {
        exit::OK
    } else {
        exit::HOST
    }
}

fn lines(walker: &Walker) -> Vec<(u64, Line)> {
    let all: BTreeMap<_, _> = walker.chunks().flat_map(|key| walker.open_lines(key)).collect();
    all.into_iter().collect()
}

/// How far it was compared, in words; none: from both sides, whole.
fn but(compared: Compared) -> Option<String> {
    Some(match compared {
        Compared::Whole => return None,
        Compared::BeingTakenOver => {
            "not compared: what was lent to it before septwatch began is being taken over".to_owned()
        }
        Compared::Unknown => "not compared: it is not in the ledger".to_owned(),
        Compared::Over => "not compared: it ended meanwhile".to_owned(),
        Compared::Part(unread) => format!("{} could not be read", plural(unread as u64, "table")),
    })
}

fn print(td: &Audited, out: &mut dyn Write) -> Result<()> {
    let name = if td.td == 0 { "a TD".to_owned() } else { format!("TD {}", td.td) };
    write!(out, "{name} (pid {}): ", td.tgid)?;
    if td.frames != 0 {
        write!(out, "{} of KVM with {}, ", plural(td.tables, "table"), plural(td.frames, "frame"))?;
        write!(out, "{} of the ledger: ", plural(td.lines, "line"))?;
    }
    match (but(td.compared), td.differences.len()) {
        (Some(but), 0) => writeln!(out, "{but}")?,
        (None, 0) => writeln!(out, "equal")?,
        (but, count) => {
            let but = but.map(|but| format!("; {but}")).unwrap_or_default();
            writeln!(out, "{}{but}", plural(count as u64, "difference"))?;
        }
    }
    td.differences.iter().try_for_each(|difference| writeln!(out, "  {}", audit::told(difference)))?;
    Ok(())
}

fn line_json(line: Line) -> Value {
    json!({
        "kind": line.kind().name(), "level": line.level().name(), "gfn": line.gfn(),
        "state": line.state().name(), "index": line.owner(), "walked": line.is_walked(),
    })
}

fn json(audit: &Audit) -> Value {
    let side = |line: Line| line.is_open().then(|| line_json(line));
    let difference = |difference: &Difference| {
        json!({
            "pfn": difference.pfn, "ledger": side(difference.line()), "kvm": side(difference.kvm()),
            "instead": (difference.instead != 0).then_some(difference.instead), "told": audit::told(difference),
        })
    };
    let td = |td: &Audited| {
        json!({
            "td": (td.td != 0).then_some(td.td), "tgid": td.tgid, "tables": td.tables, "frames": td.frames,
            "lines": td.lines, "whole": td.compared == Compared::Whole, "but": but(td.compared),
            "differences": td.differences.iter().map(difference).collect::<Vec<_>>(),
        })
    };
    json!({
        "tds": audit.tds.iter().map(td).collect::<Vec<_>>(), "differences": audit.differences(),
        "took_us": audit.took_us,
    })
}
