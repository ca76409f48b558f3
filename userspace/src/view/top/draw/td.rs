//! One TD.

use ratatui::{
    layout::Rect,
    style::Style,
    text::{Line, Span},
};
use septwatch_common::Life;

use super::{
    frame::time_of_day,
    pen::{Pen, below, beside, cell, grouped, shrunk, top},
    wrap::flow,
};
use crate::view::top::{
    columns::{age, bytes, name, rate},
    scene::{Block, Grid, Scene, States, TdDetail, TdRow},
};

/// Draws it.
pub fn draw(pen: &mut Pen, place: Rect, scene: &Scene, id: u64, scroll: &mut u16) {
    let palette = pen.look.palette;
    let Some(td) = scene.tds.iter().find(|td| u64::from(td.id) == id) else {
        let words = format!("TD {id} is not known at this moment");
        return pen.wrapped(place, &[Line::styled(words, palette.quiet)], &mut 0);
    };
    let title = format!("TD {id}  {}", name(td));
    let state = match td.bugged_ns {
        Some(_) => Line::styled("bugged", palette.bad),
        None => Line::styled(td.life.name(), palette.accent),
    };
    let place = pen.heading(place, &title, &state);
    let mut lines = flow(facts(pen, scene, td), place.width, 2, 0);
    let rows = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let mut place = place;
    // On a small screen they are scrolled with the rest.
    if rows <= place.height / 4 || scene.td.as_ref().is_none_or(|detail| u64::from(detail.id) != id) {
        let rows = rows.min(place.height);
        pen.lines(top(place, rows), &lines[..rows.into()], &mut 0);
        place = below(place, rows);
        lines.clear();
    }
    let Some(detail) = scene.td.as_ref().filter(|detail| u64::from(detail.id) == id) else {
        return pen.put(
            place,
            0,
            &Line::styled(format!("asking {}", pen.look.symbols.ellipsis), palette.quiet),
        );
    };
    if place.width >= 110 {
        let (left, right) = beside(place, place.width / 2, 3);
        lines.extend(memory(pen, detail, left.width));
        let room = left.height.saturating_sub(u16::try_from(lines.len()).unwrap_or(u16::MAX)).max(5);
        lines.extend(grid(pen, &detail.grid, shrunk(left).width, room));
        pen.lines(left, &lines, &mut scroll.clone());
        let mut lines = conversions(pen, scene, detail, right.width);
        lines.extend(teardown(pen, scene, td, detail, right.width));
        lines.extend(calls(pen, scene, detail, right.width));
        return pen.wrapped(right, &lines, scroll);
    }
    let room = (place.height / 3).clamp(4, 12);
    let width = shrunk(place).width;
    lines.extend(memory(pen, detail, width));
    lines.extend(grid(pen, &detail.grid, width, room));
    lines.extend(conversions(pen, scene, detail, width));
    lines.extend(teardown(pen, scene, td, detail, width));
    lines.extend(calls(pen, scene, detail, width));
    pen.wrapped(place, &lines, scroll);
}

/// A heading within the text.
fn section(pen: &Pen, title: &str, more: &str, width: u16) -> Line<'static> {
    let palette = pen.look.palette;
    let more = if more.is_empty() { String::new() } else { format!(" {more}") };
    let used = super::pen::cells(title).saturating_add(super::pen::cells(&more)).saturating_add(1);
    let rule = pen.look.symbols.rule.repeat(width.saturating_sub(used).into());
    Line::from(vec![
        Span::styled(format!("{title} "), palette.head),
        Span::styled(rule, palette.quiet),
        Span::styled(more, palette.quiet),
    ])
}

/// What it is.
fn facts(pen: &Pen, scene: &Scene, td: &TdRow) -> Vec<Vec<Span<'static>>> {
    let palette = pen.look.palette;
    let mut facts = Vec::new();
    let mut fact = |label: &str, value: String, style: Style| {
        facts.push(vec![Span::styled(format!("{label} "), palette.quiet), Span::styled(value, style)]);
    };
    fact("pid", format!("{} ({})", td.tgid, td.comm), palette.text);
    fact("TDR", format!("{:#x}", td.tdr), palette.text);
    fact("HKID", td.hkid.to_string(), palette.text);
    fact("age", age(scene.time.now_ns.saturating_sub(td.begun_ns)), palette.text);
    fact("lent", bytes(td.lent().saturating_mul(4096)), palette.text);
    let count = |count: u64, wrong: Style| if count > 0 { wrong } else { palette.text };
    fact("failed zaps", grouped(td.failed_zaps), count(td.failed_zaps, palette.warn));
    fact("violations", grouped(td.violations), count(td.violations, palette.bad));
    if let Some(held) = td.held {
        fact("held", bytes(held.saturating_mul(4096)), palette.warn);
    }
    if let Some(bugged_ns) = td.bugged_ns {
        fact("bugged", format!("{} ago", age(scene.time.now_ns.saturating_sub(bugged_ns))), palette.bad);
    }
    match td.suspect.is_certain() {
        true => fact("verdicts", "certain".to_owned(), palette.text),
        false => {
            let reasons = td.suspect.reasons().collect::<Vec<_>>().join(", ");
            fact("verdicts", format!("suspect: {reasons}"), palette.warn);
        }
    }
    if let Some(cgroup) = &td.cgroup {
        fact("cgroup", cgroup.to_string(), palette.text);
    }
    facts
}

/// A state of frames: name, sign, look, and how many of them are counted.
type StateOf = (&'static str, fn(&States) -> u64);

/// From the least to the worst.
const STATES: [StateOf; 5] = [
    ("owned", |states| states.owned),
    ("mapped", |states| states.mapped),
    ("removed", |states| states.removed),
    ("blocked", |states| states.blocked),
    ("violated", |states| states.violated),
];

fn sign(pen: &Pen, state: usize) -> Span<'static> {
    let (symbols, palette) = (pen.look.symbols, pen.look.palette);
    match state {
        0 => Span::styled(symbols.owned, palette.quiet),
        1 => Span::styled(symbols.mapped, palette.good),
        2 => Span::styled(symbols.removed, palette.quiet),
        3 => Span::styled(symbols.blocked, palette.warn),
        _ => Span::styled(symbols.violated, palette.bad),
    }
}

/// Memory by state, now and over time.
fn memory(pen: &Pen, detail: &TdDetail, width: u16) -> Vec<Line<'static>> {
    let palette = pen.look.palette;
    let states = &detail.states;
    let since = match (states.first(), states.last()) {
        (Some(first), Some(last)) => format!("last {}", age(last.time_ns.saturating_sub(first.time_ns))),
        _ => String::new(),
    };
    let mut lines = vec![section(pen, "Memory", &since, width)];
    // On a narrow screen the bars rather than the count.
    let counts = width >= 50;
    let room = width.saturating_sub(if counts { 36 } else { 23 });
    for (at, (name, of)) in STATES.iter().enumerate().rev() {
        let now = states.last().map_or(0, of);
        let values: Vec<f64> = states.iter().map(|states| of(states) as f64).collect();
        let sign = sign(pen, at);
        let style = sign.style;
        let bars = bars(pen, &values, room);
        lines.push(Line::from(vec![
            sign,
            Span::styled(format!(" {name:<9}"), palette.quiet),
            Span::styled(bars, style),
            Span::raw(format!(" {:>9}", bytes(now.saturating_mul(4096)))),
            Span::styled(
                if counts { format!(" {:>12}", grouped(now)) } else { String::new() },
                palette.quiet,
            ),
        ]));
    }
    lines
}

/// One row of bars in exactly so many cells, the newest on the right.
fn bars(pen: &Pen, values: &[f64], width: u16) -> String {
    let place = Rect { x: 0, y: 0, width, height: 1 };
    let mut buffer = ratatui::buffer::Buffer::empty(place);
    let mut own = Pen { buffer: &mut buffer, look: pen.look, targets: Vec::new() };
    own.chart(place, values, Style::new());
    buffer.content.iter().map(|cell| cell.symbol()).collect()
}

/// The worst state that any frame of these blocks is in, as an index into [`STATES`].
fn worst(blocks: &[Block]) -> Option<usize> {
    // A bit for each state: a large TD has many blocks.
    let seen = blocks.iter().fold(0u32, |seen, block| {
        let States { mapped, blocked, removed, owned, violated, .. } = block.states;
        let bits = [owned, mapped, removed, blocked, violated];
        (0..).zip(bits).fold(seen, |seen, (at, count)| seen | u32::from(count > 0) << at)
    });
    seen.checked_ilog2().and_then(|at| usize::try_from(at).ok())
}

/// The map of guest frames, in at most so many rows with its heading and legend.
fn grid(pen: &Pen, grid: &Grid, width: u16, rows: u16) -> Vec<Line<'static>> {
    let palette = pen.look.palette;
    let size = bytes(grid.each.max(1).saturating_mul(4096));
    let cells = usize::from(width) * usize::from(rows.saturating_sub(2).max(1));
    let each = grid.blocks.len().div_ceil(cells.max(1)).max(1);
    let what = if each == 1 { format!("a cell: {size}") } else { format!("a cell: {each} x {size}") };
    let mut lines = vec![section(pen, "Guest frames", &what, width)];
    if grid.blocks.is_empty() {
        let why = if grid.each == 0 { "being counted" } else { "none is lent" };
        lines.push(Line::styled(why, palette.quiet));
        return lines;
    }
    let mut spans = Vec::<Span>::new();
    let mut used = 0;
    for blocks in grid.blocks.chunks(each) {
        let sign = worst(blocks).map_or(Span::raw(" "), |at| sign(pen, at));
        match spans.last_mut() {
            Some(last) if last.style == sign.style => last.content.to_mut().push_str(&sign.content),
            _ => spans.push(sign),
        }
        used += 1;
        if used == width.max(1) {
            lines.push(Line::from(std::mem::take(&mut spans)));
            used = 0;
        }
    }
    if !spans.is_empty() {
        lines.push(Line::from(spans));
    }
    let mut legend = Vec::new();
    for (at, (name, _)) in STATES.iter().enumerate().rev() {
        legend.push(sign(pen, at));
        legend.push(Span::styled(format!(" {name}  "), palette.quiet));
    }
    lines.push(Line::from(legend));
    lines
}

fn conversions(pen: &Pen, scene: &Scene, detail: &TdDetail, width: u16) -> Vec<Line<'static>> {
    let palette = pen.look.palette;
    let mut lines = vec![section(pen, "Conversions", "in 4 KiB frames", width)];
    if let Some(why) = scene.about.no_calls {
        lines.push(Line::styled(format!("-, {why}"), palette.quiet));
        return lines;
    }
    for (name, frames) in [
        ("added before it ran", detail.added),
        ("became private", detail.to_private),
        ("taken back", detail.to_shared),
    ] {
        lines.push(Line::from(vec![
            Span::styled(format!("{name:<24}"), palette.quiet),
            Span::raw(format!("{:>9}", bytes(frames.saturating_mul(4096)))),
            Span::styled(format!(" {:>12}", grouped(frames)), palette.quiet),
        ]));
    }
    lines
}

/// How far its life and its end have come.
fn teardown(pen: &Pen, scene: &Scene, td: &TdRow, detail: &TdDetail, width: u16) -> Vec<Line<'static>> {
    let (palette, symbols) = (pen.look.palette, pen.look.symbols);
    let mut lines = vec![section(pen, "Life", "", width)];
    let stages = [Life::Created, Life::Initialized, Life::Finalized, Life::KeyFreed, Life::Gone];
    let mut spans = Vec::new();
    for stage in stages {
        let reached = td.life as u8 >= stage as u8;
        let (mark, style) =
            if reached { (symbols.good, palette.good) } else { (symbols.ground, palette.quiet) };
        spans.push(Span::styled(format!("{mark} {} ", stage.name()), style));
    }
    lines.push(Line::from(spans));
    for (what, at) in [
        ("last vCPU out", detail.vcpus_out_ns),
        ("HKID freed", detail.key_freed_ns),
        ("VM destroyed", detail.destroyed_ns),
    ] {
        if let Some(at_ns) = at {
            let ago = age(scene.time.now_ns.saturating_sub(at_ns));
            let text = format!("{} UTC, {ago} ago", time_of_day(scene, at_ns));
            lines.push(Line::from(vec![Span::styled(format!("{what:<14}"), palette.quiet), Span::raw(text)]));
        }
    }
    let whole = |states: &States| {
        [states.mapped, states.blocked, states.removed, states.owned]
            .iter()
            .fold(0u64, |sum, n| sum.saturating_add(*n))
    };
    let most = match detail.lent_at_key_free {
        0 => detail.states.iter().map(whole).max().unwrap_or(0),
        lent => lent,
    };
    let most = most.max(td.lent());
    let back = most.saturating_sub(td.lent());
    let ends = detail.key_freed_ns.is_some()
        || detail.destroyed_ns.is_some()
        || td.life as u8 >= Life::KeyFreed as u8;
    if ends && most > 0 {
        let room = width.saturating_sub(46).min(40);
        let bar = pen.bar(back as f64, most as f64, room);
        lines.push(Line::from(vec![
            Span::styled("given back    ", palette.quiet),
            Span::styled(cell(&bar, room, false, "").into_owned(), palette.good),
            Span::raw(format!(" {:.1} %", back as f64 / most as f64 * 100.0)),
            Span::styled(format!("  {} frames left", grouped(td.lent())), palette.quiet),
        ]));
    }
    lines
}

fn calls(pen: &Pen, scene: &Scene, detail: &TdDetail, width: u16) -> Vec<Line<'static>> {
    let palette = pen.look.palette;
    let mut lines = vec![section(pen, "SEAMCALLs", "", width)];
    if detail.leaves.is_empty() {
        let why = scene.about.no_calls.unwrap_or("none was seen");
        lines.push(Line::styled(format!("-, {why}"), palette.quiet));
    }
    for leaf in &detail.leaves {
        let mut spans = vec![
            Span::raw(format!("{:<23}", leaf.leaf.name())),
            Span::raw(format!(" {:>11}", grouped(leaf.calls()))),
            Span::styled(format!(" {:>6}/s", rate(leaf.rate)), palette.quiet),
        ];
        if leaf.busy > 0 {
            spans.push(Span::styled(format!("  {} BUSY", grouped(leaf.busy)), palette.warn));
        }
        if leaf.errors > 0 && leaf.statuses.is_empty() {
            spans.push(Span::styled(format!("  {} errors", grouped(leaf.errors)), palette.bad));
        }
        lines.push(Line::from(spans));
        let others = leaf.statuses.iter().filter(|(status, _)| !status.is_busy());
        lines.extend(
            others.map(|(status, count)| {
                Line::styled(format!("    {} x {status}", grouped(*count)), palette.bad)
            }),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_state_wins() {
        let block = |states| Block { gfn: 0, states };
        let none = States::default();
        let of = |states: &[States]| worst(&states.iter().copied().map(block).collect::<Vec<_>>());
        assert_eq!(of(&[none]), None);
        let one = |at: usize| match at {
            0 => States { owned: 1, ..none },
            1 => States { mapped: 1, ..none },
            2 => States { removed: 1, ..none },
            3 => States { blocked: 1, ..none },
            _ => States { violated: 1, ..none },
        };
        for (at, (name, count)) in STATES.iter().enumerate() {
            assert_eq!(count(&one(at)), 1, "{name}");
            for less in 0..=at {
                assert_eq!(of(&[one(less), none, one(at)]), Some(at), "{name}");
            }
        }
    }
}
