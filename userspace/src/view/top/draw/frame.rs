//! What is around every view: where it comes from, the tabs, and how the screen is divided.

use ratatui::{
    layout::Rect,
    text::{Line, Span},
};

use super::pen::{Pen, below, beside, cells, top, width};
use crate::{
    export::rows::rfc3339,
    view::{
        lines::span,
        top::{
            columns::age,
            scene::{Phase, Scene, Source},
            ui::{Target, Ui, View},
        },
    },
};

/// How the screen is divided.
pub struct Parts {
    /// Where it comes from, and the tabs.
    pub head: Rect,
    /// The view.
    pub body: Rect,
    /// The bar of time; without height where there is none.
    pub time: Rect,
    /// Hints, a prompt, or a word to the person.
    pub foot: Rect,
}

/// Divides the screen.
pub fn parts(area: Rect, scene: &Scene) -> Parts {
    let head = if area.height >= 16 { 2 } else { 1 };
    let foot = u16::from(area.height >= 2);
    let moves = scene.time.travelling || matches!(scene.about.source, Source::Recording(_));
    let time = u16::from(moves && area.height >= 8);
    let rest = below(area, head);
    let tall = rest.height.saturating_sub(foot + time);
    let mut body = top(rest, tall);
    if area.width >= 60 {
        body = Rect { x: body.x + 1, width: body.width - 2, ..body };
    }
    Parts { head: top(area, head), body, time: top(below(rest, tall), time), foot: below(rest, tall + time) }
}

/// The time of day of a moment, in UTC.
pub fn time_of_day(scene: &Scene, monotonic_ns: u64) -> String {
    let text = rfc3339(scene.time.clock.realtime_of(monotonic_ns));
    let begin = text.find('T').map_or(0, |at| at + 1);
    text.get(begin..begin + 8).unwrap_or(&text).to_owned()
}

/// Source and tabs.
pub fn head(pen: &mut Pen, place: Rect, scene: &Scene, ui: &Ui) {
    let state = state(pen, scene, ui);
    if place.height < 2 {
        let used = tabs(pen, place, scene, ui, width(&state).saturating_add(1).min(place.width / 2));
        let (_, right) = beside(place, used, 1);
        return pen.put_right(right, 0, &state);
    }
    let palette = pen.look.palette;
    let mut name = vec![Span::raw(" "), Span::styled("septwatch", palette.accent), Span::raw("  ")];
    for (at, part) in source(scene).into_iter().enumerate() {
        if at > 0 {
            name.push(Span::styled(format!(" {} ", pen.look.symbols.dot), palette.quiet));
        }
        name.push(Span::raw(part));
    }
    let right = width(&state).min(place.width);
    let (left, _) = beside(place, place.width.saturating_sub(right + 2), 2);
    pen.put(left, 0, &Line::from(name));
    let inner = Rect { width: place.width.saturating_sub(1), ..place };
    pen.put_right(inner, 0, &state);
    tabs(pen, below(place, 1), scene, ui, 0);
}

/// What is watched, in parts.
fn source(scene: &Scene) -> Vec<String> {
    let about = &scene.about;
    let mut parts = vec![match &about.source {
        Source::Live if about.hostname.is_empty() => "this host".to_owned(),
        Source::Live => about.hostname.clone(),
        Source::Demo(name) => format!("demo {name}"),
        Source::Recording(name) => format!("recording {name}"),
    }];
    if !about.kernel.is_empty() {
        parts.push(about.kernel.clone());
    }
    if let Some(module) = &about.tdx_module {
        parts.push(format!("TDX module {module}"));
    }
    parts
}

/// Phase, pause, travel and recording, then the time of day.
fn state(pen: &Pen, scene: &Scene, ui: &Ui) -> Line<'static> {
    let (palette, symbols) = (pen.look.palette, &pen.look.symbols);
    let mut spans = Vec::new();
    let mut say = |text: String, style| {
        if !spans.is_empty() {
            spans.push(Span::raw("  "));
        }
        spans.push(Span::styled(text, style));
    };
    if ui.paused {
        say(format!("{} PAUSED", symbols.paused), palette.warn);
    }
    match &scene.about.phase {
        Phase::Starting(doing) => say(format!("starting: {doing}"), palette.warn),
        Phase::Reading(part) => {
            say(format!("reading {}.{} %", part / 10, part % 10), palette.warn);
        }
        Phase::Over(why) => say(format!("over: {why}"), palette.quiet),
        Phase::Running => {}
    }
    let time = &scene.time;
    if time.travelling {
        let back = age(time.end_ns.saturating_sub(time.now_ns));
        say(format!("{} {back} back", symbols.here), palette.warn);
    }
    if scene.about.recording.is_some() {
        say(format!("{} REC", symbols.recording), palette.bad);
    }
    if time.clock.realtime_ns != 0 {
        say(format!("{} UTC", time_of_day(scene, time.now_ns)), palette.quiet);
    }
    Line::from(spans)
}

/// How much of the tabs is written out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    All,
    Short,
    Open,
    None,
}

fn short(view: View) -> &'static str {
    if view == View::Policy { "Policy" } else { view.title() }
}

fn label(view: View, open: View, words: Words) -> &'static str {
    match words {
        Words::All => view.title(),
        Words::Short => short(view),
        Words::Open if view == open => short(view),
        Words::Open | Words::None => "",
    }
}

/// Tabs with their keys, in as many words as there is room for if so many cells are left free; how many cells they take.
fn tabs(pen: &mut Pen, place: Rect, scene: &Scene, ui: &Ui, free: u16) -> u16 {
    let palette = pen.look.palette;
    let found = scene.total();
    let count = |view, words| match view {
        View::Violations if found > 9_999 && words != Words::None => " (>9999)".to_owned(),
        View::Violations if found > 0 && words != Words::None => format!(" ({found})"),
        _ => String::new(),
    };
    let gap = |words| if matches!(words, Words::All | Words::Short) { 2 } else { 1 };
    let one = |view, words| match label(view, ui.view, words) {
        "" => 1,
        label => 2 + cells(label) + cells(&count(view, words)),
    };
    let total = |words| View::ALL.iter().fold(1, |sum, view| sum + one(*view, words) + gap(words));
    let room = place.width.saturating_sub(free);
    let words = [Words::All, Words::Short, Words::Open].into_iter().find(|words| total(*words) <= room);
    let words = words.unwrap_or(Words::None);
    let mut x = 0;
    for (key, view) in (1..).zip(View::ALL) {
        let wide = one(view, words);
        let (_, tab) = beside(place, x, 0);
        let tab = Rect { width: tab.width.min(wide + 2), height: tab.height.min(1), ..tab };
        let open = view == ui.view;
        let key_style = if open { palette.head } else { palette.accent };
        let mut spans = vec![Span::raw(" "), Span::styled(format!("{key}"), key_style)];
        match label(view, ui.view, words) {
            "" => {}
            label => {
                let style = if open { palette.head } else { palette.text };
                spans.push(Span::styled(format!(" {label}"), style));
                spans.push(Span::styled(count(view, words), if open { palette.head } else { palette.bad }));
            }
        }
        spans.push(Span::raw(" "));
        pen.put(tab, 0, &Line::from(spans));
        if open {
            pen.choose(tab, 0);
        }
        pen.targets.push((tab, Target::Tab(view)));
        x += wide + gap(words);
    }
    x + 1
}

/// A span of time with its sign, relative to a moment.
pub fn offset(at_ns: u64, moment_ns: u64) -> String {
    match at_ns.cmp(&moment_ns) {
        std::cmp::Ordering::Less => format!("-{}", short_span(moment_ns - at_ns)),
        std::cmp::Ordering::Equal => "0".to_owned(),
        std::cmp::Ordering::Greater => format!("+{}", short_span(at_ns - moment_ns)),
    }
}

fn short_span(ns: u64) -> String {
    if ns < 100_000_000_000 { span(ns) } else { age(ns) }
}
