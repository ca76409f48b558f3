//! What lines, headings and bars are drawn with. Nothing goes beyond the place that it is given.

use std::borrow::Cow;

use ratatui::{
    buffer::{Buffer, CellWidth as _},
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{Look, wrap::wrap_all};
use crate::view::top::ui::Target;

/// Draws on a screen, and notes what can be clicked.
pub struct Pen<'a> {
    /// The screen.
    pub buffer: &'a mut Buffer,
    /// Colours and signs.
    pub look: &'a Look,
    /// What can be clicked.
    pub targets: Vec<(Rect, Target)>,
}

impl Pen<'_> {
    /// A line in this row of a place; what does not fit is cut, and an ellipsis says so.
    pub fn put(&mut self, place: Rect, row: u16, line: &Line) {
        let place = place.intersection(self.buffer.area);
        if row >= place.height || place.width == 0 {
            return;
        }
        let (y, width) = (place.y + row, place.width);
        if fits(line, width) {
            self.buffer.set_line(place.x, y, line, width);
            return;
        }
        let (end, _) = self.buffer.set_line(place.x, y, line, width - 1);
        let style = line.spans.last().map_or(line.style, |span| line.style.patch(span.style));
        self.buffer.set_stringn(end, y, self.look.symbols.ellipsis, 1, style);
    }

    /// A line that ends where the place ends; its beginning stays if it is too long.
    pub fn put_right(&mut self, place: Rect, row: u16, line: &Line) {
        let left = place.width.saturating_sub(width(line));
        let place = Rect { x: place.x.saturating_add(left), width: place.width - left, ..place };
        self.put(place, row, line);
    }

    /// Lines from the top on, without those above `scroll`, which is kept within bounds. What is below or above what is
    /// shown is told by a bar on the right.
    pub fn lines(&mut self, place: Rect, lines: &[Line], scroll: &mut u16) {
        let height = usize::from(place.height);
        let last = u16::try_from(lines.len().saturating_sub(height)).unwrap_or(u16::MAX);
        *scroll = (*scroll).min(last);
        let text = if last == 0 { place } else { shrunk(place) };
        for (row, line) in (0..place.height).zip(lines.iter().skip(usize::from(*scroll))) {
            self.put(text, row, line);
        }
        self.scroll_bar(place, lines.len(), usize::from(*scroll));
    }

    /// Lines that are wrapped where they are too long.
    pub fn wrapped(&mut self, place: Rect, lines: &[Line], scroll: &mut u16) {
        let wide = wrap_all(lines, place.width);
        if wide.len() <= usize::from(place.height) {
            self.lines(place, &wide, scroll);
        } else {
            self.lines(place, &wrap_all(lines, shrunk(place).width), scroll);
        }
    }

    /// A bar at the right edge that says which of `total` lines are shown, from `first` on; none if all are.
    pub fn scroll_bar(&mut self, place: Rect, total: usize, first: usize) {
        let height = usize::from(place.height);
        if total <= height || height < 2 || place.width < 4 {
            return;
        }
        let length = (height * height / total).clamp(1, height - 1);
        let begin = (first.min(total - height) * (height - length)).div_ceil(total - height);
        let style = self.look.palette.quiet;
        for (row, at) in (0..place.height).zip(0..height) {
            let symbols = &self.look.symbols;
            let symbol = if (begin..begin + length).contains(&at) { symbols.thumb } else { " " };
            let right = Rect { x: place.right() - 1, width: 1, ..place };
            self.put(right, row, &Line::styled(symbol, style));
        }
    }

    /// A heading with a rule behind it and, at its end, what else is to be said; the rest of the place.
    pub fn heading(&mut self, place: Rect, title: &str, more: &Line) -> Rect {
        if place.height == 0 {
            return place;
        }
        let room = place.width.saturating_sub(cells(title)).saturating_sub(4);
        let shown = if width(more) <= room { width(more) } else { 0 };
        let gap = u16::from(shown > 0);
        let (head, rest) = beside(place, cells(title), 1);
        let (rule, end) = beside(rest, rest.width.saturating_sub(shown + gap), gap);
        self.put(head, 0, &Line::styled(title.to_owned(), self.look.palette.head));
        let line = self.look.symbols.rule.repeat(rule.width.into());
        self.put(rule, 0, &Line::styled(line, self.look.palette.quiet));
        self.put(end, 0, more);
        below(place, 1)
    }

    /// Lets a whole row stand out.
    pub fn choose(&mut self, place: Rect, row: u16) {
        if row < place.height {
            let row = Rect { y: place.y + row, height: 1, ..place }.intersection(self.buffer.area);
            // One colour: a row of many cannot be read in reverse.
            let plain = Style::new().fg(Color::Reset).remove_modifier(Modifier::DIM | Modifier::UNDERLINED);
            self.buffer.set_style(row, plain.patch(self.look.palette.chosen));
        }
    }

    /// A bar that lies, so long as `part` is of `whole`; never nothing where there is something.
    pub fn bar(&self, part: f64, whole: f64, width: u16) -> String {
        let lengths = self.look.symbols.lengths;
        let steps = lengths.len() - 1;
        let share = if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 };
        let length = (share * f64::from(width) * steps as f64).round() as usize;
        let length = if part > 0.0 { length.max(1) } else { 0 };
        let mut bar = lengths[steps].repeat(length / steps);
        if !length.is_multiple_of(steps) {
            bar += lengths[length % steps];
        }
        bar
    }

    /// Bars that stand side by side, the newest on the right: one for each cell of the width, of the largest value that
    /// falls there.
    pub fn chart(&mut self, place: Rect, values: &[f64], style: Style) {
        let columns = buckets(values, usize::from(place.width));
        let largest = columns.iter().copied().fold(0.0, f64::max);
        let levels = self.look.symbols.levels;
        let steps = levels.len() - 1;
        let left = place.width.saturating_sub(u16::try_from(columns.len()).unwrap_or(u16::MAX));
        for row in 0..place.height {
            let below = usize::from(place.height - 1 - row) * steps;
            let mut line = " ".repeat(left.into());
            for value in &columns {
                let share = if largest > 0.0 { (value / largest).clamp(0.0, 1.0) } else { 0.0 };
                let high = (share * f64::from(place.height) * steps as f64).round() as usize;
                let high = if *value > 0.0 { high.max(1) } else { 0 };
                line += levels[high.saturating_sub(below).min(steps)];
            }
            self.put(place, row, &Line::styled(line, style));
        }
    }
}

/// The largest of the values that fall into each of at most so many cells.
fn buckets(values: &[f64], cells: usize) -> Vec<f64> {
    let count = values.len();
    let cells = cells.min(count);
    let from = |cell: usize| cell * count / cells;
    (0..cells).map(|cell| values[from(cell)..from(cell + 1)].iter().copied().fold(0.0, f64::max)).collect()
}

/// Without the columns of a scroll bar.
pub fn shrunk(place: Rect) -> Rect {
    Rect { width: place.width.saturating_sub(2), ..place }
}

/// What is below the first rows.
pub fn below(place: Rect, rows: u16) -> Rect {
    let rows = rows.min(place.height);
    Rect { y: place.y + rows, height: place.height - rows, ..place }
}

/// The first rows.
pub fn top(place: Rect, rows: u16) -> Rect {
    Rect { height: rows.min(place.height), ..place }
}

/// The place cut into two that stand side by side, the left one so wide, with a gap.
pub fn beside(place: Rect, left: u16, gap: u16) -> (Rect, Rect) {
    let left = left.min(place.width);
    let skip = left.saturating_add(gap).min(place.width);
    (Rect { width: left, ..place }, Rect { x: place.x + skip, width: place.width - skip, ..place })
}

/// Cells that a line takes.
pub fn width(line: &Line) -> u16 {
    line.spans.iter().fold(0, |sum: u16, span| sum.saturating_add(cells(&span.content)))
}

/// Cells that a text takes, without what is never drawn.
pub fn cells(text: &str) -> u16 {
    if text.is_ascii() && !text.bytes().any(|byte| byte.is_ascii_control()) {
        return u16::try_from(text.len()).unwrap_or(u16::MAX);
    }
    let span = Span::raw(text);
    span.styled_graphemes(Style::new())
        .fold(0, |sum: u16, grapheme| sum.saturating_add(grapheme.symbol.cell_width()))
}

/// Whether a line fits, looking no further than needed.
pub fn fits(line: &Line, width: u16) -> bool {
    let mut room = width;
    for span in &line.spans {
        // A text takes at most as many cells as bytes.
        if span.content.len() > usize::from(room) && cells(&span.content) > room {
            return false;
        }
        room = room.saturating_sub(cells(&span.content));
    }
    true
}

/// A text in a cell of this width: cut, or filled up on the left or on the right.
pub fn cell<'a>(text: &'a str, room: u16, right: bool, ellipsis: &str) -> Cow<'a, str> {
    let wide = cells(text);
    let fill = usize::from(room.saturating_sub(wide));
    match (wide <= room, right) {
        (true, _) if fill == 0 => Cow::Borrowed(text),
        (true, true) => format!("{:fill$}{text}", "").into(),
        (true, false) => format!("{text}{:fill$}", "").into(),
        (false, _) => cut(text, room, ellipsis).into(),
    }
}

/// The beginning of a text that is too wide, with an ellipsis, in exactly so many cells.
fn cut(text: &str, room: u16, ellipsis: &str) -> String {
    let mut cut = String::new();
    if room == 0 {
        return cut;
    }
    let mut left = room - 1;
    for grapheme in Span::raw(text).styled_graphemes(Style::new()) {
        match left.checked_sub(grapheme.symbol.cell_width()) {
            Some(rest) => left = rest,
            None => break,
        }
        cut += grapheme.symbol;
    }
    cut += ellipsis;
    cut.extend(std::iter::repeat_n(' ', left.into()));
    cut
}

/// A number in groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_by_the_cells_they_take() {
        assert_eq!(cell("web", 5, false, "~"), "web  ");
        assert_eq!(cell("web", 5, true, "~"), "  web");
        assert_eq!(cell("frontend", 5, true, "~"), "fron~");
        assert_eq!(cell("計算機室", 8, false, "~"), "計算機室");
        assert_eq!(cell("計算機室", 6, false, "~"), "計算~ ");
        assert_eq!(cell("計算機室", 1, false, "~"), "~");
        assert_eq!(cell("e\u{301}te\u{301}", 3, false, "~"), "e\u{301}te\u{301}");
        assert_eq!(cell("x", 0, false, "~"), "");
        assert_eq!(cells("a\u{1b}[31mb"), 6, "an escape is never drawn");
    }

    #[test]
    fn the_largest_of_a_cell_is_shown() {
        assert_eq!(buckets(&[1.0, 9.0, 2.0, 3.0, 4.0], 2), [9.0, 4.0]);
        assert_eq!(buckets(&[1.0, 2.0], 5), [1.0, 2.0]);
        assert!(buckets(&[1.0], 0).is_empty() && buckets(&[], 3).is_empty());
    }

    #[test]
    fn digits_come_in_threes() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
