//! A view without a terminal: as text, or as JSON.

use std::{
    env, io,
    io::Write,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use ratatui::{Terminal, backend::TestBackend};

use super::{Args, feed::Feed, screen::picture::Picture};
use crate::view::top::{
    config::Config,
    draw, json, rows,
    scene::{Phase, Scene, Source},
    ui::Ui,
};

/// How often is looked whether there is something.
const LOOK: Duration = Duration::from_millis(20);
/// Columns of the text, unless COLUMNS says otherwise.
const COLUMNS: u16 = 120;
/// Most columns and rows of it.
const MOST: u16 = 2000;
/// Rows beside those of a table.
const BESIDE: usize = 30;

/// Prints a view.
///
/// # Errors
/// It cannot be written.
pub fn print(args: &Args, config: &Config, feed: &Feed, out: &mut dyn Write) -> Result<()> {
    let begun = Instant::now();
    let mut next = args.after;
    loop {
        if feed.has_ended() {
            return Ok(());
        }
        let scene = feed.latest();
        let is_recording = matches!(scene.about.source, Source::Recording(_));
        let is_there = scene.about.phase == Phase::Running;
        if is_there && (is_recording || begun.elapsed() >= next) {
            let mut ui = config.ui();
            rows::arrange(&mut ui, &scene);
            if args.json {
                let rows = ui.list(ui.view).rows.clone();
                writeln!(out, "{}", json::view(ui.view, &scene, &rows))?;
            } else {
                text(&scene, ui, config, out)?;
            }
            out.flush()?;
            if is_recording || args.once {
                return Ok(());
            }
            next += Duration::from_secs(1);
        }
        thread::sleep(LOOK);
    }
}

/// The view as it would be drawn on a screen that is high enough, without colours.
fn text(scene: &Scene, mut ui: Ui, config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let columns = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let columns = columns.filter(|columns| (1..=MOST).contains(columns)).unwrap_or(COLUMNS);
    let rows = ui.list(ui.view).rows.len().saturating_add(BESIDE).min(MOST.into());
    let picture = Picture::new(config, |name| env::var(name).ok());
    let backend = TestBackend::new(columns, rows as u16);
    let Ok(mut terminal) = Terminal::new(backend);
    let Ok(_) = terminal.draw(|frame| draw::draw(frame, scene, &mut ui, &picture.look, &[]));
    let buffer = terminal.backend().buffer();
    let lines: Vec<String> = buffer.content.chunks(columns.into()).map(line).collect();
    let last = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    lines[..last].iter().try_for_each(|line| writeln!(out, "{line}"))
}

/// A row of cells, without what is blank at its end.
fn line(cells: &[ratatui::buffer::Cell]) -> String {
    let mut line = String::new();
    let mut covered = 0;
    for cell in cells {
        // A wide character covers the cell behind it.
        if covered > 0 {
            covered -= 1;
            continue;
        }
        covered = ratatui::text::Span::raw(cell.symbol()).width().saturating_sub(1);
        line += cell.symbol();
    }
    line.truncate(line.trim_end().len());
    line
}
