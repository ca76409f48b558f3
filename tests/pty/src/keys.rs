//! What a terminal sends for keys and for the mouse, as xterm does it.

use crate::{PtyError, Result};

const NAMED: &[(&str, &str)] = &[
    ("enter", "\r"),
    ("esc", "\x1b"),
    ("tab", "\t"),
    ("shift-tab", "\x1b[Z"),
    ("space", " "),
    ("backspace", "\x7f"),
    ("up", "\x1b[A"),
    ("down", "\x1b[B"),
    ("right", "\x1b[C"),
    ("left", "\x1b[D"),
    ("end", "\x1b[F"),
    ("home", "\x1b[H"),
    ("pgup", "\x1b[5~"),
    ("pgdn", "\x1b[6~"),
    ("del", "\x1b[3~"),
    ("shift-left", "\x1b[1;2D"),
    ("shift-right", "\x1b[1;2C"),
    ("ctrl-left", "\x1b[1;5D"),
    ("ctrl-right", "\x1b[1;5C"),
    ("ctrl-home", "\x1b[1;5H"),
    ("ctrl-end", "\x1b[1;5F"),
    ("f1", "\x1bOP"),
];

/// The bytes of keys: each is a character, a name such as `pgdn` or `shift-left`, or a letter with `ctrl-`; between two of
/// them is a space.
///
/// # Errors
/// [`PtyError::Key`]
pub fn bytes(keys: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for key in keys.split(' ').filter(|key| !key.is_empty()) {
        let mut chars = key.chars();
        match (chars.next(), chars.next(), key.strip_prefix("ctrl-").map(str::as_bytes)) {
            (Some(_), None, _) => bytes.extend_from_slice(key.as_bytes()),
            (_, _, Some([letter @ b'a'..=b'z'])) => bytes.push(letter & 0x1f),
            _ => {
                let named = NAMED.iter().find(|(name, _)| *name == key);
                let (_, sent) = named.ok_or_else(|| PtyError::Key(key.to_owned()))?;
                bytes.extend_from_slice(sent.as_bytes());
            }
        }
    }
    Ok(bytes)
}

/// What a mouse does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mouse {
    /// The left button is pressed and let go.
    Click,
    /// The wheel is turned away from the person by one notch.
    WheelUp,
    /// The other way.
    WheelDown,
}

impl Mouse {
    /// Its bytes at a cell, counted from 0 (SGR, mode 1006).
    pub(crate) fn bytes(self, column: u16, row: u16) -> Vec<u8> {
        let (column, row) = (column.saturating_add(1), row.saturating_add(1));
        match self {
            Self::Click => format!("\x1b[<0;{column};{row}M\x1b[<0;{column};{row}m"),
            Self::WheelUp => format!("\x1b[<64;{column};{row}M"),
            Self::WheelDown => format!("\x1b[<65;{column};{row}M"),
        }
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

    use super::*;

    #[test]
    fn keys_have_xterms_bytes() {
        assert_eq!(bytes("q pgdn ctrl-z ? ctrl-left [").unwrap(), b"q\x1b[6~\x1a?\x1b[1;5D[");
        assert!(matches!(bytes("a pagedown"), Err(PtyError::Key(name)) if name == "pagedown"));
        assert_eq!(Mouse::Click.bytes(0, 23), b"\x1b[<0;1;24M\x1b[<0;1;24m");
    }
}
