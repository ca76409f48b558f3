//! `septwatch policy log`: what was done about violations, by whom, and when.

use std::{io::Write, path::PathBuf};

use anyhow::Result;
use serde_json::Value;

use crate::{
    commands::{BadInput, exit, output::plain},
    policy::audit::{self, Day},
    view::lines::span,
};

/// Shows the audit log: every decision of a policy and what came of it, and who armed, disarmed and released.
///
/// Exit code 0; 2: there is no log there, or none of that day.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only this day, in UTC, as in 2026-11-25.
    #[arg(long, value_name = "DAY")]
    pub day: Option<String>,
    /// Folder of the log.
    #[arg(long, value_name = "DIR", default_value = audit::FOLDER)]
    pub audit: PathBuf,
    /// Print the lines as they are: one JSON object each.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// The log cannot be read, or nothing is written to.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    for day in days(args)? {
        let lines =
            audit::read(&day.path).map_err(|error| BadInput(format!("{}: {error}", day.path.display())))?;
        for line in lines {
            match line {
                Ok(line) if args.json => writeln!(out, "{line}")?,
                Ok(line) => writeln!(out, "{}", told(&line))?,
                // A crash tore it: what there is of it is for people.
                Err(torn) => {
                    eprintln!("septwatch: {}: a line that is not whole: {}", day.path.display(), plain(&torn))
                }
            }
        }
    }
    Ok(exit::OK)
}

fn days(args: &Args) -> Result<Vec<Day>> {
    let folder = args.audit.display();
    let all = audit::days(&args.audit).map_err(|error| BadInput(format!("--audit {folder}: {error}")))?;
    let Some(wanted) = &args.day else { return Ok(all) };
    let found: Vec<_> = all.into_iter().filter(|day| day.day == *wanted).collect();
    if found.is_empty() {
        return Err(
            BadInput(format!("--day {wanted}: {folder} has no such day; a day is as in 2026-11-25")).into()
        );
    }
    Ok(found)
}

/// A line, in words.
pub fn told(line: &Value) -> String {
    let text = |key: &str| line[key].as_str().unwrap_or_default();
    let time = text("time");
    let td = line["td"].as_u64().map(|td| format!(" TD {td}")).unwrap_or_default();
    let hex = |key: &str| line[key].as_u64().map(|number| format!(" {key} {number:#x}")).unwrap_or_default();
    let frame = hex("pfn") + &hex("gfn");
    let detail = if text("detail").is_empty() { String::new() } else { format!(": {}", text("detail")) };
    let told = if text("type") == "decision" {
        let came = match (text("permit"), text("result")) {
            ("do", "") => "asked".to_owned(),
            ("do", result) => result.to_owned(),
            (permit, _) => format!("{permit} ({})", text("why")),
        };
        let took =
            line["latency_ns"].as_u64().map(|ns| format!(", {} after it", span(ns))).unwrap_or_default();
        format!(
            "{} {}{td}{frame}: {} step {} of {} rule {} by {}: {came}{took}{detail}",
            text("violation"),
            text("confidence"),
            text("reaction"),
            line["step"],
            text("policy"),
            text("rule"),
            text("by"),
        )
    } else {
        let (who, violation) = (&line["who"], text("violation"));
        let of = line["policy"].as_str().map(|policy| format!(" {policy}")).unwrap_or_default();
        let violation = if violation.is_empty() { String::new() } else { format!(" {violation}") };
        format!("{}{of}{td}{violation}{frame} by uid {} pid {}{detail}", text("type"), who["uid"], who["pid"])
    };
    // What a command printed may be in it.
    plain(&format!("{time} {told}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::told;

    #[test]
    fn lines_are_in_words() {
        let step = json!({
            "time": "2026-11-25T01:33:14.157724877Z", "type": "decision", "policy": "contain", "rule": "a failed zap",
            "step": 1, "reaction": "hold", "violation": "zap-failed", "confidence": "certain", "td": 3, "pfn": 4660,
            "gfn": null, "permit": "do", "why": null, "by": "kernel", "result": "done", "detail": "a\nb",
            "latency_ns": 900,
        });
        assert_eq!(
            told(&step),
            "2026-11-25T01:33:14.157724877Z zap-failed certain TD 3 pfn 0x1234: hold step 1 of contain rule a failed zap \
             by kernel: done, 900 ns after it: a?b"
        );
        let mut dry = step.clone();
        (dry["permit"], dry["why"]) = (json!("dry"), json!("not armed"));
        (dry["result"], dry["latency_ns"], dry["detail"]) = (json!(null), json!(null), json!(""));
        assert!(told(&dry).ends_with("by kernel: dry (not armed)"), "{}", told(&dry));
        let event = json!({ "time": "T", "type": "armed", "policy": "contain", "who": { "uid": 0, "pid": 7 }, "detail": "" });
        assert_eq!(told(&event), "T armed contain by uid 0 pid 7");
    }
}
