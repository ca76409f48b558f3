//! `septwatch policy` where it only looks: listing, checking, explaining and rehearsing.
#![expect(clippy::unwrap_used, reason = "a failed test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Parser as _;
use septwatch::{commands::policy, policy::shipped};
use serde_json::Value;

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: policy::Args,
}

/// The exit code and the output, or the error.
fn run(args: &[&str]) -> Result<(u8, String), String> {
    let cli = Cli::try_parse_from([&["policy"], args].concat()).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    let code = policy::run(&cli.args, &mut out).map_err(|error| error.to_string())?;
    Ok((code, String::from_utf8(out).unwrap()))
}

fn json(args: &[&str]) -> (u8, Vec<Value>) {
    let (code, out) = run(&[args, &["--json"]].concat()).unwrap();
    (code, out.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn btf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/btf/7.3")
}

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_is_shipped_is_listed_and_shown() {
    let (code, listed) = json(&["list"]);
    let names: Vec<_> = listed.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!((code, names.join(", ")), (0, shipped::names()));
    for one in &listed {
        let name = one["name"].as_str().unwrap();
        let text = run(&["show", name]).unwrap().1;
        assert!(text.starts_with(&format!("# {name}: ")), "{text}");
        assert_eq!(one["armed"], !matches!(name, "observe" | "alert"), "{name}");
        assert_eq!(one["default"], name == "observe");
    }
    assert_eq!(
        run(&["show", "contian"]).unwrap_err(),
        format!("\"contian\" is no shipped policy: there are {}", shipped::names())
    );
}

/// A copy of a kernel's BTF in which a name is another.
fn without(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(btf().join("vmlinux.btf")).unwrap();
    let name = format!("\0{name}\0");
    let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
    bytes[at + 1] = b'X';
    fs::write(dir.path().join("vmlinux"), bytes).unwrap();
    for module in ["kvm.btf", "kvm_intel.btf"] {
        fs::copy(btf().join(module), dir.path().join(module)).unwrap();
    }
    dir
}

fn step<'a>(explained: &'a Value, reaction: &str) -> &'a Value {
    let rules = explained["rules"].as_array().unwrap();
    let mut steps = rules.iter().flat_map(|rule| rule["ladder"].as_array().unwrap());
    steps.find(|step| step["reaction"] == reaction).unwrap()
}

#[test]
fn a_kernel_without_security_hooks_cannot_refuse() {
    let contain = |dir: &Path| {
        let args = ["explain", "contain", "--violation", "zap-failed", "--step", "remove", "--btf"];
        json(&[&args[..], &[dir.to_str().unwrap()]].concat()).1.remove(0)
    };
    let able = contain(&btf());
    assert_eq!(able["assumed"], true);
    assert_eq!(step(&able, "hold")["by"], "kernel");
    assert_eq!(step(&able, "hold")["stops"]["later_punches"], "yes");
    assert_eq!(step(&able, "hold")["gap"], Value::Null);
    let poor = contain(without("bpf_lsm_file_permission").path());
    assert_eq!(step(&poor, "hold")["by"], "agent");
    assert_eq!(step(&poor, "hold")["stops"]["later_punches"], "no");
    assert_eq!(step(&poor, "hold")["stops"]["close_or_exit"], "yes");
    let gap = step(&poor, "hold")["gap"].as_str().unwrap();
    assert!(gap.starts_with("a later fallocate is not refused: ") && gap.contains("CONFIG_BPF_LSM"), "{gap}");
    // The pinned inodes are not lost with it, nor is the kernel's panic.
    let args = ["explain", "panic-on-use-after-free", "--violation", "freed-while-mapped", "--btf"];
    let dir = without("bpf_lsm_file_permission");
    let panic = json(&[&args[..], &[dir.path().to_str().unwrap()]].concat()).1.remove(0);
    assert_eq!(step(&panic, "panic")["by"], "kernel");
    assert_eq!(step(&panic, "panic")["stops"]["this"], "yes");
}

#[test]
fn flags_say_what_would_be_right() {
    for (args, part) in [
        (&["explain", "contain", "--violation", "freed"][..], "there are freed-while-mapped"),
        (
            &["explain", "contain", "--violation", "zap-failed", "--step", "x"],
            "there are block, track, remove",
        ),
        (&["explain", "contain", "--violation", "zap-failed", "--btf", "/nowhere"], "--btf: /nowhere"),
        (&["test", "nowhere", "x"], "shipped policies are observe"),
        (&["test", "observe", "/nowhere"], "/nowhere"),
    ] {
        let said = run(args).unwrap_err();
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_recording_is_reacted_to_as_it_would_have_been_live() {
    let recording = golden("lab-7.3-zap-failed-remove.swt");
    let (code, mut lines) = json(&["test", "contain", &recording]);
    assert_eq!(code, 1, "as replay: it has violations");
    let summary = lines.pop().unwrap();
    let of = |reaction: &str| {
        let reactions = summary["reactions"].as_array().unwrap();
        reactions.iter().find(|one| one["reaction"] == reaction).unwrap().clone()
    };
    assert_eq!(summary["violations"], lines.len());
    assert_eq!(of("log")["would"], lines.len(), "each is told once");
    for reaction in ["hold", "stop"] {
        assert_eq!(of(reaction)["would"], 1, "{reaction}");
        assert_eq!(of(reaction)["refused"]["the rule is cooling down for this TD"], 2);
    }
    // It holds at the failed zap, before the page is freed.
    let time = |violation: &str| {
        let line = lines.iter().find(|line| line["verdict"]["violation"] == violation).unwrap();
        line["verdict"]["time_ns"].as_u64().unwrap()
    };
    assert_eq!(of("hold")["first_ns"], time("zap-failed"));
    assert!(time("zap-failed") < time("freed-while-blocked"));

    let text = run(&["test", "contain", &recording]).unwrap().1;
    assert!(
        text.contains("\n    hold        would be done (rule \"a page may be freed while a TD has it\")\n"),
        "{text}"
    );
}

/// A dry run says that it is one, and a rule that a recording cannot decide is not followed.
#[test]
fn what_would_not_be_done_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    let rules = "[[rules]]\nname = \"all\"\nviolation = \"zap-failed\"\nladder = [{ do = \"stop\" }]\n\
                 [[rules]]\nname = \"web\"\nviolation = \"zap-failed\"\ntd = { name = \"web*\" }\nladder = [{ do = \"panic\" }]\n";
    fs::write(&path, format!("name = \"p\"\n{rules}")).unwrap();
    let (code, lines) = json(&["test", path.to_str().unwrap(), &golden("lab-7.3-zap-failed-remove.swt")]);
    assert_eq!(code, 1);
    let zap = lines.iter().find(|line| line["verdict"]["violation"] == "zap-failed").unwrap();
    assert_eq!(zap["decisions"].as_array().unwrap().len(), 1);
    assert_eq!(zap["decisions"][0]["would"], false);
    assert_eq!(zap["decisions"][0]["why_not"], "the policy is a dry run: it does not say `armed = true`");
    assert_eq!(zap["undecided_rules"], serde_json::json!(["web"]));
    assert_eq!(lines.last().unwrap()["undecided"], 1);
}

#[test]
fn a_file_that_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    fs::write(&path, shipped::text("observe").unwrap().replace("\"log\"", "\"lgo\"")).unwrap();
    let kinds =
        "`log`, `notify`, `hold`, `stop`, `freeze`, `kill`, `unsafe-kill`, `quarantine`, `cordon`, `panic`";
    let said = run(&["check", path.to_str().unwrap()]).unwrap_err();
    let at = format!("{}:13: rules[0].ladder[0].do", path.display());
    assert_eq!(said, format!("{at}: unknown variant `lgo`, expected one of {kinds}"));
}
