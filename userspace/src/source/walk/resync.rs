//! Resynchronisation: what is lent to TDs that run already is entered, TD by TD, on a thread of its own, while their events
//! are followed. When a TD is done, verdicts on it are certain; until then they are suspect.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use septwatch_common::{
    Suspect,
    walk::{Found, Mode},
};
use serde::Serialize;

use super::{
    WalkError, Walker,
    beside::Beside,
    compare::{self, Sweep},
    pace::Pace,
    settle, verify,
};
use crate::{here::thread_cpu_ns, locked::lock};

/// How much of a CPU it takes, unless somebody says otherwise.
pub const PERCENT: u32 = 50;

/// How a TD came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Walked {
    /// All that is lent to it is in the ledger: verdicts are certain.
    Complete,
    /// Not for certain: why.
    Suspect(String),
    /// It ended meanwhile.
    Over,
}

/// A TD that was walked.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its number.
    pub td: u32,
    /// The process that runs it.
    pub tgid: u32,
    /// How it came out.
    pub walked: Walked,
    /// Tables of its mirror page table below the root.
    pub tables: u64,
    /// Frames that KVM says are lent to it.
    pub frames: u64,
    /// Of them, those that were entered.
    pub entered: u64,
    /// How long it took, with rests, and with the second look.
    pub took_us: u64,
    /// Of a CPU, that entering took: without the second look.
    pub cpu_us: u64,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// TDs that began before septwatch and were found.
    pub tds: u64,
    /// Of them, those that are done, however they came out.
    pub done: u64,
    /// Of them, those of which all that is lent is in the ledger.
    pub complete: u64,
    /// Frames entered.
    pub entered: u64,
    /// It is over: nothing waits to be walked.
    pub finished: bool,
}

#[derive(Default)]
struct State {
    progress: Progress,
    outcomes: Vec<Outcome>,
    /// Why it ended before its time.
    error: Option<WalkError>,
}

/// What runs.
pub struct Resync(Beside<State>);

impl Resync {
    /// Begins, with so many percent of a CPU.
    pub fn begin(walker: Walker, percent: u32) -> Self {
        Self(Beside::begin(move |state, stop| {
            let ended = Work { walker, percent, state, stop }.run();
            let mut state = lock(state);
            state.progress.finished = true;
            state.error = ended.err();
        }))
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.0.state().progress
    }

    /// The TDs that were done since this was last asked, and why it could not go on, if so.
    pub fn news(&self) -> (Vec<Outcome>, Option<WalkError>) {
        let mut state = self.0.state();
        (std::mem::take(&mut state.outcomes), state.error.take())
    }
}

struct Work<'a> {
    walker: Walker,
    percent: u32,
    state: &'a Mutex<State>,
    stop: &'a AtomicBool,
}

/// Pauses between looks for what could not be walked yet; the last again and again.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(60),
];

impl Work<'_> {
    fn run(&mut self) -> Result<(), WalkError> {
        settle()?;
        let mut done = Vec::<u32>::new();
        let mut pauses = PAUSES.iter().copied().chain(std::iter::repeat(PAUSES[PAUSES.len() - 1]));
        let mut first = true;
        loop {
            let found = self.walker.find(true)?;
            let late = |td: &Found| td.id != 0 && Suspect(td.suspect).has(Suspect::LATE.and(Suspect::WALK));
            // Without a record it is being made right now: its last SEAMCALLs will be seen, the first may not have been.
            let unknown = found.iter().filter(|td| td.id == 0 && td.tdr != 0).count();
            let todo: Vec<_> = found.into_iter().filter(|td| late(td) && !done.contains(&td.id)).collect();
            if first {
                lock(self.state).progress.tds = todo.len() as u64;
            }
            first = false;
            let mut waiting = unknown;
            for td in &todo {
                match self.one(td)? {
                    None => waiting += 1,
                    Some(outcome) => {
                        done.push(td.id);
                        self.tell(outcome);
                    }
                }
                if self.stop.load(Ordering::Acquire) {
                    return Ok(());
                }
            }
            let pause = pauses.next().unwrap_or_default();
            if waiting == 0 || !Pace::new(self.percent, Some(self.stop)).wait(pause) {
                return Ok(());
            }
        }
    }

    fn tell(&self, outcome: Outcome) {
        let mut state = lock(self.state);
        state.progress.done += 1;
        state.progress.tds = state.progress.tds.max(state.progress.done);
        state.progress.complete += u64::from(outcome.walked == Walked::Complete);
        state.outcomes.push(outcome);
    }

    /// Walks a TD. None: it cannot be done yet.
    fn one(&mut self, td: &Found) -> Result<Option<Outcome>, WalkError> {
        let mut spent = Spent::default();
        let before = lock(self.state).progress.entered;
        let mut pace = Pace::new(self.percent, Some(self.stop));
        if !self.walker.mark(td, Suspect::default(), Suspect::WALK)? {
            return Ok(Some(outcome(td, Walked::Over, &Sweep::default(), &spent)));
        }
        let state = self.state;
        let mut progress = |sweep: &Sweep| lock(state).progress.entered = before + sweep.entered;
        let sweep = compare::sweep(&mut self.walker, td, Mode::Enter, &mut pace, &mut progress)?;
        spent.entered();
        if sweep.stopped {
            return Ok(None);
        }
        if sweep.over {
            return Ok(Some(outcome(td, Walked::Over, &sweep, &spent)));
        }
        if sweep.not_yet != 0 {
            return Ok(None);
        }
        let Some(differ) = verify::differences(&mut self.walker, td, &sweep, &mut pace)? else {
            return Ok(None);
        };
        let walked = match self.doubt(td, &sweep, differ)? {
            None => Walked::Complete,
            Some(why) => Walked::Suspect(why),
        };
        let gone = match walked {
            Walked::Complete => Suspect::LATE.and(Suspect::WALK),
            _ => Suspect::WALK,
        };
        let walked = if self.walker.mark(td, gone, Suspect::default())? { walked } else { Walked::Over };
        Ok(Some(outcome(td, walked, &sweep, &spent)))
    }

    /// Why verdicts on a TD stay suspect, if they do.
    fn doubt(&self, td: &Found, sweep: &Sweep, differ: usize) -> Result<Option<String>, WalkError> {
        let record = self.walker.record(td)?;
        Ok(if td.bugged != 0 || record.bugged_ns != 0 {
            Some("KVM has called the VM bugged: what it believes unmapped may still be mapped".to_owned())
        } else if record.failed_ns != 0 {
            Some("a SEAMCALL on it failed before all was entered".to_owned())
        } else if !sweep.unread.is_empty() {
            Some(format!("{} of its tables could not be read", sweep.unread.len()))
        } else if !sweep.differences.is_empty() {
            Some(format!("{} frames are lent otherwise, by the ledger", sweep.differences.len()))
        } else if differ != 0 {
            Some(format!("{differ} frames differ at a second look"))
        } else {
            None
        })
    }
}

/// Time that a TD takes.
struct Spent {
    begun: Instant,
    cpu_ns: u64,
    entering_ns: u64,
}

impl Default for Spent {
    fn default() -> Self {
        Self { begun: Instant::now(), cpu_ns: thread_cpu_ns(), entering_ns: 0 }
    }
}

impl Spent {
    /// All is entered.
    fn entered(&mut self) {
        self.entering_ns = thread_cpu_ns().saturating_sub(self.cpu_ns);
    }
}

fn outcome(td: &Found, walked: Walked, sweep: &Sweep, spent: &Spent) -> Outcome {
    Outcome {
        td: td.id,
        tgid: td.tgid,
        walked,
        tables: sweep.tables,
        frames: sweep.frames,
        entered: sweep.entered,
        took_us: spent.begun.elapsed().as_micros() as u64,
        cpu_us: spent.entering_ns / 1000,
    }
}
