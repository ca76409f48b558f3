//! TDs that ran before septwatch: what was taken over of them, line by line, against the software module's own table of who
//! owns which frame; what audits said; and how long it took.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::oracle::{self, Finding};

/// `lab-compare NAME` leaves `NAME.ledger` and `NAME.owned` in this folder, `lab-audit` its answer as `NAME.audit`.
pub const FOLDER: &str = "cold";

const LEDGER: &str = "ledger = module";

/// What a frame is lent as, and where: kind, TD (by the frame of its TDR), guest frame and level of a leaf.
type Lent = (String, u64, Option<(u64, u64)>);

/// One finding for each comparison that the script made.
///
/// # Errors
/// A file cannot be read.
pub fn judge(out: &Path) -> Result<Vec<Finding>> {
    names(out, ".owned")?
        .into_iter()
        .map(|name| {
            let (ledger, module) = sides(out, &name)?;
            let different = ledger.iter().filter(|(pfn, lent)| module.get(pfn) != Some(lent));
            let mut found: Vec<String> =
                different.map(|(pfn, lent)| format!("ledger {pfn:#x} {lent:x?}")).collect();
            let missing = module.iter().filter(|(pfn, lent)| ledger.get(pfn) != Some(lent));
            found.extend(missing.map(|(pfn, lent)| format!("module {pfn:#x} {lent:x?}")));
            let equal = found.is_empty() && !module.is_empty();
            let count = found.len();
            found.truncate(8);
            let told = format!("{name}: {} frames, {count} differ", module.len());
            let expected = vec![format!("{name}: {} frames, 0 differ", module.len().max(1))];
            Ok(Finding { what: LEDGER, equal, expected, found: [vec![told], found].concat() })
        })
        .collect()
}

/// The names of the comparisons, or of the audits.
fn names(out: &Path, end: &str) -> Result<Vec<String>> {
    let folder = out.join(FOLDER);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let name = entry.with_context(|| format!("cannot read {}", folder.display()))?.file_name();
        names.extend(name.to_string_lossy().strip_suffix(end).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn read(out: &Path, name: &str) -> Result<String> {
    let path = out.join(FOLDER).join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

type Sides = (BTreeMap<u64, Lent>, BTreeMap<u64, Lent>);

fn sides(out: &Path, name: &str) -> Result<Sides> {
    Ok((of_ledger(&read(out, &format!("{name}.ledger"))?), of_module(&read(out, &format!("{name}.owned"))?)))
}

fn word<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `septwatch audit --lines`. An open line that is not that of a mapped leaf or an owned page is no lending of this kind.
fn of_ledger(text: &str) -> BTreeMap<u64, Lent> {
    let lines = || text.lines().filter(|line| line.starts_with("line "));
    let get = |line: &str, key: &str| number(word(line, key)?);
    let tdrs: BTreeMap<u64, u64> = lines()
        .filter(|line| word(line, "kind") == Some("Tdr"))
        .filter_map(|line| Some((get(line, "owner")?, get(line, "pfn")?)))
        .collect();
    let lent = |line: &str| {
        let kind = match (word(line, "kind")?, word(line, "state")?) {
            ("Leaf", "mapped") => "REG",
            ("Sept", "owned") => "EPT",
            ("Tdr", "owned") => "TDR",
            ("Tdcs" | "Tdcx", "owned") => "TDCX",
            ("Tdvpr", "owned") => "TDVPR",
            (_, state) => state,
        };
        let place = (kind == "REG").then(|| Some((get(line, "gfn")?, get(line, "level")?)));
        let td = tdrs.get(&get(line, "owner")?).copied().unwrap_or(0);
        Some((get(line, "pfn")?, (kind.to_owned(), td, place.flatten())))
    };
    lines().filter_map(lent).collect()
}

/// The module's `owned`.
fn of_module(text: &str) -> BTreeMap<u64, Lent> {
    let lent = |line: &str| {
        let get = |key: &str| number(word(line, key)?);
        let kind = word(line, "type")?;
        let place = (kind == "REG").then(|| Some((get("gpa")? >> 12, get("level")?)));
        Some((get("pfn")?, (kind.to_owned(), get("tdr")? >> 12, place.flatten())))
    };
    text.lines().filter_map(lent).collect()
}

/// What was taken over, TD by TD, and how the comparisons came out, as lines for people; nothing where no TD ran already.
pub fn table(out: &Path) -> String {
    let json = fs::read_to_string(out.join(oracle::JSON)).unwrap_or_default();
    let lines = json.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let walked: Vec<Value> = lines.filter(|line| line["type"] == "resynchronised").collect();
    let mut text = String::new();
    if !walked.is_empty() {
        let _ = writeln!(
            text,
            "  {:>4} {:>7} {:>9} {:>9} {:>10} {:>26}  came out",
            "TD", "tables", "frames", "entered", "ms", "CPU s per million frames"
        );
    }
    for line in &walked {
        let get = |key: &str| line[key].as_u64().unwrap_or(0);
        let (frames, us) = (get("frames"), get("took_us"));
        let per_million = if frames == 0 { 0.0 } else { get("cpu_us") as f64 / frames as f64 };
        let how = match &line["walked"] {
            Value::String(how) => how.clone(),
            other => other["suspect"].as_str().map_or_else(String::new, |why| format!("suspect: {why}")),
        };
        let _ = writeln!(
            text,
            "  {:>4} {:>7} {frames:>9} {:>9} {:>10.1} {per_million:>26.2}  {how}",
            get("td"),
            get("tables"),
            get("entered"),
            us as f64 / 1000.0,
        );
    }
    for finding in judge(out).into_iter().flatten() {
        let _ = writeln!(text, "  {LEDGER}: {}", finding.found.join("; "));
    }
    for name in names(out, ".audit").into_iter().flatten() {
        for line in read(out, &format!("{name}.audit")).unwrap_or_default().lines() {
            let _ = writeln!(text, "  audit {name}: {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    const OWNED: &str = "\
pfn=0x10 type=TDR td=1 tdr=0x10000 gpa=0 level=0 state=FREE
pfn=0x11 type=TDCX td=1 tdr=0x10000 gpa=0 level=0 state=FREE
pfn=0x20 type=REG td=1 tdr=0x10000 gpa=0x100000000 level=0 state=MAPPED
";
    const LINES: &str = "\
TD 1 (pid 7): 4 tables of KVM with 3 frames, 1 line of the ledger: equal
line pfn=0x10 owner=1 kind=Tdr level=0 gfn=0 state=owned walked=true
line pfn=0x11 owner=1 kind=Tdcs level=0 gfn=0 state=owned walked=true
line pfn=0x20 owner=1 kind=Leaf level=0 gfn=0x100000 state=mapped walked=true
";

    fn judged(owned: &str, lines: &str) -> Finding {
        let out = tempfile::tempdir().unwrap();
        fs::create_dir(out.path().join(FOLDER)).unwrap();
        fs::write(out.path().join(FOLDER).join("x.owned"), owned).unwrap();
        fs::write(out.path().join(FOLDER).join("x.ledger"), lines).unwrap();
        judge(out.path()).unwrap().remove(0)
    }

    #[test]
    fn each_frame_counts() {
        assert!(judged(OWNED, LINES).equal);
        let fewer: String = LINES.lines().take(3).map(|line| format!("{line}\n")).collect();
        assert!(!judged(OWNED, &fewer).equal);
        assert!(!judged(OWNED, &LINES.replace("gfn=0x100000", "gfn=0x100001")).equal);
        assert!(!judged(OWNED, &LINES.replace("state=mapped", "state=blocked")).equal);
        assert!(!judged(&OWNED.replace("pfn=0x20", "pfn=0x21"), LINES).equal);
        assert!(!judged("", "").equal, "what compares nothing proves nothing");
    }
}
