//! The process that a reaction is for, and that it is no other.

use std::{
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Dir, Mode, OFlags, open, openat},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{ReactError, call, file, host::Host};
use crate::{policy::subject::Subject, recording::header::Clock};

/// A TD's VMM. The process can end meanwhile, and its number be given to another: everything here is still about the
/// first, or fails.
#[derive(Debug)]
pub struct Vmm {
    pid: Pid,
    pidfd: OwnedFd,
    /// Its folder in procfs, which is empty when it is gone, whoever has its number then.
    folder: OwnedFd,
    path: PathBuf,
}

impl Vmm {
    /// The VMM of a TD.
    ///
    /// # Errors
    /// It is not known, or gone; its number is another's; or it may not be reacted to.
    pub fn find(host: &Host, subject: &Subject) -> Result<Self, ReactError> {
        let refused = |why: String| Err(ReactError::Refused(why));
        let number = subject.tgid.and_then(|tgid| Pid::from_raw(tgid.cast_signed()));
        let Some(pid) = number else { return refused("the TD's process is not known".to_owned()) };
        let own = rustix::process::getpid();
        if pid == own && !host.demo {
            return refused(format!("process {pid} is this one"));
        }
        // First the descriptor, then the looks: as long as what it is for has not ended, its number is nobody else's.
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return refused(format!("process {pid} is gone")),
            pidfd => pidfd.map_err(call("pidfd_open"))?,
        };
        let path = host.proc.join(pid.to_string());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(&path, flags, Mode::empty()).map_err(|errno| file(&path)(errno.into()))?;
        let vmm = Self { pid, pidfd, folder, path };
        let stat = vmm.read("stat")?;
        if vmm.ends_within(Duration::ZERO)? {
            return refused(format!("process {pid} is gone"));
        }
        let stat = Stat::parse(&stat)
            .ok_or_else(|| ReactError::NotSeen(format!("{}/stat is not understood", vmm.path.display())))?;
        if let Some(later) = stat.is_younger_than(subject.begun_ns) {
            return refused(format!(
                "process {pid} began {later:?} after the TD: it is another with its VMM's number"
            ));
        }
        if host.demo && pid != own && stat.parent != own.as_raw_nonzero().get() {
            return refused(format!("process {pid} is not the demo's own"));
        }
        Ok(vmm)
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its pidfd.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Waits for its end; false: it goes on.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn ends_within(&self, time: Duration) -> Result<bool, ReactError> {
        let mut wait = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let time = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
        Ok(poll(&mut wait, Some(&time)).map_err(call("poll of a pidfd"))? != 0)
    }

    /// A file of its folder in procfs.
    ///
    /// # Errors
    /// It cannot be read, as when the process is gone.
    pub fn read(&self, name: &str) -> Result<String, ReactError> {
        let path = self.path.join(name);
        let failed = file(&path);
        let opened = self.open(name, OFlags::RDONLY)?;
        let mut bytes = Vec::new();
        // Names of threads are in it, which may be any bytes.
        File::from(opened).read_to_end(&mut bytes).map_err(failed)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Opens what is in its folder in procfs.
    ///
    /// # Errors
    /// It is not there, or not for this process.
    pub fn open(&self, name: &str, flags: OFlags) -> Result<OwnedFd, ReactError> {
        let opened = openat(&self.folder, name, flags | OFlags::CLOEXEC, Mode::empty());
        opened.map_err(|errno| file(&self.path.join(name))(errno.into()))
    }

    /// The numbers that a folder of its folder has: of its threads, or of its descriptors.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn numbers(&self, name: &str) -> Result<Vec<u32>, ReactError> {
        let opened = self.open(name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let failed = |errno: Errno| file(&self.path.join(name))(errno.into());
        let mut numbers = Vec::new();
        for entry in Dir::read_from(opened.as_fd()).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            numbers.extend(entry.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(numbers)
    }
}

/// What is used of /proc/PID/stat: proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Stat {
    /// `R`, `S`, `D`, `T`, `t`, `Z`, `X` and others.
    pub state: char,
    /// Its parent.
    pub parent: i32,
    /// When it began, in ticks since boot.
    started: u64,
}

impl Stat {
    pub(in super::super) fn parse(text: &str) -> Option<Self> {
        // A thread's name may have blanks and brackets in it: what counts begins after the last.
        let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        // Field 22, and the first of these was 3.
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { state, parent, started })
    }

    /// By how much it is younger than what began then, in ns of CLOCK_MONOTONIC; none: it is not.
    pub(in super::super) fn is_younger_than(&self, begun_ns: u64) -> Option<Duration> {
        let later_ns = self.started_ns().checked_sub(since_boot(begun_ns))?;
        (later_ns != 0).then(|| Duration::from_nanos(later_ns))
    }

    /// When it began, in ns since boot, rounded down to a tick.
    fn started_ns(&self) -> u64 {
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        self.started.saturating_mul(tick_ns)
    }
}

/// A moment of CLOCK_MONOTONIC in ns of CLOCK_BOOTTIME, which processes are timed with. The two differ by the time that
/// the host slept, all of which is taken to have been before: a host with TDs does not sleep.
fn since_boot(monotonic_ns: u64) -> u64 {
    let now = Clock::now();
    monotonic_ns.saturating_add(now.boottime_ns.saturating_sub(now.monotonic_ns))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
pub(super) mod tests {
    use std::{fs, path::Path, process::Child};

    use super::*;

    /// A child that does nothing, and the TD that it is the VMM of. Dropping it ends it.
    pub(in super::super) struct Sleeper(pub Child);

    impl Sleeper {
        pub(in super::super) fn new() -> Self {
            Self(std::process::Command::new("sleep").arg("600").spawn().unwrap())
        }

        pub(in super::super) fn subject(&self) -> Subject {
            Subject {
                td: Some(1),
                tgid: Some(self.0.id()),
                begun_ns: Clock::now().monotonic_ns + 1_000_000_000,
                ..Subject::default()
            }
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// /proc/PID/stat with these fields.
    pub(in super::super) fn stat(pid: u32, state: char, parent: u32, started: u64) -> String {
        format!(
            "{pid} (odd) name) {state} {parent} 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {started} 100 200\n"
        )
    }

    /// Writes files of a tree, and their folders.
    pub(in super::super) fn tree(root: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn a_stat_is_read_whatever_the_name() {
        let read = Stat::parse(&stat(7, 'D', 3, 4711)).unwrap();
        assert_eq!(read, Stat { state: 'D', parent: 3, started: 4711 });
        for torn in ["", "7 (a) ", "7 (a) S 1 2 3", "no brackets"] {
            assert_eq!(Stat::parse(torn), None, "{torn}");
        }
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        let started = Stat::parse(&own).unwrap().started_ns();
        let now = Clock::now().boottime_ns;
        assert!(started < now && started > now - 3600 * 1_000_000_000, "{started} {now}");
    }

    #[test]
    fn a_process_that_is_younger_than_the_td_is_not_its_vmm() {
        let sleeper = Sleeper::new();
        let mut subject = sleeper.subject();
        let found = Vmm::find(&Host::default(), &subject).unwrap();
        assert_eq!(found.pid().as_raw_nonzero().get().cast_unsigned(), sleeper.0.id());
        subject.begun_ns = Clock::now().monotonic_ns - 60_000_000_000;
        let error = Vmm::find(&Host::default(), &subject).unwrap_err().to_string();
        assert!(error.contains("after the TD: it is another with its VMM's number"), "{error}");
    }

    #[test]
    fn a_process_that_ends_is_not_mistaken_for_the_next() {
        let sleeper = Sleeper::new();
        let subject = sleeper.subject();
        let vmm = Vmm::find(&Host::default(), &subject).unwrap();
        drop(sleeper);
        assert!(vmm.ends_within(Duration::ZERO).unwrap());
        assert!(vmm.read("stat").is_err() && vmm.numbers("fd").is_err());
        let error = Vmm::find(&Host::default(), &subject).unwrap_err().to_string();
        assert!(error.ends_with("is gone"), "{error}");
    }

    #[test]
    fn nobody_the_process_itself_and_a_strangers_child_are_refused() {
        let find = |host: &Host, tgid| {
            Vmm::find(host, &Subject { tgid, begun_ns: u64::MAX / 2, ..Subject::default() })
        };
        let host = Host::default();
        assert!(matches!(find(&host, None), Err(ReactError::Refused(_))));
        assert!(matches!(find(&host, Some(0)), Err(ReactError::Refused(_))));
        let own = find(&host, Some(std::process::id())).unwrap_err().to_string();
        assert!(own.ends_with("is this one"), "{own}");
        let root = tempfile::tempdir().unwrap();
        let sleeper = Sleeper::new();
        let pid = sleeper.0.id();
        tree(root.path(), &[(&format!("proc/{pid}/stat"), &stat(pid, 'S', 1, 0))]);
        let strange = Host { demo: true, ..Host::under(root.path()) };
        let error = find(&strange, Some(pid)).unwrap_err().to_string();
        assert!(error.ends_with("is not the demo's own"), "{error}");
        assert!(find(&Host { demo: true, ..Host::default() }, Some(pid)).is_ok());
    }
}
