//! The fleet's bus: what a server takes of the agents of many hosts, and what it costs to read all of that.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use septwatch_pty::Terminal;
use serde_json::Value;

use super::Row;
use crate::{
    build, fleet, run,
    setup::{self, unpacked},
    step::note,
};

/// What is played.
#[derive(Args)]
pub struct Options {
    /// Hosts.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    hosts: u32,
    /// Events a second of each; 0: as many as the server takes.
    #[arg(long, value_name = "N", default_value_t = 0)]
    rate: u32,
    /// For so long.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    seconds: u64,
}

/// How long the server may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long it is looked at while nothing comes.
const IDLE: Duration = Duration::from_secs(10);

/// Measures it.
///
/// # Errors
/// There is no server, or what is read is not what was played.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    setup::for_building()?;
    setup::unpacked(&unpacked::SERVERS)?;
    let septwatch = build::septwatch()?;
    let store = tempfile::tempdir()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let program = unpacked::SERVERS.usr().context("no servers")?.1.join("sbin/nats-server");
    let mut server = Command::new(program);
    server.args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(store.path());
    let _server =
        run::Killed(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("nats-server")?);
    let begun = Instant::now();
    while !is_there(port) {
        ensure!(begun.elapsed() < PATIENCE, "nats-server does not answer");
        thread::sleep(Duration::from_millis(50));
    }
    let url = format!("nats://127.0.0.1:{port}");
    let (hosts, rate, seconds) =
        (options.hosts.to_string(), options.rate.to_string(), options.seconds.to_string());
    let arguments =
        ["--servers", &url, "--hosts", &hosts, "--rate", &rate, "--seconds", &seconds].map(Into::into);
    let played = run::quiet(&mut fleet::simulator(&arguments)?)?;
    note("played", played.trim());
    let number = |before: &str| -> Result<f64> {
        let words: Vec<_> = played.split([' ', ',', ':']).filter(|word| !word.is_empty()).collect();
        let at =
            words.iter().position(|word| *word == before).context("the simulator says something else")?;
        Ok(words[at - 1].parse()?)
    };
    let (events, stored_a_second) = (number("events")?, number("a")?);
    let mut check = Command::new(&septwatch);
    check.args(["check", "--fleet", &url, "--json"]).stdout(Stdio::piped());
    let begun = Instant::now();
    let mut child = check.spawn().with_context(|| run::line(&check))?;
    let peak = thread::spawn({
        let pid = child.id();
        move || peak(pid)
    });
    let mut text = String::new();
    child.stdout.take().context("a pipe")?.read_to_string(&mut text)?;
    let took = begun.elapsed();
    child.wait()?;
    let peak = peak.join().map_err(|_| anyhow::anyhow!("a thread died"))?;
    let mut read = 0.0;
    let mut seen = 0u32;
    for line in text.lines() {
        let host: Value = serde_json::from_str(line)?;
        read += host["events"].as_f64().unwrap_or(0.0);
        seen += 1;
        ensure!(host["missing"] == 0 && host["repeated"] == 0, "{line}");
        let counted = &host["state"]["violations"]["zap-failed"];
        let found = host["violations"].get("zap-failed").and_then(Value::as_u64).unwrap_or(0);
        ensure!(counted.as_u64() == Some(found), "{line}");
    }
    ensure!(
        read == events && seen == options.hosts,
        "{read} of {events} events, {seen} of {} hosts",
        options.hosts
    );
    let [shown, idle] = shown(&septwatch, &url, options.hosts, read)?;
    Ok(vec![
        Row::new("hosts", f64::from(seen), "hosts"),
        Row::new("events that the server stored", stored_a_second, "events/s"),
        Row::new("events that `check --fleet` read", read / took.as_secs_f64(), "events/s"),
        Row::new("memory of `check --fleet`", peak as f64 / 1024.0, "MiB"),
        Row::new("`top --fleet`: until all of them are on the screen", shown, "s"),
        Row::new("  CPU then, while nothing comes", idle, "% of a core"),
        Row::new("events that are missing, or came twice", 0.0, "events"),
    ])
}

/// How long `top --fleet` takes until its screen tells of so many hosts and events, in seconds, and what of a core it takes
/// afterwards, in per cent.
fn shown(septwatch: &Path, url: &str, hosts: u32, events: f64) -> Result<[f64; 2]> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(septwatch);
    command.args(["top", "--fleet", url]).env("XDG_CONFIG_HOME", folder.path());
    let begun = Instant::now();
    let mut terminal = Terminal::start(command, 160, 50)?;
    let [hosts, events] = [format!("{hosts} hosts"), format!("{events} events")];
    let all = |text: &str| text.contains(&hosts) && text.contains(&events);
    while !all(&terminal.text()) {
        ensure!(begun.elapsed() < 10 * PATIENCE, "not all is shown: {}", terminal.text());
        thread::sleep(Duration::from_millis(20));
    }
    let shown = begun.elapsed();
    let idle = super::cpu_of(terminal.pid(), IDLE)?;
    terminal.send("q")?;
    terminal.wait()?;
    Ok([shown.as_secs_f64(), idle])
}

/// Whether the server says who it is.
fn is_there(port: u16) -> bool {
    let mut line = String::new();
    let asked = TcpStream::connect(("127.0.0.1", port));
    asked.is_ok_and(|stream| BufReader::new(stream).read_line(&mut line).is_ok()) && line.starts_with("INFO ")
}

/// Most memory that a process had until it ended, in KiB.
fn peak(pid: u32) -> u64 {
    let mut most = 0;
    while let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
        let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) else { break };
        most = peak.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(most);
        thread::sleep(Duration::from_millis(20));
    }
    most
}
