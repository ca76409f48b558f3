//! The terminal is given back as it was, however the program is left.

use std::process::Command;

use rustix::process::Signal;
use septwatch_pty::Terminal;

use crate::{
    binary,
    screen::{GOLDEN, SOON, Top, command},
};

#[test]
fn signals_give_the_terminal_back() {
    binary!();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let mut top = Top::golden((100, 30));
        let taken = top.terminal.modes().unwrap();
        assert!(
            taken.alternate_screen && taken.hidden_cursor && taken.bracketed_paste && taken.mouse,
            "{taken:?}"
        );
        assert_ne!(taken.line, top.terminal.before().line);
        top.terminal.signal(signal).unwrap();
        // As after q: the recording has violations.
        top.ends(1);
    }
}

/// What is looked at in all these tests does change.
#[test]
fn a_kill_does_not_give_it_back() {
    binary!();
    let mut top = Top::golden((100, 30));
    top.terminal.signal(Signal::KILL).unwrap();
    assert_eq!(top.terminal.wait().unwrap().code(), None);
    let (left, before) = (top.terminal.modes().unwrap(), top.terminal.before());
    assert!(
        left.line != before.line && left.alternate_screen && left.hidden_cursor && left.mouse,
        "{left:?}"
    );
}

#[test]
fn it_can_be_left_in_the_middle_of_anything() {
    binary!();
    for keys in ["q", "ctrl-c", "f1 q", "3 enter q", "/ ctrl-c ctrl-c", "space q"] {
        let mut top = Top::golden((100, 30));
        top.press(keys);
        top.ends(1);
    }
}

#[test]
fn a_shell_gets_the_terminal_and_gives_it_again() {
    binary!();
    let folder = tempfile::tempdir().unwrap();
    let top = command(folder.path(), &[GOLDEN]);
    let mut shell = Command::new("sh");
    shell.arg("-i").current_dir(folder.path()).env("PS1", "READY$ ").env("ENV", "/dev/null");
    shell.env("XDG_CONFIG_HOME", folder.path());
    let mut terminal = Terminal::start(shell, 100, 30).unwrap();
    terminal.wait_for("READY$", SOON).unwrap();
    let before = terminal.modes().unwrap();
    let line = format!("{} top {GOLDEN}\r", top.get_program().display());
    terminal.type_text(&line).unwrap();
    terminal.wait_for("7 violations", SOON).unwrap();
    for _ in 0..2 {
        let shown = settled(&mut terminal);
        terminal.send("ctrl-z").unwrap();
        terminal.wait_gone("7 violations", SOON).unwrap();
        terminal.wait_for("READY$", SOON).unwrap();
        terminal.settled(SOON).unwrap();
        assert_eq!(terminal.modes().unwrap(), before);
        terminal.type_text("fg\r").unwrap();
        terminal.wait_for("7 violations", SOON).unwrap();
        assert_eq!(settled(&mut terminal), shown);
        let again = terminal.modes().unwrap();
        assert!(again.alternate_screen && again.hidden_cursor && again.mouse, "{again:?}");
        terminal.send("2").unwrap();
        terminal.wait_for("bugged", SOON).unwrap();
        terminal.send("1").unwrap();
        terminal.wait_for("Lent memory", SOON).unwrap();
    }
    terminal.send("q").unwrap();
    terminal.wait_gone("Lent memory", SOON).unwrap();
    terminal.settled(SOON).unwrap();
    assert_eq!(terminal.modes().unwrap(), before);
}

fn settled(terminal: &mut Terminal) -> String {
    terminal.settled(SOON).unwrap();
    terminal.text()
}

#[test]
fn after_a_stop_everything_is_drawn_again() {
    binary!();
    let mut top = Top::golden((100, 30));
    let shown = top.still();
    top.terminal.signal(Signal::STOP).unwrap();
    // Somebody else writes across the screen meanwhile.
    top.terminal.scribble("\x1b[2J\x1b[Hscribbled").unwrap();
    top.sees("scribbled");
    top.terminal.signal(Signal::CONT).unwrap();
    top.sees("7 violations");
    assert_eq!(top.still(), shown);
    top.press("q").ends(1);
}

#[test]
fn what_is_pasted_is_no_keys() {
    binary!();
    let mut top = Top::golden((100, 30));
    top.terminal.paste("q2q").unwrap();
    top.still();
    top.press("3 /").terminal.paste("violation=zap-failed").unwrap();
    top.press("enter").misses("map-failed").sees("zap-failed");
    top.press("q").ends(1);
}

#[test]
fn noise_on_standard_error_is_in_the_log_and_not_across_the_screen() {
    binary!();
    let mut top = Top::golden((100, 30));
    let shown = top.still();
    let stderr = format!("/proc/{}/fd/2", top.terminal.pid());
    std::fs::write(stderr, "some library complains\n").unwrap();
    top.press("6").sees("some library complains");
    top.press("1").sees("Lent memory");
    assert_eq!(top.still(), shown);
    top.press("q").ends(1);
}
