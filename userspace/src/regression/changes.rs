//! What changed between two runs of the same workload.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use septwatch_common::{Leaf, Status, Violation};
use serde::{Serialize, Serializer};

use super::{
    answers::LeafAnswers,
    run::{Run, status_name},
    tolerance::Tolerance,
};
use crate::{
    model::{histogram::Summary, windows::Span},
    recording::header::{HookFact, Origin},
    view::lines,
};

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// How many.
    Count(u64),
    /// Of 1,000, how many.
    PerThousand(f64),
    /// How long, in ns.
    Time(u64),
    /// In words.
    Text(String),
    /// There is none.
    None,
}

impl Value {
    fn number(&self) -> Option<f64> {
        match self {
            Self::Count(number) | Self::Time(number) => Some(*number as f64),
            Self::PerThousand(number) => Some(*number),
            Self::Text(_) | Self::None => None,
        }
    }

    fn text(text: Option<&str>) -> Self {
        text.map_or(Self::None, |text| Self::Text(text.to_owned()))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(number) => write!(f, "{number}"),
            Self::PerThousand(number) => write!(f, "{number:.2}"),
            Self::Time(ns) => f.write_str(&lines::span(*ns)),
            Self::Text(text) => f.write_str(text),
            Self::None => f.write_str("-"),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(number) | Self::Time(number) => serializer.serialize_u64(*number),
            Self::PerThousand(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::None => serializer.serialize_unit(),
        }
    }
}

/// A figure of both runs.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What it is a figure of: `calls`, `latency`, `window`, ...
    pub section: &'static str,
    /// Leaf, window, violation, hook; empty where the section says all.
    pub of: String,
    /// Which figure.
    pub figure: String,
    /// Before.
    pub a: Value,
    /// After.
    pub b: Value,
    /// How many times as much; none where there is nothing to compare with.
    pub factor: Option<f64>,
    /// What is tolerated, where something is.
    pub tolerance: Option<String>,
    /// Whether it is beyond that.
    pub out: bool,
}

impl Row {
    fn new(
        section: &'static str,
        of: impl Into<String>,
        figure: impl Into<String>,
        a: Value,
        b: Value,
    ) -> Self {
        let numbers = a.number().zip(b.number()).filter(|(a, _)| *a > 0.0);
        let factor = numbers.map(|(a, b)| b / a);
        let (of, figure) = (of.into(), figure.into());
        Self { section, of, figure, a, b, factor, tolerance: None, out: false }
    }

    fn judged(self, tolerance: impl Into<String>, out: bool) -> Self {
        Self { tolerance: Some(tolerance.into()), out, ..self }
    }

    /// Whether nothing changed.
    pub fn is_equal(&self) -> bool {
        self.a == self.b
    }

    /// How many times as much, in words.
    pub fn times(&self) -> String {
        match (self.factor, self.a.number().zip(self.b.number())) {
            (Some(factor), _) => format!("x {factor:.2}"),
            (None, Some((a, b))) if a < b => "new".to_owned(),
            _ => String::new(),
        }
    }
}

fn at_most(factor: f64) -> String {
    format!("at most x {factor}")
}

/// Every figure of both runs, whether or not it changed.
pub fn changes(a: &Run, b: &Run, tolerance: &Tolerance) -> Vec<Row> {
    let mut rows = host(a, b);
    rows.extend(hooks(&a.header.plan, &b.header.plan));
    let lost = [a, b].map(|run| run.loss.total());
    rows.push(Row::new("lost records", "", "", Value::Count(lost[0]), Value::Count(lost[1])).judged(
        format!("at most {} in each", tolerance.max_loss),
        lost.into_iter().any(|lost| lost > tolerance.max_loss),
    ));
    rows.push(Row::new("TDs", "", "", Value::Count(a.tds), Value::Count(b.tds)));
    rows.extend(calls(a, b, tolerance));
    rows.extend(violations(a, b, tolerance));
    let of = |run: &Run| -> BTreeMap<_, _> { run.latencies.summaries().collect() };
    rows.extend(spans(
        "latency",
        [of(a), of(b)],
        (tolerance.latency_factor, 0),
        tolerance.min_count,
        Leaf::name,
    ));
    let of = |run: &Run| -> BTreeMap<_, _> { run.windows.summaries().collect() };
    let most = (tolerance.window_factor, tolerance.min_window_ns);
    let name = Span::name;
    rows.extend(spans("window", [of(a), of(b)], most, tolerance.min_count, name));
    rows
}

fn host(a: &Run, b: &Run) -> Vec<Row> {
    let row = |figure: &str, of: &dyn Fn(&Run) -> Value| Row::new("host", "", figure, of(a), of(b));
    vec![
        row("kernel release", &|run| Value::Text(run.header.kernel.release.clone())),
        row("kernel build id", &|run| Value::text(run.header.kernel.build_id.as_deref())),
        row("TDX module", &|run| Value::text(run.header.kernel.tdx_module.as_deref())),
        row("CPUs", &|run| Value::Count(run.header.host.cpus as u64)),
        row("workload", &|run| match &run.header.origin {
            Origin::Live => Value::Text("live".to_owned()),
            Origin::Demo { scenarios, seed } => {
                Value::Text(format!("demo {}, seed {seed}", scenarios.join(", ")))
            }
        }),
    ]
}

fn hooks(a: &[HookFact], b: &[HookFact]) -> Vec<Row> {
    let by_name = |plan: &[HookFact]| -> BTreeMap<String, Option<String>> {
        plan.iter().map(|hook| (hook.name.clone(), hook.bound.clone())).collect()
    };
    let [a, b] = [by_name(a), by_name(b)];
    let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let row = |name: &String| {
        let of = |plan: &BTreeMap<_, Option<String>>| plan.get(name).cloned().flatten();
        let (a, b) = (of(&a), of(&b));
        let gone = a.is_some() && b.is_none();
        let row = Row::new("hook", name, "bound", Value::text(a.as_deref()), Value::text(b.as_deref()));
        row.judged("stays bound", gone)
    };
    names.into_iter().map(row).collect()
}

fn calls(a: &Run, b: &Run, tolerance: &Tolerance) -> Vec<Row> {
    let (Some(in_a), Some(in_b)) = (&a.leaves, &b.leaves) else { return Vec::new() };
    let leaves: BTreeSet<_> = in_a.keys().chain(in_b.keys()).copied().collect();
    let nothing = LeafAnswers::default();
    let mut rows = Vec::new();
    for leaf in leaves {
        let [a_of, b_of] = [in_a, in_b].map(|of| of.get(&leaf).unwrap_or(&nothing));
        let name = leaf.name();
        let of = [a_of.calls(), b_of.calls()];
        let changed = change(of[0], of[1]) > tolerance.calls_change && tolerance.differs(of, [1, 1]);
        rows.push(
            Row::new("calls", name, "calls", Value::Count(of[0]), Value::Count(of[1]))
                .judged(within(tolerance.calls_change), changed),
        );
        let mut rate = |figure: String, counts: [u64; 2], factor: f64| {
            if counts == [0, 0] {
                return;
            }
            let [a, b] = [0, 1].map(|at| counts[at] as f64 * 1000.0 / of[at].max(1) as f64);
            let out = b > a * factor && tolerance.differs(counts, of);
            let row = Row::new("calls", name, figure, Value::PerThousand(a), Value::PerThousand(b));
            rows.push(row.judged(at_most(factor), out));
        };
        rate("BUSY per 1000".to_owned(), [a_of.busy, b_of.busy], tolerance.busy_factor);
        rate("errors per 1000".to_owned(), [a_of.errors, b_of.errors], tolerance.error_factor);
        if a.has_calls() && b.has_calls() {
            let statuses: BTreeSet<_> = a_of.statuses.keys().chain(b_of.statuses.keys()).collect();
            for status in statuses.into_iter().filter(|status| !Status(**status).is_busy()) {
                let counts = [a_of, b_of].map(|of| of.statuses.get(status).copied().unwrap_or(0));
                let figure = format!("{} per 1000", status_name(Status(*status)));
                rate(figure, counts, tolerance.error_factor);
            }
        }
    }
    rows
}

/// By what part of `a` it changed; infinitely from nothing.
fn change(a: u64, b: u64) -> f64 {
    match (a, b) {
        (0, 0) => 0.0,
        (0, _) => f64::INFINITY,
        _ => (b as f64 / a as f64 - 1.0).abs(),
    }
}

fn within(part: f64) -> String {
    if part == 0.0 { "no change".to_owned() } else { format!("within {}%", (part * 1e4).round() / 100.0) }
}

fn violations(a: &Run, b: &Run, tolerance: &Tolerance) -> Vec<Row> {
    let by_kind = |run: &Run| {
        let mut kinds = BTreeMap::<Violation, u64>::new();
        for (alike, group) in &run.violations {
            *kinds.entry(alike.kind).or_default() += group.count;
        }
        kinds
    };
    let [a, b] = [by_kind(a), by_kind(b)];
    let kinds: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let row = |kind: &Violation| {
        let [a, b] = [&a, &b].map(|kinds| kinds.get(kind).copied().unwrap_or(0));
        let row = Row::new("violations", kind.name(), "found", Value::Count(a), Value::Count(b));
        if *kind == Violation::ReusedWhileMapped {
            // Who is given a frame that was freed too early is chance: that it was freed is told by another.
            return row;
        }
        row.judged(within(tolerance.violations_change), change(a, b) > tolerance.violations_change)
    };
    kinds.into_iter().map(row).collect()
}

/// One time of a summary, in ns.
type Get = fn(&Summary) -> u64;

/// Spans may grow by a factor, and up to so many ns whatever the factor.
fn spans<T: Ord + Copy>(
    section: &'static str,
    [a, b]: [BTreeMap<T, Summary>; 2],
    (factor, least_ns): (f64, u64),
    min_count: u64,
    name: impl Fn(T) -> &'static str,
) -> Vec<Row> {
    let all: BTreeSet<_> = a.keys().chain(b.keys()).copied().collect();
    let mut rows = Vec::new();
    for one in all {
        let [a, b] = [a.get(&one), b.get(&one)];
        let least = a.map_or(0, |a| a.count).min(b.map_or(0, |b| b.count));
        let value = |of: Option<&Summary>, get: Get| of.map_or(Value::None, |of| Value::Time(get(of)));
        let count = |of: Option<&Summary>| of.map_or(Value::None, |of| Value::Count(of.count));
        rows.push(Row::new(section, name(one), "measured", count(a), count(b)));
        let figures: [(_, Get, _); 3] = [
            ("p50", |of| of.p50_ns, Some(min_count)),
            ("p99", |of| of.p99_ns, Some(min_count.saturating_mul(100))),
            ("max", |of| of.max_ns, None),
        ];
        for (figure, get, enough) in figures {
            let row = Row::new(section, name(one), figure, value(a, get), value(b, get));
            let judged = enough.is_some_and(|enough| least >= enough.max(1));
            let out = row.factor.is_some_and(|times| times > factor) && b.is_some_and(|b| get(b) > least_ns);
            rows.push(if judged { row.judged(at_most(factor), out) } else { row });
        }
    }
    rows
}
