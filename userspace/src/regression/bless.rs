//! A file of expectations from what was seen.
//!
//! What is stable from run to run becomes exact: kinds and counts of violations, statuses, hooks. What depends on the
//! host and its load becomes bounds, or is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use septwatch_common::{Leaf, Status, Violation};

use super::{
    answers::LeafAnswers,
    bound::{Bounds, NO_LEAF, Time},
    run::{Alike, Run, status_name},
};
use crate::model::windows::Span;

/// Begins with [`super::expect::MARK`].
const HEAD: &str = "\
# Expectations of septwatch check
# Blessed from what was seen. Edit it as you like. What is left out is not looked at, except that a violation
# which is not expected is always a failure. How many is a number, or bounds: { min = 1, max = 5 }, of which one
# can be left out.
";

const HOOKS: &str = "\
# Hooks that must be bound: without one of them, something may pass unseen.
hooks = [
";

const VIOLATIONS: &str = "\
]

# Violations that must be seen, and how many; no other may be. `leaf` and `status` are the SEAMCALL that failed
# (\"none\": none did) and what it answered; without them, any. Of two that fit a violation, the one that says more
# counts it.

";

const LEAVES: &str = "\
# SEAMCALLs by leaf. `calls`, `busy` (TDX_OPERAND_BUSY) and `errors` (neither success nor BUSY) bound how many.
# They vary with load: blessed are half to twice the calls that were seen, and three times the BUSY, at least 20.
# `statuses` are those that the leaf may answer beside success and BUSY.

";

const WINDOWS: &str = "\
# How long things may stay wrong: `p99` and `max`, in ns, us, ms or s. Such times vary with the host and its load:
# blessed is ten times the longest that was seen, and at least 500ms, for a task that is preempted within a window
# makes it long. Tighten them to what must not be exceeded.

";

/// How many times as many calls, or as few, are still within what is blessed.
const CALLS: u64 = 2;

/// As many times the answers of BUSY that were seen are allowed, and at least so many.
const BUSY: u64 = 3;
const BUSY_LEAST: u64 = 20;

/// As many times the longest window that was seen is allowed, and at least so much.
const WINDOW: u64 = 10;
const WINDOW_LEAST_NS: u64 = 500_000_000;

/// Who is given a frame that was freed too early, and when, is up to the host's allocator.
fn is_by_chance(kind: Violation) -> bool {
    kind == Violation::ReusedWhileMapped
}

/// What of a run can be expected of others. It is small: as many can be blessed together as anybody has.
#[derive(Clone, Debug)]
pub struct Showed {
    /// What was seen, in words.
    about: String,
    tds: u64,
    hooks: BTreeSet<String>,
    violations: BTreeMap<Alike, u64>,
    leaves: BTreeMap<Leaf, LeafAnswers>,
    has_calls: bool,
    windows: BTreeMap<Span, u64>,
}

impl Showed {
    /// Of this run.
    pub fn of(run: &Run) -> Self {
        let kernel = &run.header.kernel;
        let module =
            kernel.tdx_module.as_deref().map_or(String::new(), |version| format!(", TDX module {version}"));
        let bound = run.header.plan.iter().filter(|hook| hook.bound.is_some());
        let mut violations = BTreeMap::new();
        for (alike, group) in &run.violations {
            let alike =
                if is_by_chance(alike.kind) { Alike { leaf: None, status: None, ..*alike } } else { *alike };
            *violations.entry(alike).or_default() += group.count;
        }
        Self {
            about: plain(&format!("{} records on Linux {}{module}", run.records, kernel.release)),
            tds: run.tds,
            hooks: bound.map(|hook| hook.name.clone()).collect(),
            violations,
            leaves: run.leaves.clone().unwrap_or_default(),
            has_calls: run.has_calls(),
            windows: run.windows.summaries().map(|(span, summary)| (span, summary.max_ns)).collect(),
        }
    }
}

/// The lowest and the highest that any of these runs showed; where one did not show it at all, 0 is the lowest.
fn bounds(of: impl Iterator<Item = Option<u64>>) -> Bounds {
    let numbers: Vec<_> = of.map(Option::unwrap_or_default).collect();
    Bounds { min: numbers.iter().copied().min().unwrap_or(0), max: numbers.iter().copied().max() }
}

/// Every key that any of them has.
fn keys<'a, K: Ord + Copy + 'a>(all: impl Iterator<Item = impl Iterator<Item = &'a K>>) -> BTreeSet<K> {
    all.flatten().copied().collect()
}

/// The text of a file that expects what these runs showed; where they differ, anything between them.
pub fn bless(runs: &[Showed]) -> String {
    let mut out = HEAD.to_owned();
    for run in runs {
        let _ = writeln!(out, "# Seen: {}.", run.about);
    }
    let tds = bounds(runs.iter().map(|run| Some(run.tds)));
    let _ = writeln!(out, "version = 1\n\n# TDs that are seen.\ntds = {}\n", tds.to_toml());
    out.push_str(HOOKS);
    let hooks = runs.iter().map(|run| run.hooks.clone()).reduce(|all, one| &all & &one);
    for hook in hooks.unwrap_or_default() {
        let _ = writeln!(out, "    {},", quoted(&hook));
    }
    out.push_str(VIOLATIONS);
    for alike in keys(runs.iter().map(|run| run.violations.keys())) {
        let _ = writeln!(out, "[[violation]]\nkind = \"{}\"", alike.kind.name());
        let by_chance = is_by_chance(alike.kind);
        if !by_chance {
            let _ = writeln!(out, "leaf = \"{}\"", alike.leaf.map_or(NO_LEAF, Leaf::name));
        }
        if let Some(status) = alike.status {
            let _ = writeln!(out, "status = \"{}\"", status_name(Status(status)));
        }
        let count = if by_chance {
            out.push_str(
                "# Who is given a frame that was freed too early, and when, is up to the host's allocator.\n",
            );
            Bounds { min: 0, max: None }
        } else {
            bounds(runs.iter().map(|run| run.violations.get(&alike).copied()))
        };
        let _ = writeln!(out, "count = {}\n", count.to_toml());
    }
    out.push_str(LEAVES);
    for leaf in keys(runs.iter().map(|run| run.leaves.keys())) {
        write_leaf(&mut out, runs, leaf);
    }
    out.push_str(WINDOWS);
    for span in keys(runs.iter().map(|run| run.windows.keys())) {
        let longest = runs.iter().filter_map(|run| run.windows.get(&span)).max().copied().unwrap_or(0);
        let most = Time(rounded(longest.saturating_mul(WINDOW)).max(WINDOW_LEAST_NS));
        let _ = writeln!(out, "# {}\n[window.{}]\nmax = \"{most}\"\n", span.words(), span.name());
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn write_leaf(out: &mut String, runs: &[Showed], leaf: Leaf) {
    let answers = || runs.iter().filter_map(|run| run.leaves.get(&leaf));
    let calls = bounds(runs.iter().map(|run| run.leaves.get(&leaf).map(LeafAnswers::calls)));
    let most = calls.max.map(|max| max.saturating_mul(CALLS));
    let calls = Bounds { min: calls.min / CALLS, max: most };
    let busy = answers().map(|answers| answers.busy).max().unwrap_or(0);
    let busy = Bounds { min: 0, max: Some(busy.saturating_mul(BUSY).max(BUSY_LEAST)) };
    let _ =
        writeln!(out, "[leaf.\"{}\"]\ncalls = {}\nbusy = {}", leaf.name(), calls.to_toml(), busy.to_toml());
    if runs.iter().all(|run| run.has_calls) {
        let others = keys(answers().map(|answers| answers.statuses.keys()));
        let names = others.into_iter().map(Status).filter(|status| !status.is_busy());
        let names: Vec<_> = names.map(|status| format!("\"{}\"", status_name(status))).collect();
        let _ = writeln!(out, "statuses = [{}]", names.join(", "));
    }
    out.push('\n');
}

/// Up to two digits and zeros.
fn rounded(ns: u64) -> u64 {
    let step = 10_u64.pow(ns.max(1).ilog10().saturating_sub(1));
    ns.checked_next_multiple_of(step).unwrap_or(ns)
}

/// On one line.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// As a string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", letter as u32);
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
