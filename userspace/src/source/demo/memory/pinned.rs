//! Keeping a thread where its pages are.

use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

use super::{MemoryError, failed};

/// Keeps a thread on one CPU while it lives; the thread may then go where it might before.
#[derive(Debug)]
pub struct Pinned {
    thread: Pid,
    before: CpuSet,
}

impl Pinned {
    /// Pins the calling thread to the CPU that it is on.
    pub fn here() -> Result<Self, MemoryError> {
        Self::to(sched_getcpu())
    }

    /// Pins the calling thread to the `number`th (cyclically) of the CPUs that the thread of `self` might be on
    /// before it was pinned. A new thread inherits its parent's one CPU: hence not "of its own".
    pub fn beside(&self, number: usize) -> Result<Self, MemoryError> {
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| self.before.is_set(*cpu));
        Self::to(cpus.nth(number % self.before.count().max(1) as usize).unwrap_or(0))
    }

    fn to(cpu: usize) -> Result<Self, MemoryError> {
        let before = sched_getaffinity(None).map_err(failed("sched_getaffinity"))?;
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only).map_err(failed("sched_setaffinity"))?;
        Ok(Self { thread: gettid(), before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // It fails when the thread is gone, or its CPUs are: nothing to restore then.
        let _ = sched_setaffinity(Some(self.thread), &self.before);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test ends there")]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_where_it_is_pinned() {
        let before = sched_getaffinity(None).unwrap();
        let pinned = Pinned::here().unwrap();
        assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
        let cpus: std::collections::BTreeSet<_> = (0..before.count() as usize + 3)
            .map(|number| {
                let _beside = pinned.beside(number).unwrap();
                assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
                sched_getcpu()
            })
            .collect();
        assert_eq!(cpus.len(), before.count() as usize, "each of them");
        drop(pinned);
        assert!(sched_getaffinity(None).unwrap() == before);
    }
}
