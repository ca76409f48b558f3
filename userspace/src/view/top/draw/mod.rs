//! The screen: what of a [`Scene`] is drawn, and where. Nothing here knows keys, files or the kernel, and only what is
//! seen is drawn: 10,000 rows cost no more than those that fit.

mod frame;
pub mod help;
mod log;
mod overview;
mod panels;
mod pen;
mod policy;
mod prompt;
mod seamcalls;
mod table;
mod td;
mod tds;
mod timeline;
pub mod violation;
mod violations;
mod wrap;

#[cfg(test)]
mod tests;

use std::mem;

use ratatui::{Frame, layout::Rect};

pub use help::HelpLine;
use pen::Pen;

use crate::view::top::{
    palette::Palette,
    scene::Scene,
    symbols::Symbols,
    ui::{Ui, View},
};

/// Colours and signs.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Colours.
    pub palette: Palette,
    /// Signs.
    pub symbols: Symbols,
}

/// Draws the screen. Notes in `ui` what can be clicked, and keeps what is chosen and what has been scrolled within bounds.
/// `keys` are shown as the help, and as hints in the last line.
pub fn draw(frame: &mut Frame, scene: &Scene, ui: &mut Ui, look: &Look, keys: &[HelpLine]) {
    let area = frame.area();
    let mut targets = mem::take(&mut ui.targets);
    targets.clear();
    let mut pen = Pen { buffer: frame.buffer_mut(), look, targets };
    let parts = frame::parts(area, scene);
    frame::head(&mut pen, parts.head, scene, ui);
    body(&mut pen, parts.body, scene, ui, keys);
    if parts.time.height > 0 {
        timeline::draw(&mut pen, parts.time, scene);
    }
    let cursor = prompt::draw(&mut pen, parts.foot, ui, keys);
    ui.targets = pen.targets;
    if let Some(cursor) = cursor {
        frame.set_cursor_position(cursor);
    }
}

fn body(pen: &mut Pen, place: Rect, scene: &Scene, ui: &mut Ui, keys: &[HelpLine]) {
    if place.is_empty() {
        return;
    }
    if ui.help {
        return help::draw(pen, place, &mut ui.scroll, keys);
    }
    match (ui.view, ui.open) {
        (View::Overview, _) => overview::draw(pen, place, scene),
        (View::Tds, None) => tds::draw(pen, place, scene, ui),
        (View::Tds, Some(id)) => td::draw(pen, place, scene, id, &mut ui.scroll),
        (View::Violations, None) => violations::draw(pen, place, scene, ui),
        (View::Violations, Some(number)) => violations::open(pen, place, scene, number, &mut ui.scroll),
        (View::Seamcalls, _) => seamcalls::draw(pen, place, scene, ui),
        (View::Policy, _) => policy::draw(pen, place, scene, ui),
        (View::Log, _) => log::draw(pen, place, scene, ui),
    }
}
