//! The last line: a prompt, a word to the person, or hints.

use ratatui::{
    layout::{Position, Rect},
    text::{Line, Span},
};

use super::{
    HelpLine,
    pen::{Pen, cells, width},
};
use crate::view::top::ui::{Input, Purpose, Ui};

/// Longest text of a hint, in cells: what says more is in the help.
const HINT: u16 = 20;

/// Draws it; where the cursor stands.
pub fn draw(pen: &mut Pen, place: Rect, ui: &Ui, keys: &[HelpLine]) -> Option<Position> {
    if place.is_empty() {
        return None;
    }
    match (&ui.input, &ui.told) {
        (Some(input), _) => return input_line(pen, place, input),
        (None, Some((told, _))) => {
            pen.put(place, 0, &Line::styled(format!(" {told}"), pen.look.palette.accent))
        }
        (None, None) => hints(pen, place, ui, keys),
    }
    None
}

fn input_line(pen: &mut Pen, place: Rect, input: &Input) -> Option<Position> {
    let palette = pen.look.palette;
    let label = match &input.purpose {
        Purpose::Filter => "filter".to_owned(),
        Purpose::Search => "search".to_owned(),
        Purpose::Arm(name) => format!("type {name} to arm the policy"),
        Purpose::Disarm => "type disarm to disarm the policy".to_owned(),
        Purpose::Go => "go to (90s: after the begin)".to_owned(),
    };
    let label = format!(" {label}: ");
    let before = input.text.get(..input.cursor).unwrap_or(&input.text);
    let after = input.text.get(before.len()..).unwrap_or_default();
    let room = place.width.saturating_sub(cells(&label)).saturating_sub(1);
    // What is in front of the cursor stays in sight.
    let mut tail = before;
    while cells(tail) > room {
        let mut chars = tail.chars();
        chars.next();
        tail = chars.as_str();
    }
    let mut line = Line::from(vec![
        Span::styled(label, palette.accent),
        Span::raw(tail.to_owned()),
        Span::raw(after.to_owned()),
    ]);
    let cursor = line.spans.iter().take(2).fold(0, |sum: u16, span| sum.saturating_add(cells(&span.content)));
    if let Some(error) = &input.error {
        line.spans.push(Span::styled(format!("  {} {error}", pen.look.symbols.warn), palette.bad));
    }
    pen.put(place, 0, &line);
    Some(Position { x: place.x + cursor.min(place.width - 1), y: place.y })
}

/// Keys that are of use here: those of the view, then others, as many as fit; always where the help is.
fn hints(pen: &mut Pen, place: Rect, ui: &Ui, keys: &[HelpLine]) {
    let palette = pen.look.palette;
    let hint = |line: &HelpLine| {
        vec![
            Span::raw(" "),
            Span::styled(line.keys.clone(), palette.accent),
            Span::styled(format!(" {} ", line.does), palette.quiet),
        ]
    };
    let is_help = |line: &&HelpLine| line.keys.split([' ', ',']).any(|key| key == "?");
    let help = keys.iter().find(is_help).map(|line| Line::from(hint(line))).unwrap_or_default();
    let mut room = place.width.saturating_sub(width(&help));
    let is_short = |line: &&HelpLine| cells(&line.does) <= HINT;
    let own = keys.iter().filter(|line| line.group == ui.view.title());
    let others = keys.iter().filter(|line| line.group != ui.view.title());
    let mut spans = Vec::new();
    for line in own.chain(others).filter(is_short).filter(|line| !is_help(line)) {
        let hint = hint(line);
        let wide = hint.iter().fold(0, |sum: u16, span| sum.saturating_add(cells(&span.content)));
        if wide <= room {
            room -= wide;
            spans.extend(hint);
        }
    }
    pen.put(place, 0, &Line::from(spans));
    pen.put_right(place, 0, &help);
}
