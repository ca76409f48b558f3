//! Compares what a machine left behind with what was expected of it.
//!
//! Two oracles know the truth without septwatch: the software module's table of owned frames, and its record of
//! frames that the allocator took or gave while a TD owned them. septwatch's verdicts are compared as a third.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::adds;
use super::cold;
use super::frames::Frames;
use super::latencies;
use super::reactions;
use super::scenario::Expectation;

/// One thing that was compared.
pub struct Finding {
    pub what: &'static str,
    pub expected: Vec<String>,
    pub found: Vec<String>,
    pub equal: bool,
}

impl Finding {
    /// Whether it is about a reaction itself.
    pub fn is_of_reaction(&self) -> bool {
        [ENDED, AUDIT, NOTE, BACK].contains(&self.what)
    }

    /// One side of it in a few words for a table: `2 owned`, `1 freed-while-owned`; none where there is nothing.
    pub fn brief(&self, side: fn(&Self) -> &[String]) -> Option<String> {
        let list = side(self);
        match self.what {
            FRAMES => {
                let mut counts = BTreeMap::<&str, u64>::new();
                for line in list {
                    let count = line.rsplit_once(" x").and_then(|(_, count)| count.parse().ok()).unwrap_or(0);
                    *counts.entry(line.split(' ').next().unwrap_or_default()).or_default() += count;
                }
                let parts: Vec<String> = counts
                    .iter()
                    .map(|(what, count)| format!("{count} {}", what.trim_end_matches("-while-owned")))
                    .collect();
                (!parts.is_empty()).then(|| parts.join(", "))
            }
            OWNED => {
                let counts = list.iter().filter_map(|line| line.rsplit_once(" x")?.1.parse::<u64>().ok());
                Some(counts.sum::<u64>()).filter(|sum| *sum > 0).map(|sum| format!("{sum} still owned"))
            }
            ENDED | AUDIT | NOTE => (!list.is_empty()).then(|| list.join(", ")),
            BACK => (!list.is_empty()).then(|| format!("frames back: {}", list.join(" "))),
            SEPTWATCH => (!list.is_empty()).then(|| format!("{} verdicts", list.len())),
            _ => None,
        }
    }
}

const FRAMES: &str = "frames";
const FREED: &str = "freed while owned, at least";
const OWNED: &str = "owned at the end";
const SEPTWATCH: &str = "septwatch";
pub const ENDED: &str = "the machine's end";
pub const AUDIT: &str = "audit log";
pub const NOTE: &str = "dump";
const BACK: &str = "frames back";

/// What a kernel log must not hold when nothing is expected of it.
pub const COMPLAINTS: [&str; 6] = ["WARNING:", "BUG:", "Oops", "SEAMCALL", "Call Trace", "KVM_BUG"];

/// All comparisons for the files of a machine that ran one scenario, in which septwatch measured `latency` or did not.
///
/// # Errors
/// A file is missing: the machine did not get as far as it said.
pub fn judge(folder: &Path, expected: &Expectation, latency: bool) -> Result<Vec<Finding>> {
    let read = |name: &str| read(folder, name);
    let mut findings = compare(folder, expected)?;
    findings.push(exit_code(folder)?);
    findings.push(back(&expected.back, &read("vmm")?));
    if let Some(most) = expected.adds {
        findings.push(adds::bounded(most, &read("vmm")?));
    }
    if expected.waits {
        findings.push(adds::waits(&read("septwatch.err")?));
    }
    if let Some(most) = expected.slower {
        findings.push(adds::slower(most, &read("vmm")?));
    }
    findings.extend(cold::judge(folder)?);
    if folder.join(reactions::AUDIT_LOG).is_file() || !expected.audit.is_empty() {
        findings.push(reactions::audited(&expected.audit, &read(reactions::AUDIT_LOG)?));
    }
    if folder.join(JSON).is_file() {
        findings.push(whole(&read(JSON)?));
        if latency {
            findings.push(latencies::measured(&read("calls")?, &read(JSON)?));
        }
        // 0: nothing wrong was seen, 1: a violation was.
        let code = read("septwatch.code")?.trim().to_owned();
        let wanted = if expected.verdicts.is_empty() { "0" } else { "1" };
        if code != wanted {
            let said = read("septwatch.err")?.lines().last().unwrap_or_default().to_owned();
            findings.push(different("septwatch's exit code", wanted, &format!("{code} {said}")));
        }
    }
    Ok(findings)
}

/// Whether the VMM could do what it was told.
///
/// # Errors
/// It left no exit code.
pub fn exit_code(folder: &Path) -> Result<Finding> {
    Ok(same("VMM's exit code", "0", read(folder, "vmm.code")?.trim()))
}

/// What the oracles and septwatch say of a scenario or a case, by the files in its folder.
///
/// # Errors
/// A file is missing.
pub fn compare(folder: &Path, expected: &Expectation) -> Result<Vec<Finding>> {
    let read = |name: &str| read(folder, name);
    let mut frames = read("frames")?;
    if frames.starts_with('#') {
        return Ok(vec![different(FRAMES, "all of them", frames.lines().next().unwrap_or_default())]);
    }
    let truth = Frames::of_module(&frames);
    if expected.loose {
        frames = frames
            .lines()
            .filter(|line| !line.starts_with("reused"))
            .map(|line| format!("{line}\n"))
            .collect();
    }
    let mut findings = match expected.freed_at_least {
        Some(least) => {
            let freed = truth.freed.len();
            let what = |count| vec![format!("{count} freed")];
            vec![Finding { what: FREED, equal: freed >= least, expected: what(least), found: what(freed) }]
        }
        None => vec![
            counted(OWNED, &expected.owned, &read("owned")?, &["type", "state"], false),
            counted(FRAMES, &expected.frames, &frames, &["type", "state"], true),
        ],
    };
    findings.push(in_order("calls", &expected.calls, &read("vmm")?));
    findings.push(in_order("seamcalls", &expected.seamcalls, &read("calls")?));
    if !expected.loose {
        findings.push(kernel_log(&expected.dmesg, &read("dmesg")?));
    }
    if folder.join(JSON).is_file() {
        let text = read(JSON)?;
        findings.push(verdicts(expected, &text));
        findings.extend(truth.against(&Frames::of_septwatch(&text), expected));
    }
    Ok(findings)
}

fn read(folder: &Path, name: &str) -> Result<String> {
    fs::read_to_string(folder.join(name)).with_context(|| format!("the machine left no file `{name}`"))
}

/// That septwatch watched from the beginning to the end, and that nothing was lost. (Releases that it missed are not
/// looked for: whether one of them mattered is what the comparison of frames tells.)
pub fn whole(text: &str) -> Finding {
    let lines = || text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let said =
        match (lines().find(|line| line["type"] == "start"), lines().find(|line| line["type"] == "end")) {
            (None, _) => "did not start".to_owned(),
            (_, None) => "did not end".to_owned(),
            (_, Some(end)) => {
                let lost = [
                    ("vital records lost", &end["vital_records"]["lost"]),
                    ("page records lost", &end["page_records"]["lost"]),
                    ("frames outside the ledger", &end["frames_outside_the_ledger"]),
                    ("calls not read", &end["calls_not_read"]),
                ];
                let lost = lost.iter().filter(|(_, count)| count.as_u64() != Some(0));
                let lost: Vec<String> = lost.map(|(what, count)| format!("{count} {what}")).collect();
                if lost.is_empty() { NOTHING_LOST.to_owned() } else { lost.join(", ") }
            }
        };
    same("septwatch's records", NOTHING_LOST, &said)
}

const NOTHING_LOST: &str = "nothing lost";

/// septwatch's output among a machine's files.
pub const JSON: &str = "septwatch.json";

pub fn same(what: &'static str, expected: &str, found: &str) -> Finding {
    Finding { equal: expected == found, ..different(what, expected, found) }
}

fn different(what: &'static str, expected: &str, found: &str) -> Finding {
    Finding { what, expected: vec![expected.to_owned()], found: vec![found.to_owned()], equal: false }
}

/// How many frames (`pfn=`) have lines with the same values of these keys and, when asked, the same first word. A
/// frame that was freed, reused and freed again counts once as freed: how often depends on who took it.
fn counted(what: &'static str, expected: &[String], text: &str, keys: &[&str], first: bool) -> Finding {
    let mut counts = BTreeMap::<String, BTreeSet<&str>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let value = |key: &&str| line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let head = line.split(' ').next().filter(|_| first);
        let words: Vec<&str> = head.into_iter().chain(keys.iter().filter_map(value)).collect();
        counts.entry(words.join(" ")).or_default().extend(value(&"pfn"));
    }
    let found: Vec<String> =
        counts.iter().map(|(words, frames)| format!("{words} x{}", frames.len())).collect();
    let mut sorted = expected.to_vec();
    sorted.sort();
    Finding { what, equal: sorted == found, expected: sorted, found }
}

/// Each part must be in a line after that of the part before it.
pub fn in_order(what: &'static str, expected: &[String], text: &str) -> Finding {
    let mut lines = text.lines();
    let found: Vec<String> = expected
        .iter()
        .map_while(|part| lines.find(|line| line.contains(part.as_str())).map(|_| part.clone()))
        .collect();
    Finding { what, equal: found.len() == expected.len(), expected: expected.to_vec(), found }
}

/// What the script's commands `back` answered, each its first word.
fn back(expected: &[String], vmm: &str) -> Finding {
    let answers = vmm.lines().filter_map(|line| line.split_once(" back -> ")?.1.strip_prefix("ok "));
    let found: Vec<String> = answers.filter_map(|said| Some(said.split(' ').next()?.to_owned())).collect();
    Finding { what: BACK, equal: found == expected, expected: expected.to_vec(), found }
}

fn kernel_log(expected: &[String], text: &str) -> Finding {
    if !expected.is_empty() {
        return in_order("kernel log", expected, text);
    }
    let complaints: Vec<String> = text
        .lines()
        .filter(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)))
        .map(str::to_owned)
        .collect();
    Finding { what: "kernel log", expected: Vec::new(), equal: complaints.is_empty(), found: complaints }
}

/// septwatch's JSON lines: what it names in lines of the type `violation`, with a mark if it is not certain.
fn verdicts(expected: &Expectation, text: &str) -> Finding {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let violations = lines.filter(|line| line["type"] == "violation");
    let found: BTreeSet<String> = violations
        .map(|line| {
            let name = line["violation"].as_str().unwrap_or("?");
            if line["confidence"] == "certain" { name.to_owned() } else { format!("{name} (suspect)") }
        })
        .filter(|name| !expected.loose || name != "reused-while-mapped")
        .collect();
    let wanted: BTreeSet<String> = expected.verdicts.iter().cloned().collect();
    Finding {
        what: SEPTWATCH,
        equal: found == wanted,
        expected: wanted.into_iter().collect(),
        found: found.into_iter().collect(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    pub(in crate::lab) const FRAMES_FILE: &str = "\
freed-while-owned ns=1 call=2 pfn=0x1 type=REG td=1 gpa=0x1 level=0 state=BLOCKED pid=1 comm=x
# a remark
reused-while-owned ns=2 call=2 pfn=0x1 type=REG td=1 gpa=0x1 level=0 state=BLOCKED pid=1 comm=y
freed-while-owned ns=3 call=2 pfn=0x1 type=REG td=1 gpa=0x1 level=0 state=BLOCKED pid=1 comm=x
freed-while-owned ns=3 call=2 pfn=0x2 type=REG td=1 gpa=0x2 level=0 state=BLOCKED pid=1 comm=x
";

    #[test]
    fn frames_are_counted() {
        let want = strings(&["reused-while-owned REG BLOCKED x1", "freed-while-owned REG BLOCKED x2"]);
        assert!(counted("frames", &want, FRAMES_FILE, &["type", "state"], true).equal);
        let less = strings(&["freed-while-owned REG BLOCKED x2"]);
        assert!(!counted("frames", &less, FRAMES_FILE, &["type", "state"], true).equal);
        assert!(
            counted("owned", &strings(&["REG BLOCKED x2"]), FRAMES_FILE, &["type", "state"], false).equal
        );
        assert!(counted("owned", &[], "", &["type", "state"], false).equal);
    }

    #[test]
    fn a_finding_is_brief_in_the_table() {
        let want = strings(&["freed-while-owned REG BLOCKED x2", "reused-while-owned REG BLOCKED x1"]);
        let finding = counted(FRAMES, &want, FRAMES_FILE, &["type", "state"], true);
        assert_eq!(finding.brief(|finding| &finding.expected).as_deref(), Some("2 freed, 1 reused"));
        let owned = counted(OWNED, &[], FRAMES_FILE, &["type", "state"], false);
        assert_eq!(owned.brief(|finding| &finding.found).as_deref(), Some("2 still owned"));
        assert_eq!(owned.brief(|finding| &finding.expected), None);
    }

    #[test]
    fn order_counts() {
        assert!(in_order("x", &strings(&["a", "b"]), "1 a\n2\n3 b\n").equal);
        assert!(!in_order("x", &strings(&["b", "a"]), "1 a\n2\n3 b\n").equal);
        assert!(!in_order("x", &strings(&["a", "a"]), "1 a\n").equal);
    }

    #[test]
    fn what_came_back_is_compared_answer_by_answer() {
        let vmm = "1.0 vmm watch a -> ok none watched=8 back=0\n1.1 vmm back -> ok none watched=8 back=0\n\
                   1.2 other back -> ok all watched=8 back=8 pfn=0x1\n";
        assert!(back(&strings(&["none", "all"]), vmm).equal);
        assert!(!back(&strings(&["none"]), vmm).equal);
        assert!(!back(&[], vmm).equal);
    }

    #[test]
    fn a_quiet_kernel_log_is_the_default() {
        assert!(kernel_log(&[], "[ 1.0] virt/tdx: BIOS enabled\n").equal);
        assert!(!kernel_log(&[], "[ 1.0] WARNING: CPU: 0 PID: 1 at tdx.c\n").equal);
        assert!(kernel_log(&strings(&["WARNING"]), "[ 1.0] WARNING: CPU: 0\n").equal);
    }

    #[test]
    fn verdicts_are_a_set() {
        let line = |name, confidence| {
            format!("{{\"type\":\"violation\",\"violation\":\"{name}\",\"confidence\":\"{confidence}\"}}\n")
        };
        let text =
            line("zap-failed", "certain") + &line("zap-failed", "certain") + "{\"type\":\"end\"}\nno json\n";
        let text = text.as_str();
        let want = |list: &[&str]| Expectation { verdicts: strings(list), ..Expectation::default() };
        assert!(verdicts(&want(&["zap-failed"]), text).equal);
        assert!(!verdicts(&want(&[]), text).equal);
        assert!(!verdicts(&want(&["zap-failed"]), &line("zap-failed", "suspect")).equal);
        let reused = line("reused-while-mapped", "certain");
        assert!(!verdicts(&want(&[]), &reused).equal);
        assert!(verdicts(&Expectation { loose: true, ..want(&[]) }, &reused).equal);
    }

    #[test]
    fn a_lost_record_shows() {
        let start = "{\"type\":\"start\"}\n";
        let end = "{\"type\":\"end\",\"vital_records\":{\"lost\":0},\"page_records\":{\"lost\":0},\"frames_outside_the_ledger\":0,\"calls_not_read\":0}\n";
        assert!(whole(&(start.to_owned() + end)).equal);
        assert_eq!(whole(start).found, ["did not end"]);
        assert_eq!(whole(end).found, ["did not start"]);
        let lost = start.to_owned()
            + &end.replace("\"vital_records\":{\"lost\":0}", "\"vital_records\":{\"lost\":3}");
        assert_eq!(whole(&lost).found, ["3 vital records lost"]);
    }
}
