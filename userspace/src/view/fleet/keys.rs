//! What keys do.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{Effect, Page, Ui};
use crate::fleet::model::Fleet;

impl Ui {
    /// Does what a key says. `now_ns`: since 1970.
    pub fn key(&mut self, key: KeyEvent, fleet: &Fleet, now_ns: u64) -> Effect {
        if key.kind == KeyEventKind::Release {
            return Effect::None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Effect::Quit,
                KeyCode::Char('z') => Effect::Suspend,
                KeyCode::Char('l') => Effect::Redraw,
                _ => Effect::None,
            };
        }
        if self.typing {
            self.typed(key.code);
            return Effect::None;
        }
        let page = isize::try_from(self.fit.max(1)).unwrap_or(isize::MAX);
        match key.code {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.travel(-1),
            KeyCode::Down | KeyCode::Char('j') => self.travel(1),
            KeyCode::PageUp => self.travel(-page),
            KeyCode::PageDown => self.travel(page),
            KeyCode::Home | KeyCode::Char('g') => self.travel(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.travel(isize::MAX),
            KeyCode::Enter | KeyCode::Right => return self.open(fleet, now_ns),
            KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => self.back(),
            KeyCode::Tab => {
                if let Page::Host(_, tds) = &mut self.page {
                    *tds = !*tds;
                }
            }
            KeyCode::Char('/') if self.page == Page::Hosts => self.typing = true,
            KeyCode::Char('s') if self.page == Page::Hosts => {
                self.order = self.order.next();
                self.chosen[0] = 0;
            }
            _ => {}
        }
        Effect::None
    }

    /// Text that was pasted.
    pub fn paste(&mut self, text: &str) {
        if self.typing {
            self.filter.extend(text.chars().filter(|letter| !letter.is_control()));
            self.chosen[0] = 0;
        }
    }

    fn typed(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
        self.chosen[0] = 0;
    }

    fn travel(&mut self, by: isize) {
        let last = self.rows.saturating_sub(1);
        let chosen = &mut self.chosen[self.at()];
        *chosen = chosen.saturating_add_signed(by).min(last);
    }

    fn open(&mut self, fleet: &Fleet, now_ns: u64) -> Effect {
        match &self.page {
            Page::Hosts => {
                if let Some((name, ..)) = self.hosts(fleet, now_ns).get(self.chosen[0]) {
                    self.page = Page::Host((*name).to_owned(), false);
                    self.chosen[1..].fill(0);
                }
            }
            Page::Host(name, false) => {
                let host = fleet.hosts.get(name);
                if let Some(seen) = host.and_then(|host| host.recent.iter().rev().nth(self.chosen[1])) {
                    self.page = Page::Event(name.clone(), seen.message, None);
                    self.chosen[3] = 0;
                    return Effect::Fetch(seen.message);
                }
            }
            Page::Host(_, true) | Page::Event(..) => {}
        }
        Effect::None
    }

    fn back(&mut self) {
        self.page = match std::mem::take(&mut self.page) {
            Page::Hosts | Page::Host(..) => Page::Hosts,
            Page::Event(name, ..) => Page::Host(name, false),
        };
    }
}
