//! What is wrong with a file is named by file, line and key, and what would be right is said.

use super::{rule, step, wrong};

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
