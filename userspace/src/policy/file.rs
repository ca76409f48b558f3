//! Policy files: read strictly, checked whole, and refused with the file, line and key of what is wrong.

mod check;
mod place;
mod raw;
pub(super) mod words;

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use septwatch_common::{Leaf, Status};
use thiserror::Error;
use wildmatch::WildMatch;

use super::{reaction::Reaction, shipped};
use crate::trust::{self, TrustError};
pub use raw::{Confidence, File as Written};

/// Longest file, in bytes.
const LONGEST: u64 = 1 << 20;

/// A policy cannot be used.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// It cannot be read.
    #[error("{path}: {source}{help}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// What would be right, where that is not plain.
        help: String,
    },
    /// Others than root and this user decide what is in it.
    #[error(transparent)]
    Untrusted(#[from] TrustError),
    /// Something in it is wrong.
    #[error("{path}:{line}: {key}{colon}{what}", path = path.display(), colon = if key.is_empty() { "" } else { ": " })]
    Line {
        /// Which.
        path: PathBuf,
        /// Where; the first line is 1.
        line: usize,
        /// The key, as in `rules[0].ladder[1].errno`; empty where it is not about one.
        key: String,
        /// What, and what would be right.
        what: String,
    },
}

/// A policy that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub about: Option<String>,
    /// Reactions that act may be taken. False: it is a dry run.
    pub armed: bool,
    /// How often ladders may act on one TD.
    pub td_limit: Limit,
    /// How often they may on this host.
    pub host_limit: Limit,
    /// Its rules, in the order of the file.
    pub rules: Vec<Rule>,
}

/// So many in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// So many; 1 to 1000.
    pub count: u32,
    /// In this time.
    pub per: Duration,
}

/// What is matched, and what is done then.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name; no other rule of the policy has it.
    pub name: String,
    /// Violations, as bits of their numbers.
    pub violations: u64,
    /// SEAMCALLs that failed, as bits of their leaves' numbers; 0: any, or none.
    pub leaves: u64,
    /// What they answered, without operands; empty: anything.
    pub statuses: Vec<Status>,
    /// How sure the verdict must be.
    pub confidence: Confidence,
    /// It is followed from the so-many-th verdict on.
    pub rate: Option<Limit>,
    /// Which TDs; none: all.
    pub td: Option<Select>,
    /// How long it does not act on a TD again.
    pub cool_down: Duration,
    /// What is done, in this order.
    pub ladder: Vec<Step>,
}

/// Which TDs a rule is for: those that fit the selector and, if there are any, one of the tags.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// The rule's own selector.
    pub own: Selector,
    /// Tags that it names.
    pub tags: Vec<(String, Selector)>,
}

/// What a TD must be like, in everything that is said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    /// Its name.
    pub name: Option<WildMatch>,
    /// The cgroup of its VMM.
    pub cgroup: Option<WildMatch>,
    /// Its UUID, in letters of either case.
    pub uuid: Option<WildMatch>,
}

/// A step of a ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub reaction: Reaction,
    /// Only if the step before failed.
    pub if_failed: bool,
}

/// The SEAMCALL of a word that a rule's `step` may be.
///
/// # Errors
/// What would be right.
pub fn step(word: &str) -> Result<Leaf, String> {
    words::StepName::parse(word).map(|name| name.0)
}

impl Policy {
    /// Reads a file: all of it makes sense, or nothing is taken.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let unreadable = |source: io::Error| {
            let help = match source.kind() {
                io::ErrorKind::NotFound => format!("; shipped policies are {}", shipped::names()),
                _ => String::new(),
            };
            PolicyError::File { path: path.to_owned(), source, help }
        };
        let file = trust::open(path).map_err(unreadable)?;
        trust::check(path, &file)?;
        let bytes = Self::bytes(file).map_err(unreadable)?;
        let begin = |what: &str| {
            let key = String::new();
            PolicyError::Line { path: path.to_owned(), line: 1, key, what: what.to_owned() }
        };
        if bytes.len() as u64 > LONGEST {
            return Err(begin(&format!("longer than {LONGEST} bytes: no policy")));
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(path, text),
            Err(error) => {
                let before = &bytes[..error.valid_up_to()];
                let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
                let (path, key) = (path.to_owned(), String::new());
                Err(PolicyError::Line { path, line, key, what: "not UTF-8: no policy".to_owned() })
            }
        }
    }

    fn bytes(file: File) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The shipped policy of this name, or else the file.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn find(name_or_path: &str) -> Result<Self, PolicyError> {
        match shipped::text(name_or_path) {
            Some(text) => Self::parse(Path::new(name_or_path), text),
            None => Self::read(Path::new(name_or_path)),
        }
    }

    /// Reads a text; `path` is what errors call it.
    ///
    /// # Errors
    /// [`PolicyError::Line`]
    pub fn parse(path: &Path, text: &str) -> Result<Self, PolicyError> {
        let written: Result<Written, _> = toml::from_str(text);
        let written = written.map_err(|error| {
            let what = error.message().replace('\n', "; ");
            check::Wrong { at: error.span().map_or(0, |span| span.start), what }
        });
        written.and_then(|written| check::policy(&written)).map_err(|check::Wrong { at, what }| {
            let before = &text.as_bytes()[..at.min(text.len())];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            // What it quotes may be anything.
            let what = what.replace(char::is_control, "?");
            PolicyError::Line { path: path.to_owned(), line, key: place::key(text, at), what }
        })
    }
}

impl Step {
    /// Whether it is one that acts, and that is taken whatever came of the step before.
    pub(super) fn acts_anyway(&self) -> bool {
        self.reaction.acts() && !self.if_failed
    }
}

#[cfg(test)]
mod tests;
