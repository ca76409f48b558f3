//! `septwatch check` and `septwatch diff` on recordings that were made for what they must find.
#![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

mod blessing;
mod checks;
mod diffs;
#[path = "../support/recording.rs"]
mod recording;

use std::{fs, path::PathBuf};

use clap::Parser;
use septwatch::commands::{BadInput, check, diff, exit};
use serde_json::Value;
use tempfile::TempDir;

use recording::Making;

#[derive(Parser)]
enum Command {
    Check(check::Args),
    Diff(diff::Args),
}

/// A folder, in which commands run.
struct Place(TempDir);

/// What a command came to.
struct Done {
    code: u8,
    out: String,
    /// Why it did not come to anything.
    wrong: String,
}

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, making: Making) {
        making.write(&self.path(name));
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Runs a command; words with a dot in them are names of files here.
    fn run(&self, line: &str) -> Done {
        let words = line.split(' ').map(|word| {
            let is_file = [".swt", ".toml", ".xml", ".md"].iter().any(|end| word.ends_with(end));
            if is_file { self.path(word).display().to_string() } else { word.to_owned() }
        });
        let words: Vec<_> = std::iter::once("septwatch".to_owned()).chain(words).collect();
        let mut out = Vec::new();
        let result = match Command::try_parse_from(words) {
            Ok(Command::Check(args)) => check::run(&args, &mut out),
            Ok(Command::Diff(args)) => diff::run(&args, &mut out),
            Err(error) => return Done { code: exit::USAGE, out: String::new(), wrong: error.to_string() },
        };
        let (code, wrong) = match result {
            Ok(code) => (code, String::new()),
            Err(error) => {
                assert!(error.is::<BadInput>(), "{error:?}");
                (exit::USAGE, error.to_string())
            }
        };
        let out = String::from_utf8(out).unwrap().replace(&format!("{}/", self.0.path().display()), "");
        Done { code, out, wrong: wrong.replace(&format!("{}/", self.0.path().display()), "") }
    }
}

impl Done {
    #[track_caller]
    fn exits(self, code: u8) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.wrong);
        self
    }

    #[track_caller]
    fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.out.contains(word), "no {word:?} in\n{}", self.out);
        }
        self
    }

    #[track_caller]
    fn complains(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.wrong.contains(word), "no {word:?} in {:?}", self.wrong);
        }
        self.exits(exit::USAGE)
    }

    fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
