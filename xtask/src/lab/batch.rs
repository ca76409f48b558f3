//! Many cases in one machine: septwatch is loaded once, and the software module forgets all between two cases.
//!
//! What the machine left is taken apart by case, so that a case has the files that a scenario's machine would have
//! left (`oracle` compares them), and keeps them where it differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::oracle::{Finding, JSON};
use super::runner::Work;
use super::scenario::Expectation;

/// One of many.
pub struct Case {
    pub name: String,
    /// For the lab's VMM.
    pub script: String,
    pub expected: Expectation,
}

/// The work of so many machines, each of which takes every so-manyth case. A machine for a few cases is not worth it.
pub fn parts(name: &str, cases: Vec<Case>, machines: usize) -> Vec<Work> {
    const FEW: usize = 4;
    let machines = machines.clamp(1, cases.len().div_ceil(FEW).max(1));
    if machines == 1 {
        return vec![Work::Cases(name.to_owned(), cases)];
    }
    let mut parts: Vec<Vec<Case>> = (0..machines).map(|_| Vec::new()).collect();
    for (n, case) in cases.into_iter().enumerate() {
        parts[n % machines].push(case);
    }
    let named = parts.into_iter().enumerate();
    named.map(|(n, cases)| Work::Cases(format!("{name}-{}", n + 1), cases)).collect()
}

/// The script of them all.
pub fn script(cases: &[Case]) -> String {
    cases.iter().map(|case| format!("case {}\n{}\nend\n", case.name, case.script.trim_end())).collect()
}

/// Makes the folders of the cases whole, in `out/cases`: every case gets its part of the machine's files.
///
/// # Errors
/// The machine left no such file, or a part cannot be written.
pub fn take_apart(out: &Path, cases: &[Case]) -> Result<()> {
    let read = |name: &str| {
        fs::read_to_string(out.join(name)).with_context(|| format!("the machine left no file `{name}`"))
    };
    let (vmm, log) = (read("vmm")?, read("dmesg")?);
    let spans = spans(&vmm);
    let mut septwatch =
        out.join(JSON).is_file().then(|| read(JSON)).transpose()?.map(|text| Verdicts::new(&text));
    for case in cases {
        let Some(span) = spans.get(case.name.as_str()) else { continue };
        let folder = out.join("cases").join(&case.name);
        let write = |name: &str, text: &str| {
            fs::write(folder.join(name), text)
                .with_context(|| format!("cannot write {name} of {}", case.name))
        };
        write("vmm", span.text)?;
        write("script", &case.script)?;
        write("dmesg", of_log(&log, &case.name))?;
        if let Some(septwatch) = &mut septwatch {
            write(JSON, &septwatch.of(span.begin_ns, span.end_ns))?;
            let owned = fs::read_to_string(folder.join("owned")).context("a case left no file `owned`")?;
            septwatch.forget(&owned);
        }
    }
    Ok(())
}

/// Whether the VMM could give all commands of a case, by the folder of the case.
///
/// # Errors
/// The VMM said nothing of it.
pub fn undisturbed(folder: &Path) -> Result<Finding> {
    let said = fs::read_to_string(folder.join("vmm")).context("the VMM said nothing of the case")?;
    let errors =
        said.lines().filter(|line| line.split(' ').nth(1) == Some("case") && line.contains("-> error "));
    let found: Vec<String> = errors.map(str::to_owned).collect();
    Ok(Finding { what: "VMM", equal: found.is_empty(), expected: Vec::new(), found })
}

/// What the VMM said of a case that came to its end.
struct Span<'a> {
    begin_ns: u64,
    end_ns: u64,
    text: &'a str,
}

/// The VMM marks begin and end of each case, with their times: see `tests/lab/vmm/src/script.rs`.
fn spans(vmm: &str) -> BTreeMap<&str, Span<'_>> {
    let mut spans = BTreeMap::new();
    let mut begun = None;
    let mut at = 0;
    for line in vmm.split_inclusive('\n') {
        let end = at + line.len();
        let mut words = line.split_whitespace();
        if let (Some(time), Some("case"), Some(name), Some("->"), Some(what)) =
            (words.next(), words.next(), words.next(), words.next(), words.next())
            && let Some(time_ns) = nanoseconds(time)
        {
            match what {
                "begin" => begun = Some((time_ns, at)),
                "end" => {
                    if let Some((begin_ns, from)) = begun.take() {
                        // The VMM's times are cut to microseconds.
                        spans.insert(name, Span { begin_ns, end_ns: time_ns + 999, text: &vmm[from..end] });
                    }
                }
                _ => {}
            }
        }
        at = end;
    }
    spans
}

/// `SECONDS.MICROSECONDS`
fn nanoseconds(text: &str) -> Option<u64> {
    let (seconds, micro) = text.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000_000 + micro.parse::<u64>().ok()? * 1000)
}

/// From the case's mark in the kernel log to the next.
fn of_log<'a>(log: &'a str, name: &str) -> &'a str {
    let mark = format!("lab: case {name}\n");
    let Some(from) = log.find(&mark).map(|at| at + mark.len()) else { return "" };
    let rest = &log[from..];
    &rest[..rest.find("lab: case ").unwrap_or(rest.len())]
}

/// septwatch's lines, given out case by case, in order.
///
/// The module forgets between two cases; septwatch, rightly, does not: what a TD was not made to give back is lent for
/// ever. So what it says of an *earlier* case's TD (its frames reused, say), and that a frame is lent twice which an
/// earlier case's TD still held, is the forgetting's doing, and no case's.
struct Verdicts {
    lines: Vec<(Value, u64)>,
    /// When each TD was created, by septwatch's number.
    created: BTreeMap<u64, u64>,
    /// Frames that the module was made to forget, or that septwatch takes for such.
    forgotten: BTreeSet<u64>,
    seen: BTreeSet<u64>,
}

impl Verdicts {
    fn new(text: &str) -> Self {
        let lines: Vec<(Value, u64)> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|line| line["time_ns"].as_u64().map(|time| (line, time)))
            .collect();
        let created = lines.iter().filter(|(line, _)| line["type"] == "td" && line["life"] == "created");
        let created = created.filter_map(|(line, time)| Some((line["td"].as_u64()?, *time))).collect();
        Self { lines, created, forgotten: BTreeSet::new(), seen: BTreeSet::new() }
    }

    /// The lines that belong to the case of this time.
    fn of(&mut self, begin_ns: u64, end_ns: u64) -> String {
        let mut text = String::new();
        for (line, time) in &self.lines {
            if !(begin_ns..=end_ns).contains(time) {
                continue;
            }
            let of_earlier = line["td"]
                .as_u64()
                .is_some_and(|td| self.created.get(&td).is_some_and(|created| *created < begin_ns));
            let twice = line["violation"] == "double-map"
                && line["pfn"].as_u64().is_some_and(|pfn| self.forgotten.contains(&pfn));
            if !of_earlier && !twice {
                text += &format!("{line}\n");
                if line["type"] == "violation" {
                    self.seen.extend(line["pfn"].as_u64());
                }
            }
        }
        text
    }

    /// The case is over, and the module forgets these frames.
    fn forget(&mut self, owned: &str) {
        let frames =
            owned.lines().filter_map(|line| line.split(' ').find_map(|word| word.strip_prefix("pfn=0x")));
        self.forgotten.extend(frames.filter_map(|digits| u64::from_str_radix(digits, 16).ok()));
        self.forgotten.append(&mut self.seen);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    const VMM: &str = "\
1.000000 case one -> begin
1.100000 vmm td a -> ok number=1
1.200000 vmm exit -> exit status: 0
2.000000 case one -> end
2.000001 case two -> begin
2.100000 case two -> error it broke
3.000000 case two -> end
3.500000 case three -> begin
";

    #[test]
    fn cases_are_told_apart() {
        let spans = spans(VMM);
        assert_eq!(spans.keys().copied().collect::<Vec<_>>(), ["one", "two"], "the third never ended");
        let one = &spans["one"];
        assert_eq!((one.begin_ns, one.end_ns), (1_000_000_000, 2_000_000_999));
        assert!(one.text.starts_with("1.000000 case one") && one.text.ends_with("case one -> end\n"));
        let log = "[1] lab: case one\n[1] a\n[2] b\n[3] lab: case two\n[3] c\n";
        assert_eq!(of_log(log, "one"), "[1] a\n[2] b\n[3] ");
        assert_eq!(of_log(log, "two"), "[3] c\n");
        assert_eq!(of_log(log, "on"), "");
    }

    #[test]
    fn a_verdict_about_an_earlier_case_is_no_cases() {
        let line = |time: u64, violation: &str, td: &str, pfn: u64| {
            format!(
                "{{\"type\":\"violation\",\"violation\":\"{violation}\",\"time_ns\":{time},\"td\":{td},\"pfn\":{pfn}}}\n"
            )
        };
        let created = |time: u64, td: u64| {
            format!("{{\"type\":\"td\",\"life\":\"created\",\"time_ns\":{time},\"td\":{td}}}\n")
        };
        let text = created(10, 1)
            + &line(11, "freed-while-mapped", "1", 5)
            + &created(20, 2)
            + &line(21, "reused-while-mapped", "1", 5)
            + &line(22, "double-map", "2", 6)
            + &line(23, "double-map", "2", 7)
            + &line(24, "double-map", "2", 5)
            + &line(25, "zap-failed", "null", 9);
        let mut verdicts = Verdicts::new(&text);
        let first = verdicts.of(10, 19);
        assert_eq!(first.lines().count(), 2);
        verdicts.forget("pfn=0x6 type=REG td=1\n");
        let second = verdicts.of(20, 29);
        let names: Vec<String> = second
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["type"] == "violation")
            .map(|line| format!("{} {}", line["violation"].as_str().unwrap(), line["pfn"]))
            .collect();
        assert_eq!(names, ["double-map 7", "zap-failed 9"]);
    }
}
