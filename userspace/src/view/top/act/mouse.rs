//! The mouse.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect};

use super::{Effect, act, open, shut, sort_by, switch, travel};
use crate::view::top::{
    keys::Action,
    rows,
    scene::Scene,
    ui::{Target, Ui},
};

/// Rows that a turn of the wheel is.
const WHEEL: isize = 3;

/// Something was done with the mouse: a click on a tab opens it, on a row chooses it and then opens it, on a head sorts by
/// it, on the bar of time goes there; the wheel goes along. While a line is typed, it does nothing.
pub fn mouse(ui: &mut Ui, scene: &Scene, event: MouseEvent) -> Effect {
    if ui.input.is_some() {
        return Effect::None;
    }
    let at = Position::new(event.column, event.row);
    match event.kind {
        MouseEventKind::ScrollUp => wheel(ui, scene, -WHEEL),
        MouseEventKind::ScrollDown => wheel(ui, scene, WHEEL),
        MouseEventKind::Down(MouseButton::Left) => click(ui, scene, at),
        MouseEventKind::Drag(MouseButton::Left) => {
            if let Some((area, Target::Timeline)) = target(ui, at) {
                seek(ui, scene, area, at);
            }
        }
        _ => {}
    }
    Effect::None
}

/// What is drawn there: what was drawn last is on top.
fn target(ui: &Ui, at: Position) -> Option<(Rect, Target)> {
    ui.targets.iter().rev().find(|(area, _)| area.contains(at)).cloned()
}

fn wheel(ui: &mut Ui, scene: &Scene, by: isize) {
    if ui.help || ui.open.is_some() || !ui.view.has_table() {
        let action = if by < 0 { Action::Up } else { Action::Down };
        for _ in 0..by.unsigned_abs() {
            act(ui, scene, action);
        }
    } else {
        rows::go(ui, scene, by);
    }
}

fn click(ui: &mut Ui, scene: &Scene, at: Position) {
    ui.told = None;
    match target(ui, at) {
        Some((_, Target::Tab(view))) => switch(ui, view),
        _ if ui.help => {
            act(ui, scene, Action::Close);
        }
        Some((_, Target::Row(row))) if ui.view.has_table() => {
            let view = ui.view;
            let again = ui.list(view).chosen == row;
            let beside = ui.open.is_some();
            if beside && !again {
                shut(ui);
            }
            rows::choose(ui, scene, row);
            if beside != again {
                open(ui, scene);
            }
        }
        Some((_, Target::Head(key))) => sort_by(ui, scene, &key),
        Some((area, Target::Timeline)) => seek(ui, scene, area, at),
        Some((_, Target::Row(_))) | None => {}
    }
}

/// To the moment that a cell of the bar of time stands for: its ends are the first and the latest.
fn seek(ui: &mut Ui, scene: &Scene, area: Rect, at: Position) {
    let time = &scene.time;
    let length = u128::from(time.end_ns.saturating_sub(time.begin_ns));
    let along = u128::from(at.x.saturating_sub(area.x));
    let cells = u128::from(area.width.saturating_sub(1)).max(1);
    let after = u64::try_from(length * along.min(cells) / cells).unwrap_or(u64::MAX);
    travel::go(ui, scene, time.begin_ns.saturating_add(after));
}
