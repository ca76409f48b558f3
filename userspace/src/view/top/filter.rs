//! Filter expressions, as in `td=web* violation!=map-failed busy>100 memory>=2G`: terms between blanks, and a row is
//! shown if all of them hold.

mod amount;
mod parse;

pub use amount::{Amount, span_ns};
pub(in crate::view::top) use parse::alike;
pub use parse::{FilterError, Wrong};

use std::{cmp::Ordering, fmt::Write as _};

use wildmatch::WildMatch;

use crate::view::top::{
    columns::Value,
    rows::{Table, keys},
    ui::View,
};

/// Which rows are shown. The default: all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// As it was typed.
    pub text: String,
    terms: Vec<Term>,
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Filter {
    /// Reads one for the table of a view.
    ///
    /// # Errors
    /// The word that is wrong, its place, and what would be right.
    pub fn parse(text: &str, view: View) -> Result<Self, FilterError> {
        Ok(Self { text: text.trim().to_owned(), terms: parse::terms(text, view)? })
    }

    /// What can be made of one that is still being typed: without its last word, if that makes no sense yet, or may become
    /// a field. None: nothing.
    pub fn preview(text: &str, view: View) -> Option<Self> {
        let (head, last) = text.rsplit_once(char::is_whitespace).unwrap_or(("", text));
        let unfinished = !last.is_empty() && keys(view).iter().any(|key| key.starts_with(last));
        let whole = if unfinished { None } else { Self::parse(text, view).ok() };
        whole.or_else(|| Self::parse(head, view).ok())
    }

    /// Whether all rows are shown.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether a row is shown. The table is that of the view that the filter was read for.
    pub fn matches(&self, table: &dyn Table, row: usize) -> bool {
        self.terms.iter().all(|term| term.holds(table, row))
    }
}

/// What must hold.
#[derive(Clone, Debug)]
struct Term {
    /// It must not.
    not: bool,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// One of these is somewhere in the row.
    Anywhere(Vec<Needle>),
    /// A cell compares so with one of these.
    Cell {
        column: usize,
        /// The column whose text is compared as well: the name of a TD.
        also: Option<usize>,
        op: Op,
        operands: Vec<Operand>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Equal,
    Unequal,
    Less,
    Greater,
    AtMost,
    AtLeast,
    Contains,
}

#[derive(Clone, Debug)]
enum Operand {
    /// Nothing is known.
    Unknown,
    /// Anything is.
    Known,
    Glob(WildMatch),
    Amount(Amount),
    Part(Needle),
}

impl Term {
    fn holds(&self, table: &dyn Table, row: usize) -> bool {
        let holds = match &self.what {
            What::Anywhere(needles) => needles.iter().any(|needle| needle.is_in_row(table, row)),
            What::Cell { column, also, op, operands } => {
                let cell = table.value(row, *column);
                let also = also.map(|column| table.value(row, column));
                let any =
                    operands.iter().any(|operand| operand.fits(&cell, also.as_ref().unwrap_or(&cell), *op));
                any != (*op == Op::Unequal)
            }
        };
        holds != self.not
    }
}

impl Operand {
    /// `text` is the cell that texts are compared with.
    fn fits(&self, cell: &Value<'_>, text: &Value<'_>, op: Op) -> bool {
        match self {
            Self::Unknown => {
                matches!(cell, Value::None) || matches!(cell, Value::Text(text) if text.is_empty())
            }
            Self::Known => !matches!(cell, Value::None),
            Self::Glob(glob) => matches!(text, Value::Text(text) if glob.matches(text)),
            Self::Part(part) => part.is_in(&cell.shown()) || part.is_in(&text.shown()),
            Self::Amount(amount) => amount.order(cell).is_some_and(|order| match op {
                Op::Equal | Op::Unequal => order == Ordering::Equal,
                Op::Less => order == Ordering::Less,
                Op::Greater => order == Ordering::Greater,
                Op::AtMost => order != Ordering::Greater,
                Op::AtLeast => order != Ordering::Less,
                Op::Contains => false,
            }),
        }
    }
}

/// A text that is looked for in others, whatever the case of its letters.
#[derive(Clone, Debug, Default)]
pub struct Needle {
    lower: String,
    /// It may be a part of a number, in either base.
    in_numbers: bool,
}

impl Needle {
    /// Of this text.
    pub fn new(text: &str) -> Self {
        let lower = text.to_lowercase();
        let in_numbers = lower.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'x');
        Self { lower, in_numbers }
    }

    /// Whether it is a part of this text.
    pub fn is_in(&self, text: &str) -> bool {
        let needle = self.lower.as_bytes();
        let Some(first) = needle.first() else { return true };
        if !self.lower.is_ascii() {
            return text.to_lowercase().contains(&self.lower);
        }
        let same = |part: &[u8]| part[0].to_ascii_lowercase() == *first && part.eq_ignore_ascii_case(needle);
        text.as_bytes().windows(needle.len()).any(same)
    }

    /// Whether it is a part of a text or a number of a row. What changes from moment to moment, rates and spans, does not
    /// count.
    pub fn is_in_row(&self, table: &dyn Table, row: usize) -> bool {
        let mut shown = String::new();
        (0..table.keys().len()).any(|column| {
            shown.clear();
            let written = match table.value(row, column) {
                Value::Text(text) => return self.is_in(&text),
                Value::Number(number) if self.in_numbers => write!(shown, "{number}"),
                Value::Hex(number) if self.in_numbers => write!(shown, "{number:#x}"),
                _ => return false,
            };
            written.is_ok() && self.is_in(&shown)
        })
    }
}

#[cfg(test)]
mod tests;
