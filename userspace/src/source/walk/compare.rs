//! Going through all that KVM says of a TD, to enter it or to compare it, and through the ledger's lines the other way round.
//!
//! What differs at one look may be an event that was under way. KVM makes a map or a zap inside of one
//! `rcu_read_lock()`, so that after a grace period ([`settle`]) it is over: only what a second look finds the same way is
//! told.

use std::{thread, time::Duration};

use fastrand::Rng;
use septwatch_common::walk::{Difference, Ended, Found, Mode, Told};

use super::{At, WalkError, Walker, pace::Pace, settle};

/// Looks at a step that does not come to rest.
const TRIES: u32 = 16;
/// The pause after one of them; it doubles.
const PAUSE: Duration = Duration::from_micros(50);

/// What going through a TD came to.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// Tables of the mirror below its root.
    pub tables: u64,
    /// Frames that KVM says are lent.
    pub frames: u64,
    /// Of them, those that were entered.
    pub entered: u64,
    /// Those that the ledger knew.
    pub known: u64,
    /// Those without a place in the ledger.
    pub outside: u64,
    /// Steps in which there was something.
    pub steps: u64,
    /// Some of those steps, by chance.
    pub sample: Vec<At>,
    /// What differs, at two looks.
    pub differences: Vec<Difference>,
    /// Steps that could not be read, or did not come to rest.
    pub unread: Vec<At>,
    /// Things that were being made.
    pub not_yet: u64,
    /// The TD ended meanwhile.
    pub over: bool,
    /// It was told to end.
    pub stopped: bool,
    random: Rng,
}

/// Steps that cannot be read: after so many, none will be.
const UNREAD: usize = 64;

/// Steps that a sample has at most.
const SAMPLE: u64 = 64;

impl Sweep {
    /// Takes the result of a step in; false: there is nothing to go on with.
    fn took(&mut self, at: At, (ended, told, differences): (Ended, Told, Vec<Difference>)) -> bool {
        self.tables += u64::from(told.tables);
        self.frames += u64::from(told.seen);
        self.entered += u64::from(told.entered);
        self.known += u64::from(told.known);
        self.outside += u64::from(told.outside);
        self.differences.extend(differences);
        match ended {
            Ended::Done if told.seen != 0 => self.choose(at),
            Ended::Done | Ended::Absent => {}
            Ended::NotYet => {
                self.not_yet += 1;
                return !matches!(at, At::Mirror(_));
            }
            Ended::Torn => {
                self.unread.push(at);
                return self.unread.len() < UNREAD;
            }
            Ended::Over => self.over = true,
            Ended::Last | Ended::NoMirror => return false,
        }
        !self.over
    }

    /// Each step is in the sample with the same probability.
    fn choose(&mut self, at: At) {
        self.steps += 1;
        if self.steps <= SAMPLE {
            self.sample.push(at);
        } else if self.random.u64(..self.steps) < SAMPLE {
            self.sample[self.random.usize(..SAMPLE as usize)] = at;
        }
    }
}

/// One step, again and again until nothing came in between.
///
/// # Errors
/// The program cannot be run.
pub fn look(
    walker: &mut Walker,
    td: &Found,
    mode: Mode,
    at: At,
) -> Result<(Ended, Told, Vec<Difference>), WalkError> {
    let (mut entered, mut pause) = (0, PAUSE);
    let mut last = (Ended::Torn, Told::default());
    for _ in 0..TRIES {
        let (ended, mut told, mut differences) = walker.step(td, mode, at)?;
        entered += told.entered;
        // What an earlier try has entered is known to the later one.
        told.known = told.known.saturating_sub(entered - told.entered);
        told.entered = entered;
        if ended == Ended::Torn || told.raced != 0 {
            last = (if told.raced != 0 { Ended::Torn } else { ended }, told);
            thread::sleep(pause);
            pause *= 2;
            continue;
        }
        if !differences.is_empty() {
            settle()?;
            let (_, _, again) = walker.step(td, mode, at)?;
            differences.retain(|difference| again.contains(difference));
        }
        return Ok((ended, told, differences));
    }
    Ok((last.0, last.1, Vec::new()))
}

/// Goes through the TD, its control pages first; `progress` is called after each step.
///
/// # Errors
/// A program cannot be run.
pub fn sweep(
    walker: &mut Walker,
    td: &Found,
    mode: Mode,
    pace: &mut Pace<'_>,
    progress: &mut dyn FnMut(&Sweep),
) -> Result<Sweep, WalkError> {
    let mut sweep = Sweep::default();
    for make in [At::Control as fn(u64) -> At, At::Mirror] {
        let mut next = 0;
        loop {
            let at = make(next);
            let looked = look(walker, td, mode, at)?;
            // One that was not read says nothing of where to go on.
            next = if looked.0 == Ended::Torn { after(at) } else { looked.1.next };
            if !sweep.took(at, looked) {
                break;
            }
            progress(&sweep);
            if !pace.go_on() {
                sweep.stopped = true;
                return Ok(sweep);
            }
        }
        if sweep.over {
            break;
        }
    }
    Ok(sweep)
}

const fn after(at: At) -> u64 {
    match at {
        At::Mirror(gfn) => gfn + septwatch_common::walk::STEP,
        At::Control(at) | At::Lines(at) => at + 1,
    }
}

/// Goes through lines of the ledger that name the TD, in these chunks: KVM should have them.
///
/// # Errors
/// A program cannot be run.
pub fn lines(
    walker: &mut Walker,
    td: &Found,
    chunks: impl Iterator<Item = u64>,
    pace: &mut Pace<'_>,
) -> Result<Sweep, WalkError> {
    let mut sweep = Sweep::default();
    for key in chunks {
        let at = At::Lines(key);
        let looked = look(walker, td, Mode::Compare, at)?;
        if !sweep.took(at, looked) {
            break;
        }
        if !pace.go_on() {
            sweep.stopped = true;
            break;
        }
    }
    Ok(sweep)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(seen: u32, entered: u32) -> Told {
        Told { seen, entered, known: seen - entered, ..Told::default() }
    }

    #[test]
    fn a_sweep_counts_and_keeps_a_sample_of_what_had_something() {
        let mut sweep = Sweep { random: Rng::with_seed(7), ..Sweep::default() };
        for at in 0..1000 {
            assert!(sweep.took(At::Mirror(at), (Ended::Done, told(3, 2), Vec::new())));
            assert!(sweep.took(At::Mirror(at), (Ended::Absent, told(0, 0), Vec::new())));
        }
        assert_eq!((sweep.frames, sweep.entered, sweep.known, sweep.steps), (3000, 2000, 1000, 1000));
        assert_eq!(sweep.sample.len(), SAMPLE as usize);
        let late = sweep.sample.iter().filter(|at| matches!(at, At::Mirror(at) if *at >= 500)).count();
        assert!((16..48).contains(&late), "{late} of 64 are from the second half");
    }

    #[test]
    fn a_sweep_ends_where_there_is_no_sense_in_going_on() {
        let nothing = || (told(0, 0), Vec::new());
        let one = |ended| (ended, nothing().0, nothing().1);
        let mut sweep = Sweep { random: Rng::with_seed(7), ..Sweep::default() };
        assert!(!sweep.took(At::Mirror(0), one(Ended::Last)));
        assert!(!sweep.took(At::Mirror(0), one(Ended::NoMirror)));
        assert!(sweep.took(At::Control(1), one(Ended::NotYet)), "the next vCPU may be there");
        assert!(!sweep.took(At::Mirror(0), one(Ended::NotYet)), "none of its leaves is to be had");
        assert!(!sweep.took(At::Mirror(0), one(Ended::Over)) && sweep.over);
        let mut sweep = Sweep::default();
        let read = (0..1000).take_while(|at| sweep.took(At::Mirror(*at), one(Ended::Torn))).count();
        assert_eq!(read + 1, UNREAD, "a table that cannot be read is gone past, and not for ever");
    }
}
