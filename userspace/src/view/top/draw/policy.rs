//! What is hooked, what is lost, and the policy.

use ratatui::{
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{
    pen::{Pen, below, beside, grouped, top},
    table::Table,
};
use crate::view::top::{
    columns::HOOKS,
    scene::{HookRow, Policy, Scene, Source},
    ui::{Ui, View},
};

/// Lines of the audit trail that can be scrolled through: all of it is in its folder.
const AUDIT: usize = 200;

/// Draws the plan beside or above the policy.
pub fn draw(pen: &mut Pen, place: Rect, scene: &Scene, ui: &mut Ui) {
    let palette = pen.look.palette;
    let policy = policy(pen, scene);
    let place = not_found(pen, place, scene);
    let missing = scene.hooks.iter().filter(|row| row.bound.is_none()).count();
    let title = match missing {
        0 => "Hooks: none is missing".to_owned(),
        missing => format!("Hooks: {missing} of {} missing", scene.hooks.len()),
    };
    let style = |row: &HookRow, key: &str| -> Style {
        match (key, row.bound.is_some(), row.required) {
            ("binding" | "state", true, _) => palette.quiet,
            (_, true, _) => palette.text,
            (_, false, true) => palette.bad,
            (_, false, false) => palette.warn,
        }
    };
    let table = Table {
        title: &title,
        columns: HOOKS,
        total: scene.hooks.len(),
        get: &|at| scene.hooks.get(at),
        style: &style,
        empty: "nothing is hooked: events come from elsewhere",
    };
    let (hooks, rest) = if place.width >= 180 {
        beside(place, place.width * 58 / 100, 3)
    } else {
        let rows = ui.list(View::Policy).rows.len().max(1);
        let rows = u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(3);
        let wants = u16::try_from(policy.len()).unwrap_or(u16::MAX).saturating_add(1);
        let tall = rows.min(place.height.saturating_sub(wants).max(place.height / 2));
        (top(place, tall), below(place, tall))
    };
    let list = ui.list(View::Policy);
    // What is lost with the hook that is chosen: a line below the table where its column has no room.
    let about = list.rows.get(list.chosen).and_then(|at| scene.hooks.get(*at));
    let says = u16::from(hooks.height >= 8 && about.is_some());
    table.draw(pen, top(hooks, hooks.height - says), scene, ui.list(View::Policy));
    let list = ui.list(View::Policy);
    let about = list.rows.get(list.chosen).and_then(|at| scene.hooks.get(*at));
    if let Some(row) = about.filter(|_| says > 0) {
        let line = below(hooks, hooks.height - 1);
        pen.put(line, 0, &Line::styled(what_it_is_for(row), palette.quiet));
    }
    let rest = pen.heading(rest, "Policy", &Line::default());
    pen.wrapped(rest, &policy, &mut ui.scroll);
}

/// Violations that are not found on this host, in the first line; the place below it.
fn not_found(pen: &mut Pen, place: Rect, scene: &Scene) -> Rect {
    let mut lost = Vec::new();
    for name in scene.hooks.iter().filter(|row| row.bound.is_none()).flat_map(|row| &row.lost) {
        if !lost.contains(name) {
            lost.push(name);
        }
    }
    if lost.is_empty() || place.height < 6 {
        return place;
    }
    let text = format!("{} not found on this host: {}", pen.look.symbols.warn, lost.join(", "));
    pen.put(place, 0, &Line::styled(text, pen.look.palette.warn));
    below(place, 1)
}

/// The hook that is chosen, in a line.
fn what_it_is_for(row: &HookRow) -> String {
    let mut text = format!("{}: {}", row.name, row.purpose);
    if !row.lost.is_empty() {
        let lost = row.lost.join(", ");
        text += &match row.bound {
            Some(_) => format!("; without it no {lost}"),
            None => format!("; not found: {lost}"),
        };
    }
    text
}

/// The policy in lines.
fn policy(pen: &Pen, scene: &Scene) -> Vec<Line<'static>> {
    let (palette, symbols) = (pen.look.palette, pen.look.symbols);
    let Some(policy) = &scene.policy else {
        let words = match scene.about.source {
            Source::Live => {
                "No policy is followed: `septwatch top --policy NAME` follows one, as a dry run at first."
            }
            Source::Demo(_) => {
                "The demo has no policy here: `septwatch demo --policy NAME` shows one at work."
            }
            Source::Recording(_) => {
                "A recording has no policy: `septwatch policy test NAME FILE` says what one would have done."
            }
        };
        return vec![Line::styled(words, palette.quiet)];
    };
    let mut lines = vec![first(policy, pen)];
    for gap in &policy.gaps {
        lines.push(Line::from(vec![
            Span::styled(format!("{} cannot be done here: ", symbols.warn), palette.warn),
            Span::raw(gap.clone()),
        ]));
    }
    for (name, ladder) in &policy.rules {
        lines.push(Line::from(vec![
            Span::styled("rule ", palette.quiet),
            Span::styled(name.clone(), palette.head),
            Span::raw(format!("  {ladder}")),
        ]));
    }
    let section = |title: &'static str| Line::styled(title, palette.head);
    for (title, of) in [("Holds", &policy.holds), ("How long reactions took", &policy.latencies)] {
        if !of.is_empty() {
            lines.push(section(title));
            lines.extend(of.iter().map(|text| Line::raw(format!("  {text}"))));
        }
    }
    lines.push(Line::from(vec![
        Span::styled("Audit trail", palette.head),
        Span::styled(format!("  {}", policy.folder), palette.quiet),
    ]));
    if policy.audit.is_empty() {
        lines.push(Line::styled("  nothing so far", palette.quiet));
    }
    // The newest first: it is what one looks for.
    lines.extend(policy.audit.iter().rev().take(AUDIT).map(|text| Line::raw(format!("  {text}"))));
    lines
}

/// Name, whether it may act, and what is left of its limits.
fn first(policy: &Policy, pen: &Pen) -> Line<'static> {
    let palette = pen.look.palette;
    let mut spans = vec![Span::styled(policy.name.clone(), palette.head), Span::raw("  ")];
    spans.push(match (policy.armed, policy.may_be_armed) {
        (true, _) => Span::styled(format!("{} ARMED", pen.look.symbols.bad), palette.bad),
        (false, true) => Span::styled("dry run: it is not armed", palette.good),
        (false, false) => Span::styled("dry run: it does not say armed = true", palette.good),
    });
    let left = match policy.limit_left {
        Some(0) => "  its limit is reached".to_owned(),
        Some(left) => format!("  {} reactions left", grouped(left)),
        None => "  no limit".to_owned(),
    };
    let style = if policy.limit_left == Some(0) { palette.warn } else { palette.quiet };
    spans.push(Span::styled(left, style));
    let rules = policy.kernel_rules;
    if rules > 0 {
        let s = if rules == 1 { "" } else { "s" };
        spans.push(Span::styled(format!("  {rules} rule{s} in the kernel"), palette.quiet));
    }
    Line::from(spans)
}
