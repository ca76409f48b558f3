//! The screen: shows what comes, and does what a person says, until somebody leaves.

pub mod picture;
mod turn;

use std::{
    env, fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use crossterm::{
    event,
    terminal::{BeginSynchronizedUpdate, EndSynchronizedUpdate},
};
use picture::Picture;
use turn::Turn;

use super::terminal::{self, Terminal, TerminalError};
use crate::view::top::{
    act::Effect,
    config::{self, Config},
    draw,
    scene::{Ask, Scene},
    ui::Ui,
};

/// Most events of one turn: whoever leans on a key sees what comes of it meanwhile.
const AT_ONCE: usize = 256;

/// Where scenes come from.
pub trait Feed {
    /// The latest. As long as nothing changed, the same one.
    fn latest(&self) -> Arc<Scene>;

    /// A person wants something of the source. What comes of it is in a later scene.
    fn ask(&self, ask: Ask);

    /// Whether the screen is to be left, because there is nothing to show and there will not be.
    fn ended(&self) -> bool;
}

/// The screen had to be left.
#[derive(Debug, thiserror::Error)]
pub enum ScreenError {
    /// There is no terminal, or none that can be used.
    #[error(transparent)]
    Terminal(#[from] TerminalError),
    /// It is gone.
    #[error("the terminal: {0}")]
    Io(#[from] io::Error),
}

/// Shows what comes until a person, a signal or the feed ends it. The first frame is drawn at once, with whatever the feed
/// has. `file` is where the layout is saved.
///
/// # Errors
/// See [`ScreenError`]. The terminal is as it was before.
pub fn show(feed: &dyn Feed, ui: Ui, config: &Config, file: Option<&Path>) -> Result<(), ScreenError> {
    let mut picture = Picture::new(config, |name| env::var(name).ok());
    let mut terminal = Terminal::take(config.mouse)?;
    let mut turn = Turn::new(feed, ui, config, Instant::now());
    while !terminal.ended() {
        if terminal.continued()? {
            turn.changed();
        }
        turn.refresh(Instant::now());
        if turn.is_over() {
            break;
        }
        if turn.is_due(Instant::now()) {
            draw(&mut terminal, &mut turn, &picture)?;
            turn.drawn(Instant::now());
        }
        let mut wait = turn.wait(Instant::now());
        for _ in 0..AT_ONCE {
            if !event::poll(wait)? {
                break;
            }
            wait = std::time::Duration::ZERO;
            let effect = turn.event(event::read()?);
            carry_out(effect, &mut terminal, &mut turn, &mut picture, file)?;
        }
    }
    Ok(())
}

fn draw(terminal: &mut Terminal, turn: &mut Turn<'_>, picture: &Picture) -> io::Result<()> {
    let screen = &mut terminal.screen;
    crossterm::queue!(screen.backend_mut(), BeginSynchronizedUpdate)?;
    let (scene, keys) = turn.arrange();
    screen.draw(|frame| draw::draw(frame, &scene, &mut turn.ui, &picture.look, &keys))?;
    crossterm::queue!(screen.backend_mut(), EndSynchronizedUpdate)?;
    screen.backend_mut().flush()
}

fn carry_out(
    effect: Effect,
    terminal: &mut Terminal,
    turn: &mut Turn<'_>,
    picture: &mut Picture,
    file: Option<&Path>,
) -> io::Result<()> {
    match effect {
        Effect::None => {}
        Effect::Copy(found) => {
            let text = draw::violation::report(&found, turn.scene());
            terminal::copy(terminal.screen.backend_mut(), &text)?;
            turn.ui.tell(format!("copied, if the terminal takes it: report of violation {}", found.number));
        }
        Effect::Save(found) => {
            let text = draw::violation::report(&found, turn.scene());
            let told = match save(Path::new("."), found.number, &text) {
                Ok(path) => format!("saved: {}", path.display()),
                Err(error) => format!("not saved: {error}"),
            };
            turn.ui.tell(told);
        }
        Effect::Suspend => terminal.suspend()?,
        Effect::Redraw => terminal.clear()?,
        Effect::SaveLayout => {
            let told = match file {
                None => "not saved: neither XDG_CONFIG_HOME nor HOME says where to".to_owned(),
                Some(file) => match config::save(file, &turn.ui, picture.chosen) {
                    Ok(()) => format!("saved: {}", file.display()),
                    Err(error) => error.to_string(),
                },
            };
            turn.ui.tell(told);
        }
        Effect::Theme => {
            picture.next_theme();
            turn.ui.tell(format!("theme {}", config::theme_name(picture.theme)));
        }
    }
    Ok(())
}

/// Writes a report into a new file, for its owner alone.
fn save(folder: &Path, number: u64, text: &str) -> io::Result<PathBuf> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    for copy in 1..100 {
        let copy = if copy == 1 { String::new() } else { format!("-{copy}") };
        let path = folder.join(format!("septwatch-violation-{number}{copy}.txt"));
        match options.open(&path) {
            Ok(mut file) => return file.write_all(text.as_bytes()).map(|()| path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

    use super::*;

    #[test]
    fn a_report_is_never_written_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let first = save(folder.path(), 7, "one").unwrap();
        let second = save(folder.path(), 7, "two").unwrap();
        assert_eq!(first, folder.path().join("septwatch-violation-7.txt"));
        assert_eq!(second, folder.path().join("septwatch-violation-7-2.txt"));
        assert_eq!(fs::read_to_string(first).unwrap(), "one");
        assert!(save(&folder.path().join("none"), 7, "").is_err());
    }
}
