//! Which key of a file a place in it belongs to.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The innermost key whose name or value is at this byte, as in `rules[0].ladder[1].errno`. Where there is none, as in a
/// line that is no TOML, it is the last that began before.
pub fn key(text: &str, at: usize) -> String {
    let (table, _) = DeTable::parse_recoverable(text);
    let mut found = Found { at, within: None, before: (0, String::new()) };
    found.table(table.get_ref(), "");
    found.within.unwrap_or(found.before.1)
}

struct Found {
    at: usize,
    within: Option<String>,
    /// Where the last key before began.
    before: (usize, String),
}

impl Found {
    fn table(&mut self, table: &DeTable<'_>, path: &str) {
        for (name, value) in table {
            let dot = if path.is_empty() { "" } else { "." };
            let path = format!("{path}{dot}{}", name.get_ref().escape_debug());
            self.look(&name.span(), &path);
            self.value(value, &path);
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, path: &str) {
        self.look(&value.span(), path);
        match value.get_ref() {
            DeValue::Table(table) => self.table(table, path),
            DeValue::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.value(value, &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    /// What is looked at later lies deeper.
    fn look(&mut self, span: &std::ops::Range<usize>, path: &str) {
        if span.contains(&self.at) {
            self.within = Some(path.to_owned());
        }
        if span.start <= self.at && span.start >= self.before.0 {
            self.before = (span.start, path.to_owned());
        }
    }
}
