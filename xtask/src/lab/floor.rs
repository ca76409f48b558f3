//! The third floor of the tests: all scenarios and the fault matrix, on one kernel or on all. What a machine need not
//! have for itself (a second CPU, say) shares one with others, for septwatch is slow to load where all is emulated.

use std::path::Path;
use std::thread::JoinHandle;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::batch::{self, Case};
use super::kernel::{self, Image};
use super::runner::{self, How, Work};
use super::scenario::Scenario;
use super::{DEFAULT_RELEASE, bochs, matrix, scenario, source};
use crate::test::Count;

/// Which kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Kernels {
    /// The newest release that the lab builds.
    #[default]
    Newest,
    /// Older ones, too, of which up to 6.18 KVM pins pages.
    All,
}

impl Kernels {
    const fn releases(self) -> &'static [&'static str] {
        match self {
            Self::Newest => &[DEFAULT_RELEASE],
            Self::All => &[DEFAULT_RELEASE, "6.19", "6.18"],
        }
    }
}

/// Builds what is missing.
///
/// # Errors
/// Why the lab cannot run here.
pub fn prepare(kernels: Kernels) -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "the lab's machines are x86-64, and their programs are built here");
    bochs::ensure()?;
    for release in kernels.releases() {
        kernel::ensure(&source::released(release)?)?;
    }
    Ok(())
}

/// Begins with that behind everything else: the kernel takes the time that nothing else wants. [`prepare`] waits for it,
/// and says what went wrong.
pub fn begin(kernels: Kernels) -> JoinHandle<()> {
    std::thread::spawn(move || drop(prepare(kernels)))
}

/// Runs everything. Names carry the kernel's.
///
/// # Errors
/// A machine cannot be prepared or started.
pub fn run(kernels: Kernels, septwatch: &Path) -> Result<Count> {
    let mut total = Count::default();
    for release in kernels.releases() {
        let image = kernel::ensure(&source::released(release)?)?;
        total.add(release, on(&image, septwatch)?);
    }
    Ok(total)
}

fn on(image: &Image, septwatch: &Path) -> Result<Count> {
    let how = How::with(septwatch);
    let works = of_scenarios(scenario::all()?, matrix::cases(&image.name)?, &image.name, how.machines);
    let outcome = runner::run(image, works, &how)?;
    Ok(Count { passed: outcome.passed.len(), failed: outcome.failed, skipped: Vec::new() })
}

/// The work of so many machines: these scenarios, and more cases. What needs a machine of its own comes first. Scenarios
/// that are made for other kernels are no tests of this one.
pub fn of_scenarios(scenarios: Vec<Scenario>, more: Vec<Case>, kernel: &str, machines: usize) -> Vec<Work> {
    let (together, alone): (Vec<_>, Vec<_>) =
        scenarios.into_iter().filter(|scenario| scenario.is_for(kernel)).partition(Scenario::shares);
    let case = |scenario: Scenario| Case {
        expected: scenario.expected(kernel).clone(),
        name: scenario.name,
        script: scenario.script,
    };
    let cases = together.into_iter().map(case).chain(more).collect();
    let mut works: Vec<Work> = alone.into_iter().map(|scenario| Work::Scenario(Box::new(scenario))).collect();
    works.extend(batch::parts("batch", cases, machines));
    works
}
