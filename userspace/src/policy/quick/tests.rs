//! What the kernel side is told.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{path::Path, sync::Arc};

use septwatch_common::{Violation, react::QUICK_RULES};

use super::*;
use crate::policy::{
    actor::tests::{subject, verdict},
    engine::Armed,
    shipped,
};

fn policy(rules: &str) -> Policy {
    let text = format!("name = \"p\"\narmed = true\nlimits.host = {{ count = 32, per = \"1h\" }}\n{rules}");
    Policy::parse(Path::new("p.toml"), &text).unwrap()
}

fn rule(name: &str, lines: &str) -> String {
    format!("[[rules]]\nname = {name:?}\nviolation = \"zap-failed\"\n{lines}\n")
}

fn compiled(policy: &Policy) -> Vec<QuickRule> {
    compile(policy, &Engine::new(Arc::new(policy.clone())), 0)
}

#[test]
fn only_what_must_be_quick_and_can_be_is_compiled() {
    for (lines, bits) in [
        ("ladder = [{ do = \"log\" }, { do = \"stop\" }]", 0),
        ("ladder = [{ do = \"hold\" }]", HOLD),
        ("ladder = [{ do = \"log\" }, { do = \"stop\" }, { do = \"hold\" }]", HOLD),
        ("ladder = [{ do = \"log\" }, { do = \"panic\" }]", PANIC),
        ("ladder = [{ do = \"hold\" }, { do = \"panic\" }]", HOLD | PANIC),
        // The VMM would never be stopped.
        ("ladder = [{ do = \"hold\" }, { do = \"stop\" }, { do = \"panic\" }]", HOLD),
        ("ladder = [{ do = \"hold\" }, { do = \"panic\", if_failed = true }]", HOLD),
        ("ladder = [{ do = \"stop\" }, { do = \"hold\", if_failed = true }]", 0),
        // How often, the programs do not count.
        ("rate = { count = 2, per = \"1s\" }\nladder = [{ do = \"panic\" }]", 0),
        ("confidence = \"certain\"\nladder = [{ do = \"panic\" }]", PANIC),
    ] {
        let policy = policy(&rule("r", lines));
        assert_eq!(does(&policy.rules[0]), bits, "{lines}");
        assert_eq!(compiled(&policy).len(), usize::from(bits != 0), "{lines}");
    }
}

#[test]
fn a_dry_run_is_not_compiled() {
    let mut policy = policy(&rule("r", "ladder = [{ do = \"hold\", ready = true }]"));
    assert!(ready(&policy, &subject(1)));
    policy.armed = false;
    assert_eq!(compiled(&policy), []);
    assert!(!ready(&policy, &subject(1)));
}

#[test]
fn a_rule_becomes_one_for_each_status_and_leads_back() {
    let policy = policy(
        &[
            rule("log", "ladder = [{ do = \"log\" }]"),
            rule(
                "hold",
                "step = [\"remove\"]\nstatus = [\"TDX_OPERAND_BUSY\", \"TDX_TD_FATAL\"]\n\
                 ladder = [{ do = \"hold\", errno = \"ENOSPC\" }]",
            ),
            rule("panic", "td = { name = \"web*\" }\nladder = [{ do = \"panic\" }]"),
        ]
        .concat(),
    );
    assert_eq!(places(&policy), [1, 1, 2]);
    let base = QuickRule { violations: 1 << Violation::ZapFailed as u64, ..QuickRule::default() };
    let hold = QuickRule { leaves: 1 << 29, does: HOLD, errno: 28, left: 11, ..base };
    assert_eq!(
        compiled(&policy),
        [
            QuickRule { status: 0x8000_0200_0000_0000, ..hold },
            QuickRule { status: 0xe000_0604_0000_0000, ..hold },
            QuickRule { does: PANIC, left: 10, chosen: 1, ..base },
        ]
    );
    let named = |name: &str| Subject { name: Some(name.to_owned()), ..subject(1) };
    assert_eq!(chosen(&policy, &named("web-1")), 1 << 2);
    assert_eq!(chosen(&policy, &named("db")), 0);
    assert_eq!(chosen(&policy, &subject(1)), 0, "it cannot be told");
}

/// The programs must find what the engine finds: both are asked about the same verdicts.
#[test]
fn the_kernel_side_is_for_the_same_verdicts() {
    let policies = shipped::all().map(|(name, text)| Policy::parse(Path::new(name), text).unwrap());
    for policy in policies {
        let quick = compiled(&policy);
        for violation in Violation::ALL {
            let verdict = crate::model::verdict::Verdict { violation, ..verdict() };
            let failed = verdict.failed.unwrap();
            let leaf = failed.leaf.unwrap() as u8;
            for (rule, place) in quick.iter().zip(places(&policy)) {
                let of = &policy.rules[place as usize];
                let fits = of.fits(&verdict, &subject(1)) == Fit::Yes;
                assert_eq!(
                    rule.matches(violation, leaf, failed.status),
                    fits,
                    "{} {violation:?}",
                    policy.name
                );
            }
        }
    }
}

#[test]
fn the_host_limit_is_shared_out_and_never_exceeded() {
    let rules: String = ["a", "b", "c"].map(|name| rule(name, "ladder = [{ do = \"hold\" }]")).concat();
    let mut policy = policy(&rules);
    policy.host_limit.count = 7;
    let mut engine = Engine::new(Arc::new(policy.clone()));
    let left =
        |engine: &Engine| compile(&policy, engine, 2000).iter().map(|rule| rule.left).collect::<Vec<_>>();
    assert_eq!(left(&engine), [3, 2, 2]);
    // The first rule acts; the TD's limit keeps the others from it.
    engine.decide(&verdict(), &subject(1), Armed::Agent(true));
    assert_eq!(left(&engine), [2, 2, 2]);
    // A rehearsal leaves it as it is.
    let other = crate::model::verdict::Verdict { td: Some(4), ..verdict() };
    engine.decide(&other, &Subject { td: Some(4), ..subject(1) }, Armed::Agent(false));
    assert_eq!(left(&engine), [2, 2, 2]);
}

#[test]
fn what_does_not_fit_into_the_kernel_is_refused() {
    let said = |rules: String, host: u32| {
        let text = format!("name = \"p\"\nlimits.host = {{ count = {host}, per = \"1h\" }}\n{rules}");
        Policy::parse(Path::new("p.toml"), &text).unwrap_err().to_string()
    };
    let holds = |count: u32| -> String {
        (0..count).map(|n| rule(&n.to_string(), "ladder = [{ do = \"hold\" }]")).collect()
    };
    assert_eq!(
        said(holds(QUICK_RULES + 1), 32),
        "p.toml:67: rules[16]: with this rule the kernel side has 17 rules to follow, and can follow 16: hold and panic \
         need one for each rule, and for each status in it"
    );
    assert_eq!(
        said(holds(3), 2),
        "p.toml:2: limits.host: at least 3 are needed, not 2: the kernel side follows 3 rules (hold and panic need one for \
         each rule, and for each status in it), and shares the host's limit out among them"
    );
}
