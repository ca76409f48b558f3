//! Editing of the line that is typed.

use unicode_segmentation::UnicodeSegmentation as _;

use crate::view::top::ui::{Input, Purpose};

/// Most bytes of a line.
const LONGEST: usize = 4_000;

impl Input {
    /// Begins with this text, the cursor behind it.
    pub fn new(purpose: Purpose, text: &str) -> Self {
        Self { purpose, text: text.to_owned(), cursor: text.len(), error: None }
    }

    /// The text before the cursor, and from it on.
    pub fn halves(&self) -> (&str, &str) {
        self.text.split_at_checked(self.cursor).unwrap_or((&self.text, ""))
    }

    /// Puts a text in: blanks for ends of lines, and nothing that controls a terminal.
    pub fn insert(&mut self, text: &str) {
        self.cursor = self.halves().0.len();
        for c in text.chars() {
            let c = if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c };
            if c.is_control() || self.text.len() + c.len_utf8() > LONGEST {
                continue;
            }
            self.text.insert(self.cursor, c);
            self.cursor += c.len_utf8();
        }
    }

    /// The cursor, one character to the left.
    pub fn left(&mut self) {
        self.cursor = self.before();
    }

    /// The cursor, one character to the right.
    pub fn right(&mut self) {
        self.cursor = self.after();
    }

    /// The cursor before the first character.
    pub fn home(&mut self) {
        self.cursor = 0;
    }

    /// The cursor behind the last one.
    pub fn end(&mut self) {
        self.cursor = self.text.len();
    }

    /// Takes away the character before the cursor.
    pub fn backspace(&mut self) {
        self.erase_from(self.before());
    }

    /// Takes away the character at the cursor.
    pub fn delete(&mut self) {
        let begin = self.halves().0.len();
        self.text.replace_range(begin..self.after(), "");
        self.cursor = begin;
    }

    /// Takes away all before the cursor.
    pub fn erase(&mut self) {
        self.erase_from(0);
    }

    /// Takes away the word before the cursor, with the blanks behind it.
    pub fn erase_word(&mut self) {
        let word = self.halves().0.trim_end();
        let begin = word.char_indices().rev().find(|(_, c)| c.is_whitespace());
        self.erase_from(begin.map_or(0, |(at, c)| at + c.len_utf8()));
    }

    /// Takes away all from the cursor on.
    pub fn erase_rest(&mut self) {
        self.text.truncate(self.halves().0.len());
    }

    fn erase_from(&mut self, begin: usize) {
        let end = self.halves().0.len();
        self.text.replace_range(begin..end, "");
        self.cursor = begin;
    }

    /// Where the character before the cursor begins, with all that belongs to it.
    fn before(&self) -> usize {
        self.halves().0.grapheme_indices(true).next_back().map_or(0, |(at, _)| at)
    }

    /// Where the character at the cursor ends.
    fn after(&self) -> usize {
        let (before, after) = self.halves();
        before.len() + after.graphemes(true).next().map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(text: &str) -> Input {
        Input::new(Purpose::Search, text)
    }

    #[test]
    fn the_cursor_stands_between_whole_characters() {
        // Wide, with a combining accent, and a flag of two code points.
        let text = "\u{6f22}e\u{301}\u{1f1e9}\u{1f1ea}";
        let mut line = input(text);
        let mut places = vec![line.cursor];
        for _ in 0..4 {
            line.left();
            places.push(line.cursor);
        }
        assert_eq!(places, [14, 6, 3, 0, 0]);
        line.right();
        line.delete();
        assert_eq!(line.text, "\u{6f22}\u{1f1e9}\u{1f1ea}");
        line.end();
        line.right();
        line.delete();
        line.backspace();
        line.backspace();
        line.backspace();
        assert_eq!((line.text.as_str(), line.cursor), ("", 0));
    }

    #[test]
    fn words_and_halves_are_erased() {
        let mut line = input("td=web*  busy>1 ");
        line.erase_word();
        assert_eq!(line.text, "td=web*  ");
        line.erase_word();
        assert_eq!(line.text, "");
        let mut line = input("abc def");
        for _ in 0..3 {
            line.left();
        }
        line.erase_rest();
        assert_eq!(line.text, "abc ");
        line.left();
        line.erase();
        assert_eq!((line.text.as_str(), line.cursor), (" ", 0));
    }

    #[test]
    fn what_is_pasted_is_one_line() {
        let mut line = input("ab");
        line.left();
        line.insert("1\r\n\u{1b}[2J\u{7}\t2");
        assert_eq!(line.text, "a1  [2J 2b");
        line.insert(&"x".repeat(10_000));
        assert_eq!(line.text.len(), LONGEST);
    }

    #[test]
    fn a_cursor_that_is_nowhere_does_no_harm() {
        for cursor in [1, 2, 100, usize::MAX] {
            let whole = Input { cursor, ..input("\u{6f22}") };
            for edit in [
                Input::left,
                Input::right,
                Input::backspace,
                Input::delete,
                Input::erase,
                Input::erase_word,
                Input::erase_rest,
            ] {
                let mut line = whole.clone();
                edit(&mut line);
                line.insert("x");
                assert!(line.text.is_char_boundary(line.cursor));
            }
        }
    }
}
