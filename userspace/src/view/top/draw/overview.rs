//! The host at a glance.

use ratatui::{
    layout::Rect,
    style::Style,
    text::{Line, Span},
};
use septwatch_common::Violation;

use super::{
    panels,
    pen::{Pen, below, beside, grouped, top},
    wrap::wrap_all,
};
use crate::view::{
    lines::span,
    top::{
        columns::{age, bytes, rate},
        scene::{Sample, Scene},
    },
};

/// What is drawn over time.
struct Series {
    name: &'static str,
    of: fn(&Sample) -> f64,
    shown: fn(f64) -> String,
    needs_calls: bool,
    is_bad: bool,
}

const SERIES: [Series; 5] = [
    Series { name: "maps", of: |at| at.rates.maps, shown: per_second, needs_calls: false, is_bad: false },
    Series { name: "zaps", of: |at| at.rates.zaps, shown: per_second, needs_calls: false, is_bad: false },
    Series { name: "BUSY", of: |at| at.rates.busy, shown: per_second, needs_calls: false, is_bad: false },
    Series {
        name: "p99",
        of: |at| at.p99_ns as f64,
        shown: |ns| span(ns as u64),
        needs_calls: true,
        is_bad: false,
    },
    Series {
        name: "violations",
        of: |at| at.violations as f64,
        shown: count,
        needs_calls: false,
        is_bad: true,
    },
];

fn per_second(figure: f64) -> String {
    format!("{}/s", rate(figure))
}

fn count(figure: f64) -> String {
    if figure < 1e6 { format!("{figure:.0}") } else { rate(figure) }
}

/// Draws it.
pub fn draw(pen: &mut Pen, place: Rect, scene: &Scene) {
    let mut verdict = panels::verdict(scene, pen.look);
    if place.height >= 30 {
        verdict = wrap_all(&verdict, place.width);
    }
    let most = (place.height / 6).max(2);
    let rows = rows(&verdict).min(most);
    pen.lines(top(place, rows), &verdict[..rows.into()], &mut 0);
    let mut rest = below(place, rows);
    if let Some(why) = scene.about.no_calls {
        let words = format!("\"-\": not known, {why}");
        pen.put(rest, 0, &Line::styled(words, pen.look.palette.quiet));
        rest = below(rest, 1);
    }
    if rest.height >= 24 {
        rest = below(rest, 1);
    }
    match (rest.width, rest.height) {
        (0..60, _) | (_, 0..15) => small(pen, rest, scene),
        (0..110, _) | (_, 0..22) => middle(pen, rest, scene),
        (110..180, _) => large(pen, rest, scene),
        _ => huge(pen, rest, scene),
    }
}

fn rows(lines: &[Line]) -> u16 {
    u16::try_from(lines.len()).unwrap_or(u16::MAX)
}

/// Key figures, then the last violations.
fn small(pen: &mut Pen, place: Rect, scene: &Scene) {
    let mut lines = panels::now(scene, pen.look, place.width);
    lines.extend(panels::own(scene, pen.look, place.width));
    let rows = rows(&lines).min(place.height.saturating_sub(3).max(place.height / 2));
    pen.lines(top(place, rows), &lines[..rows.into()], &mut 0);
    last(pen, below(place, rows), scene);
}

/// Memory beside figures, lines over time below, then the last violations.
fn middle(pen: &mut Pen, place: Rect, scene: &Scene) {
    let (left, right) = beside(place, place.width * 46 / 100, 2);
    memory(pen, top(left, 7), scene);
    let now = panels::now(scene, pen.look, right.width);
    section(pen, top(right, 7), "Now", &now);
    let rest = below(place, 7);
    let own = panels::own(scene, pen.look, place.width);
    let tall = rows(&own).min(rest.height.saturating_sub(9));
    pen.lines(top(rest, tall), &own[..tall.into()], &mut 0);
    let rest = below(rest, tall);
    sparklines(pen, top(rest, 6), scene);
    last(pen, below(rest, 6), scene);
}

/// Memory, figures and TDs on the left; charts and the last violations on the right.
fn large(pen: &mut Pen, place: Rect, scene: &Scene) {
    let (left, right) = beside(place, 48, 3);
    let rest = left_side(pen, left, scene);
    busiest(pen, rest, scene);
    let tall = charts(pen, top(right, right.height * 6 / 10), scene);
    last(pen, below(right, tall + 1), scene);
}

/// Charts have the middle.
fn huge(pen: &mut Pen, place: Rect, scene: &Scene) {
    let (left, rest) = beside(place, 56, 3);
    let (middle, right) = beside(rest, rest.width * 52 / 100, 3);
    let rest = left_side(pen, left, scene);
    by_kind(pen, rest, scene);
    let leaves =
        if middle.height >= 40 { u16::try_from(scene.leaves.len()).unwrap_or(0).min(12) + 3 } else { 0 };
    let tall = charts(pen, top(middle, middle.height - leaves), scene);
    calls(pen, below(middle, tall + 1), scene);
    let tds = u16::try_from(scene.tds.len()).unwrap_or(u16::MAX).saturating_add(2).min(right.height / 2);
    busiest(pen, top(right, tds), scene);
    last(pen, below(right, tds + 1), scene);
}

/// Memory and figures; what is left below them.
fn left_side(pen: &mut Pen, place: Rect, scene: &Scene) -> Rect {
    memory(pen, top(place, 7), scene);
    let rest = below(place, 8);
    let mut lines = panels::now(scene, pen.look, place.width);
    lines.extend(panels::own(scene, pen.look, place.width));
    let tall = rows(&lines).saturating_add(1).min(rest.height);
    section(pen, top(rest, tall), "Now", &lines);
    below(rest, tall + 1)
}

fn busiest(pen: &mut Pen, place: Rect, scene: &Scene) {
    if place.height < 4 {
        return;
    }
    let lines = panels::busiest(scene, pen.look, place.height - 2, place.width);
    section(pen, place, "Busiest TDs", &lines);
}

fn by_kind(pen: &mut Pen, place: Rect, scene: &Scene) {
    if place.height < 3 {
        return;
    }
    let palette = pen.look.palette;
    let whole = scene.by_kind.values().copied().max().unwrap_or(0);
    let room = place.width.saturating_sub(37);
    let line = |(kind, count): (&Violation, &u64)| {
        Line::from(vec![
            Span::raw(format!("{:<25}", kind.name())),
            Span::raw(format!(" {:>10} ", grouped(*count))),
            Span::styled(pen.bar(*count as f64, whole as f64, room), palette.bad),
        ])
    };
    let mut lines: Vec<_> = scene.by_kind.iter().map(line).collect();
    if lines.is_empty() {
        lines.push(Line::styled("none", palette.quiet));
    }
    section(pen, place, "Violations by kind", &lines);
}

/// SEAMCALLs: how many, and how long they took.
fn calls(pen: &mut Pen, place: Rect, scene: &Scene) {
    if place.height < 3 || scene.leaves.is_empty() {
        return;
    }
    let palette = pen.look.palette;
    let heads =
        format!("{:<23} {:>8} {:>8} {:>8} {:>9} {:>9}", "", "CALLS/s", "BUSY", "ERRORS", "P50", "P99");
    let mut lines = vec![Line::styled(heads, palette.quiet)];
    for row in scene.leaves.iter().take(place.height.into()) {
        let of = |ns: Option<u64>| ns.map_or("-".to_owned(), age);
        let (p50, p99) = (row.latency.map(|it| it.p50_ns), row.latency.map(|it| it.p99_ns));
        let style = |count: u64, wrong: Style| if count > 0 { wrong } else { palette.quiet };
        lines.push(Line::from(vec![
            Span::raw(format!("{:<23} {:>8}", row.leaf.name(), rate(row.rate))),
            Span::styled(format!(" {:>8}", count(row.busy as f64)), style(row.busy, palette.warn)),
            Span::styled(format!(" {:>8}", count(row.errors as f64)), style(row.errors, palette.bad)),
            Span::raw(format!(" {:>9} {:>9}", of(p50), of(p99))),
        ]));
    }
    section(pen, place, "SEAMCALLs", &lines);
}

fn memory(pen: &mut Pen, place: Rect, scene: &Scene) {
    let quiet = pen.look.palette.quiet;
    let size = bytes(panels::lent(scene).saturating_mul(4096));
    let rest = pen.heading(place, "Lent memory", &Line::styled(size, quiet));
    let lines = panels::memory(pen, scene, rest.width);
    let rows = rows(&lines).min(rest.height);
    pen.lines(rest, &lines[..rows.into()], &mut 0);
}

/// Lines under a heading, as many as fit.
fn section(pen: &mut Pen, place: Rect, title: &str, lines: &[Line]) {
    let rest = pen.heading(place, title, &Line::default());
    let rows = rows(lines).min(rest.height);
    pen.lines(rest, &lines[..rows.into()], &mut 0);
}

fn last(pen: &mut Pen, place: Rect, scene: &Scene) {
    let lines = panels::last_violations(scene, pen.look, place.height.saturating_sub(1));
    section(pen, place, "Last violations", &lines);
}

/// How long the history is.
fn length(scene: &Scene) -> String {
    match (scene.history.first(), scene.history.last()) {
        (Some(first), Some(last)) if last.time_ns > first.time_ns => {
            format!("last {}", age(last.time_ns - first.time_ns))
        }
        _ => "nothing yet".to_owned(),
    }
}

/// The values of a series, and the largest as it is shown; none where it is not known.
fn values(scene: &Scene, series: &Series) -> Option<(Vec<f64>, String)> {
    if series.needs_calls && scene.about.no_calls.is_some() {
        return None;
    }
    let values: Vec<f64> = scene.history.iter().map(series.of).collect();
    let largest = values.iter().copied().fold(0.0, f64::max);
    Some((values, (series.shown)(largest)))
}

fn style(pen: &Pen, series: &Series) -> Style {
    if series.is_bad { pen.look.palette.bad } else { pen.look.palette.good }
}

/// A line each: name, bars, the largest.
fn sparklines(pen: &mut Pen, place: Rect, scene: &Scene) {
    let quiet = pen.look.palette.quiet;
    let rest = pen.heading(place, "Over time", &Line::styled(length(scene), quiet));
    for (row, series) in (0..rest.height).zip(&SERIES) {
        let line = below(top(rest, row + 1), row);
        let (name, rest) = beside(line, 11, 0);
        let (bars, most) = beside(rest, rest.width.saturating_sub(15), 1);
        pen.put(name, 0, &Line::styled(series.name, quiet));
        match values(scene, series) {
            Some((values, largest)) => {
                let style = style(pen, series);
                pen.chart(bars, &values, style);
                pen.put(most, 0, &Line::styled(format!("max {largest}"), quiet));
            }
            None => pen.put(bars, 0, &Line::styled("-", quiet)),
        }
    }
}

/// Tallest chart, with its heading and a row of air.
const CHART: u16 = 11;

/// Charts, one above the other; how many rows they take.
fn charts(pen: &mut Pen, place: Rect, scene: &Scene) -> u16 {
    let quiet = pen.look.palette.quiet;
    let count = SERIES.len() as u16;
    let mut rest = place;
    for (at, series) in (0..count).zip(&SERIES) {
        let tall = (rest.height / (count - at)).min(CHART);
        let chart = top(rest, tall);
        rest = below(rest, tall);
        let Some((values, largest)) = values(scene, series) else {
            pen.heading(chart, series.name, &Line::styled("-", quiet));
            continue;
        };
        let more = format!("max {largest}, {}", length(scene));
        let bars = pen.heading(chart, series.name, &Line::styled(more, quiet));
        // A row of air above the next heading.
        let air = u16::from(bars.height > 3 && at + 1 < count);
        let style = style(pen, series);
        pen.chart(top(bars, bars.height - air), &values, style);
    }
    place.height - rest.height
}
