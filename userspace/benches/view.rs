//! How long `septwatch top` takes to draw a frame of a host with 1,000 TDs and 10,000 violations, from its rows to the bytes
//! for the terminal. Prints a line of JSON per size: the slowest view, and its median in ms.

use std::{
    error::Error,
    io,
    time::{Duration, Instant},
};

use ratatui::{Terminal, TerminalOptions, Viewport, backend::CrosstermBackend, layout::Rect};
use septwatch::view::top::{
    draw::{Look, draw},
    filter::Filter,
    fixtures,
    palette::{Depth, Palette, Theme},
    rows,
    symbols::Symbols,
    ui::{Ui, View},
};

/// Frames of each view.
const FRAMES: usize = 100;

/// One thing that can be on the screen.
struct Case {
    name: String,
    ui: Ui,
}

fn main() -> Result<(), Box<dyn Error>> {
    let scene = fixtures::huge();
    let look = Look { palette: Palette::new(Theme::Even, Depth::True), symbols: Symbols::unicode() };
    for (columns, rows) in [(80, 24), (250, 70)] {
        let area = Rect::new(0, 0, columns, rows);
        let viewport = Viewport::Fixed(area);
        let mut terminal =
            Terminal::with_options(CrosstermBackend::new(io::sink()), TerminalOptions { viewport })?;
        let mut slowest = (Duration::ZERO, String::new());
        for mut case in cases(&scene)? {
            let mut times = Vec::with_capacity(FRAMES);
            for _ in 0..FRAMES {
                // Everything is drawn, not only what changed.
                terminal.resize(area)?;
                let start = Instant::now();
                rows::arrange(&mut case.ui, &scene);
                terminal.draw(|frame| draw(frame, &scene, &mut case.ui, &look, &[]))?;
                times.push(start.elapsed());
            }
            times.sort_unstable();
            let median = times[times.len() / 2];
            eprintln!(
                "{columns}x{rows} {}: median {median:.1?}, longest {:.1?}",
                case.name,
                times[FRAMES - 1]
            );
            slowest = slowest.max((median, case.name));
        }
        let (median, name) = slowest;
        println!(
            "{{\"what\":\"frame, 1,000 TDs, 10,000 violations, {columns}x{rows}: {name}\",\"ms\":{}}}",
            median.as_secs_f64() * 1e3
        );
    }
    Ok(())
}

/// Every view, every detail, and a table that is filtered and sorted.
fn cases(scene: &septwatch::view::top::scene::Scene) -> Result<Vec<Case>, Box<dyn Error>> {
    let of = |view: View| Case { name: view.name().to_owned(), ui: Ui { view, ..Ui::default() } };
    let mut cases: Vec<_> = View::ALL.into_iter().map(of).collect();
    for view in [View::Tds, View::Violations] {
        let first = match view {
            View::Tds => scene.tds.first().map(|td| td.id.into()),
            _ => scene.violations.last().map(|found| found.number),
        };
        let mut case = of(view);
        case.ui.open = first;
        case.name += ", one open";
        cases.push(case);
        let mut case = of(view);
        let list = case.ui.list(view);
        list.filter = Filter::parse("name!=nobody", view)?;
        list.sort = Some(("name".to_owned(), false));
        case.name += ", filtered and sorted";
        cases.push(case);
    }
    Ok(cases)
}
