//! When it is looked for what came, where nobody is woken.

use std::time::Duration;

/// How often it is looked for page records, which wake nobody, at least and at most; and how many may come in between, as
/// long as they come as fast as before: a quarter of what the usual ring holds.
pub(super) const TICK: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_millis(10);
const MANY: usize = 20_000;

/// How long to wait after so many page records came in that time.
pub(super) fn pause(pages: usize, since: Duration) -> Duration {
    since.mul_f64(MANY as f64 / pages.max(1) as f64).clamp(SOON, TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_again_before_the_ring_is_full() {
        let waits = |pages, ms| pause(pages, Duration::from_millis(ms));
        assert_eq!(waits(0, 100), TICK);
        assert_eq!(waits(20_000, 100), TICK);
        assert_eq!(waits(40_000, 100), TICK / 2);
        // Not longer again, only because less time has passed.
        assert_eq!(waits(20_000, 50), TICK / 2);
        assert_eq!(waits(87_000, 10), SOON);
        assert_eq!(waits(1, 0), SOON);
    }
}
