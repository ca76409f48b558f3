//! The fleet's bus, with a real NATS server: what the kernel counted of every host is what the fleet's view counts, whoever
//! is killed meanwhile.

use std::{
    env,
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{Map, MapData, MapInfo, PerCpuArray, RingBuf};
use rustix::process::Signal;
use septwatch_common::{
    config::Counters,
    wire::{Header, Kind},
};
use septwatch_tests::{
    septwatch, skip,
    support::{
        bpf::Objects,
        process::{Run, Running},
    },
};
use serde_json::Value;
use zerocopy::FromBytes as _;

use super::{
    servers::{program, until},
    web,
};

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Pod(Counters);
// SAFETY: numbers only, without padding.
unsafe impl aya::Pod for Pod {}

/// A NATS server with JetStream. Dropping it kills it.
pub struct Nats {
    port: u16,
    store: PathBuf,
    config: Option<PathBuf>,
    child: Option<Child>,
}

impl Nats {
    pub fn start(store: &Path) -> Self {
        Self::configured(store, None)
    }

    /// The same with a configuration.
    pub fn configured(store: &Path, config: Option<&Path>) -> Self {
        let config = config.map(Path::to_owned);
        let mut nats = Self { port: web::port(), store: store.to_owned(), config, child: None };
        nats.begin();
        nats
    }

    pub fn begin(&mut self) {
        let mut command = Command::new(program("nats-server").unwrap());
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.args(["-js", "-a", "127.0.0.1", "-p", &self.port.to_string(), "-sd"]).arg(&self.store);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.unwrap());
        until("nats-server", || {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).ok()?;
            line.starts_with("INFO ").then_some(())
        });
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What became of vital records: those that a process took out of the ring, and of them, violations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    records: u64,
    violations: u64,
}

/// The kernel's own account of an agent's ledger, which outlives the agent for as long as this is there.
struct Account {
    counters: PerCpuArray<MapData, Pod>,
    vital: MapData,
}

impl Account {
    fn of(pid: u32) -> Option<Self> {
        let maps = Objects::of(pid).maps;
        let named = |name: &str| {
            let is = |id: &&u32| MapInfo::from_id(**id).is_ok_and(|map| map.name_as_str() == Some(name));
            MapData::from_id(*maps.iter().find(is)?).ok()
        };
        Some(Self {
            counters: PerCpuArray::try_from(Map::PerCpuArray(named("COUNTERS")?)).ok()?,
            vital: named("VITAL")?,
        })
    }

    /// When the agent is gone.
    fn settle(self) -> Taken {
        let mut taken = Taken::default();
        for Pod(cpu) in self.counters.get(&0, 0).unwrap().iter() {
            assert_eq!(
                cpu.vital.lost, 0,
                "the ring was full: this account does not know what was in those records"
            );
            taken.records += cpu.vital.produced;
            taken.violations += cpu.violations.iter().sum::<u64>();
        }
        // It begins where the agent has ended, for only now does it look where that is.
        let mut vital = RingBuf::try_from(Map::RingBuf(self.vital)).unwrap();
        while let Some(record) = vital.next() {
            let (header, _) = Header::read_from_prefix(&record).unwrap();
            taken.records -= 1;
            taken.violations -= u64::from(header.kind == Kind::Violation as u8);
        }
        taken
    }
}

/// A host: an agent with a demo, whatever becomes of it, with a place of its own for what each host has once.
struct Host {
    name: String,
    spool: PathBuf,
    septwatch: PathBuf,
    url: String,
    running: Option<(Running, Account)>,
    taken: Taken,
    lives: u32,
}

impl Host {
    fn new(septwatch: &Path, folder: &Path, name: &str, url: &str) -> Self {
        Self {
            name: name.to_owned(),
            spool: folder.join(name),
            septwatch: septwatch.to_owned(),
            url: url.to_owned(),
            running: None,
            taken: Taken::default(),
            lives: 0,
        }
    }

    fn begin(&mut self) {
        let script = "mkdir -p /run/septwatch && mount -t tmpfs tmpfs /run/septwatch && exec \"$0\" \"$@\"";
        let septwatch = self.septwatch.to_str().unwrap();
        let seed = self.lives.to_string();
        let mut run = Run::new(Path::new("unshare"), &["--mount", "sh", "-c", script, septwatch]);
        run.command().args([
            "agent",
            "--demo",
            "--seed",
            &seed,
            "--metrics-listen",
            "none",
            "--bus-servers",
            &self.url,
        ]);
        run.command().args(["--bus-host", &self.name, "--bus-spool"]).arg(&self.spool);
        let mut running = run.start_acting();
        let account = running.until("its maps are there", Account::of).unwrap();
        self.running = Some((running, account));
        self.lives += 1;
    }

    /// Ends the agent. False: it says that not all was sent.
    fn end(&mut self, signal: Signal) -> bool {
        let Some((running, account)) = self.running.take() else { return true };
        running.signal(signal);
        let done = running.finish();
        let taken = account.settle();
        self.taken.records += taken.records;
        self.taken.violations += taken.violations;
        !done.stderr.contains("events stay in the spool")
    }
}

/// What the fleet's view has of every host.
pub fn check(septwatch: &Path, url: &str) -> Vec<Value> {
    let done = Run::new(septwatch, &["check", "--fleet", url, "--json"]).finish();
    assert!(done.code().is_some_and(|code| code < 2), "{done}");
    done.json()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// For how long agents and the server are killed, in seconds; more is asked of it by hand.
fn span() -> Duration {
    let seconds = env::var("SEPTWATCH_KILLS_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

#[test]
fn whoever_is_killed_nothing_is_lost_and_nothing_counts_twice() {
    let septwatch = septwatch!();
    if let Err(why) = program("nats-server") {
        skip!("{why}");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut nats = Nats::start(&folder.path().join("store"));
    let url = nats.url();
    let mut hosts = ["one", "two"].map(|name| Host::new(&septwatch, folder.path(), name, &url));
    let begun = Instant::now();
    let mut random = u64::from(std::process::id()) << 16 | 1;
    let mut next = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let mut kills = [0usize; 3];
    for host in &mut hosts {
        host.begin();
    }
    while begun.elapsed() < span() {
        thread::sleep(Duration::from_millis(500 + next(2000)));
        let who = kills.iter().sum::<usize>() % 3;
        kills[who] += 1;
        match hosts.get_mut(who) {
            Some(host) => {
                host.end(Signal::KILL);
                host.begin();
            }
            None => {
                nats.kill();
                thread::sleep(Duration::from_millis(next(2000)));
                nats.begin();
            }
        }
    }
    for host in &mut hosts {
        host.end(Signal::TERM);
    }
    let sent = |host: &Host| {
        let have = check(&septwatch, &url);
        let have = have.iter().find(|have| have["host"] == host.name.as_str())?;
        (number(&have["events"]) >= host.taken.records).then_some(())
    };
    for host in &mut hosts {
        // What is left in its spool is sent by whoever comes next.
        loop {
            host.begin();
            until("the spool is sent", || sent(host));
            if host.end(Signal::TERM) {
                break;
            }
        }
    }
    let mut have = check(&septwatch, &url);
    have.sort_by_key(|have| have["host"].to_string());
    println!("{kills:?} kills of hosts one, two, and of the server");
    for (host, have) in hosts.iter().zip(&have) {
        let violations: u64 = have["violations"].as_object().unwrap().values().map(number).sum();
        println!("{}: {} lives, {:?}, repeated {}", host.name, host.lives, host.taken, have["repeated"]);
        assert_eq!(have["host"], host.name.as_str());
        assert_eq!(Taken { records: number(&have["events"]), violations }, host.taken, "{have}");
        assert_eq!(number(&have["missing"]), 0);
        assert!(host.taken.violations > 0);
        assert_eq!(have["standing"], "violated");
        assert_eq!(have["state"]["ended"], true);
        assert_eq!(number(&have["state"]["outputs"]["bus"]["lost"]), 0);
    }
}

#[test]
fn a_full_spool_loses_what_it_counts_and_goes_on_afterwards() {
    let septwatch = septwatch!();
    if let Err(why) = program("nats-server") {
        skip!("{why}");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut nats = Nats::start(&folder.path().join("store"));
    nats.kill();
    let (port, url) = (web::port(), nats.url());
    let (listen, spool) = (format!("127.0.0.1:{port}"), folder.path().join("spool"));
    let mut run = Run::new(
        &septwatch,
        &["agent", "--demo", "--pace", "max", "--metrics-listen", &listen, "--bus-servers", &url],
    );
    run.command().args(["--bus-host", "full", "--bus-spool-bytes", "64K", "--bus-spool"]).arg(&spool);
    let running = run.start_acting();
    let lost = "septwatch_output_lost_events_total{output=\"bus\"}";
    let value = |series: &str| -> Option<u64> {
        let (_, _, text) = web::get(port, "/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        line.parse().ok()
    };
    until("it loses events", || value(lost).filter(|lost| *lost > 100));
    let size: u64 =
        std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(size <= (64 << 10) + 16, "{size} bytes");
    nats.begin();
    until("the spool is sent", || {
        let have = check_there(&septwatch, &url)?;
        // The state comes behind the first events.
        let bus = have["state"]["outputs"]["bus"].as_object()?;
        (number(&bus["lost"]) > 100 && number(&bus["delivered"]) > 500).then_some(())
    });
    running.signal(Signal::TERM);
    let done = running.finish().exits(0);
    assert!(done.stderr.contains("the spool is full"), "{done}");
    let have = check_there(&septwatch, &url).unwrap();
    let bus = &have["state"]["outputs"]["bus"];
    let (offered, delivered, lost) =
        (number(&bus["offered"]), number(&bus["delivered"]), number(&bus["lost"]));
    assert_eq!(offered, delivered + lost, "{bus}");
    assert_eq!(
        (number(&have["events"]), number(&have["missing"])),
        (delivered, lost),
        "each that is lost is missed"
    );
}

/// The only host, if the stream is there.
pub fn check_there(septwatch: &Path, url: &str) -> Option<Value> {
    let done = Run::new(septwatch, &["check", "--fleet", url, "--json"]).finish();
    (done.code()? < 2).then(|| done.json().pop()).flatten()
}

/// A peer that takes connections, and does with them what it is told.
fn peer(with: fn(TcpStream)) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(with));
    port
}

#[test]
fn a_server_that_hangs_resets_or_talks_nonsense_costs_nothing() {
    use std::io::Write as _;
    let septwatch = septwatch!();
    let folder = tempfile::tempdir().unwrap();
    let hang: fn(TcpStream) = std::mem::forget;
    let reset: fn(TcpStream) = drop;
    let nonsense: fn(TcpStream) = |mut stream| drop(stream.write_all(b"HTTP/1.0 400 who are you\r\n\r\n"));
    let early: fn(TcpStream) = |mut stream| {
        let _ = stream.write_all(b"INFO {\"server_id\":\"x\",\"max_payload\":1048576,\"headers\":true}\r\n");
        thread::spawn(move || {
            for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                if line.starts_with("PING") && (&stream).write_all(b"PONG\r\n").is_err() {
                    break;
                }
            }
        });
    };
    for (what, with) in [("hangs", hang), ("resets", reset), ("nonsense", nonsense), ("no JetStream", early)]
    {
        let url = format!("nats://127.0.0.1:{}", peer(with));
        let port = web::port();
        let listen = format!("127.0.0.1:{port}");
        let mut run = Run::new(
            &septwatch,
            &["agent", "--demo", "--pace", "max", "--metrics-listen", &listen, "--bus-servers", &url],
        );
        run.command().arg("--bus-spool").arg(folder.path().join(what));
        let running = run.start_acting();
        until(what, || {
            let (_, _, text) = web::get(port, "/metrics")?;
            let value = |series: &str| -> Option<u64> {
                let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
                line.parse().ok()
            };
            let lost = value("septwatch_lost_records_total{stream=\"vital\"}")?;
            assert_eq!(lost, 0);
            let offered = value("septwatch_output_events_total{output=\"bus\"}")?;
            assert_eq!(value("septwatch_output_lost_events_total{output=\"bus\"}")?, 0);
            (offered > 60).then_some(())
        });
        let begun = Instant::now();
        running.signal(Signal::TERM);
        let done = running.finish().exits(0);
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}: it ended after {:?}", begun.elapsed());
        assert!(done.stderr.contains("events stay in the spool"), "{what}: {done}");
    }
}
