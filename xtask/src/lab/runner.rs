//! Runs scenarios and batches of cases, two machines side by side, and tells how they came out.

use std::collections::VecDeque;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use tempfile::TempDir;

use super::agents::Agents;
use super::batch::{self, Case};
use super::guest::{self, RUN_SCENARIO};
use super::kernel::Image;
use super::machine::End;
use super::machines::{Machines, Wanted};
use super::oracle::{self, Finding};
use super::reactions::{self, Row, Times};
use super::scenario::{Ends, Expectation, Scenario};
use super::{cold, crash, place, recording, timeline};
use crate::step::{note, seconds};

/// How long a shell's commands may take.
const SHELL_LIMIT: Duration = Duration::from_secs(3600);

struct Job<'a> {
    image: &'a Image,
    machines: &'a Machines,
    how: &'a How,
}

/// How machines are run.
#[derive(Args)]
pub struct How {
    /// Machines at a time.
    #[arg(long, value_name = "N", default_value_t = SIDE_BY_SIDE, value_parser = machines)]
    pub machines: usize,
    /// Keep the files of everything, not only of what came out otherwise than expected.
    #[arg(long)]
    pub keep: bool,
    /// Put this septwatch into the machines instead of building the tree's.
    #[arg(long, value_name = "PROGRAM")]
    pub septwatch: Option<PathBuf>,
    /// Tell of each scenario that has a machine for itself what happened, by time.
    #[arg(skip)]
    pub timelines: bool,
    /// Where recordings go.
    #[arg(skip)]
    pub record: Option<PathBuf>,
}

/// What two processors can do.
const SIDE_BY_SIDE: usize = 2;

impl How {
    /// With this septwatch, and else as when nothing is said.
    pub fn with(septwatch: &Path) -> Self {
        let septwatch = Some(septwatch.to_owned());
        Self { machines: SIDE_BY_SIDE, keep: false, septwatch, timelines: false, record: None }
    }
}

fn machines(text: &str) -> Result<usize, String> {
    const MOST: usize = 64;
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| format!("not a number from 1 to {MOST}"))
}

/// What one machine does.
pub enum Work {
    Scenario(Box<Scenario>),
    /// Many cases, one after the other, under a name for the whole.
    Cases(String, Vec<Case>),
}

impl Work {
    fn wanted(&self) -> Wanted {
        match self {
            Self::Scenario(scenario) => scenario.wanted(),
            Self::Cases(..) => Wanted::default(),
        }
    }
}

/// How all came out, by name.
#[derive(Default)]
pub struct Outcome {
    pub passed: Vec<String>,
    pub failed: Vec<String>,
    /// Of scenarios that have a policy.
    pub reactions: Vec<Row>,
}

/// Boots the machines, the first of them first, and prints the table.
///
/// # Errors
/// A machine cannot be prepared or started.
pub fn run(image: &Image, boots: Vec<Work>, how: &How) -> Result<Outcome> {
    let machines = Machines::prepare(image, how.septwatch.as_deref(), boots.iter().map(Work::wanted))?;
    let start = Instant::now();
    let job = Job { image, machines: &machines, how };
    let queue = Mutex::new(VecDeque::from(boots));
    let outcome = Mutex::new(Outcome::default());
    println!("{:24} {:44} {:44} time", format!("scenario on {}", image.name), "expected", "found");
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..how.machines).map(|_| scope.spawn(|| work(&job, &queue, &outcome))).collect();
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a worker of the lab ended unexpectedly"),
            }
        }
        Ok(())
    })?;
    println!("all in {}", seconds(start.elapsed()));
    Ok(outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn work(job: &Job<'_>, queue: &Mutex<VecDeque<Work>>, outcome: &Mutex<Outcome>) -> Result<()> {
    loop {
        let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front();
        let Some(boot) = next else { return Ok(()) };
        let start = Instant::now();
        let verdicts = match &boot {
            Work::Scenario(scenario) => {
                let verdict = one(job, scenario, boot.wanted())
                    .with_context(|| format!("scenario {}", scenario.name))?;
                vec![(scenario.name.clone(), verdict)]
            }
            Work::Cases(name, cases) => many(job, name, cases).with_context(|| format!("batch {name}"))?,
        };
        let mut outcome = outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Work::Cases(name, cases) = &boot {
            println!("{name:24} {} cases {}", cases.len(), seconds(start.elapsed()));
        }
        for (name, verdict) in verdicts {
            let alone = matches!(boot, Work::Scenario(_));
            if matches!(&boot, Work::Scenario(scenario) if scenario.policy.is_some()) {
                outcome.reactions.push(verdict.row(&name));
            }
            if alone || verdict.kept.is_some() {
                tell(&name, &verdict, alone.then(|| start.elapsed()));
            }
            if verdict.kept.is_none() {
                outcome.passed.push(name);
            } else {
                outcome.failed.push(name);
            }
        }
    }
}

/// How a scenario came out.
struct Verdict {
    findings: Vec<Finding>,
    /// Why there are no findings; empty when there are.
    why: String,
    /// What happened, where that is to be told.
    timeline: String,
    /// How long reactions took.
    times: Times,
    /// Where the machine's files are, when something differed.
    kept: Option<PathBuf>,
}

impl Verdict {
    /// What was expected and what was found, of the findings that are chosen, in a few words; or why nothing was found.
    fn brief(&self, chosen: fn(&Finding) -> bool) -> (String, String) {
        let side = |side: fn(&Finding) -> &[String]| {
            let findings = self.findings.iter().filter(|finding| chosen(finding));
            let parts: Vec<String> = findings.filter_map(|finding| finding.brief(side)).collect();
            if parts.is_empty() { "clean".to_owned() } else { parts.join(", ") }
        };
        let found = if self.why.is_empty() { side(|finding| &finding.found) } else { self.why.clone() };
        (side(|finding| &finding.expected), found)
    }

    fn row(&self, name: &str) -> Row {
        let (expected, seen) = self.brief(Finding::is_of_reaction);
        Row { name: name.to_owned(), expected, seen, equal: self.kept.is_none(), times: self.times }
    }
}

/// A machine that ran, and where its files are.
struct Ran {
    folder: tempfile::TempDir,
    end: End,
    /// What its console said.
    console: String,
    /// How long it was given, in seconds.
    limit: u64,
}

impl Ran {
    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// Why there is nothing to compare with what a script should have left.
    fn why(&self) -> Option<String> {
        match self.end {
            End::Done => None,
            End::Panicked => Some("the kernel panicked".to_owned()),
            End::CrashKernel => Some("the kernel crashed".to_owned()),
            End::TimedOut => Some(format!("not done after {} s", self.limit)),
            End::Died => Some("the machine ended before it was done".to_owned()),
        }
    }
}

/// Boots a machine that has these files in `/in` and runs `run`, with what its console says going to `watch`.
fn boot(
    job: &Job<'_>,
    wanted: Wanted,
    name: &str,
    files: &[(&str, &str)],
    (cpus, limit): (u32, u64),
    mut watch: impl FnMut(&str),
) -> Result<Ran> {
    let folder = tempfile::Builder::new().prefix(name).tempdir_in(place::folder("runs")?);
    let folder = folder.context("no folder for the machine")?;
    let input = folder.path().join("in");
    fs::create_dir(&input).context("no folder for the machine's input")?;
    for (name, text) in files {
        fs::write(input.join(name), text).context("cannot write the machine's input")?;
    }
    let mut machine = job.machines.machine(wanted, folder.path(), &input, cpus)?;
    let mut console = String::new();
    let end = machine.run(Duration::from_secs(limit), |text| {
        console += text;
        watch(text);
    })?;
    if end == End::Done {
        machine.unpack(&folder.path().join("out"))?;
    }
    Ok(Ran { folder, end, console, limit })
}

fn one(job: &Job<'_>, scenario: &Scenario, wanted: Wanted) -> Result<Verdict> {
    let mut variables = scenario.variables();
    if scenario.record {
        variables.push_str(recording::OPTIONS);
    }
    let run = scenario.agents.map_or_else(|| format!("{variables}{RUN_SCENARIO}"), Agents::script);
    let mut files = vec![("run", run.as_str()), ("script", &scenario.script)];
    files.extend(scenario.own_policy().map(|text| ("policy.toml", text)));
    let ran = boot(job, wanted, &scenario.name, &files, (scenario.cpus, scenario.seconds), |_| ())?;
    let judged = match (scenario.ends, ran.why()) {
        (Ends::Done, None) => judged(job, scenario, &ran.out()).map_err(|error| format!("{error:#}")),
        (Ends::Done, Some(why)) => Err(why),
        (ends, _) => Ok(crash::judge(&ran.console, &ran.end, ends, scenario.expected(&job.image.name))),
    };
    let mut verdict = verdict(job, &scenario.name, judged, ran.folder.path())?;
    if scenario.policy.is_some() {
        verdict.times = match scenario.ends {
            Ends::Done => reactions::times(&ran.out(), &scenario.name),
            _ => crash::times(&ran.console),
        };
    }
    if job.how.timelines {
        verdict.timeline = cold::table(&ran.out()) + &timeline::of(&ran.out());
    }
    Ok(verdict)
}

fn judged(job: &Job<'_>, scenario: &Scenario, out: &Path) -> Result<Vec<Finding>> {
    let mut findings = oracle::judge(out, scenario.expected(&job.image.name), scenario.latency)?;
    if scenario.record {
        let live = out.join(oracle::JSON);
        let text = fs::read_to_string(&live).with_context(|| format!("cannot read {}", live.display()))?;
        if let Some(to) = &job.how.record {
            recording::keep(out, &scenario.name, to)?;
        }
        findings.extend(recording::replayed(out, &text, &guest::stripped())?);
    }
    Ok(findings)
}

/// How long a batch may take.
const BATCH_LIMIT: u64 = 1800;

/// How often a batch says how far it is.
const PROGRESS: Duration = Duration::from_secs(30);

/// A verdict for each case, and one for the machine as a whole.
fn many(job: &Job<'_>, name: &str, cases: &[Case]) -> Result<Vec<(String, Verdict)>> {
    let mut begun = 0;
    let mut told = Instant::now();
    let script = batch::script(cases);
    let files = [("run", RUN_SCENARIO), ("script", script.as_str())];
    let ran = boot(job, Wanted::default(), name, &files, (1, BATCH_LIMIT), |text| {
        begun += text.matches("lab: case ").count();
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            note(name, format_args!("case {begun} of {}", cases.len()));
        }
    })?;
    let out = ran.out();
    let whole = match ran.why() {
        Some(why) => Err(format!("{why}, in case {begun} of {}", cases.len())),
        None => {
            batch::take_apart(&out, cases).and_then(|()| whole(&out)).map_err(|error| format!("{error:#}"))
        }
    };
    let mut verdicts = vec![(name.to_owned(), verdict(job, name, whole, ran.folder.path())?)];
    for case in cases {
        let folder = out.join("cases").join(&case.name);
        let judged = of_case(&folder, &case.expected).map_err(|error| format!("{error:#}"));
        verdicts.push((case.name.clone(), verdict(job, &case.name, judged, &folder)?));
    }
    Ok(verdicts)
}

fn whole(out: &Path) -> Result<Vec<Finding>> {
    let json = out.join(oracle::JSON);
    let text = fs::read_to_string(&json).with_context(|| format!("cannot read {}", json.display()))?;
    Ok(vec![oracle::exit_code(out)?, oracle::whole(&text)])
}

fn of_case(folder: &Path, expected: &Expectation) -> Result<Vec<Finding>> {
    ensure!(folder.join("script").is_file(), "it was not run to its end");
    let mut findings = oracle::compare(folder, expected)?;
    findings.push(batch::undisturbed(folder)?);
    Ok(findings)
}

fn verdict(job: &Job<'_>, name: &str, judged: Result<Vec<Finding>, String>, from: &Path) -> Result<Verdict> {
    let (findings, why) = match judged {
        Ok(findings) => (findings, String::new()),
        Err(why) => (Vec::new(), why),
    };
    let equal = why.is_empty() && findings.iter().all(|finding| finding.equal);
    let kept = guest::target_folder().join("lab/kept").join(&job.image.name).join(name);
    if !equal || job.how.keep {
        keep(from, &kept)?;
    }
    Ok(Verdict {
        findings,
        why,
        timeline: String::new(),
        times: Times::default(),
        kept: (!equal).then_some(kept),
    })
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

fn tell(name: &str, verdict: &Verdict, time: Option<Duration>) {
    let (expected, found) = verdict.brief(|finding| !finding.is_of_reaction());
    let mark = if verdict.kept.is_some() { "  DIFFERENT" } else { "" };
    let time = time.map(seconds).unwrap_or_default();
    println!("{name:24} {expected:44} {found:44} {time}{mark}");
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
    let machines = Machines::prepare(image, None, [Wanted::default()])?;
    let (folder, end) = session(&machines, Wanted::default(), &[("run", text)], 2, |text| print!("{text}"))?;
    let kept = guest::target_folder().join("lab/kept").join(&image.name).join("shell");
    keep(folder.path(), &kept)?;
    println!("what it left is in {}", kept.display());
    done(&end)
}

/// Whether the machine came to its end.
///
/// # Errors
/// It did not.
pub fn done(end: &End) -> Result<()> {
    ensure!(*end == End::Done, "the machine did not finish: {end:?}");
    Ok(())
}

/// Boots a machine with these files in `/in`, of which it runs `run`. What it left, where it came to its end, is in `out`
/// of the folder.
///
/// # Errors
/// The machine cannot be started.
pub fn session(
    machines: &Machines,
    wanted: Wanted,
    files: &[(&str, String)],
    cpus: u32,
    watch: impl FnMut(&str),
) -> Result<(TempDir, End)> {
    let folder = tempfile::tempdir_in(place::folder("runs")?).context("no folder for the machine")?;
    let input = folder.path().join("in");
    fs::create_dir(&input).context("no folder for the machine's input")?;
    for (name, text) in files {
        fs::write(input.join(name), text).context("cannot write the machine's input")?;
    }
    let mut machine = machines.machine(wanted, folder.path(), &input, cpus)?;
    let end = machine.run(SHELL_LIMIT, watch)?;
    if end == End::Done {
        machine.unpack(&folder.path().join("out"))?;
    }
    Ok((folder, end))
}
