//! Policies that are right, and files that are not.
#![expect(clippy::unwrap_used, reason = "tests")]

mod hostile;

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
            format!("DIR/inner: others can put other things into this folder (mode 0{mode:o}): chmod go-w");
        assert_eq!(refused(folder.path(), &link), expected);
    }
    // As /tmp is: what is somebody's there stays.
    set(&inner, 0o1777);
    Policy::read(&link).unwrap();
    // The folder of the file itself, read through a link elsewhere.
    set(folder.path(), 0o777);
    let expected = "DIR: others can put other things into this folder (mode 0777): chmod go-w";
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
        "DIR/p.toml: owned by uid 4711: it must be root's or yours (chown)"
    );
    std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    std::os::unix::fs::chown(folder.path(), Some(4711), None).unwrap();
    assert_eq!(
        refused(folder.path(), &path),
        "DIR: a folder of uid 4711, who can put other things into it: it must be root's or yours"
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
    assert_eq!(refused(folder.path(), folder.path()), "DIR: not a regular file");
    fs::remove_file(&path).unwrap();
    assert_eq!(
        refused(folder.path(), &path),
        "DIR/p.toml: No such file or directory (os error 2); shipped policies are observe, alert, contain, cordon, \
         panic-on-use-after-free, panic-on-warn"
    );
    // A pipe that nobody writes to keeps nobody waiting.
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert_eq!(refused(folder.path(), &path), "DIR/p.toml: not a regular file");
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
