//! Tables: heads that can be clicked, columns that go where there is no room for them, and of the rows those that are
//! seen.

use ratatui::{
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::pen::{Pen, below, cell, cells, grouped, shrunk, top};
use crate::view::top::{
    columns::{Column, Value},
    scene::Scene,
    ui::{List, Target},
};

/// A table whose rows are `R`.
pub struct Table<'a, R: 'static> {
    /// What is above it.
    pub title: &'a str,
    /// Its columns.
    pub columns: &'static [Column<R>],
    /// How many rows there are without a filter.
    pub total: usize,
    /// A row, by its index.
    pub get: &'a dyn Fn(usize) -> Option<&'a R>,
    /// How the cell of a column looks, by the column's key.
    pub style: &'a dyn Fn(&R, &str) -> Style,
    /// What is said where there is nothing.
    pub empty: &'a str,
}

/// Width that a text keeps at least in favour of columns of rank 2.
const LONG: u16 = 34;

/// A column on the screen.
struct Shown {
    /// Which.
    at: usize,
    width: u16,
    right: bool,
}

impl<R> Table<'_, R> {
    /// Draws it, and keeps the list within bounds.
    pub fn draw(&self, pen: &mut Pen, place: Rect, scene: &Scene, list: &mut List) {
        let rows = list.rows.len();
        list.chosen = list.chosen.min(rows.saturating_sub(1));
        let more = self.more(pen, list);
        let place = if place.height >= 5 { pen.heading(place, self.title, &more) } else { place };
        let body = below(place, 1);
        let height = usize::from(body.height);
        list.top = list.top.min(list.chosen).min(rows.saturating_sub(height));
        list.top = list.top.max((list.chosen + 1).saturating_sub(height));
        let wide = if rows > height { shrunk(place).width } else { place.width };
        let seen = list.rows.iter().skip(list.top).take(height);
        let cells: Vec<_> = seen.filter_map(|at| (self.get)(*at)).collect();
        let columns = self.layout(wide, &list.hidden, &cells, scene);
        self.heads(pen, top(place, 1), &columns, list);
        if rows == 0 {
            let words = if self.total == 0 { self.empty } else { "no row matches the filter" };
            return pen.wrapped(body, &[Line::styled(words.to_owned(), pen.look.palette.quiet)], &mut 0);
        }
        let ellipsis = pen.look.symbols.ellipsis;
        for (row, item) in (0..body.height).zip(&cells) {
            let mut spans = Vec::with_capacity(columns.len() * 2);
            for shown in &columns {
                let column = &self.columns[shown.at];
                let value = (column.get)(item, scene);
                let (text, style) = match value {
                    Value::None => ("-".into(), pen.look.palette.quiet),
                    ref value => (value.shown(), (self.style)(item, column.key)),
                };
                spans.push(Span::styled(cell(&text, shown.width, shown.right, ellipsis).into_owned(), style));
                spans.push(Span::raw(" "));
            }
            spans.pop();
            let line = Rect { width: wide, ..body };
            pen.put(line, row, &Line::from(spans));
            let index = list.top + usize::from(row);
            if index == list.chosen {
                pen.choose(line, row);
            }
            pen.targets.push((Rect { y: line.y + row, height: 1, ..line }, Target::Row(index)));
        }
        pen.scroll_bar(body, rows, list.top);
    }

    /// How many rows there are, and which filter holds.
    fn more(&self, pen: &Pen, list: &List) -> Line<'static> {
        let palette = pen.look.palette;
        let rows = list.rows.len();
        let count = if rows == self.total {
            grouped(rows as u64)
        } else {
            format!("{} of {}", grouped(rows as u64), grouped(self.total as u64))
        };
        let mut spans = Vec::new();
        if !list.filter.text.is_empty() {
            spans.push(Span::styled(format!("filter {}", list.filter.text), palette.accent));
            spans.push(Span::raw("  "));
        }
        if rows > 1 {
            spans.push(Span::styled(format!("{}/", grouped(list.chosen as u64 + 1)), palette.quiet));
        }
        spans.push(Span::styled(count, palette.quiet));
        Line::from(spans)
    }

    /// Which columns there is room for, and how wide they are. Those of the highest rank go first; what is left over is
    /// given to texts that would be cut.
    fn layout(&self, width: u16, hidden: &[String], rows: &[&R], scene: &Scene) -> Vec<Shown> {
        let is_right = |column: &Column<R>| {
            let mut values = rows.iter().map(|row| (column.get)(row, scene));
            match values.find(|value| *value != Value::None) {
                Some(value) => !matches!(value, Value::Text(_)),
                // Nothing tells: what is narrow is mostly numbers.
                None => column.width < 10,
            }
        };
        let mut shown: Vec<_> = (self.columns.iter().enumerate())
            .filter(|(_, column)| !hidden.iter().any(|key| key == column.key))
            .map(|(at, column)| Shown { at, width: column.width, right: is_right(column) })
            .collect();
        let total =
            |shown: &[Shown]| shown.iter().fold(0, |sum: u16, one| sum + one.width + 1).saturating_sub(1);
        while let Some(over) = total(&shown).checked_sub(width).filter(|over| *over > 0) {
            let rank = |one: &Shown| self.columns[one.at].rank;
            let Some((at, worst)) = shown.iter().enumerate().max_by_key(|(_, one)| rank(one)) else { break };
            let worst = rank(worst);
            // Texts rather become shorter than that another goes which says much.
            let gives = |one: &Shown| {
                let least = match worst {
                    0 => 3,
                    _ if one.right => u16::MAX,
                    1 => self.columns[one.at].width * 2 / 3,
                    2 => LONG.max(self.columns[one.at].width * 2 / 3),
                    _ => u16::MAX,
                };
                one.width.saturating_sub(least)
            };
            let given = shown.iter().fold(0, |sum: u16, one| sum.saturating_add(gives(one)));
            if worst > 0 && given < over {
                shown.remove(at);
                continue;
            }
            match shown.iter_mut().max_by_key(|one| gives(one)) {
                Some(widest) if gives(widest) > 0 => widest.width -= 1,
                _ => break,
            }
        }
        let mut left = width.saturating_sub(total(&shown));
        for one in shown.iter_mut().filter(|one| !one.right) {
            let column = &self.columns[one.at];
            let wants = rows.iter().map(|row| cells(&(column.get)(row, scene).shown())).max().unwrap_or(0);
            let more = wants.saturating_sub(one.width).min(left);
            one.width += more;
            left -= more;
        }
        shown
    }

    fn heads(&self, pen: &mut Pen, place: Rect, columns: &[Shown], list: &List) {
        let (palette, symbols) = (pen.look.palette, pen.look.symbols);
        let mut x = place.x;
        for shown in columns {
            let column = &self.columns[shown.at];
            let room = Rect { x, width: shown.width, height: place.height, ..place }.intersection(place);
            let mark = match &list.sort {
                Some((key, true)) if key == column.key => symbols.falling,
                Some((key, false)) if key == column.key => symbols.rising,
                _ => "",
            };
            // The mark takes the place of the title's end where there is no other.
            let title = cell(
                column.title,
                shown.width.saturating_sub(cells(mark)).min(cells(column.title)),
                false,
                "",
            );
            let text = format!("{title}{mark}");
            let style = if mark.is_empty() { palette.quiet } else { palette.accent };
            let text = cell(&text, room.width, shown.right, symbols.ellipsis).into_owned();
            pen.put(room, 0, &Line::styled(text, style));
            if !room.is_empty() {
                pen.targets.push((room, Target::Head(column.key.to_owned())));
            }
            x = x.saturating_add(shown.width + 1);
        }
    }
}
