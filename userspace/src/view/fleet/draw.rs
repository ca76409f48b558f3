//! The pages.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table, TableState, Wrap},
};

use super::{Page, Reading, Ui};
use crate::{
    fleet::model::{Fleet, Host, Seen, Standing},
    view::top::{
        columns::{age, bytes},
        draw::Look,
        palette::Palette,
    },
};

/// Bytes of a frame.
const FRAME: u64 = 4096;

/// Draws the page that is open. `now_ns`: since 1970.
pub fn draw(frame: &mut Frame, fleet: &Fleet, reading: &Reading, ui: &mut Ui, look: &Look, now_ns: u64) {
    let palette = look.palette;
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)])
            .areas(frame.area());
    if let Page::Host(name, _) | Page::Event(name, ..) = &ui.page
        && !fleet.hosts.contains_key(name)
    {
        ui.page = Page::Hosts;
    }
    frame.render_widget(headline(fleet, reading, palette, now_ns), head);
    let keys = match ui.page.clone() {
        Page::Hosts => {
            hosts(frame, body, fleet, ui, palette, now_ns);
            "enter open  / filter  s order  q leave"
        }
        Page::Host(name, tds) => {
            if let Some(host) = fleet.hosts.get(&name) {
                of_host(frame, body, (&name, host, tds), ui, palette, now_ns);
            }
            "tab violations or TDs  enter open  esc back  q leave"
        }
        Page::Event(name, seq, lines) => {
            event(frame, body, (&name, seq, lines.as_deref()), ui, palette);
            "esc back  q leave"
        }
    };
    let foot_line = match (ui.typing, &reading.trouble) {
        (true, _) => Line::from(vec![Span::styled("filter: ", palette.accent), Span::raw(ui.filter.clone())]),
        (false, Some(trouble)) => Line::styled(trouble.clone(), palette.warn),
        (false, None) => Line::styled(keys, palette.quiet),
    };
    frame.render_widget(foot_line, foot);
}

fn headline(fleet: &Fleet, reading: &Reading, palette: Palette, now_ns: u64) -> Line<'static> {
    let (mut violated, mut violations, mut events) = (0, 0, 0u64);
    for host in fleet.hosts.values() {
        violated += u64::from(host.standing(now_ns) == Standing::Violated);
        violations += host.found();
        events += host.events;
    }
    let style = if violated == 0 { palette.good } else { palette.bad };
    let mut spans = vec![
        Span::styled("septwatch fleet", palette.head),
        Span::raw(format!("  {} hosts  ", fleet.hosts.len())),
        Span::styled(format!("{violated} violated"), style),
        Span::styled(format!("  {violations} violations  {events} events"), palette.quiet),
    ];
    if fleet.foreign != 0 {
        spans.push(Span::styled(format!("  {} foreign messages", fleet.foreign), palette.warn));
    }
    if !reading.caught_up {
        spans.push(Span::styled("  reading what was before", palette.accent));
    }
    Line::from(spans)
}

/// How a standing looks.
const fn style(standing: Standing, palette: Palette) -> Style {
    match standing {
        Standing::Violated => palette.bad,
        Standing::Suspect | Standing::Silent | Standing::Lossy | Standing::Degraded => palette.warn,
        Standing::Ended => palette.quiet,
        Standing::Good => palette.good,
    }
}

/// How long ago something was.
fn ago(now_ns: u64, then_ns: Option<u64>) -> String {
    then_ns.filter(|ns| *ns != 0).map_or_else(|| "-".to_owned(), |then| age(now_ns.saturating_sub(then)))
}

/// Only the rows that fit are made.
fn seen<T>(all: impl Iterator<Item = T>, top: usize, fit: usize) -> impl Iterator<Item = T> {
    all.skip(top).take(fit)
}

/// Keeps what is chosen within bounds; the first row that is shown.
fn bound(ui: &mut Ui, at: usize, rows: usize, fit: usize) -> usize {
    if at == ui.at() {
        (ui.rows, ui.fit) = (rows, fit);
    }
    ui.chosen[at] = ui.chosen[at].min(rows.saturating_sub(1));
    let page = fit.max(1);
    (ui.chosen[at] / page * page).min(rows.saturating_sub(fit))
}

fn table<'a>(
    frame: &mut Frame,
    place: Rect,
    titles: &'static [&'static str],
    widths: &[Constraint],
    rows: impl Iterator<Item = Row<'a>>,
    chosen: Option<usize>,
    palette: Palette,
) {
    let head = Row::new(titles.iter().map(|title| Cell::from(*title))).style(palette.quiet);
    let table = Table::new(rows, widths.to_vec()).header(head).row_highlight_style(palette.chosen);
    frame.render_stateful_widget(table, place, &mut TableState::new().with_selected(chosen));
}

fn hosts(frame: &mut Frame, place: Rect, fleet: &Fleet, ui: &mut Ui, palette: Palette, now_ns: u64) {
    let shown = ui.hosts(fleet, now_ns);
    let fit = usize::from(place.height.saturating_sub(2));
    let top = bound(ui, 0, shown.len(), fit);
    let filter = if ui.filter.is_empty() { String::new() } else { format!("  filter {}", ui.filter) };
    let title = format!("hosts, {}{filter}  {} of {}", ui.order.name(), shown.len(), fleet.hosts.len());
    let [title_place, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(place);
    frame.render_widget(Line::styled(title, palette.head), title_place);
    let row = |(name, host, standing): (&str, &Host, Standing)| {
        let state = host.state.as_ref();
        let found = if host.found() == 0 { palette.quiet } else { style(standing, palette) };
        let lost = host.missing() + state.map_or(0, |state| state.vital_records.lost);
        Row::new([
            Cell::from(name.to_owned()),
            Cell::from(standing.name()).style(style(standing, palette)),
            Cell::from(host.found().to_string()).style(found),
            Cell::from(host.recent.back().map_or("-", |seen| seen.violation.name())).style(found),
            Cell::from(ago(now_ns, host.recent.back().map(|seen| seen.wall_ns))),
            Cell::from(state.map_or(0, |state| state.tds.values().sum::<u64>()).to_string()),
            Cell::from(
                state.map_or_else(|| "-".to_owned(), |state| bytes(state.lent_frames.saturating_mul(FRAME))),
            ),
            Cell::from(host.events.to_string()).style(palette.quiet),
            Cell::from(lost.to_string()).style(if lost == 0 { palette.quiet } else { palette.warn }),
            Cell::from(ago(now_ns, state.map(|state| state.wall_ns))).style(palette.quiet),
        ])
    };
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(23),
        Constraint::Length(7),
        Constraint::Length(5),
        Constraint::Length(9),
        Constraint::Length(10),
        Constraint::Length(6),
        Constraint::Length(6),
    ];
    const TITLES: &[&str] =
        &["host", "is", "violations", "the last", "ago", "TDs", "lent", "events", "lost", "heard"];
    let chosen = (!shown.is_empty()).then(|| ui.chosen[0] - top);
    table(frame, rest, TITLES, &widths, seen(shown.into_iter(), top, fit).map(row), chosen, palette);
}

fn of_host(
    frame: &mut Frame,
    place: Rect,
    (name, host, tds): (&str, &Host, bool),
    ui: &mut Ui,
    palette: Palette,
    now_ns: u64,
) {
    let about = about(name, host, palette, now_ns);
    let lines = u16::try_from(about.len()).unwrap_or(u16::MAX);
    let [head, first, second] =
        Layout::vertical([Constraint::Length(lines), Constraint::Fill(1), Constraint::Fill(1)]).areas(place);
    frame.render_widget(Paragraph::new(about), head);
    violations(frame, first, host, !tds, ui, palette, now_ns);
    of_tds(frame, second, host, tds, ui, palette);
}

fn about(name: &str, host: &Host, palette: Palette, now_ns: u64) -> Vec<Line<'static>> {
    let standing = host.standing(now_ns);
    let mut lines = vec![Line::from(vec![
        Span::styled(name.to_owned(), palette.head),
        Span::raw("  "),
        Span::styled(standing.name(), style(standing, palette)),
    ])];
    let counted = format!(
        "{} violations ({} suspect), {} reactions, {} events, {} missing",
        host.found(),
        host.suspect,
        host.reactions,
        host.events,
        host.missing()
    );
    lines.push(Line::from(counted));
    let Some(state) = &host.state else {
        lines.push(Line::styled("it never said how it stands", palette.warn));
        return lines;
    };
    let policy = match &state.policy {
        None => "no policy".to_owned(),
        Some(policy) => {
            let gaps = if policy.gaps == 0 { String::new() } else { format!(", {} gaps", policy.gaps) };
            format!("policy {} {}{gaps}", policy.name, if policy.armed { "armed" } else { "as a dry run" })
        }
    };
    let module = state.tdx_module.as_deref().unwrap_or("unknown");
    lines.push(Line::from(format!(
        "Linux {}, TDX module {module}, septwatch {} ({}); {policy}; heard {} ago",
        state.kernel,
        state.version,
        state.source,
        ago(now_ns, Some(state.wall_ns))
    )));
    if state.held_frames != 0 {
        lines.push(Line::styled(
            format!("{} held", bytes(state.held_frames.saturating_mul(FRAME))),
            palette.warn,
        ));
    }
    if !state.hooks_missing.is_empty() {
        lines.push(Line::styled(format!("missing hooks: {}", state.hooks_missing.join(", ")), palette.warn));
    }
    let lost = state.outputs.iter().filter(|(_, output)| output.lost != 0);
    for (output, counts) in lost {
        lines.push(Line::styled(format!("output {output} lost {} events", counts.lost), palette.warn));
    }
    lines
}

fn violations(
    frame: &mut Frame,
    place: Rect,
    host: &Host,
    has_keys: bool,
    ui: &mut Ui,
    palette: Palette,
    now_ns: u64,
) {
    let fit = usize::from(place.height.saturating_sub(1));
    let top = bound(ui, 1, host.recent.len(), fit);
    let hex = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:#x}"));
    let row = |seen: &Seen| {
        Row::new([
            Cell::from(ago(now_ns, Some(seen.wall_ns))),
            Cell::from(seen.violation.name()).style(if seen.suspect { palette.warn } else { palette.bad }),
            Cell::from(if seen.suspect { "suspect" } else { "certain" }),
            Cell::from(seen.td.map_or_else(|| "-".to_owned(), |td| td.to_string())),
            Cell::from(hex(seen.pfn)),
            Cell::from(hex(seen.gfn)),
            Cell::from(seen.comm.clone()),
        ])
    };
    let widths = [
        Constraint::Length(8),
        Constraint::Length(24),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Fill(1),
    ];
    const TITLES: &[&str] = &["ago", "violation", "confidence", "TD", "pfn", "gfn", "comm"];
    let chosen = (has_keys && !host.recent.is_empty()).then(|| ui.chosen[1] - top);
    table(frame, place, TITLES, &widths, seen(host.recent.iter().rev(), top, fit).map(row), chosen, palette);
}

fn of_tds(frame: &mut Frame, place: Rect, host: &Host, has_keys: bool, ui: &mut Ui, palette: Palette) {
    let rows = host.state.as_ref().map_or(&[][..], |state| &state.rows);
    let fit = usize::from(place.height.saturating_sub(1));
    let top = bound(ui, 2, rows.len(), fit);
    let widths = [
        Constraint::Length(8),
        Constraint::Length(17),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(11),
        Constraint::Fill(1),
    ];
    let row = |td: &crate::fleet::envelope::TdState| {
        Row::new([
            Cell::from(td.td.to_string()),
            Cell::from(td.comm.clone()),
            Cell::from(bytes(td.lent_frames.saturating_mul(FRAME))),
            Cell::from(bytes(td.held_frames.saturating_mul(FRAME))),
            Cell::from(td.violations.to_string()).style(if td.violations == 0 {
                palette.quiet
            } else {
                palette.bad
            }),
            Cell::from(if td.suspect { "suspect" } else { "certain" }),
        ])
    };
    const TITLES: &[&str] = &["TD", "comm", "lent", "held", "violations", "confidence"];
    let chosen = (has_keys && !rows.is_empty()).then(|| ui.chosen[2] - top);
    table(frame, place, TITLES, &widths, seen(rows.iter(), top, fit).map(row), chosen, palette);
}

fn event(
    frame: &mut Frame,
    place: Rect,
    (name, seq, lines): (&str, u64, Option<&[String]>),
    ui: &mut Ui,
    palette: Palette,
) {
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(place);
    frame.render_widget(Line::styled(format!("{name}: message {seq} of the stream"), palette.head), head);
    let Some(lines) = lines else {
        return frame.render_widget(Line::styled("it is being fetched", palette.quiet), body);
    };
    let fit = usize::from(body.height);
    (ui.rows, ui.fit) = (lines.len().saturating_sub(fit) + 1, fit);
    ui.chosen[3] = ui.chosen[3].min(ui.rows - 1);
    let shown: Vec<_> =
        lines.iter().skip(ui.chosen[3]).take(fit).map(|line| Line::from(line.as_str())).collect();
    frame.render_widget(Paragraph::new(shown).wrap(Wrap { trim: false }), body);
}
