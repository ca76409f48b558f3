//! The lab: a machine emulated by Bochs, a kernel with the software TDX module (`tests/lab/softtdx`) built in, and
//! scenarios (`tests/lab/scenarios`) that drive TDs on it and say what must come of them.
//!
//! Nothing here knows what septwatch does: it is put into the machine and its output is compared. What is fetched
//! or built goes to the cache (`place`), keyed by all that it was made of.

mod adds;
mod agents;
mod batch;
mod bochs;
mod boot;
mod cold;
pub mod costs;
mod crash;
pub mod floor;
mod frames;
mod guest;
mod kernel;
mod latencies;
mod machine;
mod machines;
mod matrix;
mod mirror;
mod modules;
mod oracle;
mod place;
mod qemu;
mod reactions;
mod recording;
mod runner;
mod scenario;
mod selftests;
mod source;
mod tcg;
mod timeline;
mod width;

pub use guest::target_folder;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};

use runner::{How, Outcome, Work};

/// The release that is built when none is asked for.
pub const DEFAULT_RELEASE: &str = "7.3";

/// The kernel of a release, built if the cache does not have it.
///
/// # Errors
/// It cannot be fetched or built.
pub fn image(release: &str) -> Result<kernel::Image> {
    kernel::ensure(&source::released(release)?)
}

/// What the lab can be asked for.
#[derive(Subcommand)]
pub enum Task {
    /// Build a lab kernel: fetch its source from the distribution, add the software TDX module, compile.
    Kernel(Kernel),
    /// Provide the emulator: Bochs 3.0 or later from PATH, else built from the distribution's source package.
    Machine,
    /// Run scenarios, two machines side by side, and print for each what was expected and what was found.
    Run(Run),
    /// Run the fault matrix: every leaf, every way it can fail, every way a page can leave.
    Matrix(MatrixRun),
    /// Boot a machine with a shell on this terminal's output; commands come from a file or stdin.
    Shell(Shell),
    /// Name the scenarios.
    List,
}

/// Which kernel.
#[derive(Args, Clone)]
pub struct Kernel {
    /// Release to build from the distribution's source packages, for example 6.18, 6.19 or 7.3.
    #[arg(long, alias = "kernel", value_name = "R", default_value = DEFAULT_RELEASE, conflicts_with = "source")]
    release: String,
    /// A kernel source tree or an archive of one, instead of a release. The tree is not written to.
    #[arg(long, value_name = "DIR|TARBALL")]
    source: Option<PathBuf>,
}

#[derive(Args)]
pub struct Run {
    /// Scenarios by name, each with a timeline of what happened; `reactions` is all that are about reactions, with a
    /// table of them.
    #[arg(value_name = "SCENARIO", required_unless_present = "all")]
    scenarios: Vec<String>,
    /// Every scenario that is made for this kernel; those that need no machine of their own share one.
    #[arg(long, conflicts_with = "scenarios")]
    all: bool,
    /// In scenarios that kill septwatch, kill it so often.
    #[arg(long, value_name = "N")]
    kills: Option<u32>,
    /// Record each of these scenarios with all its events, to DIR/SCENARIO.swt.
    #[arg(long, value_name = "DIR", conflicts_with = "all")]
    record: Option<PathBuf>,
    #[command(flatten)]
    kernel: Kernel,
    #[command(flatten)]
    how: How,
}

#[derive(Args)]
pub struct MatrixRun {
    /// Only cases whose name contains one of these, for example `MEM_TRACK` or `lie-nothing.punch`.
    #[arg(value_name = "PART")]
    parts: Vec<String>,
    /// Name the cases, and run none.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    kernel: Kernel,
    #[command(flatten)]
    how: How,
}

#[derive(Args)]
pub struct Shell {
    #[command(flatten)]
    kernel: Kernel,
    /// Shell commands to run inside; stdin when left out.
    #[arg(value_name = "FILE")]
    commands: Option<PathBuf>,
}

/// Does it.
///
/// # Errors
/// What could not be fetched, built or started. A scenario that comes out otherwise than expected is not an error:
/// it is in the table and in the exit code.
pub fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Kernel(kernel) => {
            let image = kernel::ensure(&kernel.source()?)?;
            println!("kernel: {}", image.folder.display());
        }
        Task::Machine => {
            let bochs = bochs::ensure()?;
            println!("machine: {}", bochs.program.display());
        }
        Task::Run(options) => return run_scenarios(options),
        Task::Matrix(options) => return run_matrix(&options),
        Task::Shell(options) => {
            let image = kernel::ensure(&options.kernel.source()?)?;
            runner::shell(&image, options.commands.as_deref())?;
        }
        Task::List => {
            for scenario in scenario::all()? {
                println!("{:24} {}", scenario.name, scenario.about);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_scenarios(mut options: Run) -> Result<ExitCode> {
    let group = options.scenarios.iter().any(|name| name == reactions::GROUP);
    options.how.timelines = !options.all && !group;
    let mut scenarios = scenario::all()?;
    if group {
        options.scenarios.retain(|name| name != reactions::GROUP);
        let more = scenarios.iter().map(|scenario| &scenario.name);
        options.scenarios.extend(more.filter(|name| reactions::is_of_group(name)).cloned());
    }
    for name in &options.scenarios {
        ensure!(
            scenarios.iter().any(|scenario| scenario.name == *name),
            "there is no scenario `{name}`: `cargo xtask lab list` names them"
        );
    }
    for agents in scenarios.iter_mut().filter_map(|scenario| scenario.agents.as_mut()) {
        agents.kills = options.kills.unwrap_or(agents.kills);
    }
    if options.record.is_some() {
        for scenario in scenarios.iter_mut().filter(|scenario| options.scenarios.contains(&scenario.name)) {
            ensure!(scenario.agents.is_none(), "{} kills septwatch: it cannot be recorded", scenario.name);
            scenario.record = true;
        }
    }
    options.how.record = options.record;
    let image = kernel::ensure(&options.kernel.source()?)?;
    let boots = if options.all {
        floor::of_scenarios(scenarios, Vec::new(), &image.name, options.how.machines)
    } else {
        scenarios.retain(|scenario| options.scenarios.contains(&scenario.name));
        if group {
            scenarios.retain(|scenario| scenario.is_for(&image.name));
        }
        scenarios.into_iter().map(|scenario| Work::Scenario(Box::new(scenario))).collect()
    };
    let mut outcome = runner::run(&image, boots, &options.how)?;
    if !outcome.reactions.is_empty() {
        print!("\n{}", reactions::table(std::mem::take(&mut outcome.reactions)));
    }
    Ok(tell(&outcome))
}

fn run_matrix(options: &MatrixRun) -> Result<ExitCode> {
    let source = options.kernel.source()?;
    let mut cases = matrix::cases(&source.name)?;
    if !options.parts.is_empty() {
        cases.retain(|case| options.parts.iter().any(|part| case.name.contains(part.as_str())));
        ensure!(!cases.is_empty(), "no case of the matrix has such a name: `cargo xtask lab matrix --list`");
    }
    if options.list {
        for case in &cases {
            println!("{}", case.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let image = kernel::ensure(&source)?;
    let boots = batch::parts("matrix", cases, options.how.machines);
    let outcome = runner::run(&image, boots, &options.how)?;
    Ok(tell(&outcome))
}

fn tell(outcome: &Outcome) -> ExitCode {
    println!("{} passed, {} failed", outcome.passed.len(), outcome.failed.len());
    if outcome.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Kernel {
    fn source(&self) -> Result<source::Source> {
        match &self.source {
            Some(path) => source::given(path),
            None => source::released(&self.release),
        }
    }
}
