//! A recording made inside a machine, replayed outside: it must say, line by line, what septwatch said inside.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::oracle::Finding;

/// The recording among a machine's files.
pub const FILE: &str = "septwatch.swt";

/// Makes septwatch record into [`FILE`], and print the same as when it only watches.
pub const OPTIONS: &str = "watch='record --output /out/septwatch.swt'\n";

/// Replays the recording in `folder`, holds it against what was said live, and checks it.
///
/// # Errors
/// The recording is not there, or septwatch cannot be run.
pub fn replayed(folder: &Path, live: &str, septwatch: &Path) -> Result<Vec<Finding>> {
    let run = |arguments: &[&str]| {
        let output = Command::new(septwatch).args(arguments).arg(folder.join(FILE)).output();
        let output = output.with_context(|| format!("cannot run {}", septwatch.display()))?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let again = run(&["replay", "--speed", "max", "--all-events", "--json"])?;
    let (live, again) = (events(live), events(&again));
    let first = live.iter().zip(&again).find(|(live, again)| live != again);
    let found = match first {
        Some((live, again)) => vec![format!("live {live}"), format!("replayed {again}")],
        None if live.len() != again.len() => {
            vec![format!("{} events live, {} replayed", live.len(), again.len())]
        }
        None => Vec::new(),
    };
    let same = Finding {
        what: "recording",
        equal: found.is_empty() && !live.is_empty(),
        expected: Vec::new(),
        found,
    };
    let checked: Value = serde_json::from_str(run(&["check", "--json"])?.lines().next().unwrap_or_default())
        .context("septwatch check printed no JSON")?;
    // What it found wrong with the TDs is the scenario's affair.
    let failed = |check: &&Value| check["passed"] != true && check["check"] != "violations";
    let checks = checked["checks"].as_array().context("septwatch check --json names no checks")?;
    let differences: Vec<String> = checks.iter().filter(failed).map(ToString::to_string).collect();
    let equal = differences.is_empty();
    Ok(vec![
        same,
        Finding { what: "check of the recording", equal, expected: Vec::new(), found: differences },
    ])
}

/// The lines that tell of events; the others tell of the run.
fn events(text: &str) -> Vec<&str> {
    let of_run = ["start", "recording", "end", "step"];
    let is_event = |line: &&str| {
        let object = serde_json::from_str::<Value>(line).unwrap_or_default();
        object["type"].as_str().is_some_and(|kind| !of_run.contains(&kind))
    };
    text.lines().filter(is_event).collect()
}

/// Puts a machine's recording where somebody wants it.
///
/// # Errors
/// There is none, or it cannot be copied.
pub fn keep(folder: &Path, name: &str, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let to = to.join(format!("{name}.swt"));
    fs::copy(folder.join(FILE), &to).with_context(|| format!("cannot write {}", to.display()))?;
    println!("recorded to {}", to.display());
    Ok(())
}
