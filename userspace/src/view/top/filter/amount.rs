//! Numbers in filters.

use std::cmp::Ordering;

use crate::view::top::columns::{Kind, Value};

/// A number that cells are compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Amount {
    /// Where it is a whole one.
    exact: Option<u128>,
    float: f64,
}

/// A span of time in ns: a number of seconds, or one with ns, us, ms, s, m, h or d.
pub fn span_ns(text: &str) -> Option<u64> {
    let amount = Amount::parse(text, Kind::Span)?;
    amount.exact.and_then(|ns| u64::try_from(ns).ok())
}

impl Amount {
    /// Reads one for cells of a kind: sizes in bytes, spans in ns.
    pub fn parse(text: &str, kind: Kind) -> Option<Self> {
        if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = u128::from_str_radix(digits, 16).ok().filter(|_| plain)?;
            return Some(Self::whole(number));
        }
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let factor = factor(unit, kind)?;
        if let Ok(number) = digits.parse::<u128>() {
            return Some(Self::whole(number.checked_mul(factor)?));
        }
        let float = digits.parse::<f64>().ok().filter(|_| digits.contains('.'))? * factor as f64;
        // 1.5G is a whole number of bytes.
        let exact = (float.fract() == 0.0 && float < 2f64.powi(53)).then_some(float as u128);
        Some(Self { exact, float })
    }

    fn whole(number: u128) -> Self {
        Self { exact: Some(number), float: number as f64 }
    }

    /// How a cell compares with it; none if the cell holds no number.
    pub fn order(&self, cell: &Value<'_>) -> Option<Ordering> {
        let whole = match cell {
            Value::Number(number) | Value::Hex(number) | Value::Span(number) => Some(u128::from(*number)),
            Value::Frames(frames) => Some(u128::from(*frames) * 4096),
            _ => None,
        };
        match (whole, self.exact) {
            (Some(cell), Some(exact)) => Some(cell.cmp(&exact)),
            _ => cell.number()?.partial_cmp(&self.float),
        }
    }
}

/// What a unit stands for.
fn factor(unit: &str, kind: Kind) -> Option<u128> {
    if kind == Kind::Span {
        const SECOND: u128 = 1_000_000_000;
        return Some(match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "" | "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3_600 * SECOND,
            "d" => 86_400 * SECOND,
            _ => return None,
        });
    }
    let power = |letter: &str| match letter {
        "k" | "K" => Some(1),
        "m" | "M" => Some(2),
        "g" | "G" => Some(3),
        "t" | "T" => Some(4),
        _ => None,
    };
    match kind {
        _ if unit.is_empty() => Some(1),
        Kind::Size if unit == "B" => Some(1),
        Kind::Size => {
            let letter = unit.strip_suffix("iB").or_else(|| unit.strip_suffix('B')).unwrap_or(unit);
            power(letter).map(|power| 1024_u128.pow(power))
        }
        Kind::Number => power(unit).map(|power| 1000_u128.pow(power)),
        Kind::Hex | Kind::Text | Kind::Span => None,
    }
}
