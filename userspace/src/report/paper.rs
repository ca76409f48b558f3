//! Plain text for a mailing list, or Markdown: headings, paragraphs and lists, at most 76 columns wide.

/// Columns.
const WIDTH: usize = 76;

/// A text that is being written.
#[derive(Debug, Default)]
pub struct Paper {
    markdown: bool,
    text: String,
}

impl Paper {
    /// An empty one.
    pub fn new(markdown: bool) -> Self {
        Self { markdown, text: String::new() }
    }

    /// What was written.
    pub fn finish(self) -> String {
        self.text
    }

    /// Begins a part. The first is the whole text's.
    pub fn heading(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        if self.markdown {
            let level = if self.text.is_empty() { "# " } else { "## " };
            self.text.push_str(level);
            self.text.push_str(text);
            self.text.push_str("\n\n");
        } else {
            self.wrapped("", "", text);
        }
    }

    /// A paragraph.
    pub fn says(&mut self, text: &str) {
        let indent = if self.markdown { "" } else { "  " };
        self.wrapped(indent, indent, text);
        if self.markdown {
            self.text.push('\n');
        }
    }

    /// A line of a list: a label, and what there is to say.
    pub fn item(&mut self, label: &str, text: &str) {
        if self.markdown {
            self.wrapped(&format!("- **{label}** "), "  ", text);
        } else {
            self.wrapped(&format!("  {label:<13} "), &" ".repeat(16), text);
        }
    }

    /// A line of a chronicle: a moment, and what happened then.
    pub fn moment(&mut self, moment: &str, text: &str) {
        if self.markdown {
            self.wrapped(&format!("- `{moment}` "), "  ", text);
        } else {
            self.wrapped(&format!("  {moment:>11}  "), &" ".repeat(15), text);
        }
    }

    /// Lines that stay as they are, if they are short enough.
    pub fn lines(&mut self, lines: &[String]) {
        if self.markdown {
            self.text.push_str("```\n");
        }
        for line in lines {
            let (first, rest) = if self.markdown { ("", "  ") } else { ("  ", "      ") };
            // Columns that were aligned stay so.
            if first.len() + line.chars().count() <= WIDTH {
                self.text.push_str(first);
                self.text.push_str(line);
                self.text.push('\n');
            } else {
                self.wrapped(first, rest, line);
            }
        }
        if self.markdown {
            self.text.push_str("```\n");
        }
    }

    fn wrapped(&mut self, first: &str, rest: &str, text: &str) {
        let mut line = first.to_owned();
        let mut width = line.chars().count();
        let mut is_begun = false;
        for word in text.split_whitespace() {
            let mut word = word;
            let letters = word.chars().count();
            if is_begun && width + 1 + letters > WIDTH {
                self.push(&line);
                (line, width, is_begun) = (rest.to_owned(), rest.chars().count(), false);
            }
            if is_begun {
                line.push(' ');
                width += 1;
            }
            // A word that no line can hold is cut.
            while width + word.chars().count() > WIDTH {
                let room = WIDTH.saturating_sub(width).max(1);
                let cut = word.char_indices().nth(room).map_or(word.len(), |(at, _)| at);
                line.push_str(&word[..cut]);
                word = &word[cut..];
                self.push(&line);
                (line, width) = (rest.to_owned(), rest.chars().count());
            }
            line.push_str(word);
            width += word.chars().count();
            is_begun = true;
        }
        self.push(&line);
    }

    fn push(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_a_mail() {
        for markdown in [false, true] {
            let mut paper = Paper::new(markdown);
            paper.heading("What");
            let long = format!("{} {} end", "word ".repeat(40), "x".repeat(200));
            paper.says(&long);
            paper.item("label", &long);
            paper.moment("-1.5 ms", &long);
            paper.lines(&[long.clone(), "short   and  aligned".to_owned()]);
            let text = paper.finish();
            assert!(
                text.lines().all(|line| line.chars().count() <= WIDTH && line == line.trim_end()),
                "{text}"
            );
            assert!(text.contains("short   and  aligned\n"));
            assert_eq!(text.matches("end\n").count(), 4);
        }
    }
}
