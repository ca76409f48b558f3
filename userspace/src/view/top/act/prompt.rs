//! The line that is typed.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{Effect, armable, tell_hit, travel};
use crate::view::top::{
    filter::Filter,
    rows,
    scene::{Ask, Scene},
    ui::{Input, Purpose, Ui},
};

/// A key was pressed while a line is typed.
pub fn typed(ui: &mut Ui, scene: &Scene, key: KeyEvent) -> Effect {
    let Some(input) = &mut ui.input else { return Effect::None };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let alt = key.modifiers.contains(KeyModifiers::ALT);
    match key.code {
        KeyCode::Enter => {
            enter(ui, scene);
            return Effect::None;
        }
        KeyCode::Esc => {
            cancel(ui, scene);
            return Effect::None;
        }
        KeyCode::Char(c) if control => match c.to_ascii_lowercase() {
            'c' | 'g' => {
                cancel(ui, scene);
                return Effect::None;
            }
            'l' => return Effect::Redraw,
            'z' => return Effect::Suspend,
            'a' => input.home(),
            'b' => input.left(),
            'd' => input.delete(),
            'e' => input.end(),
            'f' => input.right(),
            'h' => input.backspace(),
            'k' => input.erase_rest(),
            'u' => input.erase(),
            'w' => input.erase_word(),
            _ => return Effect::None,
        },
        KeyCode::Backspace if control || alt => input.erase_word(),
        KeyCode::Backspace => input.backspace(),
        KeyCode::Delete => input.delete(),
        KeyCode::Left => input.left(),
        KeyCode::Right => input.right(),
        KeyCode::Home => input.home(),
        KeyCode::End => input.end(),
        KeyCode::Char(c) if !alt => input.insert(c.encode_utf8(&mut [0; 4])),
        _ => return Effect::None,
    }
    changed(ui, scene);
    Effect::None
}

/// A text was pasted: into the line that is typed, or nowhere.
pub fn pasted(ui: &mut Ui, scene: &Scene, text: &str) {
    if let Some(input) = &mut ui.input {
        input.insert(text);
        changed(ui, scene);
    }
}

/// What is typed of a filter is shown as soon as it makes sense.
fn changed(ui: &mut Ui, scene: &Scene) {
    let view = ui.view;
    let Some(input) = &mut ui.input else { return };
    input.error = None;
    if input.purpose == Purpose::Filter
        && let Some(filter) = Filter::preview(&input.text, view)
    {
        ui.list(view).filter = filter;
        rows::arrange(ui, scene);
    }
}

fn cancel(ui: &mut Ui, scene: &Scene) {
    let Some(input) = ui.input.take() else { return };
    match input.purpose {
        Purpose::Filter => {
            let view = ui.view;
            if let Some(before) = ui.before.take() {
                ui.list(view).filter = before;
                rows::arrange(ui, scene);
            }
        }
        Purpose::Arm(_) => ui.tell("not armed"),
        Purpose::Disarm => ui.tell("not disarmed"),
        Purpose::Search | Purpose::Go => {}
    }
}

fn enter(ui: &mut Ui, scene: &Scene) {
    let Some(input) = ui.input.take() else { return };
    let text = input.text.trim();
    match &input.purpose {
        Purpose::Filter => {
            let view = ui.view;
            match Filter::parse(text, view) {
                Ok(filter) => {
                    ui.list(view).filter = filter;
                    ui.before = None;
                    rows::arrange(ui, scene);
                }
                Err(error) => ui.input = Some(Input { error: Some(error.to_string()), ..input }),
            }
        }
        Purpose::Search => {
            if !text.is_empty() {
                text.clone_into(&mut ui.search);
            }
            let text = ui.search.clone();
            if !text.is_empty() {
                let hit = rows::search(ui, scene, &text, true, !input.text.trim().is_empty());
                tell_hit(ui, hit, &text);
            }
        }
        // The policy may be another one by now.
        Purpose::Arm(name) if text == name => match armable(scene) {
            Ok(now) if now == name => {
                ui.asks.push(Ask::Arm(name.clone()));
                ui.tell(format!("{name} is being armed"));
            }
            Ok(now) => ui.tell(format!("not armed: the policy is {now} now")),
            Err(why) => ui.tell(format!("not armed: {why}")),
        },
        Purpose::Arm(name) => ui.tell(format!("not armed: {text:?} is not the policy's name, {name}")),
        Purpose::Disarm if text == "disarm" => {
            ui.asks.push(Ask::Disarm);
            ui.tell("the policy is being disarmed");
        }
        Purpose::Disarm => ui.tell(format!("not disarmed: {text:?} is not \"disarm\"")),
        Purpose::Go if text.is_empty() => {}
        Purpose::Go => {
            if let Err(error) = travel::go_to(ui, scene, text) {
                ui.input = Some(Input { error: Some(error), ..input });
            }
        }
    }
}
