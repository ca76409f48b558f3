use std::{
    cell::{Cell, RefCell},
    mem,
};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseEvent};

use super::*;
use crate::view::top::{
    scene::{Ask, Time},
    ui::View,
};

/// Makes a scene whenever it is told to.
#[derive(Default)]
struct Made {
    scene: RefCell<Arc<Scene>>,
    asks: RefCell<Vec<Ask>>,
    looks: Cell<u32>,
}

impl Made {
    fn make(&self, now_ns: u64) {
        let time = Time { begin_ns: 0, end_ns: 1 << 40, now_ns, ..Time::default() };
        *self.scene.borrow_mut() = Arc::new(Scene { time, ..Scene::default() });
    }
}

impl Feed for Made {
    fn latest(&self) -> Arc<Scene> {
        self.looks.set(self.looks.get() + 1);
        Arc::clone(&self.scene.borrow())
    }

    fn ask(&self, ask: Ask) {
        self.asks.borrow_mut().push(ask);
    }

    fn ended(&self) -> bool {
        false
    }
}

fn key(code: KeyCode) -> Event {
    Event::Key(KeyEvent::new(code, KeyModifiers::NONE))
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn nothing_is_drawn_as_long_as_nothing_changes() {
    let (feed, config, begin) = (Made::default(), Config::default(), Instant::now());
    let mut turn = Turn::new(&feed, Ui::default(), &config, begin);
    assert!(turn.is_due(begin));
    assert_eq!(turn.wait(begin), Duration::ZERO);
    turn.drawn(begin);
    let mut now = begin;
    let (mut drawn, mut turns) = (0, 0);
    while now < begin + 10_000 * MS {
        now += turn.wait(now).max(MS);
        turn.refresh(now);
        drawn += u32::from(turn.is_due(now));
        turns += 1;
    }
    assert_eq!((drawn, feed.looks.get()), (0, 41));
    assert!(turns <= 41, "{turns}");
    // As often as a new scene comes, but no oftener than 4 times a second.
    for step in 0..100 {
        feed.make(step);
        now += 25 * MS;
        turn.refresh(now);
        if turn.is_due(now) {
            turn.drawn(now);
            drawn += 1;
        }
    }
    assert!((9..=11).contains(&drawn), "{drawn}");
}

#[test]
fn a_key_is_answered_at_once_but_not_oftener_than_can_be_seen() {
    let (feed, config, begin) = (Made::default(), Config::default(), Instant::now());
    let mut turn = Turn::new(&feed, Ui::default(), &config, begin);
    turn.drawn(begin);
    let mut drawn = 0;
    // A key that is held down: 500 a second.
    for step in 1..=500 {
        let now = begin + step * 2 * MS;
        turn.event(key(KeyCode::Tab));
        turn.refresh(now);
        if turn.is_due(now) {
            turn.drawn(now);
            drawn += 1;
        }
    }
    assert!((55..=63).contains(&drawn), "{drawn}");
    let now = begin + 2_000 * MS;
    turn.drawn(now - 100 * MS);
    turn.event(key(KeyCode::Tab));
    assert!(turn.is_due(now));
    turn.drawn(now);
    let moved = MouseEvent { kind: MouseEventKind::Moved, column: 1, row: 1, modifiers: KeyModifiers::NONE };
    turn.event(Event::Mouse(moved));
    assert!(!turn.is_due(now + 100 * MS));
    turn.event(Event::Resize(1, 1));
    assert!(turn.is_due(now + 100 * MS));
}

#[test]
fn what_is_asked_for_is_waited_for_eagerly() {
    let (feed, config, begin) = (Made::default(), Config::default(), Instant::now());
    feed.make(1 << 40);
    let mut turn = Turn::new(&feed, Ui::default(), &config, begin);
    turn.drawn(begin);
    turn.event(key(KeyCode::Left));
    let now = begin + 20 * MS;
    turn.refresh(now);
    turn.drawn(now);
    let asked = mem::take(&mut *feed.asks.borrow_mut());
    let moment = (1 << 40) - 1_000_000_000;
    assert_eq!(asked, [Ask::Go(moment)]);
    assert!(turn.wait(now) <= SOON);
    feed.make(moment);
    let now = now + SOON;
    turn.refresh(now);
    assert!(turn.is_due(now + LEAST));
    assert_eq!((turn.scene().time.now_ns, turn.ui.going), (moment, None));
}

#[test]
fn a_pause_keeps_the_scene_and_a_word_goes_after_some_seconds() {
    let (feed, config, begin) = (Made::default(), Config::default(), Instant::now());
    feed.make(1);
    let mut turn = Turn::new(&feed, Ui { view: View::Log, ..Ui::default() }, &config, begin);
    turn.event(key(KeyCode::Char(' ')));
    turn.drawn(begin);
    feed.make(2);
    turn.refresh(begin + 1_000 * MS);
    assert_eq!((turn.scene().time.now_ns, turn.is_due(begin + 1_000 * MS)), (1, false));
    turn.event(key(KeyCode::Char(' ')));
    turn.refresh(begin + 2_000 * MS);
    assert_eq!(turn.scene().time.now_ns, 2);
    turn.ui.tell("a word");
    let now = Instant::now() + TOLD + MS;
    turn.drawn(now);
    turn.refresh(now);
    assert!(turn.ui.told.is_none() && turn.is_due(now + LEAST));
    turn.event(key(KeyCode::Char('q')));
    assert!(turn.is_over());
}
