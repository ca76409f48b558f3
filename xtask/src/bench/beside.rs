//! An agent beside a host, as on a host with TDX: the demo's TDs run in a process of their own, and the agent takes their
//! ledger over. What is measured of it is the agent's alone.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::build;
use crate::run::Killed;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the host's TDs do.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// TDs at once.
    pub tds: u32,
    /// Pages of each.
    pub pages: u32,
    /// Operations of a storm, after which its TDs end and others begin.
    pub operations: u64,
    /// Faults among them.
    pub faults: u32,
    /// Operations a second, or `max`.
    pub pace: &'static str,
}

/// What is needed.
pub struct Programs {
    septwatch: PathBuf,
    host: PathBuf,
}

impl Programs {
    /// Builds what is missing.
    ///
    /// # Errors
    /// It does not build.
    pub fn prepare() -> Result<Self> {
        Ok(Self { host: build::example("demo-host")?, septwatch: build::septwatch()? })
    }

    /// The binary.
    pub fn septwatch(&self) -> &Path {
        &self.septwatch
    }
}

/// A host whose ledger waits for somebody.
pub struct Host {
    process: Child,
    input: Option<ChildStdin>,
}

impl Host {
    /// Begins, and returns when the programs are attached.
    ///
    /// # Errors
    /// The demo cannot run here.
    pub fn begin(programs: &Programs, storm: Storm) -> Result<Self> {
        let Storm { tds, pages, operations, faults, pace } = storm;
        let mut command = Command::new(&programs.host);
        command.args([tds.to_string(), pages.to_string(), operations.to_string(), faults.to_string()]);
        command.arg(pace).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("cannot run the demo's host")?;
        let input = process.stdin.take();
        let output = process.stdout.take().context("a pipe")?;
        let host = Self { process, input };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.trim() == "left", "the demo's host cannot begin");
        Ok(host)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It ends with its input, and takes its programs out of the kernel.
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

/// An agent that took over.
pub struct Agent {
    process: Killed,
    /// From its start until it was ready to read the rings.
    pub took: Duration,
    metrics: String,
}

impl Agent {
    /// Starts it, and returns when it says that it is ready, as it says it to systemd.
    ///
    /// # Errors
    /// It does not take over.
    pub fn begin(programs: &Programs, events: Stdio, more: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir().context("no folder for a socket")?;
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).context("a socket")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut command = Command::new(&programs.septwatch);
        command.args(["agent", "--metrics-listen", "127.0.0.1:0", "--journal=false"]).args(more);
        command.env("NOTIFY_SOCKET", &path).stdin(Stdio::null()).stdout(events).stderr(Stdio::piped());
        let begun = Instant::now();
        let mut process = Killed(command.spawn().context("cannot run the agent")?);
        let mut stderr = BufReader::new(process.0.stderr.take().context("a pipe")?);
        let mut said = String::new();
        let metrics = loop {
            let before = said.len();
            if stderr.read_line(&mut said)? == 0 {
                bail!("the agent ended: {said}");
            }
            if let Some((_, address)) = said[before..].split_once("metrics at ") {
                break address.trim().trim_start_matches("http://").to_owned();
            }
        };
        let mut message = [0; 4096];
        let took = loop {
            let length = socket.recv(&mut message).context("the agent never was ready")?;
            if message[..length].starts_with(b"READY=1") {
                break begun.elapsed();
            }
        };
        // What it says from now on is nobody's business, and no pipe may run full.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Ok(Self { process, took, metrics })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// What it writes, if that was to be a pipe.
    pub fn events(&mut self) -> Option<std::process::ChildStdout> {
        self.process.0.stdout.take()
    }

    /// What it tells who scrapes it.
    ///
    /// # Errors
    /// It does not answer.
    pub fn scrape(&self) -> Result<String> {
        let address = self.metrics.split('/').next().unwrap_or_default();
        let mut stream = TcpStream::connect(address).with_context(|| format!("no agent at {address}"))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(text.starts_with("HTTP/1.1 200"), "the agent answers {}", text.lines().next().unwrap_or(""));
        Ok(text)
    }

    /// Ends it in good order; its programs stay.
    ///
    /// # Errors
    /// It fails.
    pub fn end(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.process.0), Signal::TERM)?;
        let status = self.process.0.wait()?;
        ensure!(status.success(), "the agent: {status}");
        Ok(())
    }
}

/// Memory of a process in MiB that is neither the demo's guests' nor the kernel's.
///
/// # Errors
/// It has ended.
pub fn own_mib(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(own_kib(&text) as f64 / 1024.0)
}

/// KiB of all mappings but those of memfd, guest_memfd (`[kvm-gmem]`) and BPF maps.
fn own_kib(smaps: &str) -> u64 {
    let (mut sum, mut counts) = (0, false);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Rss:") if counts => {
                sum += words.next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
            }
            // `address perms offset dev inode name`
            Some(first) if !first.ends_with(':') => {
                counts = !["memfd:", "[kvm-gmem]", "bpf-map"].iter().any(|name| line.contains(name));
            }
            _ => {}
        }
    }
    sum
}

/// The sum of all samples of a metric.
pub fn sum(scrape: &str, metric: &str) -> f64 {
    let of = scrape.lines().filter_map(|line| {
        let rest = line.strip_prefix(metric)?;
        // `name{labels} value` or `name value`
        let is_it = rest.starts_with(['{', ' ']);
        is_it.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    of.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_metric_are_added_up() {
        let scrape = "\
# TYPE septwatch_tds gauge
septwatch_tds{life=\"finalized\"} 998
septwatch_tds{life=\"created\"} 2
septwatch_tds_seen_total 4711
septwatch_tds_seen_created 1e9
";
        assert_eq!(sum(scrape, "septwatch_tds"), 1000.0);
        assert_eq!(sum(scrape, "septwatch_tds_seen_total"), 4711.0);
        assert_eq!(sum(scrape, "septwatch_td"), 0.0);
    }

    #[test]
    fn guest_memory_is_not_the_agents() {
        let smaps = "\
55d0-55d1 r-xp 0 fe:0 1 /bin/septwatch
Rss:  100 kB
7f00-7f01 rw-s 0 0:1 2 /memfd:septwatch-demo (deleted)
Rss: 4000 kB
7f02-7f03 rw-s 0 0:e 3 anon_inode:[kvm-gmem]
Rss: 5000 kB
7f04-7f05 rw-s 0 0:e 3 anon_inode:bpf-map
Rss: 8000 kB
7ffc-7ffd rw-p 0 0:0 0 [stack]
Rss:   12 kB
";
        assert_eq!(own_kib(smaps), 112);
    }
}
