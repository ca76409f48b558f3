//! What commands for a CI have in common: files beside standard output, and text that cannot be taken for markup.

use std::{fs::OpenOptions, io::Write as _, path::Path};

use anyhow::Result;

use super::BadInput;

/// On one line and without control characters. Names in a recording may be anything, and a CI takes lines of its log that
/// begin with `::` for commands.
pub fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// As text in Markdown, also in a table.
pub fn cell(text: &str) -> String {
    let mut cell = String::new();
    for letter in plain(text).chars() {
        match letter {
            '&' => cell.push_str("&amp;"),
            '<' => cell.push_str("&lt;"),
            '>' => cell.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '|' | '[' | ']' | '#' | '~' | '!' | '@' => cell.extend(['\\', letter]),
            letter => cell.push(letter),
        }
    }
    cell
}

/// Appends to the file that a flag names.
///
/// # Errors
/// It cannot be written: bad input, for somebody named it.
pub fn append(flag: &str, path: &Path, text: &str) -> Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| BadInput(format!("{flag} {}: {error}", path.display())).into())
}
