//! Pictures of `septwatch top`, from the real binary: every view of the demo, and what opens in it.

mod svg;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use septwatch_pty::Terminal;

use crate::{build, setup};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the demo runs before the first picture: charts are to have something to show.
const SOME_TIME: Duration = Duration::from_secs(45);
/// Between two keys.
const KEY: Duration = Duration::from_millis(400);
/// A picture must be shown fast, and lie in git.
const LARGEST: usize = 60 << 10;

/// One picture.
struct Shot {
    /// Name of its file.
    name: &'static str,
    /// What it shows.
    title: &'static str,
    /// Keys that lead to it from the one before; what is typed begins with a quotation mark.
    keys: &'static [&'static str],
    /// What is on it then.
    shows: &'static str,
}

const SHOTS: &[Shot] = &[
    Shot { name: "overview", title: "septwatch top: overview", keys: &["1"], shows: "Last violations" },
    Shot { name: "tds", title: "septwatch top: TDs", keys: &["2"], shows: "finalized" },
    Shot { name: "td", title: "septwatch top: a TD", keys: &["enter"], shows: "■■■" },
    Shot { name: "violations", title: "septwatch top: violations", keys: &["3"], shows: "VIOLATION" },
    Shot {
        name: "violation",
        title: "septwatch top: a violation",
        keys: &["f", "\"freed-while-blocked", "enter", "enter"],
        shows: "Life of the frame",
    },
    Shot { name: "seamcalls", title: "septwatch top: SEAMCALLs", keys: &["4"], shows: "latency" },
    Shot { name: "policy", title: "septwatch top: hooks and policy", keys: &["5"], shows: "HOOK" },
    Shot { name: "log", title: "septwatch top: log", keys: &["6"], shows: "WHAT" },
    Shot { name: "help", title: "septwatch top: help", keys: &["?"], shows: "next view" },
];

/// `septwatch top` with these arguments, without the person's own configuration.
pub fn top(septwatch: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(septwatch);
    command.arg("top").args(arguments).env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

/// A recording that is in the tree.
pub fn recording() -> PathBuf {
    tree().join("tests/golden/lab-7.3-zap-failed-remove.swt")
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Makes all pictures.
///
/// # Errors
/// The demo cannot run here, or a view does not come.
pub fn run() -> Result<()> {
    setup::for_building()?;
    setup::for_running()?;
    let septwatch = build::septwatch()?;
    let folder = tree().join("userspace/screens");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    walk(&septwatch, (120, 36), &folder, "", SHOTS)?;
    // As small as a terminal is, unless somebody drags it.
    walk(&septwatch, (80, 24), &folder, "-80x24", &SHOTS[..1])
}

fn walk(septwatch: &Path, size: (u16, u16), folder: &Path, suffix: &str, shots: &[Shot]) -> Result<()> {
    let mut terminal = demo(septwatch, size)?;
    thread::sleep(SOME_TIME);
    for Shot { name, title, keys, shows } in shots {
        for key in *keys {
            match key.strip_prefix('"') {
                Some(text) => terminal.type_text(text)?,
                None => terminal.send(key)?,
            }
            // Nobody types so fast that what comes of a key is not seen.
            thread::sleep(KEY);
        }
        terminal.wait_for(shows, PATIENCE).with_context(|| format!("{name} is not as it should be"))?;
        let picture = svg::picture(&terminal.screen(), title);
        ensure!(picture.len() <= LARGEST, "{name} is {} bytes", picture.len());
        let path = folder.join(format!("{name}{suffix}.svg"));
        fs::write(&path, &picture).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}: {} KiB", path.display(), picture.len().div_ceil(1024));
    }
    terminal.signal(Signal::TERM)?;
    terminal.wait()?;
    Ok(())
}

/// The demo, as soon as nobody else on this host keeps the ledger, once it has found something.
fn demo(septwatch: &Path, size: (u16, u16)) -> Result<Terminal> {
    const HELD: &str = "another septwatch keeps the ledger";
    let start = Instant::now();
    loop {
        let mut command = top(septwatch, &["--demo", "--seed", "7"]);
        command.env("COLORTERM", "truecolor");
        let mut terminal = Terminal::start(command, size.0, size.1)?;
        let held = terminal.until("for a violation", PATIENCE, |output| {
            let text = output.screen().contents();
            // The tab counts them.
            let held = text.contains(HELD);
            (held || text.contains("3 Violations (")).then_some(held)
        })?;
        if !held {
            return Ok(terminal);
        }
        ensure!(start.elapsed() < PATIENCE, "{HELD} of this host");
        thread::sleep(KEY);
    }
}
