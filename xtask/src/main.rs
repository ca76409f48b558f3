//! Sets up, builds, tests and measures septwatch: `cargo xtask --help`.
//!
//! Each command does all set-up it needs by itself; `setup` only does it ahead of time.

mod apt;
mod audit;
mod bench;
mod build;
mod cache;
mod ci;
mod deb;
mod fleet;
mod lab;
mod lock;
mod run;
mod screens;
mod setup;
mod step;
mod test;

use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

/// Sets up, builds, tests and measures septwatch.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Fetch and build what building and running septwatch need, and mount bpffs and tracefs.
    Setup,
    /// Build the release binary.
    Build,
    /// Build, and make the Debian package.
    Deb,
    /// Build, then run `septwatch demo` with these arguments.
    #[command(disable_help_flag = true)]
    Demo {
        /// Arguments of `septwatch demo`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run the tests, and end with one line `N passed, N failed, N skipped`.
    Test(test::Options),
    /// The lab: TDs on unmodified KVM, over a software TDX module, on an emulated machine.
    #[command(subcommand)]
    Lab(lab::Task),
    /// Measure, and print a table.
    #[command(subcommand)]
    Bench(bench::Task),
    /// Play the agents of many hosts at a fleet's bus, with these arguments: `-- --help` lists them.
    #[command(disable_help_flag = true)]
    Fleet {
        /// Arguments of the simulator.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Walk through `septwatch top --demo`, and draw each of its screens into `userspace/screens`.
    Screens,
    /// Check licences, doubles, sources and advisories of all dependencies, from Cargo.lock.
    Audit,
    /// Everything that must hold before a change goes in: format, audit, lints, docs, tests.
    Ci,
}

/// The exit code of `septwatch` for what a host cannot do; used where its demo could not even be started.
const HOST_CANNOT: u8 = 3;

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup => {
            setup::for_building()?;
            setup::for_running()?;
        }
        Task::Build => {
            setup::for_building()?;
            build::septwatch()?;
        }
        Task::Deb => deb::run()?,
        Task::Demo { arguments } => return demo(&arguments),
        Task::Test(options) => return test::run(&options),
        Task::Lab(task) => return lab::run(task),
        Task::Bench(task) => return bench::run(task),
        Task::Fleet { arguments } => fleet::play(&arguments)?,
        Task::Screens => screens::run()?,
        Task::Audit => audit::run()?,
        Task::Ci => return ci::run(),
    }
    Ok(ExitCode::SUCCESS)
}

fn demo(arguments: &[OsString]) -> Result<ExitCode> {
    if let Err(error) = setup::for_building().and_then(|()| setup::for_running()) {
        eprintln!("error: {error:#}");
        return Ok(ExitCode::from(HOST_CANNOT));
    }
    let mut septwatch = Command::new(build::septwatch()?);
    septwatch.arg("demo").args(arguments).stdin(Stdio::inherit());
    let status = septwatch.status().with_context(|| format!("cannot run `{}`", run::line(&septwatch)))?;
    // Without a code it was ended by a signal.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
