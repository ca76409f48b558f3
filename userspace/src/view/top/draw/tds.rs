//! TDs.

use ratatui::{layout::Rect, style::Style, text::Line};

use super::{
    pen::{Pen, below, top},
    table::Table,
};
use crate::view::top::{
    columns::TDS,
    scene::{Scene, TdRow},
    ui::{Ui, View},
};

/// Says in the last line of a table why figures are missing; the place above it.
pub fn unknown(pen: &mut Pen, place: Rect, scene: &Scene) -> Rect {
    let Some(why) = scene.about.no_calls.filter(|_| place.height >= 5) else { return place };
    let line = Line::styled(format!("\"-\": not known, {why}"), pen.look.palette.quiet);
    pen.put(below(place, place.height - 1), 0, &line);
    top(place, place.height - 1)
}

/// Draws the table.
pub fn draw(pen: &mut Pen, place: Rect, scene: &Scene, ui: &mut Ui) {
    let palette = pen.look.palette;
    let style = |td: &TdRow, key: &str| -> Style {
        match key {
            "violations" if td.violations > 0 => palette.bad,
            "state" if td.bugged_ns.is_some() => palette.bad,
            "failed" if td.failed_zaps > 0 => palette.warn,
            "held" => palette.warn,
            "confidence" if !td.suspect.is_certain() => palette.warn,
            "violations" | "failed" | "tdr" | "hkid" | "pid" | "age" | "cgroup" | "confidence" => {
                palette.quiet
            }
            _ => palette.text,
        }
    };
    let place = unknown(pen, place, scene);
    let table = Table {
        title: "TDs",
        columns: TDS,
        total: scene.tds.len(),
        get: &|at| scene.tds.get(at),
        style: &style,
        empty: "no TD was seen so far",
    };
    table.draw(pen, place, scene, ui.list(View::Tds));
}
