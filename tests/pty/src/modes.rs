//! In which state a terminal is.

use pty_process::blocking::Pts;
use rustix::termios::{Termios, tcgetattr};
use vt100::{MouseProtocolMode, Screen};

use crate::{Result, system};

/// In which state a program has left the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modes {
    /// What termios(3) has.
    pub line: Line,
    /// The alternate screen is shown.
    pub alternate_screen: bool,
    /// The cursor is hidden.
    pub hidden_cursor: bool,
    /// What is pasted comes with marks around it.
    pub bracketed_paste: bool,
    /// The mouse is reported.
    pub mouse: bool,
    /// Keys of the keypad and arrows come as others.
    pub application: bool,
    /// Colours or other attributes are on.
    pub attributes: bool,
}

/// What the line discipline does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    flags: [u32; 4],
    /// Control characters and times, as they are shown.
    special: String,
}

impl Line {
    fn of(termios: &Termios) -> Self {
        let flags = [
            termios.input_modes.bits(),
            termios.output_modes.bits(),
            termios.control_modes.bits(),
            termios.local_modes.bits(),
        ];
        Self { flags, special: format!("{:?}", termios.special_codes) }
    }
}

impl Modes {
    pub(crate) fn of(pts: &Pts, screen: &Screen) -> Result<Self> {
        let termios = tcgetattr(pts).map_err(system("termios"))?;
        Ok(Self {
            line: Line::of(&termios),
            alternate_screen: screen.alternate_screen(),
            hidden_cursor: screen.hide_cursor(),
            bracketed_paste: screen.bracketed_paste(),
            mouse: screen.mouse_protocol_mode() != MouseProtocolMode::None,
            application: screen.application_cursor() || screen.application_keypad(),
            attributes: screen.fgcolor() != vt100::Color::Default
                || screen.bgcolor() != vt100::Color::Default
                || screen.bold()
                || screen.dim()
                || screen.underline()
                || screen.inverse(),
        })
    }
}
