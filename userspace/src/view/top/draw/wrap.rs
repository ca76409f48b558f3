//! Lines that are too long for the screen.

use ratatui::{
    buffer::CellWidth as _,
    style::Style,
    text::{Line, Span},
};

use super::pen::{cells, fits};

/// All lines, each wrapped to this width. What follows the first of a line is indented as far as it, and two more.
pub fn wrap_all(lines: &[Line], width: u16) -> Vec<Line<'static>> {
    let blank = |line: &Line| {
        let blank = |span: &Span| span.content.chars().take_while(|c| *c == ' ').count();
        u16::try_from(line.spans.first().map_or(0, blank)).unwrap_or(u16::MAX)
    };
    lines.iter().flat_map(|line| wrap(line, width, blank(line).saturating_add(2))).collect()
}

/// A line as several where it is too long: broken between words, or within one that is too long by itself. What follows
/// the first is indented.
pub fn wrap(line: &Line, width: u16, indent: u16) -> Vec<Line<'static>> {
    if width == 0 || fits(line, width) {
        let spans = line.spans.iter().map(|span| Span::styled(span.content.to_string(), span.style));
        return vec![Line::from(spans.collect::<Vec<_>>()).style(line.style)];
    }
    let indent = if indent <= width / 2 { indent } else { 0 };
    let mut wrapping = Wrapping { width, indent, lines: Vec::new(), spans: Vec::new(), used: 0 };
    for span in &line.spans {
        let style = line.style.patch(span.style);
        for word in span.content.split_inclusive(' ') {
            wrapping.word(word, style);
        }
    }
    wrapping.end();
    wrapping.lines
}

/// Items after each other, each in one piece, with a gap between them, in as many lines as they take; what follows the
/// first line is indented.
pub fn flow(items: Vec<Vec<Span<'static>>>, width: u16, gap: u16, indent: u16) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let (mut spans, mut used, mut begun) = (Vec::new(), 0u16, false);
    for item in items {
        let wide = item.iter().fold(0, |sum: u16, span| sum.saturating_add(cells(&span.content)));
        if begun && used.saturating_add(gap).saturating_add(wide) > width {
            lines.push(Line::from(std::mem::take(&mut spans)));
            spans.push(Span::raw(" ".repeat(indent.into())));
            used = indent;
        } else if begun {
            spans.push(Span::raw(" ".repeat(gap.into())));
            used = used.saturating_add(gap);
        }
        used = used.saturating_add(wide);
        begun = true;
        spans.extend(item);
    }
    lines.push(Line::from(spans));
    lines
}

/// Lines under way.
struct Wrapping {
    width: u16,
    indent: u16,
    lines: Vec<Line<'static>>,
    spans: Vec<Span<'static>>,
    used: u16,
}

impl Wrapping {
    fn word(&mut self, word: &str, style: Style) {
        let bare = word.trim_end_matches(' ');
        if bare.is_empty() {
            // Blanks between words: none begins a line that follows another.
            if self.used < self.width && (self.lines.is_empty() || self.used > self.indent) {
                self.push(word, style);
            }
            return;
        }
        let begun = self.used > if self.lines.is_empty() { 0 } else { self.indent };
        if self.used.saturating_add(cells(bare)) > self.width && begun {
            self.end();
        }
        if self.used.saturating_add(cells(bare)) <= self.width {
            self.push(word, style);
            return;
        }
        // Too long for any line.
        for grapheme in Span::raw(word).styled_graphemes(Style::new()) {
            if self.used.saturating_add(grapheme.symbol.cell_width()) > self.width {
                self.end();
            }
            self.push(grapheme.symbol, style);
        }
    }

    fn push(&mut self, text: &str, style: Style) {
        self.used = self.used.saturating_add(cells(text));
        match self.spans.last_mut() {
            Some(last) if last.style == style => last.content.to_mut().push_str(text),
            _ => self.spans.push(Span::styled(text.to_owned(), style)),
        }
    }

    fn end(&mut self) {
        // Blanks at the end of a line take no room.
        while let Some(last) = self.spans.last_mut() {
            let kept = last.content.trim_end_matches(' ').len();
            last.content.to_mut().truncate(kept);
            if kept > 0 {
                break;
            }
            self.spans.pop();
        }
        self.lines.push(Line::from(std::mem::take(&mut self.spans)));
        self.used = 0;
        if self.indent > 0 {
            self.push(&" ".repeat(self.indent.into()), Style::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &Line) -> String {
        line.spans.iter().map(|span| span.content.as_ref()).collect()
    }

    #[test]
    fn lines_are_wrapped_between_words() {
        let line = Line::from(vec![Span::raw("  the page allocator "), Span::raw("received it")]);
        let lines: Vec<_> = wrap(&line, 16, 4).iter().map(text).collect();
        assert_eq!(lines, ["  the page", "    allocator", "    received it"]);
        let line = Line::from(vec![Span::raw("received it"), Span::raw("  who")]);
        assert_eq!(wrap(&line, 11, 2).iter().map(text).collect::<Vec<_>>(), ["received it", "  who"]);
        let long = wrap(&Line::raw("0123456789abcdef"), 6, 2);
        assert_eq!(long.iter().map(text).collect::<Vec<_>>(), ["012345", "  6789", "  abcd", "  ef"]);
        for width in 0..20 {
            let wide = wrap(&Line::raw("計算機 計算機計算機 x"), width, 2);
            assert!(wide.len() < 40, "{width}");
        }
    }

    #[test]
    fn items_stay_in_one_piece() {
        let items = ["one 1", "two 2", "three 3"].map(|item| vec![Span::raw(item)]).to_vec();
        let lines: Vec<_> = flow(items, 13, 2, 3).iter().map(text).collect();
        assert_eq!(lines, ["one 1  two 2", "   three 3"]);
    }
}
