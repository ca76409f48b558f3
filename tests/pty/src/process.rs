//! CPU time that a process has used: proc(5).

use std::{fs, time::Duration};

use rustix::param::clock_ticks_per_second;

/// CPU time, to a hundredth of a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// In the program.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl Used {
    /// Both together.
    pub fn total(self) -> Duration {
        self.user.saturating_add(self.system)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name, in parentheses, may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace().skip(11);
        let hertz = clock_ticks_per_second();
        let mut time = || {
            let ticks: u64 = fields.next()?.parse().ok()?;
            Some(Duration::from_micros(ticks.saturating_mul(1_000_000) / hertz.max(1)))
        };
        Some(Self { user: time()?, system: time()? })
    }
}

/// CPU time of a process with all its threads; none: it is gone.
pub fn cpu(pid: u32) -> Option<Used> {
    Used::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Names and CPU time of the threads of a process, the first one first; in ns where the kernel counts them
/// (CONFIG_SCHED_INFO).
pub fn threads(pid: u32) -> Vec<(String, Duration)> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut threads: Vec<_> = tasks
        .filter_map(|task| {
            let task = task.ok()?;
            let number: u32 = task.file_name().to_str()?.parse().ok()?;
            let read = |file| fs::read_to_string(task.path().join(file)).ok();
            let exact = read("schedstat").and_then(|text| text.split(' ').next()?.parse().ok());
            let used = match exact {
                Some(ns) => Duration::from_nanos(ns),
                None => Used::parse(&read("stat")?)?.total(),
            };
            Some((number, read("comm")?.trim_end().to_owned(), used))
        })
        .collect();
    threads.sort_unstable();
    threads.into_iter().map(|(_, name, used)| (name, used)).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

    use super::*;

    #[test]
    fn a_stat_is_read_whatever_the_name() {
        let stat = "7 (a) 1 (b) S 1 7 7 0 -1 4194304 1 2 3 4 250 50 7 8 20 0 1 0";
        let used = Used::parse(stat).unwrap();
        assert_eq!(used.user.as_micros(), 250_000_000 / u128::from(clock_ticks_per_second()));
        assert_eq!(used.user, used.system * 5);
        assert!(cpu(std::process::id()).is_some() && cpu(u32::MAX).is_none());
        assert!(!threads(std::process::id()).is_empty());
    }
}
