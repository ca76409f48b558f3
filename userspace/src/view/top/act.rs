//! What comes of a key or of a click.

mod mouse;
mod prompt;
mod travel;

pub use mouse::mouse;
pub use prompt::{pasted, typed};

use std::sync::Arc;

use crossterm::event::KeyEvent;

use crate::view::top::{
    columns::{Kind, kind},
    keys::{Action, Key, KeyMap},
    rows::{self, Hit, Item},
    scene::{Ask, Found, Scene, Source, Weight},
    ui::{Input, Purpose, Ui, View},
};

/// What is to be done outside of the screen.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Nothing.
    None,
    /// Copy this violation's report to the terminal's clipboard.
    Copy(Arc<Found>),
    /// Save it into a file.
    Save(Arc<Found>),
    /// Give the terminal back to the shell until somebody continues.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Save what is chosen into the configuration file.
    SaveLayout,
    /// Take the next theme.
    Theme,
}

/// A key was pressed: it goes into the line that is typed, or does what the key map says.
pub fn key(ui: &mut Ui, scene: &Scene, map: &KeyMap, event: KeyEvent) -> Effect {
    ui.told = None;
    if ui.input.is_some() {
        return typed(ui, scene, event);
    }
    map.action(Key::from(event)).map_or(Effect::None, |action| act(ui, scene, action))
}

/// Does it.
pub fn act(ui: &mut Ui, scene: &Scene, action: Action) -> Effect {
    match action {
        Action::Quit => ui.quit = true,
        Action::Help => help(ui, !ui.help),
        Action::Redraw => return Effect::Redraw,
        Action::Suspend => return Effect::Suspend,
        Action::Theme => return Effect::Theme,
        Action::SaveLayout => return Effect::SaveLayout,
        Action::Up | Action::Down | Action::PageUp | Action::PageDown | Action::First | Action::Last => {
            along(ui, scene, action);
        }
        Action::Close => close(ui, scene),
        // Whoever tries what the help says wants to see what comes of it.
        _ => {
            help(ui, false);
            return more(ui, scene, action);
        }
    }
    Effect::None
}

fn more(ui: &mut Ui, scene: &Scene, action: Action) -> Effect {
    match action {
        Action::Overview => switch(ui, View::Overview),
        Action::Tds => switch(ui, View::Tds),
        Action::Violations => switch(ui, View::Violations),
        Action::Seamcalls => switch(ui, View::Seamcalls),
        Action::Policy => switch(ui, View::Policy),
        Action::Log => switch(ui, View::Log),
        Action::NextView => switch(ui, neighbour(ui.view, 1)),
        Action::PreviousView => switch(ui, neighbour(ui.view, View::ALL.len() - 1)),
        Action::Open => open(ui, scene),
        Action::Filter | Action::Search => find(ui, action),
        Action::SearchNext => again(ui, scene, true),
        Action::SearchPrevious => again(ui, scene, false),
        Action::SortNext => sort_neighbour(ui, scene, true),
        Action::SortPrevious => sort_neighbour(ui, scene, false),
        Action::Reverse => reverse(ui, scene),
        Action::Record => record(ui, scene),
        Action::Arm => arm(ui, scene),
        Action::Disarm => disarm(ui, scene),
        Action::Copy | Action::Save => match violation(ui, scene) {
            Some(found) if action == Action::Copy => return Effect::Copy(found),
            Some(found) => return Effect::Save(found),
            None => ui.tell("choose a violation first (view 3): it is its report that is copied or saved"),
        },
        action => travel::travel(ui, scene, action),
    }
    Effect::None
}

fn help(ui: &mut Ui, on: bool) {
    if ui.help != on {
        ui.help = on;
        ui.scroll = 0;
    }
}

/// Through the rows, or through the lines of what has no rows.
fn along(ui: &mut Ui, scene: &Scene, action: Action) {
    if ui.help || ui.open.is_some() || !ui.view.has_table() {
        const PAGE: u16 = 10;
        ui.scroll = match action {
            Action::Up => ui.scroll.saturating_sub(1),
            Action::Down => ui.scroll.saturating_add(1),
            Action::PageUp => ui.scroll.saturating_sub(PAGE),
            Action::PageDown => ui.scroll.saturating_add(PAGE),
            Action::Last => u16::MAX,
            _ => 0,
        };
        return;
    }
    let page = isize::try_from(rows::page(ui).saturating_sub(1).max(1)).unwrap_or(isize::MAX);
    match action {
        Action::Up => rows::go(ui, scene, -1),
        Action::Down => rows::go(ui, scene, 1),
        Action::PageUp => rows::go(ui, scene, -page),
        Action::PageDown => rows::go(ui, scene, page),
        Action::Last => rows::choose(ui, scene, usize::MAX),
        _ => rows::choose(ui, scene, 0),
    }
}

fn neighbour(view: View, step: usize) -> View {
    let place = View::ALL.iter().position(|one| *one == view).unwrap_or(0);
    View::ALL[(place + step) % View::ALL.len()]
}

/// To a view; what was open is closed.
fn switch(ui: &mut Ui, view: View) {
    help(ui, false);
    shut(ui);
    ui.view = view;
}

fn shut(ui: &mut Ui) {
    if ui.open.take().is_some() && ui.view == View::Tds {
        ui.asks.push(Ask::Td(None));
    }
    ui.scroll = 0;
}

fn close(ui: &mut Ui, scene: &Scene) {
    if ui.help {
        return help(ui, false);
    }
    if ui.open.is_some() {
        return shut(ui);
    }
    let view = ui.view;
    let list = ui.list(view);
    if !list.filter.is_empty() {
        list.filter = Default::default();
        rows::arrange(ui, scene);
    }
}

fn open_td(ui: &mut Ui, id: u32) {
    switch(ui, View::Tds);
    ui.list(View::Tds).item = Some(Item::Td(id));
    ui.open = Some(id.into());
    ui.asks.push(Ask::Td(Some(id)));
}

fn open_violation(ui: &mut Ui, number: u64) {
    switch(ui, View::Violations);
    ui.list(View::Violations).item = Some(Item::Violation(number));
    ui.open = Some(number);
}

/// Opens what is chosen: a TD, a violation, or what a line is about.
fn open(ui: &mut Ui, scene: &Scene) {
    let row = rows::chosen(ui);
    match ui.view {
        View::Overview if scene.violations.is_empty() => switch(ui, View::Tds),
        View::Overview => switch(ui, View::Violations),
        View::Tds => match row.and_then(|row| scene.tds.get(row)) {
            Some(td) if ui.open.is_none() => open_td(ui, td.id),
            _ => {}
        },
        View::Violations => match (ui.open, violation(ui, scene)) {
            (None, Some(found)) => open_violation(ui, found.number),
            (Some(_), Some(found)) => match found.verdict.td {
                Some(td) if scene.tds.iter().any(|row| row.id == td) => open_td(ui, td),
                _ => ui.tell("its TD is not known any more"),
            },
            _ => {}
        },
        View::Log => {
            let Some(line) = row.and_then(|row| scene.log.get(row)) else { return };
            let found = scene.violations.iter().find(|found| found.verdict.time_ns == line.time_ns);
            match (found.filter(|_| line.weight == Weight::Violation), line.td) {
                (Some(found), _) => open_violation(ui, found.number),
                (None, Some(td)) if scene.tds.iter().any(|row| row.id == td) => open_td(ui, td),
                _ => ui.tell("this line is about no TD and no violation that is known"),
            }
        }
        View::Seamcalls | View::Policy => {}
    }
}

/// The violation that is open or chosen.
fn violation(ui: &Ui, scene: &Scene) -> Option<Arc<Found>> {
    if ui.view != View::Violations {
        return None;
    }
    match ui.open {
        Some(number) => scene.violations.iter().find(|found| found.number == number),
        None => rows::chosen(ui).and_then(|row| scene.violations.get(row)),
    }
    .cloned()
}

fn find(ui: &mut Ui, action: Action) {
    if !ui.view.has_table() {
        return ui.tell("there is no table here: views 2 to 6 have one");
    }
    shut(ui);
    let view = ui.view;
    if action == Action::Filter {
        let filter = ui.list(view).filter.clone();
        ui.input = Some(Input::new(Purpose::Filter, &filter.text));
        ui.before = Some(filter);
    } else {
        ui.input = Some(Input::new(Purpose::Search, ""));
    }
}

fn again(ui: &mut Ui, scene: &Scene, forward: bool) {
    if ui.search.is_empty() {
        return ui.tell("nothing was searched for yet");
    }
    shut(ui);
    let text = ui.search.clone();
    let hit = rows::search(ui, scene, &text, forward, false);
    tell_hit(ui, hit, &text);
}

fn tell_hit(ui: &mut Ui, hit: Hit, text: &str) {
    match hit {
        Hit::Here => {}
        Hit::Around => ui.tell("went on at the other end"),
        Hit::Nowhere => ui.tell(format!("no row has {text:?}")),
    }
}

/// Sorts by a column; by the one that it is sorted by already, the other way round.
fn sort_by(ui: &mut Ui, scene: &Scene, key: &str) {
    let view = ui.view;
    let list = ui.list(view);
    let largest_first = match &list.sort {
        Some((sorted, largest_first)) if sorted == key => !largest_first,
        _ => kind(key) != Kind::Text,
    };
    list.sort = Some((key.to_owned(), largest_first));
    sorted(ui, scene);
}

/// What was sorted is looked at from the top.
fn sorted(ui: &mut Ui, scene: &Scene) {
    let view = ui.view;
    let list = ui.list(view);
    list.item = None;
    list.top = 0;
    let by = list.sort.clone();
    rows::arrange(ui, scene);
    match by {
        Some((key, true)) => ui.tell(format!("by {key}, the largest first")),
        Some((key, false)) => ui.tell(format!("by {key}")),
        None => ui.tell("as it comes"),
    }
}

/// By the next column that is shown, after the last one as it comes.
fn sort_neighbour(ui: &mut Ui, scene: &Scene, next: bool) {
    let view = ui.view;
    let list = ui.list(view);
    let mut keys = rows::keys(view);
    keys.retain(|key| !list.hidden.iter().any(|hidden| hidden == key));
    let now = list.sort.as_ref().and_then(|(sorted, _)| keys.iter().position(|key| key == sorted));
    let to = match (now, next) {
        (None, true) => Some(0),
        (None, false) => keys.len().checked_sub(1),
        (Some(now), true) => now.checked_add(1),
        (Some(now), false) => now.checked_sub(1),
    };
    list.sort = to.and_then(|to| keys.get(to)).map(|key| ((*key).to_owned(), kind(key) != Kind::Text));
    if !keys.is_empty() {
        sorted(ui, scene);
    }
}

fn reverse(ui: &mut Ui, scene: &Scene) {
    let view = ui.view;
    let list = ui.list(view);
    // The other way round than it comes, where it is not sorted.
    let (key, largest_first) = match (&list.sort, view) {
        (Some((key, largest_first)), _) => (key.as_str(), !largest_first),
        (None, View::Overview) => return,
        (None, View::Tds) => ("td", true),
        (None, View::Violations) => ("number", false),
        (None, View::Seamcalls) => ("rate", false),
        (None, View::Policy) => ("state", false),
        (None, View::Log) => ("age", false),
    };
    list.sort = Some((key.to_owned(), largest_first));
    sorted(ui, scene);
}

fn record(ui: &mut Ui, scene: &Scene) {
    if matches!(scene.about.source, Source::Recording(_)) {
        return ui.tell("this is a recording already");
    }
    ui.asks.push(Ask::Record);
    match &scene.about.recording {
        Some(file) => ui.tell(format!("the recording ends: {file}")),
        None => ui.tell("a recording begins"),
    }
}

/// Whether the policy can be armed: its name, or why it cannot.
fn armable(scene: &Scene) -> Result<&str, String> {
    let Some(policy) = &scene.policy else { return Err(no_policy(scene)) };
    let name = &policy.name;
    if policy.armed {
        Err(format!("{name} is armed already"))
    } else if !policy.may_be_armed {
        Err(format!("{name} does not say armed = true: it is always a dry run"))
    } else {
        Ok(name)
    }
}

fn no_policy(scene: &Scene) -> String {
    match scene.about.source {
        Source::Recording(_) => "nothing is reacted to in a recording".to_owned(),
        Source::Live | Source::Demo(_) => "no policy is followed: start with --policy".to_owned(),
    }
}

fn arm(ui: &mut Ui, scene: &Scene) {
    match armable(scene) {
        Ok(name) => ui.input = Some(Input::new(Purpose::Arm(name.to_owned()), "")),
        Err(why) => ui.tell(format!("not armed: {why}")),
    }
}

fn disarm(ui: &mut Ui, scene: &Scene) {
    match &scene.policy {
        None => ui.tell(no_policy(scene)),
        Some(policy) if !policy.armed => ui.tell(format!("{} is not armed", policy.name)),
        Some(_) => ui.input = Some(Input::new(Purpose::Disarm, "")),
    }
}

#[cfg(test)]
mod tests;
