//! What a person types: status words and leaves.

use septwatch_common::{Status, leaf, status::Operand};
use thiserror::Error;

/// How a status word must look, for messages and help.
pub const VALID_WORDS: &str = "a status word is 0x and up to 16 hexadecimal digits, as in 0xc0000b0800000001, or a name \
                               with or without its operand, as in TDX_OPERAND_BUSY or TDX_OPERAND_BUSY|RCX";

/// A word that is no status word.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WordError {
    /// Neither a number nor a name of the tables.
    #[error("`{0}` is no status word: {VALID_WORDS}")]
    Unknown(String),
    /// A number of more than 64 bits.
    #[error("`{0}` has more than 64 bits: {VALID_WORDS}")]
    TooLong(String),
    /// A name with an operand that does not exist.
    #[error(
        "`{word}`: there is no operand `{operand}`; operands are registers (RCX, R8) and structures (TDR, SEPT_TREE)"
    )]
    Operand {
        /// The whole word.
        word: String,
        /// The part after the bar.
        operand: String,
    },
    /// A number whose upper half is zero, but whose lower half would be an upper half.
    #[error("`{word}` has only 32 bits: is it the upper half of a status word, {name} = 0x{full:016x}?")]
    Half {
        /// The whole word.
        word: String,
        /// The status that it would be.
        name: &'static str,
        /// The number that was probably meant.
        full: u64,
    },
}

/// No leaf of the ABI.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` is no SEAMCALL leaf: give its number (29, 0x1d) or name (TDH.MEM.PAGE.REMOVE, tdh_mem_page_remove); \
     the TDX module ABI has the numbers 0 to 166, not all of them"
)]
pub struct LeafError(String);

/// Reads a status word.
///
/// # Errors
/// When the word is none; the message shows what a valid one looks like.
pub fn parse(word: &str) -> Result<Status, WordError> {
    let text = word.trim();
    match number(text) {
        Some(Ok(raw)) => whole(word, raw),
        Some(Err(())) => Err(WordError::TooLong(shown(word))),
        None => named(text).unwrap_or_else(|| Err(WordError::Unknown(shown(word)))),
    }
}

/// Reads a leaf's number or name.
///
/// # Errors
/// When the ABI has no such leaf.
pub fn parse_leaf(text: &str) -> Result<u16, LeafError> {
    let text = text.trim();
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let found = match number {
        Some(rax) => leaf::number_in(rax).filter(|number| leaf::name_of(*number).is_some()),
        None => leaf::number_of(text),
    };
    found.ok_or_else(|| LeafError(shown(text)))
}

/// `0x` and digits, or sixteen bare digits; `None` if the text does not even try to be a number.
fn number(text: &str) -> Option<Result<u64, ()>> {
    let digits = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => digits,
        None if text.len() == 16 => text,
        None if text == "0" => "0",
        None => return None,
    };
    let digits: String = digits.chars().filter(|digit| *digit != '_').collect();
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    Some(u64::from_str_radix(&digits, 16).map_err(|_| ()))
}

/// Refuses what is plainly the upper half of a word: decoded as it stands, it would read as a success.
fn whole(word: &str, raw: u64) -> Result<Status, WordError> {
    let full = raw << 32;
    match Status(full).name() {
        Some(name) if raw >> 32 == 0 && raw >> 31 != 0 => {
            Err(WordError::Half { word: shown(word), name, full })
        }
        _ => Ok(Status(raw)),
    }
}

fn named(text: &str) -> Option<Result<Status, WordError>> {
    let (name, operand) = match text.split_once('|') {
        Some((name, operand)) => (name, Some(operand)),
        None => (text, None),
    };
    let status = Status::from_name(name)?;
    let Some(operand) = operand else { return Some(Ok(status)) };
    let found = Operand::from_name(operand).map(|known| Status(status.0 | u64::from(known.0)));
    Some(found.ok_or_else(|| WordError::Operand { word: shown(text), operand: shown(operand) }))
}

/// Foreign text, fit for a terminal: control characters escaped, and not too long.
pub(crate) fn shown(text: &str) -> String {
    const MAX: usize = 300;
    let escape = |letter: char| {
        let safe = !letter.is_control() || letter == '\t';
        if safe { letter.to_string() } else { letter.escape_default().to_string() }
    };
    let mut safe: String = text.chars().take(MAX).map(escape).collect();
    if text.chars().nth(MAX).is_some() {
        safe.push('…');
    }
    safe
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

    use super::*;

    #[test]
    fn words_in_every_spelling() {
        let word = Status(0xc000_0b08_0000_0001);
        for text in [
            "0xc0000b0800000001",
            "0XC0000B0800000001",
            "C0000B0800000001",
            "0xc000_0b08_0000_0001",
            " 0xc0000b0800000001\n",
            "TDX_TLB_TRACKING_NOT_DONE|RCX",
            "tlb_tracking_not_done|rcx",
        ] {
            assert_eq!(parse(text), Ok(word), "{text}");
        }
        assert_eq!(parse("0"), Ok(Status::SUCCESS));
        assert_eq!(parse("0x30"), Ok(Status(0x30)));
    }

    #[test]
    fn what_is_no_word_says_what_one_looks_like() {
        for text in ["", "0x", "29", "hello", "0xgg", "TDX_NO_SUCH_THING", "0x 12"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("0xc0000b0800000001"), "{error}");
        }
        assert!(matches!(parse("0x1c0000b0800000001"), Err(WordError::TooLong(_))));
        assert!(matches!(parse("OPERAND_BUSY|EAX"), Err(WordError::Operand { .. })));
    }

    #[test]
    fn an_upper_half_is_not_taken_for_a_success() {
        let error = parse("0xC0000B08").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`0xC0000B08` has only 32 bits: is it the upper half of a status word, \
             TDX_TLB_TRACKING_NOT_DONE = 0xc0000b0800000000?"
        );
    }

    #[test]
    fn leaves_by_number_and_name() {
        for text in ["29", "0x1d", "0x1001d", "TDH.MEM.PAGE.REMOVE", "tdh_mem_page_remove", "mem_page_remove"]
        {
            assert_eq!(parse_leaf(text), Ok(29), "{text}");
        }
        for text in ["", "-1", "200", "TDH.NOTHING", "0x8000000000000001"] {
            assert!(parse_leaf(text).is_err(), "{text}");
        }
    }

    #[test]
    fn foreign_text_cannot_drive_a_terminal() {
        assert_eq!(shown("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(shown(&"x".repeat(400)).chars().count(), 301);
    }
}
