//! Policies that are right, and files that are not.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::*;
use crate::policy::shipped;

fn wrong(text: &str) -> String {
    Policy::parse(Path::new("p.toml"), text).unwrap_err().to_string()
}

#[test]
fn the_shipped_policies_are_policies() {
    for (name, text) in shipped::all() {
        let policy = Policy::parse(Path::new(name), text).unwrap();
        assert_eq!(policy.name, name);
        assert!(!policy.rules.is_empty(), "{name}");
        assert!(text.starts_with('#'), "{name} is explained");
    }
}

#[test]
fn so_is_the_one_that_operators_read() {
    let (_, from) = include_str!("../README.md").split_once("```toml\n").unwrap();
    let policy = Policy::parse(Path::new("README.md"), from.split_once("```").unwrap().0).unwrap();
    assert_eq!(policy.rules[0].ladder.len(), 4);
}

/// A folder of this user's alone, with a policy in it.
fn written(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.toml");
    fs::write(&path, text).unwrap();
    set(&path, 0o600);
    (folder, path)
}

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What is said of a file, without its folder.
fn refused(folder: &Path, path: &Path) -> String {
    let said = Policy::read(path).unwrap_err().to_string();
    said.replace(&fs::canonicalize(folder).unwrap().display().to_string(), "DIR")
}

fn contain() -> &'static [u8] {
    shipped::text("contain").unwrap().as_bytes()
}

#[test]
fn a_file_that_others_can_write_is_none() {
    let (folder, path) = written(contain());
    for mode in [0o600, 0o644, 0o444] {
        set(&path, mode);
        Policy::read(&path).unwrap();
    }
    for mode in [0o620, 0o602, 0o666] {
        set(&path, mode);
        let expected = format!("DIR/p.toml: others can write it (mode 0{mode:o}): chmod go-w");
        assert_eq!(refused(folder.path(), &path), expected);
    }
}

#[test]
fn nor_is_one_that_others_can_put_another_in_place_of() {
    let (folder, path) = written(contain());
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let link = inner.join("link.toml");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    set(&inner, 0o755);
    Policy::read(&link).unwrap();
    for (open, mode) in [(&inner, 0o775), (&inner, 0o777)] {
        set(open, mode);
        let expected =
            format!("DIR/inner: others can put another policy into this folder (mode 0{mode:o}): chmod go-w");
        assert_eq!(refused(folder.path(), &link), expected);
    }
    // As /tmp is: what is somebody's there stays.
    set(&inner, 0o1777);
    Policy::read(&link).unwrap();
    // The folder of the file itself, read through a link elsewhere.
    set(folder.path(), 0o777);
    let expected = "DIR: others can put another policy into this folder (mode 0777): chmod go-w";
    assert_eq!(refused(folder.path(), &link), expected);
}

#[test]
fn nor_is_a_strangers() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    let (folder, path) = written(contain());
    std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
    assert_eq!(
        refused(folder.path(), &path),
        "DIR/p.toml: owned by uid 4711: a policy must be root's or yours (chown)"
    );
    std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    std::os::unix::fs::chown(folder.path(), Some(4711), None).unwrap();
    assert_eq!(
        refused(folder.path(), &path),
        "DIR: a folder of uid 4711, who can put another policy into it: it must be root's or yours"
    );
}

#[test]
fn what_is_no_text_is_no_policy() {
    let of = |bytes: &[u8]| {
        let (folder, path) = written(bytes);
        refused(folder.path(), &path)
    };
    assert_eq!(of(b"name = \"p\"\n\xff"), "DIR/p.toml:2: not UTF-8: no policy");
    assert_eq!(
        of(b"name = \"p\"\n# \0"),
        "DIR/p.toml:2: name: invalid comment character, expected printable characters"
    );
    let long = [b"name = \"p\"\n#".as_slice(), &[b'x'; 1 << 20]].concat();
    assert_eq!(of(&long), "DIR/p.toml:1: longer than 1048576 bytes: no policy");
    let (folder, path) = written(b"");
    assert_eq!(refused(folder.path(), folder.path()), "DIR: not a regular file: no policy");
    fs::remove_file(&path).unwrap();
    assert_eq!(
        refused(folder.path(), &path),
        "DIR/p.toml: No such file or directory (os error 2); shipped policies are observe, alert, contain, cordon, \
         panic-on-use-after-free, panic-on-warn"
    );
    // A pipe that nobody writes to keeps nobody waiting.
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert_eq!(refused(folder.path(), &path), "DIR/p.toml: not a regular file: no policy");
}

#[test]
fn what_is_left_out_has_a_default() {
    let policy = Policy::parse(Path::new("p.toml"), &step("do = \"hold\"")).unwrap();
    assert!(!policy.armed);
    let hour = Duration::from_secs(3600);
    assert_eq!(
        (policy.td_limit, policy.host_limit),
        (Limit { count: 1, per: hour }, Limit { count: 4, per: hour })
    );
    let rule = &policy.rules[0];
    assert_eq!((rule.cool_down, rule.confidence, rule.leaves), (Duration::from_secs(60), Confidence::Any, 0));
    let step_of = |options: &str| {
        Policy::parse(Path::new("p.toml"), &step(options)).unwrap().rules.remove(0).ladder.remove(0).reaction
    };
    use crate::policy::reaction::{Channel, Cordon, Hold, Notify};
    use rustix::io::Errno;
    assert_eq!(step_of("do = \"hold\""), Reaction::Hold(Hold { errno: Errno::IO, ready: false }));
    assert_eq!(
        step_of("do = \"hold\", errno = 28"),
        Reaction::Hold(Hold { errno: Errno::NOSPC, ready: false })
    );
    assert_eq!(
        step_of("do = \"cordon\""),
        Reaction::Cordon(Cordon { errno: Errno::BUSY, every_type: false })
    );
    let command = Channel::Command(vec!["/bin/a".to_owned(), "b".to_owned()]);
    let timeout = Duration::from_secs(5);
    let notify = Reaction::Notify(Notify { channel: command, timeout });
    assert_eq!(step_of("do = \"notify\", command = [\"/bin/a\", \"b\"]"), notify);
}

#[test]
fn times_are_written_as_they_are_read() {
    for text in ["1ms", "90s", "1m", "1h", "365d"] {
        let text_of = format!("cool_down = {text:?}\n{}", step("do = \"log\""));
        let policy = Policy::parse(Path::new("p.toml"), &text_of).unwrap();
        assert_eq!(words::time(policy.rules[0].cool_down), text);
    }
}

/// A policy with one rule of these lines; they begin in line 4.
fn rule(lines: &str) -> String {
    format!("name = \"p\"\n[[rules]]\nname = \"r\"\n{lines}\n")
}

/// A ladder of this one step, in line 5.
fn step(options: &str) -> String {
    rule(&format!("violation = \"any\"\nladder = [{{ {options} }}]"))
}

fn hostile() -> Vec<(String, &'static str)> {
    let log = "ladder = [{ do = \"log\" }]";
    let with = |line: &str| rule(&format!("violation = \"any\"\n{line}\n{log}"));
    let head = |line: &str| format!("{line}\n{}", rule(&format!("violation = \"any\"\n{log}")));
    let many = |count: usize| {
        let one = |n| format!("[[rules]]\nname = \"r{n}\"\nviolation = \"any\"\n{log}\n");
        format!("name = \"p\"\n{}", (0..count).map(one).collect::<String>())
    };
    vec![
        (String::new(), "1: missing field `name`"),
        ("name = \"p\"\n".to_owned(), "1: name: missing field `rules`"),
        ("name = \"p\"\nrules = []\n".to_owned(), "2: rules: no rule: a policy has at least one [[rules]]"),
        ("name = \"p\"\nname = \"q\"\n".to_owned(), "2: name: duplicate key"),
        ("name = \"p\"\n[[rules]\n".to_owned(), "2: rules: unclosed array table, expected `]`"),
        (
            head("armd = true"),
            "1: armd: unknown field `armd`, expected one of `name`, `about`, `armed`, `cool_down`, \
             `limits`, `tags`, `rules`",
        ),
        (head("armed = \"true\""), "1: armed: invalid type: string \"true\", expected a boolean"),
        (
            head("about = \"a\\u0000b\""),
            "1: about: control character '\\0' in a text: it must be one plain line",
        ),
        (
            head("about = \"a\u{7}b\""),
            "1: about: invalid basic string, expected non-double-quote visible characters, `\\`",
        ),
        (
            head("\"a\\u001bb\" = 1"),
            "1: a\\u{1b}b: unknown field `a?b`, expected one of `name`, `about`, `armed`, `cool_down`, \
             `limits`, `tags`, `rules`",
        ),
        (head("about = \" \""), "1: about: empty"),
        (
            head(&format!("about = \"{}\"", "x".repeat(1001))),
            "1: about: 1001 bytes of text: at most 1000 are read",
        ),
        (
            head("cool_down = \"0s\""),
            "1: cool_down: \"0s\" is no time from 1ms to 365d: a whole number with ms, s, m, h or d, as in \
             \"90s\"",
        ),
        (
            head("cool_down = \"366d\""),
            "1: cool_down: \"366d\" is no time from 1ms to 365d: a whole number with ms, s, m, h or d, as \
             in \"90s\"",
        ),
        (
            head("cool_down = \"99999999999999999999h\""),
            "1: cool_down: \"99999999999999999999h\" is no time from 1ms to 365d: a whole number with ms, \
             s, m, h or d, as in \"90s\"",
        ),
        (head("cool_down = 5"), "1: cool_down: invalid type: integer `5`, expected a string"),
        (head("limits.td = { count = 0, per = \"1h\" }"), "1: limits.td.count: 0 is not from 1 to 1000"),
        (
            head("limits.host = { count = 1001, per = \"1h\" }"),
            "1: limits.host.count: 1001 is not from 1 to 1000",
        ),
        (
            head("limits.host = { count = -1, per = \"1h\" }"),
            "1: limits.host.count: -1 is not from 1 to 1000",
        ),
        (head("limits.host = { count = 1 }"), "1: limits.host: missing field `per`"),
        (head("tags.prod = {}"), "1: tags.prod: a tag without a selector: give it a name, cgroup or uuid"),
        (
            head("tags.prod = { tag = [\"x\"] }"),
            "1: tags.prod.tag: unknown field `tag`, expected one of `name`, `cgroup`, `uuid`",
        ),
        (many(257), "1026: rules[256]: 257 rules: a policy has at most 256"),
        (
            format!("{}[[rules]]\nname = \"r0\"\nviolation = \"any\"\n{log}\n", many(1)),
            "7: rules[1].name: \"r0\" is the name of a rule before: each needs its own",
        ),
        (rule(log), "2: rules[0]: missing field `violation`"),
        (
            rule(&format!("violation = []\n{log}")),
            "4: rules[0].violation: no violation: name at least one, or write \"any\"",
        ),
        (
            rule(&format!("violation = [\"zap-failed\", \"any\"]\n{log}")),
            "4: rules[0].violation: \"any\" is no violation; one is \"freed-while-mapped\"",
        ),
        (
            rule(&format!("violation = \"freed\"\n{log}")),
            "4: rules[0].violation: \"freed\" is no violation, nor \"any\"; there are freed-while-mapped, \
             freed-while-blocked, freed-unflushed, freed-while-owned, reused-while-mapped, zap-failed, \
             map-failed, double-map, out-of-order, teardown-leak, host-access-while-mapped, \
             poisoned-while-mapped, migrated-while-mapped, vm-bugged",
        ),
        (
            rule(&format!("violation = 5\n{log}")),
            "4: rules[0].violation: invalid type: integer `5`, expected names of violations such as \
             [\"zap-failed\"], or \"any\"",
        ),
        (with("step = []"), "5: rules[0].step: an empty list: name something, or leave the key out"),
        (
            with("step = [\"remove\", \"TDH.VP.ENTER\"]"),
            "5: rules[0].step: \"TDH.VP.ENTER\" is no SEAMCALL that is watched; there are block, track, \
             remove, wbinvd, reclaim, add, aug, sept-add, vpflushdone, freeid, and names such as \
             \"TDH.MEM.TRACK\"",
        ),
        (
            with("status = [\"TDX_BUSY\"]"),
            "5: rules[0].status: \"TDX_BUSY\" is no status; one is \"TDX_OPERAND_BUSY\"",
        ),
        (
            with("status = [\"TDX_SUCCESS\"]"),
            "5: rules[0].status[0]: success, or nothing but an operand: a status that a SEAMCALL fails with \
             is \"TDX_OPERAND_BUSY\" or \"0x8000020000000000\"",
        ),
        (
            with("status = [\"0x5\"]"),
            "5: rules[0].status[0]: success, or nothing but an operand: a status that a SEAMCALL fails with \
             is \"TDX_OPERAND_BUSY\" or \"0x8000020000000000\"",
        ),
        (
            with("confidence = \"sure\""),
            "5: rules[0].confidence: unknown variant `sure`, expected one of `certain`, `suspect`, `any`",
        ),
        (
            rule("violation = \"any\"\nconfidence = \"suspect\"\nladder = [{ do = \"hold\" }]"),
            "5: rules[0].confidence: hold is never done on a suspect verdict: \"certain\" or \"any\", or a \
             ladder of log and notify",
        ),
        (with("rate = { count = 3 }"), "5: rules[0].rate: missing field `per`"),
        (
            with("td = {}"),
            "5: rules[0].td: it selects nothing: give a name, cgroup, uuid or tag, or leave td out for all \
             TDs",
        ),
        (
            with("td = { tag = [] }"),
            "5: rules[0].td.tag: an empty list: name something, or leave the key out",
        ),
        (
            with("td = { tag = [\"prod\"] }"),
            "5: rules[0].td.tag[0]: \"prod\" is no tag of [tags]; there is none",
        ),
        (
            with("td = { comm = \"qemu\" }"),
            "5: rules[0].td.comm: unknown field `comm`, expected one of `name`, `cgroup`, `uuid`, `tag`",
        ),
        (
            rule("violation = \"any\"\nladder = []"),
            "5: rules[0].ladder: an empty ladder: name a reaction, such as { do = \"log\" }",
        ),
        (
            rule("violation = \"any\"\nladder = \"log\""),
            "5: rules[0].ladder: invalid type: string \"log\", expected a sequence",
        ),
        (
            rule(&format!("violation = \"any\"\nladder = [{}]", "{ do = \"log\" },".repeat(17))),
            "5: rules[0].ladder[16]: 17 steps: a ladder has at most 16",
        ),
        (
            step("do = \"reboot\""),
            "5: rules[0].ladder[0].do: unknown variant `reboot`, expected one of `log`, `notify`, `hold`, \
             `stop`, `freeze`, `kill`, `unsafe-kill`, `quarantine`, `cordon`, `panic`",
        ),
        (step("if_failed = true"), "5: rules[0].ladder[0]: missing field `do`"),
        (
            step("do = \"log\", if_failed = true"),
            "5: rules[0].ladder[0].if_failed: the first step of a ladder: there is none before it that \
             could fail",
        ),
        (
            step("do = \"stop\", errno = \"EIO\""),
            "5: rules[0].ladder[0].errno: an option of hold and cordon: this reaction has no errno",
        ),
        (
            step("do = \"cordon\", ready = true"),
            "5: rules[0].ladder[0].ready: an option of hold: this reaction has no ready",
        ),
        (
            step("do = \"hold\", types = \"all\""),
            "5: rules[0].ladder[0].types: an option of cordon: this reaction has no types",
        ),
        (
            step("do = \"hold\", url = \"https://a.example\""),
            "5: rules[0].ladder[0].url: an option of notify: this reaction has no url",
        ),
        (
            step("do = \"hold\", errno = 0"),
            "5: rules[0].ladder[0].errno: an errno is a number from 1 to 4095, or a name such as \"EIO\"",
        ),
        (
            step("do = \"hold\", errno = 4096"),
            "5: rules[0].ladder[0].errno: an errno is a number from 1 to 4095, or a name such as \"EIO\"",
        ),
        (
            step("do = \"hold\", errno = \"EWHAT\""),
            "5: rules[0].ladder[0].errno: invalid value: string \"EWHAT\", expected an errno: a number from \
             1 to 4095, or one of EPERM, ENOENT, EINTR, EIO, ENXIO, EAGAIN, ENOMEM, EACCES, EFAULT, EBUSY, \
             ENODEV, EINVAL, ENOSPC, EROFS, EOPNOTSUPP, EHWPOISON",
        ),
        (
            step("do = \"cordon\", types = \"sev\""),
            "5: rules[0].ladder[0].types: unknown variant `sev`, expected `tdx` or `all`",
        ),
        (
            step("do = \"notify\""),
            "5: rules[0].ladder[0]: notify without command = [...] or url = \"https://...\"",
        ),
        (
            step("do = \"notify\", command = []"),
            "5: rules[0].ladder[0].command: an empty list: name something, or leave the key out",
        ),
        (
            step("do = \"notify\", command = [\"mail\"]"),
            "5: rules[0].ladder[0].command[0]: \"mail\" is no full path of a program: PATH is not searched, \
             and there is no shell",
        ),
        (
            step("do = \"notify\", command = [\"/bin/a\\u0000b\"]"),
            "5: rules[0].ladder[0].command: NUL in an argument: no process can be given one",
        ),
        (
            step("do = \"notify\", command = [\"/bin/a\"], url = \"http://a\""),
            "5: rules[0].ladder[0].url: both command and url: a notify has one; write two for both",
        ),
        (
            step("do = \"notify\", url = \"ftp://a\""),
            "5: rules[0].ladder[0].url: \"ftp://a\" is no http:// or https:// URL",
        ),
        (
            step("do = \"notify\", url = \"http:///x\""),
            "5: rules[0].ladder[0].url: \"http:///x\" is no http:// or https:// URL",
        ),
        (
            step("do = \"notify\", command = [\"/bin/a\"], timeout = \"61s\""),
            "5: rules[0].ladder[0].timeout: longer than 60s: others wait to be told meanwhile",
        ),
        (
            step("do = \"kill\""),
            "5: rules[0].ladder[0].do: kill without a hold before it in this ladder: a plain SIGKILL closes \
             guest_memfd and frees what the TD still maps. Put { do = \"hold\" } before it; who wants that \
             use-after-free writes \"unsafe-kill\"",
        ),
        (
            rule(
                "violation = \"any\"\nladder = [{ do = \"log\" }, { do = \"hold\", if_failed = true }, { do = \"kill\" }]",
            ),
            "5: rules[0].ladder[2].do: kill without a hold before it in this ladder: a plain SIGKILL closes \
             guest_memfd and frees what the TD still maps. Put { do = \"hold\" } before it; who wants that \
             use-after-free writes \"unsafe-kill\"",
        ),
        (
            rule("violation = \"any\"\nladder = [{ do = \"kill\" }, { do = \"hold\" }]"),
            "5: rules[0].ladder[0].do: kill without a hold before it in this ladder: a plain SIGKILL closes \
             guest_memfd and frees what the TD still maps. Put { do = \"hold\" } before it; who wants that \
             use-after-free writes \"unsafe-kill\"",
        ),
    ]
}

#[test]
fn hostile_files_are_refused_by_file_line_and_key() {
    for (text, said) in hostile() {
        assert_eq!(wrong(&text), format!("p.toml:{said}"), "of:\n{text}");
    }
    let deep = wrong(&format!("name = \"p\"\nx = {}1{}\n", "[".repeat(100_000), "]".repeat(100_000)));
    assert!(deep.starts_with("p.toml:2: x[0][0]") && deep.ends_with("max recursion depth met"), "{deep}");
}
