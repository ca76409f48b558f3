//! The program under test in its terminal.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use septwatch_pty::Terminal;
use septwatch_tests::support;
use tempfile::TempDir;

/// How long a screen may take. A machine may be busy.
pub const SOON: Duration = Duration::from_secs(30);

/// A recording of the lab with seven violations: a zap failed, its page was released, and given to another TD.
pub const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/lab-7.3-zap-failed-remove.swt");

/// `septwatch top` under way, in a folder of its own.
pub struct Top {
    pub terminal: Terminal,
    pub folder: TempDir,
}

/// The binary under test.
#[macro_export]
macro_rules! binary {
    () => {
        match septwatch_tests::support::binary() {
            Ok(path) => path,
            Err(why) => septwatch_tests::skip!("{why}"),
        }
    };
}

/// `septwatch top` with these arguments, in a folder where neither configuration nor files are.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(support::binary().unwrap());
    command.arg("top").args(arguments).current_dir(folder);
    command.env("XDG_CONFIG_HOME", folder.join("config"));
    command
}

impl Top {
    /// Starts it.
    pub fn start(arguments: &[&str], (columns, rows): (u16, u16)) -> Self {
        Self::start_as(arguments, (columns, rows), |_| {})
    }

    /// Starts it with something else about the command.
    pub fn start_as(
        arguments: &[&str],
        (columns, rows): (u16, u16),
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(folder.path(), arguments);
        change(&mut command);
        let terminal = Terminal::start(command, columns, rows).unwrap();
        Self { terminal, folder }
    }

    /// On the recording, once it has been read.
    pub fn golden(size: (u16, u16)) -> Self {
        let mut top = Self::start(&[GOLDEN], size);
        top.sees("7 violations");
        top
    }

    /// Presses keys.
    #[track_caller]
    pub fn press(&mut self, keys: &str) -> &mut Self {
        self.terminal.send(keys).unwrap();
        self
    }

    /// Waits for a text.
    #[track_caller]
    pub fn sees(&mut self, words: &str) -> &mut Self {
        self.terminal.wait_for(words, SOON).unwrap();
        self
    }

    /// Waits until a text is gone.
    #[track_caller]
    pub fn misses(&mut self, words: &str) -> &mut Self {
        self.terminal.wait_gone(words, SOON).unwrap();
        self
    }

    /// What is on the screen when nothing more comes.
    #[track_caller]
    pub fn still(&mut self) -> String {
        self.terminal.settled(SOON).unwrap();
        self.terminal.text()
    }

    /// Where it saves its configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config/septwatch/top.toml")
    }

    /// Waits for its end in good order, with this exit code, and with the terminal as it was.
    #[track_caller]
    pub fn ends(&mut self, code: i32) {
        let status = self.terminal.wait().unwrap();
        assert_eq!(status.code(), Some(code), "{status}: {}", self.terminal.text());
        assert_eq!(self.terminal.modes().unwrap(), *self.terminal.before());
        let output = self.terminal.output();
        // Two of crossterm's: the colour of an underline, and an old way to tell of the mouse that is switched off.
        let known = ["CSI  [[59]] m", "CSI ? [[1015]] l"];
        let unknown: Vec<_> = output.unknown().iter().filter(|one| !known.contains(&one.as_str())).collect();
        assert!(unknown.is_empty(), "sequences that few terminals know: {unknown:?}");
        assert_eq!(output.asked(), 0, "it waits for the terminal's answers");
    }
}
