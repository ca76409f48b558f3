//! `septwatch top --fleet` in a terminal, with a real NATS server and a real agent.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use septwatch_pty::Terminal;
use septwatch_tests::{septwatch, skip, support::process::Run};

use super::{
    bus::{Nats, check_there},
    servers::{program, until},
};

/// How long a screen may take. A machine may be busy.
const SOON: Duration = Duration::from_secs(30);

fn top(septwatch: &Path, folder: &Path, url: &str) -> Terminal {
    let mut command = Command::new(septwatch);
    command.args(["top", "--fleet", url]).current_dir(folder);
    command.env("XDG_CONFIG_HOME", folder.join("config"));
    Terminal::start(command, 120, 40).unwrap()
}

#[test]
fn a_host_is_opened_and_a_violation_of_it_and_the_server_may_go_and_come() {
    let septwatch = septwatch!();
    if let Err(why) = program("nats-server") {
        skip!("{why}");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut nats = Nats::start(&folder.path().join("store"));
    let url = nats.url();
    let mut run = Run::new(&septwatch, &["agent", "--demo", "--pace", "500", "--metrics-listen", "none"]);
    run.command().args(["--bus-servers", &url, "--bus-host", "lender", "--bus-spool"]);
    run.command().arg(folder.path().join("spool"));
    let running = run.start_acting();
    until("there is a violation", || {
        check_there(&septwatch, &url)
            .filter(|host| host["violations"].as_object().is_some_and(|v| !v.is_empty()))
    });
    let mut terminal = top(&septwatch, folder.path(), &url);
    for words in ["septwatch fleet", "1 hosts", "lender", "violated"] {
        terminal.wait_for(words, SOON).unwrap();
    }
    terminal.send("enter").unwrap();
    terminal.wait_for("tab violations or TDs", SOON).unwrap();
    terminal.wait_for("suspect)", SOON).unwrap();
    terminal.send("tab").unwrap();
    terminal.wait_for("confidence", SOON).unwrap();
    terminal.send("tab").unwrap();
    terminal.send("enter").unwrap();
    // The event as the stream has it.
    terminal.wait_for("\"host\": \"lender\"", SOON).unwrap();
    // Not both at once: that would be alt and esc.
    terminal.send("esc").unwrap();
    terminal.wait_for("tab violations or TDs", SOON).unwrap();
    terminal.send("esc").unwrap();
    terminal.wait_for("enter open  / filter", SOON).unwrap();
    let events = |terminal: &Terminal| -> Option<u64> {
        let text = terminal.text();
        let words: Vec<_> = text.lines().next()?.split_whitespace().collect();
        words.windows(2).find(|pair| pair[1] == "events")?[0].parse().ok()
    };
    // It lives.
    let before = until("a row", || events(&terminal));
    until("more events", || events(&terminal).filter(|now| *now > before));
    nats.kill();
    let begun = Instant::now();
    terminal.wait_for("nats", SOON).unwrap();
    assert!(terminal.text().contains("lender"), "what was read stays: {}", terminal.text());
    nats.begin();
    let before = until("a row", || events(&terminal));
    until("events of after the server came back", || events(&terminal).filter(|now| *now > before));
    eprintln!("it was back after {:?}", begun.elapsed());
    terminal.send("q").unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(1), "{}", terminal.text());
    assert_eq!(terminal.modes().unwrap(), *terminal.before());
    running.signal(Signal::TERM);
    running.finish().exits(0);
}
