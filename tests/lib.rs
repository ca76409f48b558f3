//! End-to-end tests of the real `septwatch` binary, whose path `cargo xtask test` gives in `SEPTWATCH_BIN`.
//!
//! A test that cannot run where it is says so with [`skip!`], never by passing in silence.

use std::fmt::Display;
use std::io::Write as _;

/// Ends the calling test as skipped. Arguments as of `format!`: why, and what would help.
///
/// Rust's test programs know no skipping at run time and call the test passed; `cargo xtask test` counts it as
/// skipped, and as a failure with `--strict`.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        fn here() {}
        $crate::report_skip(::std::any::type_name_of_val(&here), ::std::format_args!($($reason)+));
        return;
    }};
}

/// Prints the line that `cargo xtask test` counts. `here` is the path of an item inside of the test.
///
/// # Panics
/// Stdout is closed: the skip would go unseen.
#[doc(hidden)]
#[expect(clippy::expect_used, reason = "inside of a test, a panic is its failure")]
pub fn report_skip(here: &str, reason: impl Display) {
    let reason = reason.to_string().replace('\n', "; ");
    // Not `println!`: what that prints is captured, and dropped when the test passes. The line break in front
    // ends the runner's own `test name ... `.
    let line = format!("\nSKIP {}: {reason}\n", test_name(here));
    std::io::stdout().write_all(line.as_bytes()).expect("cannot say on stdout that a test is skipped");
}

/// The name as the runner has it: no crate in front, no item inside of the test behind.
fn test_name(here: &str) -> &str {
    let name = here.split_once("::").map_or(here, |(_, rest)| rest);
    let name = name.strip_suffix("::here").unwrap_or(name);
    name.split("::{{closure}}").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::test_name;

    #[test]
    fn a_skipped_test_has_the_runners_name() {
        fn here() {}
        let runner = std::thread::current();
        let name = test_name(std::any::type_name_of_val(&here));
        assert_eq!(name, "tests::a_skipped_test_has_the_runners_name");
        // With one test thread the runner uses its own, which has another name.
        assert!(runner.name().is_none_or(|thread| thread == "main" || thread == name));
        assert_eq!(test_name("demo::clean::{{closure}}::here"), "clean");
    }
}
