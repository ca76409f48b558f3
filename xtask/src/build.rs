//! Building the `septwatch` binary. Its build script compiles the eBPF object and embeds it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::step::seconds;
use crate::{run, setup};

/// What is tested beside what is shipped: features of septwatch, as cargo has them for a workspace.
pub const TESTED: [&str; 2] = ["--features", "septwatch/otlp"];

/// What is shipped, as cargo has it.
const BINARY: [&str; 2] = ["--bin", "septwatch"];

/// Builds the release binary as it is shipped and returns its path.
///
/// # Errors
/// The build fails; cargo has shown why.
pub fn septwatch() -> Result<PathBuf> {
    build(&BINARY)
}

/// Builds the release binary with all that is tested and returns its path, which is the same.
///
/// # Errors
/// The build fails; cargo has shown why.
pub fn tested() -> Result<PathBuf> {
    build(&[&BINARY[..], &TESTED].concat())
}

/// Builds a release binary whose eBPF programs are others, for measurements, and returns its path, which is its own: `empty`
/// ones do nothing, the `least` is what could keep a ledger.
///
/// # Errors
/// The build fails; cargo has shown why.
pub fn with_programs(name: &str) -> Result<PathBuf> {
    let feature = format!("septwatch/{name}-programs");
    let built = build(&[&BINARY[..], &["--features", &feature]].concat())?;
    let kept = built.with_file_name(format!("septwatch-{name}"));
    fs::copy(&built, &kept).with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(kept)
}

/// Builds one of septwatch's examples, and returns its path.
///
/// # Errors
/// The build fails; cargo has shown why.
pub fn example(name: &str) -> Result<PathBuf> {
    build(&["--example", name])
}

fn build(what: &[&str]) -> Result<PathBuf> {
    let start = Instant::now();
    let mut cargo = setup::cargo()?;
    cargo.args(["build", "--locked", "--release", "--package", "septwatch"]);
    cargo.args(what);
    // The messages name the executable, wherever the person's cargo configuration lets targets go.
    cargo.arg("--message-format=json-render-diagnostics").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = cargo.spawn().with_context(|| format!("cannot run `{}`", run::line(&cargo)))?;
    let mut executable = None;
    if let Some(messages) = child.stdout.take() {
        for message in BufReader::new(messages).lines() {
            executable = executable.or(executable_in(&message.context("cannot read cargo's messages")?));
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{}`: {status}", run::line(&cargo));
    }
    let executable = executable.context("cargo named no executable")?;
    println!("septwatch: {}, built in {}", executable.display(), seconds(start.elapsed()));
    Ok(executable)
}

fn executable_in(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    message.get("executable")?.as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_in_cargos_messages() {
        let artifact =
            r#"{"reason":"compiler-artifact","target":{"name":"septwatch"},"executable":"/t/septwatch"}"#;
        assert_eq!(executable_in(artifact), Some(PathBuf::from("/t/septwatch")));
        for other in [r#"{"reason":"compiler-artifact","executable":null}"#, "{}", "no JSON", ""] {
            assert_eq!(executable_in(other), None);
        }
    }
}
