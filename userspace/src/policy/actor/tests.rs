//! The actor over a kernel side that only remembers, and a host of files.

use septwatch_common::{
    Suspect, Violation,
    wire::{Header, Kind, VERSION, ViolationEvent},
    zap::Zap,
};
use zerocopy::FromZeros as _;

use super::*;
use crate::policy::{audit::By, decision::Refusal, reaction::Hold};

/// A failed zap of TD 3.
pub(in crate::policy) fn verdict() -> Verdict {
    let mut event = ViolationEvent::new_zeroed();
    event.header =
        Header { time_ns: 1000, seq: 0, tgid: 1, cpu: 0, kind: Kind::Violation as u8, version: VERSION };
    event.violation = Violation::ZapFailed as u8;
    event.td_id = 3;
    event.pfn = 0x1234;
    event.zap = Zap { failed_ns: 1000, failed_leaf: 29, failed_status: 0x8000_0200_0000_0092, ..event.zap };
    Verdict::of(&event).unwrap()
}

pub(in crate::policy) fn decision(reaction: Reaction) -> Decision {
    let (rule, permit) = ("a rule".to_owned(), Permit::Do);
    Decision { rule, place: 0, step: 0, if_failed: false, reaction, permit }
}

pub(in crate::policy) fn subject(tgid: u32) -> Subject {
    Subject { td: Some(3), tgid: Some(tgid), ..Subject::default() }
}

/// A step of this reaction, done by the agent.
pub(in crate::policy) fn step(reaction: &'static str) -> Step {
    let of = decision(Reaction::Stop);
    Step { reaction, ..Step::asked("contain", &of, &verdict(), &subject(1), 1000) }
}

#[derive(Default)]
struct Fake {
    held: BTreeMap<u32, Held>,
    cordon: Cordon,
}

impl KernelSide for Fake {
    fn held(&mut self, td: u32) -> Result<Option<Held>, ReactError> {
        Ok(self.held.get(&td).copied())
    }

    fn hold(&mut self, td: u32, held: Held) -> Result<(), ReactError> {
        self.held.insert(td, held);
        Ok(())
    }

    fn release(&mut self, td: u32) -> Result<(), ReactError> {
        self.held.remove(&td);
        Ok(())
    }

    fn cordon(&mut self, cordon: Cordon) -> Result<(), ReactError> {
        self.cordon = cordon;
        Ok(())
    }

    fn lent(&mut self, _: u32) -> Result<u64, ReactError> {
        Ok(7)
    }
}

struct Stage {
    root: tempfile::TempDir,
    actor: Actor,
}

impl Stage {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let audit = Audit::open(&root.path().join("audit")).unwrap();
        for folder in ["proc", "dev", "run"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        std::fs::write(root.path().join("dev/kmsg"), "").unwrap();
        std::fs::write(root.path().join("proc/sysrq-trigger"), "").unwrap();
        let actor = Actor::new("contain", true, audit, Host::under(root.path())).unwrap();
        Self { root, actor }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.root.path().join(name)).unwrap()
    }
}

#[test]
fn what_is_not_permitted_is_written_down_and_not_done() {
    let mut stage = Stage::new();
    let mut kernel = Fake::default();
    let refused = Permit::Refused(Refusal::Suspect(Suspect::LATE));
    let decisions = [
        Decision { permit: refused, ..decision(Reaction::Panic) },
        Decision { permit: Permit::Dry(crate::policy::decision::Dry::Agent), ..decision(Reaction::Panic) },
    ];
    let steps = stage.actor.carry_out(&decisions, &verdict(), &subject(1), &mut kernel);
    assert_eq!(steps.iter().map(|step| step.result).collect::<Vec<_>>(), [None, None]);
    assert!(steps[0].why.as_ref().is_some_and(|why| why.contains("td-began-before-septwatch")));
    assert_eq!(stage.read("proc/sysrq-trigger"), "");
}

#[test]
fn a_panic_says_why_before_it_comes() {
    let mut stage = Stage::new();
    stage.actor.carry_out(&[decision(Reaction::Panic)], &verdict(), &subject(1), &mut Fake::default());
    assert_eq!(stage.read("proc/sysrq-trigger"), "c");
    let said = stage.read("dev/kmsg");
    assert!(
        said.contains("septwatch: panic by policy contain rule a rule: zap-failed TD 3 pfn 0x1234"),
        "{said}"
    );
}

#[test]
fn a_step_for_a_failure_waits_for_one() {
    let mut stage = Stage::new();
    let cordon = Reaction::Cordon(crate::policy::reaction::Cordon {
        errno: rustix::io::Errno::BUSY,
        every_type: false,
    });
    let on_failure = || Decision { if_failed: true, step: 1, ..decision(Reaction::Panic) };
    let ladder = [decision(cordon), on_failure()];
    let mut kernel = Fake::default();
    let steps = stage.actor.carry_out(&ladder, &verdict(), &subject(1), &mut kernel);
    assert_eq!(steps[1].result, Some(Done::Skipped));
    assert_eq!((kernel.cordon.errno, kernel.cordon.every_type), (16, 0));
    // Nobody has this process' number in that tree.
    let ladder = [decision(Reaction::Stop), on_failure()];
    let steps = stage.actor.carry_out(&ladder, &verdict(), &subject(1), &mut kernel);
    assert_eq!(steps[0].result, Some(Done::Failed));
    // This host goes on all the same, and that is said.
    assert_eq!((steps[1].result, &*stage.read("proc/sysrq-trigger")), (Some(Done::Failed), "c"));
}

#[test]
fn what_the_kernel_side_did_is_told_as_its_own() {
    let mut stage = Stage::new();
    let mut kernel = Fake::default();
    let held = Held { since_ns: 1200, frames: 9, errno: 5, rule: 0, ..Held::default() };
    kernel.held.insert(3, held);
    let hold = Reaction::Hold(Hold { errno: rustix::io::Errno::IO, ready: false });
    let steps = stage.actor.carry_out(&[decision(hold)], &verdict(), &subject(1), &mut kernel);
    let by_kernel = &steps[0];
    assert_eq!((by_kernel.by, by_kernel.latency_ns), (By::Kernel, Some(200)));
    // The process is gone: nothing could be pinned, which is not done.
    assert_eq!(steps[1].result, Some(Done::Failed), "{:?}", steps[1].detail);
}

#[test]
fn without_an_audit_log_nothing_acts() {
    let mut stage = Stage::new();
    let audit = stage.root.path().join("audit");
    std::fs::rename(&audit, stage.root.path().join("away")).unwrap();
    std::fs::write(&audit, "no folder").unwrap();
    // The file of today stays open: a new day's cannot be made.
    *stage.actor.shared.audit() = Audit::lost(&audit);
    let steps =
        stage.actor.carry_out(&[decision(Reaction::Panic)], &verdict(), &subject(1), &mut Fake::default());
    assert_eq!(steps[0].result, Some(Done::Failed));
    assert_eq!(stage.read("proc/sysrq-trigger"), "");
}
