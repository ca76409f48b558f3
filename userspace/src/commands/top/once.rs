//! A view without a terminal: as text once, or as JSON.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Args, feed::Feed};
use crate::view::top::{
    json, rows,
    scene::{Phase, Source},
    ui::Ui,
};

/// How often is looked whether there is something.
const LOOK: Duration = Duration::from_millis(20);

/// Prints a view.
///
/// # Errors
/// It cannot be written.
pub fn print(args: &Args, feed: &Feed, out: &mut dyn Write) -> Result<()> {
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
            let mut ui = Ui { view: args.view.unwrap_or_default(), ..Ui::default() };
            rows::arrange(&mut ui, &scene);
            let rows = ui.list(ui.view).rows.clone();
            writeln!(out, "{}", json::view(ui.view, &scene, &rows))?;
            out.flush()?;
            if is_recording || args.once {
                return Ok(());
            }
            next += Duration::from_secs(1);
        }
        thread::sleep(LOOK);
    }
}
