//! Expectations: what a recording must show, in a file that people edit.
//!
//! The file is TOML, and read strictly: a key that does not exist is an error, not a check that is silently not made.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

use super::{
    bound::{Bounds, FailedName, KindName, LeafName, SpanName, StatusName, Time},
    run::Alike,
};

/// How a file that was blessed begins; only such a file is replaced.
pub const MARK: &str = "# Expectations of septwatch check";

/// Version of the file's form.
const VERSION: u32 = 1;

/// Longest file, in bytes.
const LONGEST: u64 = 1 << 20;

/// A file of expectations is of no use.
#[derive(Debug, Error)]
pub enum ExpectError {
    /// It cannot be read.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{path}:{line}: {what}", path = path.display())]
    Line {
        /// Which.
        path: PathBuf,
        /// Where; the first line is 1.
        line: usize,
        /// What, and what would be right.
        what: String,
    },
}

/// What must be seen.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectations {
    /// [`VERSION`]
    version: Spanned<u32>,
    /// TDs that are seen.
    pub tds: Option<Bounds>,
    /// Hooks that must be bound.
    #[serde(default)]
    pub hooks: Vec<String>,
    /// Violations that must be seen; no other may be.
    #[serde(default, rename = "violation")]
    violations: Vec<Spanned<ExpectedViolation>>,
    /// What leaves may answer.
    #[serde(default, rename = "leaf")]
    pub leaves: BTreeMap<LeafName, LeafBounds>,
    /// How long things may stay wrong.
    #[serde(default, rename = "window")]
    pub windows: BTreeMap<SpanName, SpanBounds>,
}

/// Violations that are expected, and how many.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedViolation {
    /// Their kind.
    pub kind: KindName,
    /// The SEAMCALL that failed; none: it does not matter.
    pub leaf: Option<FailedName>,
    /// What it answered; none: anything.
    pub status: Option<StatusName>,
    /// How many.
    pub count: Bounds,
}

impl ExpectedViolation {
    /// Whether a violation is one of these.
    pub fn fits(&self, alike: &Alike) -> bool {
        self.kind.0 == alike.kind
            && self.leaf.is_none_or(|leaf| leaf.0 == alike.leaf)
            && self.status.is_none_or(|status| Some(status.0) == alike.status)
    }

    /// Of two that fit a violation, the one that says more holds.
    pub fn says(&self) -> usize {
        usize::from(self.leaf.is_some()) + usize::from(self.status.is_some())
    }
}

/// What one leaf may answer; what is left out is not looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeafBounds {
    /// All calls.
    pub calls: Option<Bounds>,
    /// TDX_OPERAND_BUSY.
    pub busy: Option<Bounds>,
    /// Neither success nor BUSY.
    pub errors: Option<Bounds>,
    /// Statuses that it may answer beside success and BUSY.
    pub statuses: Option<BTreeSet<StatusName>>,
}

/// How long one window may be.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpanBounds {
    /// Of 100, 99 may be at most so long.
    pub p99: Option<Time>,
    /// Each may be at most so long.
    pub max: Option<Time>,
}

impl Expectations {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`ExpectError`].
    pub fn read(path: &Path) -> Result<Self, ExpectError> {
        let file = |source| ExpectError::File { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        File::open(path).map_err(file)?.take(LONGEST + 1).read_to_end(&mut bytes).map_err(file)?;
        let wrong = |at: usize, what: String| {
            let line = 1 + bytes[..at.min(bytes.len())].iter().filter(|byte| **byte == b'\n').count();
            ExpectError::Line { path: path.to_owned(), line, what }
        };
        if bytes.len() as u64 > LONGEST {
            return Err(wrong(0, format!("longer than {LONGEST} bytes: no file of expectations")));
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| wrong(error.valid_up_to(), "not UTF-8: no file of expectations".to_owned()))?;
        Self::parse(text).map_err(|(at, what)| wrong(at, what))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// Where it is wrong, in bytes, and what.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let expectations: Self = toml::from_str(text).map_err(|error| {
            // Some of its messages have lines; what they quote may be anything.
            let what = error.message().replace('\n', "; ");
            (error.span().map_or(0, |span| span.start), what)
        })?;
        let version = &expectations.version;
        if *version.get_ref() != VERSION {
            let what = format!("version {}: this septwatch reads version {VERSION}", version.get_ref());
            return Err((version.span().start, what));
        }
        let mut seen = BTreeSet::new();
        for violation in &expectations.violations {
            if !seen.insert({
                let ExpectedViolation { kind, leaf, status, .. } = violation.get_ref();
                (*kind, *leaf, *status)
            }) {
                let what = "the same kind, leaf and status twice: one [[violation]] gives their count";
                return Err((violation.span().start, what.to_owned()));
            }
        }
        Ok(expectations)
    }

    /// Violations that are expected.
    pub fn violations(&self) -> impl Iterator<Item = &ExpectedViolation> {
        self.violations.iter().map(Spanned::get_ref)
    }
}
