//! How much of a CPU walking may take.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Works for so long in one go.
const SLICE: Duration = Duration::from_millis(4);

/// Keeps to a share of one CPU.
#[derive(Debug)]
pub struct Pace<'a> {
    percent: u32,
    begun: Instant,
    stop: Option<&'a AtomicBool>,
}

impl<'a> Pace<'a> {
    /// At most so many percent of a CPU, 1 to 100; it ends when `stop` says so.
    pub fn new(percent: u32, stop: Option<&'a AtomicBool>) -> Self {
        Self { percent: percent.clamp(1, 100), begun: Instant::now(), stop }
    }

    /// Called after each step: yields, and rests when it is time. False: it is to end.
    pub fn go_on(&mut self) -> bool {
        let worked = self.begun.elapsed();
        if worked >= SLICE {
            if let Some(rest) = rest(worked, self.percent) {
                thread::sleep(rest);
            }
            self.begun = Instant::now();
        } else {
            thread::yield_now();
        }
        !self.stopped()
    }

    /// Whether it is to end.
    pub fn stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Acquire))
    }

    /// Waits. False: it is to end.
    pub fn wait(&self, time: Duration) -> bool {
        const LOOK: Duration = Duration::from_millis(50);
        let end = Instant::now() + time;
        while !self.stopped() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(LOOK));
        }
        false
    }
}

/// How long to rest after so much work.
fn rest(worked: Duration, percent: u32) -> Option<Duration> {
    let rest = worked.checked_mul(100 - percent)?.checked_div(percent)?;
    (!rest.is_zero()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_works_for_a_part_rests_for_the_rest() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(4), 50), Some(ms(4)));
        assert_eq!(rest(ms(4), 20), Some(ms(16)));
        assert_eq!(rest(ms(4), 100), None);
        assert_eq!(rest(ms(5), 1), Some(ms(495)));
    }
}
