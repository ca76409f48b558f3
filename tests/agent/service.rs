//! The agent as systemd, an operator and a scraper see it.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use septwatch_tests::{
    septwatch, skip,
    support::{binary, process::Run},
};

use super::{servers::until, web};

/// What the agent tells systemd, word by word.
struct Notified {
    socket: UnixDatagram,
    seen: Vec<String>,
}

impl Notified {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, seen: Vec::new() }
    }

    /// Waits until something is told that begins like this, and takes all that came before for read.
    fn until(&mut self, begin: &str) -> String {
        until(begin, || {
            let mut bytes = [0; 4096];
            while let Ok(length) = self.socket.recv(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                self.seen.extend(text.lines().map(str::to_owned));
            }
            let at = self.seen.iter().position(|line| line.starts_with(begin))?;
            Some(self.seen.drain(..=at).next_back().unwrap())
        })
    }
}

#[test]
fn systemd_is_told_that_it_is_ready_lives_reloads_and_ends() {
    let septwatch = septwatch!();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let events = folder.path().join("events.jsonl");
    let mut notified = Notified::at(&socket);
    let arguments =
        ["agent", "--demo", "--metrics-listen", "none", "--events-file", events.to_str().unwrap()];
    let mut run = Run::new(&septwatch, &arguments);
    run.command().env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000");
    let running = run.start_acting();
    notified.until("READY=1");
    let begun = Instant::now();
    (0..3).for_each(|_| drop(notified.until("WATCHDOG=1")));
    assert!(begun.elapsed() > Duration::from_millis(350), "it is told every 200 ms");
    let status = notified.until("STATUS=");
    assert!(status.contains(" violations, 0 lost; ") && status.contains(" TDs with "), "{status}");
    // As logrotate does.
    let renamed = folder.path().join("renamed");
    until("there are events", || fs::metadata(&events).ok().filter(|file| file.len() != 0));
    fs::rename(&events, &renamed).unwrap();
    running.signal(Signal::HUP);
    notified.until("RELOADING=1");
    notified.until("READY=1");
    until("there are events in a new file", || fs::metadata(&events).ok().filter(|file| file.len() != 0));
    running.signal(Signal::TERM);
    notified.until("STOPPING=1");
    running.finish().exits(0);
    for file in [events, renamed] {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.ends_with('\n')
                && text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
        );
    }
}

#[test]
fn a_socket_of_systemds_is_taken_over() {
    let septwatch = septwatch!();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // A shell has the descriptor as its third, and becomes the agent.
    let script = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(&septwatch).args(["agent", "--demo", "--metrics-listen", "systemd"]);
    shell.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener))).stderr(Stdio::null());
    let mut child = shell.spawn().unwrap();
    until("it answers", || web::get(port, "/readyz").filter(|(status, ..)| *status == 200));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_storm_is_scraped_at_once_and_nothing_is_lost_unaccounted() {
    let septwatch = septwatch!();
    let port = web::port();
    let listen = format!("127.0.0.1:{port}");
    let arguments =
        ["agent", "--demo", "--pace", "max", "--latency", "--events-file", "-", "--metrics-listen", &listen];
    let arguments = [&arguments[..], &["--tds", "1000"]].concat();
    let running = Run::new(&septwatch, &arguments).start_acting();
    let value = |text: &str, series: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series}: {text}"))
    };
    let pages = "septwatch_records_total{stream=\"pages\"}";
    until("a million records of a thousand TDs", || {
        let text = web::get(port, "/metrics").filter(|(_, _, text)| text.contains(pages))?.2;
        let tds = value(&text, "septwatch_tds{life=\"finalized\"}");
        (value(&text, pages) > 1e6 && tds > 990.0).then_some(())
    });
    let (begun, before) = (Instant::now(), value(&web::get(port, "/metrics").unwrap().2, pages));
    let mut took: Vec<_> = (0..50)
        .map(|_| {
            thread::sleep(Duration::from_millis(60));
            let begun = Instant::now();
            assert_eq!(web::get(port, "/metrics").unwrap().0, 200);
            begun.elapsed()
        })
        .collect();
    took.sort();
    assert!(took[25] < Duration::from_millis(50), "the median of {took:?}");
    let text = web::get(port, "/metrics").unwrap().2;
    let rate = (value(&text, pages) - before) / begun.elapsed().as_secs_f64();
    let memory = value(&text, "process_resident_memory_bytes");
    eprintln!(
        "{rate:.0} records a second; a scrape took {:?} (median of 50), the agent {:.0} MB",
        took[25],
        memory / 1e6
    );
    assert!(memory < 256e6, "{memory}");
    assert_eq!(value(&text, "septwatch_output_lost_events_total{output=\"events\"}"), 0.0);
    for stream in ["vital", "pages"] {
        let of = |family: &str| value(&text, &format!("septwatch_{family}_total{{stream=\"{stream}\"}}"));
        // What is on its way is at most what the ring has room for.
        let (numbered, accounted) = (of("records"), of("received_records") + of("lost_records"));
        assert!(accounted <= numbered && numbered - accounted < 1e6, "{stream}: {text}");
    }
    let offered = value(&text, "septwatch_output_events_total{output=\"events\"}");
    running.signal(Signal::TERM);
    let done = running.finish().exits(0);
    // All that was offered by then was written.
    assert!(offered > 100.0 && done.json().len() as f64 >= offered, "{offered}: {done}");
}

#[test]
fn what_is_no_longer_needed_is_given_up() {
    let septwatch = septwatch!();
    let port = web::port();
    let listen = format!("127.0.0.1:{port}");
    let arguments = ["agent", "--demo", "--seed", "3", "--events-file", "-", "--metrics-listen", &listen];
    let running = Run::new(&septwatch, &arguments).start_acting();
    until("it is ready", || web::get(port, "/readyz").filter(|(status, ..)| *status == 200));
    let mut threads = 0;
    for (tid, name) in septwatch_tests::support::process::threads(running.pid()) {
        let status = fs::read_to_string(format!("/proc/{}/task/{tid}/status", running.pid())).unwrap();
        let line =
            |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
        assert_eq!(line("Seccomp:"), "2", "{name}");
        // The demo's VMM reads frame numbers.
        if name != septwatch_tests::support::process::ACTOR {
            // CAP_SYS_PTRACE is 19: include/uapi/linux/capability.h.
            for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
                assert_eq!(line(set), format!("{:016x}", 1 << 19), "{name} {set}");
            }
            assert_eq!(line("NoNewPrivs:"), "1", "{name}");
            threads += 1;
        }
    }
    assert!(threads >= 3, "{threads}");
    // Nothing that it does later needed what is gone: from the first such violation on it attaches to allocations, and would
    // end with an error.
    let freed = "septwatch_violations_total{violation=\"freed-while-mapped\"} ";
    until("a page is freed too early", || {
        let text = web::get(port, "/metrics")?.2;
        let count = text.lines().find_map(|line| line.strip_prefix(freed))?.parse::<u64>().ok()?;
        (count > 3).then_some(())
    });
    running.signal(Signal::TERM);
    let done = running.finish().exits(0);
    let events = done.json();
    let freed = events.iter().find(|event| event["violation"] == "freed-while-mapped");
    let freed = freed.unwrap_or_else(|| panic!("none in {done}"));
    // The kernel's symbols were read before.
    let place = freed["kernel_functions"][0].as_str().unwrap();
    assert!(place.contains('+'), "{place}");
}

#[test]
fn the_unit_is_as_closed_as_it_says() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../userspace/package/septwatch-agent.service");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("septwatch-agent.service");
    fs::copy(unit, &copy).unwrap();
    // In tenths.
    let arguments = ["security", "--offline=true", "--no-pager", "--threshold=28"];
    match Command::new("systemd-analyze").args(arguments).arg(&copy).output() {
        Err(error) => skip!("systemd-analyze: {error}; the Debian package systemd has it"),
        Ok(said) => assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout)),
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let septwatch = match binary() {
        Ok(path) => path,
        Err(why) => skip!("{why}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut run = Run::new(&septwatch, &["agent", "--config", path.to_str().unwrap()]);
        run.command().args(arguments).envs(environment.iter().copied());
        run.finish()
    };
    fs::write(&path, "[metrics]\ntds = 1\n[events]\nkeep = 1\nrotate = \"1K\"\n[ledger]\nlatency = true\n")
        .unwrap();
    let printed = run(
        &["--print-config", "--metrics-tds", "3"],
        &[("SEPTWATCH_METRICS_TDS", "2"), ("SEPTWATCH_EVENTS_KEEP", "2")],
    );
    let printed = printed.exits(0).stdout;
    for line in ["tds = 3", "keep = 2", "rotate = \"1K\"", "latency = true", "listen = \"127.0.0.1:9815\""] {
        assert!(printed.lines().any(|have| have == line), "no {line}: {printed}");
    }
    // What is printed is a file that says the same.
    fs::write(&path, &printed).unwrap();
    assert_eq!(run(&["--print-config"], &[]).exits(0).stdout, printed);
    run(&["--check-config"], &[]).exits(0);
    for (text, words) in [
        ("[metrics]\nlisten = \"0.0.0.0:9815\"\n", &["metrics.listen", "metrics.tls_certificate"][..]),
        ("[metrics]\nlisten = \"here\"\n", &["line 2", "127.0.0.1:9815"]),
        ("[metrics]\ntds = -1\n", &["line 2"]),
        ("[metrics]\ntoken = \"x\"\n", &["line 2", "token_file"]),
        ("[metric]\n", &["line 1", "metrics"]),
        ("[ledger]\nring = 5000\n", &["ledger.ring", "power of two"]),
        ("[ledger]\nlimit = \"1\"\n", &["ledger.limit", "4K"]),
        ("[events]\nqueue = 0\n", &["events.queue", "1048576"]),
        ("[otlp]\nendpoint = \"127.0.0.1:4317\"\n", &["line 2", "http://127.0.0.1:4317"]),
        ("[otlp]\nprotocol = \"json\"\n", &["line 2", "grpc"]),
        ("[otlp]\ninterval = \"1ms\"\n", &["otlp.interval", "100ms"]),
        ("[otlp]\nqueue = 0\n", &["otlp.queue", "1048576"]),
        ("[otlp]\nendpoint = \"http://127.0.0.1:4317\"\nheaders_file = \"/nowhere\"\n", &["otlp."]),
        ("[policy]\narm = true\n", &["policy.arm", "policy.name"]),
        ("[policy]\nname = \"no-such\"\n", &["policy.name", "contain"]),
    ] {
        fs::write(&path, text).unwrap();
        run(&["--check-config"], &[]).exits(2).says(words);
    }
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    run(&["--check-config"], &[]).exits(2).says(&["others can write it", "chmod go-w"]);
    fs::remove_file(&path).unwrap();
    run(&["--check-config"], &[]).exits(2).says(&["--print-config"]);
    run(&["--metrics-tds", "many"], &[]).exits(2).says(&["--metrics-tds"]);
}
