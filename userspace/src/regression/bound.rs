//! The words of an expectations file: numbers and their bounds, times, and names that the kernel or the specification
//! gave.

use std::fmt;

use septwatch_common::{Leaf, Status, Violation};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};

use crate::model::windows::Span;

/// How many something may be: in a file a number, or `{ min = 1, max = 5 }`, of which one can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At least so many.
    pub min: u64,
    /// At most so many; none: any number.
    pub max: Option<u64>,
}

impl Bounds {
    /// This number and no other.
    pub const fn exactly(number: u64) -> Self {
        Self { min: number, max: Some(number) }
    }

    /// Whether a number is within.
    pub fn holds(&self, number: u64) -> bool {
        number >= self.min && self.max.is_none_or(|max| number <= max)
    }

    /// As a file has it.
    pub fn to_toml(&self) -> String {
        match (self.min, self.max) {
            (min, Some(max)) if min == max => min.to_string(),
            (0, Some(max)) => format!("{{ max = {max} }}"),
            (min, None) => format!("{{ min = {min} }}"),
            (min, Some(max)) => format!("{{ min = {min}, max = {max} }}"),
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (0, Some(0)) => f.write_str("none"),
            (min, Some(max)) if min == max => write!(f, "{min}"),
            (0, None) => f.write_str("any number"),
            (0, Some(max)) => write!(f, "at most {max}"),
            (min, None) => write!(f, "at least {min}"),
            (min, Some(max)) => write!(f, "{min} to {max}"),
        }
    }
}

/// Both ends as a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ends {
    min: Option<u64>,
    max: Option<u64>,
}

struct BoundsVisitor;

impl<'de> Visitor<'de> for BoundsVisitor {
    type Value = Bounds;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number such as 3, or bounds such as { min = 1, max = 5 }, { min = 1 } or { max = 5 }")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Bounds, E> {
        Ok(Bounds::exactly(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Bounds, E> {
        let bounds = u64::try_from(number).map(Bounds::exactly);
        bounds.map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Bounds, A::Error> {
        match Ends::deserialize(MapAccessDeserializer::new(map))? {
            Ends { min: None, max: None } => Err(A::Error::custom("bounds without min and without max")),
            Ends { min: Some(min), max: Some(max) } if min > max => {
                Err(A::Error::custom(format_args!("min = {min} is more than max = {max}")))
            }
            Ends { min, max } => Ok(Bounds { min: min.unwrap_or(0), max }),
        }
    }
}

impl<'de> Deserialize<'de> for Bounds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BoundsVisitor)
    }
}

/// A span of time in ns: in a file a whole number with its unit, as in "5ms".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

const UNITS: [(&str, u64); 4] = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];

impl Time {
    /// From a number with its unit.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let (_, ns) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(ns).map(Self)
    }
}

impl fmt::Display for Time {
    /// In the largest unit that leaves nothing over.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.into_iter().find(|(_, ns)| self.0 != 0 && self.0.is_multiple_of(*ns));
        let (name, ns) = whole.unwrap_or(("ns", 1));
        write!(f, "{}{name}", self.0 / ns)
    }
}

/// Reads a word that must be one of a kind.
fn word<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    kind: &str,
    like: &str,
    find: impl Fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    let word = String::deserialize(deserializer)?;
    let wrong = || D::Error::custom(format_args!("{word:?} is no {kind}; one is {like:?}"));
    find(&word).ok_or_else(wrong)
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "time with a unit (ns, us, ms, s)", "5ms", Self::parse)
    }
}

/// The name of a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KindName(pub Violation);

impl<'de> Deserialize<'de> for KindName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let find = |name: &str| Violation::from_name(name).map(Self);
        word(deserializer, "violation", "freed-while-mapped", find)
    }
}

/// The name of a SEAMCALL's leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeafName(pub Leaf);

impl<'de> Deserialize<'de> for LeafName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "leaf that Linux calls", "TDH.MEM.PAGE.REMOVE", |name| leaf(name).map(Self))
    }
}

/// Which SEAMCALL failed: the name of its leaf, or `none` where none did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FailedName(pub Option<Leaf>);

/// In a file: no SEAMCALL failed.
pub const NO_LEAF: &str = "none";

impl<'de> Deserialize<'de> for FailedName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let find = |name: &str| {
            if name == NO_LEAF { Some(Self(None)) } else { leaf(name).map(|leaf| Self(Some(leaf))) }
        };
        word(deserializer, "leaf that Linux calls, nor `none`", "TDH.MEM.PAGE.REMOVE", find)
    }
}

fn leaf(name: &str) -> Option<Leaf> {
    Leaf::ALL.into_iter().find(|leaf| leaf.name() == name)
}

/// The name of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpanName(pub Span);

impl<'de> Deserialize<'de> for SpanName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let find = |name: &str| Span::ALL.into_iter().find(|span| span.name() == name).map(Self);
        word(deserializer, "window", "failed-zap-to-release", find)
    }
}

/// A status without its operand: by name, or as a number where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatusName(pub u64);

impl<'de> Deserialize<'de> for StatusName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let find = |name: &str| {
            let number = name.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
            let status = number.map(Status).or_else(|| Status::from_name(name));
            status.map(|status| Self(status.without_operand().0))
        };
        word(deserializer, "status", "TDX_OPERAND_BUSY", find)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_written() {
        for (text, ns) in [("5ms", 5_000_000), ("1500us", 1_500_000), ("2s", 2_000_000_000), ("7ns", 7)] {
            assert_eq!(Time::parse(text), Some(Time(ns)), "{text}");
            assert_eq!(Time::parse(&Time(ns).to_string()), Some(Time(ns)), "{text}");
        }
        assert_eq!(Time(0).to_string(), "0ns");
        for text in
            ["", "5", "ms", "5 ms", "-5ms", "1.5ms", "5m", "99999999999999999999ns", "18446744073709551615s"]
        {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }
}
