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

/// From the SEAMCALL that failed, or the frame that was freed, until the reaction was done, in ns, by who did it. The
/// software module tells when the first was, septwatch when the second was, by the same clock.
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

/// What may happen to what was done, and to the policy.
const HAPPENED: [&str; 6] =
    ["freed-in-spite-of-hold", "hold-released", "uncordoned", "refused-reload", "reloaded", "disarmed"];

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
    let read = |name| fs::read_to_string(out.join(name)).unwrap_or_default();
    of_log(&read(AUDIT_LOG), &failures(&read("calls")), scenario.strip_prefix(SCENARIO).unwrap_or(scenario))
}

/// When SEAMCALLs failed, by the software module.
fn failures(calls: &str) -> Vec<u64> {
    let failed = calls.lines().filter(|line| {
        let status = line.split_once("-> 0x").and_then(|(_, rest)| rest.split(' ').next());
        // Bit 63 of the status.
        status.is_some_and(|digits| u64::from_str_radix(digits, 16).is_ok_and(|status| status >> 63 != 0))
    });
    failed.filter_map(|line| line.split_once(" ns=")?.1.split(' ').next()?.parse().ok()).collect()
}

fn of_log(log: &str, failures: &[u64], about: &str) -> Times {
    let done: Vec<Value> = steps(log).filter(|step| step["result"] == "done").collect();
    let time = |step: &Value| {
        let begun = step["violation_ns"].as_u64()?;
        let failed = failures.iter().rev().find(|ns| **ns <= begun)?;
        step["done_ns"].as_u64()?.checked_sub(*failed)
    };
    let first = |by: &str| {
        let by_it = || done.iter().filter(|step| step["by"] == by);
        let named = |step: &&Value| step["reaction"].as_str().is_some_and(|name| about.starts_with(name));
        by_it().find(named).or_else(|| by_it().next()).and_then(time)
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
{"reaction":"hold","by":"kernel","permit":"do","result":"done","violation_ns":5100,"done_ns":5200}
{"reaction":"hold","by":"agent","permit":"do","result":"done","violation_ns":5100,"done_ns":9000}
{"reaction":"stop","by":"agent","permit":"do","result":"done","violation_ns":5100,"done_ns":9500}
{"reaction":"stop","by":"agent","permit":"do","result":"done","violation_ns":5100,"done_ns":9900}
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
        const CALLS: &str = "\
1 ns=4000 cpu=0 pid=9 MEM_PAGE_REMOVE rcx=0x1 rdx=0x1 r8=0 -> 0x8000020000000092 rcx=0 rdx=0 rule=0
2 ns=5000 cpu=0 pid=9 MEM_PAGE_REMOVE rcx=0x1 rdx=0x1 r8=0 -> 0x8000020000000092 rcx=0 rdx=0 rule=0
3 ns=5050 cpu=0 pid=9 MEM_TRACK rcx=0x1 rdx=0x1 r8=0 -> 0x0000000000000000 rcx=0 rdx=0
4 ns=7000 cpu=0 pid=9 PHYMEM_PAGE_RECLAIM rcx=0x1 rdx=0x1 r8=0 -> 0xc000040000000000 rcx=0 rdx=0
";
        let failures = failures(CALLS);
        assert_eq!(failures, [4000, 5000, 7000]);
        assert_eq!(of_log(LOG, &failures, "stop"), Times { kernel: Some(200), agent: Some(4500) });
        assert_eq!(of_log(LOG, &failures, "hold-qemu"), Times { kernel: Some(200), agent: Some(4000) });
        assert_eq!(of_log(LOG, &[], "stop"), Times::default());
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
