//! Audits from time to time, on a thread of their own.

use std::time::Duration;

use super::{WalkError, Walker, audit, beside::Beside, pace::Pace};
use crate::locked::lock;

/// How audits stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Those that were done.
    pub audits: u64,
    /// Those that could not be done.
    pub failed: u64,
    /// What differed at the last one.
    pub differences: u64,
    /// How long that took, in us.
    pub took_us: u64,
}

#[derive(Default)]
struct State {
    standing: Standing,
    news: Vec<String>,
}

/// What runs.
pub struct Schedule(Beside<State>);

/// Differences of one audit that are told one by one.
const TOLD: usize = 16;

impl Schedule {
    /// Begins: an audit after each span of this length, with so many percent of a CPU.
    pub fn begin(mut walker: Walker, every: Duration, percent: u32) -> Self {
        Self(Beside::<State>::begin(move |state, stop| {
            while Pace::new(percent, Some(stop)).wait(every) {
                let audited = audit::audit(&mut walker, None, &mut Pace::new(percent, Some(stop)));
                lock(state).took(audited);
            }
        }))
    }

    /// How they stand.
    pub fn standing(&self) -> Standing {
        self.0.state().standing.clone()
    }

    /// What is to be told since this was last asked.
    pub fn news(&self) -> Vec<String> {
        std::mem::take(&mut self.0.state().news)
    }
}

impl State {
    fn took(&mut self, audited: Result<audit::Audit, WalkError>) {
        let audit = match audited {
            Ok(audit) if audit.stopped => return,
            Ok(audit) => audit,
            Err(error) => {
                self.standing.failed += 1;
                // Once: the next fails as well.
                if self.standing.failed == 1 {
                    self.news.push(format!("an audit cannot be done: {}", crate::told::told(&error)));
                }
                return;
            }
        };
        self.standing.audits += 1;
        self.standing.differences = audit.differences() as u64;
        self.standing.took_us = audit.took_us;
        for td in audit.tds.iter().filter(|td| !td.differences.is_empty()) {
            let count = td.differences.len();
            self.news.push(format!("audit: TD {} (pid {}): {count} frames differ", td.td, td.tgid));
            self.news
                .extend(td.differences.iter().take(TOLD).map(|each| format!("audit: {}", audit::told(each))));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, io};

    use septwatch_common::{Level, Line, PageKind, walk::Difference};

    use super::*;

    #[test]
    fn what_differs_is_told_and_a_failure_once() {
        let line = Line::open(PageKind::Leaf, 1, Level::L4K, 0x10).0;
        let differences = BTreeSet::from([Difference { pfn: 0x99, line, kvm: 0, instead: 0 }]);
        let td = audit::Audited {
            td: 7,
            tgid: 42,
            compared: audit::Compared::Whole,
            tables: 1,
            frames: 1,
            lines: 1,
            differences,
        };
        let mut state = State::default();
        state.took(Ok(audit::Audit { tds: vec![td], took_us: 5, stopped: false }));
        assert_eq!(state.standing, Standing { audits: 1, failed: 0, differences: 1, took_us: 5 });
        assert_eq!(
            state.news,
            [
                "audit: TD 7 (pid 42): 1 frames differ",
                "audit: pfn 0x99: the ledger has a guest leaf 4K at gfn 0x10, mapped; KVM believes it unmapped"
            ]
        );
        state.news.clear();
        for _ in 0..2 {
            state.took(Err(WalkError::Barrier(io::Error::from_raw_os_error(22))));
        }
        assert_eq!((state.standing.failed, state.news.len()), (2, 1));
        assert_eq!(state.standing.differences, 1, "the last that was done");
    }
}
