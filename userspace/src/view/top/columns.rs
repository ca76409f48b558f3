//! The columns of each table: what they are called in filters, in the configuration file and in `--json`, and what they
//! hold. Sorting, filtering and drawing all ask here.

use std::{borrow::Cow, cmp::Ordering};

use septwatch_common::Life;

use crate::view::{
    lines::span,
    top::scene::{Found, HookRow, LeafRow, LogLine, Scene, TdRow},
};

/// What a cell holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing is known.
    None,
    /// A number.
    Number(u64),
    /// So many a second.
    Rate(f64),
    /// Frames of 4 KiB, shown in bytes.
    Frames(u64),
    /// A span of time, in ns.
    Span(u64),
    /// A frame number, or anything that is known in hexadecimal.
    Hex(u64),
    /// A text.
    Text(Cow<'a, str>),
}

impl<'a> Value<'a> {
    fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// As it is shown.
    pub fn shown(&self) -> Cow<'a, str> {
        match self {
            Self::None => Cow::Borrowed(""),
            Self::Number(number) => number.to_string().into(),
            Self::Rate(rate) => self::rate(*rate).into(),
            Self::Frames(frames) => bytes(frames.saturating_mul(4096)).into(),
            Self::Span(ns) => age(*ns).into(),
            Self::Hex(number) => format!("{number:#x}").into(),
            Self::Text(text) => text.clone(),
        }
    }

    /// The number that it is compared by: frames in bytes, spans in ns.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::None | Self::Text(_) => None,
            Self::Number(number) | Self::Hex(number) | Self::Span(number) => Some(*number as f64),
            Self::Rate(rate) => Some(*rate),
            Self::Frames(frames) => Some(*frames as f64 * 4096.0),
        }
    }

    /// Which comes first; what is not known comes last.
    pub fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::None, Self::None) => Ordering::Equal,
            (Self::None, _) => Ordering::Greater,
            (_, Self::None) => Ordering::Less,
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            (Self::Number(one), Self::Number(other)) | (Self::Hex(one), Self::Hex(other)) => one.cmp(other),
            _ => self.number().unwrap_or(0.0).total_cmp(&other.number().unwrap_or(0.0)),
        }
    }
}

/// So many a second, in at most six characters.
pub fn rate(rate: f64) -> String {
    match rate {
        r if r <= 0.0 => "0".to_owned(),
        r if r < 9.95 => format!("{r:.1}"),
        r if r < 9_999.5 => format!("{r:.0}"),
        r if r < 999_950.0 => format!("{:.1}k", r / 1e3),
        r if r < 999_950_000.0 => format!("{:.1}M", r / 1e6),
        r if r < 999_950_000_000.0 => format!("{:.1}G", r / 1e9),
        _ => ">999G".to_owned(),
    }
}

/// A span of time, in at most eight characters.
pub fn age(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0..100 => span(ns),
        100..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds / 60 % 60),
        86_400..8_640_000 => format!("{}d {:02}h", seconds / 86_400, seconds / 3_600 % 24),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A size, in at most nine characters.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if size >= 99.95 || size.fract() == 0.0 {
        format!("{size:.0} {}", UNITS[unit])
    } else {
        format!("{size:.1} {}", UNITS[unit])
    }
}

/// A column of a table whose rows are `R`.
pub struct Column<R: 'static> {
    /// Name in filters, in the configuration file and in `--json`.
    pub key: &'static str,
    /// Its head.
    pub title: &'static str,
    /// Width that it would like, in cells.
    pub width: u16,
    /// How soon it is left out where there is no room: 0 never.
    pub rank: u8,
    /// What a row has in it.
    pub get: for<'a> fn(&'a R, &Scene) -> Value<'a>,
}

impl<R> Column<R> {
    /// Whether its cells are numbers, and stand on the right.
    pub fn is_right(&self, row: &R, scene: &Scene) -> bool {
        !matches!((self.get)(row, scene), Value::Text(_))
    }
}

macro_rules! columns {
    ($(#[$doc:meta])* $name:ident: $row:ty, $($key:literal $title:literal $width:literal $rank:literal $get:expr;)*) => {
        $(#[$doc])*
        pub const $name: &[Column<$row>] =
            &[$(Column { key: $key, title: $title, width: $width, rank: $rank, get: $get }),*];
    };
}

fn or_none(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::None, Value::text)
}

/// How far the life of a TD has come, or that KVM has given it up.
pub fn state(td: &TdRow) -> &'static str {
    if td.bugged_ns.is_some() && td.life != Life::Gone { "bugged" } else { td.life.name() }
}

/// A rate of a TD: known only where there is a record of every SEAMCALL.
fn of_calls(scene: &Scene, rate: f64) -> Value<'static> {
    if scene.about.no_calls.is_some() { Value::None } else { Value::Rate(rate) }
}

/// How a TD is called: by its name, else by its process.
pub fn name(td: &TdRow) -> &str {
    td.name.as_deref().unwrap_or(&td.comm)
}

columns! {
    /// Of TDs.
    TDS: TdRow,
    "td" "TD" 5 0 |td, _| Value::Number(td.id.into());
    "name" "NAME" 18 0 |td, _| Value::text(name(td));
    "state" "STATE" 11 1 |td, _| Value::text(state(td));
    "memory" "PRIVATE" 9 1 |td, _| Value::Frames(td.private());
    "maps" "MAP/s" 7 3 |td, scene| of_calls(scene, td.rates.maps);
    "zaps" "ZAP/s" 7 3 |td, scene| of_calls(scene, td.rates.zaps);
    "busy" "BUSY/s" 7 6 |td, scene| of_calls(scene, td.rates.busy);
    "failed" "FAILED" 7 2 |td, _| Value::Number(td.failed_zaps);
    "violations" "VIOL" 6 0 |td, _| Value::Number(td.violations);
    "held" "HELD" 9 4 |td, _| td.held.map_or(Value::None, Value::Frames);
    "lent" "LENT" 9 7 |td, _| Value::Frames(td.lent());
    "pid" "PID" 8 4 |td, _| Value::Number(td.tgid.into());
    "hkid" "HKID" 5 5 |td, _| Value::Number(td.hkid.into());
    "tdr" "TDR" 11 6 |td, _| Value::Hex(td.tdr);
    "age" "AGE" 9 5 |td, scene| Value::Span(scene.time.now_ns.saturating_sub(td.begun_ns));
    "confidence" "VERDICTS" 9 8 |td, _| Value::text(if td.suspect.is_certain() { "certain" } else { "suspect" });
    "cgroup" "CGROUP" 30 9 |td, _| or_none(td.cgroup.as_deref());
}

columns! {
    /// Of violations.
    VIOLATIONS: Found,
    "number" "#" 6 1 |found, _| Value::Number(found.number);
    "age" "AGO" 9 1 |found, scene| Value::Span(scene.time.now_ns.saturating_sub(found.verdict.time_ns));
    "violation" "VIOLATION" 25 0 |found, _| Value::text(found.verdict.violation.name());
    "confidence" "CONFIDENCE" 10 3 |found, _| Value::text(found.verdict.confidence());
    "td" "TD" 5 0 |found, _| found.verdict.td.map_or(Value::None, |td| Value::Number(td.into()));
    "name" "NAME" 16 4 |found, _| or_none(found.td_name.as_deref());
    "pfn" "PFN" 12 2 |found, _| found.verdict.pfn.map_or(Value::None, Value::Hex);
    "gfn" "GFN" 10 4 |found, _| found.verdict.gfn.map_or(Value::None, Value::Hex);
    "frames" "FRAMES" 7 6 |found, _| Value::Number(found.verdict.frames);
    "leaf" "SEAMCALL" 23 5 |found, _| or_none(found.verdict.failed.and_then(|failed| failed.leaf).map(|leaf| leaf.name()));
    "status" "STATUS" 26 5 |found, _| or_none(found.verdict.failed.and_then(|failed| failed.status.name()));
    "window" "WINDOW" 9 5 |found, _| found.verdict.window_ns.or(found.verdict.since_failed_ns).map_or(Value::None, Value::Span);
    "cause" "CAUSE" 15 7 |found, _| or_none(found.verdict.cause.map(|cause| cause.name()));
    "comm" "RUNNING" 16 6 |found, _| Value::text(&found.verdict.comm);
    "pid" "PID" 8 7 |found, _| Value::Number(found.verdict.tgid.into());
    "hook" "SEEN AT" 28 8 |found, _| Value::text(found.verdict.hook);
}

columns! {
    /// Of SEAMCALLs.
    LEAVES: LeafRow,
    "leaf" "SEAMCALL" 23 0 |row, _| Value::text(row.leaf.name());
    "rate" "CALLS/s" 8 0 |row, _| Value::Rate(row.rate);
    "calls" "CALLS" 10 3 |row, _| Value::Number(row.calls());
    "busy" "BUSY" 8 1 |row, _| Value::Number(row.busy);
    "busyrate" "BUSY/s" 7 4 |row, _| Value::Rate(row.busy_rate);
    "errors" "ERRORS" 8 1 |row, _| Value::Number(row.errors);
    "p50" "P50" 9 2 |row, _| row.latency.map_or(Value::None, |latency| Value::Span(latency.p50_ns));
    "p99" "P99" 9 2 |row, _| row.latency.map_or(Value::None, |latency| Value::Span(latency.p99_ns));
    "max" "MAX" 9 3 |row, _| row.latency.map_or(Value::None, |latency| Value::Span(latency.max_ns));
    "status" "MOST FREQUENT STATUS" 30 5 |row, _| or_none(row.statuses.first().and_then(|(status, _)| status.name()));
}

columns! {
    /// Of the hook plan.
    HOOKS: HookRow,
    "hook" "HOOK" 34 0 |row, _| Value::text(&row.name);
    "state" "STATE" 9 0 |row, _| Value::text(if row.bound.is_some() { "bound" } else { "missing" });
    "binding" "BOUND TO, OR WHY NOT" 50 1 |row, _| or_none(row.bound.as_deref().or(row.missing.as_deref()));
    "lost" "LOST WITHOUT IT" 40 2 |row, _| Value::Text(row.lost.join(", ").into());
}

columns! {
    /// Of the log.
    LOG: LogLine,
    "age" "AGO" 9 1 |line, scene| Value::Span(scene.time.now_ns.saturating_sub(line.time_ns));
    "kind" "KIND" 9 2 |line, _| Value::text(line.weight.name());
    "td" "TD" 5 2 |line, _| line.td.map_or(Value::None, |td| Value::Number(td.into()));
    "text" "WHAT" 60 0 |line, _| Value::text(&line.text);
}

/// What the cells of a column are, where they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Texts.
    Text,
    /// Numbers and rates.
    Number,
    /// Frame numbers.
    Hex,
    /// Frames, counted in bytes.
    Size,
    /// Spans of time.
    Span,
}

/// What the cells of the column of this name are, whatever the table.
pub fn kind(key: &str) -> Kind {
    match key {
        "binding" | "cause" | "cgroup" | "comm" | "confidence" | "hook" | "kind" | "leaf" | "lost"
        | "name" | "state" | "status" | "text" | "violation" => Kind::Text,
        "gfn" | "pfn" | "tdr" => Kind::Hex,
        "held" | "lent" | "memory" => Kind::Size,
        "age" | "max" | "p50" | "p99" | "window" => Kind::Span,
        _ => Kind::Number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_fit_their_cells() {
        for (number, text) in [
            (0.0, "0"),
            (0.04, "0.0"),
            (9.94, "9.9"),
            (9.96, "10"),
            (9_999.0, "9999"),
            (12_345.0, "12.3k"),
            (1e6, "1.0M"),
            (f64::MAX, ">999G"),
        ] {
            assert_eq!(rate(number), text);
        }
        for (ns, text) in [
            (99_900_000_000, "99.9 s"),
            (100_000_000_000, "1m 40s"),
            (86_399_000_000_000, "23h 59m"),
            (u64::MAX, "213503d"),
        ] {
            assert_eq!(age(ns), text);
        }
        for (size, text) in
            [(0, "0 B"), (4096, "4 KiB"), (6 << 20, "6 MiB"), (1536 << 20, "1.5 GiB"), (u64::MAX, "16 EiB")]
        {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn what_is_not_known_comes_last() {
        let mut values =
            [Value::None, Value::Number(u64::MAX), Value::Number(0), Value::Number(u64::MAX - 1)];
        values.sort_by(Value::order);
        let numbers = [0, u64::MAX - 1, u64::MAX].map(Value::Number);
        assert_eq!(values[..3], numbers);
        assert_eq!(values[3], Value::None);
    }
}
