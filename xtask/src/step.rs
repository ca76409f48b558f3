//! How the steps of a task are told: one line each, what was done and how long it took.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::Result;

/// What came of a step.
pub enum Outcome {
    /// Nothing was to do; what is there.
    Present(String),
    /// It was done now; what was done.
    Done(String),
}

/// Runs one step, prints its line, and returns what it made. A step that is going to take long says so itself with
/// [`note`] first.
///
/// # Errors
/// Those of the step.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<(Outcome, T)>) -> Result<T> {
    let start = Instant::now();
    let (outcome, made) = work()?;
    match outcome {
        Outcome::Present(what) => println!("{name}: {what} ({})", seconds(start.elapsed())),
        Outcome::Done(what) => println!("{name}: {what}, done in {}", seconds(start.elapsed())),
    }
    Ok(made)
}

/// Says what a step is about to do.
pub fn note(name: &str, what: impl Display) {
    println!("{name}: {what} ...");
}

/// A duration for people: `0.03 s`, `12.4 s`, `3 min 05 s`.
pub fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole >= 60 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else if whole >= 10 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let text = |millis| seconds(Duration::from_millis(millis));
        assert_eq!(text(31), "0.03 s");
        assert_eq!(text(12_400), "12.4 s");
        assert_eq!(text(185_900), "3 min 05 s");
    }
}
