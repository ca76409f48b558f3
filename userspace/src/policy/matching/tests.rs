//! Which rules are for which verdicts.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use septwatch_common::{Leaf, Suspect, Violation};

use super::*;
use crate::policy::{actor::tests::verdict, file::Policy};

fn rule(conditions: &str) -> Rule {
    let text = format!(
        "name = \"p\"\n[tags]\nprod = {{ name = \"web*\", cgroup = \"/machine.slice/*\" }}\nlab = {{ uuid = \"1B4E*\" }}\n\
         [[rules]]\nname = \"r\"\n{conditions}\nladder = [{{ do = \"log\" }}]\n"
    );
    Policy::parse(Path::new("p.toml"), &text).unwrap().rules.remove(0)
}

fn fit(conditions: &str, verdict: &Verdict) -> Fit {
    rule(conditions).fits(verdict, &Subject::default())
}

/// The verdict is a failed zap: REMOVE, TDX_OPERAND_BUSY on the S-EPT tree.
#[test]
fn violation_step_status_and_confidence_must_all_be_right() {
    let failed = verdict();
    for (conditions, fits) in [
        ("violation = \"any\"", Fit::Yes),
        ("violation = \"zap-failed\"", Fit::Yes),
        ("violation = [\"map-failed\", \"zap-failed\"]", Fit::Yes),
        ("violation = [\"map-failed\"]", Fit::No),
        ("violation = \"any\"\nstep = [\"remove\"]", Fit::Yes),
        ("violation = \"any\"\nstep = [\"track\", \"TDH.MEM.PAGE.REMOVE\"]", Fit::Yes),
        ("violation = \"any\"\nstep = [\"tdh_mem_page_remove\"]", Fit::Yes),
        ("violation = \"any\"\nstep = [\"track\"]", Fit::No),
        ("violation = \"any\"\nstatus = [\"TDX_OPERAND_BUSY\"]", Fit::Yes),
        ("violation = \"any\"\nstatus = [\"0x8000020000000001\"]", Fit::Yes),
        ("violation = \"any\"\nstatus = [\"TDX_TD_FATAL\", \"TDX_SYS_BUSY\"]", Fit::No),
        ("violation = \"any\"\nconfidence = \"certain\"", Fit::Yes),
        ("violation = \"any\"\nconfidence = \"suspect\"", Fit::No),
        ("violation = \"map-failed\"\nstep = [\"remove\"]", Fit::No),
    ] {
        assert_eq!(fit(conditions, &failed), fits, "{conditions}");
    }
    let suspect = Verdict { suspect: Suspect::MISSED, ..verdict() };
    assert_eq!(fit("violation = \"any\"\nconfidence = \"suspect\"", &suspect), Fit::Yes);
    assert_eq!(fit("violation = \"any\"\nconfidence = \"certain\"", &suspect), Fit::No);
    assert_eq!(fit("violation = \"any\"", &suspect), Fit::Yes);
}

#[test]
fn what_failed_without_a_seamcall_is_no_step() {
    let silent = Verdict { failed: None, violation: Violation::FreedWhileMapped, ..verdict() };
    assert_eq!(fit("violation = \"any\"", &silent), Fit::Yes);
    assert_eq!(fit("violation = \"any\"\nstep = [\"block\", \"remove\"]", &silent), Fit::No);
    assert_eq!(fit("violation = \"any\"\nstatus = [\"TDX_OPERAND_BUSY\"]", &silent), Fit::No);
}

#[test]
fn every_spelling_of_a_step_is_the_same() {
    for word in ["remove", "TDH.MEM.PAGE.REMOVE", "tdh_mem_page_remove", "MEM.PAGE.REMOVE"] {
        let of = rule(&format!("violation = \"any\"\nstep = [{word:?}]"));
        assert_eq!(of.leaves, 1 << Leaf::MemPageRemove as u64, "{word}");
    }
}

#[test]
fn tds_are_told_apart_and_what_is_not_known_is_no_match() {
    let known = Subject {
        name: Some("web-1".to_owned()),
        uuid: Some("1b4e-77".to_owned()),
        cgroup: Some("/machine.slice/machine-qemu.scope".to_owned()),
        ..Subject::default()
    };
    let nameless = Subject { name: None, ..known.clone() };
    let nothing = Subject::default();
    use Fit::{No, Undecided, Yes};
    for (td, fits) in [
        ("{ name = \"web*\" }", [Yes, Undecided, Undecided]),
        ("{ name = \"web-?\" }", [Yes, Undecided, Undecided]),
        ("{ name = \"db*\" }", [No, Undecided, Undecided]),
        ("{ name = \"db*\", uuid = \"1b4e*\" }", [No, Undecided, Undecided]),
        // One that is surely wrong decides, whatever the others are.
        ("{ name = \"web*\", uuid = \"2*\" }", [No, No, Undecided]),
        ("{ uuid = \"1B4E*\" }", [Yes, Yes, Undecided]),
        ("{ cgroup = \"/machine.slice/*\" }", [Yes, Yes, Undecided]),
        ("{ tag = [\"prod\"] }", [Yes, Undecided, Undecided]),
        // One of the tags is enough.
        ("{ tag = [\"prod\", \"lab\"] }", [Yes, Yes, Undecided]),
        ("{ tag = [\"lab\"], name = \"db*\" }", [No, Undecided, Undecided]),
    ] {
        let of = rule(&format!("violation = \"any\"\ntd = {td}"));
        let found = [&known, &nameless, &nothing].map(|subject| of.fits(&verdict(), subject));
        assert_eq!(found, fits, "{td}");
    }
}

#[test]
fn another_violation_is_not_undecided() {
    assert_eq!(fit("violation = \"map-failed\"\ntd = { name = \"web*\" }", &verdict()), Fit::No);
}
