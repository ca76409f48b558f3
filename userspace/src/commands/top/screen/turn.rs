//! When what is looked at, and when it is drawn.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossterm::event::{Event, KeyEventKind, MouseEventKind};

use super::Feed;
use crate::view::top::{
    act::{self, Effect},
    config::Config,
    draw::HelpLine,
    keys::KeyMap,
    rows,
    scene::Scene,
    ui::Ui,
};

/// Shortest time between two frames.
const LEAST: Duration = Duration::from_millis(16);
/// How often the feed is looked at while a person waits for an answer, and for how long.
const SOON: Duration = Duration::from_millis(33);
const EAGER: Duration = Duration::from_millis(700);
/// How long a word to the person stands.
const TOLD: Duration = Duration::from_secs(5);
/// Longest time without a look at what signals left behind.
const LONGEST: Duration = Duration::from_millis(250);

/// The screen between two looks at the terminal.
pub struct Turn<'a> {
    /// What is chosen.
    pub ui: Ui,
    feed: &'a dyn Feed,
    keys: &'a KeyMap,
    help: Vec<HelpLine>,
    every: Duration,
    scene: Arc<Scene>,
    /// Something else is to be seen than what was drawn.
    changed: bool,
    drawn: Option<Instant>,
    looked: Instant,
    asked: Option<Instant>,
}

impl<'a> Turn<'a> {
    /// Begins with what the feed has.
    pub fn new(feed: &'a dyn Feed, ui: Ui, config: &'a Config, now: Instant) -> Self {
        Self {
            ui,
            feed,
            keys: &config.keys,
            help: config.keys.help(),
            every: Duration::from_secs(1) / u32::from(config.rate.max(1)),
            scene: feed.latest(),
            changed: true,
            drawn: None,
            looked: now,
            asked: None,
        }
    }

    /// What is shown.
    pub fn scene(&self) -> &Scene {
        &self.scene
    }

    /// All is to be drawn again.
    pub fn changed(&mut self) {
        self.changed = true;
    }

    /// Whether the screen is to be left.
    pub fn is_over(&self) -> bool {
        self.ui.quit || self.feed.ended()
    }

    /// Does what an event from the terminal says.
    pub fn event(&mut self, event: Event) -> Effect {
        let (ui, scene) = (&mut self.ui, &self.scene);
        // Keys can come faster than frames: each finds the rows that the one before has left.
        if self.changed {
            rows::arrange(ui, scene);
        }
        let effect = match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => act::key(ui, scene, self.keys, key),
            Event::Mouse(mouse) if mouse.kind != MouseEventKind::Moved => act::mouse(ui, scene, mouse),
            Event::Paste(text) => {
                act::pasted(ui, scene, &text);
                Effect::None
            }
            Event::Resize(..) => Effect::None,
            _ => return Effect::None,
        };
        self.changed = true;
        effect
    }

    /// Hands on what is asked for, and looks for a new scene if it is time to.
    pub fn refresh(&mut self, now: Instant) {
        for ask in self.ui.asks.drain(..) {
            self.feed.ask(ask);
            self.asked = Some(now);
        }
        if self.ui.told.as_ref().is_some_and(|(_, since)| now.saturating_duration_since(*since) >= TOLD) {
            self.ui.told = None;
            self.changed = true;
        }
        if now < self.next_look(now) {
            return;
        }
        self.looked = now;
        if self.ui.paused {
            return;
        }
        let latest = self.feed.latest();
        if !Arc::ptr_eq(&latest, &self.scene) {
            // An answer of the source is told once.
            if let Some((number, text)) = &latest.about.told
                && self.scene.about.told.as_ref().is_none_or(|(known, _)| known != number)
            {
                self.ui.tell(text.clone());
            }
            self.scene = latest;
            self.changed = true;
            if self.ui.going.is_some_and(|(moment, _)| moment == self.scene.time.now_ns) {
                self.ui.going = None;
            }
        }
    }

    fn next_look(&self, now: Instant) -> Instant {
        let eager = self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < EAGER);
        self.looked + if eager { self.every.min(SOON) } else { self.every }
    }

    /// Whether to draw now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.changed && self.drawn.is_none_or(|drawn| now.saturating_duration_since(drawn) >= LEAST)
    }

    /// Puts the rows in order, for drawing; the scene, and what the keys do: all of them for the help, else those that are of
    /// use here.
    pub fn arrange(&mut self) -> (Arc<Scene>, Vec<HelpLine>) {
        rows::arrange(&mut self.ui, &self.scene);
        let keys = if self.ui.help {
            self.help.clone()
        } else {
            self.keys.hints(self.ui.view, self.ui.open.is_some(), &self.scene)
        };
        (Arc::clone(&self.scene), keys)
    }

    /// It was drawn.
    pub fn drawn(&mut self, now: Instant) {
        self.changed = false;
        self.drawn = Some(now);
    }

    /// How long an event from the terminal can be waited for.
    pub fn wait(&self, now: Instant) -> Duration {
        let mut until = self.next_look(now);
        if self.changed {
            until = self.drawn.map_or(now, |drawn| until.min(drawn + LEAST));
        }
        if let Some((_, since)) = &self.ui.told {
            until = until.min(*since + TOLD);
        }
        until.saturating_duration_since(now).min(LONGEST)
    }
}

#[cfg(test)]
mod tests;
