//! What policies would do, on kernels that can and on kernels that cannot.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use super::*;
use crate::policy::shipped;

fn able() -> Means {
    let works = || Probe::Works;
    Means {
        refuse_fallocate: works(),
        refuse_create_vm: works(),
        crash_kexec: works(),
        crash_kernel: works(),
        sysrq: works(),
        hard_offline: works(),
        freezer: works(),
        pin_inodes: works(),
    }
}

/// A kernel without BPF LSM, and without a crash kernel.
fn poor() -> Means {
    let refused = |why: &str| Probe::Refused(why.to_owned());
    Means {
        refuse_fallocate: refused("no LSM"),
        refuse_create_vm: refused("no LSM"),
        crash_kernel: refused("none loaded"),
        ..able()
    }
}

fn named(name: &str) -> Policy {
    Policy::parse(Path::new(name), shipped::text(name).unwrap()).unwrap()
}

fn ladder(ladder: &str) -> Policy {
    let text = format!(
        "name = \"p\"\narmed = true\n[[rules]]\nname = \"r\"\nviolation = \"any\"\nladder = [{ladder}]\n"
    );
    Policy::parse(Path::new("p.toml"), &text).unwrap()
}

fn steps(policy: &Policy, violation: Violation, means: &Means) -> Vec<Step> {
    explain(policy, violation, None, means).rules.into_iter().flat_map(|rule| rule.ladder).collect()
}

/// By whom, and what is kept from the allocator: this page, later punches, close or exit.
fn in_time(
    policy: &Policy,
    violation: Violation,
    means: &Means,
    reaction: &str,
) -> (&'static str, [&'static str; 3]) {
    let step = steps(policy, violation, means).into_iter().find(|step| step.reaction == reaction).unwrap();
    let Stops { this, later_punches, close_or_exit } = step.stops;
    (step.by, [this.map_or("-", InTime::name), later_punches.name(), close_or_exit.name()])
}

#[test]
fn contain_is_in_time_for_what_comes_after_the_failed_zap() {
    let contain = named("contain");
    let zap = Violation::ZapFailed;
    assert_eq!(in_time(&contain, zap, &able(), "hold"), ("kernel", ["no", "yes", "yes"]));
    assert_eq!(in_time(&contain, zap, &able(), "stop"), ("agent", ["no", "a race", "a race"]));
    assert_eq!(in_time(&contain, zap, &able(), "log"), ("agent", ["no", "no", "no"]));
    // Without the LSM program only the pinned inodes are left.
    assert_eq!(in_time(&contain, zap, &poor(), "hold"), ("agent", ["no", "no", "yes"]));
    let late = ladder("{ do = \"hold\" }");
    assert_eq!(in_time(&late, zap, &able(), "hold"), ("kernel", ["no", "yes", "a race"]));
}

#[test]
fn a_panic_in_the_kernel_is_in_time_for_the_page_itself_but_not_once_it_is_handed_out() {
    let panic = named("panic-on-use-after-free");
    let of = |violation, means: &Means| in_time(&panic, violation, means, "panic");
    assert_eq!(of(Violation::FreedWhileMapped, &able()), ("kernel", ["yes", "yes", "yes"]));
    assert_eq!(of(Violation::ReusedWhileMapped, &able()), ("kernel", ["no", "yes", "yes"]));
    // By sysrq, the page that is seen in mm_page_free is gone.
    assert_eq!(of(Violation::FreedWhileMapped, &poor()), ("agent", ["no", "a race", "a race"]));
    assert!(steps(&panic, Violation::ZapFailed, &able()).iter().all(|step| step.reaction == "log"));
    // With a step before it that acts, it is the agent's.
    let after = ladder("{ do = \"stop\" }, { do = \"panic\" }");
    assert_eq!(
        in_time(&after, Violation::ZapFailed, &able(), "panic"),
        ("agent", ["a race", "a race", "a race"])
    );
}

#[test]
fn kill_and_cordon_keep_no_page_and_quarantine_tries() {
    let all = ladder(
        "{ do = \"hold\" }, { do = \"kill\" }, { do = \"unsafe-kill\" }, { do = \"quarantine\" }, { do = \"cordon\" }, \
         { do = \"freeze\" }",
    );
    let of = |violation, reaction| in_time(&all, violation, &able(), reaction).1;
    for reaction in ["kill", "unsafe-kill", "cordon"] {
        assert_eq!(of(Violation::ZapFailed, reaction), ["no", "no", "no"], "{reaction}");
    }
    assert_eq!(of(Violation::ZapFailed, "quarantine"), ["a race"; 3]);
    assert_eq!(of(Violation::FreedWhileBlocked, "quarantine"), ["no"; 3]);
    assert_eq!(of(Violation::TeardownLeak, "freeze"), ["-", "a race", "a race"]);
}

#[test]
fn gaps_say_what_is_lost_and_why() {
    let told = |policy: &Policy, means: &Means| {
        gaps(policy, means).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for (name, _) in shipped::all() {
        assert_eq!(told(&named(name), &able()), [""; 0], "{name}");
    }
    assert_eq!(told(&named("observe"), &poor()), [""; 0]);
    assert_eq!(
        told(&named("cordon"), &poor()),
        [
            "rule \"a frame may be bad\", step 0 (hold): a later fallocate is not refused: no LSM",
            "rule \"a frame may be bad\", step 1 (cordon): KVM_CREATE_VM is not refused: no LSM",
        ]
    );
    assert_eq!(
        told(&named("panic-on-use-after-free"), &poor()),
        ["rule \"use after free\", step 0 (panic): it comes late, by sysrq: none loaded"]
    );
    // A panic that only is for when another step failed is the agent's anyway.
    let last = ladder("{ do = \"freeze\" }, { do = \"panic\", if_failed = true }");
    assert_eq!(told(&last, &poor()), [""; 0]);
    let nothing = Means {
        freezer: Probe::Refused("no cgroup v2".to_owned()),
        sysrq: Probe::Refused("no sysrq".to_owned()),
        ..poor()
    };
    assert_eq!(
        told(&last, &nothing),
        [
            "rule \"r\", step 0 (freeze): no process can be frozen: no cgroup v2",
            "rule \"r\", step 1 (panic): it does not come: no sysrq",
        ]
    );
}

#[test]
fn a_step_leaves_out_the_rules_for_others() {
    let warn = named("panic-on-warn");
    let rules = |step| {
        let explained = explain(&warn, Violation::MapFailed, step, &able());
        explained.rules.into_iter().map(|rule| rule.rule).collect::<Vec<_>>()
    };
    assert_eq!(rules(None), ["everything", "a SEAMCALL failed"]);
    assert_eq!(rules(Some(Leaf::MemPageAug)), ["everything", "a SEAMCALL failed"]);
    assert_eq!(rules(Some(Leaf::MemPageAdd)), ["everything"]);
}

#[test]
fn the_text_says_what_cannot_be_done_and_what_it_costs() {
    let text =
        explain(&named("contain"), Violation::ZapFailed, Some(Leaf::MemPageRemove), &poor()).to_string();
    for part in [
        "policy contain (armed) on zap-failed of TDH.MEM.PAGE.REMOVE\n",
        "CANNOT BE DONE on this kernel: a later fallocate is not refused: no LSM\n",
        "at most 1 per TD in 1h; at most 8 on the host in 1h; not again on a TD for 1m\n",
        "security_file_permission, which runs at every read and write of the host\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    let observe = explain(&named("observe"), Violation::ZapFailed, None, &poor()).to_string();
    assert!(!observe.contains("costs") && !observe.contains("CANNOT"), "{observe}");
}
