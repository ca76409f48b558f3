//! Violations: the table, and the one that is chosen.

use ratatui::{layout::Rect, style::Style, text::Line};

use super::{
    pen::{Pen, below, beside, shrunk, top},
    table::Table,
    violation,
};
use crate::view::top::{
    columns::VIOLATIONS,
    scene::{Found, Scene},
    ui::{Ui, View},
};

/// From this width on the chosen one is shown beside or below the table.
const WIDE: u16 = 116;

/// Draws the table.
pub fn draw(pen: &mut Pen, place: Rect, scene: &Scene, ui: &mut Ui) {
    let palette = pen.look.palette;
    let style = |found: &Found, key: &str| -> Style {
        let certain = found.verdict.suspect.is_certain();
        match key {
            "violation" if certain => palette.bad,
            "violation" | "confidence" if !certain => palette.warn,
            "age" | "number" | "hook" | "pid" | "cause" => palette.quiet,
            _ => palette.text,
        }
    };
    let list = ui.list(View::Violations);
    let is_wide = place.width >= WIDE && place.height >= 8 && !list.rows.is_empty();
    // Beside it where the table keeps its first columns, else below.
    let (left, right) = match place {
        Rect { width: WIDE..150, height: 30.., .. } if is_wide => {
            let rows = u16::try_from(list.rows.len()).unwrap_or(u16::MAX).saturating_add(3);
            let tall = rows.min(place.height * 2 / 5);
            (top(place, tall), below(place, tall))
        }
        _ if is_wide => beside(place, place.width * 55 / 100, 3),
        _ => (place, Rect { height: 0, ..place }),
    };
    let table = Table {
        title: "Violations",
        columns: VIOLATIONS,
        total: scene.violations.len(),
        get: &|at| scene.violations.get(at).map(|found| &**found),
        style: &style,
        empty: "no violation was found so far",
    };
    table.draw(pen, left, scene, list);
    let chosen = list.rows.get(list.chosen).and_then(|at| scene.violations.get(*at));
    if let Some(found) = chosen.filter(|_| right.height > 0) {
        detail(pen, right, scene, found, &mut ui.scroll);
    }
}

/// Draws one, over the whole place.
pub fn open(pen: &mut Pen, place: Rect, scene: &Scene, number: u64, scroll: &mut u16) {
    // They are in the order of their numbers.
    let at = scene.violations.binary_search_by_key(&number, |found| found.number);
    match at.ok().and_then(|at| scene.violations.get(at)) {
        Some(found) => detail(pen, place, scene, found, scroll),
        None => {
            let words = format!("violation {number} is not kept any more, or was not found at this moment");
            pen.wrapped(place, &[Line::styled(words, pen.look.palette.quiet)], &mut 0);
        }
    }
}

fn detail(pen: &mut Pen, place: Rect, scene: &Scene, found: &Found, scroll: &mut u16) {
    let title = format!("Violation {}", found.number);
    let place = if place.height >= 5 { pen.heading(place, &title, &Line::default()) } else { place };
    let lines = violation::styled(&violation::lines(found, scene), pen.look, shrunk(place).width);
    pen.lines(place, &lines, scroll);
}
