//! Where a running agent may still write: everywhere else Landlock says no, to root too.
//!
//! What is open stays open: rings, maps, links, standard error. Reading is not restricted, for VMMs come and go, and so do
//! what they have mapped.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
    path_beneath_rules,
};

use crate::{
    hooks::{lock::RUN, pins::BPFFS},
    policy::{
        file::Policy,
        reaction::{Channel, Notify, Reaction},
    },
};

/// What every agent writes below: its lock and its socket; pins; what processes are started with.
const ALWAYS: [&str; 3] = [RUN, BPFFS, "/dev/null"];

/// What reactions write below.
const REACTIONS: [(&str, &[&str]); 4] = [
    // The keeper's oom_score_adj, and sysrq-trigger.
    ("/proc", &["hold", "kill", "panic"]),
    // The keeper has a cgroup of its own, and a frozen VMM is in its.
    ("/sys/fs/cgroup", &["hold", "kill", "freeze"]),
    ("/sys/devices/system/memory", &["quarantine"]),
    ("/dev/kmsg", &["panic"]),
];

/// How writing came to be restricted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// To the folders that it needs.
    Restricted,
    /// Not at all: the kernel has no Landlock, or it is not switched on.
    NoLandlock,
    /// Not at all: the policy runs programs, and what those write is their owner's choice.
    RunsPrograms,
}

/// Restricts where this thread, and those that it starts, may write: below these paths, and what an agent with this policy
/// needs.
///
/// # Errors
/// The kernel has Landlock, and refuses.
pub fn restrict(policy: Option<&Policy>, own: &[PathBuf]) -> Result<Writes, RulesetError> {
    let steps = policy.into_iter().flat_map(|policy| &policy.rules).flat_map(|rule| &rule.ladder);
    let reactions: Vec<_> = steps.map(|step| &step.reaction).collect();
    let runs = |reaction: &&Reaction| {
        matches!(reaction, Reaction::Notify(Notify { channel: Channel::Command(_), .. }))
    };
    if reactions.iter().any(runs) {
        return Ok(Writes::RunsPrograms);
    }
    let wanted = REACTIONS
        .iter()
        .filter(|(_, needs)| reactions.iter().any(|reaction| needs.contains(&reaction.name())));
    let paths = ALWAYS.into_iter().chain(wanted.map(|(path, _)| *path)).map(Path::new);
    below(paths.chain(own.iter().map(PathBuf::as_path)))
}

/// Paths that are not there are left out: nobody can make them.
fn below<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<Writes, RulesetError> {
    // Of a kernel that knows less, as much as it knows.
    let write = AccessFs::from_write(ABI::V5);
    let created = Ruleset::default().handle_access(write)?.create()?;
    let status = created.add_rules(path_beneath_rules(paths, write))?.restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => Writes::NoLandlock,
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Writes::Restricted,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use std::{fs, io::ErrorKind, thread};

    use super::*;

    #[test]
    fn it_writes_where_it_needs_to_and_nowhere_else() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (own, other) = (own.path(), other.path());
        fs::write(other.join("old"), "x").unwrap();
        thread::scope(|scope| {
            // Only this thread, and those that it starts.
            let restricted = scope.spawn(|| match restrict(None, &[own.to_owned()]).unwrap() {
                Writes::NoLandlock => {
                    eprintln!("skipped: this kernel has no Landlock, or it is not switched on")
                }
                Writes::RunsPrograms => unreachable!("there is no policy"),
                Writes::Restricted => {
                    fs::write(own.join("new"), "x").unwrap();
                    fs::rename(own.join("new"), own.join("newer")).unwrap();
                    fs::remove_file(own.join("newer")).unwrap();
                    fs::write("/dev/null", "x").unwrap();
                    let refused = |result: std::io::Result<()>| {
                        assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
                    };
                    refused(fs::write(other.join("new"), "x"));
                    refused(fs::write(other.join("old"), "x"));
                    refused(fs::remove_file(other.join("old")));
                    refused(fs::write("/proc/self/oom_score_adj", "0"));
                    assert_eq!(fs::read_to_string(other.join("old")).unwrap(), "x");
                }
            });
            restricted.join().unwrap();
        });
        fs::write(other.join("new"), "x").unwrap();
    }

    #[test]
    fn a_policy_that_runs_programs_restricts_nothing() {
        let text = "name = \"p\"\n[[rules]]\nname = \"r\"\nviolation = \"zap-failed\"\nladder = [{ do = \"notify\", command = [\"/bin/true\"] }]\n";
        let policy = Policy::parse(Path::new("p.toml"), text).unwrap();
        assert_eq!(restrict(Some(&policy), &[]).unwrap(), Writes::RunsPrograms);
    }
}
