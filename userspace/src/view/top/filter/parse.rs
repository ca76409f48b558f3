//! How filters are read.

use wildmatch::WildMatch;

use super::{Amount, Needle, Op, Operand, Term, What};
use crate::view::top::{
    columns::{Kind, kind},
    rows::keys,
    ui::View,
};

/// Most characters of a filter.
const LONGEST: usize = 1_000;

/// A filter cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}, character {at}: {wrong}", shortened(.word))]
pub struct FilterError {
    /// The word.
    pub word: String,
    /// Where it begins, in characters, from 1.
    pub at: usize,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What is wrong with a word of a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// There is no such field.
    #[error("no field {field}{}; fields: {}", guess(.meant.as_deref()), .known.join(" "))]
    Field {
        /// What was taken for a field.
        field: String,
        /// The field that is spelt alike.
        meant: Option<&'static str>,
        /// All that there are.
        known: Vec<&'static str>,
    },
    /// No field stands before the comparison.
    #[error("a field belongs before {0}, as in {1}{0}...")]
    NoField(&'static str, &'static str),
    /// Nothing stands after it.
    #[error("a value belongs after {0}; \"\" is what is not known")]
    NoValue(&'static str),
    /// The value is none of the field.
    #[error("{field} is {what}")]
    Value {
        /// The field.
        field: &'static str,
        /// What its values are.
        what: &'static str,
    },
    /// A text is greater or less than none.
    #[error("{0} is a text: compare it by = != or ~")]
    Order(&'static str),
    /// Several values after a comparison by size.
    #[error("{0} takes one value")]
    Several(&'static str),
    /// A quote is not closed.
    #[error("the closing \" is missing")]
    Quote,
    /// `!` with nothing after it.
    #[error("a word belongs after !")]
    Not,
    /// Too much.
    #[error("at most {LONGEST} characters are read")]
    Long,
    /// The view has nothing to filter.
    #[error("this view has no table")]
    NoTable,
}

fn shortened(word: &str) -> String {
    let mut chars = word.chars();
    let short: String = chars.by_ref().take(40).flat_map(char::escape_debug).collect();
    if chars.next().is_some() { short + "..." } else { short }
}

fn guess(meant: Option<&str>) -> String {
    meant.map(|meant| format!(": {meant}?")).unwrap_or_default()
}

/// What is spelt most alike, if it is alike enough.
pub(crate) fn alike<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().map(|one| (strsim::osa_distance(word, one), one)).min_by_key(|near| near.0);
    near.filter(|(far, one)| *far <= 2 && *far < one.chars().count()).map(|near| near.1)
}

/// A character, and whether it stands in quotes.
type Quoted = (char, bool);

/// Stands where a quote opens, so that an empty text can be told from none.
const EMPTY: char = '\0';

pub(super) fn terms(text: &str, view: View) -> Result<Vec<Term>, FilterError> {
    let keys = keys(view);
    words(text)?
        .into_iter()
        .map(|(at, word)| {
            let told = plain(&word);
            term(&word, &keys).map_err(|wrong| FilterError { word: told, at, wrong })
        })
        .collect()
}

/// The words with their places, without the quotes.
fn words(text: &str) -> Result<Vec<(usize, Vec<Quoted>)>, FilterError> {
    let wrong = |at, word: &str, wrong| FilterError { word: word.to_owned(), at, wrong };
    if text.chars().nth(LONGEST).is_some() {
        return Err(wrong(1, text, Wrong::Long));
    }
    let mut words = Vec::new();
    let mut word: Option<(usize, Vec<Quoted>)> = None;
    let mut quote = None;
    let mut chars = text.chars().zip(1..);
    while let Some((c, at)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let (_, within) = word.get_or_insert_with(|| (at, Vec::new()));
        match c {
            '"' if quote.is_none() => {
                quote = Some(at);
                within.push((EMPTY, true));
            }
            '"' => quote = None,
            '\\' if quote.is_some() => within.extend(chars.next().map(|(c, _)| (c, true))),
            c => within.push((c, quote.is_some())),
        }
    }
    if let Some(at) = quote {
        let rest: String = text.chars().skip(at - 1).collect();
        return Err(wrong(at, &rest, Wrong::Quote));
    }
    words.extend(word);
    Ok(words)
}

fn plain(word: &[Quoted]) -> String {
    word.iter().map(|one| one.0).filter(|c| *c != EMPTY).collect()
}

/// The comparison that begins here, with its name and its length.
fn op(word: &[Quoted]) -> Option<(Op, &'static str)> {
    const OPS: [(Op, &str); 7] = [
        (Op::Unequal, "!="),
        (Op::AtMost, "<="),
        (Op::AtLeast, ">="),
        (Op::Equal, "="),
        (Op::Less, "<"),
        (Op::Greater, ">"),
        (Op::Contains, "~"),
    ];
    let begins = |name: &str| {
        word.len() >= name.len() && name.chars().zip(word).all(|(c, (found, quoted))| c == *found && !quoted)
    };
    OPS.into_iter().find(|(_, name)| begins(name))
}

fn term(word: &[Quoted], keys: &[&'static str]) -> Result<Term, Wrong> {
    let Some(example) = keys.first() else { return Err(Wrong::NoTable) };
    let not = word.first() == Some(&('!', false)) && word.get(1) != Some(&('=', false));
    let word = if not { &word[1..] } else { word };
    if word.is_empty() {
        return Err(Wrong::Not);
    }
    let Some((at, (op, name))) = (0..word.len()).find_map(|at| Some((at, op(&word[at..])?))) else {
        let needles = alternatives(word).map(|one| Needle::new(&plain(one))).collect();
        return Ok(Term { not, what: What::Anywhere(needles) });
    };
    if at == 0 {
        return Err(Wrong::NoField(name, example));
    }
    let field = plain(&word[..at]);
    let Some(column) = keys.iter().position(|key| key.eq_ignore_ascii_case(&field)) else {
        let meant = alike(&field.to_lowercase(), keys.iter().copied());
        let meant = meant.and_then(|meant| keys.iter().copied().find(|key| *key == meant));
        return Err(Wrong::Field { field: shortened(&field), meant, known: keys.to_vec() });
    };
    let field = keys[column];
    // A TD has a number and a name.
    let also = keys.iter().position(|key| *key == "name").filter(|_| field == "td");
    let values: Vec<_> = alternatives(&word[at + name.len()..]).collect();
    let sized = !matches!(op, Op::Equal | Op::Unequal | Op::Contains);
    if sized && kind(field) == Kind::Text {
        return Err(Wrong::Order(field));
    }
    if sized && values.len() > 1 {
        return Err(Wrong::Several(name));
    }
    let operands = values.into_iter().map(|value| match value {
        [] => Err(Wrong::NoValue(name)),
        value => operand(&plain(value), field, op, also.is_some() && !sized),
    });
    Ok(Term { not, what: What::Cell { column, also, op, operands: operands.collect::<Result<_, _>>()? } })
}

fn alternatives(word: &[Quoted]) -> impl Iterator<Item = &[Quoted]> {
    word.split(|one| *one == ('|', false))
}

fn operand(text: &str, field: &'static str, op: Op, or_name: bool) -> Result<Operand, Wrong> {
    let kind = kind(field);
    if op == Op::Contains {
        return Ok(Operand::Part(Needle::new(text)));
    }
    let equal = matches!(op, Op::Equal | Op::Unequal);
    match text {
        "" if equal => return Ok(Operand::Unknown),
        "*" if equal => return Ok(Operand::Known),
        _ if kind == Kind::Text => return Ok(Operand::Glob(WildMatch::new_case_insensitive(text))),
        _ => {}
    }
    if let Some(amount) = Amount::parse(text, kind) {
        return Ok(Operand::Amount(amount));
    }
    if or_name {
        return Ok(Operand::Glob(WildMatch::new_case_insensitive(text)));
    }
    let what = match kind {
        Kind::Text | Kind::Number => "a number, as in 100, 0x64 or 10k",
        Kind::Hex => "a number, as in 4096 or 0x1000",
        Kind::Size => "a size: bytes, or a number with K, M, G or T, as in 2G",
        Kind::Span => "a span of time: seconds, or a number with ns, us, ms, s, m, h or d, as in 90s",
    };
    Err(Wrong::Value { field, what })
}
