//! A run against what is expected of it: checks, and why they fail.

use septwatch_common::Status;

use super::{
    bound::Bounds,
    expect::Expectations,
    run::{Alike, Group, Run, Seen, status_name},
};
use crate::{model::rerun::compare::OneSided, view::lines};

/// Differences of the re-run that are told one by one.
const TOLD: usize = 16;

/// A check that was made.
#[derive(Clone, Debug)]
pub struct Check<'a> {
    /// Its name, the same in every output.
    pub name: &'static str,
    /// Why it failed; empty: it did not.
    pub failures: Vec<Failure<'a>>,
}

/// Why a check failed.
#[derive(Clone, Debug, Default)]
pub struct Failure<'a> {
    /// What it is about.
    pub what: String,
    /// What was expected of it.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Where, in words.
    pub places: Vec<String>,
    /// The violations concerned, or the first of them.
    pub seen: &'a [Seen],
}

impl Failure<'_> {
    fn new(what: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        let (what, expected, found) = (what.into(), expected.into(), found.into());
        Self { what, expected, found, ..Self::default() }
    }

    fn at(self, places: Vec<String>) -> Self {
        Self { places, ..self }
    }
}

/// A time as lines have it.
pub fn time(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

const fn stream(vital: bool) -> &'static str {
    if vital { "lifecycle and violations" } else { "SEAMCALLs and frames" }
}

/// Makes every check. Without expectations no violation is expected.
pub fn check<'a>(run: &'a Run, expect: Option<&Expectations>, max_loss: u64) -> Vec<Check<'a>> {
    let mut checks = vec![
        Check { name: "whole", failures: whole(run) },
        Check { name: "loss", failures: loss(run, max_loss) },
        Check { name: "order", failures: order(run) },
        Check { name: "ledger", failures: ledger(run) },
        Check { name: "violations", failures: violations(run, expect) },
    ];
    if let Some(expect) = expect {
        if let Some(tds) = expect.tds {
            let failure = Failure::new("TDs", tds.to_string(), run.tds.to_string());
            let failures = if tds.holds(run.tds) { Vec::new() } else { vec![failure] };
            checks.push(Check { name: "tds", failures });
        }
        if !expect.hooks.is_empty() {
            checks.push(Check { name: "hooks", failures: hooks(run, expect) });
        }
        if !expect.leaves.is_empty() {
            checks.push(Check { name: "leaves", failures: leaves(run, expect) });
        }
        if !expect.windows.is_empty() {
            checks.push(Check { name: "windows", failures: windows(run, expect) });
        }
    }
    checks
}

fn whole<'a>(run: &Run) -> Vec<Failure<'a>> {
    if run.damages.count == 0 {
        return Vec::new();
    }
    let found = format!("damaged, or without its end, in {} places", run.damages.count);
    vec![Failure::new("the recording", "whole", found).at(run.damages.told.clone())]
}

fn loss<'a>(run: &Run, max_loss: u64) -> Vec<Failure<'a>> {
    let (loss, total) = (&run.loss, run.loss.total());
    if total <= max_loss {
        return Vec::new();
    }
    let of_cpu = loss.lost.iter().map(|lost| {
        let (cpu, stream) = (lost.cpu, stream(lost.vital));
        let (missing, counted) = (lost.missing, lost.counted);
        format!("CPU {cpu}, {stream}: {missing} numbers are missing, {counted} lost by the kernel's count")
    });
    let mut places: Vec<_> = of_cpu.take(64).collect();
    places.extend(run.unwritten.iter().cloned());
    for (count, why) in [
        (loss.unwritten, "arrived and could not be written"),
        (loss.damaged, "are missing where the file is damaged"),
    ] {
        if count != 0 {
            places.push(format!("{count} records {why}"));
        }
    }
    vec![
        Failure::new("lost records", Bounds { min: 0, max: Some(max_loss) }.to_string(), total.to_string())
            .at(places),
    ]
}

fn order<'a>(run: &Run) -> Vec<Failure<'a>> {
    let mut failures = Vec::new();
    if !run.repeated.is_empty() {
        let total: u64 = run.repeated.iter().map(|(_, _, count)| count).sum();
        let places = run
            .repeated
            .iter()
            .take(64)
            .map(|(cpu, vital, count)| format!("CPU {cpu}, {}: {count}", stream(*vital)));
        let failure = Failure::new("records whose number came before", "none", total.to_string());
        failures.push(failure.at(places.collect()));
    }
    if run.order.count != 0 {
        let places = run.order.told.iter().map(|record| {
            format!(
                "{} CPU {}: record {} of {} lies {} behind one that came before it",
                time(record.time_ns),
                record.cpu,
                record.seq,
                stream(record.vital),
                lines::span(record.behind_ns)
            )
        });
        let failure = Failure::new("times that go backwards", "none", run.order.count.to_string());
        failures.push(failure.at(places.collect()));
    }
    if run.unreadable != 0 {
        let what = "records of a leaf, level or hook that does not exist";
        failures.push(Failure::new(what, "none", run.unreadable.to_string()));
    }
    failures
}

fn ledger<'a>(run: &Run) -> Vec<Failure<'a>> {
    let of = |side: &OneSided, what: &str| {
        let places = side.told.iter().take(TOLD).map(|sight| {
            let pfn = sight.pfn.map_or_else(|| "?".to_owned(), |pfn| format!("{pfn:#x}"));
            let (name, gfn, tdr) = (sight.violation.name(), sight.gfn, sight.tdr);
            format!("{} {name} pfn {pfn} gfn {gfn:#x} TDR in frame {tdr:#x}", time(sight.time_ns))
        });
        let failure = Failure::new(what, "none", side.count.to_string()).at(places.collect());
        (side.count != 0).then_some(failure)
    };
    let differences = &run.differences;
    let sides = [
        of(&differences.not_found, "recorded verdicts that a re-run of the ledger does not find"),
        of(
            &differences.not_recorded,
            "violations that a re-run of the ledger finds and that were not recorded",
        ),
    ];
    sides.into_iter().flatten().collect()
}

fn violations<'a>(run: &'a Run, expect: Option<&Expectations>) -> Vec<Failure<'a>> {
    let mut expected: Vec<_> =
        expect.iter().flat_map(|expect| expect.violations()).map(|one| (one, 0, None)).collect();
    // Stable: of those that say as much, the first in the file holds.
    expected.sort_by_key(|(one, _, _)| std::cmp::Reverse(one.says()));
    let mut failures = Vec::new();
    for (alike, group) in &run.violations {
        match expected.iter_mut().find(|(one, _, _)| one.fits(alike)) {
            Some((_, count, seen)) => {
                *count += group.count;
                seen.get_or_insert(&group.seen);
            }
            None => failures.push(unexpected(alike, group)),
        }
    }
    for (one, count, seen) in expected.iter().filter(|(one, count, _)| !one.count.holds(*count)) {
        let (leaf, status) = (one.leaf.and_then(|leaf| leaf.0), one.status.map(|status| status.0));
        let what = Alike { kind: one.kind.0, leaf, status }.to_string();
        let failure = Failure::new(what, one.count.to_string(), count.to_string());
        failures.push(Failure { seen: seen.map_or(&[][..], Vec::as_slice), ..failure });
    }
    if run.unknown_violations != 0 {
        let what = "violations of a kind that this version does not know";
        failures.push(Failure::new(what, "none", run.unknown_violations.to_string()));
    }
    failures
}

fn unexpected<'a>(alike: &Alike, group: &'a Group) -> Failure<'a> {
    let failure = Failure::new(alike.to_string(), "none", group.count.to_string());
    Failure { seen: &group.seen, ..failure }
}

fn hooks<'a>(run: &Run, expect: &Expectations) -> Vec<Failure<'a>> {
    let mut failures = Vec::new();
    for name in &expect.hooks {
        let found = match run.header.plan.iter().find(|hook| hook.name == *name) {
            Some(hook) if hook.bound.is_some() => continue,
            Some(hook) => format!("missing: {}", hook.missing.as_deref().unwrap_or("no reason is recorded")),
            None => "no such hook in the plan".to_owned(),
        };
        failures.push(Failure::new(format!("hook {name}"), "bound", found));
    }
    failures
}

fn leaves<'a>(run: &Run, expect: &Expectations) -> Vec<Failure<'a>> {
    let Some(leaves) = &run.leaves else {
        let found = "neither SEAMCALLs nor their counts are in the recording";
        return vec![Failure::new("SEAMCALLs", "as [leaf] says", found)];
    };
    let nothing = super::answers::LeafAnswers::default();
    let mut failures = Vec::new();
    for (leaf, bounds) in &expect.leaves {
        let name = leaf.0.name();
        let answers = leaves.get(&leaf.0).unwrap_or(&nothing);
        for (what, bounds, found) in [
            ("calls", bounds.calls, answers.calls()),
            ("answers of BUSY", bounds.busy, answers.busy),
            ("errors", bounds.errors, answers.errors),
        ] {
            if let Some(bounds) = bounds.filter(|bounds| !bounds.holds(found)) {
                failures.push(Failure::new(format!("{name}: {what}"), bounds.to_string(), found.to_string()));
            }
        }
        let Some(allowed) = &bounds.statuses else { continue };
        let names = allowed.iter().map(|status| status_name(Status(status.0))).collect::<Vec<_>>().join(", ");
        let allowed_names = if names.is_empty() { "none but success and BUSY".to_owned() } else { names };
        if !run.has_calls() {
            let found = "the recording has no SEAMCALLs: it needs --events all";
            failures.push(Failure::new(format!("{name}: statuses"), allowed_names, found));
            continue;
        }
        let others = answers.statuses.iter().filter(|(status, _)| {
            !Status(**status).is_busy() && !allowed.iter().any(|allowed| allowed.0 == **status)
        });
        for (status, count) in others {
            let found = format!("{} {count} times", status_name(Status(*status)));
            failures.push(Failure::new(format!("{name}: statuses"), allowed_names.clone(), found));
        }
    }
    failures
}

fn windows<'a>(run: &Run, expect: &Expectations) -> Vec<Failure<'a>> {
    let mut failures = Vec::new();
    for (span, summary) in run.windows.summaries() {
        let bounds = expect.windows.iter().find(|(name, _)| name.0 == span).map(|(_, bounds)| bounds);
        let Some(bounds) = bounds else { continue };
        for (what, bound, found) in [("p99", bounds.p99, summary.p99_ns), ("max", bounds.max, summary.max_ns)]
        {
            if let Some(bound) = bound.filter(|bound| found > bound.0) {
                let (name, words) = (span.name(), span.words());
                let what = format!("{name}: {what} of the time {words}");
                failures.push(Failure::new(what, format!("at most {bound}"), lines::span(found)));
            }
        }
    }
    failures
}
