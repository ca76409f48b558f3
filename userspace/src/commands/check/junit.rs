//! What came of checks as JUnit XML, for Jenkins, GitLab and whoever else reads it.

use anyhow::{Context as _, Result};
use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use super::{Told, render};
use crate::{
    commands::output::plain,
    regression::check::{Check, Failure},
    view::lines,
};

/// A report that is being made.
pub struct Report(Junit);

impl Report {
    /// An empty one.
    pub fn new() -> Self {
        Self(Junit::new("septwatch check"))
    }

    /// Adds a file: a testsuite, in which each check is a testcase.
    pub fn add(&mut self, name: &str, told: &Told<'_>) {
        let mut suite = TestSuite::new(name);
        match told {
            Told::Checked(run, checks) => {
                let kernel = &run.header.kernel;
                suite.add_property(("kernel.release", &*plain(&kernel.release)));
                for (name, value) in
                    [("kernel.build_id", &kernel.build_id), ("tdx.module", &kernel.tdx_module)]
                {
                    if let Some(value) = value {
                        suite.add_property((name, &*plain(value)));
                    }
                }
                suite.add_test_cases(checks.iter().map(|check| case(name, check)));
            }
            Told::Unreadable(why) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                status.set_type("unreadable").set_message(*why).set_description(*why);
                suite.add_test_case(named(name, "whole", status));
            }
        }
        self.0.add_test_suite(suite);
    }

    /// The document.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn to_xml(&self) -> Result<String> {
        let xml = self.0.to_string().context("--junit")?;
        // Jenkins' schema knows this attribute in a testsuite only; here nothing is skipped.
        Ok(xml.replacen(" skipped=\"0\"", "", 1))
    }
}

fn named(file: &str, check: &str, status: TestCaseStatus) -> TestCase {
    let mut case = TestCase::new(check, status);
    // A dot would make a package of it, and a slash a link that leads nowhere.
    case.set_classname(format!("septwatch.check.{}", file.replace(['.', '/'], "_")));
    case
}

fn case(file: &str, check: &Check<'_>) -> TestCase {
    let Some(first) = check.failures.first() else {
        return named(file, check.name, TestCaseStatus::success());
    };
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    let mut message = message(first);
    if check.failures.len() > 1 {
        message.push_str(&format!(" (and {} more)", check.failures.len() - 1));
    }
    let mut text = String::new();
    for failure in &check.failures {
        text.push_str(&render::headline(failure));
        text.push('\n');
        for line in render::details(failure, usize::MAX) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    status.set_type(check.name).set_message(message).set_description(text);
    named(file, check.name, status)
}

/// What failed; where it is a violation, with its frame.
fn message(failure: &Failure<'_>) -> String {
    let headline = render::headline(failure);
    let first = failure.seen.first().map(|seen| lines::headline(&seen.verdict));
    first.map_or_else(|| headline.clone(), |violation| format!("{headline}: {violation}"))
}
