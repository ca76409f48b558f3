//! The fault matrix: leaf × kind of fault × way of release, made into cases from `tests/lab/matrix.toml`. What must
//! come of each is there, too: nothing in here knows it.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::batch::Case;
use super::place;
use super::scenario::Expectation;

/// The file. Field names are its keys, which it describes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Matrix {
    status: BTreeMap<String, String>,
    operand: BTreeMap<String, String>,
    way: BTreeMap<String, Vec<String>>,
    leaf: Vec<Leaf>,
    rule: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Leaf {
    name: String,
    /// The SEAMCALL, where the name is more than that.
    seamcall: Option<String>,
    page: u64,
    rule: String,
    before: Vec<String>,
    #[serde(default)]
    then: Vec<String>,
    /// All when empty.
    #[serde(default)]
    ways: Vec<String>,
    busy: String,
    statuses: Vec<String>,
    lies: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    leaf: Vec<String>,
    #[serde(default)]
    kind: Vec<String>,
    #[serde(default)]
    way: Vec<String>,
    #[serde(default)]
    kernel: Vec<String>,
    owned: Option<Vec<String>>,
    freed: Option<Vec<String>>,
    verdicts: Option<Vec<String>>,
    hidden: Option<usize>,
    believed: Option<usize>,
}

/// One way in which a leaf can fail.
struct Kind {
    name: String,
    /// Whether it is one of the leaf's statuses.
    status: bool,
    /// What the software module's rule says of it.
    fault: String,
}

/// All cases for this kernel.
///
/// # Errors
/// The file cannot be read, is no matrix, or has a rule that no case of any kernel can meet.
pub fn cases(kernel: &str) -> Result<Vec<Case>> {
    let path = place::tests_lab().join("matrix.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    read(&text, kernel).with_context(|| format!("{}", path.display()))
}

fn read(text: &str, kernel: &str) -> Result<Vec<Case>> {
    let matrix: Matrix = toml::from_str(text)?;
    let mut cases = Vec::new();
    let mut met = vec![false; matrix.rule.len()];
    for leaf in &matrix.leaf {
        let all: Vec<String> = matrix.way.keys().cloned().collect();
        let ways = if leaf.ways.is_empty() { &all } else { &leaf.ways };
        for kind in kinds(&matrix, leaf).with_context(|| format!("leaf {}", leaf.name))? {
            for way in ways {
                let mut expected = Expectation { loose: true, ..Expectation::default() };
                for (rule, met) in matrix.rule.iter().zip(&mut met) {
                    if rule.is_for(leaf, &kind, way) {
                        *met = true;
                        if rule.is_on(kernel) {
                            rule.tell(&mut expected);
                        }
                    }
                }
                let name = format!("{}.{}.{way}", leaf.name, kind.name);
                cases.push(Case { name, script: script(&matrix, leaf, &kind, way)?, expected });
            }
        }
    }
    if let Some(at) = met.iter().position(|met| !met) {
        bail!("rule {} of {} is for no case", at + 1, met.len());
    }
    Ok(cases)
}

fn script(matrix: &Matrix, leaf: &Leaf, kind: &Kind, way: &str) -> Result<String> {
    let way = matrix.way.get(way).with_context(|| format!("leaf {}: there is no way `{way}`", leaf.name))?;
    let seamcall = leaf.seamcall.as_ref().unwrap_or(&leaf.name);
    let fault = format!("inject leaf={seamcall} {} {}", leaf.rule, kind.fault);
    let page = leaf.page.to_string();
    let lines = leaf.before.iter().chain([&fault]).chain(&leaf.then).chain(way);
    Ok(lines.map(|line| line.replace("{page}", &page) + "\n").collect())
}

fn kinds(matrix: &Matrix, leaf: &Leaf) -> Result<Vec<Kind>> {
    let busy = matrix.status_word(&leaf.busy)?;
    let mut kinds: Vec<Kind> = [("busy-once", 1), ("busy-twice", 2)]
        .into_iter()
        .map(|(name, times)| Kind {
            name: name.to_owned(),
            status: false,
            fault: format!("status={busy:#x} times={times}"),
        })
        .collect();
    let mut last = busy;
    for words in &leaf.statuses {
        last = matrix.status_word(words)?;
        kinds.push(Kind { name: words.replace(' ', "-"), status: true, fault: format!("status={last:#x}") });
    }
    for lie in &leaf.lies {
        let status = if lie == "denies" { format!(" status={last:#x}") } else { String::new() };
        kinds.push(Kind { name: format!("lie-{lie}"), status: false, fault: format!("lie={lie}{status}") });
    }
    Ok(kinds)
}

impl Matrix {
    /// The number of `STATUS` or `STATUS OPERAND`.
    fn status_word(&self, words: &str) -> Result<u64> {
        let (status, operand) = words.split_once(' ').map_or((words, None), |(a, b)| (a, Some(b)));
        let number = |table: &BTreeMap<String, String>, name: &str| {
            let text = table.get(name).with_context(|| format!("`{words}`: {name} has no number"))?;
            let digits = text.strip_prefix("0x");
            let number = digits.map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16));
            number.with_context(|| format!("{name}: `{text}` is no number"))
        };
        let operand = operand.map_or(Ok(0), |name| number(&self.operand, name))?;
        ensure!(operand >> 32 == 0, "`{words}`: an operand has 32 bits");
        Ok(number(&self.status, status)? | operand)
    }
}

impl Rule {
    fn is_for(&self, leaf: &Leaf, kind: &Kind, way: &str) -> bool {
        let any_of = |list: &[String], name: &str| list.is_empty() || list.iter().any(|item| item == name);
        let kind =
            any_of(&self.kind, &kind.name) || (kind.status && self.kind.iter().any(|item| item == "status"));
        any_of(&self.leaf, &leaf.name) && kind && any_of(&self.way, way)
    }

    /// A tree by path counts as the newest, for which no rule is special.
    fn is_on(&self, kernel: &str) -> bool {
        self.kernel.is_empty() || self.kernel.iter().any(|release| release == kernel)
    }

    fn tell(&self, expected: &mut Expectation) {
        let set = |to: &mut Vec<String>, from: &Option<Vec<String>>| {
            if let Some(list) = from {
                to.clone_from(list);
            }
        };
        set(&mut expected.owned, &self.owned);
        set(&mut expected.frames, &self.freed);
        set(&mut expected.verdicts, &self.verdicts);
        expected.hidden = self.hidden.unwrap_or(expected.hidden);
        expected.believed = self.believed.unwrap_or(expected.believed);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    const SMALL: &str = r#"
way.punch = ["punch a {page} 1"]
way.kill = ["kill vmm"]
status.TD_FATAL = "0xe000060400000000"
status.OPERAND_BUSY = "0x8000020000000000"
operand.RCX = "1"
[[leaf]]
name = "MEM_TRACK"
page = 3
rule = "skip=1"
before = ["td a"]
busy = "OPERAND_BUSY RCX"
statuses = ["TD_FATAL"]
lies = ["nothing", "denies"]
[[rule]]
kind = ["status", "busy-twice"]
verdicts = ["zap-failed"]
[[rule]]
kind = ["TD_FATAL"]
way = ["kill"]
kernel = ["6.18"]
verdicts = ["teardown-leak"]
"#;

    fn verdicts<'a>(cases: &'a [Case], name: &str) -> &'a [String] {
        &cases.iter().find(|case| case.name == name).unwrap().expected.verdicts
    }

    #[test]
    fn cases_are_the_product_and_later_rules_win() {
        let cases = read(SMALL, "6.18").unwrap();
        assert_eq!(cases.len(), 5 * 2);
        assert_eq!(verdicts(&cases, "MEM_TRACK.TD_FATAL.kill"), ["teardown-leak"]);
        assert_eq!(verdicts(&cases, "MEM_TRACK.TD_FATAL.punch"), ["zap-failed"]);
        assert!(verdicts(&cases, "MEM_TRACK.busy-once.kill").is_empty());
        assert_eq!(verdicts(&read(SMALL, "7.3").unwrap(), "MEM_TRACK.TD_FATAL.kill"), ["zap-failed"]);
    }

    #[test]
    fn a_script_is_what_the_file_says() {
        let cases = read(SMALL, "7.3").unwrap();
        let script = |name: &str| cases.iter().find(|case| case.name == name).unwrap().script.clone();
        assert_eq!(
            script("MEM_TRACK.busy-twice.punch"),
            "td a\ninject leaf=MEM_TRACK skip=1 status=0x8000020000000001 times=2\npunch a 3 1\n"
        );
        assert!(
            script("MEM_TRACK.lie-denies.kill").contains("lie=denies status=0xe000060400000000\nkill vmm")
        );
    }

    #[test]
    fn what_is_wrong_with_the_file_is_named() {
        let wrong = |from, to| format!("{:#}", read(&SMALL.replace(from, to), "7.3").err().unwrap());
        assert!(wrong("kind = [\"TD_FATAL\"]", "kind = [\"TD_FATLA\"]").contains("rule 2 of 2"));
        assert!(wrong("statuses = [\"TD_FATAL\"]", "statuses = [\"TD_FATAL R8\"]").contains("R8"));
        assert!(wrong("page = 3", "page = 3\nways = [\"pinch\"]").contains("pinch"));
    }

    #[test]
    fn the_matrix_of_the_tree_can_be_read() {
        for kernel in ["6.18", "6.19", "7.3", "linux-mine"] {
            assert!(cases(kernel).unwrap().len() > 300);
        }
    }
}
