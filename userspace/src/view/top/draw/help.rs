//! The help: every key and what it does, as the key map has it.

use ratatui::{
    layout::Rect,
    text::{Line, Span},
};

use super::{
    pen::{Pen, beside, cells},
    wrap::wrap_all,
};

/// A line of the help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelpLine {
    /// The keys.
    pub keys: String,
    /// What they do.
    pub does: String,
    /// What it belongs to: lines of a group stand together. The title of a view: keys of that view.
    pub group: &'static str,
}

/// Narrowest column, in cells.
const COLUMN: u16 = 36;
/// Between two columns.
const GAP: u16 = 3;

/// Draws it, in as many columns as fit.
pub fn draw(pen: &mut Pen, place: Rect, scroll: &mut u16, keys: &[HelpLine]) {
    let rest = pen.heading(place, "Help", &Line::default());
    let mut groups = Vec::<(&str, Vec<&HelpLine>)>::new();
    for line in keys {
        match groups.iter_mut().find(|(group, _)| *group == line.group) {
            Some((_, lines)) => lines.push(line),
            None => groups.push((line.group, vec![line])),
        }
    }
    let columns = ((rest.width + GAP) / (COLUMN + GAP)).clamp(1, 4);
    let wide = (rest.width.saturating_sub(GAP * (columns - 1)) / columns).max(1);
    let blocks: Vec<_> = groups.iter().map(|(group, lines)| block(pen, group, lines, wide)).collect();
    let stacks = stacked(blocks, columns.into());
    let tallest = stacks.iter().map(Vec::len).max().unwrap_or(0);
    let last = tallest.saturating_sub(rest.height.into());
    *scroll = (*scroll).min(u16::try_from(last).unwrap_or(u16::MAX));
    for (at, stack) in (0..columns).zip(&stacks) {
        let (_, place) = beside(rest, at * (wide + GAP), 0);
        let place = Rect { width: place.width.min(wide), ..place };
        for (row, line) in (0..place.height).zip(stack.iter().skip((*scroll).into())) {
            pen.put(place, row, line);
        }
    }
    pen.scroll_bar(rest, tallest, (*scroll).into());
}

/// A group under its name.
fn block(pen: &Pen, group: &str, lines: &[&HelpLine], width: u16) -> Vec<Line<'static>> {
    let palette = pen.look.palette;
    let room = lines.iter().map(|line| cells(&line.keys)).max().unwrap_or(0).min(width / 2);
    let mut block = vec![Line::styled(group.to_owned(), palette.head)];
    for line in lines {
        let indent = usize::from(room) + 2;
        let does = [Line::raw(line.does.clone())];
        let does = wrap_all(&does, width.saturating_sub(room + 3).max(1));
        for (at, text) in does.into_iter().enumerate() {
            let fill = usize::from(room.saturating_sub(cells(&line.keys)));
            let mut spans = match at {
                0 => vec![
                    Span::raw(" ".repeat(fill)),
                    Span::styled(line.keys.clone(), palette.accent),
                    Span::raw("  "),
                ],
                _ => vec![Span::raw(" ".repeat(indent))],
            };
            let text = text.spans.into_iter().map(|span| Span::raw(span.content.trim_start().to_owned()));
            spans.extend(text);
            block.push(Line::from(spans));
        }
    }
    block.push(Line::default());
    block
}

/// Blocks in so many stacks, in their order, none higher than it must be.
fn stacked(blocks: Vec<Vec<Line<'static>>>, columns: usize) -> Vec<Vec<Line<'static>>> {
    let needs = |height: usize| {
        let (mut used, mut stacks) = (0, 1);
        for block in &blocks {
            if used > 0 && used + block.len() > height {
                (used, stacks) = (0, stacks + 1);
            }
            used += block.len();
        }
        stacks
    };
    let total: usize = blocks.iter().map(Vec::len).sum();
    let height = (1..=total).find(|height| needs(*height) <= columns).unwrap_or(total);
    let mut stacks = vec![Vec::new()];
    for block in blocks {
        match stacks.last_mut() {
            Some(last) if last.is_empty() || last.len() + block.len() <= height => last.extend(block),
            _ => stacks.push(block),
        }
    }
    stacks
}
