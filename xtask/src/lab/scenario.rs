//! Scenarios: what the VMM does, and what must come of it, as data in `tests/lab/scenarios/NAME.toml`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::adds::Adds;
use super::agents::Agents;
use super::machines::Wanted;
use super::place;

/// Where a machine has the text of a scenario's policy.
const POLICY: &str = "/in/policy.toml";

/// One scenario. Field names are those of the file; `tests/lab/README.md` describes them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    #[serde(skip)]
    pub name: String,
    /// One line for people.
    pub about: String,
    /// Who drives KVM.
    #[serde(default)]
    pub vmm: Vmm,
    /// What it runs on.
    #[serde(default)]
    pub machine: Kind,
    /// Kernels that it is made for, by release; all when empty.
    #[serde(default)]
    pub kernels: Vec<String>,
    /// Processors of the machine.
    #[serde(default = "one")]
    pub cpus: u32,
    /// Seconds of this machine's time before it counts as hung.
    #[serde(default = "limit")]
    pub seconds: u64,
    /// septwatch is killed meanwhile.
    pub agents: Option<Agents>,
    /// septwatch measures how long SEAMCALLs take.
    #[serde(default)]
    pub latency: bool,
    /// septwatch records everything, and the recording is replayed.
    #[serde(default)]
    pub record: bool,
    /// septwatch follows this policy: the name of one that is shipped, or a file's text.
    pub policy: Option<String>,
    /// It is armed.
    #[serde(default)]
    pub arm: bool,
    /// It is followed also where the kernel cannot do all that it asks for.
    #[serde(default)]
    pub degraded: bool,
    /// The script starts septwatch.
    #[serde(default)]
    pub late: bool,
    /// Turns of a loop for which the walk of a TD that ran already waits between its two looks at each frame.
    pub walk_delay: Option<u32>,
    /// What the machine comes to.
    #[serde(default)]
    pub ends: Ends,
    /// For the lab's VMM.
    pub script: String,
    pub expect: Expectation,
    /// What differs on some kernels, by release; replaces `expect` as a whole.
    #[serde(default)]
    pub expect_on: BTreeMap<String, Expectation>,
}

/// Who drives KVM in a machine, at the word of the script.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Vmm {
    /// The lab's VMM alone.
    #[default]
    Lab,
    /// The distribution's QEMU too.
    Qemu,
    /// The kernel's own tests of guest_memfd too.
    Selftests,
}

/// Which machine.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Bochs: with VMX, for TDs.
    #[default]
    Bochs,
    /// QEMU without TDs, quicker.
    Qemu,
}

/// What a machine comes to.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Ends {
    /// The script is done.
    #[default]
    Done,
    /// Its kernel panics.
    Panic,
    /// Its kernel crashes, and the one that it has for that begins.
    CrashKernel,
}

const fn one() -> u32 {
    1
}

const fn limit() -> u64 {
    600
}

/// What must come of a scenario.
#[derive(Deserialize, Clone, Default)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// Frames that a TD owns at the end: `TYPE STATE xN`.
    #[serde(default)]
    pub owned: Vec<String>,
    /// Frames that the allocator took back or gave out meanwhile: `WHAT TYPE STATE xN`.
    #[serde(default)]
    pub frames: Vec<String>,
    /// What the VMM's lines must contain, in this order.
    #[serde(default)]
    pub calls: Vec<String>,
    /// What the kernel log must contain, in this order. When empty, it must hold no warning at all.
    #[serde(default)]
    pub dmesg: Vec<String>,
    /// SEAMCALLs that must be among those that the module got: parts of lines, in this order.
    #[serde(default)]
    pub seamcalls: Vec<String>,
    /// The verdicts that septwatch must give: names, each once however often it is given.
    #[serde(default)]
    pub verdicts: Vec<String>,
    /// Frames that were freed while owned, of which septwatch cannot know: the module lied.
    #[serde(default)]
    pub hidden: usize,
    /// Frames that septwatch takes for freed while owned, and they are not: the module lied.
    #[serde(default)]
    pub believed: usize,
    /// How many frames are freed while owned depends on time, and so what is owned at the end: at least so many.
    pub freed_at_least: Option<usize>,
    /// What septwatch did of its policy, each once, in the order in which it did it first: `REACTION BY PERMIT RESULT`, or
    /// what happened to what it did, with the number of frames where there is one.
    #[serde(default)]
    pub audit: Vec<String>,
    /// What each `back` of the script must answer first: `none`, `some` or `all`.
    #[serde(default)]
    pub back: Vec<String>,
    /// Instructions that septwatch may add to each page's map, zap and release: it is started between two times of the work.
    pub adds: Option<Adds>,
    /// Each TD waits, when it begins, until releases are watched.
    #[serde(default)]
    pub waits: bool,
    /// Per cent by which the second `cycle` of the script may be slower than the first.
    pub slower: Option<u64>,
    /// What the console must contain, in this order, of a machine whose kernel ends.
    #[serde(default)]
    pub console: Vec<String>,
    /// What the dump must hold: the violation that septwatch noted, and how many frames the software module's probe had
    /// seen: `VIOLATION, N frames freed or reused`.
    pub note: Option<String>,
    /// Neither the kernel log nor the reuse of freed frames is compared.
    #[serde(skip)]
    pub loose: bool,
}

impl Scenario {
    /// What must come of it on this kernel.
    pub fn expected(&self, kernel: &str) -> &Expectation {
        self.expect_on.get(kernel).unwrap_or(&self.expect)
    }

    /// Can one machine run it along with others?
    pub fn shares(&self) -> bool {
        let usual = (self.machine, self.vmm) == (Kind::default(), Vmm::default());
        usual
            && self.cpus == 1
            && self.agents.is_none()
            && !self.latency
            && !self.record
            && self.policy.is_none()
            && self.walk_delay.is_none()
            && !self.late
            && self.ends == Ends::Done
    }

    /// The machine that it needs.
    pub fn wanted(&self) -> Wanted {
        Wanted { kind: self.machine, vmm: self.vmm, crash: self.ends == Ends::CrashKernel, tools: false }
    }

    /// The policy's text, where the scenario brings its own.
    pub fn own_policy(&self) -> Option<&str> {
        self.policy.as_deref().filter(|policy| policy.contains('\n'))
    }

    /// Variables of the machine's `/in/run`.
    pub fn variables(&self) -> String {
        let mut options = Vec::new();
        if self.latency {
            options.push("--latency");
        }
        let delay = self.walk_delay.map(|turns| turns.to_string());
        options.extend(delay.iter().flat_map(|turns| ["--walk-delay", turns]));
        if let Some(policy) = &self.policy {
            let policy = if self.own_policy().is_some() { POLICY } else { policy };
            options.extend(["--policy", policy, "--audit", "/out/audit"]);
            if self.arm {
                options.push("--arm");
            }
            if self.degraded {
                options.push("--allow-degraded");
            }
        }
        let late = if self.late { "late=yes\n" } else { "" };
        format!("options='{}'\n{late}", options.join(" "))
    }

    /// Is it made for this kernel? A tree by path counts as the newest.
    pub fn is_for(&self, kernel: &str) -> bool {
        let release = kernel.starts_with(|c: char| c.is_ascii_digit());
        self.kernels.is_empty() || !release || self.kernels.iter().any(|known| known == kernel)
    }
}

/// All scenarios of the tree, by name.
///
/// # Errors
/// A file cannot be read or is no scenario; the error names file and line.
pub fn all() -> Result<Vec<Scenario>> {
    let folder = place::tests_lab().join("scenarios");
    let mut scenarios = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut scenario: Scenario = toml::from_str(&text).with_context(|| format!("{}", path.display()))?;
        scenario.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        scenarios.push(scenario);
    }
    scenarios.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scenarios)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn every_scenario_of_the_tree_can_be_read() {
        assert!(!all().unwrap().is_empty());
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error =
            toml::from_str::<Scenario>("about = 'x'\nscript = ''\nfault = 1\n[expect]\n").err().unwrap();
        assert!(error.to_string().contains("fault"), "{error}");
    }

    #[test]
    fn a_kernel_may_expect_something_else() {
        let text = "about = 'x'\nkernels = ['7.3', '6.18']\nscript = ''\n[expect]\nowned = ['a']\n[expect_on.'6.18']\n";
        let scenario: Scenario = toml::from_str(text).unwrap();
        assert_eq!(scenario.expected("7.3").owned, ["a"]);
        assert!(scenario.expected("6.18").owned.is_empty());
        assert!(scenario.is_for("7.3") && scenario.is_for("linux-mine") && !scenario.is_for("6.19"));
    }
}
