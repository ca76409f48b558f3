//! What happened.

use ratatui::{layout::Rect, style::Style};

use super::{pen::Pen, table::Table};
use crate::view::top::{
    columns::LOG,
    scene::{LogLine, Scene, Weight},
    ui::{Ui, View},
};

/// Draws it, the newest last.
pub fn draw(pen: &mut Pen, place: Rect, scene: &Scene, ui: &mut Ui) {
    let palette = pen.look.palette;
    let style = |line: &LogLine, key: &str| -> Style {
        match (key, line.weight) {
            ("age" | "td", _) | (_, Weight::Plain) => palette.quiet,
            (_, Weight::Note) => palette.text,
            (_, Weight::Reaction) => palette.warn,
            (_, Weight::Violation) => palette.bad,
        }
    };
    let table = Table {
        title: "Log",
        columns: LOG,
        total: scene.log.len(),
        get: &|at| scene.log.get(at).map(|line| &**line),
        style: &style,
        empty: "nothing happened so far",
    };
    table.draw(pen, place, scene, ui.list(View::Log));
}
