//! Keys, and what they are called.

use std::{fmt, str::FromStr};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// A key with what is held down with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    code: KeyCode,
    modifiers: KeyModifiers,
}

/// A name is that of no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no key: a character, or one of {names}, also with ctrl-, alt- or shift-, as in ctrl-x", names = names())]
pub struct BadKey(pub String);

const NAMED: [(&str, KeyCode); 17] = [
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("space", KeyCode::Char(' ')),
    ("backspace", KeyCode::Backspace),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("pgup", KeyCode::PageUp),
    ("pgdn", KeyCode::PageDown),
    ("ins", KeyCode::Insert),
    ("del", KeyCode::Delete),
    ("menu", KeyCode::Menu),
    ("pause", KeyCode::Pause),
];

const HELD: [(&str, KeyModifiers); 3] =
    [("ctrl-", KeyModifiers::CONTROL), ("alt-", KeyModifiers::ALT), ("shift-", KeyModifiers::SHIFT)];

fn names() -> String {
    let names: Vec<_> = NAMED.iter().map(|(name, _)| *name).collect();
    format!("{} f1 to f24", names.join(" "))
}

impl Key {
    /// One of crossterm's, in the one form that all terminals' ways to say it come to.
    pub fn new(code: KeyCode, modifiers: KeyModifiers) -> Self {
        let mut modifiers = modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT | KeyModifiers::SHIFT);
        let code = match code {
            KeyCode::BackTab => {
                modifiers |= KeyModifiers::SHIFT;
                KeyCode::Tab
            }
            // With ctrl, terminals do not tell capitals from small letters.
            KeyCode::Char(c) if modifiers.contains(KeyModifiers::CONTROL) => {
                KeyCode::Char(c.to_ascii_lowercase())
            }
            KeyCode::Char(c) if modifiers.contains(KeyModifiers::SHIFT) => {
                KeyCode::Char(c.to_ascii_uppercase())
            }
            other => other,
        };
        if matches!(code, KeyCode::Char(_)) {
            modifiers.remove(KeyModifiers::SHIFT);
        }
        Self { code, modifiers }
    }

    /// As crossterm would report it.
    pub fn event(self) -> KeyEvent {
        KeyEvent::new(self.code, self.modifiers)
    }
}

impl From<KeyEvent> for Key {
    fn from(event: KeyEvent) -> Self {
        Self::new(event.code, event.modifiers)
    }
}

impl FromStr for Key {
    type Err = BadKey;

    fn from_str(name: &str) -> Result<Self, BadKey> {
        let bad = || BadKey(name.to_owned());
        let mut rest = name;
        let mut modifiers = KeyModifiers::NONE;
        while let Some((short, held)) = HELD.iter().find_map(|(word, held)| {
            let short = rest.strip_prefix(word).filter(|short| !short.is_empty())?;
            (!modifiers.contains(*held)).then_some((short, *held))
        }) {
            rest = short;
            modifiers |= held;
        }
        let mut chars = rest.chars();
        let code = match (chars.next(), chars.next()) {
            (Some(c), None) if !c.is_control() && !c.is_whitespace() => KeyCode::Char(c),
            _ => match NAMED.iter().find(|(named, _)| *named == rest) {
                Some((_, code)) => *code,
                None => {
                    let number = rest.strip_prefix('f').filter(|digits| !digits.starts_with(['0', '+']));
                    let number = number.and_then(|digits| digits.parse().ok());
                    KeyCode::F(number.filter(|number| (1..=24).contains(number)).ok_or_else(bad)?)
                }
            },
        };
        Ok(Self::new(code, modifiers))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (word, held) in HELD {
            if self.modifiers.contains(held) {
                to.write_str(word)?;
            }
        }
        if let Some((name, _)) = NAMED.iter().find(|(_, code)| *code == self.code) {
            return to.write_str(name);
        }
        match self.code {
            KeyCode::Char(c) => write!(to, "{c}"),
            KeyCode::F(number) => write!(to, "f{number}"),
            // None of these can be in a key map.
            other => write!(to, "{other}"),
        }
    }
}
