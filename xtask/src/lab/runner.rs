//! Runs scenarios, two machines side by side, and tells how they came out.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::bochs;
use super::guest::{self, Boot, Programs, RUN_SCENARIO};
use super::kernel::Image;
use super::machine::{Emulator, End, Machine};
use super::oracle::{self, Finding};
use super::place;
use super::scenario::{Kind, Scenario, Vmm};
use super::{tcg, timeline};
use crate::step::seconds;

/// Machines at a time.
const SIDE_BY_SIDE: usize = 2;

/// How long a shell's commands may take.
const SHELL_LIMIT: Duration = Duration::from_secs(3600);

struct Job<'a> {
    image: &'a Image,
    machines: &'a Machines,
    keep: bool,
    timelines: bool,
}

/// What the scenarios of a run need: emulators, and what each kind of machine boots from.
#[derive(Default)]
struct Machines {
    emulators: BTreeMap<Kind, Emulator>,
    boots: BTreeMap<(Kind, Vmm), Boot>,
}

impl Machines {
    fn prepare(
        image: &Image,
        septwatch: Option<&Path>,
        wanted: impl IntoIterator<Item = (Kind, Vmm)>,
    ) -> Result<Self> {
        let mut machines = Self::default();
        let mut programs = None;
        for (kind, vmm) in wanted {
            if let Entry::Vacant(emulator) = machines.emulators.entry(kind) {
                emulator.insert(match kind {
                    Kind::Bochs => Emulator::Bochs(bochs::ensure()?),
                    Kind::Qemu => tcg::ensure().map(|()| Emulator::Tcg)?,
                });
            }
            if let Entry::Vacant(boot) = machines.boots.entry((kind, vmm)) {
                let programs = match &programs {
                    Some(programs) => programs,
                    None => programs.insert(Programs::build(septwatch)?),
                };
                boot.insert(programs.boot(image, vmm, kind)?);
            }
        }
        Ok(machines)
    }

    fn machine(&self, kind: Kind, vmm: Vmm, folder: &Path, input: &Path, cpus: u32) -> Result<Machine> {
        let prepared = self.emulators.get(&kind).zip(self.boots.get(&(kind, vmm)));
        let (emulator, boot) = prepared.context("a kind of machine that was not prepared")?;
        Machine::prepare(emulator, folder, boot, input, cpus)
    }
}

/// Boots one machine per scenario and prints the table.
///
/// # Errors
/// A machine cannot be prepared or started.
pub fn run(
    image: &Image,
    scenarios: Vec<Scenario>,
    keep: bool,
    timelines: bool,
    septwatch: Option<&Path>,
) -> Result<ExitCode> {
    let (mine, others): (Vec<_>, Vec<_>) =
        scenarios.into_iter().partition(|scenario| scenario.is_for(&image.name));
    for scenario in &others {
        println!("{:24} skipped: made for {}", scenario.name, scenario.kernels.join(", "));
    }
    let wanted = mine.iter().map(|scenario| (scenario.machine, scenario.vmm));
    let machines = Machines::prepare(image, septwatch, wanted)?;
    let start = Instant::now();
    let job = Job { image, machines: &machines, keep, timelines };
    let queue = Mutex::new(VecDeque::from(mine));
    let totals = Mutex::new((0, 0));
    println!("{:24} {:44} {:44} time", format!("scenario on {}", image.name), "expected", "found");
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..SIDE_BY_SIDE).map(|_| scope.spawn(|| work(&job, &queue, &totals))).collect();
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a worker of the lab ended unexpectedly"),
            }
        }
        Ok(())
    })?;
    let (passed, failed) = *totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    println!("all in {}", seconds(start.elapsed()));
    println!("{passed} passed, {failed} failed, {} skipped", others.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn work(job: &Job<'_>, queue: &Mutex<VecDeque<Scenario>>, totals: &Mutex<(u32, u32)>) -> Result<()> {
    loop {
        let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front();
        let Some(scenario) = next else { return Ok(()) };
        let start = Instant::now();
        let verdict = one(job, &scenario).with_context(|| format!("scenario {}", scenario.name))?;
        let mut totals = totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tell(&scenario.name, &verdict, start.elapsed());
        if verdict.kept.is_none() {
            totals.0 += 1;
        } else {
            totals.1 += 1;
        }
    }
}

/// How a scenario came out.
struct Verdict {
    findings: Vec<Finding>,
    /// Why there are no findings; empty when there are.
    why: String,
    /// What happened in the machine, where that was asked for.
    timeline: String,
    /// Where the machine's files are, when something differed.
    kept: Option<PathBuf>,
}

fn one(job: &Job<'_>, scenario: &Scenario) -> Result<Verdict> {
    let folder = tempfile::Builder::new().prefix(&scenario.name).tempdir_in(place::folder("runs")?);
    let folder = folder.context("no folder for the machine")?;
    let input = folder.path().join("in");
    fs::create_dir(&input).context("no folder for the machine's input")?;
    fs::write(input.join("run"), RUN_SCENARIO).context("cannot write the machine's input")?;
    fs::write(input.join("script"), &scenario.script).context("cannot write the machine's input")?;
    let mut machine =
        job.machines.machine(scenario.machine, scenario.vmm, folder.path(), &input, scenario.cpus)?;
    let end = machine.run(Duration::from_secs(scenario.seconds), |_| ())?;
    let out = folder.path().join("out");
    let (findings, why) = match end {
        End::Done => {
            machine.unpack(&out)?;
            match oracle::judge(&out, scenario.expected(&job.image.name)) {
                Ok(findings) => (findings, String::new()),
                Err(error) => (Vec::new(), format!("{error:#}")),
            }
        }
        End::TimedOut => (Vec::new(), format!("not done after {} s", scenario.seconds)),
        End::Died => (Vec::new(), "the machine ended before it was done".to_owned()),
    };
    let timeline = if job.timelines { timeline::of(&out) } else { String::new() };
    let equal = why.is_empty() && findings.iter().all(|finding| finding.equal);
    let kept = guest::target_folder().join("lab/kept").join(&job.image.name).join(&scenario.name);
    if !equal || job.keep {
        keep(folder.path(), &kept)?;
    }
    Ok(Verdict { findings, why, timeline, kept: (!equal).then_some(kept) })
}

/// Leaves console, emulator's log and the guest's files where a person finds them.
fn keep(from: &Path, to: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for folder in [from.to_owned(), from.join("out"), from.join("in")] {
        for entry in fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
            let image = entry.path().extension().is_some_and(|extension| extension == "img");
            if entry.file_type().is_ok_and(|kind| kind.is_file()) && !image {
                let copied = fs::copy(entry.path(), to.join(entry.file_name()));
                copied.with_context(|| format!("cannot copy {}", entry.path().display()))?;
            }
        }
    }
    Ok(())
}

fn tell(name: &str, verdict: &Verdict, time: Duration) {
    let brief = |side: fn(&Finding) -> &[String]| {
        let parts: Vec<String> = verdict.findings.iter().filter_map(|finding| finding.brief(side)).collect();
        if parts.is_empty() { "clean".to_owned() } else { parts.join(", ") }
    };
    let expected = brief(|finding| &finding.expected);
    let found = if verdict.why.is_empty() { brief(|finding| &finding.found) } else { verdict.why.clone() };
    let mark = if verdict.kept.is_some() { "  DIFFERENT" } else { "" };
    println!("{name:24} {expected:44} {found:44} {}{mark}", seconds(time));
    print!("{}", verdict.timeline);
    let Some(kept) = &verdict.kept else { return };
    for finding in verdict.findings.iter().filter(|finding| !finding.equal) {
        println!("  {}: expected [{}]", finding.what, finding.expected.join("; "));
        println!("  {}: found    [{}]", finding.what, finding.found.join("; "));
    }
    println!("  console, kernel log, SEAMCALLs and outputs are in {}", kept.display());
}

/// Boots a machine that runs shell commands; its console comes to stdout, what it left to `target/lab/kept`.
///
/// # Errors
/// The machine cannot be started, or ended before the commands did.
pub fn shell(image: &Image, commands: Option<&Path>) -> Result<()> {
    let mut text = String::new();
    match commands {
        Some(path) => {
            text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => {
            eprintln!("shell commands for the machine, up to the end of input:");
            std::io::stdin().read_to_string(&mut text).context("cannot read the commands")?;
        }
    }
    let machines = Machines::prepare(image, None, [(Kind::Bochs, Vmm::Lab)])?;
    let folder = tempfile::tempdir_in(place::folder("runs")?).context("no folder for the machine")?;
    let input = folder.path().join("in");
    fs::create_dir(&input).context("no folder for the machine's input")?;
    fs::write(input.join("run"), text).context("cannot write the machine's input")?;
    let mut machine = machines.machine(Kind::Bochs, Vmm::Lab, folder.path(), &input, 2)?;
    let end = machine.run(SHELL_LIMIT, |text| print!("{text}"))?;
    let kept = guest::target_folder().join("lab/kept").join(&image.name).join("shell");
    if end == End::Done {
        machine.unpack(&folder.path().join("out"))?;
    }
    keep(folder.path(), &kept)?;
    println!("what it left is in {}", kept.display());
    if end == End::Done { Ok(()) } else { bail!("the machine did not finish: {end:?}") }
}
