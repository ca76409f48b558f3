//! `freeze`: the cgroup of the VMM, by the freezer of cgroup v2.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    LOOK, ReactError, file, hold,
    host::{self, Host},
    vmm::Vmm,
};
use crate::policy::subject::Subject;

/// How long the cgroup may take to be frozen.
const FREEZES: Duration = Duration::from_secs(1);

/// Freezes the smallest cgroup that has all threads of a VMM.
///
/// # Errors
/// It would freeze somebody else: the whole host, this process, another VMM. Or it is not frozen after a second.
pub fn freeze(host: &Host, vmm: &Vmm) -> Result<String, ReactError> {
    let refused = |why: String| ReactError::Refused(why);
    let root = host.cgroups().ok_or_else(|| refused("cgroup v2 is not mounted".to_owned()))?;
    let cgroup = common(vmm)?;
    let inside = cgroup.strip_prefix("/").unwrap_or(&cgroup);
    if inside.as_os_str().is_empty() {
        return Err(refused(format!("process {} is in the root cgroup, which is the host's", vmm.pid())));
    }
    let folder = root.join(inside);
    let name = cgroup.display();
    if host.own_cgroup().is_some_and(|own| own.starts_with(&cgroup)) {
        return Err(refused(format!("the cgroup {name} has this process in it")));
    }
    let held: Vec<_> = hold::pin(vmm, host.demo)?.into_iter().map(|pinned| pinned.inode).collect();
    for pid in processes(host, &folder)? {
        let Some(other) = another(host, pid, vmm) else { continue };
        // A helper of the same VMM may have been given its guest_memfd.
        if other.iter().any(|pinned| !held.contains(&pinned.inode)) {
            return Err(refused(format!("the cgroup {name} has another VM in it: process {pid}")));
        }
    }
    let switch = folder.join("cgroup.freeze");
    fs::write(&switch, "1").map_err(file(&switch))?;
    let (events, start) = (folder.join("cgroup.events"), Instant::now());
    loop {
        let seen = fs::read_to_string(&events).map_err(file(&events))?;
        if seen.lines().any(|line| line == "frozen 1") {
            return Ok(format!("the cgroup {name} is frozen"));
        }
        if start.elapsed() >= FREEZES {
            return Err(ReactError::NotSeen(format!(
                "the cgroup {name} is not frozen after {FREEZES:?}; it was asked"
            )));
        }
        sleep(LOOK);
    }
}

/// The guest_memfd of a process of the cgroup; none: it is the VMM, or it has ended.
fn another(host: &Host, pid: u32, vmm: &Vmm) -> Option<Vec<hold::Pinned>> {
    if pid == vmm.pid().as_raw_nonzero().get().cast_unsigned() {
        return None;
    }
    // Whoever it is now counts, so it need not be old.
    let subject = Subject { tgid: Some(pid), begun_ns: u64::MAX / 2, ..Subject::default() };
    let other = Vmm::find(&Host { demo: false, ..host.clone() }, &subject).ok()?;
    hold::pin(&other, host.demo).ok()
}

/// The cgroup that all threads of a process are in or below: a VMM's threads may be in threaded cgroups of their own.
fn common(vmm: &Vmm) -> Result<PathBuf, ReactError> {
    let mut common: Option<PathBuf> = None;
    for thread in vmm.numbers("task")? {
        let Ok(text) = vmm.read(&format!("task/{thread}/cgroup")) else { continue };
        let Some(path) = host::cgroup(&text).map(PathBuf::from) else { continue };
        common = Some(match common {
            None => path,
            Some(common) => both(&common, &path),
        });
    }
    common.ok_or_else(|| ReactError::Refused(format!("process {} has no cgroup of version 2", vmm.pid())))
}

fn both(one: &Path, other: &Path) -> PathBuf {
    one.components()
        .zip(other.components())
        .take_while(|(one, other)| one == other)
        .map(|(one, _)| one)
        .collect()
}

/// Processes of a cgroup and of those below it.
fn processes(host: &Host, folder: &Path) -> Result<Vec<u32>, ReactError> {
    let mut processes = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // Of a threaded cgroup the list of processes cannot be read.
        let list = folder.join("cgroup.threads");
        let threads = fs::read_to_string(&list).map_err(file(&list))?;
        for thread in threads.lines() {
            let status = fs::read_to_string(host.proc.join(thread).join("status")).unwrap_or_default();
            let tgid = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
            processes.extend(tgid.and_then(|tgid| tgid.trim().parse::<u32>().ok()));
        }
        for entry in fs::read_dir(&folder).map_err(file(&folder))?.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    processes.sort_unstable();
    processes.dedup();
    Ok(processes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::{
        super::vmm::tests::{Sleeper, stat, tree},
        *,
    };

    /// A tree with a VMM of two threads in these cgroups, and what freezing it answers.
    fn act(threads: [&str; 2], own: &str, frozen: bool) -> (Result<String, ReactError>, String) {
        let (root, sleeper) = (tempfile::tempdir().unwrap(), Sleeper::new());
        let pid = sleeper.0.id();
        let mount = root.path().join("cgroup");
        let files = [
            (
                "proc/self/mountinfo".to_owned(),
                format!("34 24 0:29 / {} rw - cgroup2 cgroup2 rw\n", mount.display()),
            ),
            ("proc/self/cgroup".to_owned(), format!("1:name=systemd:/x\n0::{own}\n")),
            (format!("proc/{pid}/stat"), stat(pid, 'S', 1, 0)),
            (format!("proc/{pid}/status"), format!("Name:\tsleep\nTgid:\t{pid}\n")),
            (format!("proc/{pid}/fd/0"), String::new()),
            (format!("proc/{pid}/task/{pid}/cgroup"), format!("0::{}\n", threads[0])),
            (format!("proc/{pid}/task/1/cgroup"), format!("0::{}\n", threads[1])),
            ("cgroup/vms/cgroup.freeze".to_owned(), "0\n".to_owned()),
            ("cgroup/vms/cgroup.threads".to_owned(), format!("{pid}\n")),
            ("cgroup/vms/cgroup.events".to_owned(), format!("populated 1\nfrozen {}\n", u8::from(frozen))),
            ("cgroup/vms/vcpu0/cgroup.threads".to_owned(), String::new()),
        ];
        tree(root.path(), &files.each_ref().map(|(name, text)| (name.as_str(), text.as_str())));
        let host = Host::under(root.path());
        let vmm = Vmm::find(&host, &sleeper.subject()).unwrap();
        (freeze(&host, &vmm), fs::read_to_string(mount.join("vms/cgroup.freeze")).unwrap())
    }

    #[test]
    fn the_cgroup_of_all_threads_is_frozen() {
        for threads in [["/vms", "/vms"], ["/vms/emulator", "/vms/vcpu0"]] {
            let (done, switch) = act(threads, "/system.slice", true);
            assert_eq!((done.unwrap().as_str(), switch.as_str()), ("the cgroup /vms is frozen", "1"));
        }
        let (done, switch) = act(["/vms", "/vms"], "/", false);
        assert_eq!(done.unwrap_err().to_string(), "the cgroup /vms is not frozen after 1s; it was asked");
        assert_eq!(switch, "1");
    }

    #[test]
    fn nobody_else_is_frozen() {
        for (threads, own, why) in [
            (["/", "/"], "/a", "in the root cgroup"),
            (["/a", "/vms"], "/a", "in the root cgroup"),
            (["/vms", "/vms"], "/vms", "has this process in it"),
            (["/vms", "/vms"], "/vms/below", "has this process in it"),
        ] {
            let (done, switch) = act(threads, own, true);
            let error = done.unwrap_err().to_string();
            assert!(error.contains(why) && switch == "0\n", "{error}");
        }
    }
}
