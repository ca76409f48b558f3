#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use crossterm::event::{KeyCode, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use proptest::prelude::*;
use ratatui::layout::Rect;

use super::*;
use crate::view::top::{
    examples::{self, SECOND},
    scene::{Policy, Time},
    ui::Target,
};

/// Somebody in front of the screen.
struct Person {
    ui: Ui,
    scene: Scene,
    map: KeyMap,
    effect: Effect,
}

impl Person {
    fn new(view: View) -> Self {
        let ui = Ui { view, ..Ui::default() };
        let mut person =
            Self { ui, scene: examples::scene(), map: KeyMap::new([]).unwrap(), effect: Effect::None };
        person.see();
        person
    }

    fn see(&mut self) {
        rows::arrange(&mut self.ui, &self.scene);
    }

    /// Presses keys by name: what is no name is typed.
    fn press(&mut self, keys: &[&str]) -> &mut Self {
        for name in keys {
            if let Ok(named) = name.parse::<Key>() {
                self.effect = key(&mut self.ui, &self.scene, &self.map, named.event());
            } else {
                for c in name.chars() {
                    let event = KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE);
                    self.effect = key(&mut self.ui, &self.scene, &self.map, event);
                }
            }
            self.see();
        }
        self
    }

    fn click(&mut self, column: u16, row: u16) -> &mut Self {
        self.at(MouseEventKind::Down(MouseButton::Left), column, row)
    }

    fn at(&mut self, kind: MouseEventKind, column: u16, row: u16) -> &mut Self {
        let event = MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
        self.effect = mouse(&mut self.ui, &self.scene, event);
        self.see();
        self
    }

    fn asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.ui.asks)
    }

    fn told(&self) -> String {
        self.ui.told.as_ref().map(|(told, _)| told.clone()).unwrap_or_default()
    }

    fn chosen(&self) -> usize {
        self.ui.lists[&self.ui.view].chosen
    }

    fn rows(&self) -> &[usize] {
        &self.ui.lists[&self.ui.view].rows
    }

    fn policy(&mut self, policy: Policy) {
        self.scene.policy = Some(Arc::new(policy));
    }

    fn recording(&mut self) {
        self.scene.about.source = Source::Recording("storm.swr".to_owned());
    }
}

#[test]
fn views_have_keys() {
    let mut person = Person::new(View::Overview);
    for (key, view) in [
        ("2", View::Tds),
        ("3", View::Violations),
        ("4", View::Seamcalls),
        ("5", View::Policy),
        ("6", View::Log),
        ("tab", View::Overview),
        ("shift-tab", View::Log),
        ("1", View::Overview),
    ] {
        assert_eq!(person.press(&[key]).ui.view, view, "{key}");
    }
    assert!(person.press(&["q"]).ui.quit);
}

#[test]
fn enter_opens_and_esc_closes() {
    let mut person = Person::new(View::Tds);
    person.press(&["j", "enter"]);
    assert_eq!((person.ui.open, person.asks()), (Some(2), vec![Ask::Td(Some(2))]));
    person.press(&["enter", "down", "down"]);
    assert_eq!((person.ui.scroll, person.chosen(), person.asks()), (2, 1, vec![]));
    person.press(&["esc"]);
    assert_eq!((person.ui.open, person.ui.scroll, person.asks()), (None, 0, vec![Ask::Td(None)]));
    // Another view closes it as well.
    person.press(&["enter", "3"]);
    assert_eq!((person.ui.open, person.asks()), (None, vec![Ask::Td(Some(2)), Ask::Td(None)]));
    // A violation; then its TD.
    person.press(&["G", "enter"]);
    assert_eq!((person.ui.open, person.asks()), (Some(1), vec![]));
    person.press(&["enter"]);
    assert_eq!((person.ui.view, person.ui.open, person.chosen()), (View::Tds, Some(1), 0));
    assert_eq!(person.asks(), [Ask::Td(Some(1))]);
}

#[test]
fn a_line_of_the_log_opens_what_it_is_about() {
    let mut person = Person::new(View::Log);
    person.press(&["enter"]);
    assert_eq!(
        (person.ui.view, person.told().as_str()),
        (View::Log, "this line is about no TD and no violation that is known")
    );
    person.press(&["up", "enter"]);
    assert_eq!((person.ui.view, person.ui.open), (View::Violations, Some(1)));
    person.press(&["6", "g", "enter"]);
    assert_eq!((person.ui.view, person.ui.open), (View::Tds, Some(1)));
}

#[test]
fn a_filter_is_seen_while_it_is_typed() {
    let mut person = Person::new(View::Tds);
    person.press(&["/", "td=web*"]);
    assert_eq!(person.rows(), [0, 1]);
    // Half of a term is no error yet, and leaves nothing out.
    for more in ["space", "bu", "sy", ">"] {
        assert_eq!(person.press(&[more]).rows(), [0, 1], "{more}");
    }
    assert_eq!(person.ui.input.as_ref().unwrap().error, None);
    person.press(&["enter"]);
    let error = person.ui.input.as_ref().unwrap().error.clone().unwrap();
    assert!(error.starts_with("busy>, character 9: a value belongs after >"), "{error}");
    person.press(&["100", "enter"]);
    assert_eq!((person.ui.input.is_none(), person.rows()), (true, &[1_usize] as &[usize]));
    // Another one that is given up brings this one back; the keys of the key map are typed.
    person.press(&["/", "ctrl-u", "q"]);
    assert_eq!(person.rows(), [3]);
    person.press(&["esc"]);
    assert_eq!((person.rows(), person.ui.quit), (&[1_usize] as &[usize], false));
    assert_eq!(person.ui.lists[&View::Tds].filter.text, "td=web* busy>100");
    person.press(&["esc"]);
    assert_eq!(person.rows().len(), 4);
    assert_eq!(
        Person::new(View::Overview).press(&["/"]).told(),
        "there is no table here: views 2 to 6 have one"
    );
}

#[test]
fn a_text_is_searched_for() {
    let mut person = Person::new(View::Tds);
    assert_eq!(person.press(&["n"]).told(), "nothing was searched for yet");
    person.press(&["f", "web", "enter"]);
    assert_eq!(person.chosen(), 0);
    assert_eq!((person.press(&["n"]).chosen(), person.told().as_str()), (1, ""));
    assert_eq!((person.press(&["n"]).chosen(), person.told().as_str()), (0, "went on at the other end"));
    assert_eq!(person.press(&["N"]).chosen(), 1);
    assert_eq!(person.press(&["f", "zz", "enter"]).told(), "no row has \"zz\"");
}

#[test]
fn columns_are_sorted_by() {
    let mut person = Person::new(View::Tds);
    person.ui.list(View::Tds).hidden = vec!["name".to_owned()];
    let sort = |person: &Person| person.ui.lists[&View::Tds].sort.clone();
    assert_eq!(sort(person.press(&["s"])), Some(("td".to_owned(), true)));
    assert_eq!(person.rows(), [3, 2, 1, 0]);
    assert_eq!(sort(person.press(&["s"])), Some(("state".to_owned(), false)));
    assert_eq!(sort(person.press(&["r"])), Some(("state".to_owned(), true)));
    assert_eq!(person.told(), "by state, the largest first");
    assert_eq!(sort(person.press(&["S", "S"])), None);
    assert_eq!(sort(person.press(&["S"])), Some(("cgroup".to_owned(), false)));
    assert_eq!(sort(person.press(&["s"])), None);
    assert_eq!(person.press(&["r"]).rows(), [3, 2, 1, 0]);
    let mut person = Person::new(View::Violations);
    assert_eq!(person.press(&["r"]).rows(), [0, 1, 2]);
    // Where there is no table, nothing happens.
    Person::new(View::Overview).press(&["s", "S", "r"]);
}

#[test]
fn arming_takes_the_name_of_the_policy() {
    let mut person = Person::new(View::Policy);
    person.press(&["A", "contian", "enter"]);
    assert_eq!(person.told(), "not armed: \"contian\" is not the policy's name, contain");
    person.press(&["A", "enter"]);
    assert_eq!(person.asks(), []);
    person.press(&["A", "contain", "esc"]);
    assert_eq!((person.told().as_str(), person.asks()), ("not armed", vec![]));
    person.press(&["A", "contain", "enter"]);
    assert_eq!(person.asks(), [Ask::Arm("contain".to_owned())]);
    // It changes while somebody types.
    person.press(&["A", "contain"]);
    person.policy(Policy { name: "other".to_owned(), may_be_armed: true, ..Policy::default() });
    person.press(&["enter"]);
    assert_eq!((person.told().as_str(), person.asks()), ("not armed: the policy is other now", vec![]));
    person.policy(Policy { name: "other".to_owned(), ..Policy::default() });
    person.press(&["A"]);
    assert!(person.ui.input.is_none());
    assert_eq!(person.told(), "not armed: other does not say armed = true: it is always a dry run");
    person.scene.policy = None;
    assert_eq!(person.press(&["A"]).told(), "not armed: no policy is followed: start with --policy");
    person.recording();
    assert_eq!(person.press(&["D"]).told(), "nothing is reacted to in a recording");
}

#[test]
fn disarming_takes_the_word() {
    let mut person = Person::new(View::Policy);
    assert_eq!(person.press(&["D"]).told(), "contain is not armed");
    person.policy(Policy {
        name: "contain".to_owned(),
        armed: true,
        may_be_armed: true,
        ..Policy::default()
    });
    assert_eq!(person.press(&["A"]).told(), "not armed: contain is armed already");
    person.press(&["D", "contain", "enter"]);
    assert_eq!(
        (person.told().as_str(), person.asks()),
        ("not disarmed: \"contain\" is not \"disarm\"", vec![])
    );
    person.press(&["D", "disarm", "enter"]);
    assert_eq!(person.asks(), [Ask::Disarm]);
}

#[test]
fn time_is_gone_through_in_steps() {
    let mut person = Person::new(View::Overview);
    assert_eq!(person.press(&["right"]).told(), "this is the latest");
    // Steps add up though the scene is not there yet.
    person.press(&["left", "left", "shift-left", "ctrl-left", "right"]);
    let moments = [999, 998, 988, 928, 929].map(|seconds| Ask::Go(seconds * SECOND));
    assert_eq!(person.asks(), moments);
    person.press(&["ctrl-right", "ctrl-right"]);
    assert_eq!(person.asks(), [Ask::Go(989 * SECOND), Ask::Go(u64::MAX)]);
    person.press(&["{"]);
    assert_eq!(person.asks(), [Ask::Go(100 * SECOND)]);
    assert_eq!(person.press(&["left"]).told(), "nothing earlier is kept");
    person.press(&["t", "90s", "enter", "t", "-1.5m", "enter", "t", "enter", "t", "later", "enter"]);
    assert_eq!(person.asks(), [Ask::Go(190 * SECOND), Ask::Go(910 * SECOND)]);
    assert!(person.ui.input.as_ref().unwrap().error.as_ref().unwrap().contains("as in 90s"));
}

#[test]
fn a_recording_is_gone_through_in_parts() {
    let mut person = Person::new(View::Overview);
    person.recording();
    person.scene.time.now_ns = 500 * SECOND;
    person.press(&["left", "shift-left", "ctrl-left", "}"]);
    let moments = [491, 401, 176, 1_000].map(|seconds| Ask::Go(seconds * SECOND));
    assert_eq!(person.asks(), moments);
    // Even the shortest has steps.
    person.ui.going = None;
    person.scene.time = Time { begin_ns: 5, end_ns: 5, now_ns: 5, ..Time::default() };
    person.press(&["left", "right", "ctrl-right"]);
    assert_eq!(person.asks(), [Ask::Go(5), Ask::Go(5)]);
}

#[test]
fn violations_are_gone_to() {
    let mut person = Person::new(View::Overview);
    person.press(&["[", "[", "[", "["]);
    assert_eq!(person.asks(), [900, 300, 200].map(|seconds| Ask::Go(seconds * SECOND)));
    assert_eq!(person.told(), "there is no violation before");
    person.press(&["]"]);
    assert_eq!(person.asks(), [Ask::Go(300 * SECOND)]);
    // Those after the moment that is shown are known by their step alone.
    person.recording();
    person.ui.going = None;
    person.scene.time.now_ns = 200 * SECOND;
    person.scene.violations = person.scene.violations[..1].to_vec().into();
    person.press(&["]", "]", "]"]);
    assert_eq!(person.asks(), [Ask::Go(500 * SECOND), Ask::Go(1_000 * SECOND)]);
    assert_eq!(person.told(), "there is no violation after");
}

#[test]
fn space_pauses_and_plays() {
    let mut person = Person::new(View::Overview);
    assert!(person.press(&["space"]).ui.paused);
    assert!(!person.press(&["space"]).ui.paused);
    assert_eq!(person.press(&["+"]).told(), "only a recording can be played at another speed");
    person.scene.time.travelling = true;
    person.press(&["space"]);
    assert_eq!(person.asks(), [Ask::Go(u64::MAX)]);
    person.recording();
    person.scene.time.now_ns = 500 * SECOND;
    person.press(&["space", "+"]);
    person.scene.time.playing = Some(2.0);
    person.press(&["+", "-", "space"]);
    let speeds = [Some(1.0), Some(1.0), Some(4.0), Some(1.0), None].map(Ask::Play);
    assert_eq!(person.asks(), speeds);
    person.scene.time.playing = Some(1024.0);
    person.press(&["+"]);
    assert_eq!(person.asks(), [Ask::Play(Some(1024.0))]);
    // At the end, it begins again.
    person.scene.time.playing = None;
    person.scene.time.now_ns = 1_000 * SECOND;
    person.press(&["space"]);
    assert_eq!(person.asks(), [Ask::Go(100 * SECOND), Ask::Play(Some(1.0))]);
}

#[test]
fn a_report_is_that_of_the_chosen_violation() {
    let mut person = Person::new(View::Violations);
    assert!(matches!(&person.press(&["y"]).effect, Effect::Copy(found) if found.number == 3));
    assert!(matches!(&person.press(&["j", "w"]).effect, Effect::Save(found) if found.number == 2));
    assert!(matches!(&person.press(&["enter", "y"]).effect, Effect::Copy(found) if found.number == 2));
    assert!(matches!(person.press(&["2", "y"]).effect, Effect::None));
    assert!(person.told().starts_with("choose a violation first"));
    for (key, effect) in
        [("T", "Theme"), ("W", "SaveLayout"), ("ctrl-z", "Suspend"), ("ctrl-l", "Redraw"), ("x", "None")]
    {
        assert_eq!(format!("{:?}", person.press(&[key]).effect), effect);
    }
}

#[test]
fn a_recording_begins_and_ends() {
    let mut person = Person::new(View::Overview);
    assert_eq!(
        (person.press(&["R"]).told().as_str(), person.asks()),
        ("a recording begins", vec![Ask::Record])
    );
    person.scene.about.recording = Some("a.swr".to_owned());
    assert_eq!(person.press(&["R"]).told(), "the recording ends: a.swr");
    person.asks();
    person.recording();
    assert_eq!(
        (person.press(&["R"]).told().as_str(), person.asks()),
        ("this is a recording already", vec![])
    );
}

#[test]
fn the_help_is_left_by_what_it_tells_of() {
    let mut person = Person::new(View::Tds);
    person.press(&["?", "down", "pgdn"]);
    assert_eq!((person.ui.help, person.ui.scroll, person.chosen()), (true, 11, 0));
    person.press(&["s"]);
    assert_eq!(
        (person.ui.help, person.ui.scroll, person.rows()),
        (false, 0, &[3_usize, 2, 1, 0] as &[usize])
    );
    assert!(!person.press(&["?", "esc"]).ui.help);
    assert!(!person.press(&["?", "?"]).ui.help);
}

#[test]
fn the_mouse_chooses_opens_sorts_and_seeks() {
    let mut person = Person::new(View::Tds);
    person.ui.targets = vec![
        (Rect::new(0, 0, 10, 1), Target::Tab(View::Tds)),
        (Rect::new(10, 0, 10, 1), Target::Tab(View::Log)),
        (Rect::new(0, 1, 5, 1), Target::Head("busy".to_owned())),
        (Rect::new(0, 2, 80, 1), Target::Row(0)),
        (Rect::new(0, 3, 80, 1), Target::Row(1)),
        (Rect::new(0, 9, 11, 1), Target::Timeline),
    ];
    person.click(3, 3);
    assert_eq!((person.chosen(), person.ui.open), (1, None));
    person.click(4, 3);
    assert_eq!((person.ui.open, person.asks()), (Some(2), vec![Ask::Td(Some(2))]));
    // Another row beside what is open is opened at once; the same one stays open.
    person.click(4, 3).click(4, 2);
    assert_eq!((person.ui.open, person.asks()), (Some(1), vec![Ask::Td(None), Ask::Td(Some(1))]));
    person.press(&["esc"]).asks();
    person.click(4, 1);
    assert_eq!(person.rows(), [1, 2, 0, 3]);
    person.click(0, 1);
    assert_eq!(person.rows(), [0, 3, 2, 1]);
    person.at(MouseEventKind::ScrollDown, 0, 0);
    assert_eq!(person.chosen(), 3);
    person.at(MouseEventKind::ScrollUp, 0, 0);
    assert_eq!(person.chosen(), 0);
    person.click(0, 9).click(5, 9).at(MouseEventKind::Drag(MouseButton::Left), 10, 9);
    assert_eq!(person.asks(), [Ask::Go(100 * SECOND), Ask::Go(550 * SECOND), Ask::Go(u64::MAX)]);
    person.click(12, 0);
    assert_eq!(person.ui.view, View::Log);
    person.click(500, 500).at(MouseEventKind::Moved, 0, 0);
    // A line that is being typed is not left.
    person.press(&["/"]).click(0, 0);
    assert_eq!((person.ui.view, person.ui.input.is_some()), (View::Log, true));
}

proptest! {
    #[test]
    fn whatever_is_done_the_choice_stays_within_the_rows(
        steps in proptest::collection::vec((0..100_usize, any::<u16>(), any::<u16>()), 0..40),
        begin in any::<u64>(), end in any::<u64>(), now in any::<u64>(),
    ) {
        let mut person = Person::new(View::Tds);
        person.scene.time = Time { begin_ns: begin, end_ns: end, now_ns: now, ..Time::default() };
        person.ui.targets = vec![
            (Rect::new(0, 0, u16::MAX, 20_000), Target::Row(usize::MAX)),
            (Rect::new(0, 20_000, u16::MAX, 20_000), Target::Timeline),
            (Rect::new(0, 40_000, 100, 20_000), Target::Head("none such".to_owned())),
        ];
        for (step, column, row) in steps {
            match Action::ALL.get(step) {
                Some(Action::Quit) => person.recording(),
                Some(action) => {
                    act(&mut person.ui, &person.scene, *action);
                }
                None if step % 3 == 0 => {
                    person.press(&["4\u{6f22}", "left", "backspace", "enter", "esc"]);
                }
                None if step % 3 == 1 => person.scene = Scene::default(),
                None => {
                    person.click(column, row);
                }
            }
            person.see();
            for list in person.ui.lists.values() {
                prop_assert!(list.rows.is_empty() || list.chosen < list.rows.len());
            }
        }
    }
}
