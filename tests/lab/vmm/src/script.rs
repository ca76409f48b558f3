//! Scripts: one command a line, run in order by processes that hold the TDs.
//!
//! - `COMMAND` goes to the first process, `@NAME COMMAND` to the process of that name, made when first named.
//! - `& COMMAND` does not wait for the answer; `wait` waits for all that are owed.
//! - `kill NAME` ends a process with SIGKILL, as an operator or the OOM killer does; `reap NAME` waits until somebody
//!   else has ended it.
//! - `sh LINE` runs a line of shell beside the processes, whose ids are in variables of their names; what it prints is
//!   the answer.
//! - `sleep MS`; `# remark`.
//! - `case NAME` begins a case of several that one machine runs, `end` ends it: the processes leave, what the software
//!   module knows is written down, and the module forgets it. A command that cannot be given ends its case only.
//!
//! At the end every process is told to leave, which closes what it still holds.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::time::ClockId;

use crate::cases;

/// The process of a command that names none.
const FIRST: &str = "vmm";

struct Process {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Commands whose answers were not awaited yet, oldest first.
    owed: Vec<String>,
}

type Processes = BTreeMap<String, Process>;

/// Runs the script in this file.
///
/// # Errors
/// The script cannot be read or has a line that is none, or, outside of cases, a process died unasked. What commands
/// answer, also errors, is only printed: whether it is right is not judged here.
pub fn run(path: &str) -> Result<()> {
    let script = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let mut processes = Processes::new();
    let mut case = None;
    let mut broken = false;
    for (number, line) in script.lines().enumerate() {
        let line = line.trim();
        let at = || format!("{path}:{}: `{line}`", number + 1);
        if let Some(name) = line.strip_prefix("case ") {
            cases::begin(name).with_context(at)?;
            tell("case", name, "begin");
            case = Some(name);
            broken = false;
        } else if line == "end" {
            let name = case.take().context("no case has begun").with_context(at)?;
            if let Err(error) = leave(&mut processes) {
                tell("case", name, &format!("error {error:#}"));
            }
            cases::end(name).with_context(at)?;
            tell("case", name, "end");
        } else if !line.is_empty() && !line.starts_with('#') && !broken {
            match (perform(&mut processes, line).with_context(at), case) {
                (Err(error), Some(name)) => {
                    tell("case", name, &format!("error {error:#}"));
                    broken = true;
                }
                (result, _) => result?,
            }
        }
    }
    leave(&mut processes)
}

/// Waits for what is owed, and ends all processes.
///
/// # Errors
/// One of them had ended before.
fn leave(processes: &mut Processes) -> Result<()> {
    let settled = settle_all(processes);
    for (name, mut process) in std::mem::take(processes) {
        let _ = writeln!(process.commands, "exit");
        let status = process.child.wait().context("cannot wait")?;
        tell(&name, "exit", &status.to_string());
    }
    settled
}

fn perform(processes: &mut Processes, line: &str) -> Result<()> {
    let (waits, line) = match line.strip_prefix('&') {
        Some(rest) => (false, rest.trim()),
        None => (true, line),
    };
    let (name, command) = match line.strip_prefix('@') {
        Some(rest) => rest.split_once(' ').context("a process without a command")?,
        None => (FIRST, line),
    };
    match command.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["wait"] => return settle_all(processes),
        ["sleep", time] => {
            std::thread::sleep(Duration::from_millis(time.parse().context("not a number of milliseconds")?));
            return Ok(());
        }
        ["kill", name] => return kill(processes, name),
        ["reap", name] => return reap(processes, name),
        ["sh", ..] => return shell(processes, command),
        _ => {}
    }
    let process = match processes.get_mut(name) {
        Some(process) => process,
        None => processes.entry(name.to_owned()).or_insert(start()?),
    };
    mark(command)?;
    writeln!(process.commands, "{command}").with_context(|| format!("process {name} is gone"))?;
    process.owed.push(command.to_owned());
    if waits { settle(name, process) } else { Ok(()) }
}

fn start() -> Result<Process> {
    let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
    command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start a process")?;
    let (Some(commands), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("a process without pipes");
    };
    Ok(Process { child, commands, answers: BufReader::new(answers), owed: Vec::new() })
}

fn settle_all(processes: &mut Processes) -> Result<()> {
    processes.iter_mut().try_for_each(|(name, process)| settle(name, process))
}

fn settle(name: &str, process: &mut Process) -> Result<()> {
    for command in process.owed.drain(..) {
        let mut answer = String::new();
        process.answers.read_line(&mut answer).context("cannot read an answer")?;
        if answer.is_empty() {
            bail!("process {name} ended in `{command}`: {}", process.child.wait()?);
        }
        tell(name, &command, answer.trim_end());
    }
    Ok(())
}

fn kill(processes: &mut Processes, name: &str) -> Result<()> {
    let mut process = processes.remove(name).with_context(|| format!("no process {name}"))?;
    process.child.kill().context("cannot kill")?;
    let status = process.child.wait().context("cannot wait")?;
    tell(name, "kill", &status.to_string());
    Ok(())
}

/// How long somebody else may take to end a process.
const REAPED: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

fn reap(processes: &mut Processes, name: &str) -> Result<()> {
    let mut process = processes.remove(name).with_context(|| format!("no process {name}"))?;
    let start = Instant::now();
    let status = loop {
        match process.child.try_wait().context("cannot wait")? {
            Some(status) => break status.to_string(),
            None if start.elapsed() < REAPED => std::thread::sleep(POLL),
            None => {
                process.child.kill().context("cannot kill")?;
                process.child.wait().context("cannot wait")?;
                break "error nobody ended it".to_owned();
            }
        }
    };
    // What it still answered.
    for (command, answer) in process.owed.iter().zip(process.answers.lines()) {
        tell(name, command, &answer.context("cannot read an answer")?);
    }
    tell(name, "reap", &status);
    Ok(())
}

fn shell(processes: &Processes, command: &str) -> Result<()> {
    mark(command)?;
    let line = command.strip_prefix("sh").unwrap_or_default();
    let ids = processes.iter().map(|(name, process)| (name, process.child.id().to_string()));
    let output = Command::new("/bin/sh").arg("-c").arg(line).envs(ids).stdin(Stdio::null()).output();
    let output = output.context("cannot run a shell")?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().replace('\n', "; ");
    let answer = if output.status.success() { "ok".to_owned() } else { format!("error {}:", output.status) };
    tell("sh", line.trim(), format!("{answer} {said}").trim_end());
    Ok(())
}

/// Writes `lab-vmm: SECONDS COMMAND` into the kernel's log: when it was given, and what time it is on the clock of
/// all else, where the log has a clock of its own.
fn mark(command: &str) -> Result<()> {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let line = format!("<6>lab-vmm: {}.{:09} {command}\n", now.tv_sec, now.tv_nsec);
    fs::write("/dev/kmsg", line).context("cannot write to the kernel's log")
}

/// `SECONDS PROCESS COMMAND -> ANSWER`, on the clock that the software module uses.
fn tell(name: &str, command: &str, answer: &str) {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    println!("{}.{:06} {name} {command} -> {answer}", now.tv_sec, now.tv_nsec / 1000);
}
