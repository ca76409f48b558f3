//! A screen of any size, changed at any time, in colours or without, in ASCII or beyond.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use crate::{
    binary,
    screen::{GOLDEN, SOON, Top, command},
};
use septwatch_pty::Color;

#[test]
fn a_resize_leaves_nothing_behind() {
    binary!();
    for view in ["overview", "tds", "violations", "seamcalls", "policy", "log"] {
        let mut top = Top::start(&[GOLDEN, "--view", view], (80, 24));
        top.sees("(7)").still();
        for (columns, rows) in [(250, 70), (40, 12), (120, 40), (80, 24)] {
            top.terminal.resize(columns, rows).unwrap();
            let mut fresh = Top::start(&[GOLDEN, "--view", view], (columns, rows));
            let begun = Instant::now();
            while top.still() != fresh.still() {
                let (resized, fresh) = (top.terminal.text(), fresh.terminal.text());
                assert!(
                    begun.elapsed() < SOON,
                    "{view} at {columns}x{rows}:\n{resized}\n--- instead of\n{fresh}"
                );
            }
            fresh.press("q").ends(1);
        }
        top.press("q").ends(1);
    }
}

#[test]
fn no_size_is_too_small() {
    binary!();
    let mut top = Top::golden((80, 24));
    for (columns, rows) in [(1, 1), (2, 1), (1, 30), (500, 1), (10, 3), (80, 24)] {
        top.terminal.resize(columns, rows).unwrap();
        // Not esc: with the next key right behind it, where this program had no time between, it is alt and that key.
        for keys in ["1", "2 enter", "3 enter", "4", "5", "6", "?", "? /", "enter"] {
            top.press(keys);
        }
        top.still();
    }
    top.press("1").sees("7 violations").press("q").ends(1);
}

/// What SGR sequences say of colours, other than to take the terminal's own.
fn colours(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let sequences = text.split("\x1b[").skip(1).filter_map(|rest| rest.split_once('m').map(|(sgr, _)| sgr));
    let sgr = sequences.filter(|sgr| sgr.chars().all(|c| c.is_ascii_digit() || c == ';' || c == ':'));
    let is_colour = |part: &str| {
        part.parse().is_ok_and(|part: u8| matches!(part, 30..=38 | 40..=48 | 90..=97 | 100..=107))
    };
    sgr.filter(|sgr| sgr.split([';', ':']).any(is_colour)).map(str::to_owned).collect()
}

#[test]
fn no_color_means_none() {
    binary!();
    for no_color in [false, true] {
        let mut top = Top::start_as(&[GOLDEN], (120, 40), |command| {
            if no_color {
                command.env("NO_COLOR", "1");
            }
        });
        top.sees("7 violations");
        for view in ["2", "3", "enter", "4", "5", "6", "?"] {
            top.press(view).still();
        }
        top.press("q").ends(1);
        let colours = colours(&top.terminal.output().bytes);
        assert_eq!(colours.is_empty(), no_color, "{colours:?}");
    }
}

#[test]
fn what_is_chosen_is_seen_without_colours() {
    binary!();
    let mut top = Top::start_as(&[GOLDEN], (120, 40), |command| {
        command.env("NO_COLOR", "1");
    });
    top.sees("7 violations").press("3").still();
    let (column, row) = top.terminal.find("teardown-leak").unwrap();
    let screen = top.terminal.screen();
    let cell = screen.cell(row, column).unwrap();
    assert!(cell.inverse() && cell.fgcolor() == Color::Default);
    top.press("q").ends(1);
}

#[test]
fn ascii_where_the_language_has_no_more() {
    binary!();
    let mut top = Top::start_as(&[GOLDEN], (120, 40), |command| {
        command.env("LC_ALL", "C");
    });
    top.sees("7 violations");
    for view in ["2", "enter", "3", "enter", "4", "5", "6", "?"] {
        top.press(view).still();
    }
    top.press("q").ends(1);
    let output = top.terminal.output();
    let beyond: Vec<_> = output.bytes.iter().filter(|byte| !byte.is_ascii()).collect();
    assert!(beyond.is_empty(), "{beyond:?}");
}

#[test]
fn without_a_terminal_there_is_another_way() {
    binary!();
    let folder = tempfile::tempdir().unwrap();
    let run = |mut command: Command| {
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap(), output.stdout)
    };
    let (code, told, printed) = run(command(folder.path(), &[GOLDEN]));
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("--once") && told.contains("--json") && printed.is_empty(), "{told}");
    // The other way.
    let (code, _, printed) = run(command(folder.path(), &[GOLDEN, "--once"]));
    let printed = String::from_utf8(printed).unwrap();
    assert!(code == Some(1) && printed.contains("7 violations") && !printed.contains('\x1b'), "{printed}");

    let mut top = Top::start_as(&[GOLDEN], (120, 40), |command| {
        command.env("TERM", "dumb");
    });
    assert_eq!(top.terminal.wait().unwrap().code(), Some(2), "{}", top.terminal.text());
    top.sees("--once").sees("--json");
    assert_eq!(top.terminal.modes().unwrap(), *top.terminal.before());
}
