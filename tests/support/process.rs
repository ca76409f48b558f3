//! A run of the binary, from its start to its end.

use std::{
    fs,
    io::Read,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::PATIENCE;

/// What the binary says when another process has the ledger.
pub const HELD: &str = "another septwatch keeps the ledger";

/// How often something that must happen is looked for.
const LOOK: Duration = Duration::from_millis(2);

/// A command that is about to run.
#[derive(Debug)]
pub struct Run(Command);

impl Run {
    /// The binary with these arguments; it gets no input.
    pub fn new(septwatch: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(septwatch);
        // The person's own settings must not change what is printed.
        command.args(arguments).env_remove("NO_COLOR").stdin(Stdio::null());
        Self(command)
    }

    /// The command, for what a test wants different.
    pub fn command(&mut self) -> &mut Command {
        &mut self.0
    }

    /// Starts it, with its output kept.
    pub fn start(&mut self) -> Running {
        let child = self.0.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{:?}: {error}", self.0));
        let stdout = reader(child.stdout.take().expect("a pipe"));
        let stderr = reader(child.stderr.take().expect("a pipe"));
        Running { command: format!("{:?}", self.0), child, stdout: Some(stdout), stderr: Some(stderr) }
    }

    /// Runs it to its end.
    pub fn finish(&mut self) -> Done {
        self.start().finish()
    }

    /// Runs it to its end, as soon as nobody else on this host keeps the ledger.
    pub fn finish_in_turn(&mut self) -> Done {
        let mut done = self.finish();
        let start = Instant::now();
        while done.code() == Some(3) && done.stderr.contains(HELD) && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(200));
            done = self.finish();
        }
        done
    }

    /// Starts `demo`, as soon as nobody else on this host keeps the ledger, and returns when its TDs run.
    pub fn start_acting(&mut self) -> Running {
        let start = Instant::now();
        loop {
            let mut running = self.start();
            if running.acts() {
                return running;
            }
            let done = running.finish();
            assert!(
                done.stderr.contains(HELD) && start.elapsed() < PATIENCE,
                "ended before it began to act: {done}"
            );
            thread::sleep(Duration::from_millis(200));
        }
    }
}

fn reader(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A run under way. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something is so, and returns it; None if the process ended before.
    ///
    /// # Panics
    /// It takes too long.
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self.pid()) {
                return Some(found);
            }
            if self.ended().is_some() {
                return None;
            }
            assert!(start.elapsed() < PATIENCE, "{}: waited in vain until {what}", self.command);
            thread::sleep(LOOK);
        }
    }

    /// Waits until the thread that acts a scenario out runs; false if the process ended before.
    pub fn acts(&mut self) -> bool {
        self.until("it acts", |pid| threads(pid).iter().any(|(_, name)| name == ACTOR).then_some(()))
            .is_some()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{}: {signal:?}: {error}", self.command));
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It takes too long.
    pub fn finish(mut self) -> Done {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "{}: does not end", self.command);
            thread::sleep(LOOK);
        };
        let text = |pipe: Option<JoinHandle<String>>| {
            pipe.map(|pipe| pipe.join().expect("a pipe's reader does not panic")).unwrap_or_default()
        };
        let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
        let done = Done { command: std::mem::take(&mut self.command), status, stdout, stderr };
        assert!(!done.stderr.contains("panicked at"), "it panicked: {done}");
        done
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Name of the thread that acts a scenario out.
pub const ACTOR: &str = "septwatch-demo";

/// Threads of a process, with their names; none if it is gone.
pub fn threads(pid: u32) -> Vec<(u32, String)> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let thread = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        Some((task.file_name().to_str()?.parse().ok()?, name.trim_end().to_owned()))
    };
    tasks.filter_map(|task| thread(task.ok()?)).collect()
}

/// A run that is over.
#[derive(Debug)]
pub struct Done {
    command: String,
    status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it said on standard error.
    pub stderr: String,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The end says most; a storm prints a lot.
        let tail = |text: &str| {
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        let (stdout, stderr) = (tail(&self.stdout), tail(&self.stderr));
        write!(f, "{}: {}\n--- stdout\n{stdout}\n--- stderr\n{stderr}", self.command, self.status)
    }
}

impl Done {
    /// Exit code; None if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Fails the test where the exit code is another.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{self}");
        self
    }

    /// Fails the test where standard error lacks one of these words.
    #[track_caller]
    pub fn says(self, words: &[impl AsRef<str>]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word.as_ref()), "no {:?} on stderr: {self}", word.as_ref());
        }
        self
    }

    /// Standard output as JSON, one object a line.
    #[track_caller]
    pub fn json(&self) -> Vec<Value> {
        let parse = |line: &str| match serde_json::from_str::<Value>(line) {
            Ok(value) if value.is_object() => value,
            other => panic!("not a JSON object: {other:?} in {line:?}: {self}"),
        };
        self.stdout.lines().map(parse).collect()
    }

    /// The one line of JSON on standard output.
    #[track_caller]
    pub fn json_line(&self) -> Value {
        let [line] = self.json().try_into().unwrap_or_else(|_| panic!("not one line: {self}"));
        line
    }
}
