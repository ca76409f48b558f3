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
    let mut place = place;
    if let Some(why) = scene.about.no_calls.filter(|_| place.height >= 5) {
        let last = below(place, place.height - 1);
        pen.put(last, 0, &Line::styled(format!("\"-\": not known, {why}"), palette.quiet));
        place = top(place, place.height - 1);
    }
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
