//! What a program writes to its terminal, and what comes of it on the screen.

use std::{
    num::NonZeroU16,
    time::{Duration, Instant},
};

use vt100::{Callbacks, Parser, Screen};

/// Frames that were drawn, each between the two ends of a synchronized update (mode 2026).
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    /// How many are complete.
    pub count: u64,
    /// When the first was, after the program was started.
    pub first: Option<Duration>,
    /// Whether another one has begun.
    pub open: bool,
}

/// Everything that a program has written.
pub struct Output {
    parser: Parser<Seen>,
    /// Bytes as they came.
    pub bytes: Vec<u8>,
    /// When the first came, after the program was started.
    pub first_byte: Option<Duration>,
    /// When the last came.
    pub last_byte: Instant,
    begun: Instant,
}

/// What the emulator says beside the screen.
struct Seen {
    begun: Instant,
    frames: Frames,
    clipboard: Option<Vec<u8>>,
    /// What is to be answered, and how often something was asked.
    answers: Vec<u8>,
    asked: u64,
    unknown: Vec<String>,
}

impl Output {
    pub(crate) fn new(columns: u16, rows: u16) -> Self {
        let begun = Instant::now();
        let seen = Seen {
            begun,
            frames: Frames::default(),
            clipboard: None,
            answers: Vec::new(),
            asked: 0,
            unknown: Vec::new(),
        };
        Self {
            parser: Parser::new_with_callbacks(size(rows), size(columns), 0, seen),
            bytes: Vec::new(),
            first_byte: None,
            last_byte: begun,
            begun,
        }
    }

    /// Times are counted from here.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.begun = now;
        self.parser.callbacks_mut().begun = now;
    }

    pub(crate) fn resize(&mut self, columns: u16, rows: u16) {
        self.parser.set_size(size(rows), size(columns));
    }

    /// Takes in what was written; what a terminal answers to it.
    pub(crate) fn received(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.last_byte = Instant::now();
        self.first_byte.get_or_insert(self.last_byte.saturating_duration_since(self.begun));
        self.parser.process(bytes);
        self.bytes.extend_from_slice(bytes);
        std::mem::take(&mut self.parser.callbacks_mut().answers)
    }

    /// What is on the screen.
    pub fn screen(&self) -> &Screen {
        self.parser.screen()
    }

    /// Frames so far.
    pub fn frames(&self) -> Frames {
        self.parser.callbacks().frames
    }

    /// What was copied into the clipboard last (OSC 52), still as base64.
    pub fn clipboard(&self) -> Option<&[u8]> {
        self.parser.callbacks().clipboard.as_deref()
    }

    /// How often the program has asked where the cursor is, and waited for the answer.
    pub fn asked(&self) -> u64 {
        self.parser.callbacks().asked
    }

    /// Sequences that the emulator does not know.
    pub fn unknown(&self) -> &[String] {
        &self.parser.callbacks().unknown
    }
}

fn size(cells: u16) -> NonZeroU16 {
    NonZeroU16::new(cells).unwrap_or(NonZeroU16::MIN)
}

impl Callbacks for Seen {
    fn copy_to_clipboard(&mut self, _: &mut Screen, _: &[u8], data: &[u8]) {
        self.clipboard = Some(data.to_vec());
    }

    fn unhandled_csi(
        &mut self,
        screen: &mut Screen,
        i1: Option<u8>,
        i2: Option<u8>,
        params: &[&[u16]],
        c: char,
    ) {
        match (i1, params, c) {
            (Some(b'?'), [[2026]], 'h') => self.frames.open = true,
            (Some(b'?'), [[2026]], 'l') => {
                if std::mem::take(&mut self.frames.open) {
                    self.frames.count += 1;
                    self.frames.first.get_or_insert_with(|| self.begun.elapsed());
                }
            }
            (None, [[6]], 'n') => {
                let (row, column) = screen.cursor_position();
                self.asked += 1;
                self.answers.extend_from_slice(format!("\x1b[{};{}R", row + 1, column + 1).as_bytes());
            }
            _ => {
                let between: String = [i1, i2].into_iter().flatten().map(char::from).collect();
                self.unknown.push(format!("CSI {between} {params:?} {c}"));
            }
        }
    }

    fn unhandled_osc(&mut self, _: &mut Screen, params: &[&[u8]]) {
        let params: Vec<_> = params.iter().map(|param| String::from_utf8_lossy(param)).collect();
        self.unknown.push(format!("OSC {params:?}"));
    }

    fn unhandled_escape(&mut self, _: &mut Screen, _: Option<u8>, _: Option<u8>, b: u8) {
        // The end of a string, such as of OSC.
        if b != b'\\' {
            self.unknown.push(format!("ESC {}", char::from(b)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_when_they_are_complete() {
        let mut output = Output::new(20, 5);
        output.received(b"\x1b[?2026l\x1b[?2026hone");
        assert_eq!((output.frames().count, output.frames().open), (0, true));
        output.received(b"\x1b[?2026l");
        assert_eq!((output.frames().count, output.frames().open), (1, false));
        assert!(output.frames().first.is_some());
        assert_eq!(output.screen().contents(), "one");
        output.received(b"\x1b]52;c;aGk=\x1b\\\x1b[?1002h\x1b[?4711h");
        assert_eq!(output.clipboard(), Some(&b"aGk="[..]));
        assert_eq!(output.received(b"\x1b[3;5H\x1b[6n"), b"\x1b[3;5R");
        assert_eq!(output.asked(), 1);
        assert_eq!(output.unknown(), ["CSI ? [[4711]] h"]);
    }
}
