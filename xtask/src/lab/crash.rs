//! Scenarios whose kernel ends: what is known of them is what the console said, before and after.

use super::machine::End;
use super::oracle::{self, Finding};
use super::reactions::Times;
use super::scenario::{Ends, Expectation};

/// What a panicking kernel and a crash kernel say first.
const PANIC: &str = "Kernel panic - not syncing";
const CRASH_KERNEL: &str = "LAB-CRASH-KERNEL";

/// What `lab-vmm read-dump` says.
const NOTE: &str = "LAB-NOTE";
const TRUTH: &str = "LAB-TRUTH";

/// All comparisons for a machine that was to end so.
pub fn judge(console: &str, end: &End, ends: Ends, expected: &Expectation) -> Vec<Finding> {
    let wanted = match ends {
        Ends::Done => "done",
        Ends::Panic => "panic",
        Ends::CrashKernel => "crash kernel",
    };
    let found = match end {
        End::Done => "done",
        End::Panicked => "panic",
        End::CrashKernel => "crash kernel",
        End::TimedOut if console.contains(CRASH_KERNEL) => "crash kernel without a dump",
        End::TimedOut => "no end in time",
        End::Died => "reset",
    };
    let mut findings = vec![
        oracle::same(oracle::ENDED, wanted, found),
        oracle::in_order("console", &expected.console, console),
    ];
    if let Some(note) = &expected.note {
        let violation = word(console, NOTE, "violation").unwrap_or("nothing");
        let frames = word(console, TRUTH, "frames").unwrap_or("an unknown number of");
        let said = format!("{violation}, {frames} frames freed or reused");
        findings.push(oracle::same(oracle::NOTE, note, &said));
    }
    findings
}

/// What the first line that begins so has for this key.
fn word<'a>(console: &'a str, head: &str, key: &str) -> Option<&'a str> {
    let line = console.lines().find(|line| line.starts_with(head))?;
    line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// From what went wrong to the end. Where there is a dump, the kernel's programs decided, by the note that they left, and
/// the software module tells when the SEAMCALL failed, or the frame was freed, before that. Where there is none, userspace
/// did, and the console has both.
pub fn times(console: &str) -> Times {
    let value = |head: &str, key: &str| word(console, head, key)?.parse::<u64>().ok();
    let kernel = value(NOTE, "wanted_ns").and_then(|wanted| {
        let before = ["failed_ns", "frame_ns"].into_iter().filter_map(|key| value(TRUTH, key));
        before.filter(|ns| *ns != 0 && *ns <= wanted).max().map(|ns| wanted - ns)
    });
    let stamped = |what: &str| {
        let line = console.lines().find(|line| line.contains(what))?;
        stamp(line)
    };
    let agent = stamped(" failed: 0x").zip(stamped(PANIC)).and_then(|(from, to)| to.checked_sub(from));
    Times { kernel, agent }
}

/// The time at the start of a line of the kernel's log, in ns.
fn stamp(line: &str) -> Option<u64> {
    let (seconds, micro) = line.strip_prefix('[')?.split_once(']')?.0.trim().split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000_000 + micro.parse::<u64>().ok()? * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "\
LAB-CRASH-KERNEL
LAB-TRUTH calls=900 failed=2 failed_ns=5000 frames=0 frame_ns=0
LAB-NOTE wanted_ns=7500 violation=zap-failed leaf=29 td=1
LAB-DUMP-READ
";

    #[test]
    fn the_kernels_time_is_from_the_failure_to_the_note() {
        assert_eq!(times(DUMP), Times { kernel: Some(2500), agent: None });
        assert_eq!(times(&DUMP.replace("wanted_ns=7500", "wanted_ns=1")).kernel, None, "before it failed");
    }

    #[test]
    fn the_agents_time_is_the_consoles() {
        let console = "[    2.000100] virt/tdx: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0x8000020000000092\n\
                       [    2.000600] Kernel panic - not syncing: sysrq triggered crash\n";
        assert_eq!(times(console), Times { kernel: None, agent: Some(500_000) });
    }

    #[test]
    fn a_note_is_held_against_what_the_module_counted() {
        let equal = |note: &str| {
            let expected = Expectation { note: Some(note.to_owned()), ..Expectation::default() };
            judge(DUMP, &End::CrashKernel, Ends::CrashKernel, &expected).iter().all(|finding| finding.equal)
        };
        assert!(equal("zap-failed, 0 frames freed or reused"));
        assert!(!equal("zap-failed, 1 frames freed or reused"));
        assert!(!equal("vm-bugged, 0 frames freed or reused"));
    }

    #[test]
    fn another_end_is_a_difference() {
        let expected = Expectation { console: vec!["LAB-NOTE".to_owned()], ..Expectation::default() };
        let equal = |console, end: &End, ends| {
            judge(console, end, ends, &expected).iter().all(|finding| finding.equal)
        };
        assert!(equal(DUMP, &End::CrashKernel, Ends::CrashKernel));
        assert!(!equal("LAB-CRASH-KERNEL\n", &End::CrashKernel, Ends::CrashKernel), "no note");
        assert!(!equal(DUMP, &End::Panicked, Ends::CrashKernel));
        assert!(!equal(DUMP, &End::Done, Ends::Panic));
    }
}
