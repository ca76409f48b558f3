//! The floors of tests: which there are, what each needs, and the one count over all of them.
//! What a single test checks stands in the crates and in `tests/`.

mod libtest;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::lab::{self, floor::Kernels};
use crate::setup::unpacked;
use crate::step::seconds;
use crate::{build, deb, run, setup};
pub use libtest::Count;

/// What `test` is asked for.
#[derive(Args, Default)]
pub struct Options {
    /// A test or a floor that cannot run is a failure.
    #[arg(long)]
    pub strict: bool,
    /// Which kernels the lab boots.
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    pub kernels: Kernels,
    /// Which floors; all where none is given.
    #[arg(value_enum, value_name = "FLOOR")]
    pub floors: Vec<Floor>,
}

impl Options {
    fn floors(&self) -> Vec<Floor> {
        let mut floors = self.floors.clone();
        if floors.is_empty() {
            floors.extend(Floor::value_variants());
        }
        floors.sort_unstable();
        floors.dedup();
        floors
    }
}

/// A floor of tests, by what it needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Floor {
    /// Anywhere, no privileges: the ledger, parsers, views.
    #[value(name = "1")]
    Anywhere,
    /// As root on the running kernel: the demo path, with the real binary.
    #[value(name = "2")]
    RunningKernel,
    /// In the lab: unmodified KVM on an emulated machine.
    #[value(name = "3")]
    Lab,
}

impl Floor {
    fn number(self) -> u8 {
        match self {
            Self::Anywhere => 1,
            Self::RunningKernel => 2,
            Self::Lab => 3,
        }
    }

    /// Sets up what the floor needs besides the build.
    ///
    /// # Errors
    /// Why it cannot run here.
    fn prepare(self, kernels: Kernels) -> Result<()> {
        match self {
            Self::Anywhere => Ok(()),
            Self::RunningKernel => {
                anyhow::ensure!(
                    rustix::process::geteuid().is_root(),
                    "it loads eBPF programs, which needs root"
                );
                setup::for_running()?;
                // Without them the tests that need them say that they are skipped.
                if let Err(error) = setup::python::readers() {
                    eprintln!("Python readers: {error:#}");
                }
                for group in &unpacked::GROUPS {
                    if let Err(error) = setup::unpacked(group) {
                        eprintln!("{error:#}");
                    }
                }
                Ok(())
            }
            Self::Lab => lab::floor::prepare(kernels),
        }
    }

    fn run(self, septwatch: &Path, kernels: Kernels) -> Result<Count> {
        match self {
            Self::Anywhere => {
                let mut packages =
                    vec!["--workspace", "--exclude", "septwatch-ebpf", "--exclude", "septwatch-tests"];
                packages.extend(build::TESTED);
                Self::cargo_test(septwatch, &packages, &[], &[])
            }
            // One after the other: there is one ledger on a host, and one lock on it.
            Self::RunningKernel => {
                // Without one of these files, the tests that need it are skipped, and say so.
                let schema = setup::for_junit().inspect_err(|why| eprintln!("JUnit schema: {why:#}"));
                let package = deb::package(septwatch).inspect_err(|why| eprintln!("package: {why:#}"));
                let files = [("SEPTWATCH_JUNIT_XSD", schema.ok()), ("SEPTWATCH_DEB", package.ok())];
                let files: Vec<_> =
                    files.into_iter().filter_map(|(name, path)| Some((name, path?))).collect();
                let packages = ["--package", "septwatch-tests"];
                Self::cargo_test(septwatch, &packages, &["--test-threads=1"], &files)
            }
            Self::Lab => lab::floor::run(kernels, septwatch),
        }
    }

    /// `cargo test` with these arguments, and the test programs with those.
    fn cargo_test(
        septwatch: &Path,
        for_cargo: &[&str],
        for_tests: &[&str],
        files: &[(&str, PathBuf)],
    ) -> Result<Count> {
        let mut cargo = setup::cargo()?;
        // Release: the property tests go through a million operations.
        cargo
            .args(["test", "--locked", "--release", "--no-fail-fast"])
            .args(for_cargo)
            .arg("--")
            .args(for_tests);
        // The tests run this binary; see the header of tests/lib.rs.
        cargo.envs(files.iter().map(|(name, path)| (name, path)));
        cargo.env("SEPTWATCH_BIN", septwatch).stdin(Stdio::null());
        cargo.envs(unpacked::GROUPS.iter().filter_map(unpacked::Group::usr));
        if let Some(python) = setup::python::installed() {
            cargo.env("SEPTWATCH_PYTHON", python);
        }
        let command = run::line(&cargo);
        // One pipe for both, so that cargo's words stay in front of the tests that they announce.
        let (output, input) = std::io::pipe().context("cannot make a pipe")?;
        cargo.stdout(input.try_clone().context("cannot double a pipe's end")?).stderr(input);
        let mut child = cargo.spawn().with_context(|| format!("cannot run `{command}`"))?;
        // It holds the pipe's writing end, without which there would be no end of output.
        drop(cargo);
        let mut output = BufReader::new(output);
        let mut reader = libtest::Reader::default();
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).context("cannot read the tests' output")? > 0 {
            let text = String::from_utf8_lossy(&line);
            print!("{text}");
            reader.line(text.trim_end());
            line.clear();
        }
        let status = child.wait()?;
        let mut count = reader.finish();
        // Tests that did not build are no tests, and no test says so.
        if !status.success() && count.failed.is_empty() {
            count.failed.push(format!("`{command}`: {status}"));
        }
        Ok(count)
    }
}

/// Runs floors after all set-up, and prints the count as the last line.
///
/// # Errors
/// As [`floors`].
pub fn run(options: &Options) -> Result<ExitCode> {
    let count = beside_the_lab(options, || floors(options))?;
    count.tell();
    Ok(if count.is_good(options.strict) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Does this while what the lab needs is built, where these floors have the lab's: most tests sleep much of their time.
pub fn beside_the_lab<T>(options: &Options, work: impl FnOnce() -> T) -> T {
    let lab = options.floors().contains(&Floor::Lab).then(|| lab::floor::begin(options.kernels));
    let done = work();
    // It is done, too, unless the work ended early: then it must not go on alone.
    let _ = lab.map(JoinHandle::join);
    done
}

/// Runs floors after all set-up, and returns the count over all of them. A failing test or build is not an error:
/// it is counted.
///
/// # Errors
/// Set-up fails.
pub fn floors(options: &Options) -> Result<Count> {
    setup::for_building()?;
    let mut total = Count::default();
    let septwatch = match build::tested() {
        Ok(septwatch) => septwatch,
        Err(error) => {
            total.failed.push(format!("the build of the binary: {error:#}"));
            return Ok(total);
        }
    };
    for floor in options.floors() {
        let start = Instant::now();
        let name = format!("floor {}", floor.number());
        let count = match floor.prepare(options.kernels) {
            Ok(()) => floor.run(&septwatch, options.kernels)?,
            Err(why) => Count { skipped: vec![format!("all of it: {why:#}")], ..Count::default() },
        };
        println!("{name}: {count} in {}", seconds(start.elapsed()));
        total.add(&name, count);
    }
    Ok(total)
}
