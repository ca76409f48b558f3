//! Waiting of an output's thread: for the other side to come back, for its next turn, or until it is told to end.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::locked::lock;

/// Whether an output is to end.
#[derive(Debug, Default)]
pub struct Ending {
    told: Mutex<bool>,
    changed: Condvar,
}

impl Ending {
    /// It is to end: whoever waits goes on.
    pub fn tell(&self) {
        *lock(&self.told) = true;
        self.changed.notify_all();
    }

    /// Waits so long, or until it is to end; whether it is.
    pub fn wait(&self, time: Duration) -> bool {
        let begun = Instant::now();
        let mut told = lock(&self.told);
        while !*told && begun.elapsed() < time {
            let rest = time.saturating_sub(begun.elapsed());
            (told, _) = self.changed.wait_timeout(told, rest).unwrap_or_else(PoisonError::into_inner);
        }
        *told
    }

    /// Whether it is to end.
    pub fn is_told(&self) -> bool {
        *lock(&self.told)
    }
}

/// How long to wait before the next try: longer each time, and never the same for two hosts that lost the same receiver.
#[derive(Clone, Copy, Debug)]
pub struct BackOff(Duration);

impl Default for BackOff {
    fn default() -> Self {
        Self(Self::FIRST)
    }
}

impl BackOff {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);
    /// Longest time that the other side may ask for: a wrong figure must not silence an output for good.
    const LONGEST_ASKED: Duration = Duration::from_secs(300);

    /// The next wait; at least as long as the other side asks for.
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        let own = self.0.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.0 = (self.0 * 2).min(Self::LONGEST);
        asked.map_or(own, |asked| asked.min(Self::LONGEST_ASKED).max(own))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn each_wait_is_longer_and_there_is_a_longest() {
        let mut pause = BackOff::default();
        let waits: Vec<_> = (0..12).map(|_| pause.next(None)).collect();
        assert!(waits[0] >= BackOff::FIRST / 2 && waits[0] <= BackOff::FIRST, "{waits:?}");
        assert!(waits[11] >= BackOff::LONGEST / 2 && waits[11] <= BackOff::LONGEST, "{waits:?}");
        let minute = Duration::from_secs(60);
        assert_eq!(BackOff::default().next(Some(minute)), minute);
        assert_eq!(BackOff::default().next(Some(minute * 1_000_000)), BackOff::LONGEST_ASKED);
        assert!(BackOff::default().next(Some(Duration::ZERO)) >= BackOff::FIRST / 2);
    }

    #[test]
    fn who_waits_goes_on_when_it_is_to_end() {
        let ending = Arc::new(Ending::default());
        assert!(!ending.wait(Duration::from_millis(1)));
        let waits = thread::spawn({
            let ending = Arc::clone(&ending);
            move || ending.wait(Duration::from_secs(600))
        });
        ending.tell();
        assert!(waits.join().is_ok_and(|told| told) && ending.is_told());
    }
}
