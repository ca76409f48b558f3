//! The engine: when it acts, and that it does not.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use septwatch_common::Suspect;

use super::*;
use crate::policy::actor::tests::{subject, verdict};

fn engine(text: &str) -> Engine {
    Engine::new(Arc::new(Policy::parse(Path::new("test.toml"), text).unwrap()))
}

const HOLD: &str = r#"
name = "test"
armed = true
cool_down = "10s"
[limits]
td = { count = 2, per = "1h" }
host = { count = 3, per = "1h" }
[[rules]]
name = "a"
violation = ["zap-failed"]
ladder = [{ do = "log" }, { do = "hold" }, { do = "stop" }]
"#;

fn permits(engine: &mut Engine, verdict: &Verdict, armed: Armed) -> Vec<&'static str> {
    let who = Subject { td: verdict.td, ..subject(1) };
    engine.decide(verdict, &who, armed).iter().map(|decision| decision.permit.name()).collect()
}

fn at(seconds: u64, td: u32) -> Verdict {
    Verdict { time_ns: 1_000_000_000 * seconds, td: Some(td), ..verdict() }
}

#[test]
fn a_suspect_verdict_and_an_agent_that_is_not_armed_act_never() {
    let mut engine = engine(HOLD);
    let suspect = Verdict { suspect: Suspect::LATE, ..verdict() };
    assert_eq!(permits(&mut engine, &suspect, Armed::Agent(true)), ["do", "refused", "refused"]);
    assert_eq!(permits(&mut engine, &at(1, 1), Armed::Agent(false)), ["do", "dry", "dry"]);
    assert_eq!(permits(&mut engine, &at(1, 2), Armed::Recording), ["dry", "dry", "dry"]);
    // A rehearsal uses nothing up.
    assert_eq!(permits(&mut engine, &at(1, 1), Armed::Agent(true)), ["do", "do", "do"]);
}

#[test]
fn ladders_cool_down_and_have_limits() {
    let mut engine = engine(HOLD);
    let done = |engine: &mut Engine, seconds, td| permits(engine, &at(seconds, td), Armed::Agent(true))[1];
    assert_eq!(done(&mut engine, 1, 1), "do");
    assert_eq!(done(&mut engine, 5, 1), "refused", "it cools down");
    assert_eq!(done(&mut engine, 5, 2), "do", "another TD does not");
    assert_eq!(done(&mut engine, 12, 1), "do");
    assert_eq!(done(&mut engine, 30, 1), "refused", "the TD's limit");
    assert_eq!(done(&mut engine, 30, 3), "refused", "the host's limit");
    assert_eq!(engine.limits_left(30_000_000_000).host, 0);
    assert_eq!(done(&mut engine, 3700, 3), "do", "an hour later");
}

#[test]
fn a_policy_that_is_not_armed_is_a_dry_run_and_another_verdict_is_none_of_it() {
    let mut dry = engine(&HOLD.replace("armed = true", "armed = false"));
    assert_eq!(permits(&mut dry, &at(1, 1), Armed::Agent(true)), ["do", "dry", "dry"]);
    let other = Verdict { violation: septwatch_common::Violation::MapFailed, ..verdict() };
    assert!(permits(&mut dry, &other, Armed::Agent(true)).is_empty());
}

fn of(rule: &str) -> Engine {
    engine(&format!("name = \"test\"\narmed = true\n[[rules]]\nname = \"a\"\nviolation = \"any\"\n{rule}\n"))
}

#[test]
fn a_rate_is_of_one_td() {
    let mut engine = of("rate = { count = 3, per = \"10s\" }\nladder = [{ do = \"hold\" }]");
    let mut hits = |seconds, td| permits(&mut engine, &at(seconds, td), Armed::Agent(true)).len();
    assert_eq!([hits(1, 1), hits(2, 1), hits(3, 2), hits(4, 2)], [0; 4]);
    assert_eq!([hits(5, 1), hits(20, 1), hits(21, 1), hits(22, 1)], [1, 0, 0, 1]);
}

#[test]
fn nobody_is_stopped_for_a_td_whose_process_is_not_known() {
    let mut engine = of("ladder = [{ do = \"hold\" }, { do = \"kill\" }, { do = \"cordon\" }]");
    let decide = |engine: &mut Engine, verdict: &Verdict, who: &Subject| -> Vec<_> {
        let decisions = engine.decide(verdict, who, Armed::Agent(true));
        decisions.into_iter().map(|decision| decision.permit).collect()
    };
    let none = || Permit::Refused(Refusal::NoProcess);
    let unknown = Subject::recorded(Some(1), None, 0);
    assert_eq!(decide(&mut engine, &at(1, 1), &unknown), [none(), none(), Permit::Do]);
    // Another TD's process is none of its.
    assert_eq!(decide(&mut engine, &at(1, 2), &Subject { td: Some(3), ..subject(1) })[..2], [none(), none()]);
    let nameless = Verdict { td: None, ..at(1, 1) };
    assert_eq!(decide(&mut engine, &nameless, &Subject { td: None, ..subject(1) })[..2], [none(), none()]);
}

#[test]
fn a_ladder_of_which_nothing_can_be_done_uses_no_limit_up() {
    let mut engine = of("ladder = [{ do = \"log\" }, { do = \"stop\" }]");
    engine.decide(&at(1, 1), &Subject::recorded(Some(1), None, 0), Armed::Agent(true));
    assert_eq!(engine.limits_left(1_000_000_000), Left { host: 4, tds: vec![] });
    assert_eq!(permits(&mut engine, &at(1, 1), Armed::Agent(true)), ["do", "do"]);
    assert_eq!(engine.limits_left(1_000_000_000), Left { host: 3, tds: vec![(Some(1), 0)] });
}

#[test]
fn a_reload_gives_nothing_back() {
    let mut first = engine(HOLD);
    assert_eq!(permits(&mut first, &at(1, 1), Armed::Agent(true))[1], "do");
    // The rule is behind another now.
    let other =
        "[[rules]]\nname = \"b\"\nviolation = \"map-failed\"\nladder = [{ do = \"stop\" }]\n[[rules]]";
    let moved = Policy::parse(Path::new("test.toml"), &HOLD.replacen("[[rules]]", other, 1)).unwrap();
    let mut second = first.replaced_by(Arc::new(moved));
    assert_eq!(second.limits_left(2_000_000_000), Left { host: 2, tds: vec![(Some(1), 1)] });
    let decisions = second.decide(&at(5, 1), &Subject { td: Some(1), ..subject(1) }, Armed::Agent(true));
    assert_eq!(decisions[1].permit, Permit::Refused(Refusal::CoolDown));
    assert_eq!(decisions[1].place, 1);
    // A TD that is gone takes its own counts with it, not the host's.
    second.forget(1);
    assert_eq!(second.limits_left(2_000_000_000), Left { host: 2, tds: vec![] });
}

#[test]
fn what_a_recording_does_not_know_is_told() {
    let mut engine = of("td = { name = \"web*\" }\nladder = [{ do = \"stop\" }]");
    let recorded = Subject::recorded(Some(3), Some(1), 0);
    assert_eq!(engine.undecided(&verdict(), &recorded), ["a"]);
    assert_eq!(engine.decide(&verdict(), &recorded, Armed::Recording), []);
    let named = Subject { name: Some("db".to_owned()), ..recorded };
    assert_eq!(engine.undecided(&verdict(), &named), [""; 0]);
}

mod never {
    use proptest::prelude::*;
    use septwatch_common::Violation;

    use super::*;
    use crate::policy::shipped;

    const ACTING: &str = "ladder = [{ do = \"log\" }, { do = \"hold\" }, { do = \"stop\" }, { do = \"freeze\" }, \
                          { do = \"kill\" }, { do = \"unsafe-kill\" }, { do = \"quarantine\" }, { do = \"cordon\" }, \
                          { do = \"panic\", if_failed = true }]";

    fn policies() -> Vec<Policy> {
        let all = of(ACTING).policy().as_ref().clone();
        let shipped = shipped::all().map(|(name, text)| Policy::parse(Path::new(name), text).unwrap());
        shipped.chain([all]).collect()
    }

    #[derive(Clone, Debug)]
    struct Case {
        violation: usize,
        td: Option<u32>,
        suspect: u32,
        seconds: u64,
        armed: u8,
        process: bool,
    }

    fn cases() -> impl Strategy<Value = Vec<Case>> {
        let td = proptest::option::weighted(0.9, 1..6_u32);
        // Half of them are certain.
        let suspect = prop_oneof![Just(0), 0..32_u32];
        let one = (0..Violation::ALL.len(), td, suspect, 0..10_000_u64, 0..3_u8, any::<bool>());
        let case = |(violation, td, suspect, seconds, armed, process)| Case {
            violation,
            td,
            suspect,
            seconds,
            armed,
            process,
        };
        proptest::collection::vec(one.prop_map(case), 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn without_certainty_and_arms_and_within_limits(
            which in 0..7_usize,
            armed in any::<bool>(),
            mut cases in cases(),
        ) {
            let mut policy = policies().remove(which);
            policy.armed = armed;
            let (td_limit, host_limit) = (policy.td_limit, policy.host_limit);
            let mut engine = Engine::new(Arc::new(policy));
            cases.sort_by_key(|case| case.seconds);
            let mut acted: Vec<(u64, Option<u32>)> = Vec::new();
            for case in cases {
                let suspect = Suspect(case.suspect);
                let violation = Violation::ALL[case.violation];
                let time_ns = case.seconds * 1_000_000_000;
                let verdict = Verdict { violation, td: case.td, suspect, time_ns, ..verdict() };
                let who = Subject::recorded(case.td, case.process.then_some(7), 0);
                let agent = [Armed::Agent(true), Armed::Agent(false), Armed::Recording][usize::from(case.armed)];
                let mut places = std::collections::BTreeSet::new();
                for decision in engine.decide(&verdict, &who, agent) {
                    let done = decision.permit == Permit::Do;
                    if !decision.reaction.acts() {
                        prop_assert_eq!(done, agent != Armed::Recording);
                        continue;
                    }
                    if done {
                        prop_assert!(armed && agent == Armed::Agent(true) && suspect.is_certain());
                        if places.insert(decision.place) {
                            acted.push((case.seconds, case.td));
                        }
                    }
                    if !suspect.is_certain() {
                        prop_assert_eq!(decision.permit, Permit::Refused(Refusal::Suspect(suspect)));
                    }
                }
            }
            for (now, td) in &acted {
                let since = now.saturating_sub(3599);
                let within = || acted.iter().filter(|(then, _)| (since..=*now).contains(then));
                prop_assert!(within().count() <= host_limit.count as usize);
                prop_assert!(within().filter(|(_, of)| of == td).count() <= td_limit.count as usize);
            }
        }
    }
}
