//! What came of checks, as text, Markdown and JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Told, Totals};
use crate::{
    commands::output::{cell, plain},
    regression::{
        check::{Check, Failure, time},
        run::Run,
    },
    view::{json, lines},
};

fn failed<'a>(checks: &'a [Check<'a>]) -> usize {
    checks.iter().filter(|check| !check.failures.is_empty()).count()
}

/// A recording in a few words.
fn about(run: &Run) -> String {
    let (records, violations, lost) = (run.records, run.total(), run.loss.total());
    format!(
        "{records} records, {violations} violations, {lost} lost, Linux {}",
        plain(&run.header.kernel.release)
    )
}

/// What failed, in a line.
pub fn headline(failure: &Failure<'_>) -> String {
    plain(&format!("{}: expected {}, found {}", failure.what, failure.expected, failure.found))
}

/// Violations of one failure that a person is shown; JUnit and JSON have more of them.
const SHOWN: usize = 3;

/// Where it failed: violations with their details and both stacks, at most so many of them, or what else is known of the
/// place.
pub fn details(failure: &Failure<'_>, most: usize) -> Vec<String> {
    let mut all: Vec<_> = failure.places.iter().map(|place| plain(place)).collect();
    for seen in failure.seen.iter().take(most) {
        let verdict = &seen.verdict;
        all.push(plain(&format!("{} ! {}", time(verdict.time_ns), lines::headline(verdict))));
        all.extend(lines::details(verdict, &seen.places).iter().map(|line| format!("    {}", plain(line))));
    }
    if failure.seen.len() > most {
        all.push("and more, which --junit and --json tell".to_owned());
    }
    all
}

/// One line for a file, then what failed.
pub fn text(name: &str, told: &Told<'_>) -> String {
    let (run, checks) = match told {
        Told::Checked(run, checks) => (run, checks),
        Told::Unreadable(why) => return format!("UNREADABLE {why}\n"),
    };
    let mut text = match failed(checks) {
        0 => format!("PASS {name}: {} checks; {}\n", checks.len(), about(run)),
        failed => format!("FAIL {name}: {failed} of {} checks failed; {}\n", checks.len(), about(run)),
    };
    for check in checks.iter() {
        for failure in &check.failures {
            let _ = writeln!(text, "  {}: {}", check.name, headline(failure));
            for line in details(failure, SHOWN) {
                let _ = writeln!(text, "    {line}");
            }
        }
    }
    text
}

/// The last line.
pub fn total(totals: Totals) -> String {
    let Totals { passed, failed, unreadable } = totals;
    format!("check: {passed} recordings passed, {failed} failed, {unreadable} could not be read")
}

/// One object for a file.
pub fn json(name: &str, told: &Told<'_>) -> Value {
    let (run, checks) = match told {
        Told::Checked(run, checks) => (run, checks),
        Told::Unreadable(why) => {
            return json!({"type": "check", "file": name, "result": "unreadable", "why": why});
        }
    };
    let result = if failed(checks) == 0 { "passed" } else { "failed" };
    let failure = |failure: &Failure<'_>| {
        let violations = failure.seen.iter().map(|seen| json::violation(&seen.verdict, &seen.places));
        json!({
            "what": failure.what,
            "expected": failure.expected,
            "found": failure.found,
            "places": failure.places,
            "violations": violations.collect::<Vec<_>>(),
        })
    };
    let check = |check: &Check<'_>| {
        let failures: Vec<_> = check.failures.iter().map(failure).collect();
        json!({"check": check.name, "passed": failures.is_empty(), "failures": failures})
    };
    json!({
        "type": "check",
        "file": name,
        "result": result,
        "kernel": run.header.kernel.release,
        "records": run.records,
        "records_not_known": run.unknown,
        "violations": run.total(),
        "lost": run.loss.total(),
        "verdicts_agreed": run.differences.agreed,
        "verdicts_not_compared": run.differences.not_compared,
        "checks": checks.iter().map(check).collect::<Vec<_>>(),
    })
}

/// A file's part of the step summary.
pub fn markdown_of(name: &str, told: &Told<'_>) -> String {
    let (run, checks) = match told {
        Told::Checked(run, checks) => (run, checks),
        Told::Unreadable(why) => return format!("- **unreadable** {}\n", cell(why)),
    };
    let about = cell(&about(run));
    let mut text = match failed(checks) {
        0 => format!("- passed {}: {about}\n", cell(name)),
        _ => format!("- **failed** {}: {about}\n", cell(name)),
    };
    for check in checks.iter() {
        for failure in &check.failures {
            let _ = writeln!(text, "  - {}: {}", check.name, cell(&headline(failure)));
            for line in details(failure, SHOWN) {
                let line = line.trim_start();
                let _ = writeln!(text, "    - {}", cell(line));
            }
        }
    }
    text
}

/// The whole step summary.
pub fn markdown(totals: Totals, files: &str) -> String {
    format!("### septwatch {}\n\n{files}\n", total(totals))
}
