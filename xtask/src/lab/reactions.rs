//! What septwatch did of its policy: its audit log against what was expected, how long it took, and the table of both.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::oracle::{self, Finding};
use super::timeline;

/// The audit log among a machine's files, all days in one.
pub const AUDIT_LOG: &str = "audit.jsonl";

/// How the names of the scenarios that are about reactions begin, and the name of all of them.
const SCENARIO: &str = "reaction-";
pub const GROUP: &str = "reactions";

/// Whether a scenario is one of the group.
pub fn is_of_group(scenario: &str) -> bool {
    scenario.starts_with(SCENARIO)
}

/// From the violation until the reaction was done, in ns, by who did it.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Times {
    pub kernel: Option<u64>,
    pub agent: Option<u64>,
}

/// One line of the table.
pub struct Row {
    /// Of the scenario.
    pub name: String,
    pub expected: String,
    pub seen: String,
    pub equal: bool,
    pub times: Times,
}

/// The lines of an audit log that are about a reaction.
fn steps(log: &str) -> impl Iterator<Item = Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["reaction"].is_string())
}

/// `REACTION BY PERMIT RESULT`; what nothing has come of has no result.
fn brief(step: &Value) -> String {
    let words = ["reaction", "by", "permit", "result"].iter().filter_map(|key| step[key].as_str());
    words.collect::<Vec<_>>().join(" ")
}

/// What may happen to what was done.
const HAPPENED: [&str; 3] = ["freed-in-spite-of-hold", "hold-released", "uncordoned"];

/// Exactly these steps, in the order in which each was there first.
pub fn audited(expected: &[String], log: &str) -> Finding {
    let mut found = Vec::<(String, u64)>::new();
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let what = match line["type"].as_str() {
            _ if line["reaction"].is_string() => brief(&line),
            Some(kind) if HAPPENED.contains(&kind) => kind.to_owned(),
            _ => continue,
        };
        // How many frames were held is known before; how many got away is not.
        let frames = if what == HAPPENED[0] { line["frames"].as_u64().unwrap_or(0) } else { 0 };
        match found.iter_mut().find(|(known, _)| *known == what) {
            Some((_, all)) => *all += frames,
            None => found.push((what, frames)),
        }
    }
    let found: Vec<String> = found
        .into_iter()
        .map(|(what, frames)| if frames == 0 { what } else { format!("{what} x{frames}") })
        .collect();
    Finding { what: oracle::AUDIT, equal: found == expected, expected: expected.to_vec(), found }
}

/// How long the reaction took that the scenario is named after; where it is named after none, the first that was done.
pub fn times(out: &Path, scenario: &str) -> Times {
    let log = fs::read_to_string(out.join(AUDIT_LOG)).unwrap_or_default();
    of_log(&log, scenario.strip_prefix(SCENARIO).unwrap_or(scenario))
}

fn of_log(log: &str, about: &str) -> Times {
    let done: Vec<Value> = steps(log).filter(|step| step["result"] == "done").collect();
    let first = |by: &str| {
        let by_it = || done.iter().filter(|step| step["by"] == by);
        let named = |step: &&Value| step["reaction"].as_str().is_some_and(|name| about.starts_with(name));
        by_it().find(named).or_else(|| by_it().next()).and_then(|step| step["latency_ns"].as_u64())
    };
    Times { kernel: first("kernel"), agent: first("agent") }
}

/// The table, by name: reaction, expected, seen, latency.
pub fn table(mut rows: Vec<Row>) -> String {
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let time = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), timeline::span);
    let mut lines = vec![["reaction", "expected", "seen", "in kernel", "by agent", ""].map(str::to_owned)];
    lines.extend(rows.into_iter().map(|row| {
        let name = row.name.strip_prefix(SCENARIO).unwrap_or(&row.name).to_owned();
        let mark = if row.equal { "equal" } else { "DIFFERENT" };
        [name, row.expected, row.seen, time(row.times.kernel), time(row.times.agent), mark.to_owned()]
    }));
    let widths: Vec<usize> =
        (0..lines[0].len()).map(|n| lines.iter().map(|line| line[n].len()).max().unwrap_or(0)).collect();
    let padded = |line: &[String; 6]| {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    lines.iter().map(padded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"{"event":"started"}
{"reaction":"hold","by":"kernel","permit":"do","result":"done","latency_ns":1200}
{"reaction":"hold","by":"agent","permit":"do","result":"done","latency_ns":900000}
{"reaction":"stop","by":"agent","permit":"do","result":"done","latency_ns":950000}
{"reaction":"stop","by":"agent","permit":"do","result":"done","latency_ns":990000}
"#;

    #[test]
    fn every_step_must_be_expected_and_there() {
        let all = ["hold kernel do done", "hold agent do done", "stop agent do done"].map(str::to_owned);
        assert!(audited(&all, LOG).equal);
        assert!(!audited(&all[..2], LOG).equal, "a step that nobody expected");
        assert!(!audited(&[all[1].clone(), all[0].clone(), all[2].clone()], LOG).equal, "another order");
        assert!(!audited(&all, "").equal);
    }

    #[test]
    fn frames_that_got_away_are_counted() {
        let line = r#"{"type":"freed-in-spite-of-hold","frames":1,"pfn":7}"#;
        let dry = r#"{"type":"decision","reaction":"stop","by":"agent","permit":"dry","result":null}"#;
        let log = format!("{line}\n{line}\n{dry}\n");
        let finding = audited(&["freed-in-spite-of-hold x2".to_owned(), "stop agent dry".to_owned()], &log);
        assert!(finding.equal, "{:?}", finding.found);
    }

    #[test]
    fn times_are_those_of_the_reaction_that_a_scenario_is_named_after() {
        assert_eq!(of_log(LOG, "stop"), Times { kernel: Some(1200), agent: Some(950_000) });
        assert_eq!(of_log(LOG, "hold-qemu"), Times { kernel: Some(1200), agent: Some(900_000) });
        assert_eq!(of_log("", "stop"), Times::default());
    }

    #[test]
    fn a_row_that_differs_is_marked() {
        let row = |name: &str, equal| Row {
            name: format!("reaction-{name}"),
            expected: "a".to_owned(),
            seen: "bbb".to_owned(),
            equal,
            times: Times { kernel: Some(1500), agent: None },
        };
        let text = table(vec![row("stop", false), row("hold", true)]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["hold", "a", "bbb", "1.5", "us", "-", "equal"]);
        assert_eq!(lines[2].last(), Some(&"DIFFERENT"));
    }
}
