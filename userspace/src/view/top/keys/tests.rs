#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;

use crossterm::event::{KeyCode, KeyModifiers};

use super::*;

#[test]
fn the_default_keys_are_usable() {
    let map = KeyMap::new([]).unwrap();
    for action in Action::ALL {
        assert!(!map.keys(*action).is_empty(), "{action:?}");
        assert_eq!(Action::named(action.name()), Some(*action));
        // The help has short lines.
        assert!(action.does().len() <= 32, "{action:?}");
    }
    let names: BTreeSet<_> = Action::ALL.iter().map(|action| action.name()).collect();
    assert_eq!(names.len(), Action::ALL.len());
    for (key, action) in [
        ("1", Action::Overview),
        ("6", Action::Log),
        ("shift-tab", Action::PreviousView),
        ("G", Action::Last),
        ("shift-g", Action::Last),
        ("g", Action::First),
        ("ctrl-c", Action::Quit),
        ("ctrl-C", Action::Quit),
        ("?", Action::Help),
        ("space", Action::Pause),
        ("ctrl-left", Action::BackMost),
    ] {
        assert_eq!(map.action(key.parse().unwrap()), Some(action), "{key}");
    }
    assert_eq!(map.action("ctrl-q".parse().unwrap()), None);
}

#[test]
fn keys_read_what_they_are_called() {
    for name in [
        "a",
        "A",
        "?",
        "-",
        "+",
        "ctrl-c",
        "ctrl--",
        "alt-x",
        "shift-tab",
        "ctrl-alt-del",
        "f1",
        "f24",
        "pgdn",
        "enter",
        "esc",
        "space",
        "ctrl-space",
        "alt-shift-f5",
        "\u{e4}",
        "\u{6f22}",
        "[",
    ] {
        let key: Key = name.parse().unwrap();
        assert_eq!(key.to_string(), name);
    }
    for name in [
        "",
        "ctrl-",
        "shift-",
        "f0",
        "f25",
        "f01",
        "f+1",
        "fx",
        "Enter",
        "ctrl-ctrl-c",
        "control-c",
        "ab",
        " ",
        "\n",
        "\u{1b}",
        "e\u{301}x",
    ] {
        let error = name.parse::<Key>().unwrap_err();
        assert!(error.to_string().contains("is no key"), "{name}");
    }
}

#[test]
fn terminals_say_the_same_key_in_several_ways() {
    let none = KeyModifiers::NONE;
    let shift = KeyModifiers::SHIFT;
    for (code, modifiers, name) in [
        (KeyCode::BackTab, none, "shift-tab"),
        (KeyCode::BackTab, shift, "shift-tab"),
        (KeyCode::Tab, shift, "shift-tab"),
        (KeyCode::Char('G'), shift, "G"),
        (KeyCode::Char('g'), shift, "G"),
        (KeyCode::Char('G'), none, "G"),
        (KeyCode::Char('?'), shift, "?"),
        (KeyCode::Char('C'), KeyModifiers::CONTROL | shift, "ctrl-c"),
        (KeyCode::Char(' '), shift, "space"),
    ] {
        assert_eq!(Key::new(code, modifiers), name.parse().unwrap(), "{code:?}");
    }
}

#[test]
fn keys_are_exchanged_and_conflicts_name_both() {
    let map = KeyMap::new([("pause", vec!["P", "f9"]), ("record", vec![])]).unwrap();
    assert_eq!(map.action("P".parse().unwrap()), Some(Action::Pause));
    assert_eq!(map.action("space".parse().unwrap()), None);
    assert_eq!(map.action("R".parse().unwrap()), None);
    assert!(map.help().iter().all(|line| line.does != Action::Record.does()));
    for (given, told) in [
        (("pause", vec!["q"]), "q is for both pause and quit: give one of them other keys"),
        (("up", vec!["shift-g"]), "G is for both up and last: give one of them other keys"),
        (("quit", vec![]), "quit needs a key"),
        (("puase", vec!["p"]), "no action puase: pause?; actions: overview tds "),
        (("pause", vec!["spcae"]), "pause: \"spcae\" is no key: a character, or one of enter "),
    ] {
        let error = KeyMap::new([given]).unwrap_err().to_string();
        assert!(error.starts_with(told), "{error}");
    }
    // Twice the same is no harm; two that change places are none either.
    let map = KeyMap::new([("pause", vec!["p", "p"]), ("copy", vec!["w"]), ("save", vec!["y"])]).unwrap();
    assert_eq!(map.keys(Action::Pause).len(), 1);
    assert_eq!(map.action("y".parse().unwrap()), Some(Action::Save));
}

#[test]
fn the_help_and_the_hints_say_the_keys_that_there_are() {
    let map = KeyMap::new([("open", vec!["o"])]).unwrap();
    let help = map.help();
    assert_eq!(help.len(), Action::ALL.len());
    assert_eq!(help[0], HelpLine { keys: "1".into(), does: "the host at a glance".into(), group: "Views" });
    assert!(help.iter().any(|line| line.keys == "pgdn ctrl-f ctrl-d" && line.does == "page down"));
    // A group is in one piece.
    let mut groups: Vec<_> = help.iter().map(|line| line.group).collect();
    groups.dedup();
    assert_eq!(groups.len(), groups.iter().collect::<BTreeSet<_>>().len());
    let mut scene = Scene::default();
    for view in View::ALL {
        for open in [false, true] {
            let hints = map.hints(view, open, &scene);
            assert!(hints.iter().all(|hint| hint.group == view.title()));
            let hints: Vec<_> = hints.iter().map(|hint| (hint.keys.as_str(), hint.does.as_str())).collect();
            assert_eq!(hints[hints.len() - 2..], [("?", "help"), ("q", "quit")]);
        }
    }
    assert_eq!(map.hints(View::Tds, false, &scene)[0].keys, "o");
    let says = |scene: &Scene, word: &str| {
        let hints = map.hints(View::Overview, false, scene);
        hints.into_iter().chain(map.hints(View::Policy, false, scene)).any(|hint| hint.does == word)
    };
    assert!(says(&scene, "record") && says(&scene, "pause") && !says(&scene, "arm"));
    scene.policy = Some(std::sync::Arc::default());
    scene.about.source = Source::Recording("x".to_owned());
    assert!(!says(&scene, "record") && says(&scene, "play") && says(&scene, "arm"));
}
