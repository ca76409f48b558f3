//! The terminal: taken for the screen, and given back as it was, whatever happens.

use std::{
    env,
    fs::File,
    io::{self, IsTerminal as _, Write},
    panic,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use crossterm::{
    Command, cursor,
    event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste},
    terminal::{self, EnterAlternateScreen, LeaveAlternateScreen},
};
use ratatui::backend::CrosstermBackend;
use rustix::process::{Signal, kill_current_process_group};
use signal_hook::{
    consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    flag,
};

use super::stderr;

/// What the screen is written to: frame by frame, and nothing once the terminal has been given back, such as the half of a
/// frame that a panic left.
pub struct Out {
    bytes: Vec<u8>,
    terminal: File,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = if ON.load(Ordering::SeqCst) { self.terminal.write_all(&self.bytes) } else { Ok(()) };
        self.bytes.clear();
        written
    }
}

/// How long it may take until a stop that was asked for comes.
const STOP: Duration = Duration::from_millis(300);

/// The screen is on: what is to be undone, whoever does it.
static ON: AtomicBool = AtomicBool::new(false);

/// The terminal cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// There is none.
    #[error("{0} is no terminal: --once and --json print what a view shows")]
    None(&'static str),
    /// It can only go on, line after line.
    #[error("a terminal of the kind `dumb` cannot show this: --once and --json print what a view shows")]
    Dumb,
    /// It does not do as it is told.
    #[error("the terminal: {0}")]
    Io(#[from] io::Error),
}

/// The terminal in its state for the screen, until this is dropped: raw, with its other screen, and with the mouse and
/// pastes reported.
pub struct Terminal {
    /// What draws.
    pub screen: ratatui::Terminal<CrosstermBackend<Out>>,
    mouse: bool,
    ended: Arc<AtomicBool>,
    left: Arc<AtomicBool>,
    continued: Arc<AtomicBool>,
}

/// Whether there is a terminal to read keys from and to draw on.
///
/// # Errors
/// [`TerminalError::None`], [`TerminalError::Dumb`]
pub fn check() -> Result<(), TerminalError> {
    let ends =
        [(io::stdin().is_terminal(), "standard input"), (io::stdout().is_terminal(), "standard output")];
    match ends.into_iter().find(|end| !end.0) {
        Some((_, end)) => Err(TerminalError::None(end)),
        None if env::var_os("TERM").is_some_and(|term| term == "dumb") => Err(TerminalError::Dumb),
        None => Ok(()),
    }
}

impl Terminal {
    /// Takes it. From now on, SIGTERM, SIGINT, SIGHUP and SIGQUIT do not end the process: see [`Self::ended`].
    ///
    /// # Errors
    /// See [`TerminalError`].
    pub fn take(mouse: bool) -> Result<Self, TerminalError> {
        check()?;
        let (ended, left, continued) = (Arc::default(), Arc::default(), Arc::default());
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
            // Afterwards, they do what they do to any process.
            flag::register_conditional_default(signal, Arc::clone(&left))?;
            flag::register(signal, Arc::clone(&ended))?;
        }
        flag::register(SIGCONT, Arc::clone(&continued))?;
        hook_panics();
        // Not through the lock of standard output, which others hold.
        let out = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3).map_err(io::Error::from)?;
        let out = Out { bytes: Vec::new(), terminal: File::from(out) };
        let screen = ratatui::Terminal::new(CrosstermBackend::new(out))?;
        let mut terminal = Self { screen, mouse, ended, left, continued };
        terminal.enter()?;
        Ok(terminal)
    }

    /// Whether a signal came to end this.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether the process was stopped and goes on: the terminal is taken anew, and everything is to be drawn.
    ///
    /// # Errors
    /// Of the terminal.
    pub fn continued(&mut self) -> io::Result<bool> {
        if !self.continued.swap(false, Ordering::Relaxed) {
            return Ok(false);
        }
        // A shell has put it into its own state meanwhile; what it was before has been kept all the time.
        terminal::disable_raw_mode()?;
        self.enter()?;
        Ok(true)
    }

    /// Gives the terminal back and stops, as ctrl-z does where nobody takes it; takes it again when somebody continues.
    ///
    /// # Errors
    /// Of the terminal.
    pub fn suspend(&mut self) -> io::Result<()> {
        restore();
        self.continued.store(false, Ordering::Relaxed);
        kill_current_process_group(Signal::TSTP)?;
        // Another thread may be the one that is stopped first. Where nobody could continue, nothing stops at all.
        let begun = Instant::now();
        while !self.continued.load(Ordering::Relaxed) && begun.elapsed() < STOP {
            thread::sleep(Duration::from_millis(5));
        }
        self.continued.store(false, Ordering::Relaxed);
        self.enter()
    }

    /// Clears the screen: the next frame is drawn as a whole.
    ///
    /// # Errors
    /// Of the terminal.
    pub fn clear(&mut self) -> io::Result<()> {
        // Not `clear`, which asks the terminal where the cursor is, and waits for the answer.
        let size = self.screen.size()?;
        self.screen.resize(size.into())
    }

    fn enter(&mut self) -> io::Result<()> {
        // Whatever of it fails, the rest is to be undone.
        ON.store(true, Ordering::SeqCst);
        terminal::enable_raw_mode()?;
        write_out(self.mouse)?;
        self.clear()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
        self.left.store(true, Ordering::Relaxed);
    }
}

/// Clicks, the wheel and what is dragged, but not every motion of the mouse, which would wake us all the time.
struct EnableClicks;

impl Command for EnableClicks {
    fn write_ansi(&self, to: &mut impl std::fmt::Write) -> std::fmt::Result {
        to.write_str("\x1b[?1000h\x1b[?1002h\x1b[?1006h")
    }
}

fn write_out(mouse: bool) -> io::Result<()> {
    let mut bytes = Vec::new();
    crossterm::queue!(bytes, EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)?;
    if mouse {
        crossterm::queue!(bytes, EnableClicks)?;
    }
    to_terminal(&bytes)
}

/// Gives the terminal back as it was; nothing, where it is already.
pub fn restore() {
    if !ON.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut bytes = Vec::new();
    let left = crossterm::queue!(
        bytes,
        terminal::EndSynchronizedUpdate,
        DisableMouseCapture,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        cursor::Show
    );
    // All of it is tried; there is nowhere to complain to.
    let _ = left.and_then(|()| to_terminal(&bytes));
    let _ = terminal::disable_raw_mode();
}

/// Writes at once, past every buffer and lock.
fn to_terminal(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(io::stdout(), bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Copies a text into the clipboard of the terminal (OSC 52).
///
/// # Errors
/// Of the terminal.
pub fn copy(out: &mut impl Write, text: &str) -> io::Result<()> {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(text);
    write!(out, "\x1b]52;c;{text}\x1b\\")?;
    out.flush()
}

/// A panic of the thread that draws ends the screen: the terminal and standard error are given back before it is told. One
/// of another thread is told in the log.
fn hook_panics() {
    static HOOKED: Once = Once::new();
    static DRAWS: std::sync::Mutex<Option<ThreadId>> = std::sync::Mutex::new(None);
    if let Ok(mut draws) = DRAWS.lock() {
        *draws = Some(thread::current().id());
    }
    HOOKED.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let draws = DRAWS.try_lock().is_ok_and(|draws| *draws == Some(thread::current().id()));
            if draws {
                restore();
                stderr::restore();
            }
            next(info);
        }));
    });
}
