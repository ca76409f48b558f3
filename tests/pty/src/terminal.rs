//! The terminal.

use std::{
    io::{Read as _, Write as _},
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use pty_process::{
    Size,
    blocking::{self, Pts, Pty},
};
use rustix::process::{Pid, Signal, kill_process};
use vt100::Screen;

use crate::{Modes, Mouse, Output, PtyError, Result, bytes, system};

/// How often something that must happen is looked for.
const LOOK: Duration = Duration::from_millis(1);
/// How long it is quiet when nothing more comes.
const QUIET: Duration = Duration::from_millis(150);
/// How long a program may take to end.
const END: Duration = Duration::from_secs(60);

/// A program in a terminal. Dropping it kills the program.
pub struct Terminal {
    command: String,
    child: Child,
    pty: Arc<Pty>,
    /// Kept open, so that the terminal is still there when the program has ended.
    pts: Option<Pts>,
    output: Arc<Mutex<Output>>,
    reader: Option<JoinHandle<()>>,
    before: Modes,
}

impl Terminal {
    /// Starts a program in a terminal of its own, of xterm's kind with 256 colours and UTF-8, unless the command says
    /// otherwise. Its standard error is the terminal too.
    ///
    /// # Errors
    /// There is no terminal, or no such program.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        let told = format!("{command:?}");
        let own: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
        for (name, value) in [("TERM", "xterm-256color"), ("LC_ALL", "C.UTF-8")] {
            if !own.iter().any(|one| one == name) {
                command.env(name, value);
            }
        }
        // The person's own settings must not change what is drawn.
        for name in ["NO_COLOR", "COLORTERM", "LINES", "COLUMNS"] {
            if !own.iter().any(|one| one == name) {
                command.env_remove(name);
            }
        }
        let no_terminal = |error: pty_process::Error| system("no pseudo-terminal")(as_io(error));
        let (pty, pts) = blocking::open().map_err(no_terminal)?;
        pty.resize(Size::new(rows, columns)).map_err(no_terminal)?;
        let pty = Arc::new(pty);
        let output = Arc::new(Mutex::new(Output::new(columns, rows)));
        let before = Modes::of(&pts, lock(&output).screen())?;
        let reader = thread::Builder::new().name("terminal".to_owned());
        let reader = reader.spawn({
            let (pty, output) = (Arc::clone(&pty), Arc::clone(&output));
            move || read(&pty, &output)
        });
        let reader = reader.map_err(system("no thread"))?;
        lock(&output).begin(Instant::now());
        let child = blocking::Command::from(command).spawn_borrowed(&pts);
        let child = child.map_err(|error| system(told.as_str())(as_io(error)))?;
        Ok(Self { command: told, child, pty, pts: Some(pts), output, reader: Some(reader), before })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What was written so far. The terminal reads nothing more as long as this is held.
    pub fn output(&self) -> MutexGuard<'_, Output> {
        lock(&self.output)
    }

    /// What is on the screen.
    pub fn screen(&self) -> Screen {
        self.output().screen().clone()
    }

    /// The screen as text: a line for each row, without spaces at their ends.
    pub fn text(&self) -> String {
        text(self.output().screen())
    }

    /// Where a text stands: column and row of its first cell.
    pub fn find(&self, text: &str) -> Option<(u16, u16)> {
        let output = self.output();
        let screen = output.screen();
        let columns = screen.size().1.get();
        screen.rows(0, columns).enumerate().find_map(|(row, line)| {
            let before = line.get(..line.find(text)?)?.chars().count();
            Some((u16::try_from(before).ok()?, u16::try_from(row).ok()?))
        })
    }

    /// Presses keys, by their names: see [`bytes`].
    ///
    /// # Errors
    /// No such key.
    pub fn send(&self, keys: &str) -> Result<()> {
        self.write(&bytes(keys)?)
    }

    /// Types a text.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn type_text(&self, text: &str) -> Result<()> {
        self.write(text.as_bytes())
    }

    /// Pastes a text, with marks around it.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn paste(&self, text: &str) -> Result<()> {
        self.write(format!("\x1b[200~{text}\x1b[201~").as_bytes())
    }

    /// Does something with the mouse at a cell, counted from 0.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn mouse(&self, mouse: Mouse, column: u16, row: u16) -> Result<()> {
        self.write(&mouse.bytes(column, row))
    }

    /// Writes to the terminal as another program would that has it too.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn scribble(&self, text: &str) -> Result<()> {
        let Some(pts) = &self.pts else { return Ok(()) };
        rustix::io::write(pts, text.as_bytes()).map(drop).map_err(system("the terminal cannot be written to"))
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        (&*self.pty).write_all(bytes).map_err(system("the terminal cannot be written to"))
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let mut output = self.output();
        output.resize(columns, rows);
        self.pty.resize(Size::new(rows, columns)).map_err(|error| system("no other size")(as_io(error)))
    }

    /// Waits until something is so, and returns it.
    ///
    /// # Errors
    /// It is late.
    pub fn until<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&Output) -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        let mut gone = None;
        loop {
            // Looked at before, as it may write more before it ends.
            let ended = self.child.try_wait().map_err(system("cannot wait for it"))?;
            if let Some(found) = look(&self.output()) {
                return Ok(found);
            }
            if ended.is_some() {
                gone.get_or_insert_with(Instant::now);
            }
            // What it wrote last may still be on its way.
            let last = gone.map(|gone| gone.max(self.output().last_byte));
            if start.elapsed() >= within || last.is_some_and(|last| last.elapsed() >= QUIET) {
                return Err(PtyError::Late {
                    command: self.command.clone(),
                    what: what.to_owned(),
                    waited: start.elapsed(),
                    ended: ended.map(|status| status.to_string()),
                    screen: framed(self.output().screen()),
                });
            }
            thread::sleep(LOOK);
        }
    }

    /// Waits until a text is on the screen, in a complete frame.
    ///
    /// # Errors
    /// It is late.
    pub fn wait_for(&mut self, words: &str, within: Duration) -> Result<()> {
        self.until(&format!("for {words:?}"), within, |output| {
            (!output.frames().open && text(output.screen()).contains(words)).then_some(())
        })
    }

    /// Waits until a text is not on the screen any more.
    ///
    /// # Errors
    /// It is late.
    pub fn wait_gone(&mut self, words: &str, within: Duration) -> Result<()> {
        self.until(&format!("for {words:?} to go"), within, |output| {
            (!output.frames().open && !text(output.screen()).contains(words)).then_some(())
        })
    }

    /// Waits until nothing more is written: for a screen that stands still.
    ///
    /// # Errors
    /// It never stands still.
    pub fn settled(&mut self, within: Duration) -> Result<()> {
        let asked = Instant::now();
        self.until("for it to stand still", within, |output| {
            let quiet = output.last_byte.max(asked).elapsed() >= QUIET;
            (quiet && !output.frames().open).then_some(())
        })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended and been waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).map_err(system(format!("{signal:?}")))
    }

    /// Waits for the program's end, and for everything that it wrote.
    ///
    /// # Errors
    /// It does not end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().map_err(system("cannot wait for it"))? {
                let gone = Instant::now();
                while self.output().last_byte.max(gone).elapsed() < QUIET {
                    thread::sleep(LOOK);
                }
                return Ok(status);
            }
            if start.elapsed() >= END {
                return Err(PtyError::Late {
                    command: self.command.clone(),
                    what: "for its end".to_owned(),
                    waited: start.elapsed(),
                    ended: None,
                    screen: framed(self.output().screen()),
                });
            }
            thread::sleep(LOOK);
        }
    }

    /// The state of the terminal before the program was started.
    pub fn before(&self) -> &Modes {
        &self.before
    }

    /// Its state now.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn modes(&self) -> Result<Modes> {
        match &self.pts {
            Some(pts) => Modes::of(pts, self.output().screen()),
            None => Ok(self.before.clone()),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Without its other end, the reader ends, unless the program's children hold it.
        drop(self.pts.take());
        drop(self.reader.take());
    }
}

fn lock(output: &Mutex<Output>) -> MutexGuard<'_, Output> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

fn as_io(error: pty_process::Error) -> std::io::Error {
    match error {
        pty_process::Error::Io(error) => error,
        pty_process::Error::Rustix(error) => error.into(),
    }
}

fn read(pty: &Pty, output: &Mutex<Output>) {
    let mut chunk = vec![0; 1 << 16];
    let mut pty = pty;
    // An error: nobody has the other end any more.
    while let Ok(count @ 1..) = pty.read(&mut chunk) {
        let answer = lock(output).received(chunk.get(..count).unwrap_or_default());
        // Where it cannot be written, nobody waits for it any more.
        let _ = pty.write_all(&answer);
    }
}

fn text(screen: &Screen) -> String {
    let columns = screen.size().1.get();
    screen.rows(0, columns).map(|row| row.trim_end().to_owned() + "\n").collect()
}

/// The screen with a frame around it, for messages.
fn framed(screen: &Screen) -> String {
    let columns = usize::from(screen.size().1.get());
    let edge = format!("+{}+", "-".repeat(columns));
    let rows: String = text(screen).lines().map(|line| format!("|{line:<columns$}|\n")).collect();
    format!("{edge}\n{rows}{edge}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Terminal {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Terminal::start(command, 40, 8).unwrap()
    }

    #[test]
    fn what_is_written_is_on_the_screen_and_keys_arrive() {
        let mut terminal =
            shell("echo ready; read word; printf '\\033[31m%s' \"got $word\"; stty size; exit 3");
        terminal.wait_for("ready", SOON).unwrap();
        terminal.resize(60, 9).unwrap();
        terminal.send("a b enter").unwrap();
        assert_eq!(terminal.wait().unwrap().code(), Some(3));
        assert_eq!(terminal.text().lines().nth(2).unwrap(), "got ab9 60");
        assert_eq!(terminal.find("got"), Some((0, 2)));
        assert_eq!(terminal.screen().cell(2, 0).unwrap().fgcolor(), vt100::Color::Idx(1));
        assert!(terminal.modes().unwrap().attributes);
        assert!(terminal.output().first_byte.is_some());
    }

    #[test]
    fn a_late_text_is_an_error_that_shows_the_screen() {
        let mut terminal = shell("echo here; exec sleep 60");
        terminal.wait_for("here", SOON).unwrap();
        let error = terminal.wait_for("there", Duration::from_millis(10)).unwrap_err();
        assert!(format!("{error:?}").contains("|here    "), "{error:?}");
        let mut terminal = shell("echo bye");
        let error = terminal.wait_for("there", SOON).unwrap_err();
        assert!(format!("{error:?}").contains("it has ended"), "{error:?}");
    }

    #[test]
    fn a_terminal_that_is_not_given_back_is_seen() {
        for (left, spoils) in [
            ("true", false),
            ("stty raw -echo", true),
            ("stty intr ^B", true),
            ("was=$(stty -g); stty raw; stty $was; printf '\\033[?1049h\\033[?1049l'", false),
            ("printf '\\033[?1049h'", true),
            ("printf '\\033[?25l'", true),
            ("printf '\\033[?2004h'", true),
            ("printf '\\033[?1002h'", true),
            ("printf '\\033[1m'", true),
        ] {
            let mut terminal = shell(left);
            terminal.wait().unwrap();
            assert_eq!(terminal.modes().unwrap() != *terminal.before(), spoils, "{left}");
        }
    }
}
