//! What Rust's own test programs print, counted. One [`Reader`] takes the lines of a whole `cargo test`.
//!
//! A test that could not run says so with a line `SKIP name: reason`, for the test programs know no such thing and
//! call it passed (`tests/lib.rs` prints it). That line may follow an unfinished `test name ... `.

use std::fmt;

const SKIP: &str = "SKIP ";

/// What came of tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many passed.
    pub passed: usize,
    /// The names of those that failed.
    pub failed: Vec<String>,
    /// Those that could not run, as `name: reason`.
    pub skipped: Vec<String>,
    /// A test program began and gave no result: it was killed, or ended itself.
    pub unfinished: bool,
}

impl Count {
    /// Takes in the count of a floor of this name.
    pub fn add(&mut self, floor: &str, other: Self) {
        let named = |name| format!("{floor}: {name}");
        self.passed += other.passed;
        self.failed.extend(other.failed.into_iter().map(named));
        self.skipped.extend(other.skipped.into_iter().map(named));
        self.unfinished |= other.unfinished;
    }

    /// Whether nothing failed; in strict mode, also whether nothing was skipped.
    pub fn is_good(&self, strict: bool) -> bool {
        self.failed.is_empty() && (self.skipped.is_empty() || !strict)
    }

    /// Prints what was skipped and what failed, then the count on a line of its own.
    pub fn tell(&self) {
        for (word, names) in [("skipped", &self.skipped), ("failed", &self.failed)] {
            for name in names {
                println!("{word}: {name}");
            }
        }
        println!("{self}");
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

/// Counts line by line.
#[derive(Default)]
pub struct Reader {
    count: Count,
    /// Programs that said `running N tests` and have no result yet.
    running: bool,
    /// Tests of the running program that skipped themselves: it will call them passed.
    skips: usize,
    /// Names under the last `failures:`. The first such list holds outputs, the second the names.
    failures: Vec<String>,
}

impl Reader {
    /// Takes the next line, without its end.
    pub fn line(&mut self, line: &str) {
        if line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test")) {
            self.count.unfinished |= self.running;
            self.running = true;
            self.skips = 0;
            self.failures.clear();
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.result(result);
        } else if line == "failures:" {
            self.failures.clear();
        } else if let Some(name) = line.strip_prefix("    ") {
            self.failures.push(name.to_owned());
        } else if let Some((name, reason)) =
            line.strip_prefix("test ").and_then(|test| test.split_once(" ... ignored"))
        {
            let reason = reason.strip_prefix(", ").unwrap_or("ignored, without a reason");
            self.count.skipped.push(format!("{name}: {reason}"));
        } else if let Some(skip) = line.strip_prefix(SKIP) {
            self.skips += 1;
            self.count.skipped.push(skip.to_owned());
        }
    }

    /// `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
    fn result(&mut self, text: &str) {
        let number = |word: &str| {
            let words: Vec<&str> = text.split([' ', ';']).filter(|word| !word.is_empty()).collect();
            let at = words.iter().position(|found| *found == word)?;
            words.get(at.checked_sub(1)?)?.parse::<usize>().ok()
        };
        let (Some(passed), Some(failed)) = (number("passed"), number("failed")) else { return };
        self.running = false;
        self.count.passed += passed.saturating_sub(self.skips);
        self.skips = 0;
        let mut names = std::mem::take(&mut self.failures);
        // The list can lack a name or hold a line of a test's output: the number is what counts.
        names.drain(..names.len().saturating_sub(failed));
        names.resize_with(failed, || "a test whose name is above".to_owned());
        self.count.failed.append(&mut names);
    }

    /// The count over all lines.
    pub fn finish(mut self) -> Count {
        self.count.unfinished |= self.running;
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Count {
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.line(line));
        reader.finish()
    }

    #[test]
    fn passes_failures_and_skips_are_counted_over_programs() {
        let count = read(
            "running 3 tests
test a::b ... ok
test a::c ... ok
test needs_disk ... ignored, no disk here

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s


running 4 tests
test storm ... FAILED
test clean ... ok
test guest_memfd ... 
SKIP guest_memfd: /dev/kvm: no such file
ok
test signals - should panic ... FAILED

failures:

---- storm stdout ----

thread 'storm' panicked at tests/storm.rs:9:5:
    assertion failed
failures:
    not a name
---- signals stdout ----
note: test did not panic as expected

failures:
    signals
    storm

test result: FAILED. 2 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.02s
",
        );
        assert_eq!(count.passed, 3);
        assert_eq!(count.failed, ["signals", "storm"]);
        assert_eq!(count.skipped, ["needs_disk: no disk here", "guest_memfd: /dev/kvm: no such file"]);
        assert!(!count.unfinished);
        assert_eq!(count.to_string(), "3 passed, 2 failed, 2 skipped");
    }

    #[test]
    fn a_program_that_dies_is_unfinished() {
        assert!(read("running 1 test\ntest a ... ").unfinished);
        assert!(
            read("running 1 test\ntest a ... \nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed;")
                .unfinished
        );
        assert!(!read("running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored").unfinished);
        assert_eq!(read(""), Count::default());
    }

    #[test]
    fn a_failure_counts_even_where_its_name_is_missing() {
        assert_eq!(
            read("running 1 test\ntest result: FAILED. 0 passed; 1 failed; 0 ignored").failed.len(),
            1
        );
    }

    #[test]
    fn floors_add_up() {
        let mut total = Count { passed: 2, ..Count::default() };
        total.add("floor 2", Count { passed: 1, failed: vec!["storm".into()], ..Count::default() });
        assert_eq!(total.failed, ["floor 2: storm"]);
        assert_eq!(total.to_string(), "3 passed, 1 failed, 0 skipped");
    }
}
