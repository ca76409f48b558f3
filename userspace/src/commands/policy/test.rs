//! `septwatch policy test`: what a policy would have done, on a recording.

use std::{collections::BTreeMap, io::Write, path::PathBuf, sync::Arc};

use anyhow::Result;
use septwatch_common::Life;
use serde_json::{Value, json};

use super::find;
use crate::{
    commands::{exit, output::plain, recording},
    model::verdict::Verdict,
    policy::{
        decision::{Decision, Dry, Permit},
        engine::{Armed, Engine},
        subject::Subject,
    },
    recording::{reader::Got, replay::Replay},
    source::event::Event,
    view::lines,
};

/// Says what a policy would have done about the violations of a recording, and why not where it would not.
///
/// Limits, cool-downs and rates are those of the recording's own time. A recording knows no names of VMs and no paths of
/// cgroups: a rule that selects TDs by them is undecided, and not followed.
///
/// Exit code, as of `replay`: 0: the recording has no violation; 1: it has one; 2: the policy is of no use, or the recording
/// cannot be read, or not to its end.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A policy file, or the name of a shipped policy.
    policy: String,
    /// The recording.
    recording: PathBuf,
    /// Print one JSON object per violation, and one at the end.
    #[arg(long)]
    json: bool,
}

/// What came of a step of a rule.
#[derive(Clone, Debug, Default)]
struct Sum {
    would: u64,
    /// By reason.
    refused: BTreeMap<String, u64>,
    first_ns: Option<u64>,
    last_ns: u64,
}

/// By place of the rule, and step of its ladder.
type Sums = BTreeMap<(u32, usize), (Decision, Sum)>;

pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let policy = Arc::new(find(&args.policy)?);
    let mut replay = Replay::open(&args.recording).map_err(recording::unreadable)?;
    if !args.json {
        writeln!(out, "policy {} on a {}", policy.name, plain(&recording::what_it_is(replay.header())))?;
    }
    let mut engine = Engine::new(Arc::clone(&policy));
    let mut sums = Sums::new();
    let mut undecided = 0_u64;
    while let Some(got) = replay.advance() {
        match got {
            Got::Event => {}
            Got::Note(_) => continue,
            Got::Damage(damage) => {
                eprintln!("septwatch: {}: {damage}", args.recording.display());
                continue;
            }
        }
        if let Some((verdict, _)) = replay.found() {
            let state = verdict.td.and_then(|td| replay.model().tds.get(&td));
            let begun_ns = state.map_or(0, |state| state.begun_ns);
            let subject = Subject::recorded(verdict.td, state.map(|state| state.tgid), begun_ns);
            let unclear: Vec<_> =
                engine.undecided(verdict, &subject).into_iter().map(str::to_owned).collect();
            undecided += u64::from(!unclear.is_empty());
            let decisions = engine.decide(verdict, &subject, Armed::Recording);
            for decision in &decisions {
                add(&mut sums, decision, verdict.time_ns);
            }
            say(args.json, verdict, &decisions, &unclear, out)?;
        }
        if let Event::Life(life) = replay.event()
            && life.life == Life::Gone as u8
        {
            engine.forget(life.id);
        }
    }
    let total = replay.model().total();
    say_sums(args.json, &sums, (&policy.name, policy.armed), total, undecided, out)?;
    Ok(match (replay.damages(), total) {
        (1.., _) => exit::USAGE,
        (0, 0) => exit::OK,
        (0, _) => exit::VIOLATION,
    })
}

/// Whether it would have been done by an agent that is armed.
fn would(permit: &Permit) -> bool {
    matches!(permit, Permit::Do | Permit::Dry(Dry::Recording | Dry::Agent))
}

fn add(sums: &mut Sums, decision: &Decision, time_ns: u64) {
    let key = (decision.place, decision.step);
    let (_, sum) = sums.entry(key).or_insert_with(|| (decision.clone(), Sum::default()));
    if would(&decision.permit) {
        sum.would += 1;
        sum.first_ns.get_or_insert(time_ns);
        sum.last_ns = time_ns;
    } else {
        *sum.refused.entry(decision.permit.why().unwrap_or_default()).or_default() += 1;
    }
}

fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

fn say(
    json: bool,
    verdict: &Verdict,
    decisions: &[Decision],
    undecided: &[String],
    out: &mut dyn Write,
) -> Result<()> {
    if json {
        let steps: Vec<_> = decisions.iter().map(decided).collect();
        let fields = json!({
            "type": "decisions",
            "verdict": verdict,
            "decisions": steps,
            "undecided_rules": undecided,
        });
        writeln!(out, "{fields}")?;
        return Ok(());
    }
    writeln!(out, "{} ! {}", seconds(verdict.time_ns), lines::headline(verdict))?;
    for decision in decisions {
        let name = decision.reaction.name();
        let if_failed = if decision.if_failed { " if that failed" } else { "" };
        let what = match decision.permit.why().filter(|_| !would(&decision.permit)) {
            Some(why) => format!("not: {why}"),
            None => "would be done".to_owned(),
        };
        writeln!(out, "    {name:<11} {what}{if_failed} (rule {:?})", decision.rule)?;
    }
    for rule in undecided {
        writeln!(out, "    undecided: rule {rule:?} selects TDs by what a recording does not know")?;
    }
    if decisions.is_empty() && undecided.is_empty() {
        writeln!(out, "    no rule is for it")?;
    }
    Ok(())
}

/// A decision as fields.
fn decided(decision: &Decision) -> Value {
    json!({
        "rule": decision.rule,
        "step": decision.step,
        "reaction": decision.reaction.name(),
        "if_failed": decision.if_failed,
        "would": would(&decision.permit),
        "why_not": decision.permit.why().filter(|_| !would(&decision.permit)),
    })
}

fn say_sums(
    json: bool,
    sums: &Sums,
    (policy, armed): (&str, bool),
    total: u64,
    undecided: u64,
    out: &mut dyn Write,
) -> Result<()> {
    if json {
        let of = |(decision, sum): &(Decision, Sum)| {
            json!({
                "rule": decision.rule,
                "step": decision.step,
                "reaction": decision.reaction.name(),
                "if_failed": decision.if_failed,
                "would": sum.would,
                "refused": sum.refused,
                "first_ns": sum.first_ns,
                "last_ns": sum.first_ns.map(|_| sum.last_ns),
            })
        };
        let fields = json!({
            "type": "summary",
            "policy": policy,
            "armed": armed,
            "violations": total,
            "undecided": undecided,
            "reactions": sums.values().map(of).collect::<Vec<_>>(),
        });
        writeln!(out, "{fields}")?;
        return Ok(());
    }
    writeln!(out, "\n{total} violations")?;
    if undecided != 0 {
        writeln!(out, "{undecided} with rules that a recording cannot decide: see above")?;
    }
    let mut last = None;
    for ((place, _), (decision, sum)) in sums {
        if last.replace(place) != Some(place) {
            writeln!(out, "rule {:?}", decision.rule)?;
        }
        let times = match sum.first_ns {
            Some(first) if sum.would > 1 => format!(", {} to {}", seconds(first), seconds(sum.last_ns)),
            Some(first) => format!(", {}", seconds(first)),
            None => String::new(),
        };
        let if_failed = if decision.if_failed { " if the step before failed" } else { "" };
        writeln!(out, "  {:<11} would be done {} x{times}{if_failed}", decision.reaction.name(), sum.would)?;
        for (why, count) in &sum.refused {
            writeln!(out, "              not {count} x: {why}")?;
        }
    }
    Ok(())
}
