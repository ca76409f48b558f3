//! The words of a policy file: each knows what is right, and says so where it is not.

use std::{borrow::Cow, fmt, time::Duration};

use rustix::io::Errno;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use septwatch_common::{Leaf, Violation, config::HOOKED};
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use toml::Spanned;

use crate::regression::bound::{KindName, StatusName};

/// Most that a count of a policy may be: so many times are kept for it.
pub const MOST: u32 = 1000;
/// Longest time of a policy.
pub const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Longest text, in bytes.
const LONGEST: usize = 1000;

/// A value, and where in the file it is.
#[derive(Clone, Debug)]
pub struct At<T>(Spanned<T>);

impl<T> At<T> {
    /// Where it begins, in bytes.
    pub fn at(&self) -> usize {
        self.0.span().start
    }

    /// The value.
    pub fn get(&self) -> &T {
        self.0.get_ref()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

/// In the schema, only the value is seen.
impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// The schema of a word: it is written where it is used.
macro_rules! schema {
    ($type:ty, $($json:tt)+) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($($json)+)
            }
        }
    };
}

/// A span of time, as in "90s".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 24 * 3_600_000)];

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let ms = UNITS.into_iter().find(|(name, _)| *name == unit).map(|(_, ms)| ms);
        let ms = number.parse::<u64>().ok().zip(ms).and_then(|(number, ms)| number.checked_mul(ms));
        let time = ms.map(Duration::from_millis).filter(|time| !time.is_zero() && *time <= YEAR);
        time.map(Self).ok_or_else(|| {
            D::Error::custom(format_args!(
                "{text:?} is no time from 1ms to 365d: a whole number with ms, s, m, h or d, as in \"90s\""
            ))
        })
    }
}
schema!(Time, {"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"});

/// A span of time, as a policy file has it.
pub fn time(time: Duration) -> String {
    let ms = time.as_millis();
    let whole = UNITS.into_iter().rev().find(|(_, unit)| ms != 0 && ms.is_multiple_of(u128::from(*unit)));
    let (name, unit) = whole.unwrap_or(("ms", 1));
    format!("{}{name}", ms / u128::from(unit))
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        let count = u32::try_from(number).ok().filter(|count| (1..=MOST).contains(count));
        count.map(Self).ok_or_else(|| D::Error::custom(format_args!("{number} is not from 1 to {MOST}")))
    }
}
schema!(Count, {"type": "integer", "minimum": 1, "maximum": MOST});

/// A line of text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = if text.trim().is_empty() {
            Some("empty".to_owned())
        } else if text.len() > LONGEST {
            Some(format!("{} bytes of text: at most {LONGEST} are read", text.len()))
        } else {
            let control = text.chars().find(|letter| letter.is_control());
            control.map(|letter| format!("control character {letter:?} in a text: it must be one plain line"))
        };
        wrong.map_or(Ok(Self(text)), |wrong| Err(D::Error::custom(wrong)))
    }
}
schema!(Text, {"type": "string", "minLength": 1, "maxLength": LONGEST});

/// An argument of a command: anything that a process can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument(pub String);

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.contains('\0') {
            return Err(D::Error::custom("NUL in an argument: no process can be given one"));
        }
        Ok(Self(text))
    }
}
schema!(Argument, {"type": "string"});

/// Violations, as bits of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violations(pub u64);

impl Violations {
    /// All of them.
    pub const ANY: Self = Self((1 << Violation::ALL.len()) - 1);
}

struct ViolationsVisitor;

impl<'de> Visitor<'de> for ViolationsVisitor {
    type Value = Violations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names of violations such as [\"zap-failed\"], or \"any\"")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Violations, E> {
        match Violation::from_name(word) {
            _ if word == "any" => Ok(Violations::ANY),
            Some(violation) => Ok(Violations(1 << violation as u64)),
            None => Err(E::custom(format_args!("{word:?} is no violation, nor \"any\"; {}", known()))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<Violations, A::Error> {
        let mut bits = 0;
        while let Some(KindName(violation)) = words.next_element()? {
            bits |= 1 << violation as u64;
        }
        if bits == 0 {
            return Err(A::Error::custom("no violation: name at least one, or write \"any\""));
        }
        Ok(Violations(bits))
    }
}

fn known() -> String {
    format!("there are {}", Violation::ALL.map(Violation::name).join(", "))
}

impl<'de> Deserialize<'de> for Violations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ViolationsVisitor)
    }
}

impl JsonSchema for Violations {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Violations".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names = Violation::ALL.map(Violation::name);
        let one: Vec<_> = names.into_iter().chain(["any"]).collect();
        json_schema!({
            "anyOf": [
                {"type": "string", "enum": one},
                {"type": "array", "items": {"type": "string", "enum": names}, "minItems": 1},
            ]
        })
    }
}

/// A SEAMCALL that septwatch sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepName(pub Leaf);

/// Short words for those that matter most.
const SHORT: [(&str, Leaf); 10] = [
    ("block", Leaf::MemRangeBlock),
    ("track", Leaf::MemTrack),
    ("remove", Leaf::MemPageRemove),
    ("wbinvd", Leaf::PhymemPageWbinvd),
    ("reclaim", Leaf::PhymemPageReclaim),
    ("add", Leaf::MemPageAdd),
    ("aug", Leaf::MemPageAug),
    ("sept-add", Leaf::MemSeptAdd),
    ("vpflushdone", Leaf::MngVpflushdone),
    ("freeid", Leaf::MngKeyFreeid),
];

impl StepName {
    /// From a short word, or the leaf's name in the specification's or the kernel's spelling.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(word: &str) -> Result<Self, String> {
        let short = SHORT.into_iter().find(|(short, _)| *short == word).map(|(_, leaf)| leaf);
        let leaf = short.or_else(|| Leaf::from_name(word)).filter(|leaf| HOOKED.contains(leaf));
        leaf.map(Self).ok_or_else(|| {
            let short = SHORT.map(|(short, _)| short).join(", ");
            format!("{word:?} is no SEAMCALL that is watched; there are {short}, and names such as \"TDH.MEM.TRACK\"")
        })
    }
}

impl<'de> Deserialize<'de> for StepName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
schema!(StepName, {"type": "string"});
schema!(StatusName, {"type": "string"});

/// What a system call answers: a name, or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrnoName(pub Errno);

const ERRNOS: [(&str, Errno); 16] = [
    ("EPERM", Errno::PERM),
    ("ENOENT", Errno::NOENT),
    ("EINTR", Errno::INTR),
    ("EIO", Errno::IO),
    ("ENXIO", Errno::NXIO),
    ("EAGAIN", Errno::AGAIN),
    ("ENOMEM", Errno::NOMEM),
    ("EACCES", Errno::ACCESS),
    ("EFAULT", Errno::FAULT),
    ("EBUSY", Errno::BUSY),
    ("ENODEV", Errno::NODEV),
    ("EINVAL", Errno::INVAL),
    ("ENOSPC", Errno::NOSPC),
    ("EROFS", Errno::ROFS),
    ("EOPNOTSUPP", Errno::OPNOTSUPP),
    ("EHWPOISON", Errno::HWPOISON),
];

/// The name of an errno where it has one here, else its number.
pub fn errno(errno: Errno) -> String {
    let named = ERRNOS.into_iter().find(|(_, known)| *known == errno);
    named.map_or_else(|| errno.raw_os_error().to_string(), |(name, _)| name.to_owned())
}

struct ErrnoVisitor;

impl Visitor<'_> for ErrnoVisitor {
    type Value = ErrnoName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ERRNOS.map(|(name, _)| name).join(", ");
        write!(f, "an errno: a number from 1 to 4095, or one of {names}")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<ErrnoName, E> {
        let known = ERRNOS.into_iter().find(|(name, _)| *name == word);
        let known = known.map(|(_, errno)| ErrnoName(errno));
        known.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(word), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<ErrnoName, E> {
        let number = i32::try_from(number).ok().filter(|number| (1..=4095).contains(number));
        let errno = number.map(Errno::from_raw_os_error).map(ErrnoName);
        errno.ok_or_else(|| E::custom("an errno is a number from 1 to 4095, or a name such as \"EIO\""))
    }
}

impl<'de> Deserialize<'de> for ErrnoName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ErrnoVisitor)
    }
}
schema!(ErrnoName, {"anyOf": [
    {"type": "string", "enum": ERRNOS.map(|(name, _)| name)},
    {"type": "integer", "minimum": 1, "maximum": 4095},
]});
