//! The bar of time: where in it the screen is, and where violations are.

use ratatui::{
    layout::Rect,
    text::{Line, Span},
};

use super::{
    frame::time_of_day,
    pen::{Pen, beside, width},
};
use crate::view::top::{columns::age, scene::Scene, ui::Target};

/// Draws it.
pub fn draw(pen: &mut Pen, place: Rect, scene: &Scene) {
    let (palette, symbols) = (pen.look.palette, pen.look.symbols);
    let time = &scene.time;
    let whole = time.end_ns.saturating_sub(time.begin_ns);
    let at = time.now_ns.clamp(time.begin_ns, time.end_ns.max(time.begin_ns)) - time.begin_ns;
    let moves = match time.playing {
        Some(speed) => Span::styled(format!(" {} {}x ", symbols.playing, figure(speed)), palette.good),
        None => Span::styled(format!(" {} ", symbols.paused), palette.quiet),
    };
    let begin =
        Line::from(vec![moves, Span::styled(time_of_day(scene, time.now_ns), palette.text), " ".into()]);
    let end = Line::styled(format!(" {} of {} ", age(at), age(whole)), palette.quiet);
    let sides = width(&begin).saturating_add(width(&end));
    let (begin, end) =
        if place.width >= sides.saturating_add(20) { (begin, end) } else { (Line::raw(" "), Line::raw(" ")) };
    pen.put(place, 0, &begin);
    pen.put_right(place, 0, &end);
    let (_, rest) = beside(place, width(&begin), 0);
    let bar = Rect { width: rest.width.saturating_sub(width(&end)), height: rest.height.min(1), ..rest };
    let cells = u64::from(bar.width);
    if cells == 0 {
        return;
    }
    let here = cell_of(at, whole, cells);
    let mut seen = 0;
    let mut spans = Vec::new();
    for cell in 0..cells {
        let (from, to) = (moment_of(cell, whole, cells), moment_of(cell + 1, whole, cells));
        let last = cell + 1 == cells;
        let found = found(
            scene,
            &mut seen,
            time.begin_ns.saturating_add(from),
            time.begin_ns.saturating_add(to),
            last,
        );
        spans.push(match (cell == here, found) {
            (true, false) => Span::styled(symbols.here, palette.accent),
            (true, true) => Span::styled(symbols.here, palette.bad),
            (false, true) => Span::styled(symbols.bad, palette.bad),
            (false, false) => Span::styled(symbols.rule, palette.quiet),
        });
    }
    pen.put(bar, 0, &Line::from(spans));
    pen.targets.push((bar, Target::Timeline));
}

/// Whether there is a violation in this part of time: among those that are kept, or in the history, which goes back
/// further and, in a recording, on. `seen` is how much of the history lies before.
fn found(scene: &Scene, seen: &mut usize, from_ns: u64, to_ns: u64, last: bool) -> bool {
    let is_before = |time_ns: u64| time_ns < to_ns || (last && time_ns <= to_ns);
    let at = scene.violations.partition_point(|found| found.verdict.time_ns < from_ns);
    let kept = scene.violations.get(at).is_some_and(|found| is_before(found.verdict.time_ns));
    let mut counted = false;
    while let Some(sample) = scene.history.get(*seen).filter(|sample| is_before(sample.time_ns)) {
        counted |= sample.violations > 0 && sample.time_ns >= from_ns;
        *seen += 1;
    }
    kept || counted
}

/// In which of so many cells a moment lies.
fn cell_of(at: u64, whole: u64, cells: u64) -> u64 {
    let cell = u128::from(at) * u128::from(cells) / u128::from(whole.max(1));
    u64::try_from(cell).unwrap_or(u64::MAX).min(cells - 1)
}

/// Where a cell begins.
fn moment_of(cell: u64, whole: u64, cells: u64) -> u64 {
    let moment = (u128::from(cell) * u128::from(whole)).div_ceil(u128::from(cells));
    u64::try_from(moment).unwrap_or(u64::MAX)
}

/// A speed without needless digits.
fn figure(speed: f64) -> String {
    if speed.fract() == 0.0 && speed.abs() < 1e6 { format!("{speed:.0}") } else { format!("{speed:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_moment_has_one_cell() {
        for (whole, cells) in [(0, 1), (1, 7), (1_000, 60), (u64::MAX, 300)] {
            for cell in 0..cells {
                let begin = moment_of(cell, whole, cells);
                assert!(begin <= whole);
                if whole >= cells {
                    assert_eq!(cell_of(begin, whole, cells), cell, "{whole} {cells}");
                }
            }
            assert_eq!(cell_of(whole, whole, cells), if whole == 0 { 0 } else { cells - 1 });
        }
    }
}
