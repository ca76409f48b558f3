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
}

impl Count {
    /// Takes in the count of a floor of this name.
    pub fn add(&mut self, floor: &str, other: Self) {
        let named = |name| format!("{floor}: {name}");
        self.passed += other.passed;
        self.failed.extend(other.failed.into_iter().map(named));
        self.skipped.extend(other.skipped.into_iter().map(named));
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
    /// A program said `running N tests` and has no result yet.
    running: bool,
    /// The test that it named last without saying what came of it.
    begun: Option<String>,
    /// Tests of the running program that skipped themselves: it will call them passed.
    skips: usize,
    /// Names under the last `failures:`. The first such list holds outputs, the second the names.
    failures: Vec<String>,
}

impl Reader {
    /// Takes the next line, without its end.
    pub fn line(&mut self, line: &str) {
        if line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test")) {
            self.program_ended();
            self.running = true;
            self.skips = 0;
            self.failures.clear();
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.result(result);
        } else if line == "failures:" {
            self.failures.clear();
        } else if let Some(name) = line.strip_prefix("    ") {
            self.failures.push(name.to_owned());
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|test| test.split_once(" ..."))
        {
            let outcome = outcome.trim_start();
            self.begun = (!["ok", "FAILED", "ignored"].iter().any(|word| outcome.starts_with(word)))
                .then(|| name.to_owned());
            if let Some(reason) = outcome.strip_prefix("ignored") {
                let reason = reason.strip_prefix(", ").unwrap_or("ignored, without a reason");
                self.count.skipped.push(format!("{name}: {reason}"));
            }
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
        self.begun = None;
        self.count.passed += passed.saturating_sub(self.skips);
        self.skips = 0;
        let mut names = std::mem::take(&mut self.failures);
        // The list can lack a name or hold a line of a test's output: the number is what counts.
        names.drain(..names.len().saturating_sub(failed));
        names.resize_with(failed, || "a test whose name is above".to_owned());
        self.count.failed.append(&mut names);
    }

    /// A program without a result was killed, or ended itself in the middle of a test.
    fn program_ended(&mut self) {
        if self.running {
            let name = self.begun.take().unwrap_or_else(|| "one of several at a time".to_owned());
            self.count.failed.push(format!("{name}: the test program died in it"));
        }
        self.running = false;
        self.begun = None;
    }

    /// The count over all lines.
    pub fn finish(mut self) -> Count {
        self.program_ended();
        self.count
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use std::process::Command;

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
        assert_eq!(count.to_string(), "3 passed, 2 failed, 2 skipped");
    }

    /// The runner of this very compiler, whose output no specification fixes.
    #[test]
    fn the_real_runner_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("sample.rs");
        let program = folder.path().join("sample");
        let text = r#"
            use std::io::Write;
            #[test] fn passes() {}
            #[test] fn passes_too() { println!("failures:\n    not_a_name"); }
            #[test] fn fails() { println!("failures:\n    not_a_name"); panic!("on purpose"); }
            #[test] #[should_panic] fn fails_to_panic() {}
            #[test] #[ignore = "no disk"] fn ignored() {}
            #[test] fn skips() { std::io::stdout().write_all(b"\nSKIP skips: no key\n").unwrap(); }
        "#;
        std::fs::write(&source, text).unwrap();
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let built = Command::new(rustc).args(["--test", "-o"]).args([&program, &source]).status().unwrap();
        assert!(built.success());
        for threads in ["1", "4"] {
            let output = Command::new(&program).env("RUST_TEST_THREADS", threads).output().unwrap();
            let mut count = read(&String::from_utf8(output.stdout).unwrap());
            count.skipped.sort();
            let expected = Count {
                passed: 2,
                failed: vec!["fails".into(), "fails_to_panic".into()],
                skipped: vec!["ignored: no disk".into(), "skips: no key".into()],
            };
            assert_eq!(count, expected, "with {threads} threads");
        }
    }

    #[test]
    fn a_program_that_dies_is_a_failure() {
        let failed = |text| read(text).failed;
        assert_eq!(failed("running 2 tests\ntest a ... ok\ntest b ... "), ["b: the test program died in it"]);
        assert_eq!(
            failed(
                "running 1 test\ntest a ... error: test failed\nrunning 1 test\n\ntest result: ok. 1 passed; 0 failed;"
            ),
            ["a: the test program died in it"]
        );
        assert_eq!(
            failed("running 2 tests\ntest a ... ok"),
            ["one of several at a time: the test program died in it"]
        );
        assert!(failed("running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored").is_empty());
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
