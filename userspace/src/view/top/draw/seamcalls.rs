//! SEAMCALLs, leaf by leaf.

use ratatui::{
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{
    pen::{Pen, below, beside, grouped, shrunk, top},
    table::Table,
    tds::unknown,
};
use crate::view::{
    lines::span,
    top::{
        columns::LEAVES,
        scene::{LeafRow, Scene},
        ui::{Ui, View},
    },
};

/// Draws the table, and the leaf that is chosen where there is room.
pub fn draw(pen: &mut Pen, place: Rect, scene: &Scene, ui: &mut Ui) {
    let palette = pen.look.palette;
    let style = |row: &LeafRow, key: &str| -> Style {
        match key {
            "errors" if row.errors > 0 => palette.bad,
            "busy" | "busyrate" if row.busy > 0 => palette.warn,
            "errors" | "busy" | "busyrate" | "calls" => palette.quiet,
            _ => palette.text,
        }
    };
    let list = ui.list(View::Seamcalls);
    let any = !list.rows.is_empty();
    let rows = u16::try_from(list.rows.len()).unwrap_or(u16::MAX).saturating_add(2);
    let (table_place, rest) = match place {
        Rect { width: 150.., .. } if any => beside(place, place.width * 55 / 100, 3),
        Rect { height: 14.., .. } if any => {
            let tall = rows.min(place.height * 55 / 100);
            (top(place, tall), below(place, tall + 1))
        }
        _ => (unknown(pen, place, scene), Rect { height: 0, ..place }),
    };
    let table = Table {
        title: "SEAMCALLs",
        columns: LEAVES,
        total: scene.leaves.len(),
        get: &|at| scene.leaves.get(at),
        style: &style,
        empty: "no SEAMCALL was seen so far",
    };
    table.draw(pen, table_place, scene, list);
    let chosen = list.rows.get(list.chosen).and_then(|at| scene.leaves.get(*at));
    if let Some(row) = chosen.filter(|_| rest.height > 0) {
        let calls = Line::styled(format!("{} calls", grouped(row.calls())), palette.quiet);
        let rest = pen.heading(rest, row.leaf.name(), &calls);
        detail(pen, rest, scene, row, &mut ui.scroll);
    }
}

fn detail(pen: &mut Pen, place: Rect, scene: &Scene, row: &LeafRow, scroll: &mut u16) {
    if place.width >= 100 && place.width < 140 {
        let (left, right) = beside(place, place.width / 2, 3);
        let lines = statuses(pen, scene, row, left.width);
        pen.lines(left, &lines, &mut scroll.clone());
        let lines = latency(pen, scene, row, shrunk(right).width);
        return pen.lines(right, &lines, scroll);
    }
    let mut lines = statuses(pen, scene, row, shrunk(place).width);
    lines.extend(latency(pen, scene, row, shrunk(place).width));
    pen.lines(place, &lines, scroll);
}

/// What it answered, and how often.
fn statuses(pen: &Pen, scene: &Scene, row: &LeafRow, width: u16) -> Vec<Line<'static>> {
    let palette = pen.look.palette;
    let whole = row.calls() as f64;
    // Shorter bars tell nothing.
    let room = width.checked_sub(60).filter(|room| *room >= 6).unwrap_or(0).min(20);
    let line = |count: u64, name: String, style: Style| {
        let share = if whole > 0.0 { count as f64 / whole * 100.0 } else { 0.0 };
        Line::from(vec![
            Span::raw(format!("{:>13} ", grouped(count))),
            Span::styled(format!("{share:>5.1} % "), palette.quiet),
            Span::styled(format!("{:<w$}", pen.bar(count as f64, whole, room), w = room.into()), style),
            Span::styled(format!(" {name}"), style),
        ])
    };
    let mut lines = vec![line(row.ok, "success".to_owned(), palette.good)];
    if row.busy > 0 {
        let busy = "TDX_OPERAND_BUSY, each tried again".to_owned();
        lines.push(line(row.busy, busy, palette.warn));
    }
    let others = row.statuses.iter().filter(|(status, _)| !status.is_busy());
    lines.extend(others.map(|(status, count)| line(*count, status.to_string(), palette.bad)));
    if row.errors > 0 && row.statuses.is_empty() {
        let why = scene.about.no_calls.unwrap_or("they were not recorded");
        lines.push(line(row.errors, format!("errors; which: not known, {why}"), palette.bad));
    }
    lines
}

/// How long it took.
fn latency(pen: &Pen, scene: &Scene, row: &LeafRow, width: u16) -> Vec<Line<'static>> {
    let palette = pen.look.palette;
    let Some(latency) = &row.latency else {
        let why = scene.about.no_calls.unwrap_or("not measured");
        return vec![Line::styled(format!("latency: -, {why}"), palette.quiet)];
    };
    let [min, p50, p99, max] = [latency.min_ns, latency.p50_ns, latency.p99_ns, latency.max_ns].map(span);
    let mut lines =
        vec![Line::styled(format!("latency: min {min}  p50 {p50}  p99 {p99}  max {max}"), palette.text)];
    let fullest = row.octaves.iter().map(|octave| octave.count).max().unwrap_or(0);
    let room = width.saturating_sub(45).min(60);
    for octave in &row.octaves {
        let to_ns = octave.from_ns.saturating_mul(2);
        let within = |ns: u64| ns >= octave.from_ns && ns < to_ns;
        let marks: Vec<_> = [("p50", latency.p50_ns), ("p99", latency.p99_ns), ("max", latency.max_ns)]
            .into_iter()
            .filter(|(_, ns)| within(*ns))
            .map(|(name, _)| name)
            .collect();
        let (from, to) = (span(octave.from_ns), span(to_ns));
        lines.push(Line::from(vec![
            Span::styled(format!("{from:>9} to {to:>9} "), palette.quiet),
            Span::styled(
                format!("{:<w$}", pen.bar(octave.count as f64, fullest as f64, room), w = room.into()),
                palette.good,
            ),
            Span::raw(format!(" {:>9} ", grouped(octave.count))),
            Span::styled(marks.join(" "), palette.accent),
        ]));
    }
    lines
}
